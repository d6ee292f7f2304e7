//! Workers that fill one list, and one that empties it; what an item is made of is itself shared.
//!
//! `cargo run --example manager_list`

use multiproc::manager::{List, Value};
use multiproc::{Manager, Process, Result};

/// Finds primes and appends them, a range at a time.
fn find(primes: List<u32>, next: Value<u32>, limit: u32) -> Result<u32> {
    let mut ranges = 0;
    loop {
        // One call: no two workers get the same range.
        let start = next.update(|next, step| std::mem::replace(next, *next + step), 100)?;
        if start >= limit {
            return Ok(ranges);
        }
        let is_prime =
            |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
        primes.extend((start..start + 100).filter(is_prime))?;
        ranges += 1;
    }
}

fn main() -> Result<()> {
    let manager = Manager::start()?;
    let (primes, next) = (manager.list()?, manager.value(0u32)?);
    let workers: Result<Vec<_>> =
        (0..2).map(|_| Process::spawn(find, (primes.clone(), next.clone(), 2000))).collect();
    for (number, mut worker) in workers?.into_iter().enumerate() {
        println!("worker {number} did {} ranges", worker.join()??);
    }
    // Workers append as they finish, so the list is sorted last: in the server, where it is.
    primes.sort()?;
    println!("{} primes below 2000, the last ones {:?}", primes.len()?, primes.slice(300..303)?);
    assert_eq!((primes.len()?, primes.last()?), (303, Some(1999)));

    // A list of lists: the items are proxies, and changing one changes what all of them see.
    let groups = manager.list()?;
    groups.push(manager.list_of([2u32])?)?;
    groups.get(0)?.expect("it was pushed").push(3)?;
    assert_eq!(groups.get(0)?.expect("it was pushed").snapshot()?, [2, 3]);
    Ok(())
}
