//! Whether to let the other side get ahead before looking where it is.
//!
//! A look takes the cache line of an end away from whoever moves it on, and costs both sides more
//! than an item does. If one side waits for each item of a stream that the other is putting as fast
//! as it can, both go at the pace of these looks. If it pauses first, it finds several items, and
//! does not have to look again for as many. But one that waits for an answer should look at once.
//! Which of the two it is nobody says, so a handle tries now and then whether pausing pays.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pauses of a trial.
const TRIAL: u32 = 32;
/// The most pauses: a microsecond or a few.
const MOST: u32 = 128;
/// So much has to have happened meanwhile for the pauses to have paid.
const ENOUGH: u64 = 4;
/// The waits from one trial to the next: after one that paid, and at most.
const OFTEN: u32 = 32;
const SELDOM: u32 = 4096;

/// What a handle has learned about one end of its ring.
#[derive(Debug)]
pub(super) struct Patience(AtomicU64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// How often to pause; 0 if it does not pay.
    pauses: u32,
    /// How many waits are left until the next trial.
    left: u32,
    /// How many there were after the last one.
    interval: u32,
}

impl State {
    const FIRST: Self = Self { pauses: 0, left: OFTEN, interval: OFTEN };

    const fn pack(self) -> u64 {
        (self.pauses as u64) << 32 | (self.left as u64) << 16 | self.interval as u64
    }

    fn of(word: u64) -> Self {
        let part = |shift: u32| u32::from((word >> shift) as u16);
        Self { pauses: part(32), left: part(16), interval: part(0) }
    }

    /// The pauses of the next wait, and the state after it.
    fn next(self) -> (u32, Self) {
        match (self.pauses, self.left) {
            (0, 0 | 1) => (TRIAL, Self { left: self.interval, ..self }),
            (0, left) => (0, Self { left: left - 1, ..self }),
            (pauses, _) => (pauses, self),
        }
    }

    /// The state after so many pauses in which so much happened.
    fn learn(self, pauses: u32, moved: u64) -> Self {
        if moved >= ENOUGH {
            Self { pauses: (2 * pauses).min(MOST), interval: OFTEN, left: OFTEN }
        } else if pauses > TRIAL {
            Self { pauses: pauses / 2, ..self }
        } else {
            let interval = (2 * self.interval).min(SELDOM);
            Self { pauses: 0, interval, left: interval }
        }
    }
}

impl Patience {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(State::FIRST.pack()))
    }

    /// Pauses for as long as that has paid; what to [`learn`](Self::learn) from later.
    pub(super) fn pause(&self) -> u32 {
        // Relaxed, here and below: a guess that other threads may spoil.
        let (pauses, state) = State::of(self.0.load(Ordering::Relaxed)).next();
        self.0.store(state.pack(), Ordering::Relaxed);
        for _ in 0..pauses {
            spin_loop();
        }
        pauses
    }

    /// So many items were put, or taken, until the first look after the pauses.
    pub(super) fn learn(&self, pauses: u32, moved: u64) {
        if pauses > 0 {
            let state = State::of(self.0.load(Ordering::Relaxed)).learn(pauses, moved);
            self.0.store(state.pack(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of so many waits, in each of which so much happens if there were any.
    fn pauses(waits: u32, moved: u64) -> Vec<u32> {
        let mut state = State::FIRST;
        let wait = |_| {
            let (pauses, next) = state.next();
            state = if pauses > 0 { next.learn(pauses, moved) } else { next };
            assert_eq!(State::of(state.pack()), state);
            pauses
        };
        (0..waits).map(wait).collect()
    }

    #[test]
    fn who_waits_for_answers_hardly_ever_pauses() {
        let all = pauses(100_000, 1);
        assert!(all.iter().all(|&pauses| pauses == 0 || pauses == TRIAL));
        assert!((20..50).contains(&all.iter().filter(|&&pauses| pauses > 0).count()));
    }

    #[test]
    fn who_finds_several_items_pauses_from_then_on() {
        let all = pauses(100, 9);
        let first = all.iter().position(|&pauses| pauses > 0).expect("a trial");
        assert!(first < 40);
        assert_eq!(all[first..first + 4], [TRIAL, 2 * TRIAL, MOST, MOST]);
        assert!(all[first..].iter().all(|&pauses| pauses > 0));
    }

    #[test]
    fn pauses_that_pay_no_longer_end() {
        let mut state = State { pauses: MOST, ..State::FIRST };
        let mut waits = 0;
        while state.pauses > 0 {
            let (pauses, next) = state.next();
            state = next.learn(pauses, 2);
            waits += 1;
        }
        assert!(waits < 5);
    }
}
