//! The board: the segment that parent and worker both write.
//!
//! One cache line per writer and purpose, then the result ring. Everything here is hostile to the
//! parent: the worker may run anything.

use super::bytes::Bytes;
use super::segment::Segment;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The size of the result ring in bytes; a power of two.
pub(crate) const RING: usize = 256 * 1024;

const CLAIM: usize = 0;
const PROGRESS: usize = 64;
const PARKED: usize = 192;
const RESULT_HEAD: usize = 256;
const BELL: usize = 320;
const COMMAND: usize = 384;
/// Beside the command: the worker looks at both before each task.
const NEWS: usize = COMMAND + 8;
const FREE_BLOCKS: usize = 448;
const START: usize = 4096;
const LEN: usize = START + RING;

/// What the parent asks of the worker between tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Command {
    /// Run tasks.
    Run = 0,
    /// Finish what is claimed, run the finalizer and exit.
    Exit = 1,
}

/// The mapped board.
#[derive(Debug)]
pub(crate) struct Board(Segment);

impl Board {
    /// The parent makes a board for a new worker.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (segment, fd) = Segment::create("multiproc-board", LEN)?;
        Ok((Self(segment), fd))
    }

    /// The worker maps the board that it was given.
    pub(crate) fn open(fd: &OwnedFd) -> io::Result<Self> {
        Segment::open(fd, LEN, true).map(Self)
    }

    /// How far the items are claimed; see `claim`.
    pub(crate) fn claim(&self) -> &AtomicU64 {
        self.0.word64(CLAIM)
    }

    /// What the worker has written into the open result record; see `results`.
    pub(crate) fn progress(&self) -> &AtomicU64 {
        self.0.word64(PROGRESS)
    }

    /// How far the parent has collected results.
    pub(crate) fn result_head(&self) -> &AtomicU64 {
        self.0.word64(RESULT_HEAD)
    }

    /// Whether and why the worker sleeps; see `park`.
    pub(crate) fn parked(&self) -> &AtomicU32 {
        self.0.word32(PARKED)
    }

    /// Whether the parent wants to hear of the next result; see `park`.
    pub(crate) fn bell(&self) -> &AtomicU32 {
        self.0.word32(BELL)
    }

    /// A bit for each pooled result block that the parent has finished reading.
    pub(crate) fn free_blocks(&self) -> &AtomicU64 {
        self.0.word64(FREE_BLOCKS)
    }

    /// What the parent asks for.
    pub(crate) fn command(&self) -> Command {
        // Acquire: pairs with the store below, though nothing else is published with it.
        match self.0.word32(COMMAND).load(Ordering::Acquire) {
            0 => Command::Run,
            _ => Command::Exit,
        }
    }

    /// The parent asks.
    pub(crate) fn set_command(&self, command: Command) {
        self.0.word32(COMMAND).store(command as u32, Ordering::Release);
    }

    /// How many messages to the worker were announced here.
    pub(crate) fn news(&self) -> u32 {
        // Acquire: a message that is announced has been sent.
        self.0.word32(NEWS).load(Ordering::Acquire)
    }

    /// The parent has sent a message that the worker should read before it goes on.
    pub(crate) fn announce(&self) {
        // Release: the message has been sent before.
        self.0.word32(NEWS).fetch_add(1, Ordering::Release);
    }

    /// A header word of the result ring, at a ring position that is a multiple of 8.
    pub(super) fn ring_word(&self, position: u64) -> &AtomicU64 {
        self.0.word64(START + ring_offset(position))
    }

    /// Copies hostile bytes out of the result ring; they must not wrap.
    pub(super) fn ring_copy_out(&self, position: u64, len: usize) -> Bytes {
        Bytes::copied(&self.0, START + ring_offset(position), len)
    }

    /// The worker's own, unpublished part of the result ring.
    pub(super) fn ring_space(&mut self, position: u64, len: usize) -> &mut [u8] {
        // SAFETY: called by the worker only (it alone holds its board mutably), for the part
        // between what it has published and the parent's head; the parent reads there only after
        // the record's header was published, or after the worker's death, when no reference
        // exists.
        unsafe { self.0.bytes_mut(START + ring_offset(position), len) }
    }
}

/// Where a ever-growing position lies in the ring.
pub(super) fn ring_offset(position: u64) -> usize {
    (position % RING as u64) as usize
}
