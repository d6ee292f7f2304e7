use super::batch::Batch;
use super::engine::Engine;
use super::task::{Part, Sink};
use crate::error::Kind;
use crate::sys::clock::Deadline;
use crate::sys::epoll::Kick;
use crate::{Error, Execution, Result};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Makes the value of a call from the outcomes of its items.
pub(super) type Decode<R> = fn(&[Part]) -> Result<R>;

/// The result of a call that runs in the background, like Python's `AsyncResult`.
///
/// Dropping it lets the call run; its result is lost.
///
/// ```
/// use multiproc::Pool;
///
/// let pool = Pool::builder().workers(2).build()?;
/// let sum = pool.apply_async(|a: u64, b: u64| a + b, (1, 2))?;
/// let squares = pool.map_async(|x: u64| x * x, 0..4)?;
/// assert_eq!(squares.get()?, [0, 1, 4, 9]);
/// assert_eq!(sum.get()?, 3);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[must_use = "the result of the call is lost with it"]
pub struct AsyncResult<R> {
    engine: Arc<Engine>,
    batch: Arc<Batch>,
    decode: Decode<R>,
    /// Readable when the call is done, for those who wait on descriptors.
    kick: OnceLock<Arc<Kick>>,
}

impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

impl<R> AsyncResult<R> {
    pub(super) fn new(engine: Arc<Engine>, batch: Arc<Batch>, decode: Decode<R>) -> Self {
        Self { engine, batch, decode, kick: OnceLock::new() }
    }

    /// Waits until the call is done.
    pub fn wait(&self) {
        self.engine.wait_for(&self.batch, Deadline::NEVER);
    }

    /// Waits until the call is done, at most `timeout`; returns whether it is.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.engine.wait_for(&self.batch, Deadline::after(timeout))
    }

    /// Whether the call is done.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.batch.is_finished()
    }

    /// Whether the call was done without an error, or `None` while it is not done. (Python's
    /// `successful` raises then.) An error in decoding the value shows only in `get`.
    #[must_use]
    pub fn successful(&self) -> Option<bool> {
        self.ready().then(|| self.batch.parts().iter().all(Part::is_ok))
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// The error of the call: [`is_panic`](Error::is_panic),
    /// [`is_worker_died`](Error::is_worker_died), [`is_timeout`](Error::is_timeout) for a task
    /// timeout, and so on. For several items it is the first in their order, after all have run.
    pub fn get(self) -> Result<R> {
        self.wait();
        self.take()
    }

    /// Waits for the value, at most `timeout`: zero looks once, centuries are for ever.
    ///
    /// # Errors
    /// As for [`get`](AsyncResult::get), [`is_timeout`](Error::is_timeout) if the call is not done
    /// (it goes on, and the value can be asked for again), and
    /// [`is_invalid_input`](Error::is_invalid_input) if the value was taken before.
    pub fn get_timeout(&self, timeout: Duration) -> Result<R> {
        if self.wait_timeout(timeout) {
            return self.take();
        }
        Err(Error::new(
            Kind::Timeout(Execution::Unknown),
            format!("the result did not come within {timeout:?}; the call goes on"),
        ))
    }

    /// A descriptor that is readable when the call is done.
    pub(crate) fn ready_fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.kick.get().is_none() {
            let kick = Arc::new(Kick::new()?);
            // Of several threads that come at once one has its kick used.
            if self.kick.set(kick.clone()).is_ok() {
                self.batch.when_done(Box::new(move || kick.kick()));
            }
        }
        self.kick.get().map(|kick| kick.as_fd()).ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn take(&self) -> Result<R> {
        if !self.batch.take() {
            return Err(Error::invalid("the value of this result was taken before"));
        }
        (self.decode)(self.batch.parts())
    }

    /// Cancels the items of the call that have not begun. They end with an error that
    /// [`is_cancelled`](Error::is_cancelled). Returns whether there were any.
    pub fn cancel(&self) -> bool {
        self.engine.cancel(&self.sink(), false)
    }

    /// Cancels the call even if it runs: workers that run an item of it are killed and replaced.
    /// Other tasks are not lost. Returns whether anything was cancelled.
    pub fn cancel_running(&self) -> bool {
        self.engine.cancel(&self.sink(), true)
    }

    fn sink(&self) -> Arc<dyn Sink> {
        self.batch.clone()
    }
}

impl<R: 'static> AsyncResult<R> {
    /// Calls `callback` with the value when the call is done without an error.
    ///
    /// Callbacks run on a thread of the pool's, one after the other. They may submit and wait; a
    /// panic in one harms nothing else. The value can still be taken.
    ///
    /// ```
    /// use multiproc::Pool;
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = Pool::builder().workers(1).build()?;
    /// let (sender, receiver) = channel();
    /// let result = pool.apply_async(|| 42, ())?;
    /// let result = result.on_success(move |value| sender.send(*value).unwrap());
    /// assert_eq!(receiver.recv().unwrap(), 42);
    /// assert_eq!(result.get()?, 42);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn on_success(self, callback: impl FnOnce(&R) + Send + 'static) -> Self {
        self.call_back(move |result| {
            if let Ok(value) = result {
                callback(&value);
            }
        })
    }

    /// Calls `callback` with the error when the call has ended with one.
    ///
    /// See [`on_success`](AsyncResult::on_success).
    pub fn on_error(self, callback: impl FnOnce(&Error) + Send + 'static) -> Self {
        self.call_back(move |result| {
            if let Err(error) = result {
                callback(&error);
            }
        })
    }

    /// Has the callback thread decode the outcomes, when they are there, and call `callback`.
    fn call_back(self, callback: impl FnOnce(Result<R>) + Send + 'static) -> Self {
        let (decode, batch) = (self.decode, self.batch.clone());
        let callbacks = self.engine.callbacks.clone();
        self.batch.when_done(Box::new(move || {
            callbacks.run(Box::new(move || callback(decode(batch.parts()))));
        }));
        self
    }
}
