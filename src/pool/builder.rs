use super::engine::Engine;
use super::life::Pool;
use super::roster::Roster;
use super::state::{Rules, State};
use crate::codec;
use crate::entry::{self, PlainEntry, ValueEntry};
use crate::start::builder::launch_settings;
use crate::start::launch::{Launch, Origin};
use crate::start::{ForkServer, StartMethod, start_method};
use crate::wire::handles::Carried;
use crate::{Arguments, Error, Fallible, Function, Result, available_parallelism};
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Work in flight beyond which submitting waits.
const MAX_IN_FLIGHT: u64 = 1 << 20;
/// The most workers that a pool may have; more is a mistake in arithmetic.
const MAX_WORKERS: usize = 1 << 16;

/// Settings of a new [`Pool`]; made by [`Pool::builder`].
///
/// ```
/// use multiproc::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::builder()
///     .workers(2)
///     .name("resize")
///     .task_timeout(Duration::from_secs(10))
///     .max_tasks_per_worker(1000)
///     .env("LANG", "C")
///     .build()?;
/// assert_eq!(pool.worker_pids().len(), 2);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a pool starts with `build`"]
pub struct PoolBuilder {
    launch: Launch,
    workers: Option<usize>,
    method: Option<StartMethod>,
    initializer: Option<Result<(ValueEntry, Vec<u8>, Carried)>>,
    finalizer: Option<Result<PlainEntry>>,
    max_tasks: Option<u64>,
    max_memory: Option<u64>,
    pinned: Vec<usize>,
    rules: Rules,
}

pub(super) fn check_workers(workers: usize) -> Result<()> {
    match workers {
        0 => Err(Error::invalid("a pool of 0 workers: it needs at least one")),
        1..=MAX_WORKERS => Ok(()),
        _ => Err(Error::invalid(format!("{workers} workers: a pool has at most {MAX_WORKERS}"))),
    }
}

impl PoolBuilder {
    pub(super) fn new() -> Self {
        Self {
            launch: Launch::named("worker".to_owned()),
            workers: None,
            method: None,
            initializer: None,
            finalizer: None,
            max_tasks: None,
            max_memory: None,
            pinned: Vec::new(),
            rules: Rules { task_timeout: None, retries: 0, max_in_flight: MAX_IN_FLIGHT },
        }
    }

