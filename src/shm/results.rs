//! The result ring: records from one worker to the parent.
//!
//! A record carries the results of consecutive items of one frame, encoded back to back. Its first
//! word is zero until it is published, and the writer zeroes the first word of the record to come
//! before it publishes one: so the reader needs no other news than the record itself, and the
//! result of a small task travels in one cache line. The worker encodes in place, into a record
//! that it has opened but not published, and after each item writes down how far it got. If it
//! dies, the parent still finds the finished items there.

use super::board::{Board, RING, ring_offset};
use super::bytes::Bytes;
use std::sync::atomic::Ordering;

/// The largest record body; a larger result needs a block.
pub(crate) const MAX_RECORD: usize = 64 * 1024;
/// The most items that one frame may hold, so that counts fit the progress word.
pub(crate) const MAX_ITEMS: u32 = 1 << 20;

const HEADER: usize = 24;
/// Half a cache line: the record of a small result does not straddle two.
const ALIGN: usize = 32;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Encoded results, back to back.
    Values = 1,
    /// One encoded failure.
    Failure = 2,
    /// Where to find one large result: block number and length, two words.
    Block = 3,
    /// Nothing: the next record is at the start of the ring.
    Wrap = 4,
    /// The number of the message with its objects, a word, and one encoded result.
    Carrying = 5,
    /// The number of the message with its objects, and what `Block` has: three words.
    CarryingBlock = 6,
}

/// Which items a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Items {
    pub(crate) frame: u32,
    /// Counted from the first item of the frame as posted.
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The progress word: which record is open, how many items it holds, in how many bytes.
fn pack_progress(tail: u64, count: u32, used: usize) -> u64 {
    (ring_offset(tail) as u64 / 8) << 48 | u64::from(count) << 24 | used as u64
}

/// The worker's end: the open record.
#[derive(Debug, Default)]
pub(crate) struct ResultWriter {
    tail: u64,
    /// The parent's head when it was last read: reading it for each record would move its cache
    /// line each time.
    head: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    items: Items,
    used: usize,
    capacity: usize,
}

impl ResultWriter {
    /// Opens a record for items of `frame` from `first` on, with room for at least `min` bytes of
    /// body; false while the parent has not collected enough.
    pub(crate) fn open(&mut self, board: &Board, frame: u32, first: u32, min: usize) -> bool {
        debug_assert!(self.open.is_none() && min <= MAX_RECORD);
        let to_end = RING - ring_offset(self.tail);
        if to_end < HEADER + min {
            if !self.has_room(board, to_end) {
                return false;
            }
            self.publish(board, to_end, Kind::Wrap, Items { frame, first, count: 0 }, 0);
        }
        let to_end = RING - ring_offset(self.tail);
        if !self.has_room(board, HEADER + min) {
            return false;
        }
        let capacity = (self.room().min(to_end) - HEADER).min(MAX_RECORD);
        self.open = Some(Open { items: Items { frame, first, count: 0 }, used: 0, capacity });
        // Relaxed: read by the parent only after this process has died.
        board.progress().store(pack_progress(self.tail, 0, 0), Ordering::Relaxed);
        true
    }

