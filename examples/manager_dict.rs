//! Writers and a reader of one dictionary, which a server process holds.
//!
//! `cargo run --example manager_dict`

use multiproc::manager::{Dict, Event};
use multiproc::{Manager, Process, Result};
use std::collections::BTreeMap;
use std::time::Duration;

const WRITERS: u32 = 3;
const EVENTS: u32 = 1000;

/// Counts what it has seen. Reading, adding and writing back in separate calls would lose what the
/// others do in between; here the addition itself runs in the server.
fn write(counts: Dict<String, u64>, who: u32) -> Result<()> {
    let kinds = ["read", "write", "error"];
    for event in 0..EVENTS {
        let kind = kinds[((event * 7 + who) % 3) as usize];
        counts.modify_or_insert(kind, 0, |count, ()| *count += 1, ())?;
    }
    counts.insert(format!("writer {who}"), u64::from(EVENTS))?;
    Ok(())
}

/// Looks at the whole dictionary from time to time: each look is a copy of one moment.
fn read(counts: Dict<String, u64>, done: Event) -> Result<u32> {
    let mut looks = 0;
    while !done.wait_timeout(Duration::from_millis(1))? {
        let now: BTreeMap<String, u64> = counts.snapshot()?.into_iter().collect();
        assert!(now.len() <= 6, "{now:?}");
        looks += 1;
    }
    Ok(looks)
}

fn main() -> Result<()> {
    let manager = Manager::start()?;
    let (counts, done) = (manager.dict()?, manager.event()?);
    let mut reader = Process::spawn(read, (counts.clone(), done.clone()))?;
    let writers: Result<Vec<_>> =
        (0..WRITERS).map(|who| Process::spawn(write, (counts.clone(), who))).collect();
    for mut writer in writers? {
        writer.join()??;
    }
    done.set()?;
    println!("the reader looked {} times", reader.join()??);
    let sum: u64 =
        counts.get_many(["read", "write", "error"].map(str::to_owned))?.iter().flatten().sum();
    for (key, count) in counts.snapshot()?.into_iter().collect::<BTreeMap<_, _>>() {
        println!("{key:>9}: {count}");
    }
    assert_eq!(sum, u64::from(WRITERS * EVENTS), "nothing was lost");
    Ok(())
}
