//! How a system with worker pools is measured, once for all of them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Part, System};
use crate::measure::{per_op, seconds};
use crate::primes;
use crate::procfs;
use crate::sample::Sample;
use crate::settings::{Settings, WORKERS};
use crate::workload::{MAP_ITEMS, Workload};

/// How long a pool may come to rest before it is watched for idleness.
const SETTLE: Duration = Duration::from_millis(200);

/// What starts the pools of a system.
pub trait Launcher {
    /// A running pool.
    type Pool: Pool;

    /// Whether the workers are processes. If so, the system takes part in
    /// `process_start` and `worker_memory` as well.
    const PROCESSES: bool;

    /// The name of the system, see [`System::name`].
    fn name(&self) -> &'static str;

    /// The name that includes its siblings, see [`System::family`].
    fn family(&self) -> &'static str {
        self.name()
    }

    /// Whether the system takes part in a workload that could be measured for it:
    /// not where a sibling gives the same figure.
    fn takes(&self, _: Workload) -> bool {
        true
    }

    /// Finds out whether the system can run here; the error says why not.
    fn probe(&self) -> Result<()> {
        Ok(())
    }

    /// Starts a pool of so many workers.
    fn start(&self, workers: usize) -> Result<Self::Pool>;

    /// Starts one process outside any pool, which runs a trivial function, and
    /// joins it.
    fn run_process(&self) -> Result<()> {
        bail!("{} starts no processes", self.name())
    }
}

/// A running pool.
///
/// The operations are written as a user of the system would, with what it
/// offers. Dropping a pool must stop it too, after an error.
pub trait Pool: Sized {
    /// Calls `a + b` on a worker and waits for the result.
    fn add(&mut self, a: u64, b: u64) -> Result<u64>;

    /// Runs the tasks `x + 1` for every `x` below `tasks`, each as a message of
    /// its own, and returns the results in order.
    fn increments(&mut self, tasks: u64) -> Result<Vec<u64>>;

    /// Maps `x * x` over the items with the system's own chunking, or with that
    /// of [`crate::measure::chunk_size`] if it has none.
    fn squares(&mut self, items: &Arc<[u64]>) -> Result<Vec<u64>>;

    /// Sends the bytes to a worker, which inverts the first and sends all back.
    ///
    /// The caller gives the bytes away, and sends what came back the next time,
    /// so that no system has to copy them only to own them. Between threads
    /// either side makes a copy, since otherwise only a pointer would go back
    /// and forth.
    fn echo(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>>;

    /// Adds up [`primes::count`] of the spans.
    fn primes(&mut self, spans: &[(u64, u64)]) -> Result<u64>;

    /// The process id of one of the workers.
    fn worker_id(&mut self) -> Result<u32>;

    /// Stops the pool and waits for the workers to end.
    fn stop(self) -> Result<()>;
}

/// A [`Launcher`] as a [`System`].
pub struct Pooled<L>(pub L);

impl<L: Launcher> System for Pooled<L> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn family(&self) -> &'static str {
        self.0.family()
    }

    fn probe(&self) -> Result<()> {
        self.0.probe()
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        match workload {
            Workload::ProcessStart | Workload::WorkerMemory if !L::PROCESSES => Part::None,
            _ if workload.synchronises() || workload.has_array() || workload.talks() => Part::None,
            _ if !self.0.takes(workload) => Part::None,
            _ => Part::Takes,
        }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let value = match workload {
            Workload::Apply => self.apply(settings),
            Workload::TinyTasks => self.tiny_tasks(settings),
            Workload::Map => self.map(settings),
            Workload::Echo(bytes) => self.echo(bytes, settings),
            Workload::PoolStart => per_op(settings.loop_time(), || self.cycle(WORKERS)),
            Workload::ProcessStart => self.process_start(settings),
            Workload::CpuBound => self.cpu_bound(settings),
            Workload::IdleCpu => self.idle_cpu(settings),
            Workload::WorkerMemory => self.worker_memory(),
            Workload::GrowthTasks(tasks) => self.growth_tasks(tasks),
            Workload::GrowthWorkers(workers) => self.growth_workers(workers),
            Workload::GrowthPeak(_) => bail!("comes along with the time"),
            _ => bail!("{} is nothing that a pool does", workload.name()),
        }?;
        Sample::here(value)
    }
}

/// A method per workload.
impl<L: Launcher> Pooled<L> {
    /// Microseconds per call.
    fn apply(&self, settings: &Settings) -> Result<f64> {
        let mut pool = self.0.start(WORKERS)?;
        let mut a = 0;
        let per_call = per_op(settings.loop_time(), || {
            a += 1;
            ensure!(pool.add(a, 7)? == a + 7, "a wrong sum");
            Ok(())
        })?;
        pool.stop()?;
        Ok(per_call * 1e6)
    }

