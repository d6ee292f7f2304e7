//! `Lock` and `RLock`.

use super::proxy::proxy_type;
use super::waiting::Room;
use crate::entry::{Caller, Departure};
use crate::error::Kind;
use crate::manager::Manager;
use crate::sys::fork;
use crate::{Error, Result};
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A lock in the server; one kind counts how often its owner has taken it.
#[derive(Debug)]
pub(super) struct Latch {
    room: Room<Hold>,
    is_reentrant: bool,
}

#[derive(Debug, Default)]
struct Hold {
    owner: Option<u64>,
    depth: u32,
    /// Which of the times that it was taken this is: guards of others give nothing back.
    ticket: u64,
    /// Whether an owner died, or panicked, and nobody was told.
    news: bool,
}

impl Hold {
    fn free(&mut self) {
        (self.owner, self.depth) = (None, 0);
        self.ticket += 1;
    }
}

/// The error that tells of a dead owner.
pub(super) fn owner_died(what: &str) -> Error {
    Error::new(
        Kind::OwnerDied,
        format!(
            "the thread that had the manager's {what} ended, or panicked, while it had it: what it \
             protects may be half changed; the next call succeeds"
        ),
    )
}

impl Latch {
    fn new(is_reentrant: bool) -> Self {
        Self { room: Room::default(), is_reentrant }
    }

    /// Takes the lock `depth` times at once, but once at least; the ticket, or `None` if the time
    /// passed.
    fn acquire(
        self: &Arc<Self>,
        caller: &dyn Caller,
        depth: u32,
        timeout: Duration,
    ) -> Result<Option<u64>> {
        let holder: Weak<Self> = Arc::downgrade(self);
        caller.holds(holder);
        let (me, depth) = (caller.id(), depth.max(1));
        let taken = self.room.wait(caller, timeout, |hold| {
            if hold.owner == Some(me) && self.is_reentrant {
                let deeper = hold.depth.checked_add(depth);
                let too_deep = || Error::invalid("an RLock was taken 2^32 times");
                return Some(deeper.ok_or_else(too_deep).map(|deeper| {
                    hold.depth = deeper;
                    hold.ticket
                }));
            }
            if hold.owner.is_some() {
                return None;
            }
            if std::mem::take(&mut hold.news) {
                return Some(Err(owner_died("lock")));
            }
            (hold.owner, hold.depth) = (Some(me), depth);
            Some(Ok(hold.ticket))
        });
        taken.transpose()
    }

    /// Gives back what a guard has: once, or altogether.
    fn let_go(&self, ticket: u64, altogether: bool, panicked: bool) -> u32 {
        self.room.change(|hold| {
            if hold.owner.is_none() || hold.ticket != ticket {
                return 0;
            }
            hold.news |= panicked;
            let depth = hold.depth;
            if altogether || depth <= 1 {
                hold.free();
                return depth;
            }
            hold.depth -= 1;
            1
        })
    }

    /// Gives the lock back by hand.
    fn release(&self, caller: u64) -> Result<()> {
        self.room.change(|hold| match hold.owner {
            None => Err(Error::invalid(
                "a lock of the manager was released that nobody has: acquire it first",
            )),
            Some(owner) if self.is_reentrant && owner != caller => Err(Error::invalid(
                "an RLock of the manager was released by a thread that does not have it",
            )),
            Some(_) => {
                hold.depth -= 1;
                if hold.depth == 0 {
                    hold.free();
                }
                Ok(())
            }
        })
    }
}

impl Departure for Latch {
    fn departed(&self, caller: u64, _: bool) {
        self.room.change(|hold| {
            if hold.owner == Some(caller) {
                hold.news = true;
                hold.free();
            }
        });
    }
}

proxy_type! {
    /// A lock that a [`Manager`]'s server holds: Python's `Manager().Lock()`.
    ///
    /// It belongs to a thread, and is given back when its guard is dropped, or the thread or its
    /// process ends: then the next one that wants it hears of it, by one error for which
    /// [`is_owner_died`](Error::is_owner_died) is true. [`multiproc::Lock`](crate::Lock) is in
    /// shared memory and a thousand times quicker.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let lock = manager.lock()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.try_lock()?.is_none());
    /// drop(guard);
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails with [`is_disconnected`](Error::is_disconnected) if the server has ended,
    /// also while it waits; beyond that, as it says.
    Lock [] of Latch
}

proxy_type! {
    /// A lock that a [`Manager`]'s server holds, and that the thread which has it can take again:
    /// Python's `Manager().RLock()`. It is free when it was given back as often.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let lock = manager.rlock()?;
    /// let outer = lock.lock()?;
    /// let inner = lock.lock()?;
    /// drop(outer);
    /// assert!(lock.is_locked()?);
    /// drop(inner);
    /// assert!(!lock.is_locked()?);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Lock`].
    RLock [] of Latch
}

impl Manager {
    /// Makes a lock that nobody has.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn lock(&self) -> Result<Lock> {
        self.hold_raw(|()| Ok(Latch::new(false)), ()).map(Lock)
    }

    /// Makes a lock that nobody has, and that its owner can take again.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn rlock(&self) -> Result<RLock> {
        self.hold_raw(|()| Ok(Latch::new(true)), ()).map(RLock)
    }
}

