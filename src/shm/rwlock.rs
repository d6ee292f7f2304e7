//! The readers-writer lock: an owner word for the writer, a seat for each reader.
//!
//! A reader sets its seat to `READING` and then looks at the writer's word; a writer takes its word
//! and then looks at the seats (Dekker's pattern: a sequentially consistent fence between the two
//! steps on each side). So one of the two sees the other. A reader that sees a writer sets its seat
//! to `WAITING` and sleeps; a writer sleeps on each seat that is `READING` until it is not.
//!
//! A writer that goes hands the lock to all readers that wait (`WAITING` to `READING`, by
//! compare-and-swap) before it frees its word, so readers and writers take turns and neither can
//! starve the other. Readers that come between the two steps are told to look again (`RETRY`).
//! Both are done only if a reader has raised the `hint`.
//!
//! A reader that died left nothing half changed: the writer that finds its seat frees it. A writer
//! that died, or panicked, leaves the data *suspect* (`ABANDONED`): every reader is told until a
//! writer has been told, since readers cannot mend anything.

use super::atomic::{ALL, Bed, Word64};
use super::lock::{self, Judge, Taken};
use super::nap::Nap;
use super::owner::{self, Look, WAITERS};
use super::seats::Table;
use crate::owner_died::Dead;
use crate::sys::clock::Deadline;
use std::sync::atomic::Ordering;

const READING: u64 = 1;
const WAITING: u64 = 2;
const RETRY: u64 = 3;
/// A writer sleeps until the seat is not `READING`.
const WATCHED: u64 = 1 << 31;

/// The words of one lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a, T: Table> {
    pub(crate) writer: &'a T::Word,
    pub(crate) hint: &'a T::Word,
    pub(crate) seats: T,
}

/// What a reader found.
enum Found {
    /// It may read.
    Reading(Taken),
    /// There is a writer, this one.
    Writer(u64),
}

