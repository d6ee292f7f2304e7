//! Timing, and spreading jobs over workers that answer one at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Seconds that `run` takes.
pub fn seconds<T>(run: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds per call of `op`, averaged over `time` after a warm-up of a quarter
/// of that (and of one call at least).
pub fn per_op(time: Duration, mut op: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut warm: u64 = 0;
    let start = Instant::now();
    while warm == 0 || start.elapsed() < time / 4 {
        op()?;
        warm += 1;
    }
    // The clock is read about every sixteenth of `time`, which hides its cost.
    let batch = (warm / 4).max(1);
    let mut done: u64 = 0;
    let start = Instant::now();
    while done == 0 || start.elapsed() < time {
        for _ in 0..batch {
            op()?;
        }
        done += batch;
    }
    Ok(start.elapsed().as_secs_f64() / done as f64)
}

/// The chunk size that Python's `Pool.map` would choose: four chunks a worker.
///
/// It serves the systems which have no map of their own.
pub fn chunk_size(items: usize, workers: usize) -> usize {
    items.div_ceil(4 * workers).max(1)
}

/// Runs `job(worker, i)` for every `i < jobs` and returns the results in order.
///
/// Each worker gets a thread of its own and takes the next index once it is
/// done with the last, so that uneven jobs balance.
pub fn spread<W, R, F>(workers: &mut [W], jobs: usize, job: F) -> Result<Vec<R>>
where
    W: Send,
    R: Send,
    F: Fn(&mut W, usize) -> Result<R> + Sync,
{
    let next = &AtomicUsize::new(0);
    let job = &job;
    let take = move |worker: &mut W| -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= jobs {
                return Ok(done);
            }
            done.push((index, job(worker, index)?));
        }
    };
    let parts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            workers.iter_mut().map(|worker| scope.spawn(move || take(worker))).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a dispatching thread panicked")))
            })
            .collect()
    });
    let mut results = Vec::with_capacity(jobs);
    for part in parts {
        results.extend(part?);
    }
    results.sort_unstable_by_key(|&(index, _)| index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_chunks_a_worker() {
        assert_eq!(chunk_size(1_000_000, 2), 125_000);
        assert_eq!(chunk_size(9, 2), 2);
        assert_eq!(chunk_size(0, 2), 1);
    }

    #[test]
    fn spread_keeps_the_order_and_reports_errors() {
        let results = spread(&mut [1, 1, 1], 100, |worker, index| Ok(index + *worker)).unwrap();
        assert!(results.into_iter().eq(1..=100));
        assert!(spread(&mut [()], 3, |(), _| -> Result<()> { Err(anyhow!("no")) }).is_err());
    }

    #[test]
    fn time_per_call() {
        let pause = Duration::from_millis(2);
        let mut calls = 0;
        let start = Instant::now();
        let each = per_op(Duration::from_millis(20), || {
            calls += 1;
            thread::sleep(pause);
            Ok(())
        });
        let (each, all) = (each.unwrap(), start.elapsed());
        // One call at least is the warm-up. A busy machine may sleep much longer.
        assert!(calls > 1);
        assert!((pause.as_secs_f64()..all.as_secs_f64()).contains(&each), "{each}");
    }
}
