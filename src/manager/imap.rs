//! `Imap`.

use super::proxy::Proxy;
use super::waiting::SLICE;
use crate::entry::{self, Caller, ManagedEntry};
use crate::sys::clock::Deadline;
use crate::{Data, Error, Result, pool};
use std::fmt;
use std::iter::Empty;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The part of a lazy map that is in the server: items come from the client as its window moves on,
/// so the map there has no input of its own.
pub(super) struct Flow<T, R> {
    map: Mutex<pool::Imap<Empty<T>, R>>,
    /// The last proxy of the pool may go before the map does.
    _pool: Arc<crate::Pool>,
}

impl<T: Data, R: Data + Send> Flow<T, R> {
    pub(super) fn new(pool: &Arc<crate::Pool>, map: pool::Imap<Empty<T>, R>) -> Self {
        Self { map: Mutex::new(map), _pool: pool.clone() }
    }

    /// One client's alone, one call after the other: nobody waits for it.
    fn map(&self) -> MutexGuard<'_, pool::Imap<Empty<T>, R>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, caller: &dyn Caller) -> Result<R> {
        loop {
            let taken = self.map().take_until(Deadline::after(SLICE));
            match taken {
                Some(result) => return result,
                None if caller.is_alive() => {}
                None => return Err(Error::invalid("who wanted the result is gone")),
            }
        }
    }
}

/// The results of a lazy map over a [`Pool`](super::Pool) of a manager, one by one; made by
/// [`imap`](super::Pool::imap) and [`imap_unordered`](super::Pool::imap_unordered).
///
/// The input is read in this process, only as results are taken, and never further ahead than the
/// window. Each item is a [`Result`]: an error of one does not end the others. If the server ends,
/// an error that [`is_disconnected`](Error::is_disconnected) is the last one. Dropping the iterator
/// cancels what has not begun.
#[must_use = "nothing runs until results are asked for"]
pub struct Imap<I: Iterator, R> {
    flow: Proxy<Flow<I::Item, R>>,
    /// How an item is handed over.
    put: ManagedEntry,
    /// The input, until it ends.
    input: Option<I>,
    window: usize,
    /// How many items were read and not returned.
    ahead: usize,
}

impl<I: Iterator, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("ahead", &self.ahead).finish_non_exhaustive()
    }
}

impl<I: Iterator<Item: Data>, R: Data + Send> Imap<I, R> {
    pub(super) fn new(flow: Proxy<Flow<I::Item, R>>, input: I) -> Result<Self> {
        let window =
            |flow: &Arc<Flow<I::Item, R>>, _: &dyn Caller, ()| Ok(flow.map().window_size());
        let window = flow.raw(window, ())?;
        let put = |flow: &Arc<Flow<I::Item, R>>, _: &dyn Caller, (item,): (I::Item,)| {
            Ok(flow.map().push(item))
        };
        Ok(Self { flow, put: entry::raw_entry(put)?, input: Some(input), window, ahead: 0 })
    }

    /// Sets how many items may be read beyond those whose results were taken; at least one. Four a
    /// worker unless set.
    pub fn window(mut self, items: usize) -> Self {
        self.window = items.max(1);
        self
    }

    /// Reads the input up to the window.
    fn fill(&mut self) -> Result<()> {
        while self.ahead < self.window
            && let Some(input) = &mut self.input
        {
            let Some(item) = input.next() else {
                self.input = None;
                break;
            };
            match self.flow.call(self.put, (&item,)) {
                Ok(true) => {}
                // The pool takes no more, which the result of this item says.
                Ok(false) => self.input = None,
                Err(error) if error.is_disconnected() => return Err(error),
                Err(error) => self.refuse(error)?,
            }
            self.ahead += 1;
        }
        Ok(())
    }

    /// An item could not be handed over: that is its result, in its place.
    fn refuse(&self, error: Error) -> Result<()> {
        let refuse = |flow: &Arc<Flow<I::Item, R>>, _: &dyn Caller, (error,): (Error,)| {
            flow.map().fail_one(error);
            Ok(())
        };
        self.flow.raw(refuse, (&error,))
    }

    /// The server is no more: this is the last result.
    fn end(&mut self, error: Error) -> Error {
        (self.input, self.ahead) = (None, 0);
        error
    }
}

impl<I: Iterator<Item: Data>, R: Data + Send> Iterator for Imap<I, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        if let Err(error) = self.fill() {
            return Some(Err(self.end(error)));
        }
        self.ahead = self.ahead.checked_sub(1)?;
        let take = |flow: &Arc<Flow<I::Item, R>>, caller: &dyn Caller, ()| flow.take(caller);
        let result = self.flow.raw(take, ());
        Some(result.map_err(|error| match error.is_disconnected() {
            true => self.end(error),
            false => error,
        }))
    }
}