impl<T: Table> Words<'_, T> {
    /// Waits until there is no writer; the seat, and the news if the data is suspect.
    pub(crate) fn read(
        &self,
        me: u64,
        deadline: Deadline,
        is_dead: impl Judge,
    ) -> Option<(u32, Taken)> {
        let seat = self.seat(me, deadline)?;
        let mut nap = Nap::new(deadline);
        loop {
            if let Found::Reading(taken) = self.announce(seat) {
                return Some((seat, taken));
            }
            self.set(seat, WAITING);
            // A swap (AcqRel): whoever takes the hint down sees this seat waiting, and whoever took
            // it down before has done so for good.
            self.hint.swap(1);
            T::Word::fence();
            // Acquire: pairs with the writer's going.
            let writer = self.writer.load(Ordering::Acquire);
            if owner::is_free(writer) {
                continue;
            }
            if self.wait_for_turn(seat, writer, &mut nap, &is_dead) {
                return Some((seat, None));
            }
            if nap.is_over() {
                self.stop_reading(seat);
                return None;
            }
        }
    }

    /// Sleeps until the writer hands the lock over (true), or it is time to look again.
    fn wait_for_turn(&self, seat: u32, writer: u64, nap: &mut Nap, is_dead: &impl Judge) -> bool {
        if is_dead(writer, Look::Quick) {
            self.bury(writer);
            return false;
        }
        // Acquire: what the writer wrote before it handed over.
        match self.seats.state(seat).load(Ordering::Acquire) & !WATCHED {
            READING => return true,
            RETRY => return false,
            _ => {}
        }
        if self.seats.state(seat).sleep(WAITING as u32, nap.next()) && is_dead(writer, Look::Close)
        {
            self.bury(writer);
        }
        self.seats.state(seat).load(Ordering::Acquire) & !WATCHED == READING
    }

    /// Reads if that needs no waiting.
    pub(crate) fn try_read(&self, me: u64) -> Option<(u32, Taken)> {
        let seat = self.seat(me, Deadline::now())?;
        for _ in 0..2 {
            match self.announce(seat) {
                Found::Reading(taken) => return Some((seat, taken)),
                Found::Writer(writer) if owner::is_dead(writer, Look::Close) => self.bury(writer),
                Found::Writer(_) => break,
            }
        }
        self.stop_reading(seat);
        None
    }

    fn seat(&self, me: u64, deadline: Deadline) -> Option<u32> {
        let mut nap = Nap::new(deadline);
        loop {
            if let Some(seat) = self.seats.claim(me, first_seat()) {
                return Some(seat);
            }
            // All seats are taken: by the dead, perhaps.
            match self.seats.examine(Look::Close, owner::is_dead) {
                // The state that the dead one left is its successor's to overwrite.
                Some((seat, dead)) => drop(self.seats.owner(seat).compare_exchange(dead, 0)),
                None if nap.is_over() => return None,
                // Nobody wakes who waits for a seat: 1,024 readers at a time are the limit.
                None => drop(self.hint.sleep(self.hint.load(Ordering::Relaxed) as u32, nap.next())),
            }
        }
    }

    fn announce(&self, seat: u32) -> Found {
        self.set(seat, READING);
        T::Word::fence();
        // Acquire: what the last writer wrote.
        let writer = self.writer.load(Ordering::Acquire);
        match owner::is_free(writer) {
            true => Found::Reading(owner::news(writer)),
            false => Found::Writer(writer),
        }
    }

    /// Sets the state of the caller's seat, and wakes a writer that waits for it to change.
    fn set(&self, seat: u32, to: u64) {
        let state = self.seats.state(seat);
        let old = state.swap(to);
        if old & WATCHED != 0 {
            state.wake(ALL);
        }
    }

    /// The reader has done.
    pub(crate) fn stop_reading(&self, seat: u32) {
        self.set(seat, 0);
        self.seats.free(seat);
    }

    /// A writer died: the data is suspect, and the lock free.
    fn bury(&self, writer: u64) {
        if self.writer.compare_exchange(writer, owner::abandoned(writer)).is_ok() {
            if writer & WAITERS != 0 {
                self.writer.wake(1);
            }
            self.nudge();
        }
    }

    /// Waits until there is neither a writer nor a reader.
    pub(crate) fn write(&self, me: u64, deadline: Deadline, is_dead: impl Judge) -> Option<Taken> {
        let taken = match self.writer.compare_exchange(0, me) {
            Ok(_) => None,
            Err(_) => lock::take_held(self.writer, me, deadline, &is_dead)?,
        };
        self.finish_write(me, taken, deadline, is_dead)
    }

    /// Writes if that needs no waiting.
    pub(crate) fn try_write(&self, me: u64) -> Option<Taken> {
        let taken = lock::try_take(self.writer, me)?;
        // Readers that have died do not count, so each is looked at closely, once.
        self.finish_write(me, taken, Deadline::now(), |owner, _| owner::is_dead(owner, Look::Close))
    }

    fn finish_write(
        &self,
        me: u64,
        taken: Taken,
        deadline: Deadline,
        is_dead: impl Judge,
    ) -> Option<Taken> {
        T::Word::fence();
        for seat in 0..self.seats.high() {
            if !self.wait_for_reader(seat, deadline, &is_dead) {
                // The news, if any, is for the next writer.
                self.stop_writing(me, taken);
                return None;
            }
        }
        Some(taken)
    }

    fn wait_for_reader(&self, seat: u32, deadline: Deadline, is_dead: &impl Judge) -> bool {
        let (owner, state) = (self.seats.owner(seat), self.seats.state(seat));
        let mut nap = None;
        let mut look = Some(Look::Quick);
        loop {
            // Acquire, both: pair with the reader's leaving, after which it reads no more.
            let reader = owner.load(Ordering::Acquire);
            let seen = state.load(Ordering::Acquire);
            if reader == 0 || seen & !WATCHED != READING {
                return true;
            }
            if look.take().is_some_and(|look| is_dead(reader, look)) {
                if owner.compare_exchange(reader, 0).is_ok() {
                    return true;
                }
                continue;
            }
            let nap = nap.get_or_insert_with(|| Nap::new(deadline));
            if nap.is_over() {
                return false;
            }
            if seen & WATCHED != 0 || state.compare_exchange(seen, seen | WATCHED).is_ok() {
                let by_the_clock = state.sleep((seen | WATCHED) as u32, nap.next());
                look = by_the_clock.then_some(Look::Close);
            }
        }
    }

    /// The writer has done; `suspect` if the next one must be told of somebody's death.
    pub(crate) fn stop_writing(&self, me: u64, suspect: Option<Dead>) {
        if suspect.is_none() && self.hint.load(Ordering::Relaxed) != 0 && self.hint.swap(0) != 0 {
            self.turn(WAITING, READING);
        }
        match suspect {
            None => drop(lock::give_back(self.writer, me)),
            Some(dead) => drop(lock::leave(self.writer, me, owner::abandoned_by(dead))),
        }
        T::Word::fence();
        if self.hint.load(Ordering::Relaxed) != 0 {
            self.nudge();
        }
    }

    /// Readers that sleep look again.
    fn nudge(&self) {
        self.hint.swap(0);
        self.turn(WAITING, RETRY);
    }

    fn turn(&self, from: u64, to: u64) {
        for seat in 0..self.seats.high() {
            let state = self.seats.state(seat);
            if state.load(Ordering::Relaxed) == from && state.compare_exchange(from, to).is_ok() {
                state.wake(ALL);
            }
        }
    }
}

