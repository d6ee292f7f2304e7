//! The task ring: frames from the parent to one worker.
//!
//! A frame is one cache line in a ring of descriptors; the sequence number in it tells the worker
//! that it is posted, so that one line travels for one task. A payload of up to 24 bytes lives in
//! the line itself, one of up to 64 KiB in a byte ring behind it, and a larger one in a block. The
//! segment is sealed so that only the parent can write to it, and the parent leaves a frame alone
//! from its posting until it is finished or taken back.

use super::segment::Segment;
use crate::sys::memfd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// How many frames can be outstanding.
pub(crate) const FRAMES: u32 = 1024;
/// The largest payload in the byte ring; a larger one needs a block.
pub(crate) const MAX_INLINE: usize = 64 * 1024;

const DATA: usize = 256 * 1024;
const LINE: usize = 64;
const BYTES: usize = LINE * FRAMES as usize;
const LEN: usize = BYTES + DATA;

// The words of a line.
const ENTRY: usize = 0;
const RANGE: usize = 8;
const KIND: usize = 16;
const PLACE: usize = 24;
const SEQUENCE: usize = 32;
const IN_LINE: usize = 40;
/// The largest payload in a line.
pub(crate) const MAX_IN_LINE: usize = LINE - IN_LINE;

const _: () = assert!(BYTES.is_multiple_of(4096));

/// Where a frame's payload is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// Here.
    Bytes(&'a [u8]),
    /// In a block that the worker has been sent.
    Block { uid: u64, len: u64 },
}

/// What the parent posts: run items `first..end` of the payload with the function at `entry`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) entry: u64,
    pub(crate) first: u32,
    pub(crate) end: u32,
    pub(crate) payload: Payload<'a>,
}

/// The receipt for a posted frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posted {
    pub(crate) frame: u32,
    data_start: u64,
    data_end: u64,
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct TaskSender {
    segment: Segment,
    tail: u32,
    oldest: u32,
    data_tail: u64,
    data_head: u64,
}

