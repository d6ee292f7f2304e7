//! Members: the processes on which a barrier or a latch waits.
//!
//! A process that receives a handle takes a seat for it, in the name of the process, and keeps it
//! until the last clone of that handle is dropped. So if it dies before it did its part, those who
//! wait can see it. The state of a member's seat is 0 from the start: a seat is always left so.
//!
//! A worker of a pool is killed when the pool has no more use for it, with all that it has:
//! contexts of calls, which it remembers, and what its tasks and its initializer stored. That must
//! not look like the death of one on whom somebody waits. So in a worker a handle has a seat for
//! the time of the task that received it ([`Tasks`]), or of each task whose context it is in
//! ([`Members`]); one that the initializer received has none.

use crate::shm::memory::Memory;
use crate::shm::owner;
use crate::shm::seats::{SEATS, Seats, Table};
use crate::sys::lasting::Lasting;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

thread_local! {
    /// While a context is decoded: the members in it.
    static NOTED: Lasting<Vec<Weak<Member>>> = const { Lasting::new() };
    /// While tasks run: the members that the present one received.
    static RECEIVED: Lasting<Vec<Weak<Member>>> = const { Lasting::new() };
    /// Whether it received any: looked at after each task, however small.
    static HAS_RECEIVED: Cell<bool> = const { Cell::new(false) };
}

/// No seat.
const NONE: u32 = SEATS;

/// What a handle that was received has: a seat, or the right to take one.
#[derive(Debug)]
pub(super) struct Member {
    memory: Memory,
    table: usize,
    /// Relaxed, wherever it is used: it is changed by the thread that runs the tasks, and the words
    /// of the seat itself order.
    seat: AtomicU32,
    process: u64,
}

impl Member {
    /// Takes a seat in the table at this byte, at once or, in a context, for each task; in a task,
    /// until its end. If all are taken this process's death will not be noticed.
    pub(super) fn join(memory: &Memory, table: usize) -> Arc<Self> {
        let (seat, process) = (AtomicU32::new(NONE), owner::my_process());
        let member = Arc::new(Self { memory: memory.clone(), table, seat, process });
        let note = |list: Option<&mut Vec<Weak<Self>>>| {
            list.map(|list| list.push(Arc::downgrade(&member))).is_some()
        };
        if !NOTED.with(|noted| noted.with(note)) {
            member.sit();
            if RECEIVED.with(|received| received.with(note)) {
                HAS_RECEIVED.set(true);
            }
        }
        member
    }

    fn seats(&self) -> Seats<'_> {
        Seats::new(&self.memory, self.table)
    }

    fn sit(&self) {
        let seat = self.seats().claim(self.process, 0).unwrap_or(NONE);
        self.seat.store(seat, Ordering::Relaxed);
    }

    /// The seat, if it still is this process's: not in a forked child, whose copy it is not.
    pub(super) fn seat(&self) -> Option<u32> {
        let seat = self.seat.load(Ordering::Relaxed);
        let is_mine = self.process == owner::my_process()
            && seat < SEATS
            && self.seats().owner(seat).load(Ordering::Relaxed) == self.process;
        is_mine.then_some(seat)
    }

    fn stand_up(&self) {
        let Some(seat) = self.seat() else { return };
        self.seat.store(NONE, Ordering::Relaxed);
        if std::thread::panicking() {
            // It will not do its part any more: those who wait are to find that out.
            let left = owner::abandoned_in_panic(self.process);
            // Release: with the state as it is.
            self.seats().owner(seat).store(left, Ordering::Release);
        } else {
            leave(self.seats(), seat);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stand_up();
    }
}

/// The members in a context.
#[derive(Debug, Default)]
pub(crate) struct Members(Vec<Weak<Member>>);

impl Members {
    /// Runs `decode`, which does not unwind, and returns the members that it made; they have no
    /// seats yet.
    pub(crate) fn noting<R>(decode: impl FnOnce() -> R) -> (R, Self) {
        let outer = NOTED.with(|noted| noted.replace(Some(Vec::new())));
        let result = decode();
        let noted = NOTED.with(|noted| noted.replace(outer));
        (result, Self(noted.unwrap_or_default()))
    }

    /// They take seats until what is returned is dropped.
    pub(crate) fn attend(&self) -> Attending<'_> {
        self.0.iter().filter_map(Weak::upgrade).for_each(|member| member.sit());
        Attending(self)
    }
}

/// A task is running with a context that has members.
#[derive(Debug)]
#[must_use = "the seats are given back when it is dropped"]
pub(crate) struct Attending<'a>(&'a Members);

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.0.iter().filter_map(Weak::upgrade).for_each(|member| member.stand_up());
    }
}

/// This thread runs tasks of a pool.
#[derive(Debug)]
pub(crate) struct Tasks(());

impl Tasks {
    /// Tasks run until what is returned is dropped.
    pub(crate) fn begin() -> Self {
        // Of a process that forked in the middle of a task, nothing is this one's.
        HAS_RECEIVED.set(false);
        RECEIVED.with(|received| received.replace(Some(Vec::new())));
        Self(())
    }

    /// A task is over: if it has kept handles that it received, nobody waits for it because of
    /// them.
    #[inline]
    pub(crate) fn one_is_over(&self) {
        if HAS_RECEIVED.get() {
            Self::dismiss();
        }
    }

    #[cold]
    fn dismiss() {
        HAS_RECEIVED.set(false);
        let received = RECEIVED.with(|received| received.with(|list| list.map(std::mem::take)));
        let kept = received.iter().flatten().filter_map(Weak::upgrade);
        kept.for_each(|member| member.stand_up());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.one_is_over();
        RECEIVED.with(Lasting::take);
    }
}

/// Frees a seat that the caller has, in the state in which the next one expects it.
pub(super) fn leave(seats: Seats<'_>, seat: u32) {
    // Relaxed: published by the freeing.
    seats.state(seat).store(0, Ordering::Relaxed);
    seats.free(seat);
}

/// Frees the seat of an owner that is known to be dead.
pub(super) fn evict(seats: Seats<'_>, seat: u32, dead: u64) {
    // In two steps, so that no other sees the dead one in a state in which it did not die.
    if seats
        .owner(seat)
        .compare_exchange(
            dead,
            owner::me(),
            // AcqRel: the state that the dead one left was read by whoever judged it.
            Ordering::AcqRel,
            Ordering::Relaxed,
        )
        .is_ok()
    {
        leave(seats, seat);
    }
}
