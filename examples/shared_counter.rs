//! Many processes count with one counter, and no step is lost.
//!
//! A `Mutex` has its data in shared memory, and its handle travels as an argument. A process that
//! dies while it has the lock does not keep it: the next one gets it, and is told.
//!
//! `cargo run --example shared_counter`

use multiproc::{Mutex, Process};

const PROCESSES: u64 = 8;
const STEPS: u64 = 10_000;

fn count(counter: Mutex<u64>) -> multiproc::Result<()> {
    for _ in 0..STEPS {
        *counter.lock()? += 1; // an error if somebody died while counting
    }
    Ok(())
}

/// Ends in the middle of a step.
fn stumble(counter: Mutex<u64>) {
    let mut steps = counter.lock().expect("nobody died before");
    *steps += 1_000_000;
    std::process::exit(1);
}

fn main() -> multiproc::Result<()> {
    let counter = Mutex::new(0)?;
    let start = |_| Process::spawn(count, (counter.clone(),));
    let mut processes = (0..PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    processes.iter_mut().try_for_each(|process| process.join()?)?;
    let total = *counter.lock()?;
    println!("{PROCESSES} processes took {STEPS} steps each, which is {total}");
    assert_eq!(total, PROCESSES * STEPS);

    let mut process = Process::spawn(stumble, (counter.clone(),))?;
    assert!(process.join().is_err());
    let died = counter.lock().expect_err("its owner has died");
    println!("{died}");
    *died.into_guard() = total; // only we know what is right
    assert_eq!(*counter.lock()?, total, "the news is told once");
    Ok(())
}
