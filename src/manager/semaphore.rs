//! `Semaphore` and `BoundedSemaphore`.

use super::lock::owner_died;
use super::proxy::proxy_type;
use super::waiting::Room;
use crate::entry::{Caller, Departure};
use crate::manager::Manager;
use crate::sys::fork;
use crate::{Error, Result};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Permits in the server.
#[derive(Debug)]
pub(super) struct Permits(Room<Count>);

#[derive(Debug)]
struct Count {
    available: u32,
    /// As many as there may be.
    limit: u32,
    /// How many permits are in guards, by caller.
    held: HashMap<u64, u32>,
    /// Whether somebody died, or panicked, with a permit, and nobody was told.
    news: bool,
}

impl Permits {
    fn new(available: u32, limit: u32) -> Self {
        Self(Room::new(Count { available, limit, held: HashMap::new(), news: false }))
    }

    /// Takes a permit, into a guard or by hand; false if the time passed.
    fn acquire(
        self: &Arc<Self>,
        caller: &dyn Caller,
        in_guard: bool,
        timeout: Duration,
    ) -> Result<bool> {
        let holder: Weak<Self> = Arc::downgrade(self);
        caller.holds(holder);
        let me = caller.id();
        let taken = self.0.wait(caller, timeout, |count| {
            if count.available == 0 {
                return None;
            }
            if std::mem::take(&mut count.news) {
                return Some(Err(owner_died("semaphore")));
            }
            count.available -= 1;
            if in_guard {
                *count.held.entry(me).or_default() += 1;
            }
            Some(Ok(()))
        });
        taken.transpose().map(|taken| taken.is_some())
    }

    /// Gives back the permit in a guard.
    fn give_back(&self, caller: u64, panicked: bool) {
        self.0.change(|count| {
            let Some(held) = count.held.get_mut(&caller) else { return };
            *held -= 1;
            if *held == 0 {
                count.held.remove(&caller);
            }
            count.news |= panicked;
            // Somebody may have released a permit too many by hand.
            count.available = count.available.saturating_add(1).min(count.limit);
        });
    }

    fn release(&self, permits: u32) -> Result<()> {
        self.0.change(|count| {
            let raised = count.available.checked_add(permits);
            let Some(raised) = raised.filter(|raised| *raised <= count.limit) else {
                return Err(Error::invalid(format!(
                    "{permits} permits were released to a semaphore of the manager that has {} and \
                     may have {}: acquire them first",
                    count.available, count.limit
                )));
            };
            count.available = raised;
            Ok(())
        })
    }
}

impl Departure for Permits {
    fn departed(&self, caller: u64, _: bool) {
        self.0.change(|count| {
            let held = count.held.remove(&caller).unwrap_or(0);
            count.news |= held > 0;
            count.available = count.available.saturating_add(held).min(count.limit);
        });
    }
}

proxy_type! {
    /// A number of permits that a [`Manager`]'s server holds: Python's `Manager().Semaphore()`.
    ///
    /// A permit in a guard is given back when the guard is dropped, or its thread or process ends:
    /// then the next one that wants a permit hears of it, by one error for which
    /// [`is_owner_died`](Error::is_owner_died) is true. [`multiproc::Semaphore`](crate::Semaphore)
    /// is in shared memory and a thousand times quicker.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let places = manager.semaphore(2)?;
    /// let (first, second) = (places.acquire()?, places.acquire()?);
    /// assert!(places.try_acquire()?.is_none());
    /// drop(first);
    /// assert_eq!(places.available()?, 1);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails with [`is_disconnected`](Error::is_disconnected) if the server has ended,
    /// also while it waits; beyond that, as it says.
    Semaphore [] of Permits
}

proxy_type! {
    /// A [`Semaphore`] that never has more permits than it was made with: a release too many is an
    /// error. Python's `Manager().BoundedSemaphore()`.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let places = manager.bounded_semaphore(1)?;
    /// assert!(places.release(1).unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Semaphore`].
    BoundedSemaphore [] of Permits
}

impl Manager {
    /// Makes a semaphore with this many permits.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn semaphore(&self, permits: u32) -> Result<Semaphore> {
        let make = |(permits,): (u32,)| Ok(Permits::new(permits, u32::MAX));
        self.hold_raw(make, (&permits,)).map(Semaphore)
    }

    /// Makes a semaphore with this many permits, and never more.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn bounded_semaphore(&self, permits: u32) -> Result<BoundedSemaphore> {
        let make = |(permits,): (u32,)| Ok(Permits::new(permits, permits));
        self.hold_raw(make, (&permits,)).map(BoundedSemaphore)
    }
}

