//! Waiting in the server, for one client at a time.

use crate::entry::Caller;
use crate::sys::clock::Deadline;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anybody sleeps before looking whether its client is still there.
pub(super) const SLICE: Duration = Duration::from_millis(64);

/// State that clients wait for.
#[derive(Debug, Default)]
pub(super) struct Room<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T> Room<T> {
    pub(super) fn new(state: T) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // None of the changes below panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state.
    pub(super) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Changes the state; whoever waits looks again.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// Tries until `attempt` gives something; `None` if the time passed, or the client is gone.
    /// What a client that is gone waited for is never taken.
    pub(super) fn wait<R>(
        &self,
        caller: &dyn Caller,
        timeout: Duration,
        mut attempt: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.lock();
        let deadline = Deadline::after(timeout);
        loop {
            // What it gets would be lost. Also the first time: its request may have lain there for
            // long. With the lock, so that nothing that comes after its death is for it.
            if !caller.is_alive() {
                return None;
            }
            if let Some(result) = attempt(&mut state) {
                drop(state);
                self.changed.notify_all();
                return Some(result);
            }
            let left = deadline.remaining().unwrap_or(SLICE);
            if left.is_zero() {
                return None;
            }
            let slept = self.changed.wait_timeout(state, left.min(SLICE));
            state = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
pub(super) mod model {
    use super::*;
    use crate::entry::Departure;
    use std::sync::Weak;

    /// A client's thread that says of itself whether it is there.
    #[derive(Debug)]
    pub(in crate::manager) struct Thread {
        pub(in crate::manager) id: u64,
        pub(in crate::manager) is_alive: bool,
    }

    impl Caller for Thread {
        fn id(&self) -> u64 {
            self.id
        }
        fn is_alive(&self) -> bool {
            self.is_alive
        }
        fn holds(&self, _: Weak<dyn Departure>) {}
        fn tells(&self, _: Weak<dyn Departure>) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_not_for_a_caller_that_is_gone() {
        let room = Room::new(1);
        let gone = model::Thread { id: 1, is_alive: false };
        let take = |items: &mut u32| items.checked_sub(1).map(|left| *items = left);
        assert!(room.wait(&gone, Duration::MAX, take).is_none());
        assert!(room.wait(&gone, Duration::ZERO, take).is_none());
        assert_eq!(room.look(|items| *items), 1);
    }
}
