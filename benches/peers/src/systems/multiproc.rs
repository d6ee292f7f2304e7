//! `multiproc`: what all of this is about, once for each start method.

use std::sync::Arc;

use anyhow::{Result, ensure};
use multiproc::{Process, StartMethod};

use super::{Launcher, Pool};
use crate::primes;
use crate::workload::Workload;

pub mod arrays;
pub mod channels;
pub mod partners;
pub mod primitives;

/// The systems `multiproc` (the default start method), `multiproc_forkserver` and
/// `multiproc_fork`.
pub struct Multiproc(pub StartMethod);

/// A pool of processes.
pub struct MultiprocPool(multiproc::Pool);

impl Launcher for Multiproc {
    type Pool = MultiprocPool;

    const PROCESSES: bool = true;

    fn name(&self) -> &'static str {
        match self.0 {
            StartMethod::ForkServer => "multiproc_forkserver",
            StartMethod::Fork => "multiproc_fork",
            _ => "multiproc",
        }
    }

    fn family(&self) -> &'static str {
        "multiproc"
    }

    /// A pool works in the same way however its workers were started.
    fn takes(&self, workload: Workload) -> bool {
        self.0 == StartMethod::Spawn || workload.depends_on_start_method()
    }

    fn start(&self, workers: usize) -> Result<MultiprocPool> {
        let builder = multiproc::Pool::builder().workers(workers).start_method(self.0);
        Ok(MultiprocPool(builder.build()?))
    }

    fn run_process(&self) -> Result<()> {
        let builder = Process::builder(|x: u64| x + 1, (41,)).start_method(self.0);
        ensure!(builder.spawn()?.join()? == 42, "a wrong answer");
        Ok(())
    }
}

impl Pool for MultiprocPool {
    fn add(&mut self, a: u64, b: u64) -> Result<u64> {
        Ok(self.0.apply(|a: u64, b: u64| a + b, (a, b))?)
    }

    /// One chunk an item, which is one message each, as with `apply_async` and `imap`.
    /// It is faster than these, and holds no handle a task.
    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>> {
        Ok(self.0.chunks_of(1)?.map(|x: u64| x + 1, 0..tasks)?)
    }

    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>> {
        Ok(self.0.map(|x: u64| x * x, items.iter().copied())?)
    }

    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let invert = |mut bytes: Vec<u8>| {
            if let Some(first) = bytes.first_mut() {
                *first = !*first;
            }
            bytes
        };
        Ok(self.0.apply(invert, (bytes,))?)
    }

    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64> {
        Ok(self.0.map(primes::count, spans.iter().copied())?.into_iter().sum())
    }

    fn worker_id(&mut self) -> Result<u32> {
        Ok(self.0.apply(std::process::id, ())?)
    }

    fn stop(self) -> Result<()> {
        self.0.close();
        Ok(self.0.join()?)
    }
}
