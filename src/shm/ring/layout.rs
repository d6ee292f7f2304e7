//! Where everything is in the file of a ring.
//!
//! The file is as long as a ring could ever become, and mostly a hole. First the header, then
//! *generation* after generation, each twice as large as the one before, then the places for items
//! that are too large for any of them.

use crate::shm::memory::BODY;
use crate::shm::seats::{SEATS, TABLE};

/// The bytes of the header.
pub(crate) const HEADER: usize = 64 * 1024;

// The words of the header. What the two sides write is never on one cache line, nor on two that
// the processor fetches together.
pub(super) const PUT_LOCK: usize = BODY + 64;
/// The number of the first item that could be in the generation of the tail, under the put lock.
pub(super) const ENTERED: usize = PUT_LOCK + 8;
pub(super) const TAIL: usize = PUT_LOCK + 128;
pub(super) const GET_LOCK: usize = TAIL + 128;
pub(super) const HEAD: usize = GET_LOCK + 128;
/// Items that were lost because somebody died.
pub(super) const LOST: usize = HEAD + 128;
/// How often somebody died who had one of the locks.
pub(super) const DEATHS: usize = LOST + 8;
/// The number of the last mail, under the put lock.
pub(super) const MAILS: usize = DEATHS + 8;
/// Items that were lost because a consumer died while it copied them.
pub(super) const LOST_IN_COPY: usize = MAILS + 8;
/// How often consumers told the producers to look whether anybody is there. Producers look at it
/// all the time, so nothing else is on its cache line.
pub(super) const TOLD: usize = LOST + 128;
/// The table of the large items.
pub(super) const SEATS_AT: usize = 1024;
/// The words from here to the end of the header belong to those who use the ring.
pub(crate) const SPARE: usize = 20 * 1024;
const _: () = assert!(
    LOST_IN_COPY < TOLD
        && TOLD + 128 <= SEATS_AT
        && SEATS_AT + TABLE <= SPARE
        && SPARE + TABLE < HEADER
);

/// The bytes of a line, which describes one item.
pub(super) const LINE: usize = 64;
/// The last generation there can be: a tebibyte.
pub(super) const LAST: u32 = 24;
/// Up to this generation, a mebibyte, memory is kept; from larger ones a ring comes back to it when
/// it is empty.
pub(super) const SETTLED: u32 = 4;
/// A generation larger than this, two mebibytes, is left when the ring is empty, and its memory
/// given back.
pub(super) const KEPT: u32 = 5;

/// The largest item inside of a generation; a larger one has a place of its own.
pub(super) const MAX_INLINE: usize = 128 * 1024;
/// The largest item.
pub(crate) const MAX_ITEM: usize = 1 << SPILL_BITS;
const SPILL_BITS: u32 = 33;
const SPILL: usize = 1 << 43;
/// The length of the file.
pub(super) const FILE: usize = SPILL + (SEATS as usize) * MAX_ITEM;
const _: () = assert!(Generation(LAST).end() <= SPILL);

/// Where the place of a large item begins.
pub(super) fn spill_at(seat: u32) -> usize {
    SPILL + seat as usize * MAX_ITEM
}

/// One generation: lines, and bytes behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(pub(super) u32);

impl Generation {
    /// Its first byte in the file; also its length.
    pub(super) const fn at(self) -> usize {
        HEADER << self.0
    }

    const fn end(self) -> usize {
        self.at() + self.len()
    }

    pub(super) const fn len(self) -> usize {
        HEADER << self.0
    }

    /// The number of lines, a power of two.
    pub(super) const fn lines(self) -> u64 {
        (self.len() / 4 / LINE) as u64
    }

    /// The number of bytes behind the lines.
    pub(super) const fn bytes(self) -> u64 {
        (self.len() - self.len() / 4) as u64
    }

    /// Where the bytes begin, from the start of the generation.
    pub(super) const fn bytes_at(self) -> usize {
        self.len() / 4
    }

    /// Where the line of an item is, from the start of the generation.
    #[inline]
    pub(super) const fn line(self, number: u64) -> usize {
        // The number of lines is a power of two.
        (number & (self.lines() - 1)) as usize * LINE
    }

    /// Whether an item of so many bytes, without a place of its own, may be here: a few of them
    /// should fit.
    pub(super) const fn suits(self, len: usize) -> bool {
        len as u64 <= self.bytes() / 4
    }
}
