//! `procspawn`: functions in processes of the same executable.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Result, ensure};
use serde_bytes::ByteBuf;

use super::{Launcher, Pool};
use crate::measure::{chunk_size, spread};
use crate::primes;

/// How many calls are under way at a time. Each holds three descriptors, so
/// that a limit of 1024 open files rules out many more.
const WINDOW: usize = 128;

/// The system `procspawn`.
pub struct ProcSpawn;

/// A pool of processes.
pub struct ProcSpawnPool {
    /// The pool of the crate.
    pool: procspawn::Pool,
    /// Its size.
    workers: usize,
}

impl Launcher for ProcSpawn {
    type Pool = ProcSpawnPool;

    const PROCESSES: bool = true;

    fn name(&self) -> &'static str {
        "procspawn"
    }

    fn probe(&self) -> Result<()> {
        self.run_process()
    }

    fn start(&self, workers: usize) -> Result<ProcSpawnPool> {
        let pool = procspawn::Pool::new(workers)?;
        Ok(ProcSpawnPool { pool, workers })
    }

    fn run_process(&self) -> Result<()> {
        let answer = procspawn::spawn(41u64, |x| x + 1).join()?;
        ensure!(answer == 42, "a wrong answer");
        Ok(())
    }
}

impl ProcSpawnPool {
    /// As many handles of the pool as it has workers.
    ///
    /// Each handle makes one call at a time. Calls cannot simply be queued all
    /// at once where the arguments are large (the sender would wait for a worker
    /// while the workers wait for their results to be taken) or uneven (a result
    /// that is not joined yet blocks its worker).
    fn handles(&self, calls: usize) -> Vec<&procspawn::Pool> {
        vec![&self.pool; self.workers.min(calls)]
    }
}

impl Pool for ProcSpawnPool {
    fn add(&mut self, a: u64, b: u64) -> Result<u64> {
        Ok(self.pool.spawn((a, b), |(a, b)| a + b).join()?)
    }

    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>> {
        let mut results = Vec::with_capacity(usize::try_from(tasks)?);
        let mut pending = VecDeque::with_capacity(WINDOW);
        for x in 0..tasks {
            if pending.len() == WINDOW
                && let Some(oldest) = pending.pop_front()
            {
                results.push(procspawn::JoinHandle::join(oldest)?);
            }
            pending.push_back(self.pool.spawn(x, |x| x + 1));
        }
        for handle in pending {
            results.push(handle.join()?);
        }
        Ok(results)
    }

    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>> {
        let size = chunk_size(items.len(), self.workers);
        let chunks: Vec<&[u64]> = items.chunks(size).collect();
        let squares = spread(&mut self.handles(chunks.len()), chunks.len(), |pool, index| {
            let square = |chunk: Vec<u64>| chunk.iter().map(|x| x * x).collect::<Vec<_>>();
            Ok(pool.spawn(chunks[index].to_vec(), square).join()?)
        })?;
        Ok(squares.concat())
    }

    /// With `serde_bytes`, which is three to six times as fast here as a plain
    /// `Vec<u8>`, because that is serialized byte by byte. (A pool of procspawn
    /// 1.0.2 fails on a `procspawn::serde::Shmem` argument; as a result only,
    /// that is slower.)
    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let invert = |mut bytes: ByteBuf| {
            if let Some(first) = bytes.first_mut() {
                *first = !*first;
            }
            bytes
        };
        let reply = self.pool.spawn(ByteBuf::from(bytes), invert).join()?;
        Ok(reply.into_vec())
    }

    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64> {
        let counts = spread(&mut self.handles(spans.len()), spans.len(), |pool, index| {
            Ok(pool.spawn(spans[index], primes::count).join()?)
        })?;
        Ok(counts.iter().sum())
    }

    fn worker_id(&mut self) -> Result<u32> {
        Ok(self.pool.spawn((), |()| std::process::id()).join()?)
    }

    fn stop(self) -> Result<()> {
        self.pool.shutdown();
        Ok(())
    }
}
