use super::Process;
use crate::sys::clock::Deadline;
use crate::{Arguments, Data, Error, Function, Result};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Runs a function after an interval, unless it is cancelled before: Python's `threading.Timer`,
/// and the same with a process.
///
/// The clock starts when the timer is made. As in Python, dropping the timer does not cancel it: it
/// runs on, but ends with the program if `main` returns first.
///
/// While it waits it is a thread of this process, so this process cannot be forked
/// ([`StartMethod::Fork`](crate::StartMethod::Fork)).
///
/// ```
/// use multiproc::Timer;
/// use std::time::Duration;
///
/// let timer = Timer::new(Duration::from_millis(5), || 6 * 7)?;
/// assert_eq!(timer.join()?, Some(42));
///
/// let late = Timer::process(Duration::from_secs(3600), |a: u32, b: u32| a + b, (1, 2))?;
/// assert!(late.cancel());
/// assert_eq!(late.join()?, None);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Timer<R> {
    shared: Arc<Shared>,
    thread: JoinHandle<Option<Result<R>>>,
}

/// What has become of the timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Cancelled,
    Fired,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code of the user's runs while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; whether the timer fires.
    fn wait(&self, deadline: Deadline) -> bool {
        /// Far below what the C library's clock can add.
        const LONGEST: Duration = Duration::from_secs(86_400);
        let mut state = self.state();
        while *state == State::Waiting {
            let left = deadline.remaining().unwrap_or(LONGEST).min(LONGEST);
            if left.is_zero() {
                *state = State::Fired;
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *state == State::Fired
    }
}

impl<R: Send + 'static> Timer<R> {
    /// Runs `function` in a thread of this process when `interval` has passed.
    ///
    /// # Errors
    /// [`is_os`](Error::is_os) if no thread can be started.
    pub fn new(interval: Duration, function: impl FnOnce() -> R + Send + 'static) -> Result<Self> {
        Self::start(interval, || Ok(function()))
    }

    /// Runs `function` in a new process when `interval` has passed. The process is started then,
    /// with the program's start method; what it needs must still be there.
    ///
    /// # Errors
    /// [`is_os`](Error::is_os) if no thread can be started. What goes wrong later,
    /// [`join`](Timer::join) tells.
    pub fn process<F, A>(interval: Duration, function: F, arguments: A) -> Result<Self>
    where
        F: Function<A, Output = R>,
        A: Arguments + Send + 'static,
        R: Data,
    {
        Self::start(interval, move || Process::spawn(function, arguments)?.join())
    }

    fn start(
        interval: Duration,
        function: impl FnOnce() -> Result<R> + Send + 'static,
    ) -> Result<Self> {
        let deadline = Deadline::after(interval);
        let shared = Shared { state: Mutex::new(State::Waiting), changed: Condvar::new() };
        let shared = Arc::new(shared);
        let theirs = shared.clone();
        let run = move || theirs.wait(deadline).then(function);
        let thread = thread::Builder::new().name("multiproc-timer".to_owned()).spawn(run);
        let thread = thread.map_err(|error| Error::os("no thread for a timer", error))?;
        Ok(Self { shared, thread })
    }

    /// Keeps the function from being run; false if it has begun already.
    ///
    /// Cancelling a second time changes nothing, and returns true again.
    pub fn cancel(&self) -> bool {
        let mut state = self.shared.state();
        if *state == State::Waiting {
            *state = State::Cancelled;
            self.shared.changed.notify_all();
        }
        *state == State::Cancelled
    }

    /// Whether there is nothing to wait for any more: the function has returned, or panicked, or
    /// was cancelled.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the function to be run, and returns what it returned; `None` if it was cancelled.
    ///
    /// # Errors
    /// What went wrong with the process, if it runs in one: see [`Process::join`].
    ///
    /// # Panics
    /// If the function panicked in a thread of this process: with its panic, as if the caller had
    /// called it.
    pub fn join(self) -> Result<Option<R>> {
        match self.thread.join() {
            Ok(outcome) => outcome.transpose(),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl<R> fmt::Debug for Timer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Timer");
        debug.field("finished", &self.thread.is_finished()).finish_non_exhaustive()
    }
}
