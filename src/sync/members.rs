//! Members: the processes on which a barrier or a latch waits.
//!
//! A process that receives a handle takes a seat for it, in the name of the process, and keeps it
//! until the last clone of that handle is dropped. So if it dies before it did its part, those who
//! wait can see it. The state of a member's seat is 0 from the start: a seat is always left so.

use crate::shm::memory::Memory;
use crate::shm::owner;
use crate::shm::seats::{Seats, Table};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The seat of a handle that was received.
#[derive(Debug)]
pub(super) struct Member {
    memory: Memory,
    table: usize,
    pub(super) seat: u32,
    process: u64,
}

impl Member {
    /// Takes a seat in the table at this byte; none if all are taken, and then this process's
    /// death will not be noticed.
    pub(super) fn join(memory: &Memory, table: usize) -> Option<Arc<Self>> {
        let process = owner::my_process();
        let seat = Seats::new(memory, table).claim(process, 0)?;
        Some(Arc::new(Self { memory: memory.clone(), table, seat, process }))
    }

    /// Whether the seat still is this process's: not in a forked child, whose copy it is not.
    pub(super) fn is_seated(&self) -> bool {
        let owner = Seats::new(&self.memory, self.table).owner(self.seat).load(Ordering::Relaxed);
        self.process == owner::my_process() && owner == self.process
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.is_seated() {
            return;
        }
        let seats = Seats::new(&self.memory, self.table);
        if std::thread::panicking() {
            // It will not do its part any more: those who wait are to find that out.
            let left = owner::abandoned_in_panic(self.process);
            // Release: with the state as it is.
            seats.owner(self.seat).store(left, Ordering::Release);
        } else {
            leave(seats, self.seat);
        }
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
