//! All runners start when the gun is fired: an event, which one process sets and many wait for.
//!
//! `cargo run --example starting_gun`

use multiproc::{Event, Latch, Mutex, Process};

const RUNNERS: u32 = 6;

/// Waits at the start, runs, and returns its place.
fn run(number: u32, ready: Latch, gun: Event, arrived: Mutex<u32>) -> multiproc::Result<u32> {
    ready.count_down()?;
    gun.wait();
    assert!(gun.is_set(), "no false start");
    for step in 0..100_000 * (number % 3 + 1) {
        std::hint::black_box(step);
    }
    let mut arrived = arrived.lock()?;
    *arrived += 1;
    Ok(*arrived)
}

fn main() -> multiproc::Result<()> {
    let (ready, gun, arrived) = (Latch::new(RUNNERS)?, Event::new()?, Mutex::new(0)?);
    let start = |number| Process::spawn(run, (number, ready.clone(), gun.clone(), arrived.clone()));
    let mut runners = (1..=RUNNERS).map(start).collect::<Result<Vec<_>, _>>()?;

    ready.wait()?;
    assert_eq!(*arrived.lock()?, 0, "nobody has started before the gun");
    println!("{RUNNERS} runners are at the start. Go!");
    gun.set();

    let mut places = Vec::new();
    for runner in &mut runners {
        places.push(runner.join()??);
    }
    for (number, place) in (1..).zip(&places) {
        println!("runner {number} comes in as number {place}");
    }
    places.sort_unstable();
    assert!(places.into_iter().eq(1..=RUNNERS), "each place is taken once");
    Ok(())
}