macro_rules! lock_methods {
    ($name:ident, $guard:ident) => {
        impl $name {
            fn take(&self, depth: u32, timeout: Duration) -> Result<Option<$guard<'_>>> {
                let take = |latch: &Arc<Latch>, caller: &dyn Caller, (depth, timeout)| {
                    latch.acquire(caller, depth, timeout)
                };
                let ticket: Option<u64> = self.0.raw(take, (&depth, &timeout))?;
                Ok(ticket.map(|ticket| $guard {
                    lock: self,
                    ticket,
                    generation: fork::generation(),
                    stays: PhantomData,
                }))
            }

            /// Waits for the lock; dropping the guard gives it back.
            ///
            /// # Errors
            /// [`is_owner_died`](Error::is_owner_died) if the last owner ended or panicked while it
            /// had the lock. Then the caller does *not* have it; the next call succeeds.
            pub fn lock(&self) -> Result<$guard<'_>> {
                let guard = self.take(1, Duration::MAX)?;
                guard.ok_or_else(|| Error::invalid("the wait for a lock of the manager ended"))
            }

            /// Takes the lock if nobody has it.
            ///
            /// # Errors
            /// As `lock`.
            pub fn try_lock(&self) -> Result<Option<$guard<'_>>> {
                self.take(1, Duration::ZERO)
            }

            /// Waits for the lock, for `timeout` at most; `None` if it passed.
            ///
            /// # Errors
            /// As `lock`.
            pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<$guard<'_>>> {
                self.take(1, timeout)
            }

            /// Waits for the lock, without a guard: [`release`](Self::release) gives it back.
            ///
            /// # Errors
            /// As `lock`.
            pub fn acquire(&self) -> Result<()> {
                self.lock().map(std::mem::forget)
            }

            /// As [`acquire`](Self::acquire), if nobody has the lock; whether it did.
            ///
            /// # Errors
            /// As `lock`.
            pub fn try_acquire(&self) -> Result<bool> {
                self.acquire_timeout(Duration::ZERO)
            }

            /// As [`acquire`](Self::acquire), for `timeout` at most; whether it did.
            ///
            /// # Errors
            /// As `lock`.
            pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
                Ok(self.take(1, timeout)?.map(std::mem::forget).is_some())
            }

            /// Gives the lock back by hand. A `Lock` may be released by anybody, as in Python, an
            /// `RLock` by the thread that has it.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if nobody has it, or somebody else has
            /// an `RLock`.
            pub fn release(&self) -> Result<()> {
                let release =
                    |latch: &Arc<Latch>, caller: &dyn Caller, ()| latch.release(caller.id());
                self.0.raw(release, ())
            }

            /// Whether somebody has the lock, at this moment.
            pub fn is_locked(&self) -> Result<bool> {
                let is_locked = |latch: &Arc<Latch>, _: &dyn Caller, ()| {
                    Ok(latch.room.look(|hold| hold.owner.is_some()))
                };
                self.0.raw(is_locked, ())
            }
        }

        /// Has the lock, and gives it back when dropped. It stays on its thread.
        #[must_use = "the lock is given back when the guard is dropped"]
        pub struct $guard<'a> {
            lock: &'a $name,
            ticket: u64,
            /// The copy in a forked child has nothing.
            generation: u32,
            stays: PhantomData<*const ()>,
        }

        impl<'a> $guard<'a> {
            /// Gives the lock back altogether; the lock, and how often it was taken.
            fn let_go(self, altogether: bool) -> Result<(&'a $name, u32)> {
                let lock = self.lock;
                let depth = self.give_back(altogether);
                std::mem::forget(self);
                Ok((lock, depth?))
            }

            fn give_back(&self, altogether: bool) -> Result<u32> {
                if self.generation != fork::generation() {
                    return Ok(0);
                }
                let let_go =
                    |latch: &Arc<Latch>, _: &dyn Caller, (ticket, altogether, panicked)| {
                        Ok(latch.let_go(ticket, altogether, panicked))
                    };
                let panicked = std::thread::panicking();
                self.lock.0.raw(let_go, (&self.ticket, &altogether, &panicked))
            }
        }

        impl Drop for $guard<'_> {
            fn drop(&mut self) {
                // If the server has ended there is nothing to give back.
                let _ = self.give_back(false);
            }
        }

        impl std::fmt::Debug for $guard<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($guard)).finish_non_exhaustive()
            }
        }

        impl super::condition::Guard for $guard<'_> {}

        impl<'a> super::condition::sealed::Again for $guard<'a> {
            type Lock = (&'a $name, u32);

            fn give_back(self) -> Result<Self::Lock> {
                self.let_go(true)
            }

            fn again((lock, depth): Self::Lock) -> Result<Self> {
                let guard = lock.take(depth, Duration::MAX)?;
                guard.ok_or_else(|| Error::invalid("the wait for a lock of the manager ended"))
            }
        }
    };
}

lock_methods!(Lock, LockGuard);
lock_methods!(RLock, RLockGuard);

#[cfg(test)]
mod tests {
    use super::super::waiting::model::Thread;
    use super::*;

    #[test]
    fn a_lock_that_somebody_takes_no_times_is_taken_once() {
        for is_reentrant in [false, true] {
            let latch = Arc::new(Latch::new(is_reentrant));
            let caller = Thread { id: 7, is_alive: true };
            assert!(latch.acquire(&caller, 0, Duration::ZERO).expect("it is free").is_some());
            latch.release(caller.id).expect("the caller has it");
            assert!(latch.release(caller.id).expect_err("it is free").is_invalid_input());
        }
    }
}
