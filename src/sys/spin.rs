//! Looking again for a while before sleeping.

use std::time::{Duration, Instant};

/// Counts a busy wait down: pauses first, then gives the processor to others between looks.
#[derive(Debug)]
pub(crate) struct Spin {
    budget: Duration,
    started: Option<Instant>,
    rounds: u32,
}

/// Looks with a bare pause in between, before the first yield.
const PAUSES: u32 = 200;

impl Spin {
    /// A wait of about `budget`.
    pub(crate) fn new(budget: Duration) -> Self {
        Self { budget, started: None, rounds: 0 }
    }

    /// Waits a moment; false when the budget is used up.
    pub(crate) fn again(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds <= PAUSES {
            std::hint::spin_loop();
            return true;
        }
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        std::thread::yield_now();
        now.duration_since(started) < self.budget
    }
}
