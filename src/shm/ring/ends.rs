//! The two ends of a ring: the words that say what has been put and what has been taken.
//!
//! Each is one word, and changes by one compare-and-swap: the number of the next item, the
//! generation that it is in, and three flags. So whoever dies, dies before or after an item was put
//! or taken. Somebody with the lock of an end moves it on; anybody may raise a flag.

use crate::shm::atomic::{ALL, Bed};
use crate::shm::nap::Nap;
use std::sync::atomic::Ordering;

/// Nothing will be put any more (tail), or taken (head).
pub(super) const CLOSED: u64 = 1;
/// Somebody sleeps until the end moves on.
const ASLEEP: u64 = 2;
/// Somebody wants the bell to be rung when the end moves on.
pub(super) const POLLED: u64 = 4;
const FLAGS: u64 = CLOSED | ASLEEP | POLLED;

const GENERATION: u32 = 3;
const GENERATIONS: u64 = 31;
const NUMBER: u32 = 8;
/// Item numbers have 56 bits: enough for 20 years of 100 million a second.
pub(super) const NUMBERS: u64 = (1 << (64 - NUMBER)) - 1;

/// Where an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The number of the next item.
    pub(super) number: u64,
    /// The generation that it is in.
    pub(super) generation: u32,
}

impl Position {
    pub(super) fn of(word: u64) -> Self {
        Self { number: word >> NUMBER, generation: (word >> GENERATION & GENERATIONS) as u32 }
    }

    fn pack(self) -> u64 {
        self.number << NUMBER | u64::from(self.generation) << GENERATION
    }

    /// The position after one item.
    pub(super) fn next(self) -> Self {
        Self { number: self.number.wrapping_add(1) & NUMBERS, ..self }
    }
}

/// How many items are from where one word of an end is to where another one is.
pub(super) fn distance(from: u64, to: u64) -> u64 {
    (to >> NUMBER).wrapping_sub(from >> NUMBER) & NUMBERS
}

/// Whether two words of an end, or of both, name the same item.
pub(super) fn same_number(a: u64, b: u64) -> bool {
    a >> NUMBER == b >> NUMBER
}

/// What the end was when it was moved on, for [`wake`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    was: u64,
    is: u64,
}

impl Moved {
    /// Whether the bell is to be rung.
    pub(super) fn rings(self) -> bool {
        self.was & POLLED != 0
    }
}

/// Moves an end on. What was written before is there for whoever sees it. `None` if it is closed.
#[inline]
pub(super) fn advance<W: Bed>(word: &W, to: Position) -> Option<Moved> {
    // Relaxed: the position is the caller's own, and flags are compared again.
    let mut was = word.load(Ordering::Relaxed);
    loop {
        if was & CLOSED != 0 {
            return None;
        }
        let is = to.pack() | was & ASLEEP;
        match word.compare_exchange(was, is) {
            Ok(_) => return Some(Moved { was, is }),
            Err(now) => was = now,
        }
    }
}

/// As [`advance`], without news for those who wait, and whether closed or not: the next item will
/// be elsewhere.
pub(super) fn relocate<W: Bed>(word: &W, to: Position) {
    // Relaxed, here and below: the compare-and-swap that follows orders.
    let mut was = word.load(Ordering::Relaxed);
    while let Err(now) = word.compare_exchange(was, to.pack() | was & FLAGS) {
        was = now;
    }
}

/// Wakes one of those who sleep until the end moves on.
#[inline]
pub(super) fn wake<W: Bed>(word: &W, moved: Moved) {
    if moved.was & ASLEEP == 0 || word.wake(1) > 0 {
        return;
    }
    // Nobody slept. If the word has changed since, somebody may.
    if word.compare_exchange(moved.is, moved.is & !ASLEEP).is_ok() {
        // Who fell asleep before the flag was down would not be woken next time.
        word.wake(ALL);
    }
}

/// Raises a flag, and wakes everybody: for one that they must see.
pub(super) fn raise<W: Bed>(word: &W, flag: u64) -> u64 {
    let was = mark(word, flag);
    if was & ASLEEP != 0 {
        word.wake(ALL);
    }
    was
}

/// Wakes all who sleep until the end moves on: they have to look elsewhere. One that is just about
/// to sleep looks when it has had its nap.
pub(super) fn wake_all<W: Bed>(word: &W) {
    // Relaxed: who is missed looks again by the clock.
    if word.load(Ordering::Relaxed) & ASLEEP != 0 {
        word.wake(ALL);
    }
}

