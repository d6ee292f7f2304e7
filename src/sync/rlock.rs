use super::handle::{not_made, travels};
use crate::shm::locked::{Locked, SPARE};
use crate::shm::memory::Kind;
use crate::shm::owner::{self, WAITERS};
use crate::{Error, OwnerDied, Result};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-rlock");

/// A lock that its owner may take again: Python's `RLock`.
///
/// The owner is one thread of one process. It gives the lock back when it has released it as often
/// as it has taken it. Everything else is as with [`Lock`](super::Lock).
///
/// ```
/// use multiproc::sync::RLock;
///
/// fn outer(lock: &RLock) -> multiproc::Result<u32> {
///     let _guard = lock.lock()?;
///     inner(lock) // takes it again
/// }
///
/// fn inner(lock: &RLock) -> multiproc::Result<u32> {
///     let _guard = lock.lock()?;
///     Ok(7)
/// }
///
/// let lock = RLock::new()?;
/// assert_eq!(outer(&lock)?, 7);
/// assert!(!lock.is_locked());
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct RLock(Locked<()>);

travels!([] RLock, it => it.0.memory().object(), object => Locked::open(object, KIND).map(Self));

impl RLock {
    /// Makes a lock that nobody has.
    ///
    /// # Errors
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        Locked::create(KIND, 1).map(Self).map_err(|error| not_made("lock", error))
    }

    /// How often the owner has it. Only the owner changes the word, so it needs no ordering.
    fn depth(&self) -> &AtomicU64 {
        self.0.memory().word(SPARE)
    }

    /// Whether the caller's thread has it.
    fn is_mine(&self) -> bool {
        self.0.word().load(Ordering::Relaxed) & !WAITERS == owner::me()
    }

    /// Goes one deeper; false if it cannot be counted any more.
    fn deeper(&self) -> bool {
        let depth = self.depth().load(Ordering::Relaxed).checked_add(1);
        depth.inspect(|&depth| self.depth().store(depth, Ordering::Relaxed)).is_some()
    }

    /// Waits for the lock, unless this thread has it already.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last owner died or panicked while it had the lock.
    pub fn lock(&self) -> Result<RLockGuard<'_>, OwnerDied<RLockGuard<'_>>> {
        if self.is_mine() {
            // Nobody counts to 2^64; if somebody wrote over the word, it stays at the top.
            self.deeper();
            return Ok(self.guard());
        }
        let held = self.0.lock().map(std::mem::forget);
        self.depth().store(1, Ordering::Relaxed);
        match held {
            Ok(()) => Ok(self.guard()),
            Err(died) => Err(died.map(|held| {
                std::mem::forget(held);
                self.guard()
            })),
        }
    }

    /// Takes the lock, if nobody else has it.
    ///
    /// # Errors
    /// As [`lock`](RLock::lock).
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Waits for the lock, for `timeout` at most; `None` if it passed. Zero means try.
    ///
    /// ```
    /// use multiproc::sync::RLock;
    /// use std::time::Duration;
    ///
    /// let lock = RLock::new()?;
    /// let guard = lock.lock()?;
    /// let other = lock.clone();
    /// let waited = std::thread::spawn(move || {
    ///     other.lock_timeout(Duration::from_millis(5)).is_ok_and(|guard| guard.is_some())
    /// });
    /// assert!(!waited.join().unwrap());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](RLock::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        if self.is_mine() {
            return self.lock().map(Some);
        }
        match self.0.lock_timeout(timeout) {
            Ok(None) => Ok(None),
            Ok(Some(held)) => {
                self.depth().store(1, Ordering::Relaxed);
                std::mem::forget(held);
                Ok(Some(self.guard()))
            }
            Err(died) => Err(died.map(|held| {
                self.depth().store(1, Ordering::Relaxed);
                std::mem::forget(held);
                self.guard()
            })),
        }
    }

    fn guard(&self) -> RLockGuard<'_> {
        RLockGuard { lock: self, panicking: thread::panicking(), not_send: PhantomData }
    }

    /// Whether somebody has the lock, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Waits for the lock, without a guard: [`release`](RLock::release) gives it back.
    ///
    /// # Errors
    /// [`is_owner_died`](Error::is_owner_died) if the last owner died or panicked while it had the
    /// lock. Then the caller does *not* have it; the next call succeeds.
    /// [`is_invalid_input`](Error::is_invalid_input) if it cannot be counted how often it has it.
    pub fn acquire(&self) -> Result<()> {
        // As in `Locked::lock`: without a deadline, nothing but the lock ends the wait.
        while !self.acquire_timeout(Duration::MAX)? {}
        Ok(())
    }

    /// As [`acquire`](RLock::acquire), if nobody else has the lock; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](RLock::acquire).
    pub fn try_acquire(&self) -> Result<bool> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// As [`acquire`](RLock::acquire), for `timeout` at most; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](RLock::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        if self.is_mine() {
            return match self.deeper() {
                true => Ok(true),
                false => Err(Error::invalid("an RLock was acquired 2^64 times: release it")),
            };
        }
        Ok(self.lock_timeout(timeout)?.map(std::mem::forget).is_some())
    }

    /// Gives the lock back once.
    ///
    /// ```
    /// let lock = multiproc::sync::RLock::new()?;
    /// lock.acquire()?;
    /// let other = lock.clone();
    /// let error = std::thread::spawn(move || other.release()).join().unwrap().unwrap_err();
    /// assert!(error.is_invalid_input());
    /// lock.release()?;
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if this thread does not have it.
    pub fn release(&self) -> Result<()> {
        if self.is_mine() {
            self.up(false);
            return Ok(());
        }
        let word = self.0.word().load(Ordering::Relaxed);
        Err(Error::invalid(match owner::is_free(word) {
            true => "an RLock was released that nobody has: acquire it first".to_owned(),
            false => format!(
                "an RLock was released by a thread that does not have it: thread {} has",
                owner::named(word).thread
            ),
        }))
    }

    /// One release of the owner's, in a panic or not.
    fn up(&self, panicked: bool) {
        match self.depth().load(Ordering::Relaxed) {
            0 | 1 if panicked => drop(crate::shm::lock::abandon(self.0.word(), owner::me())),
            0 | 1 => drop(crate::shm::lock::give_back(self.0.word(), owner::me())),
            u64::MAX => {}
            depth => self.depth().store(depth - 1, Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock").field("locked", &self.is_locked()).finish()
    }
}

/// Has an [`RLock`], and gives it back once when dropped. It stays on its thread.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    panicking: bool,
    not_send: PhantomData<*const ()>,
}

impl<'a> RLockGuard<'a> {
    /// Gives the lock back altogether, and tells how to take it again.
    pub(super) fn give_back(self) -> (&'a RLock, u64) {
        let (lock, depth) = (self.lock, self.lock.depth().load(Ordering::Relaxed));
        std::mem::forget(self);
        if lock.is_mine() {
            crate::shm::lock::give_back(lock.0.word(), owner::me());
        }
        (lock, depth)
    }

    pub(super) fn again((lock, depth): (&'a RLock, u64)) -> Result<Self, OwnerDied<Self>> {
        let outcome = lock.lock();
        lock.depth().store(depth, Ordering::Relaxed);
        outcome
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        // The copy of a guard in a forked child is nobody's.
        if self.lock.is_mine() {
            self.lock.up(!self.panicking && thread::panicking());
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").finish_non_exhaustive()
    }
}
