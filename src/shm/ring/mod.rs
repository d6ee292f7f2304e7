//! A ring of items of any size, for any number of producers and consumers in any processes.
//!
//! `README.md` in this folder explains the protocol. In short: one robust lock for each end, one
//! word for each end that moves by one compare-and-swap, and nothing else that must be kept in step
//! with it. Whoever is killed, at any instruction, has put (or taken) its item or has not.

mod ends;
mod get;
mod layout;
mod line;
mod patience;
mod put;
mod spill;
mod turn;
mod waiting;

use super::memory::{Kind, Memory};
use super::object::Object;
use super::owner::Look;
use super::segment::Segment;
use ends::{CLOSED, POLLED, Position};
use layout::{Generation, LAST};
use patience::Patience;
use spill::Places;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use get::{Got, Next, Receiving};
pub(crate) use layout::{HEADER, MAX_ITEM, SPARE};
pub(crate) use put::{Put, Sending};

/// How much a ring may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// So many items, of any size.
    Items(u64),
    /// A mebibyte or two, and some large items: 64 MiB of them, or four.
    Bytes,
    /// What memory there is.
    Unlimited,
}

/// A handle of a ring.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Memory,
    room: Room,
    /// Where the other end was when it was last looked at: looking for each item would move its
    /// cache line each time. Never ahead of it.
    seen_tail: AtomicU64,
    seen_head: AtomicU64,
    with_tail: Patience,
    with_head: Patience,
}

impl Clone for Ring {
    fn clone(&self) -> Self {
        Self::of(self.memory.clone(), self.room)
    }
}

/// What happened to a ring so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) taken: u64,
    pub(crate) lost: u64,
    /// Of those that were lost: with consumers that died copying them.
    pub(crate) lost_in_copy: u64,
    pub(crate) deaths: u64,
}

type Words = [AtomicU64; layout::TOLD / 8 + 1];

fn damaged<T>() -> io::Result<T> {
    let what = "the shared memory of a queue is damaged: another process wrote to it";
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

impl Ring {
    /// Makes an empty ring; `shape` tells rings of different items apart.
    pub(crate) fn create(kind: Kind, shape: u64, room: Room) -> io::Result<Self> {
        let count = match room {
            Room::Items(limit) => limit,
            Room::Bytes => 0,
            Room::Unlimited => u64::MAX,
        };
        let there = Generation(0).at() + Generation(0).len();
        let memory = Memory::create_sparse(kind, shape, count, there, layout::FILE)?;
        Ok(Self::of(memory, room))
    }

    /// The handle of a ring that was received.
    pub(crate) fn open(object: Arc<Object>, kind: Kind, shape: u64) -> io::Result<Self> {
        let there = Generation(0).at() + Generation(0).len();
        let memory = Memory::open_sparse(object, kind, shape, there)?;
        let room = match memory.count() {
            0 => Room::Bytes,
            u64::MAX => Room::Unlimited,
            limit => Room::Items(limit),
        };
        Ok(Self::of(memory, room))
    }

    fn of(memory: Memory, room: Room) -> Self {
        Self {
            memory,
            room,
            seen_tail: AtomicU64::new(0),
            seen_head: AtomicU64::new(0),
            with_tail: Patience::new(),
            with_head: Patience::new(),
        }
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.memory.object()
    }

    /// The memory, for words of those who use the ring: see [`SPARE`].
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How much it may hold.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// The words that are used all the time.
    #[inline]
    fn words(&self) -> &Words {
        self.memory.words(0)
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        &self.words()[layout::TAIL / 8]
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        &self.words()[layout::HEAD / 8]
    }

    fn places(&self) -> Places<'_> {
        Places::new(&self.memory)
    }

    #[inline]
    fn segment(&self, generation: u32) -> io::Result<&Segment> {
        if generation > LAST {
            return damaged();
        }
        let layout = Generation(generation);
        self.memory.object().part(generation as usize, layout.at(), layout.len())
    }

    /// The number of items.
    pub(crate) fn len(&self) -> u64 {
        let (head, tail) = self.numbers();
        tail.wrapping_sub(head) & ends::NUMBERS
    }

    /// Whether there is no item.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing can be put any more. What is there can be taken. Whether to ring the bell.
    pub(crate) fn close(&self) -> bool {
        let was = ends::raise(self.tail(), CLOSED);
        // Those who wait for room sleep at the head.
        ends::wake_all(self.head());
        was & POLLED != 0
    }

    /// Nothing can be put or taken any more. Whether to ring the bell.
    pub(crate) fn close_now(&self) -> bool {
        ends::raise(self.head(), CLOSED);
        self.close()
    }

    /// Wakes everybody who waits, to look at what is not in the ring: whether a peer is there.
    pub(crate) fn wake_all(&self) {
        ends::wake_all(self.head());
        ends::wake_all(self.tail());
    }

    /// Whether nothing can be put any more.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire, here and below: whoever sees the end of a ring sees what came before it.
        self.tail().load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether a consumer would not have to wait: for an item, or for the end.
    pub(crate) fn is_readable(&self) -> bool {
        self.is_closed() || self.is_over() || !self.is_empty()
    }

    /// Producers are to look whether anybody is there, when they next put an item.
    pub(crate) fn tell_producers(&self) {
        // Release: who finds it so finds what the caller did before.
        self.words()[layout::TOLD / 8].fetch_add(1, Ordering::Release);
    }

    /// How often producers were told to look.
    #[inline]
    pub(crate) fn told(&self) -> u64 {
        // Acquire: see above.
        self.words()[layout::TOLD / 8].load(Ordering::Acquire)
    }

    /// Whoever puts the next item is to ring the bell.
    pub(crate) fn poll_tail(&self) {
        ends::mark(self.tail(), POLLED);
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.look_for_dead(Look::Close);
        // Relaxed: each number stands for itself.
        let count = |at| self.memory.word(at).load(Ordering::Relaxed);
        let lost_in_copy = count(layout::LOST_IN_COPY);
        let lost = count(layout::LOST).saturating_add(lost_in_copy);
        let (head, tail) = self.numbers();
        let deaths = count(layout::DEATHS);
        Counts { put: tail, taken: head.saturating_sub(lost), lost, lost_in_copy, deaths }
    }

    /// Adds to one of the counters of the header.
    fn count(&self, at: usize, more: u64) {
        // Relaxed: it stands for itself.
        self.memory.word(at).fetch_add(more, Ordering::Relaxed);
    }

    /// The numbers of the next item to be taken and of the next to be put, in this order.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        // Acquire: the head, the tail and what the caller reads next are read in this order, so
        // that the tail is not before the head.
        let head = Position::of(self.head().load(Ordering::Acquire)).number;
        (head, Position::of(self.tail().load(Ordering::Acquire)).number)
    }

    /// Whether nothing can be taken any more, because the ring was closed at once.
    pub(crate) fn is_over(&self) -> bool {
        self.head().load(Ordering::Acquire) & CLOSED != 0
    }
}

#[cfg(test)]
mod tests;