    /// Sets the number of workers; one a CPU
    /// ([`available_parallelism`]) unless set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Chooses how workers are started; the program's default unless set.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Names the workers: `NAME-1`, `NAME-2`, … for `ps` and logs. `worker` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.launch.name = name.into();
        self
    }

    /// Calls `function` with `arguments` (a tuple) in each worker before its first task.
    ///
    /// If it panics or returns an error, building the pool fails with that as the cause; in a
    /// worker that replaces another it ends the pool, whose calls then fail with that error.
    ///
    /// ```
    /// use multiproc::Pool;
    /// use std::sync::OnceLock;
    ///
    /// static GREETING: OnceLock<String> = OnceLock::new();
    ///
    /// fn set_up(greeting: String) -> Result<(), String> {
    ///     GREETING.set(greeting)
    /// }
    ///
    /// let pool = Pool::builder().workers(1).initializer(set_up, ("hello".to_owned(),)).build()?;
    /// assert_eq!(pool.apply(|| GREETING.get().cloned(), ())?, Some("hello".to_owned()));
    ///
    /// let failed = Pool::builder().workers(1).initializer(|| Err("no licence"), ()).build();
    /// assert!(failed.unwrap_err().to_string().contains("no licence"));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn initializer<F, A>(mut self, _function: F, arguments: A) -> Self
    where
        F: Function<A, Output: Fallible>,
        A: Arguments,
    {
        self.initializer = Some(entry::fallible_entry::<F, A>().and_then(|entry| {
            let (bytes, carried) = codec::encode_arguments(&arguments)?;
            Ok((entry, bytes, carried))
        }));
        self
    }

    /// Calls `function` in each worker that ends in good order: after [`close`](Pool::close),
    /// after [`resize`](Pool::resize), or when it has reached a limit. Not in one that dies.
    pub fn finalizer<F: Function<(), Output = ()>>(mut self, _function: F) -> Self {
        self.finalizer = Some(entry::plain_entry::<F>());
        self
    }

    /// Replaces a worker by a fresh one after this many items.
    pub fn max_tasks_per_worker(mut self, tasks: u64) -> Self {
        self.max_tasks = Some(tasks);
        self
    }

    /// Replaces a worker by a fresh one when it has more than `bytes` of resident memory after an
    /// item. Looked at once a millisecond at most.
    pub fn max_memory_per_worker(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// Kills a worker whose item takes longer than this; the item ends with an error that
    /// [`is_timeout`](Error::is_timeout), and the worker is replaced. With a timeout, items travel
    /// one by one unless [`chunks_of`](Pool::chunks_of) says otherwise; then the clock restarts
    /// with each chunk of results.
    pub fn task_timeout(mut self, timeout: Duration) -> Self {
        self.rules.task_timeout = Some(timeout);
        self
    }

    /// How often an item is run again after its worker died of it; 0 unless set. An item that is
    /// retried may run more than once, so it should be idempotent. Timeouts are not retried, nor
    /// are chunks of memory that was lent mutably.
    pub fn retries(mut self, retries: u32) -> Self {
        self.rules.retries = retries;
        self
    }

    /// How many items may be in flight before submitting waits; about a million unless set.
    pub fn max_in_flight(mut self, items: u64) -> Self {
        self.rules.max_in_flight = items;
        self
    }

    /// Pins the workers to these CPUs (counted from 0), one each, in turn.
    pub fn pin_to(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.pinned = cpus.into_iter().collect();
        self
    }

    /// Restricts each worker to this set of CPUs.
    pub fn affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.launch.settings.affinity = cpus.into_iter().collect();
        self
    }

    launch_settings!();

    /// Starts the workers and waits until all are ready.
    ///
    /// # Errors
    /// [`is_start`](Error::is_start) if a worker could not be started or its initializer failed,
    /// [`is_timeout`](Error::is_timeout) if one did not say hello in time,
    /// [`is_invalid_input`](Error::is_invalid_input) for settings that make no sense. No process
    /// is left behind.
    pub fn build(self) -> Result<Pool> {
        let workers = self.workers.unwrap_or_else(|| available_parallelism().get());
        self.check(workers)?;
        let method = self.method.unwrap_or_else(start_method);
        let template = match method {
            StartMethod::Fork => {
                Some(ForkServer::start_from(Origin::Fork(None), &self.launch, None)?)
            }
            _ => None,
        };
        let roster = Roster {
            launch: self.launch,
            rules: self.rules,
            method,
            template,
            initializer: self.initializer.transpose()?,
            finalizer: self.finalizer.transpose()?,
            max_tasks: self.max_tasks,
            max_memory: self.max_memory,
            pinned: self.pinned,
            started: AtomicUsize::new(0),
            coming: Mutex::default(),
        };
        let engine = Engine::new(roster, State::new(self.rules, workers))?;
        let recruits = engine.roster.start(workers)?;
        Pool::open(engine, recruits)
    }

    fn check(&self, workers: usize) -> Result<()> {
        check_workers(workers)?;
        if self.launch.name.contains('\0') {
            let message = format!("the pool name {:?} contains a NUL byte", self.launch.name);
            return Err(Error::invalid(message));
        }
        if self.max_tasks == Some(0) {
            return Err(Error::invalid("0 tasks per worker: a worker must run at least one"));
        }
        if self.rules.task_timeout == Some(Duration::ZERO) {
            return Err(Error::invalid("a task timeout of 0: no task could ever finish"));
        }
        if self.rules.max_in_flight == 0 {
            return Err(Error::invalid("0 items in flight: nothing could ever be submitted"));
        }
        Ok(())
    }
}
