//! `AsyncResult`.

use super::proxy::proxy_type;
use super::waiting::SLICE;
use crate::entry::Caller;
use crate::error::Kind;
use crate::sys::clock::Deadline;
use crate::{Data, Error, Execution, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A result in the server, until it is taken. The mutex is never held while somebody waits.
#[derive(Debug)]
pub(super) struct Coming<R>(Mutex<Option<Arc<crate::AsyncResult<R>>>>);

impl<R: Data> Coming<R> {
    pub(super) fn new(result: crate::AsyncResult<R>) -> Self {
        Self(Mutex::new(Some(Arc::new(result))))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<crate::AsyncResult<R>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result, if it is there.
    fn there(&self) -> Result<Arc<crate::AsyncResult<R>>> {
        self.lock().clone().ok_or_else(taken_before)
    }

    /// Whether the call is done before the time has passed.
    fn wait(&self, caller: &dyn Caller, timeout: Duration) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            let slice = deadline.remaining().map_or(SLICE, |left| left.min(SLICE));
            if self.there()?.wait_timeout(slice) {
                return Ok(true);
            }
            if deadline.passed() || !caller.is_alive() {
                return Ok(false);
            }
        }
    }

    fn take(&self) -> Result<R> {
        let taken = self.lock().take();
        // It is done, and others only look at it.
        taken.ok_or_else(taken_before)?.get_timeout(Duration::ZERO)
    }
}

fn taken_before() -> Error {
    Error::invalid("the result was taken before")
}

proxy_type! {
    /// What a call that was handed to a [`Pool`](super::Pool) of a manager will return.
    ///
    /// The value can be taken once, by whoever is first. If nobody wants it any more the call goes
    /// on all the same.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let pool = manager.pool(1)?;
    /// let result = pool.apply_async(|x: u64| x + 1, (1,))?;
    /// assert_eq!(result.get()?, 2);
    /// assert!(result.get().unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Pool`](super::Pool); beyond that, as it says.
    AsyncResult [R] of Coming<R>
}

impl<R: Data> AsyncResult<R> {
    /// Waits for the value and takes it.
    ///
    /// # Errors
    /// What went wrong with the call; [`is_invalid_input`](Error::is_invalid_input) if the value
    /// was taken before.
    pub fn get(&self) -> Result<R> {
        self.get_timeout(Duration::MAX)
    }

    /// As [`get`](AsyncResult::get), for `timeout` at most.
    ///
    /// # Errors
    /// As `get`, and [`is_timeout`](Error::is_timeout) if the call is not done; it goes on.
    pub fn get_timeout(&self, timeout: Duration) -> Result<R> {
        let get =
            |coming: &Arc<Coming<R>>, caller: &dyn Caller, (timeout,): (Duration,)| match coming
                .wait(caller, timeout)?
            {
                // One that is gone takes it from nobody.
                true if caller.is_alive() => coming.take().map(Some),
                _ => Ok(None),
            };
        let got: Option<R> = self.0.raw(get, (&timeout,))?;
        let late = "the call that was handed to the manager's pool is not done";
        got.ok_or_else(|| Error::new(Kind::Timeout(Execution::Unknown), late))
    }

    /// Waits until the call is done.
    ///
    /// # Errors
    /// As [`wait_timeout`](AsyncResult::wait_timeout).
    pub fn wait(&self) -> Result<()> {
        self.wait_timeout(Duration::MAX).map(drop)
    }

    /// Waits until the call is done, for `timeout` at most; whether it is.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if the value was taken before.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let wait = |coming: &Arc<Coming<R>>, caller: &dyn Caller, (timeout,): (Duration,)| {
            coming.wait(caller, timeout)
        };
        self.0.raw(wait, (&timeout,))
    }

    /// Whether the call is done.
    ///
    /// # Errors
    /// As [`wait_timeout`](AsyncResult::wait_timeout).
    pub fn ready(&self) -> Result<bool> {
        self.wait_timeout(Duration::ZERO)
    }

    /// Whether the call was done without an error; `None` while it is not done. (Python's
    /// `successful` raises then.)
    ///
    /// # Errors
    /// As [`wait_timeout`](AsyncResult::wait_timeout).
    pub fn successful(&self) -> Result<Option<bool>> {
        let successful = |coming: &Arc<Coming<R>>, _: &dyn Caller, ()| {
            coming.there().map(|result| result.successful())
        };
        self.0.raw(successful, ())
    }

    /// Cancels the call even if it runs: workers that run an item of it are killed and replaced.
    /// Whether anything was cancelled.
    ///
    /// # Errors
    /// As [`wait_timeout`](AsyncResult::wait_timeout).
    pub fn cancel_running(&self) -> Result<bool> {
        let cancel = |coming: &Arc<Coming<R>>, _: &dyn Caller, ()| {
            coming.there().map(|result| result.cancel_running())
        };
        self.0.raw(cancel, ())
    }

    /// Cancels the call if it has not begun; whether it did.
    ///
    /// # Errors
    /// As [`wait_timeout`](AsyncResult::wait_timeout).
    pub fn cancel(&self) -> Result<bool> {
        let cancel = |coming: &Arc<Coming<R>>, _: &dyn Caller, ()| {
            coming.there().map(|result| result.cancel())
        };
        self.0.raw(cancel, ())
    }
}
