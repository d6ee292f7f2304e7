//! All runners start when the gun is fired: an event, which one process sets and many wait for.
//!
//! `cargo run --example starting_gun`

use multiproc::{Event, Latch, Mutex, Process};

const RUNNERS: u32 = 6;

/// Waits at the start, runs, and returns its place.
fn run(number: u32, ready: Latch, gun: Event, arrived: Mutex<u32>) -> u32 {
    ready.count_down().expect("a place at the start");
    gun.wait();
    let steps: u32 = (0..100_000 * (number % 3 + 1)).map(std::hint::black_box).map(|_| 1).sum();
    assert!(steps > 0);
    let mut arrived = arrived.lock().expect("nobody falls at the finish");
    *arrived += 1;
    *arrived
}

fn main() -> multiproc::Result<()> {
    let (ready, gun, arrived) = (Latch::new(RUNNERS)?, Event::new()?, Mutex::new(0)?);
    let handles = (ready.clone(), gun.clone(), arrived.clone());
    let start = |number| {
        let (ready, gun, arrived) = handles.clone();
        Process::spawn(run, (number, ready, gun, arrived))
    };
    let mut runners = (1..=RUNNERS).map(start).collect::<Result<Vec<_>, _>>()?;

    ready.wait()?;
    assert_eq!(*arrived.lock()?, 0, "nobody has started before the gun");
    println!("{RUNNERS} runners are at the start. Go!");
    gun.set();

    let mut places = runners.iter_mut().map(Process::join).collect::<Result<Vec<_>, _>>()?;
    for (number, place) in (1..).zip(&places) {
        println!("runner {number} comes in as number {place}");
    }
    places.sort_unstable();
    assert!(places.into_iter().eq(1..=RUNNERS), "each place is taken once");
    Ok(())
}
