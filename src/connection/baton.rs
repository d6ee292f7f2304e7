//! Turns: something that one thread at a time has, while others wait with a deadline.

use crate::sys::clock::Deadline;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A value that one thread has at a time. As a mutex, but that waiting for it can be given up: its
/// holder may wait for a peer that does nothing.
#[derive(Debug, Default)]
pub(super) struct Baton<T> {
    is_out: Mutex<bool>,
    is_back: Condvar,
    value: Mutex<T>,
}

/// The value, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a, T> {
    value: MutexGuard<'a, T>,
    baton: &'a Baton<T>,
}

impl<T> Baton<T> {
    pub(super) fn new(value: T) -> Self {
        Self { is_out: Mutex::new(false), is_back: Condvar::new(), value: Mutex::new(value) }
    }

    /// Takes the value; `None` if another thread had it until the deadline.
    pub(super) fn take(&self, deadline: Deadline) -> Option<Held<'_, T>> {
        let mut is_out = self.is_out.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_out {
            is_out = match deadline.remaining() {
                None => self.is_back.wait(is_out).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return None,
                Some(left) => {
                    let waited = self.is_back.wait_timeout(is_out, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *is_out = true;
        drop(is_out);
        // Free, or its last holder is just about to let go.
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Held { value, baton: self })
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        *self.baton.is_out.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.baton.is_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_has_it_and_others_can_give_up() {
        let baton = Baton::new(1);
        let mut held = baton.take(Deadline::NEVER).expect("it is there");
        assert!(baton.take(Deadline::now()).is_none());
        assert!(baton.take(Deadline::after(Duration::from_millis(1))).is_none());
        std::thread::scope(|scope| {
            let next = scope.spawn(|| *baton.take(Deadline::NEVER).expect("it comes back"));
            *held += 1;
            drop(held);
            assert_eq!(next.join().expect("the other thread"), 2);
        });
    }
}