    /// Whether a record is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The number of items in the open record.
    pub(crate) fn count(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.items.count)
    }

    /// Whether an open record could have been larger.
    pub(crate) fn is_largest(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.capacity == MAX_RECORD)
    }

    /// The unused bytes of the open record.
    pub(crate) fn space<'a>(&self, board: &'a mut Board) -> &'a mut [u8] {
        match &self.open {
            Some(open) => {
                let start = self.tail + (HEADER + open.used) as u64;
                board.ring_space(start, open.capacity - open.used)
            }
            None => &mut [],
        }
    }

    /// One more item is encoded, in the first `len` bytes of the space.
    pub(crate) fn add(&mut self, board: &Board, len: usize) {
        if let Some(open) = &mut self.open {
            debug_assert!(len <= open.capacity - open.used);
            open.used += len;
            open.items.count += 1;
            let progress = pack_progress(self.tail, open.items.count, open.used);
            // Release: the encoded bytes come before the count that vouches for them.
            board.progress().store(progress, Ordering::Release);
        }
    }

    /// The record's one entry is no value: nothing vouches for it until it is published, because
    /// what the parent finds in an unpublished record it takes for values.
    pub(crate) fn add_other(&mut self, len: usize) {
        if let Some(open) = &mut self.open {
            debug_assert!(open.items.count == 0 && len <= open.capacity);
            open.used = len;
            open.items.count = 1;
        }
    }

    /// Publishes the open record, or drops it if it is empty.
    pub(crate) fn close(&mut self, board: &Board, kind: Kind) {
        if let Some(open) = self.open.take()
            && open.items.count > 0
        {
            let size = (HEADER + open.used).next_multiple_of(ALIGN);
            self.publish(board, size, kind, open.items, open.used);
        }
    }

    fn publish(&mut self, board: &Board, size: usize, kind: Kind, items: Items, used: usize) {
        let start = self.tail;
        self.tail += size as u64;
        // Relaxed, all three: published by the release store of the first word.
        board.ring_word(self.tail).store(0, Ordering::Relaxed);
        let place = u64::from(items.frame) | u64::from(items.first) << 32;
        board.ring_word(start + 8).store(place, Ordering::Relaxed);
        board.ring_word(start + 16).store(items.count.into(), Ordering::Relaxed);
        // Release: publishes the header and the body.
        let first = used as u64 | (kind as u64) << 32;
        board.ring_word(start).store(first, Ordering::Release);
    }

    /// Whether `wanted` bytes are free, reading the parent's head only if it may matter.
    fn has_room(&mut self, board: &Board, wanted: usize) -> bool {
        if self.room() < wanted {
            self.head = self.head(board);
        }
        self.room() >= wanted
    }

    fn room(&self) -> usize {
        // One unit stays free for the zeroed first word of the record to come.
        (RING - ALIGN).saturating_sub(self.tail.wrapping_sub(self.head) as usize)
    }

    /// Whether the parent's head is where it can be: not if something has overwritten it.
    pub(crate) fn is_sound(&self, board: &Board) -> bool {
        self.tail.wrapping_sub(self.head(board)) <= RING as u64
    }

    /// Whether the parent has collected everything published.
    pub(crate) fn all_collected(&self, board: &Board) -> bool {
        self.head(board) == self.tail
    }

    /// How far the parent has collected.
    pub(crate) fn head(&self, board: &Board) -> u64 {
        // Acquire: the parent has finished reading what it gives back.
        board.result_head().load(Ordering::Acquire)
    }
}

/// A record as the parent took it out.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) items: Items,
    pub(crate) body: Bytes,
}

/// The worker has written something that no worker of ours writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// The parent's end. It believes nothing: each word is read once and checked before use.
#[derive(Debug, Default)]
pub(crate) struct ResultReader {
    head: u64,
}

impl ResultReader {
    /// Whether there is something to take.
    pub(crate) fn is_ready(&self, board: &Board) -> bool {
        self.first_word(board) != 0
    }

    /// Takes the next record out, if there is one.
    ///
    /// # Errors
    /// If the ring does not hold what a worker of ours could have written.
    pub(crate) fn next(&mut self, board: &Board) -> Result<Option<Record>, Violation> {
        loop {
            let first = self.first_word(board);
            if first == 0 {
                return Ok(None);
            }
            let to_end = RING - ring_offset(self.head);
            let (len, kind) = (first as u32 as usize, (first >> 32) as u8);
            if kind == Kind::Wrap as u8 {
                if to_end == RING {
                    return Err(Violation("a wrap at the start of the ring"));
                }
                self.advance(board, to_end);
                continue;
            }
            if len > MAX_RECORD || len > to_end - HEADER {
                return Err(Violation("a record that is longer than a record can be"));
            }
            // Relaxed: ordered by the acquire of the first word; each word is read exactly once.
            let word = |index: u64| board.ring_word(self.head + 8 * index).load(Ordering::Relaxed);
            let (place, count) = (word(1), word(2));
            let items = Items {
                frame: place as u32,
                first: (place >> 32) as u32,
                count: u32::try_from(count).unwrap_or(u32::MAX),
            };
            let kind = match kind {
                1 => Kind::Values,
                2 => Kind::Failure,
                3 => Kind::Block,
                5 => Kind::Carrying,
                6 => Kind::CarryingBlock,
                _ => return Err(Violation("a record of an unknown kind")),
            };
            let start = self.head + HEADER as u64;
            let body = board.ring_copy_out(start, len);
            self.advance(board, (HEADER + len).next_multiple_of(ALIGN).min(to_end));
            return Ok(Some(Record { kind, items, body }));
        }
    }

    /// After the worker's death: the finished items of the record that it never published.
    pub(crate) fn unpublished(&self, board: &Board) -> Option<(u32, Bytes)> {
        let progress = board.progress().load(Ordering::Acquire);
        let (count, used) = ((progress >> 24) as u32 & 0xff_ffff, progress as usize & 0xff_ffff);
        let to_end = RING - ring_offset(self.head);
        let is_open = pack_progress(self.head, count, used) == progress;
        if !is_open || count == 0 || used > MAX_RECORD || HEADER + used > to_end {
            return None;
        }
        let start = self.head + HEADER as u64;
        Some((count, board.ring_copy_out(start, used)))
    }

    fn first_word(&self, board: &Board) -> u64 {
        // Acquire: pairs with the release in `publish`.
        board.ring_word(self.head).load(Ordering::Acquire)
    }

    fn advance(&mut self, board: &Board, len: usize) {
        self.head += len as u64;
        // Release: the reads of the record come before the worker writes there again.
        board.result_head().store(self.head, Ordering::Release);
    }
}

