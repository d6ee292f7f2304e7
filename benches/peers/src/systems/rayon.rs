//! `rayon`: work stealing among threads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Launcher, Pool};
use crate::primes;

pub mod arrays;

/// The system `rayon`.
pub struct Rayon;

/// A thread pool of its own, not the global one.
pub struct RayonPool {
    /// The threads.
    pool: ThreadPool,
    /// A message from each thread which ends.
    ended: mpsc::Receiver<()>,
}

/// Where the tasks of one round put their results.
struct Round {
    /// A slot per task.
    results: Vec<AtomicU64>,
    /// How many tasks are not done.
    left: AtomicUsize,
    /// Used by the last task.
    done: mpsc::Sender<()>,
}

impl Launcher for Rayon {
    type Pool = RayonPool;

    const PROCESSES: bool = false;

    fn name(&self) -> &'static str {
        "rayon"
    }

    fn start(&self, workers: usize) -> Result<RayonPool> {
        let (sender, ended) = mpsc::channel();
        let pool = ThreadPoolBuilder::new()
            .num_threads(workers)
            // Nobody is left to be told only if `stop` was not called.
            .exit_handler(move |_| sender.send(()).unwrap_or_default())
            .build()?;
        Ok(RayonPool { pool, ended })
    }
}

impl Pool for RayonPool {
    fn add(&mut self, a: u64, b: u64) -> Result<u64> {
        Ok(self.pool.install(move || a + b))
    }

    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>> {
        let (done, all_done) = mpsc::channel();
        let round = Arc::new(Round {
            results: (0..tasks).map(|_| AtomicU64::new(0)).collect(),
            left: AtomicUsize::new(usize::try_from(tasks)?),
            done,
        });
        for index in 0..round.results.len() {
            let round = Arc::clone(&round);
            self.pool.spawn(move || {
                round.results[index].store(index as u64 + 1, Ordering::Relaxed);
                // Release our result; the last one acquires those of all others.
                if round.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    round.done.send(()).unwrap_or_default();
                }
            });
        }
        if tasks > 0 {
            all_done.recv().context("a task was lost")?;
        }
        let results = round.results.iter();
        Ok(results.map(|slot| slot.load(Ordering::Relaxed)).collect())
    }

    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>> {
        Ok(self.pool.install(|| items.par_iter().map(|x| x * x).collect()))
    }

    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut sent = bytes.to_vec();
        Ok(self.pool.install(move || {
            if let Some(first) = sent.first_mut() {
                *first = !*first;
            }
            sent.clone()
        }))
    }

    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64> {
        Ok(self.pool.install(|| spans.par_iter().map(|&span| primes::count(span)).sum()))
    }

    fn worker_id(&mut self) -> Result<u32> {
        Ok(self.pool.install(std::process::id))
    }

    /// Waits for the threads by hand: dropping a `ThreadPool` only tells them to
    /// end.
    fn stop(self) -> Result<()> {
        let threads = self.pool.current_num_threads();
        drop(self.pool);
        for _ in 0..threads {
            self.ended.recv()?;
        }
        Ok(())
    }
}
