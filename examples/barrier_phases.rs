//! Processes that work in phases: each waits for all others before the next one begins.
//!
//! Heat spreads along a rod. In each phase every process computes its part from the neighbours'
//! values of the phase before, so nobody may be ahead or behind.
//!
//! `cargo run --example barrier_phases`

use multiproc::{Barrier, Process, RawArray};

const PARTIES: usize = 3;
const PART: usize = 20;
const LEN: usize = PARTIES * PART;
const PHASES: usize = 200;

/// What the value at `i` will be.
fn next(i: usize, value: impl Fn(usize) -> f64) -> f64 {
    let (left, right) = (i.saturating_sub(1), (i + 1).min(LEN - 1));
    (value(left) + value(i) + value(right)) / 3.0
}

/// Returns in how many phases this process was the leader.
fn work(part: usize, rods: [RawArray<f64>; 2], barrier: Barrier) -> multiproc::Result<usize> {
    let mut led = 0;
    for phase in 0..PHASES {
        let (old, new) = (&rods[phase % 2], &rods[(phase + 1) % 2]);
        for i in part * PART..(part + 1) * PART {
            new.set(i, next(i, |i| old.get(i).expect("a point of the rod")))?;
        }
        let result = barrier.wait()?;
        led += usize::from(result.is_leader());
    }
    Ok(led)
}

fn main() -> multiproc::Result<()> {
    let mut serial: Vec<f64> = (0..LEN).map(|i| if i < 5 { 1000.0 } else { 0.0 }).collect();
    let rods = [RawArray::from_slice(&serial)?, RawArray::from_slice(&serial)?];
    let barrier = Barrier::new(PARTIES as u32)?;
    let start = |part| Process::spawn(work, (part, rods.clone(), barrier.clone()));
    let mut processes = (0..PARTIES).map(start).collect::<Result<Vec<_>, _>>()?;
    let led = processes.iter_mut().map(|process| process.join()?);
    let led = led.collect::<multiproc::Result<Vec<usize>>>()?;
    println!("{PHASES} phases, led {led:?} times by each process");
    assert_eq!(led.iter().sum::<usize>(), PHASES, "each phase has one leader");

    for _ in 0..PHASES {
        serial = (0..LEN).map(|i| next(i, |i| serial[i])).collect();
    }
    let rod = rods[PHASES % 2].to_vec();
    println!("from {:.1} at the warm end to {:.1}", rod[0], rod[LEN - 1]);
    assert_eq!(rod, serial, "as one process computes it alone");
    Ok(())
}
