//! Turns: one producer, and one consumer, at a time.

use super::ends::Position;
use super::{Ring, layout};
use crate::shm::lock;
use crate::shm::owner;
use crate::sys::clock::Deadline;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long somebody who only tries waits for a lock that is never held for long.
const TURN: Duration = Duration::from_secs(1);

/// One of the locks is held, by this thread. Two words, so that it is returned in registers: a third
/// one made every item a fifth dearer.
pub(super) struct Turn<'a> {
    word: &'a AtomicU64,
    /// Whether whoever had it last died in its turn.
    pub(super) is_after_death: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock::give_back(self.word, owner::me());
    }
}

impl Ring {
    /// Takes one of the locks; `None` if the deadline passes.
    #[inline]
    pub(super) fn turn(&self, at: usize, deadline: Deadline) -> Option<Turn<'_>> {
        let (word, me) = (&self.words()[at / 8], owner::me());
        match lock::try_take(word, me) {
            Some(None) => Some(Turn { word, is_after_death: false }),
            news => self.late_turn(at, me, news, deadline),
        }
    }

    /// As [`turn`](Self::turn), if somebody has the lock, or had it and died.
    #[cold]
    fn late_turn(
        &self,
        at: usize,
        me: u64,
        news: Option<lock::Taken>,
        deadline: Deadline,
    ) -> Option<Turn<'_>> {
        let word = &self.words()[at / 8];
        let news = match news {
            Some(news) => news,
            // Whoever has it does not wait for anything: also a try waits for its turn.
            None => lock::take(word, me, deadline.max(Deadline::after(TURN)))?,
        };
        let turn = Turn { word, is_after_death: news.is_some() };
        if turn.is_after_death {
            self.count(layout::DEATHS, 1);
            if at == layout::PUT_LOCK {
                // Acquire: that of a dead owner was not given back.
                let tail = Position::of(self.tail().load(Ordering::Acquire));
                self.places().give_up_orphans(tail);
            }
        }
        Some(turn)
    }

    /// Does something while no consumer takes an item; false if that is not possible soon.
    pub(crate) fn as_consumer(&self, run: impl FnOnce()) -> bool {
        let turn = self.turn(layout::GET_LOCK, Deadline::now());
        turn.map(|_turn| run()).is_some()
    }

    /// Does something while there is no item, and nobody puts or takes one; not at all if there is,
    /// or if that is not possible soon.
    pub(crate) fn while_empty(&self, run: impl FnOnce()) {
        let now = Deadline::now();
        // Nobody else takes both locks.
        let turns = self
            .turn(layout::GET_LOCK, now)
            .and_then(|taking| Some((taking, self.turn(layout::PUT_LOCK, now)?)));
        if turns.is_some() && self.is_empty() {
            run();
        }
    }
}
