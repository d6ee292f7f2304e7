//! Seats: a table of who takes part in something, for what must survive the death of one of many.
//!
//! A seat is two words: the owner's, as `owner` describes it, and the seat's *state*, whose meaning
//! the protocol that uses the table defines. An owner takes a free seat (owner word 0), sets the
//! state, and frees the seat when it is done. Of an owner that died the seat remains, and whoever
//! finds it knows what that owner was doing.
//!
//! Looking whether an owner lives costs 10 us, so nobody looks at all seats at once: whoever waits
//! examines a few each time it wakes, going round with a cursor that all share.

use super::atomic::{Bed, Word64};
use super::memory::Memory;
use super::owner::{self, Look};
use std::sync::atomic::{AtomicU64, Ordering};

/// How many seats an object has.
pub(crate) const SEATS: u32 = 1024;
/// The bytes that a table takes.
pub(crate) const TABLE: usize = FIRST + SEAT * SEATS as usize;
/// How many seats a waiter examines when it wakes.
pub(crate) const EXAMINED: u32 = 8;

const HIGH: usize = 0;
const CURSOR: usize = 8;
const FIRST: usize = 64;
const SEAT: usize = 16;

/// A table, in shared memory or in a model.
pub(crate) trait Table {
    type Word: Bed;
    /// The number of seats that there are.
    fn capacity(&self) -> u32;
    /// One more than the highest seat that was ever taken: at most the capacity, whatever the
    /// memory says.
    fn high(&self) -> u32;
    /// Seat `high - 1` is about to be taken.
    fn raise(&self, high: u32);
    /// The owner word of a seat below the capacity.
    fn owner(&self, seat: u32) -> &Self::Word;
    /// The state word of a seat below the capacity.
    fn state(&self, seat: u32) -> &Self::Word;
    /// The next seat whose owner is to be examined.
    fn cursor(&self) -> u32;

    /// Takes a free seat, looking from `start` on; `None` if all are taken.
    fn claim(&self, me: u64, start: u32) -> Option<u32> {
        for step in 0..self.capacity() {
            let seat = (start + step) % self.capacity();
            let owner = self.owner(seat);
            // Relaxed: the compare-and-swap orders. It is not tried on seats that are taken.
            if owner.load(Ordering::Relaxed) == 0 && owner.compare_exchange(0, me).is_ok() {
                self.raise(seat + 1);
                return Some(seat);
            }
        }
        None
    }

    /// Frees a seat of the caller's.
    fn free(&self, seat: u32) {
        // Release: whoever takes the seat next finds its state as it was left.
        self.owner(seat).store(0, Ordering::Release);
    }

    /// Examines the next few seats, and returns one whose owner is dead, with the owner's word.
    fn examine(&self, look: Look, is_dead: impl Fn(u64, Look) -> bool) -> Option<(u32, u64)> {
        let high = self.high();
        for _ in 0..high.min(EXAMINED) {
            let seat = self.cursor() % high;
            // Acquire: the state that the owner left is read next.
            let owner = self.owner(seat).load(Ordering::Acquire);
            if owner != 0 && is_dead(owner, look) {
                return Some((seat, owner));
            }
        }
        None
    }
}

/// A table at byte `at` of an object, which must be a multiple of 8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seats<'a> {
    memory: &'a Memory,
    at: usize,
}

impl<'a> Seats<'a> {
    pub(crate) fn new(memory: &'a Memory, at: usize) -> Self {
        Self { memory, at }
    }
}

impl Table for Seats<'_> {
    type Word = AtomicU64;

    fn capacity(&self) -> u32 {
        SEATS
    }

    fn high(&self) -> u32 {
        // Relaxed: protocols that rely on it have a fence before.
        self.memory.word(self.at + HIGH).load(Ordering::Relaxed).min(SEATS.into()) as u32
    }

    fn raise(&self, high: u32) {
        let word = self.memory.word(self.at + HIGH);
        // The plain load keeps the line shared: the mark is raised a few times in all. Relaxed:
        // see `high`.
        if word.load(Ordering::Relaxed) < high.into() {
            word.fetch_max(high.into(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn owner(&self, seat: u32) -> &AtomicU64 {
        self.memory.word(self.at + FIRST + SEAT * seat as usize)
    }

    #[inline]
    fn state(&self, seat: u32) -> &AtomicU64 {
        self.memory.word(self.at + FIRST + SEAT * seat as usize + 8)
    }

    fn cursor(&self) -> u32 {
        // Relaxed: any seat will do.
        self.memory.word(self.at + CURSOR).fetch_add(1, Ordering::Relaxed) as u32
    }
}

/// The seats whose owners are known to be dead, of all.
pub(crate) fn all_dead<T: Table>(table: &T) -> impl Iterator<Item = (u32, u64)> + '_ {
    (0..table.high()).filter_map(|seat| {
        let owner = table.owner(seat).load(Ordering::Acquire);
        (owner != 0 && owner::is_dead(owner, Look::Close)).then_some((seat, owner))
    })
}

#[cfg(test)]
pub(crate) mod model {
    use super::*;
    use crate::shm::atomic::model::ModelBed;

    /// A table in a model, with all seats in use from the start.
    #[derive(Debug)]
    pub(crate) struct ModelTable(pub(crate) Vec<[ModelBed; 2]>);

    impl ModelTable {
        pub(crate) fn new(seats: usize) -> Self {
            Self((0..seats).map(|_| [ModelBed::new(0), ModelBed::new(0)]).collect())
        }
    }

    impl Table for &ModelTable {
        type Word = ModelBed;
        fn capacity(&self) -> u32 {
            self.0.len() as u32
        }
        fn high(&self) -> u32 {
            self.capacity()
        }
        fn raise(&self, _: u32) {}
        fn owner(&self, seat: u32) -> &ModelBed {
            &self.0[seat as usize][0]
        }
        fn state(&self, seat: u32) -> &ModelBed {
            &self.0[seat as usize][1]
        }
        fn cursor(&self) -> u32 {
            0
        }
    }
}
