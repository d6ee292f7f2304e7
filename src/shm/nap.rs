//! Sleeping, but never for long.
//!
//! A process can be killed between taking a wake-up and acting on it, so no sleep in shared memory
//! relies on being woken: whoever waits looks again after 1 ms, 2 ms, 4 ms and so on, at most every
//! 64 ms. A lost wake-up is a delay, never a hang; the price is 16 looks a second for each thread
//! that waits for long.

use crate::sys::clock::Deadline;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(64);

/// The sleeps of one wait.
#[derive(Debug)]
pub(crate) struct Nap {
    next: Duration,
    /// When the last sleep ends, whatever interrupts it.
    end: Option<Deadline>,
    deadline: Deadline,
}

impl Nap {
    /// A wait that ends at the deadline.
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self { next: FIRST, end: None, deadline }
    }

    /// When the next sleep ends, at the latest: as the last one should have, if that one was
    /// interrupted (by a signal, or a wake-up that somebody else made use of). Else whoever is
    /// interrupted often enough would never look for the dead.
    pub(crate) fn next(&mut self) -> Deadline {
        match self.end {
            Some(end) if !end.passed() => end,
            _ => {
                let end = Deadline::after(self.next).min(self.deadline);
                self.next = (self.next * 2).min(LONGEST);
                self.end = Some(end);
                end
            }
        }
    }

    /// Whether the wait is over.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.passed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_that_was_interrupted_ends_when_it_should_have() {
        let mut nap = Nap::new(Deadline::NEVER);
        let first = nap.next();
        while !first.passed() {
            assert!(nap.next() == first || first.passed());
        }
        assert_ne!(nap.next(), first);
    }
}