#[cfg(fuzzing)]
impl ResultReader {
    /// A reader somewhere in the ring.
    pub(crate) fn standing_at(position: u64) -> Self {
        Self { head: position % RING as u64 / ALIGN as u64 * ALIGN as u64 }
    }

    /// A word of the ring, counted from where the reader stands.
    pub(crate) fn word_ahead<'a>(
        &self,
        board: &'a Board,
        index: u64,
    ) -> &'a std::sync::atomic::AtomicU64 {
        board.ring_word(self.head + 8 * index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(writer: &mut ResultWriter, board: &mut Board, frame: u32, bytes: &[u8]) -> bool {
        if !writer.open(board, frame, 0, bytes.len()) {
            return false;
        }
        writer.space(board)[..bytes.len()].copy_from_slice(bytes);
        writer.add(board, bytes.len());
        writer.close(board, Kind::Values);
        true
    }

    #[test]
    fn records_of_all_sizes_arrive_in_order_while_the_ring_wraps() {
        let (mut board, _fd) = Board::create().expect("board");
        let (mut writer, mut reader) = (ResultWriter::default(), ResultReader::default());
        for round in 0..300u32 {
            let bytes = vec![round as u8; round as usize * 977 % (MAX_RECORD + 1)];
            assert!(write(&mut writer, &mut board, round, &bytes));
            let record = reader.next(&board).expect("valid").expect("a record");
            assert_eq!((record.items.frame, record.body.as_slice()), (round, &bytes[..]));
            assert!(reader.next(&board).expect("valid").is_none());
        }
    }

    #[test]
    fn a_full_ring_refuses_until_the_reader_has_read() {
        let (mut board, _fd) = Board::create().expect("board");
        let (mut writer, mut reader) = (ResultWriter::default(), ResultReader::default());
        let mut sent = 0;
        while write(&mut writer, &mut board, sent, &[1; 1000]) {
            sent += 1;
        }
        assert!(sent > 200);
        for frame in 0..sent {
            assert_eq!(reader.next(&board).expect("valid").expect("record").items.frame, frame);
        }
        assert!(write(&mut writer, &mut board, sent, &[1; 1000]));
    }

    #[test]
    fn finished_items_of_an_unpublished_record_are_found() {
        let (mut board, _fd) = Board::create().expect("board");
        let (mut writer, mut reader) = (ResultWriter::default(), ResultReader::default());
        assert!(write(&mut writer, &mut board, 0, b"published"));
        assert!(writer.open(&board, 1, 0, 8));
        for byte in [b'a', b'b'] {
            writer.space(&mut board)[0] = byte;
            writer.add(&board, 1);
        }
        assert!(reader.unpublished(&board).is_none(), "the record at the head is published");
        reader.next(&board).expect("valid").expect("a record");
        let (count, bytes) = reader.unpublished(&board).expect("two items");
        assert_eq!((count, bytes.as_slice()), (2, &b"ab"[..]));
    }

    #[test]
    fn an_unpublished_failure_is_not_taken_for_a_value() {
        let (mut board, _fd) = Board::create().expect("board");
        let (mut writer, mut reader) = (ResultWriter::default(), ResultReader::default());
        assert!(writer.open(&board, 0, 0, 8));
        writer.space(&mut board)[..4].copy_from_slice(b"oops");
        writer.add_other(4);
        assert!(reader.unpublished(&board).is_none());
        writer.close(&board, Kind::Failure);
        let record = reader.next(&board).expect("valid").expect("a record");
        assert_eq!((record.kind, record.items.count), (Kind::Failure, 1));
        assert_eq!(record.body.as_slice(), b"oops");
    }

    proptest::proptest! {
        /// P4: whatever a worker writes, the reader neither panics nor reads out of bounds nor
        /// allocates more than one record.
        #[test]
        fn garbage_is_refused_or_read_harmlessly(
            head in 0..(RING as u64 / ALIGN as u64),
            progress in proptest::prelude::any::<u64>(),
            words in proptest::collection::vec(proptest::prelude::any::<u64>(), 1..64),
            small in proptest::prelude::any::<bool>(),
        ) {
            let (board, _fd) = Board::create().expect("board");
            let mut reader = ResultReader { head: head * ALIGN as u64 };
            for (index, word) in words.iter().enumerate() {
                let word = if small { word & 0x3_0000_ffff } else { *word };
                board.ring_word(reader.head + 8 * index as u64).store(word, Ordering::Relaxed);
            }
            board.progress().store(progress, Ordering::Release);
            for _ in 0..100_000 {
                match reader.next(&board) {
                    Ok(Some(record)) => assert!(record.body.as_slice().len() <= MAX_RECORD),
                    Ok(None) | Err(_) => break,
                }
            }
            let _ = reader.unpublished(&board);
        }
    }
}
