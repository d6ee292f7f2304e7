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
    deadline: Deadline,
}

impl Nap {
    /// A wait that ends at the deadline.
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self { next: FIRST, deadline }
    }

    /// When the next sleep ends, at the latest.
    pub(crate) fn next(&mut self) -> Deadline {
        let end = Deadline::after(self.next).min(self.deadline);
        self.next = (self.next * 2).min(LONGEST);
        end
    }

    /// Whether the wait is over.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.passed()
    }
}
