//! `Condition`.

use super::proxy::proxy_type;
use super::waiting::Room;
use crate::Result;
use crate::entry::{Caller, Departure};
use crate::manager::Manager;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A condition in the server: a queue of those who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters(Room<Queue>);

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// Who waits, by ticket: the caller, and whether it was notified and has not gone yet.
    waiting: BTreeMap<u64, (u64, bool)>,
}

impl Queue {
    fn notify(&mut self, count: usize) {
        let asleep = self.waiting.values_mut().filter(|(_, notified)| !notified);
        asleep.take(count).for_each(|(_, notified)| *notified = true);
    }
}

impl Waiters {
    /// Puts a caller into the queue; its ticket.
    fn line_up(self: &Arc<Self>, caller: &dyn Caller) -> u64 {
        let holder: Weak<Self> = Arc::downgrade(self);
        caller.holds(holder);
        self.0.change(|queue| {
            queue.next += 1;
            queue.waiting.insert(queue.next, (caller.id(), false));
            queue.next
        })
    }

    /// Waits until the ticket is notified, and leaves the queue; whether it was. A caller that is
    /// gone stays in the queue until its departure, which passes its notification on.
    fn wait(&self, caller: &dyn Caller, ticket: u64, timeout: Duration) -> bool {
        let is_notified = |queue: &mut Queue| match queue.waiting.get(&ticket) {
            Some((_, false)) => None,
            _ => Some(()),
        };
        self.0.wait(caller, timeout, is_notified);
        if !caller.is_alive() {
            return false;
        }
        // A notification that came just now counts.
        let left = self.0.change(|queue| queue.waiting.remove(&ticket));
        left.is_some_and(|(_, notified)| notified)
    }
}

impl Departure for Waiters {
    fn departed(&self, caller: u64, _: bool) {
        self.0.change(|queue| {
            let gone: Vec<u64> = queue
                .waiting
                .iter()
                .filter(|(_, (of, _))| *of == caller)
                .map(|(ticket, _)| *ticket)
                .collect();
            for ticket in gone {
                // A notification that it did not live to see goes to the next.
                if let Some((_, true)) = queue.waiting.remove(&ticket) {
                    queue.notify(1);
                }
            }
        });
    }

    fn unheard(&self) {
        self.0.change(|queue| queue.notify(1));
    }
}

pub(super) mod sealed {
    use crate::Result;

    /// A guard that can be given back for a while.
    pub trait Again: Sized {
        /// What is kept to take it again.
        type Lock;
        fn give_back(self) -> Result<Self::Lock>;
        fn again(lock: Self::Lock) -> Result<Self>;
    }
}

/// A guard with which a [`Condition`] can wait: [`LockGuard`](super::LockGuard) or
/// [`RLockGuard`](super::RLockGuard), which is given back altogether and taken again as often.
pub trait Guard: sealed::Again {}

proxy_type! {
    /// Waiting until something behind a lock has changed, in a [`Manager`]'s server: Python's
    /// `Manager().Condition()`.
    ///
    /// It works with the guards of a [`Lock`](super::Lock) or an [`RLock`](super::RLock) of the
    /// manager, like [`multiproc::Condition`](crate::Condition) with those in shared memory.
    /// Notifications go to those who have waited longest; one for a waiter that is killed before it
    /// asks for the lock again goes to the next.
    ///
    /// ```
    /// use multiproc::{Manager, Process};
    /// use multiproc::manager::{Condition, List, Lock};
    ///
    /// fn produce(lock: Lock, changed: Condition, list: List<u32>) -> multiproc::Result<()> {
    ///     let _guard = lock.lock()?;
    ///     list.push(7)?;
    ///     changed.notify_one()
    /// }
    ///
    /// let manager = Manager::start()?;
    /// let (lock, changed, list) = (manager.lock()?, manager.condition()?, manager.list()?);
    /// let arguments = (lock.clone(), changed.clone(), list.clone());
    /// let mut producer = Process::spawn(|a, b, c| produce(a, b, c).is_ok(), arguments)?;
    /// let guard = changed.wait_while(lock.lock()?, || list.is_empty())?;
    /// assert_eq!(list.pop()?, Some(7));
    /// drop(guard);
    /// assert!(producer.join()?);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails with [`is_disconnected`](crate::Error::is_disconnected) if the server has
    /// ended, also while it waits, and those that take the lock again as
    /// [`Lock::lock`](super::Lock::lock). Then the lock is not the caller's any more.
    Condition [] of Waiters
}

