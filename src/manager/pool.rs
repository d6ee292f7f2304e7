//! `Pool`.

use super::async_result::{AsyncResult, Coming};
use super::imap::{Flow, Imap};
use super::proxy::proxy_type;
use crate::codec::Encode;
use crate::entry::Caller;
use crate::manager::Manager;
use crate::pool::{PoolBuilder, PoolStats};
use crate::{Data, Function, Result};
use std::iter::{self, Empty};
use std::sync::Arc;

proxy_type! {
    /// A pool of worker processes that a [`Manager`]'s server holds: Python's `Manager().Pool()`.
    ///
    /// Many processes share its workers, and whoever can reach the manager can use it. Items and
    /// results go through the server, so a [`multiproc::Pool`](crate::Pool) of one's own is
    /// quicker; that also has what cannot be asked of a server: chunks of a fixed size, memory that
    /// is lent to the workers, and callbacks.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let pool = manager.pool(1)?;
    /// assert_eq!(pool.map(|x: u64| x * x, 0..4)?, [0, 1, 4, 9]);
    /// assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3))?, 5);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as that of the pool does, and with
    /// [`is_disconnected`](crate::Error::is_disconnected) if the server has ended, also while it
    /// waits.
    Pool [] of crate::Pool
}

impl Manager {
    /// Makes a pool of this many workers, which are children of the server.
    ///
    /// # Errors
    /// As [`Manager::create`] and [`PoolBuilder::build`](crate::PoolBuilder::build).
    pub fn pool(&self, workers: usize) -> Result<Pool> {
        let make = |(workers,): (usize,)| crate::Pool::builder().workers(workers).build();
        self.hold_raw(make, (&workers,)).map(Pool)
    }

    /// Makes a pool with settings of its own: `settings`, a function item or a closure that
    /// captures nothing, is called in the server with `argument`. (Python: the arguments of
    /// `Manager().Pool`.)
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let manager = multiproc::Manager::start()?;
    /// let settings = |seconds: u64| {
    ///     let builder = multiproc::Pool::builder().workers(1).retries(1);
    ///     builder.task_timeout(Duration::from_secs(seconds))
    /// };
    /// let pool = manager.pool_with(settings, 60)?;
    /// assert_eq!(pool.apply(|| 7u32, ())?, 7);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`pool`](Manager::pool).
    pub fn pool_with<A: Data>(
        &self,
        settings: impl Fn(A) -> PoolBuilder + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<Pool> {
        self.hold_raw(move |(argument,): (A,)| settings(argument).build(), (&argument,)).map(Pool)
    }
}

impl Pool {
    /// Calls `function` with `arguments` (a tuple) in a worker and waits for its value.
    pub fn apply<F, A>(&self, function: F, arguments: A) -> Result<F::Output>
    where
        F: Function<A, Output: Data>,
        A: Encode + Data,
    {
        let apply = move |pool: &Arc<crate::Pool>, _: &dyn Caller, (arguments,): (A,)| {
            pool.apply(function, arguments)
        };
        self.0.raw(apply, (&arguments,))
    }

    /// Hands a call to a worker and returns at once; the result comes by
    /// [`AsyncResult::get`](super::AsyncResult::get), here or wherever that is sent.
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> Result<AsyncResult<F::Output>>
    where
        F: Function<A, Output: Data>,
        A: Encode + Data,
    {
        let apply = move |pool: &Arc<crate::Pool>, (arguments,): (A,)| {
            pool.apply_async(function, arguments).map(Coming::new)
        };
        self.0.spawn(apply, (&arguments,)).map(AsyncResult)
    }

    /// As [`map`](Pool::map), and returns at once.
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
        let items: Vec<T> = items.into_iter().collect();
        let map = move |pool: &Arc<crate::Pool>, (items,): (Vec<T>,)| {
            pool.map_async(function, items).map(Coming::new)
        };
        self.0.spawn(map, (&items,)).map(AsyncResult)
    }

    /// As [`starmap`](Pool::starmap), and returns at once.
    pub fn starmap_async<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<AsyncResult<Vec<F::Output>>>
    where
        F: Function<A, Output: Data>,
        A: Encode + Data,
    {
        let items: Vec<A> = items.into_iter().collect();
        let map = move |pool: &Arc<crate::Pool>, (items,): (Vec<A>,)| {
            pool.starmap_async(function, items).map(Coming::new)
        };
        self.0.spawn(map, (&items,)).map(AsyncResult)
    }

    /// Calls `function` with each item, lazily: an iterator over the results, in order.
    ///
    /// The input is read here, no further ahead than the [`window`](Imap::window). Each item is two
    /// calls of the server, one that brings it and one that fetches its result.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let pool = manager.pool(1)?;
    /// let halves = pool.imap(|x: u32| 100 / x, [4, 0, 5])?;
    /// let halves: Vec<_> = halves.map(|result| result.ok()).collect();
    /// assert_eq!(halves, [Some(25), None, Some(20)]); // 100 / 0 panicked, alone
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn imap<F, T, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data + Send,
    {
        let make = move |pool: &Arc<crate::Pool>, ()| {
            let none: Empty<T> = iter::empty();
            pool.imap(function, none).map(|map| Flow::new(pool, map))
        };
        Imap::new(self.0.spawn(make, ())?, items.into_iter())
    }

