use super::handle::{not_made, travels};
use crate::shm::lock;
use crate::shm::locked::{Held, Locked};
use crate::shm::memory::Kind;
use crate::{Error, OwnerDied, Result};
use std::fmt;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-lock");

/// A lock between processes, and between threads: one at a time has it.
///
/// [`lock`](Lock::lock) gives a guard, and dropping the guard gives the lock back;
/// [`acquire`](Lock::acquire) gives none, and [`release`](Lock::release) gives the lock back, as in
/// Python. (Of a [`Semaphore`](super::Semaphore), it is `acquire` that gives a guard, and
/// `acquire_raw` that gives none.)
///
/// If whoever has the lock dies, or panics, the next one gets it *with the news*; see
/// [`OwnerDied`]. For data behind a lock use [`Mutex`](super::Mutex).
///
/// Locking it again on the thread that has it waits for ever, as in Python;
/// [`RLock`](super::RLock) is the lock for that.
///
/// Taking and giving back a free lock costs about 10 ns and no system call. A waiter looks for a
/// few microseconds, then sleeps; giving the lock back wakes one sleeper, and whoever comes first
/// gets it: it is not first come first served.
///
/// ```
/// use multiproc::{Lock, Process};
///
/// fn print_line(lock: Lock, who: u32) {
///     let _guard = lock.lock().expect("nobody dies here");
///     print!("line ");
///     println!("of process {who}"); // never in the middle of another's
/// }
///
/// let lock = Lock::new()?;
/// let mut processes = Vec::new();
/// for who in 0..2 {
///     processes.push(Process::spawn(print_line, (lock.clone(), who))?);
/// }
/// for mut process in processes {
///     process.join()?;
/// }
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Lock(Locked<()>);

travels!([] Lock, it => it.0.memory().object(), object => Locked::open(object, KIND).map(Self));

impl Lock {
    /// Makes a lock that nobody has.
    ///
    /// # Errors
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        Locked::create(KIND, 1).map(Self).map_err(|error| not_made("lock", error))
    }

    /// Waits for the lock; the guard gives it back when it is dropped.
    ///
    /// ```
    /// let lock = multiproc::Lock::new()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.is_locked());
    /// drop(guard);
    /// assert!(!lock.is_locked());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last owner died or panicked while it had the lock.
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, OwnerDied<LockGuard<'_>>> {
        self.0.lock().map(LockGuard).map_err(|died| died.map(LockGuard))
    }

    /// Takes the lock, if nobody has it. If somebody has, finding out whether they live costs
    /// about 10 us.
    ///
    /// ```
    /// let lock = multiproc::Lock::new()?;
    /// let guard = lock.try_lock()?.expect("nobody has it");
    /// assert!(lock.try_lock()?.is_none());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](Lock::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>, OwnerDied<LockGuard<'_>>> {
        let held = self.0.try_lock().map_err(|died| died.map(LockGuard))?;
        Ok(held.map(LockGuard))
    }

    /// Waits for the lock, for `timeout` at most; `None` if it passed.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiproc::Lock::new()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.lock_timeout(Duration::from_millis(5))?.is_none());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](Lock::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<LockGuard<'_>>, OwnerDied<LockGuard<'_>>> {
        let held = self.0.lock_timeout(timeout).map_err(|died| died.map(LockGuard))?;
        Ok(held.map(LockGuard))
    }

    /// Whether somebody has the lock, at this moment. An owner that died has it until the next one
    /// takes it.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Waits for the lock, without a guard: the caller has it until [`release`](Lock::release).
    /// With a guard, it is [`lock`](Lock::lock).
    ///
    /// ```
    /// let lock = multiproc::Lock::new()?;
    /// lock.acquire()?;
    /// lock.release()?;
    /// assert!(lock.release().unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_owner_died`](Error::is_owner_died) if the last owner died or panicked while it had the
    /// lock. Then the caller does *not* have it; the next call succeeds.
    pub fn acquire(&self) -> Result<()> {
        std::mem::forget(self.0.lock()?);
        Ok(())
    }

    /// As [`acquire`](Lock::acquire), if nobody has the lock; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](Lock::acquire).
    pub fn try_acquire(&self) -> Result<bool> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// As [`acquire`](Lock::acquire), for `timeout` at most; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](Lock::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        let held = self.0.lock_timeout(timeout)?;
        Ok(held.map(std::mem::forget).is_some())
    }

    /// Gives the lock back, whoever has it: as in Python, any thread of any process may.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if nobody has it. Of several that release at
    /// the same time, one succeeds.
    pub fn release(&self) -> Result<()> {
        match lock::give_back_for_anyone(self.0.word()) {
            true => Ok(()),
            false => Err(Error::invalid("a lock was released that nobody has: acquire it first")),
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("locked", &self.is_locked()).finish()
    }
}

/// Has a [`Lock`], and gives it back when dropped. It stays on its thread.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct LockGuard<'a>(pub(super) Held<'a, ()>);

impl<'a> LockGuard<'a> {
    pub(super) fn locked(&self) -> &'a Locked<()> {
        self.0.locked()
    }

    pub(super) fn again(locked: &'a Locked<()>) -> Result<Self, OwnerDied<Self>> {
        locked.lock().map(Self).map_err(|died| died.map(Self))
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").finish_non_exhaustive()
    }
}