impl Manager {
    /// Makes a condition.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn condition(&self) -> Result<Condition> {
        self.hold_raw(|()| Ok(Waiters::default()), ()).map(Condition)
    }
}

impl Condition {
    /// Gives the lock back, waits until notified, and takes the lock again.
    pub fn wait<G: Guard>(&self, guard: G) -> Result<G> {
        self.wait_timeout(guard, Duration::MAX).map(|(guard, _)| guard)
    }

    /// As [`wait`](Condition::wait), for `timeout` at most; with the guard comes whether it was
    /// notified. Taking the lock again may take longer.
    pub fn wait_timeout<G: Guard>(&self, guard: G, timeout: Duration) -> Result<(G, bool)> {
        // In the queue before the lock is free: whoever notifies from then on sees this waiter.
        let line_up = |waiters: &Arc<Waiters>, caller: &dyn Caller, ()| Ok(waiters.line_up(caller));
        let ticket: u64 = self.0.raw(line_up, ())?;
        let lock = guard.give_back()?;
        let wait = |waiters: &Arc<Waiters>, caller: &dyn Caller, (ticket, timeout)| {
            let notified = waiters.wait(caller, ticket, timeout);
            if notified {
                // Whoever hears it asks for the lock next.
                let teller: Weak<Waiters> = Arc::downgrade(waiters);
                caller.tells(teller);
            }
            Ok(notified)
        };
        let notified: bool = self.0.raw(wait, (&ticket, &timeout))?;
        Ok((G::again(lock)?, notified))
    }

    /// Waits until `condition` is false; at once if it is. It is called with the lock held.
    pub fn wait_while<G: Guard>(
        &self,
        mut guard: G,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<G> {
        while condition()? {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait_while`](Condition::wait_while), for `timeout` at most; with the guard comes
    /// whether the condition is false.
    pub fn wait_timeout_while<G: Guard>(
        &self,
        mut guard: G,
        timeout: Duration,
        mut condition: impl FnMut() -> Result<bool>,
    ) -> Result<(G, bool)> {
        let deadline = crate::sys::clock::Deadline::after(timeout);
        while condition()? {
            if deadline.passed() {
                return Ok((guard, false));
            }
            let left = deadline.remaining().unwrap_or(Duration::MAX);
            guard = self.wait_timeout(guard, left)?.0;
        }
        Ok((guard, true))
    }

    /// Notifies the one that has waited longest.
    pub fn notify_one(&self) -> Result<()> {
        self.notify(1)
    }

    /// Notifies the `count` that have waited longest.
    pub fn notify(&self, count: usize) -> Result<()> {
        let notify = |waiters: &Arc<Waiters>, _: &dyn Caller, (count,): (usize,)| {
            waiters.0.change(|queue| queue.notify(count));
            Ok(())
        };
        self.0.raw(notify, (&count,))
    }

    /// Notifies all who wait.
    pub fn notify_all(&self) -> Result<()> {
        self.notify(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::waiting::model::Thread;
    use super::*;

    #[test]
    fn a_notification_that_a_waiter_did_not_live_to_hear_of_goes_to_the_next() {
        let waiters = Arc::new(Waiters::default());
        let (dead, next) = (Thread { id: 7, is_alive: false }, Thread { id: 8, is_alive: true });
        let tickets = [waiters.line_up(&dead), waiters.line_up(&next)];
        waiters.0.change(|queue| queue.notify(1));
        assert!(!waiters.wait(&dead, tickets[0], Duration::ZERO));
        waiters.departed(dead.id, false);
        assert!(waiters.wait(&next, tickets[1], Duration::ZERO), "the notification is lost");
    }

    #[test]
    fn who_gives_up_is_in_nobodys_way() {
        let waiters = Arc::new(Waiters::default());
        let (one, other) = (Thread { id: 7, is_alive: true }, Thread { id: 8, is_alive: true });
        let tickets = [waiters.line_up(&one), waiters.line_up(&other)];
        assert!(!waiters.wait(&one, tickets[0], Duration::ZERO));
        waiters.0.change(|queue| queue.notify(1));
        assert!(waiters.wait(&other, tickets[1], Duration::ZERO));
    }
}
