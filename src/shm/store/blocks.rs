//! Pieces of shared memory by size: powers of two, each at a multiple of its size.
//!
//! Small ones are cut from chunks, whose memory is there for good. Large ones have as much memory
//! as their user asked for; the rest of their addresses has none. What is given back waits in a
//! list for the next one who wants that size.

use super::journal::{Change, Space, damaged};
use std::io;

/// The smallest block has 2^6 bytes, the largest 2^44.
const SMALLEST: u32 = 6;
const LARGEST: u32 = 44;
/// Up to this size, as a power of two, blocks are cut from chunks.
const SMALL: u32 = 12;
/// The size of a chunk.
const CHUNK: u64 = 1 << 14;
/// From this size on, blocks give their memory back to the system.
const HUGE: u32 = 20;

// The words of the allocator.
const TOP: u64 = 0;
const FREE: u64 = 8;
const CUT: u64 = FREE + 8 * (LARGEST as u64 + 1);
/// The bytes of the allocator's words.
pub(crate) const WORDS: u64 = CUT + 8 * (SMALL as u64 + 1);

/// Where a free block keeps the place of the next one; nobody else uses that word.
const LINK: u64 = 0;
/// Where the user's bytes of a block begin.
pub(crate) const BODY: u64 = 8;

/// A block: its first byte, and its size in the lower bits; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

impl Place {
    /// The place that a word names; `None` for 0.
    ///
    /// # Errors
    /// If no block can be there.
    pub(crate) fn of(word: u64) -> io::Result<Option<Self>> {
        let (class, at) = ((word & 63) as u32, word & !63);
        match word {
            0 => Ok(None),
            _ if (SMALLEST..=LARGEST).contains(&class)
                && at >= CHUNK
                && at.is_multiple_of(1 << class) =>
            {
                Ok(Some(Self(word)))
            }
            _ => Err(damaged()),
        }
    }

    /// The word that names it.
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// The byte of its body at `offset`.
    pub(crate) fn body(self, offset: u64) -> u64 {
        self.at() + BODY + offset
    }

    /// How many bytes its body has.
    pub(crate) fn capacity(self) -> u64 {
        self.size() - BODY
    }

    /// The memory that it can spare while nobody uses it: first byte and length.
    pub(crate) fn spare(self) -> Option<(u64, u64)> {
        // The first page stays: the link is there. 64 KiB is the largest page of any machine.
        const PAGE: u64 = 1 << 16;
        (self.class() >= HUGE).then(|| (self.at() + PAGE, self.size() - PAGE))
    }

    fn at(self) -> u64 {
        self.0 & !63
    }

    fn class(self) -> u32 {
        (self.0 & 63) as u32
    }

    fn size(self) -> u64 {
        1 << self.class()
    }
}

/// The allocator whose words begin at a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks(pub(crate) u64);

impl Blocks {
    /// Says where the first chunk may be; once, before anything else.
    pub(crate) fn init<S: Space>(self, change: &mut Change<'_, S>) -> io::Result<()> {
        change.set(self.0 + TOP, CHUNK)
    }