    /// Like [`imap`](Pool::imap), with the results in the order in which they come.
    pub fn imap_unordered<F, T, R, I>(&self, function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data + Send,
    {
        let make = move |pool: &Arc<crate::Pool>, ()| {
            let none: Empty<T> = iter::empty();
            pool.imap_unordered(function, none).map(|map| Flow::new(pool, map))
        };
        Imap::new(self.0.spawn(make, ())?, items.into_iter())
    }

    /// Calls the function that [`#[multiproc::task]`](macro@crate::task) registered under this name
    /// in a worker, and waits for its value; see
    /// [`multiproc::Pool::apply_named`](crate::Pool::apply_named).
    pub fn apply_named<A: Encode + Data, R: Data>(&self, name: &str, arguments: A) -> Result<R> {
        let apply = |pool: &Arc<crate::Pool>, _: &dyn Caller, (name, arguments): (String, A)| {
            pool.apply_named(&name, arguments)
        };
        self.0.raw(apply, (&name.to_owned(), &arguments))
    }

    /// Calls `function` for each item, and returns the values in the order of the items.
    pub fn map<F, T, R>(&self, function: F, items: impl IntoIterator<Item = T>) -> Result<Vec<R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        T: Data,
        R: Data,
    {
        let items: Vec<T> = items.into_iter().collect();
        let map = move |pool: &Arc<crate::Pool>, _: &dyn Caller, (items,): (Vec<T>,)| {
            pool.map(function, items)
        };
        self.0.raw(map, (&items,))
    }

    /// Calls `function` with each tuple of arguments, and returns the values in their order.
    pub fn starmap<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<F::Output>>
    where
        F: Function<A, Output: Data>,
        A: Encode + Data,
    {
        let items: Vec<A> = items.into_iter().collect();
        let map = move |pool: &Arc<crate::Pool>, _: &dyn Caller, (items,): (Vec<A>,)| {
            pool.starmap(function, items)
        };
        self.0.raw(map, (&items,))
    }

    /// Calls `function` with the context and each item; the context travels once to each worker.
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
        let items: Vec<T> = items.into_iter().collect();
        let map = move |pool: &Arc<crate::Pool>, _: &dyn Caller, (context, items): (C, Vec<T>)| {
            pool.map_with(&context, function, items)
        };
        self.0.raw(map, (context, &items))
    }

    /// Calls `function` for each item, for its effects.
    pub fn for_each<F, T>(&self, function: F, items: impl IntoIterator<Item = T>) -> Result<()>
    where
        F: Fn(T) + Copy + Send + Sync + 'static,
        T: Data,
    {
        let items: Vec<T> = items.into_iter().collect();
        let each = move |pool: &Arc<crate::Pool>, _: &dyn Caller, (items,): (Vec<T>,)| {
            pool.for_each(function, items)
        };
        self.0.raw(each, (&items,))
    }

    /// Takes no new work; what was begun is finished.
    pub fn close(&self) -> Result<()> {
        let close = |pool: &Arc<crate::Pool>, _: &dyn Caller, ()| {
            pool.close();
            Ok(())
        };
        self.0.raw(close, ())
    }

    /// Kills the workers; who waits for a value gets an error.
    pub fn terminate(&self) -> Result<()> {
        let terminate = |pool: &Arc<crate::Pool>, _: &dyn Caller, ()| {
            pool.terminate();
            Ok(())
        };
        self.0.raw(terminate, ())
    }

    /// Waits until all workers of a closed pool have ended.
    pub fn join(&self) -> Result<()> {
        self.0.raw(|pool: &Arc<crate::Pool>, _: &dyn Caller, ()| pool.join(), ())
    }

    /// Changes the number of workers; see [`multiproc::Pool::resize`](crate::Pool::resize).
    pub fn resize(&self, workers: usize) -> Result<()> {
        let resize =
            |pool: &Arc<crate::Pool>, _: &dyn Caller, (workers,): (usize,)| pool.resize(workers);
        self.0.raw(resize, (&workers,))
    }

    /// What the pool does at this moment.
    pub fn stats(&self) -> Result<PoolStats> {
        self.0.raw(|pool: &Arc<crate::Pool>, _: &dyn Caller, ()| Ok(pool.stats()), ())
    }

    /// The process ids of the workers.
    pub fn worker_pids(&self) -> Result<Vec<u32>> {
        self.0.raw(|pool: &Arc<crate::Pool>, _: &dyn Caller, ()| Ok(pool.worker_pids()), ())
    }
}
