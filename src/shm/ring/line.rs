//! The line of an item.

use super::ends::NUMBERS;
use crate::shm::segment::Segment;
use std::sync::atomic::Ordering;

/// The largest item in a line.
pub(super) const MAX_IN_LINE: usize = 32;

const NAME: usize = 0;
const LEN: usize = 8;
const END: usize = 16;
const PLACE: usize = 24;
const MAIL: usize = 32;
/// Where the bytes of a small item are; it has no place and no mail.
const IN_LINE: usize = 32;

/// Where the bytes of an item are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// In the line.
    Line([u8; MAX_IN_LINE]),
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
fn name(segment: &Segment, at: usize) -> (u64, u64) {
    // Relaxed: ordered by the end words.
    let name = segment.word64(at + NAME).load(Ordering::Relaxed);
    (name >> 8, name & 0xff)
}

/// Whether the line was written for this item last.
pub(super) fn is_for(segment: &Segment, at: usize, number: u64) -> bool {
    matches!(name(segment, at), (named, kind) if named == number && kind != 0)
}

/// How many bytes of the generation were used after this item; `None` if the line is not its.
pub(super) fn end_of(segment: &Segment, at: usize, number: u64) -> Option<u64> {
    let end = segment.word64(at + END).load(Ordering::Relaxed);
    let (named, kind) = name(segment, at);
    (named == number && (IN_LINE_KIND..=SPILLED).contains(&kind)).then_some(end)
}

impl Line {
    #[inline]
    pub(super) fn write(&self, segment: &Segment, at: usize) {
        // Relaxed: published by the tail.
        let put = |offset: usize, word: u64| {
            segment.word64(at + offset).store(word, Ordering::Relaxed);
        };
        let kind = match self.content {
            Content::Line(bytes) => {
                for (index, word) in bytes.chunks_exact(8).enumerate() {
                    let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
                    put(IN_LINE + 8 * index, word);
                    if 8 * (index + 1) >= self.len as usize {
                        break;
                    }
                }
                put(NAME, (self.number & NUMBERS) << 8 | IN_LINE_KIND);
                put(LEN, self.len << 8 | u64::from(self.tag));
                put(END, self.end);
                return;
            }
            Content::Bytes(offset) => {
                put(PLACE, offset);
                BYTES
            }
            Content::Spilled(seat) => {
                put(PLACE, seat.into());
                SPILLED
            }
            Content::Moved(generation) => {
                put(PLACE, generation.into());
                MOVED
            }
        };
        put(NAME, (self.number & NUMBERS) << 8 | kind);
        put(LEN, self.len << 8 | u64::from(self.tag));
        put(END, self.end);
        put(MAIL, self.mail);
    }

    /// The line, if it says anything that makes sense.
    #[inline]
    pub(super) fn read(segment: &Segment, at: usize) -> Option<Self> {
        // Relaxed: published by the tail.
        let word = |offset: usize| segment.word64(at + offset).load(Ordering::Relaxed);
        let (number, kind) = name(segment, at);
        let (len, tag, end) = (word(LEN) >> 8, word(LEN) as u8, word(END));
        let place = || u32::try_from(word(PLACE)).ok();
        let content = match kind {
            IN_LINE_KIND => {
                let mut bytes = [0; MAX_IN_LINE];
                for (index, target) in bytes.chunks_exact_mut(8).enumerate() {
                    target.copy_from_slice(&word(IN_LINE + 8 * index).to_ne_bytes());
                }
                Content::Line(bytes)
            }
            BYTES => Content::Bytes(word(PLACE)),
            SPILLED => Content::Spilled(place()?),
            MOVED => Content::Moved(place()?),
            _ => return None,
        };
        let mail = if kind == IN_LINE_KIND { 0 } else { word(MAIL) };
        Some(Self { number, tag, len, end, mail, content })
    }
}
