//! `std_threads`: threads and `mpsc` channels of the standard library, by hand.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};

use super::{Launcher, Pool};
use crate::measure::chunk_size;
use crate::primes;

pub mod arrays;
pub mod channels;
pub mod primitives;

/// The system `std_threads`.
pub struct StdThreads;

/// Threads with a channel to each, and one channel back from all of them.
pub struct ThreadsPool {
    /// The threads.
    workers: Vec<Worker>,
    /// Results of any thread.
    replies: mpsc::Receiver<Reply>,
}

/// The pool's end of a thread.
struct Worker {
    /// Jobs for this thread; closing it ends the thread.
    jobs: mpsc::Sender<Job>,
    /// The thread.
    thread: JoinHandle<()>,
}

/// What a thread is asked to do.
enum Job {
    /// `a + b`.
    Add(u64, u64),
    /// `x + 1`.
    Increment(u64),
    /// `x * x` of each item in a range.
    Square(Arc<[u64]>, Range<usize>),
    /// Invert the first byte and send a copy back.
    Echo(Vec<u8>),
    /// Count primes, taking the next span from a common counter.
    Primes(Arc<[(u64, u64)]>, Arc<AtomicUsize>),
}

/// What it answers.
enum Reply {
    /// The result of [`Job::Add`] or [`Job::Primes`].
    Number(u64),
    /// The argument and result of [`Job::Increment`].
    Incremented(u64, u64),
    /// The start of the range and the squares.
    Squares(usize, Vec<u64>),
    /// The result of [`Job::Echo`].
    Bytes(Vec<u8>),
}

impl Job {
    /// Does it, within the thread.
    fn run(self) -> Reply {
        match self {
            Job::Add(a, b) => Reply::Number(a + b),
            Job::Increment(x) => Reply::Incremented(x, x + 1),
            Job::Square(items, chunk) => {
                let start = chunk.start;
                Reply::Squares(start, items[chunk].iter().map(|x| x * x).collect())
            }
            Job::Echo(mut bytes) => {
                if let Some(first) = bytes.first_mut() {
                    *first = !*first;
                }
                Reply::Bytes(bytes.clone())
            }
            Job::Primes(spans, next) => {
                let take = || spans.get(next.fetch_add(1, Ordering::Relaxed));
                Reply::Number(std::iter::from_fn(take).map(|&s| primes::count(s)).sum())
            }
        }
    }
}

impl Launcher for StdThreads {
    type Pool = ThreadsPool;

    const PROCESSES: bool = false;

    fn name(&self) -> &'static str {
        "std_threads"
    }

    fn start(&self, workers: usize) -> Result<ThreadsPool> {
        let (results, replies) = mpsc::channel();
        let workers = (0..workers)
            .map(|_| {
                let (jobs, inbox) = mpsc::channel::<Job>();
                let results = results.clone();
                let thread = thread::Builder::new().spawn(move || {
                    for job in inbox {
                        if results.send(job.run()).is_err() {
                            break;
                        }
                    }
                })?;
                Ok(Worker { jobs, thread })
            })
            .collect::<Result<_>>()?;
        Ok(ThreadsPool { workers, replies })
    }
}

impl ThreadsPool {
    /// Hands a job to the worker whose turn `turn` is.
    fn send(&self, turn: usize, job: Job) -> Result<()> {
        self.workers[turn % self.workers.len()]
            .jobs
            .send(job)
            .map_err(|_| anyhow!("a worker thread has ended"))
    }

    /// Waits for the next reply of any worker.
    fn reply(&self) -> Result<Reply> {
        self.replies.recv().context("all worker threads have ended")
    }
}

impl Pool for ThreadsPool {
    fn add(&mut self, a: u64, b: u64) -> Result<u64> {
        self.send(0, Job::Add(a, b))?;
        match self.reply()? {
            Reply::Number(sum) => Ok(sum),
            _ => bail!("an unexpected reply"),
        }
    }

    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>> {
        let tasks = usize::try_from(tasks)?;
        for index in 0..tasks {
            self.send(index, Job::Increment(index as u64))?;
        }
        let mut results = vec![0; tasks];
        for _ in 0..tasks {
            match self.reply()? {
                Reply::Incremented(index, result) => results[usize::try_from(index)?] = result,
                _ => bail!("an unexpected reply"),
            }
        }
        Ok(results)
    }

    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>> {
        let size = chunk_size(items.len(), self.workers.len());
        let chunks = items.len().div_ceil(size);
        for turn in 0..chunks {
            let end = items.len().min((turn + 1) * size);
            self.send(turn, Job::Square(Arc::clone(items), turn * size..end))?;
        }
        let mut results = vec![0; items.len()];
        for _ in 0..chunks {
            match self.reply()? {
                Reply::Squares(start, squares) => {
                    results[start..start + squares.len()].copy_from_slice(&squares);
                }
                _ => bail!("an unexpected reply"),
            }
        }
        Ok(results)
    }

    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.send(0, Job::Echo(bytes.to_vec()))?;
        match self.reply()? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => bail!("an unexpected reply"),
        }
    }

    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64> {
        let spans: Arc<[_]> = spans.into();
        let next = Arc::new(AtomicUsize::new(0));
        for turn in 0..self.workers.len() {
            self.send(turn, Job::Primes(Arc::clone(&spans), Arc::clone(&next)))?;
        }
        let mut total = 0;
        for _ in 0..self.workers.len() {
            match self.reply()? {
                Reply::Number(count) => total += count,
                _ => bail!("an unexpected reply"),
            }
        }
        Ok(total)
    }

    fn worker_id(&mut self) -> Result<u32> {
        Ok(std::process::id())
    }

    fn stop(self) -> Result<()> {
        let (jobs, threads): (Vec<_>, Vec<_>) =
            self.workers.into_iter().map(|worker| (worker.jobs, worker.thread)).unzip();
        drop(jobs);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a worker thread panicked"))?;
        }
        Ok(())
    }
}
