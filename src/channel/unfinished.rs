//! Which items were taken and are not done yet, in the hands of which process.
//!
//! Each process that takes items has a seat (`shm/seats.rs`), whose state says how many it has
//! taken and not done, and the number of the last one. The state is raised *before* the head of the
//! ring moves over the item: so an item is always in the queue, or in somebody's hands, or done,
//! and may for a moment be in the first two. What a dead process had is taken off by whoever waits,
//! and counted; the number tells whether its last item was taken at all. If another process is
//! about to take that item, because the dead one had been in the middle of it, it passes it on
//! first ([`Account::pass_on`]): nobody could tell later who took it.
//!
//! Everything is done when the queue is empty and no seat has any, *at the same time*. Who asks
//! reads the head and the tail, then the seats, then the tail again. If nothing was in the queue,
//! and nothing has been put since, then nobody could take anything meanwhile, so the seats could
//! only become emptier: if they were all empty, each when it was looked at, all of them are now.

use crate::shm::atomic::{ALL, Bed, Word64};
use crate::shm::lock::Judge;
use crate::shm::nap::Nap;
use crate::shm::owner::Look;
use crate::shm::seats::Table;
use crate::sys::clock::Deadline;
use std::sync::atomic::Ordering;

/// One item, above the number of the last one.
const ONE: u64 = 1 << NUMBER_BITS;
const NUMBER_BITS: u32 = 40;
const NUMBERS: u64 = ONE - 1;

/// Somebody sleeps until all is done.
const ASLEEP: u64 = 1;
const TURN: u64 = 2;
const LOW: u64 = u32::MAX as u64;

/// The words: of the account, and of those who wait until it is settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a, T: Table> {
    pub(super) seats: T,
    pub(super) bell: &'a T::Word,
}

/// Why an item cannot be taken into a process's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    Processes,
    Items,
}

