//! Places for items that are too large for a ring, outside of it and of its locks.
//!
//! A seat for each says whose the place is. Its owner is the producer that fills it, then *the
//! ring*, then the consumer that copies out of it. What the dead have left is found when somebody
//! looks for a place, waits, or asks how the ring is.
//!
//! The state of a seat is one more than the number of its item, which is known only under the put
//! lock, and 0 before. It is written after the seat was given to the ring, and before the tail
//! moves on: so a seat of the ring's without a number, or with one that the tail has not passed,
//! seen by somebody who has the put lock, was left there by a producer that died in between.

use super::Room;
use super::ends::{NUMBERS, Position};
use super::layout::{self, MAX_ITEM};
use crate::shm::atomic::Word64;
use crate::shm::bytes::CopyOut;
use crate::shm::memory::Memory;
use crate::shm::owner::{self, Look};
use crate::shm::seats::{SEATS, Seats, Table};
use crate::sys::memfd;
use bytemuck::Pod;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// The owner of what is in the ring. No thread has such a name: it would have no start.
const RING: u64 = u64::MAX >> 32;
/// The state of a seat whose item has no number yet.
const UNNUMBERED: u64 = 0;

fn numbered(number: u64) -> u64 {
    (number & NUMBERS) + 1
}

/// Places with at most so many bytes, a mebibyte and what says how long it is, keep their
/// memory ...
const KEPT_LEN: usize = (1 << 20) + 64;
/// ... if they are one of the first so many.
const KEPT_SEATS: u32 = 16;

/// With a limit of bytes so many of them may be in large items ...
const ROOM: usize = 64 << 20;
/// ... or this many items, whatever they have.
const FEW: usize = 4;

/// How many large items there may be with one of this length.
fn most(len: usize, room: Room) -> u32 {
    match room {
        Room::Bytes => (ROOM / len.max(1)).clamp(FEW, SEATS as usize) as u32,
        Room::Items(_) | Room::Unlimited => SEATS,
    }
}

/// All places of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    memory: &'a Memory,
    seats: Seats<'a>,
}

/// A place of the caller's.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: Places<'a>,
    seat: u32,
    len: usize,
}

fn is_dead(owner: u64, look: Look) -> bool {
    owner != RING && owner::is_dead(owner, look)
}

fn replace(word: &impl Word64, old: u64, new: u64) -> bool {
    word.compare_exchange(old, new).is_ok()
}

impl<'a> Places<'a> {
    pub(super) fn new(memory: &'a Memory) -> Self {
        Self { memory, seats: Seats::new(memory, layout::SEATS_AT) }
    }

    /// A place with these bytes in it, at most [`MAX_ITEM`]; `None` while all are taken.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(super) fn fill(self, parts: [&[u8]; 2], room: Room) -> io::Result<Option<Place<'a>>> {
        let len = parts[0].len() + parts[1].len();
        let Some(seat) = self.seats.claim(owner::me(), 0) else {
            return Ok(None);
        };
        // The lowest free one: the lower ones are taken.
        if seat >= most(len, room) {
            self.seats.free(seat);
            return Ok(None);
        }
        let place = Place { places: self, seat, len };
        let (fd, at) = (self.memory.object().fd(), layout::spill_at(seat));
        memfd::reserve(fd, at, place.len)?;
        memfd::write_both_at(fd, at, parts)?;
        Ok(Some(place))
    }

    /// The place of item `number`, for a consumer that has the get lock. `None` if it was given up:
    /// a consumer died with it.
    pub(super) fn take(self, seat: u32, number: u64, len: u64) -> Option<Place<'a>> {
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX_ITEM)?;
        // Acquire, here and below: pairs with the releases of `number` and `take_back`.
        if seat >= SEATS || self.seats.state(seat).load(Ordering::Acquire) != numbered(number) {
            return None;
        }
        // Whoever has it, beside the ring, has died: they had the get lock.
        let word = self.seats.owner(seat);
        let seen = word.load(Ordering::Acquire);
        let taken = seen != 0 && replace(word, seen, owner::me());
        taken.then_some(Place { places: self, seat, len })
    }

    /// Gives up what a producer left that died before it had moved the tail on; the caller has the
    /// put lock, and this is the tail.
    pub(super) fn give_up_orphans(self, tail: Position) {
        for seat in 0..self.seats.high() {
            let is_its = self.seats.owner(seat).load(Ordering::Acquire) == RING;
            let state = self.seats.state(seat).load(Ordering::Acquire);
            if is_its && (state == UNNUMBERED || state == numbered(tail.number)) {
                self.free(seat, MAX_ITEM);
            }
        }
    }

    /// Looks at some places, and gives up what a dead process had; whether that was an item, which
    /// is lost then. `head` tells where the head is.
    pub(super) fn give_up_of_dead(self, look: Look, head: impl Fn() -> Position) -> Option<bool> {
        let (seat, dead) = self.seats.examine(look, is_dead)?;
        let state = self.seats.state(seat).load(Ordering::Acquire);
        // An item that the head has not passed is still there: the next consumer takes it.
        if state == numbered(head().number) {
            return None;
        }
        replace(self.seats.owner(seat), dead, owner::me()).then_some(())?;
        self.free(seat, MAX_ITEM);
        Some(state != UNNUMBERED)
    }

    /// Whether any place was ever used.
    pub(super) fn are_used(self) -> bool {
        self.seats.high() > 0
    }

    fn free(self, seat: u32, len: usize) {
        if len > KEPT_LEN || seat >= KEPT_SEATS {
            memfd::release(self.memory.object().fd(), layout::spill_at(seat), len);
        }
        // Relaxed: the seat is freed next.
        self.seats.state(seat).store(UNNUMBERED, Ordering::Relaxed);
        self.seats.free(seat);
    }
}

impl Place<'_> {
    pub(super) fn seat(&self) -> u32 {
        self.seat
    }

    /// Gives the place to the ring, with the number of its item. The caller has the put lock.
    pub(super) fn number(&self, number: u64) {
        let seats = &self.places.seats;
        seats.owner(self.seat).store(RING, Ordering::Relaxed);
        // Release: whoever finds the number finds that the ring has the seat.
        seats.state(self.seat).store(numbered(number), Ordering::Release);
    }

    /// As before [`number`](Self::number): the tail was not moved on.
    pub(super) fn take_back(&self) {
        let seats = &self.places.seats;
        seats.state(self.seat).store(UNNUMBERED, Ordering::Relaxed);
        // Release: whoever finds it to be the caller's finds no number.
        seats.owner(self.seat).store(owner::me(), Ordering::Release);
    }

    /// The place stays with the ring.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.places.memory.object().fd()
    }
}

impl CopyOut for Place<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_out(&self, at: usize, target: &mut [u8]) -> io::Result<()> {
        memfd::read_at(self.fd(), layout::spill_at(self.seat) + at, target)
    }

    fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> io::Result<Vec<N>> {
        memfd::read_vec_at(self.fd(), layout::spill_at(self.seat) + at, count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.places.free(self.seat, self.len);
    }
}