impl TaskSender {
    /// Creates the ring and the descriptor that the worker gets.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (segment, fd) = Segment::create("multiproc-tasks", LEN)?;
        memfd::seal_future_writes(&fd)?;
        let sender = Self { segment, tail: 0, oldest: 0, data_tail: 0, data_head: 0 };
        Ok((sender, fd))
    }

    /// The number that the next frame gets.
    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }

    /// Posts a frame, or returns `None` while there is no room for it.
    pub(crate) fn post(&mut self, frame: &Frame<'_>) -> Option<Posted> {
        if self.tail.wrapping_sub(self.oldest) >= FRAMES {
            return None;
        }
        let data_start = self.data_tail;
        let line = LINE * (self.tail % FRAMES) as usize;
        let (kind, a, b) = match frame.payload {
            Payload::Bytes(bytes) if bytes.len() <= MAX_IN_LINE => {
                let mut words = [0; MAX_IN_LINE];
                words[..bytes.len()].copy_from_slice(bytes);
                for (index, word) in words.chunks_exact(8).enumerate() {
                    let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
                    self.put(line + IN_LINE + 8 * index, word);
                }
                (Kind::Line, bytes.len() as u64, 0)
            }
            Payload::Bytes(bytes) => (Kind::Ring, bytes.len() as u64, self.copy_in(bytes)?),
            Payload::Block { uid, len } => (Kind::Block, len, uid),
        };
        self.put(line + ENTRY, frame.entry);
        self.put(line + RANGE, u64::from(frame.first) | u64::from(frame.end) << 32);
        self.put(line + KIND, a << 2 | kind as u64);
        self.put(line + PLACE, b);
        let posted = Posted { frame: self.tail, data_start, data_end: self.data_tail };
        self.tail = self.tail.wrapping_add(1);
        // Release: publishes the rest of the line and the payload bytes.
        self.segment.word64(line + SEQUENCE).store(self.tail.into(), Ordering::Release);
        Some(posted)
    }

    /// The oldest outstanding frame is finished; `next` is the one after it, if any.
    pub(crate) fn finish(&mut self, finished: Posted, next: Option<Posted>) {
        self.oldest = next.map_or(self.tail, |next| next.frame);
        self.data_head = finished.data_end;
    }

    /// The frames from `first` on were taken back; `before` is the last one still outstanding.
    pub(crate) fn take_back(&mut self, first: Posted, before: Option<Posted>) {
        self.data_tail = first.data_start;
        if before.is_none() {
            self.oldest = self.tail;
            self.data_head = self.data_tail;
        }
    }

    fn put(&self, at: usize, word: u64) {
        // Relaxed: published by the release store of the sequence number.
        self.segment.word64(at).store(word, Ordering::Relaxed);
    }

    /// Copies a payload into the byte ring, in one piece, and returns its offset.
    fn copy_in(&mut self, bytes: &[u8]) -> Option<u64> {
        let len = bytes.len().next_multiple_of(8) as u64;
        let size = DATA as u64;
        let mut start = self.data_tail;
        if start % size + len > size {
            start = start.next_multiple_of(size);
        }
        if bytes.len() > MAX_INLINE || start + len - self.data_head > size {
            return None;
        }
        let offset = (start % size) as usize;
        // SAFETY: only the parent can write to this segment (sealed), this is its only mapping,
        // and `&mut self` its only user; the range lies outside all outstanding frames, so no
        // worker reads it.
        unsafe { self.segment.bytes_mut(BYTES + offset, bytes.len()) }.copy_from_slice(bytes);
        self.data_tail = start + len;
        Some(offset as u64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    Line = 0,
    Ring = 1,
    Block = 2,
}

/// A frame as the worker reads it. Until its first item is claimed it may be torn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) entry: u64,
    pub(crate) first: u32,
    pub(crate) end: u32,
    kind: u64,
    len: u64,
    place: u64,
    line: [u8; MAX_IN_LINE],
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct TaskReceiver(Segment);

impl TaskReceiver {
    /// Maps the ring that the parent made, for reading.
    pub(crate) fn open(fd: &OwnedFd) -> io::Result<Self> {
        Segment::open(fd, LEN, false).map(Self)
    }

    /// Whether a frame has been posted.
    pub(crate) fn is_posted(&self, frame: u32) -> bool {
        let at = LINE * (frame % FRAMES) as usize + SEQUENCE;
        // Acquire: pairs with the release in `post`. The number of the next frame is stored, so
        // that the zeros of a new ring mean nothing posted.
        self.0.word64(at).load(Ordering::Acquire) == u64::from(frame.wrapping_add(1))
    }

    /// Reads a posted frame.
    pub(crate) fn read(&self, frame: u32) -> Descriptor {
        let at = LINE * (frame % FRAMES) as usize;
        // Relaxed: ordered by the acquire of the sequence number.
        let word = |offset: usize| self.0.word64(at + offset).load(Ordering::Relaxed);
        let (range, kind) = (word(RANGE), word(KIND));
        let mut line = [0; MAX_IN_LINE];
        if kind & 3 == Kind::Line as u64 {
            for (index, bytes) in line.chunks_exact_mut(8).enumerate() {
                bytes.copy_from_slice(&word(IN_LINE + 8 * index).to_ne_bytes());
            }
        }
        Descriptor {
            entry: word(ENTRY),
            first: range as u32,
            end: (range >> 32) as u32,
            kind: kind & 3,
            len: kind >> 2,
            place: word(PLACE),
            line,
        }
    }

    /// The payload of a frame of which an item is claimed, if it is not in a block.
    pub(crate) fn bytes<'a>(&'a self, descriptor: &'a Descriptor) -> &'a [u8] {
        let len = descriptor.len as usize;
        if descriptor.kind == Kind::Line as u64 {
            return &descriptor.line[..len.min(MAX_IN_LINE)];
        }
        // SAFETY: the parent, the only writer, leaves the bytes of a claimed frame alone until
        // its result is published, which the worker does after its last use of them.
        unsafe { self.0.bytes(BYTES + descriptor.place as usize, len) }
    }
}

impl Descriptor {
    /// The number of the block that holds the payload, and its length, if it is in one.
    pub(crate) fn block(&self) -> Option<(u64, usize)> {
        (self.kind == Kind::Block as u64).then_some((self.place, self.len as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame<'_> {
        Frame { entry: 7, first: 0, end: 1, payload: Payload::Bytes(bytes) }
    }

    #[test]
    fn payloads_of_all_sizes_arrive_whole_while_the_ring_wraps() {
        let (mut sender, fd) = TaskSender::create().expect("ring");
        let receiver = TaskReceiver::open(&fd).expect("map");
        for round in 0..200usize {
            let bytes = vec![round as u8; round * 331 % (MAX_INLINE + 1)];
            let posted = sender.post(&frame(&bytes)).expect("room");
            let descriptor = receiver.read(posted.frame);
            assert_eq!(receiver.bytes(&descriptor), bytes);
            sender.finish(posted, None);
        }
    }

    #[test]
    fn a_full_ring_refuses_and_has_room_again_after_a_finish() {
        let (mut sender, _fd) = TaskSender::create().expect("ring");
        let first = sender.post(&frame(&[])).expect("room");
        let second = sender.post(&frame(&[])).expect("room");
        while sender.post(&frame(&[])).is_some() {}
        assert_eq!(sender.tail(), FRAMES);
        sender.finish(first, Some(second));
        assert!(sender.post(&frame(&[])).is_some());
    }

    #[test]
    fn taking_back_frees_the_bytes() {
        let (mut sender, _fd) = TaskSender::create().expect("ring");
        let bytes = vec![1; MAX_INLINE];
        let posted: Vec<_> = std::iter::from_fn(|| sender.post(&frame(&bytes))).collect();
        assert_eq!(posted.len(), DATA / MAX_INLINE);
        sender.take_back(posted[1], Some(posted[0]));
        assert!(sender.post(&frame(&bytes)).is_some());
        assert!(sender.post(&frame(&vec![1; MAX_INLINE + 1])).is_none());
    }

    #[test]
    fn the_worker_cannot_map_the_ring_for_writing() {
        let (_sender, fd) = TaskSender::create().expect("ring");
        assert!(Segment::open(&fd, LEN, true).is_err());
    }
}
