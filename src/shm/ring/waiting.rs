//! Waiting for an end to move on.

use super::ends::{self, Position};
use super::patience::Patience;
use super::{Ring, layout};
use crate::shm::nap::Nap;
use crate::shm::owner::Look;
use crate::sys::clock::Deadline;
use crate::sys::spin::Spin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long to look before the first sleep.
const LOOKING: Duration = Duration::from_micros(20);

/// What became of a wait for an end to move on.
pub(super) enum Waited {
    /// Look again.
    Look,
    TimedOut,
    /// There is nobody to wait for.
    Over,
}

/// A wait for an end to move on: some looks, then sleeps.
pub(super) struct Wait {
    spin: Spin,
    nap: Nap,
    deadline: Deadline,
}

impl Wait {
    #[cold]
    pub(super) fn new(deadline: Deadline) -> Self {
        Self { spin: Spin::new(LOOKING), nap: Nap::new(deadline), deadline }
    }
}

impl Ring {
    /// Waits until the end is not as it was `seen`.
    #[cold]
    pub(super) fn wait_for_change(
        &self,
        (end, patience): (&AtomicU64, &Patience),
        seen: u64,
        wait: &mut Wait,
        mut is_over: impl FnMut() -> bool,
    ) -> Waited {
        if !wait.deadline.passed() {
            let pauses = patience.pause();
            while wait.spin.again() {
                // Relaxed, here and below: it is only compared.
                let now = end.load(Ordering::Relaxed);
                if now != seen {
                    patience.learn(pauses, ends::distance(seen, now));
                    return Waited::Look;
                }
            }
            patience.learn(pauses, 0);
        }
        if is_over() {
            return Waited::Over;
        }
        if wait.nap.is_over() {
            return Waited::TimedOut;
        }
        if ends::sleep(end, seen, &mut wait.nap) {
            self.look_for_dead(Look::Close);
        }
        match wait.nap.is_over() && end.load(Ordering::Relaxed) == seen {
            true => Waited::TimedOut,
            false => Waited::Look,
        }
    }

    /// Gives up places of dead processes.
    pub(super) fn look_for_dead(&self, look: Look) {
        if self.places().are_used() {
            // Acquire: read after the state of the seat that it is compared with.
            let head = || Position::of(self.head().load(Ordering::Acquire));
            while let Some(lost) = self.places().give_up_of_dead(look, head) {
                self.count(layout::LOST_IN_COPY, lost.into());
            }
        }
    }
}
