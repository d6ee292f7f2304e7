use super::handle::{not_made, travels};
use crate::OwnerDied;
use crate::Result;
use crate::shm::locked::{Locked, SPARE};
use crate::shm::memory::Kind;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

const KIND: Kind = Kind::new("multiproc-once");

/// Something that is to be done once, by whichever process comes first.
///
/// The others wait until it is done. If whoever does it dies, or panics, the next one does it, from
/// the start: what the first did before must not be in the way.
///
/// When it is done, a call costs one load.
///
/// ```
/// use multiproc::{Once, Process, Mutex};
///
/// fn work(once: Once, value: Mutex<u32>) {
///     once.call_once(|| *value.lock().expect("nobody dies here") += 1);
/// }
///
/// let (once, value) = (Once::new()?, Mutex::new(0)?);
/// let mut child = Process::spawn(work, (once.clone(), value.clone()))?;
/// work(once.clone(), value.clone());
/// child.join()?;
/// assert!(once.is_completed());
/// assert_eq!(*value.lock()?, 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Once(Locked<()>);

travels!([] Once, once => once.0.memory().object(), object => Locked::open(object, KIND).map(Once));

impl Once {
    /// Makes one that is not done.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        Locked::create(KIND, 1).map(Self).map_err(|error| not_made("once", error))
    }

    /// Runs `function`, unless it is done; waits while somebody else is doing it.
    ///
    /// From inside `function` it must not be called for the same object: that waits for ever.
    ///
    /// # Panics
    /// If `function` does; then it is not done.
    pub fn call_once(&self, function: impl FnOnce()) {
        if self.is_completed() {
            return;
        }
        // The news that somebody died on the way means only that it is still to be done.
        let _held = self.0.lock().unwrap_or_else(OwnerDied::into_guard);
        if !self.is_completed() {
            function();
            // Release: who sees it done sees what was done.
            self.done().store(1, Ordering::Release);
        }
    }

    /// Whether it is done.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        // Acquire: pairs with the store in `call_once`.
        self.done().load(Ordering::Acquire) != 0
    }

    fn done(&self) -> &AtomicU64 {
        self.0.memory().word(SPARE)
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("completed", &self.is_completed()).finish()
    }
}