/// Has a permit of a [`Semaphore`] or a [`BoundedSemaphore`], and gives it back when dropped. It
/// stays on its thread.
#[must_use = "the permit is given back when the guard is dropped"]
pub struct Permit<'a> {
    permits: &'a super::Proxy<Permits>,
    /// The copy in a forked child has nothing.
    generation: u32,
    stays: PhantomData<*const ()>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return;
        }
        let give_back = |permits: &Arc<Permits>, caller: &dyn Caller, (panicked,): (bool,)| {
            permits.give_back(caller.id(), panicked);
            Ok(())
        };
        // If the server has ended there is nothing to give back.
        let _ = self.permits.raw::<_, ()>(give_back, (&std::thread::panicking(),));
    }
}

impl std::fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

macro_rules! semaphore_methods {
    ($name:ident) => {
        impl $name {
            fn take(&self, in_guard: bool, timeout: Duration) -> Result<bool> {
                let take = |permits: &Arc<Permits>, caller: &dyn Caller, (in_guard, timeout)| {
                    permits.acquire(caller, in_guard, timeout)
                };
                self.0.raw(take, (&in_guard, &timeout))
            }

            fn permit(&self) -> Permit<'_> {
                Permit { permits: &self.0, generation: fork::generation(), stays: PhantomData }
            }

            /// Waits for a permit; dropping it gives it back.
            ///
            /// # Errors
            /// [`is_owner_died`](Error::is_owner_died) if somebody ended or panicked with a permit.
            /// Then the caller has none; the next call succeeds.
            pub fn acquire(&self) -> Result<Permit<'_>> {
                self.take(true, Duration::MAX).map(|_| self.permit())
            }

            /// Takes a permit if there is one.
            ///
            /// # Errors
            /// As `acquire`.
            pub fn try_acquire(&self) -> Result<Option<Permit<'_>>> {
                self.acquire_timeout(Duration::ZERO)
            }

            /// Waits for a permit, for `timeout` at most; `None` if it passed.
            ///
            /// # Errors
            /// As `acquire`.
            pub fn acquire_timeout(&self, timeout: Duration) -> Result<Option<Permit<'_>>> {
                self.take(true, timeout).map(|taken| taken.then(|| self.permit()))
            }

            /// Waits for a permit, without a guard: [`release`](Self::release) gives it back, on
            /// whatever thread of whatever process.
            ///
            /// # Errors
            /// As `acquire`.
            pub fn acquire_raw(&self) -> Result<()> {
                self.take(false, Duration::MAX).map(drop)
            }

            /// As [`acquire_raw`](Self::acquire_raw), for `timeout` at most; whether it did.
            ///
            /// # Errors
            /// As `acquire`.
            pub fn acquire_raw_timeout(&self, timeout: Duration) -> Result<bool> {
                self.take(false, timeout)
            }

            /// Gives back permits that were acquired by hand, or adds some.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if there would be too many.
            pub fn release(&self, permits: u32) -> Result<()> {
                let release =
                    |all: &Arc<Permits>, _: &dyn Caller, (permits,): (u32,)| all.release(permits);
                self.0.raw(release, (&permits,))
            }

            /// The number of permits that are there, at this moment.
            pub fn available(&self) -> Result<u32> {
                let available = |permits: &Arc<Permits>, _: &dyn Caller, ()| {
                    Ok(permits.0.look(|count| count.available))
                };
                self.0.raw(available, ())
            }
        }
    };
}

semaphore_methods!(Semaphore);
semaphore_methods!(BoundedSemaphore);

#[cfg(test)]
mod tests {
    use super::super::waiting::model::Thread;
    use super::*;

    #[test]
    fn a_permit_that_comes_back_to_as_many_as_there_can_be_is_one_too_many_and_no_more() {
        let permits = Arc::new(Permits::new(u32::MAX, u32::MAX));
        let caller = Thread { id: 7, is_alive: true };
        assert!(permits.acquire(&caller, true, Duration::ZERO).expect("a permit"));
        permits.release(1).expect("there is room for it");
        permits.give_back(caller.id, false);
        assert_eq!(permits.0.look(|count| count.available), u32::MAX);
    }
}