    /// Tasks per second.
    fn tiny_tasks(&self, settings: &Settings) -> Result<f64> {
        let tasks = settings.tiny_tasks();
        let mut pool = self.0.start(WORKERS)?;
        check_increments(&pool.increments(tasks / 10)?, tasks / 10)?;
        let mut last = Vec::new();
        let per_round = per_op(settings.loop_time(), || {
            last = pool.increments(tasks)?;
            Ok(())
        })?;
        check_increments(&last, tasks)?;
        pool.stop()?;
        Ok(tasks as f64 / per_round)
    }

    /// Items per second.
    fn map(&self, settings: &Settings) -> Result<f64> {
        let items: Arc<[u64]> = (0..MAP_ITEMS).collect();
        let mut pool = self.0.start(WORKERS)?;
        let mut last = Vec::new();
        let per_map = per_op(settings.loop_time(), || {
            last = pool.squares(&items)?;
            Ok(())
        })?;
        check_squares(&items, &last)?;
        pool.stop()?;
        Ok(items.len() as f64 / per_map)
    }

    /// Megabytes per second one way.
    fn echo(&self, size: usize, settings: &Settings) -> Result<f64> {
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        let mut pool = self.0.start(WORKERS)?;
        let mut bytes = sent.clone();
        let per_trip = per_op(settings.loop_time(), || {
            let expected = bytes.first().map(|first| !first);
            bytes = pool.echo(std::mem::take(&mut bytes))?;
            ensure!(bytes.first().copied() == expected, "the first byte is unchanged");
            Ok(())
        })?;
        ensure!(bytes.get(1..) == sent.get(1..), "the bytes came back wrong");
        pool.stop()?;
        Ok(size as f64 / 1e6 / per_trip)
    }

    /// Microseconds per process.
    fn process_start(&self, settings: &Settings) -> Result<f64> {
        Ok(per_op(settings.loop_time(), || self.0.run_process())? * 1e6)
    }

    /// Seconds for the job.
    fn cpu_bound(&self, settings: &Settings) -> Result<f64> {
        let spans = primes::spans();
        let mut pool = self.0.start(settings.cores())?;
        warm_up(&mut pool)?;
        let time = seconds(|| {
            let count = pool.primes(&spans)?;
            ensure!(count == primes::COUNT, "{count} primes");
            Ok(())
        })?;
        pool.stop()?;
        Ok(time)
    }

    /// CPU seconds of this process and all its children.
    fn idle_cpu(&self, settings: &Settings) -> Result<f64> {
        let mut pool = self.0.start(WORKERS)?;
        warm_up(&mut pool)?;
        let used = watch_idle(std::process::id(), settings)?;
        pool.stop()?;
        Ok(used)
    }

    /// Private bytes of a worker.
    fn worker_memory(&self) -> Result<f64> {
        let mut pool = self.0.start(WORKERS)?;
        warm_up(&mut pool)?;
        let bytes = procfs::private_bytes(pool.worker_id()?)?;
        pool.stop()?;
        Ok(bytes as f64)
    }

    /// Seconds for that many tasks.
    fn growth_tasks(&self, tasks: u64) -> Result<f64> {
        let mut pool = self.0.start(WORKERS)?;
        warm_up(&mut pool)?;
        let mut results = Vec::new();
        let time = seconds(|| {
            results = pool.increments(tasks)?;
            Ok(())
        })?;
        check_increments(&results, tasks)?;
        pool.stop()?;
        Ok(time)
    }

    /// Seconds to start, use and stop that many workers.
    fn growth_workers(&self, workers: usize) -> Result<f64> {
        raise_file_limit();
        self.cycle(1)?;
        seconds(|| self.cycle(workers))
    }

    /// Starts a pool, maps over two items a worker, and stops it.
    fn cycle(&self, workers: usize) -> Result<()> {
        let items: Arc<[u64]> = (0..2 * workers as u64).collect();
        let mut pool = self.0.start(workers)?;
        check_squares(&items, &pool.squares(&items)?)?;
        pool.stop()
    }
}

/// A few tasks on a new pool.
fn warm_up(pool: &mut impl Pool) -> Result<()> {
    ensure!(pool.add(1, 2)? == 3, "a wrong sum");
    check_increments(&pool.increments(100)?, 100)
}

/// Checks the results of [`Pool::increments`].
fn check_increments(results: &[u64], tasks: u64) -> Result<()> {
    ensure!(results.iter().copied().eq(1..=tasks), "wrong results of tiny tasks");
    Ok(())
}

/// Checks the results of [`Pool::squares`].
fn check_squares(items: &[u64], results: &[u64]) -> Result<()> {
    ensure!(items.iter().map(|x| x * x).eq(results.iter().copied()), "wrong squares");
    Ok(())
}

/// CPU seconds which `root` and its descendants use while nothing is asked of
/// them.
pub fn watch_idle(root: u32, settings: &Settings) -> Result<f64> {
    thread::sleep(SETTLE);
    let family = procfs::family(root)?;
    let before = procfs::cpu_seconds(&family)?;
    thread::sleep(settings.idle_window());
    let after = procfs::cpu_seconds(&family).context("a worker ended while idle")?;
    Ok(after - before)
}

/// Allows this process as many open files as it may have at all: a thousand
/// workers take a few descriptors each. If that fails, so will the sample.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to an rlimit which lives throughout.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