/// Readers on different threads begin to look for a seat at different places.
fn first_seat() -> u32 {
    const SPREAD: u64 = 16;
    (owner::me() % SPREAD) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::seats::model::ModelTable;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    const DEAD: u64 = 99;

    struct Shared {
        writer: ModelBed,
        hint: ModelBed,
        seats: ModelTable,
        data: UnsafeCell<[u32; 2]>,
    }

    impl Shared {
        fn new(writer: u64) -> Self {
            let (writer, hint) = (ModelBed::new(writer), ModelBed::new(0));
            Self { writer, hint, seats: ModelTable::new(2), data: UnsafeCell::new([0; 2]) }
        }

        fn words(&self) -> Words<'_, &ModelTable> {
            Words { writer: &self.writer, hint: &self.hint, seats: &self.seats }
        }

        fn is_dead(owner: u64, _: Look) -> bool {
            owner & !WAITERS == DEAD
        }

        fn write(&self, me: u64) -> bool {
            let words = self.words();
            let taken = words.write(me, Deadline::NEVER, Self::is_dead).expect("no deadline");
            // SAFETY: the lock is held for writing; loom checks that it is so.
            self.data.with_mut(|data| unsafe { *data = [(*data)[0] + 1, (*data)[1] + 1] });
            words.stop_writing(me, None);
            taken.is_some()
        }

        fn read(&self, me: u64) -> (u32, bool) {
            let words = self.words();
            let (seat, taken) = words.read(me, Deadline::NEVER, Self::is_dead).expect("none");
            // SAFETY: the lock is held for reading; loom checks that nobody writes.
            let [first, second] = self.data.with(|data| unsafe { *data });
            assert_eq!(first, second);
            words.stop_reading(seat);
            (first, taken.is_some())
        }
    }

    fn model(bound: usize, run: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check(run);
    }

    #[test]
    fn model_a_reader_and_a_writer_are_never_together_and_neither_sleeps_for_ever() {
        model(3, || {
            let shared = Arc::new(Shared::new(0));
            let other = shared.clone();
            let writer = thread::spawn(move || other.write(10));
            shared.read(11);
            writer.join().expect("join");
            assert_eq!(shared.read(11), (1, false));
        });
    }

    #[test]
    fn model_two_writers_and_a_reader() {
        model(2, || {
            let shared = Arc::new(Shared::new(0));
            let others = [10, 11].map(|me| {
                let shared = shared.clone();
                thread::spawn(move || shared.write(me))
            });
            shared.read(12);
            for other in others {
                other.join().expect("join");
            }
            assert_eq!(shared.read(12), (2, false));
        });
    }

    /// A writer died: readers are told until a writer has been told.
    #[test]
    fn model_the_death_of_a_writer_is_told_to_readers_and_once_to_a_writer() {
        model(3, || {
            let shared = Arc::new(Shared::new(DEAD));
            let other = shared.clone();
            let writer = thread::spawn(move || other.write(10));
            let (seen, told) = shared.read(11);
            assert!(told == (seen == 0), "told exactly until the writer was");
            assert!(writer.join().expect("join"));
            assert_eq!(shared.read(11), (1, false));
        });
    }

    #[test]
    fn model_a_reader_that_died_does_not_keep_the_writer_out() {
        model(3, || {
            let shared = Arc::new(Shared::new(0));
            shared.seats.0[0][0].store(DEAD, Ordering::Relaxed);
            shared.seats.0[0][1].store(READING, Ordering::Relaxed);
            let other = shared.clone();
            let writer = thread::spawn(move || other.write(10));
            shared.read(11);
            assert!(!writer.join().expect("join"));
        });
    }
}
