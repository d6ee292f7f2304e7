use super::batch::{Batch, decode_first};
use super::builder::PoolBuilder;
use super::chunks::{Chunks, single};
use super::engine::Engine;
use super::imap::Imap;
use super::result::AsyncResult;
use super::state::{Phase, State};
use super::stats::PoolStats;
use super::supervisor;
use super::worker::Worker;
use crate::entry;
use crate::sys::clock::Deadline;
use crate::{Arguments, Data, Error, Function, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A pool of worker processes.
///
/// The API follows Python's `multiprocessing.Pool`. A pool is `Send + Sync`: share it by reference
/// or in an [`Arc`], and submit from any number of threads. A worker's death costs the item that
/// it was running, which gets an error; everything else goes on, and the worker is replaced.
///
/// Functions are named, not sent: any function item, method, or closure that captures nothing (see
/// [`Function`]). Arguments and results are any [`Data`].
///
/// ```
/// use multiproc::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// let pool = Pool::new()?;
/// assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
/// assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3))?, 5);
/// # Ok::<(), multiproc::Error>(())
/// ```
///
/// Dropping a pool terminates it; [`close`](Pool::close) and [`join`](Pool::join) let it finish.
#[derive(Debug)]
pub struct Pool {
    chunks: Chunks,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// A pool with one worker a CPU ([`available_parallelism`](crate::available_parallelism)) and
    /// default settings.
    ///
    /// # Errors
    /// As [`PoolBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// The settings of a new pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// Takes the engine and its first workers into service.
    pub(super) fn open(engine: Engine, workers: Vec<Worker>) -> Result<Self> {
        let engine = Arc::new(engine);
        {
            let mut state = engine.lock();
            for worker in workers {
                supervisor::admit(&engine, &mut state, worker);
            }
        }
        let on_thread = engine.clone();
        let thread = std::thread::Builder::new().name("multiproc-pool".to_owned());
        let chunks = Chunks { engine, size: None };
        let pool = Self { chunks, supervisor: Mutex::new(None) };
        // If there is no thread, the drop of `pool` ends the workers.
        let handle = thread.spawn(move || supervisor::run(&on_thread)).map_err(|error| {
            Error::os("the pool's supervisor thread could not be started", error)
        })?;
        *pool.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(pool)
    }

    /// The pool as one that chooses the sizes of chunks.
    pub(super) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.chunks.engine
    }

    /// Calls `function` with `arguments` (a tuple) in a worker and waits for the value.
    ///
    /// # Errors
    /// [`is_panic`](Error::is_panic) if the function panicked,
    /// [`is_worker_died`](Error::is_worker_died) if its worker died,
    /// [`is_timeout`](Error::is_timeout) if it exceeded the pool's task timeout,
    /// [`is_encode`](Error::is_encode) and [`is_decode`](Error::is_decode) if arguments or value
    /// cannot travel, [`is_closed`](Error::is_closed) if the pool takes no work.
    /// [`Error::execution`] tells whether the function may have run.
    pub fn apply<F, A>(&self, _function: F, arguments: A) -> Result<F::Output>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        let entry = entry::frame_entry::<F, A>()?;
        let encoded = self.engine().blocks.encode(&arguments)?;
        // Their memory may be what the result needs.
        drop(arguments);
        let batch = Batch::new(Some(1));
        self.engine().submit_and_wait(single(entry, encoded, batch.clone()), &batch)?;
        decode_first(batch.parts())
    }

    /// Like [`apply`](Pool::apply), but returns at once.
    ///
    /// # Errors
    /// [`is_encode`](Error::is_encode) if the arguments cannot travel,
    /// [`is_closed`](Error::is_closed) if the pool takes no work. Waits while the pool is full
    /// ([`PoolBuilder::max_in_flight`]).
    pub fn apply_async<F, A>(&self, _function: F, arguments: A) -> Result<AsyncResult<F::Output>>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        let entry = entry::frame_entry::<F, A>()?;
        let encoded = self.engine().blocks.encode(&arguments)?;
        // Their memory may be what the result needs.
        drop(arguments);
        let batch = Batch::new(Some(1));
        self.engine().submit(single(entry, encoded, batch.clone()))?;
        Ok(AsyncResult::new(self.engine().clone(), batch, decode_first))
    }

    /// Calls a function registered with [`#[multiproc::task]`](macro@crate::task) by its name, and
    /// waits for the value.
    ///
    /// ```
    /// #[multiproc::task(name = "double")]
    /// fn double(x: u64) -> u64 {
    ///     2 * x
    /// }
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = multiproc::Pool::builder().workers(1).build()?;
    /// assert_eq!(pool.apply_named::<_, u64>("double", (21u64,))?, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if there is no such task or its signature is
    /// another; otherwise as [`apply`](Pool::apply).
    #[track_caller]
    pub fn apply_named<A: Arguments, R: Data>(&self, name: &str, arguments: A) -> Result<R> {
        let entry = entry::registry::find::<A, R>(name)?;
        let encoded = self.engine().blocks.encode(&arguments)?;
        // Their memory may be what the result needs.
        drop(arguments);
        let batch = Batch::new(Some(1));
        self.engine().submit_and_wait(single(entry, encoded, batch.clone()), &batch)?;
        decode_first(batch.parts())
    }

    /// Calls `function` with each item and returns the values in order.
    ///
    /// Items travel in chunks. Chunks need no tuning: idle workers take over what others have not
    /// begun. [`chunks_of`](Pool::chunks_of) fixes the size.
    ///
    /// # Errors
    /// The first error in the order of the items, after all items have run; see
    /// [`apply`](Pool::apply) for what it can be. To have the error of each, use
    /// [`imap`](Pool::imap). An item that cannot be encoded ends the map at once.
    pub fn map<F, T, R>(&self, function: F, items: impl IntoIterator<Item = T>) -> Result<Vec<R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        T: Data,
        R: Data,
    {
        self.chunks.map(function, items)
    }

    /// Like [`map`](Pool::map), for a function of several arguments: items are tuples.
    ///
    /// ```
    /// let pool = multiproc::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.starmap(u64::pow, [(2, 3), (3, 2)])?, [8, 9]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`map`](Pool::map).
    pub fn starmap<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<F::Output>>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        self.chunks.starmap(function, items)
    }

    /// Like [`map`](Pool::map), with a context that all items share. It is encoded once, and
    /// decoded once in each worker, however many items there are.
    ///
    /// ```
    /// let pool = multiproc::Pool::builder().workers(2).build()?;
    /// let table: Vec<u64> = (0..1000).map(|x| x * x).collect();
    /// let looked_up = pool.map_with(&table, |table, index: usize| table[index], [3, 5, 999])?;
    /// assert_eq!(looked_up, [9, 25, 998_001]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`map`](Pool::map).
    pub fn map_with<C, F, T, R>(
        &self,
        context: &C,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<R>>
    where
        F: Fn(&C, T) -> R + Copy + Send + Sync + 'static,
        C: Data,
        T: Data,
        R: Data,
    {
        self.chunks.map_with(context, function, items)
    }

    /// Calls `function` with each item for its effects.
    ///
    /// # Errors
    /// As [`map`](Pool::map).
    pub fn for_each<F, T>(&self, function: F, items: impl IntoIterator<Item = T>) -> Result<()>
    where
        F: Fn(T) + Copy + Send + Sync + 'static,
        T: Data,
    {
        self.chunks.for_each(function, items)
    }

    /// Like [`map`](Pool::map), but returns once all items are on their way.
    ///
    /// # Errors
    /// As [`apply_async`](Pool::apply_async).
    pub fn map_async<F, T, R>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<AsyncResult<Vec<R>>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        T: Data,
        R: Data,
    {
        self.chunks.map_async(function, items)
    }

    /// Like [`starmap`](Pool::starmap), but returns once all items are on their way.
    ///
    /// # Errors
    /// As [`apply_async`](Pool::apply_async).
    pub fn starmap_async<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<AsyncResult<Vec<F::Output>>>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        self.chunks.starmap_async(function, items)
    }

    /// Calls `function` with each item, lazily: an iterator over the results, in order.
    ///
    /// The input is read no further ahead than the [`window`](Imap::window). Items travel one by
    /// one; for tiny ones use [`chunks_of`](Pool::chunks_of).
    ///
    /// ```
    /// let pool = multiproc::Pool::builder().workers(2).build()?;
    /// let halves = pool.imap(|x: u32| 100 / x, [4, 0, 5])?;
    /// let halves: Vec<_> = halves.map(|result| result.ok()).collect();
    /// assert_eq!(halves, [Some(25), None, Some(20)]); // 100 / 0 panicked, alone
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the function cannot be named to another process. What happens to an item is in its own
    /// result.
    pub fn imap<F, T, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.chunks.imap(function, items)
    }

    /// Like [`imap`](Pool::imap), with the results in the order in which they come.
    ///
    /// # Errors
    /// As [`imap`](Pool::imap).
    pub fn imap_unordered<F, T, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        self.chunks.imap_unordered(function, items)
    }

    /// This pool with a fixed chunk size: `pool.chunks_of(64)?.map(f, items)`.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for 0.
    pub fn chunks_of(&self, size: usize) -> Result<Chunks> {
        if size == 0 {
            return Err(Error::invalid("a chunk size of 0: a chunk has at least one item"));
        }
        Ok(Chunks { size: Some(size), ..self.chunks.clone() })
    }

    /// Takes no new work; what was submitted is finished, then the workers exit.
    pub fn close(&self) {
        let mut state = self.engine().lock();
        if matches!(state.phase, Phase::Running) {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.engine().announce();
        self.engine().kick.kick();
    }

    /// Waits until a closed pool has finished its work and its workers have exited.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if the pool was neither closed nor
    /// terminated: it would wait for ever. (Python raises `ValueError`.)
    pub fn join(&self) -> Result<()> {
        self.engine().check_ours()?;
        if matches!(self.engine().lock().phase, Phase::Running) {
            return Err(Error::invalid("join before close: close the pool first, or terminate it"));
        }
        self.wait_for_the_end();
        self.engine().callbacks.finish();
        Ok(())
    }

    /// Ends the pool now: workers are killed, what has not run fails with an error that
    /// [`is_closed`](Error::is_closed), and what runs with one that
    /// [`is_cancelled`](Error::is_cancelled). Returns when the workers are gone.
    pub fn terminate(&self) {
        if !self.engine().is_ours() {
            return;
        }
        let mut state = self.engine().lock();
        state.end(Error::closed(), true);
        self.engine().release(state);
        self.engine().announce();
        self.engine().kick.kick();
        self.wait_for_the_end();
    }

    fn wait_for_the_end(&self) {
        let thread = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) => drop(thread.join()),
            // Another thread joins it, or has.
            None => self.engine().wait_for_state(State::is_over),
        }
    }

    /// Changes the number of workers. New ones are started in the background; surplus ones finish
    /// the item that they run and exit.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for 0 workers, [`is_closed`](Error::is_closed)
    /// if the pool takes no work.
    pub fn resize(&self, workers: usize) -> Result<()> {
        super::builder::check_workers(workers)?;
        self.engine().check_ours()?;
        let mut state = self.engine().lock();
        state.check_open()?;
        state.target = workers;
        self.engine().release(state);
        self.engine().kick.kick();
        Ok(())
    }

    /// The process ids of the live workers.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.engine().lock().workers().map(|worker| worker.child.pid() as u32).collect()
    }

    /// A snapshot of what the pool does.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.engine().lock().stats()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let has_thread = {
            let thread = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().map(|thread| thread.is_finished())
        };
        match (self.engine().is_ours(), has_thread) {
            // A forked copy: the workers are the other process's.
            (false, _) | (true, Some(true)) => {}
            (true, Some(false)) => self.terminate(),
            // The supervisor never started, or `join` or `terminate` has been through.
            (true, None) => {
                for worker in self.engine().lock().workers_mut() {
                    worker.child.kill_and_wait();
                }
            }
        }
        // Callbacks that run still hold the engine; their thread ends with the last of them.
        self.engine().callbacks.dismiss();
    }
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Pool>();
    let _ = Deadline::NEVER;
};
