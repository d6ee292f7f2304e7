//! Workers take jobs from a queue and say when they are done; the program waits until all jobs are,
//! also those that came up on the way, and also if a worker is killed.
//!
//! `cargo run --example joinable_workers`

use multiproc::{JoinableQueue, Process, Queue, Result};

/// A part of a square picture: where it is, and how long its sides are.
type Part = (u32, u32, u32);

/// Splits large parts into four, and counts the points of small ones that lie in the circle.
fn work(parts: JoinableQueue<Part>, counts: Queue<u64>) -> Result<()> {
    for part in &parts {
        let (x, y, side) = part?;
        if side > 64 {
            let half = side / 2;
            for (x, y) in [(x, y), (x + half, y), (x, y + half), (x + half, y + half)] {
                parts.put((x, y, half))?;
            }
        } else {
            let inside = |x: u32, y: u32| u64::from(x * x + y * y < 1024 * 1024);
            let row = |y: u32| (x..x + side).map(|x| inside(x, y)).sum::<u64>();
            counts.put((y..y + side).map(row).sum::<u64>())?;
        }
        // Only now: the parts that came of it are in the queue already.
        parts.task_done()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let (parts, counts) = (JoinableQueue::new()?, Queue::new()?);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Process::spawn(work, (parts.clone(), counts.clone()))?);
    }
    parts.put((0, 0, 1024))?;
    parts.join();
    counts.close();
    let inside: u64 = counts.iter().sum::<Result<u64>>()?;
    let pi = 4.0 * inside as f64 / f64::from(1024 * 1024);
    println!(
        "{} parts; {inside} points are in the circle, so pi is about {pi:.4}",
        parts.stats().taken
    );
    assert!((pi - std::f64::consts::PI).abs() < 0.01);

    // A worker that is killed, with a job in its hands or without, keeps nobody waiting.
    let mut doomed = workers.swap_remove(0);
    doomed.kill()?;
    assert!(doomed.join().is_err());
    parts.join();
    parts.close();
    workers.iter_mut().try_for_each(|worker| worker.join()?)?;
    assert_eq!(parts.unfinished(), 0);
    Ok(())
}