    /// Takes a block with `bytes` bytes in its body, whose memory is there.
    ///
    /// # Errors
    /// `OutOfMemory` if there is none for it.
    pub(crate) fn take<S: Space>(
        self,
        change: &mut Change<'_, S>,
        bytes: u64,
    ) -> io::Result<Place> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = bytes.checked_add(BODY).filter(|len| *len <= 1 << LARGEST);
        let len = len.ok_or_else(too_large)?;
        let class = len.next_power_of_two().ilog2().max(SMALLEST);
        if let Some(place) = self.pop(change, class)? {
            if class > SMALL {
                change.reserve(place.at(), len)?;
            }
            return Ok(place);
        }
        if class <= SMALL { self.cut(change, class) } else { self.fresh(change, class, len) }
    }

    /// Gives a block back.
    pub(crate) fn give_back<S: Space>(
        self,
        change: &mut Change<'_, S>,
        place: Place,
    ) -> io::Result<()> {
        let list = self.0 + FREE + 8 * u64::from(place.class());
        let next = change.get(list)?;
        change.set(place.at() + LINK, next)?;
        change.set(list, place.word())
    }

    fn pop<S: Space>(self, change: &mut Change<'_, S>, class: u32) -> io::Result<Option<Place>> {
        let list = self.0 + FREE + 8 * u64::from(class);
        let Some(place) = Place::of(change.get(list)?)? else {
            return Ok(None);
        };
        if place.class() != class {
            return Err(damaged());
        }
        let next = change.get(place.at() + LINK)?;
        change.set(list, next)?;
        Ok(Some(place))
    }

    /// Cuts a small block from its size's chunk, or from a new one.
    fn cut<S: Space>(self, change: &mut Change<'_, S>, class: u32) -> io::Result<Place> {
        let cut = self.0 + CUT + 8 * u64::from(class);
        let mut at = change.get(cut)?;
        if at.is_multiple_of(CHUNK) {
            at = self.fresh(change, CHUNK.ilog2(), CHUNK)?.at();
        }
        let place = Place::of(at | u64::from(class))?.ok_or_else(damaged)?;
        change.set(cut, at.checked_add(place.size()).ok_or_else(damaged)?)?;
        Ok(place)
    }

    /// A block where none ever was.
    fn fresh<S: Space>(
        self,
        change: &mut Change<'_, S>,
        class: u32,
        len: u64,
    ) -> io::Result<Place> {
        let size = 1_u64 << class;
        let top = change.get(self.0 + TOP)?;
        let at = top.checked_next_multiple_of(size).ok_or_else(damaged)?;
        let end = at.checked_add(size).ok_or_else(damaged)?;
        let place = Place::of(at | u64::from(class))?.ok_or_else(damaged)?;
        change.reserve(at, len)?;
        change.set(self.0 + TOP, end)?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::model::Mortal;
    use super::*;
    use proptest::prelude::*;

    const JOURNAL_AT: u64 = 1 << 50;
    const BLOCKS: Blocks = Blocks(0);

    fn change<R>(
        space: &Mortal,
        run: impl FnOnce(&mut Change<'_, Mortal>) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut change = Change::begin(space, JOURNAL_AT)?;
        let result = run(&mut change)?;
        change.keep()?;
        Ok(result)
    }

    fn new() -> Mortal {
        let space = Mortal::default();
        change(&space, |change| BLOCKS.init(change)).expect("init");
        space
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_come_again(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0..200_000_u64), 1..200),
        ) {
            let (space, mut held) = (new(), Vec::<Place>::new());
            for (which, bytes) in steps {
                if bytes % 3 == 0 && !held.is_empty() {
                    let place = held.swap_remove(which.index(held.len()));
                    change(&space, |change| BLOCKS.give_back(change, place)).expect("give back");
                } else {
                    let place = change(&space, |change| BLOCKS.take(change, bytes)).expect("take");
                    prop_assert!(place.capacity() >= bytes);
                    for other in &held {
                        let apart = place.at() + place.size() <= other.at()
                            || other.at() + other.size() <= place.at();
                        prop_assert!(apart, "{place:?} {other:?}");
                    }
                    held.push(place);
                }
            }
        }
    }

    #[test]
    fn a_taker_that_is_killed_at_any_store_has_taken_nothing() {
        for (bytes, warm) in [(1, false), (1, true), (4000, true), (100_000, false)] {
            for life in 0.. {
                let space = new();
                if warm {
                    let place = change(&space, |change| BLOCKS.take(change, bytes)).expect("take");
                    change(&space, |change| BLOCKS.give_back(change, place)).expect("give back");
                }
                let before = space.snapshot(JOURNAL_AT);
                let take = || drop(change(&space, |change| BLOCKS.take(change, bytes)));
                if space.live_for(life, take) {
                    break;
                }
                drop(Change::begin(&space, JOURNAL_AT).expect("begin"));
                assert_eq!(space.snapshot(JOURNAL_AT), before, "{life}");
            }
        }
    }

    #[test]
    fn forged_places_and_lists_are_errors() {
        for word in [1, 5 | CHUNK, 45 | 1 << 45, 7 | (CHUNK + 64), 63, u64::MAX, 6] {
            assert!(Place::of(word).is_err(), "{word:#x}");
        }
        for (at, value) in [(TOP, u64::MAX), (FREE + 8 * 6, 7 | CHUNK), (CUT + 8 * 6, 77)] {
            let space = new();
            space.set(at, value).expect("set");
            assert!(change(&space, |change| BLOCKS.take(change, 1)).is_err(), "{at}");
        }
        assert!(change(&new(), |change| BLOCKS.take(change, u64::MAX)).is_err());
        assert!(change(&new(), |change| BLOCKS.take(change, 1 << 45)).is_err());
    }
}