/// Raises a flag; what the word was.
pub(super) fn mark<W: Bed>(word: &W, flag: u64) -> u64 {
    let mut was = word.load(Ordering::Relaxed);
    while was & flag == 0 {
        match word.compare_exchange(was, was | flag) {
            Ok(_) => break,
            Err(now) => was = now,
        }
    }
    was
}

/// Sleeps for a while, unless the end has changed since it was `seen`; true if the while is over.
pub(super) fn sleep<W: Bed>(word: &W, seen: u64, nap: &mut Nap) -> bool {
    if seen & ASLEEP == 0 && word.compare_exchange(seen, seen | ASLEEP).is_err() {
        return false;
    }
    word.sleep((seen | ASLEEP) as u32, nap.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::Word64;
    use crate::shm::atomic::model::ModelBed;
    use crate::sys::clock::Deadline;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    const FIRST: Position = Position { number: 0, generation: 0 };

    struct Model {
        tail: ModelBed,
        head: ModelBed,
        /// One line: an item is put when the one before it has been taken.
        line: UnsafeCell<u64>,
        /// The lock of the taking end.
        turn: Mutex<()>,
    }

    /// Puts an item, or tells that the ring is closed.
    fn put(model: &Model, number: u64) -> bool {
        let mut nap = Nap::new(Deadline::NEVER);
        loop {
            let head = model.head.load(Ordering::Acquire);
            if Position::of(head).number == number {
                break;
            }
            sleep(&model.head, head, &mut nap);
        }
        // Loom fails if somebody reads the line now.
        // SAFETY: the last item has been taken.
        model.line.with_mut(|line| unsafe { *line = number + 7 });
        match advance(&model.tail, Position { number: number + 1, generation: 0 }) {
            Some(moved) => wake(&model.tail, moved),
            None => return false,
        }
        true
    }

    /// Takes an item; `None` if the ring is closed and empty.
    fn get(model: &Model) -> Option<u64> {
        let mut nap = Nap::new(Deadline::NEVER);
        loop {
            let tail = model.tail.load(Ordering::Acquire);
            let turn = model.turn.lock().expect("turn");
            let head = model.head.load(Ordering::Acquire);
            if same_number(tail, head) {
                drop(turn);
                if tail & CLOSED != 0 {
                    return None;
                }
                sleep(&model.tail, tail, &mut nap);
                continue;
            }
            if Position::of(tail).number < Position::of(head).number {
                // An old look at the tail.
                drop(turn);
                thread::yield_now();
                continue;
            }
            // SAFETY: it was put, and is not written before the head has moved on.
            let item = model.line.with(|line| unsafe { *line });
            let moved = advance(&model.head, Position::of(head).next()).expect("never closed");
            wake(&model.head, moved);
            return Some(item);
        }
    }

    fn model() -> Arc<Model> {
        Arc::new(Model {
            tail: ModelBed::new(FIRST.pack()),
            head: ModelBed::new(FIRST.pack()),
            line: UnsafeCell::new(0),
            turn: Mutex::new(()),
        })
    }

    fn check(run: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(run);
    }

    /// Two take what one puts: each item once, in order, whole; and nobody sleeps for ever.
    #[test]
    fn model_each_item_is_taken_once_and_nobody_sleeps_beside_one() {
        check(|| {
            let shared = model();
            let other = {
                let shared = shared.clone();
                thread::spawn(move || get(&shared))
            };
            let putter = {
                let shared = shared.clone();
                thread::spawn(move || assert!(put(&shared, 0) && put(&shared, 1)))
            };
            let mine = get(&shared);
            let mut both = [mine, other.join().expect("join")];
            putter.join().expect("join");
            both.sort_unstable();
            assert_eq!(both, [Some(7), Some(8)]);
        });
    }

    /// Closing wakes those who wait, and what was put before it is taken: an item is either refused
    /// or not lost.
    #[test]
    fn model_a_close_loses_nothing_that_was_put() {
        check(|| {
            let shared = model();
            let putter = {
                let shared = shared.clone();
                thread::spawn(move || put(&shared, 0))
            };
            let closer = {
                let shared = shared.clone();
                thread::spawn(move || raise(&shared.tail, CLOSED))
            };
            let first = get(&shared);
            let second = first.and_then(|_| get(&shared));
            closer.join().expect("join");
            assert_eq!(putter.join().expect("join"), first == Some(7));
            assert_eq!(second, None);
        });
    }

    #[test]
    fn a_position_comes_back_from_its_word() {
        for (number, generation) in [(0, 0), (NUMBERS, 24), (12345, 31)] {
            let position = Position { number, generation };
            assert_eq!(Position::of(position.pack() | FLAGS), position);
        }
        assert_eq!(Position { number: NUMBERS, generation: 3 }.next().number, 0);
    }
}
