//! The line of an item.

use super::ends::NUMBERS;
use super::layout::LINE;
use crate::shm::segment::Segment;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest item in a line.
pub(super) const MAX_IN_LINE: usize = 32;
/// Where the bytes of a small item are, from the start of its line; it has no place and no mail.
pub(super) const IN_LINE: usize = 32;
const _: () = assert!(IN_LINE + MAX_IN_LINE == LINE);

/// The words of a line.
type Words = [AtomicU64; LINE / 8];
const NAME: usize = 0;
const LEN: usize = 1;
const END: usize = 2;
const PLACE: usize = 3;
const MAIL: usize = 4;

/// Where the bytes of an item are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// In the line.
    Line,
    /// In the bytes of the generation, from this offset on.
    Bytes(u64),
    /// In a place of its own: that of this seat.
    Spilled(u32),
    /// Nowhere: from this item on everything is in another generation.
    Moved(u32),
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) tag: u8,
    pub(super) len: u64,
    /// How many bytes of the generation have been used, with those of this item.
    pub(super) end: u64,
    /// The number of the mail with its objects; 0 for none.
    pub(super) mail: u64,
    pub(super) content: Content,
}

const IN_LINE_KIND: u64 = 1;
const BYTES: u64 = 2;
const SPILLED: u64 = 3;
const MOVED: u64 = 4;

/// The number of the item that a line was written for last, and the kind; 0 for none.
#[inline]
fn name(words: &Words) -> (u64, u64) {
    // Relaxed: ordered by the end words.
    let name = words[NAME].load(Ordering::Relaxed);
    (name >> 8, name & 0xff)
}

/// Whether the line was written for this item last.
pub(super) fn is_for(segment: &Segment, at: usize, number: u64) -> bool {
    matches!(name(segment.words64(at)), (named, kind) if named == number && kind != 0)
}

/// How many bytes of the generation were used after this item; `None` if the line is not its.
#[inline]
pub(super) fn end_of(segment: &Segment, at: usize, number: u64) -> Option<u64> {
    let words = segment.words64(at);
    // Relaxed: ordered by the end words.
    let end = words[END].load(Ordering::Relaxed);
    let (named, kind) = name(words);
    (named == number && (IN_LINE_KIND..=SPILLED).contains(&kind)).then_some(end)
}

impl Line {
    /// Writes the line; the bytes of an item inside of it are written apart.
    #[inline]
    pub(super) fn write(&self, segment: &Segment, at: usize) {
        let words: &Words = segment.words64(at);
        // Relaxed: published by the tail.
        let put = |index: usize, word: u64| words[index].store(word, Ordering::Relaxed);
        let kind = match self.content {
            Content::Line => IN_LINE_KIND,
            Content::Bytes(_) => BYTES,
            Content::Spilled(_) => SPILLED,
            Content::Moved(_) => MOVED,
        };
        put(NAME, (self.number & NUMBERS) << 8 | kind);
        put(LEN, self.len << 8 | u64::from(self.tag));
        put(END, self.end);
        let place = match self.content {
            Content::Line => return,
            Content::Bytes(offset) => offset,
            Content::Spilled(number) | Content::Moved(number) => number.into(),
        };
        put(PLACE, place);
        put(MAIL, self.mail);
    }

    /// The line, if it says anything that makes sense.
    #[inline]
    pub(super) fn read(segment: &Segment, at: usize) -> Option<Self> {
        let words: &Words = segment.words64(at);
        // Relaxed: published by the tail.
        let word = |index: usize| words[index].load(Ordering::Relaxed);
        let (number, kind) = name(words);
        let (len, end) = (word(LEN), word(END));
        let place = || u32::try_from(word(PLACE)).ok();
        let content = match kind {
            IN_LINE_KIND => Content::Line,
            BYTES => Content::Bytes(word(PLACE)),
            SPILLED => Content::Spilled(place()?),
            MOVED => Content::Moved(place()?),
            _ => return None,
        };
        let mail = if kind == IN_LINE_KIND { 0 } else { word(MAIL) };
        Some(Self { number, tag: len as u8, len: len >> 8, end, mail, content })
    }
}