impl<T: Table> Account<'_, T> {
    /// The seats of a process: one, or a few if its threads were all new at the same time.
    fn seats_of(&self, me: u64) -> impl Iterator<Item = u32> {
        // Acquire: what the process did with its seat is known to it.
        (0..self.seats.high())
            .filter(move |&seat| self.seats.owner(seat).load(Ordering::Acquire) == me)
    }

    /// The item with this number is about to be taken by process `me`; in which seat that is noted.
    pub(super) fn taking(&self, me: u64, number: u64) -> Result<u32, TooMany> {
        let seat = self.seats_of(me).next().or_else(|| self.seats.claim(me, 0));
        let seat = seat.ok_or(TooMany::Processes)?;
        let state = self.seats.state(seat);
        // Relaxed, here and below: the compare-and-swap that follows compares again.
        let mut seen = state.load(Ordering::Relaxed);
        loop {
            let counted = (seen & !NUMBERS).checked_add(ONE).ok_or(TooMany::Items)?;
            match state.compare_exchange(seen, counted | number & NUMBERS) {
                Ok(_) => return Ok(seat),
                Err(now) => seen = now,
            }
        }
    }

    /// The last consumer died in its turn, and the caller, who has the turn now, is about to take
    /// the item with this number: if the dead one had noted that it would, it has not.
    pub(super) fn pass_on(&self, number: u64, is_dead: impl Judge) {
        for seat in 0..self.seats.high() {
            // Acquire: the state is at least that which the owner left.
            let owner = self.seats.owner(seat).load(Ordering::Acquire);
            let state = self.seats.state(seat);
            let seen = state.load(Ordering::Acquire);
            let is_noted = seen >= ONE && seen & NUMBERS == number & NUMBERS;
            if is_noted && is_dead(owner, Look::Close) {
                // With the number of an item that was taken, so that nobody who settles takes off
                // the same one again. It fails if somebody has settled just now, and then the head
                // was still here.
                let before = number.wrapping_sub(1) & NUMBERS;
                let _ = state.compare_exchange(seen, (seen - ONE) & !NUMBERS | before);
            }
        }
    }

    /// One item of a seat is done, or was not taken after all; false if the seat has none.
    pub(super) fn lower(&self, seat: u32) -> bool {
        let state = self.seats.state(seat);
        let mut seen = state.load(Ordering::Relaxed);
        while seen >= ONE {
            match state.compare_exchange(seen, seen - ONE) {
                Ok(_) => {
                    if seen - ONE < ONE {
                        self.wake();
                    }
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        false
    }

    /// One item of process `me` is done; false if it has none.
    pub(super) fn done(&self, me: u64) -> bool {
        self.seats_of(me).any(|seat| self.lower(seat))
    }

    /// How many items are in the hands of processes.
    pub(super) fn in_hands(&self) -> u64 {
        // Acquire: what was done before an item was done is seen.
        let count = |seat| self.seats.state(seat).load(Ordering::Acquire) >> NUMBER_BITS;
        (0..self.seats.high()).map(count).sum()
    }

    /// Wakes all who wait.
    pub(super) fn wake(&self) {
        // SeqCst, with the one in `wait`: either this sees who sleeps, or that one sees what was
        // changed before this.
        T::Word::fence();
        let mut seen = self.bell.load(Ordering::Relaxed);
        while seen & ASLEEP != 0 {
            let next = (seen & !ASLEEP).wrapping_add(TURN) & LOW;
            match self.bell.compare_exchange(seen, next) {
                Ok(_) => {
                    self.bell.wake(ALL);
                    break;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Takes off what dead processes had, as far as it looks; how many items. `head` tells the
    /// number of the next item to be taken. Whoever settles takes the seat first, as `me`, which is
    /// a thread and no process that takes items: so nobody else comes to sit there before its state
    /// has been read.
    pub(super) fn settle(
        &self,
        look: Look,
        me: u64,
        head: impl Fn() -> u64,
        is_dead: impl Judge,
    ) -> u64 {
        let mut lost: u64 = 0;
        for _ in 0..self.seats.capacity() {
            let Some((seat, dead)) = self.seats.examine(look, &is_dead) else {
                break;
            };
            // Two may do this at the same time: one of them gets the seat.
            if self.seats.owner(seat).compare_exchange(dead, me).is_err() {
                continue;
            }
            let had = self.seats.state(seat).swap(0);
            let ahead = head().wrapping_sub(had & NUMBERS).wrapping_sub(1) & NUMBERS;
            let was_taken = ahead < ONE / 2;
            lost = lost.saturating_add((had >> NUMBER_BITS).saturating_sub(u64::from(!was_taken)));
            self.seats.free(seat);
        }
        lost
    }

    /// Whether all is done; `ends` tells the numbers of the next item to be taken and of the next
    /// to be put, in this order.
    fn is_settled(&self, ends: impl Fn() -> (u64, u64)) -> bool {
        let (head, tail) = ends();
        head == tail && self.in_hands() == 0 && ends().1 == tail
    }

    /// Waits until all is done; false if the deadline passes. `settle` takes off what the dead had.
    pub(super) fn wait(
        &self,
        deadline: Deadline,
        ends: impl Fn() -> (u64, u64),
        mut settle: impl FnMut(Look),
    ) -> bool {
        let mut nap = Nap::new(deadline);
        let mut look = Some(if deadline.passed() { Look::Close } else { Look::Quick });
        loop {
            if self.is_settled(&ends) {
                return true;
            }
            if let Some(look) = look.take() {
                settle(look);
                if self.is_settled(&ends) {
                    return true;
                }
            }
            if nap.is_over() {
                return false;
            }
            let seen = self.bell.load(Ordering::Relaxed);
            if seen & ASLEEP == 0 && self.bell.compare_exchange(seen, seen | ASLEEP).is_err() {
                continue;
            }
            T::Word::fence();
            if self.is_settled(&ends) {
                return true;
            }
            if self.bell.sleep((seen | ASLEEP) as u32, nap.next()) {
                look = Some(Look::Close);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::seats::model::ModelTable;
    use loom::sync::Arc;
    use loom::thread;

    struct Model {
        table: ModelTable,
        bell: ModelBed,
        /// The ends of the queue, in one word each.
        head: ModelBed,
        tail: ModelBed,
    }

    impl Model {
        fn new(items: u64) -> Arc<Self> {
            Arc::new(Self {
                table: ModelTable::new(2),
                bell: ModelBed::new(0),
                head: ModelBed::new(0),
                tail: ModelBed::new(items),
            })
        }

        fn account(&self) -> Account<'_, &ModelTable> {
            Account { seats: &self.table, bell: &self.bell }
        }

        fn ends(&self) -> (u64, u64) {
            let head = self.head.load(Ordering::Acquire);
            (head, self.tail.load(Ordering::Acquire))
        }

        fn put(&self) {
            let tail = self.tail.load(Ordering::Relaxed);
            self.tail.compare_exchange(tail, tail + 1).expect("one producer at a time");
        }

        /// Takes the item that is known to be there; nobody else takes any.
        fn take(&self, me: u64) {
            let head = self.head.load(Ordering::Acquire);
            self.account().taking(me, head).expect("a seat");
            self.head.compare_exchange(head, head + 1).expect("one consumer");
        }
    }

    fn check(run: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(run);
    }

    /// A worker takes an item, puts another one before it is done, and then does that one, too. Who
    /// joins waits for both, and does not sleep for ever.
    #[test]
    fn model_who_joins_waits_for_all_and_is_woken() {
        check(|| {
            let model = Model::new(1);
            let worker = {
                let model = model.clone();
                thread::spawn(move || {
                    model.take(7);
                    model.put();
                    assert!(model.account().done(7));
                    model.take(7);
                    assert!(model.account().done(7));
                })
            };
            assert!(model.account().wait(Deadline::NEVER, || model.ends(), |_| {}));
            assert_eq!(model.ends(), (2, 2));
            worker.join().expect("join");
            assert!(!model.account().done(7), "one too many");
        });
    }

    /// Two who settle at the same time take the items of a dead one off once.
    #[test]
    fn model_what_a_dead_one_had_is_counted_once() {
        check(|| {
            let model = Model::new(2);
            model.take(9);
            model.take(9);
            let settle = |model: &Model| {
                model.account().settle(Look::Close, 11, || model.ends().0, |owner, _| owner == 9)
            };
            let other = {
                let model = model.clone();
                thread::spawn(move || settle(&model))
            };
            let mine = settle(&model);
            assert_eq!(mine + other.join().expect("join"), 2);
            assert_eq!(model.account().in_hands(), 0);
        });
    }

    /// One who settles is so slow that another one has finished, and the seat is taken again.
    #[test]
    fn the_next_one_in_the_seat_of_a_dead_one_keeps_what_it_has() {
        loom::model(|| {
            let model = Model::new(2);
            model.take(9);
            let is_nine = |owner: u64, _: Look| owner == 9;
            let (head, next) = (|| model.ends().0, std::cell::Cell::new(true));
            let lost = model.account().settle(Look::Close, 11, head, |owner, look| {
                if next.take() {
                    assert_eq!(model.account().settle(Look::Close, 12, head, is_nine), 1);
                    model.take(8);
                }
                is_nine(owner, look)
            });
            assert_eq!((lost, model.account().in_hands()), (0, 1));
            assert!(model.account().done(8));
        });
    }

    #[test]
    fn an_item_that_was_noted_and_not_taken_is_not_lost() {
        loom::model(|| {
            let model = Model::new(2);
            model.take(9);
            model.account().taking(9, 1).expect("a seat");
            let settle = || model.account().settle(Look::Close, 11, || model.ends().0, |_, _| true);
            assert_eq!(settle(), 1);
            assert_eq!(model.account().in_hands(), 0);
        });
    }

    #[test]
    fn an_item_that_a_dead_one_had_noted_and_another_one_took_is_not_lost() {
        loom::model(|| {
            let model = Model::new(2);
            model.take(9);
            model.account().taking(9, 1).expect("a seat");
            // The next one in the turn of the dead one.
            let is_nine = |owner: u64, _: Look| owner == 9;
            model.account().pass_on(1, is_nine);
            let settle = || model.account().settle(Look::Close, 11, || model.ends().0, is_nine);
            let early = settle();
            model.take(8);
            assert_eq!((early, settle(), model.account().in_hands()), (1, 0, 1));
        });
        loom::model(|| {
            let model = Model::new(2);
            model.take(9);
            model.account().taking(9, 1).expect("a seat");
            let is_nine = |owner: u64, _: Look| owner == 9;
            model.account().pass_on(1, is_nine);
            model.take(8);
            let lost = model.account().settle(Look::Close, 11, || model.ends().0, is_nine);
            assert_eq!((lost, model.account().in_hands()), (1, 1), "its first one alone");
        });
    }

    #[test]
    fn more_items_than_can_be_counted_are_refused() {
        loom::model(|| {
            let model = Model::new(0);
            let seat = model.account().taking(9, 0).expect("a seat");
            let table = &model.table;
            let state = table.state(seat);
            let seen = state.load(Ordering::Relaxed);
            state.compare_exchange(seen, u64::MAX).expect("nobody else");
            assert_eq!(model.account().taking(9, 5), Err(TooMany::Items));
        });
    }
}
