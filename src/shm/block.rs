//! Blocks: whole segments for payloads that are too large for a ring, one copy each way.
//!
//! A block has one writer. Argument blocks are written by the parent before the frame is posted
//! and sealed against writing by anyone else; result blocks are written by the worker before the
//! record is published, and the parent only ever copies out of them.

use super::segment::Segment;
use crate::sys::memfd;
use bytemuck::Pod;
use std::io;
use std::os::fd::OwnedFd;

/// The smallest block in bytes.
const SMALLEST: usize = 128 * 1024;
/// A block up to this size is kept for reuse; a larger one is given back to the system.
pub(crate) const LARGEST_POOLED: usize = 64 * 1024 * 1024;

/// The capacity of a block for `len` bytes: a power of two while it may be reused.
pub(crate) fn capacity_for(len: usize) -> usize {
    match len.max(SMALLEST) {
        len if len <= LARGEST_POOLED => len.next_power_of_two(),
        len => len.next_multiple_of(4096),
    }
}

/// A block in the hands of its writer.
#[derive(Debug)]
pub(crate) struct WriterBlock {
    segment: Segment,
    fd: OwnedFd,
}

impl WriterBlock {
    /// An argument block: nobody else can ever map it for writing.
    pub(crate) fn for_arguments(capacity: usize) -> io::Result<Self> {
        let block = Self::for_results(capacity)?;
        memfd::seal_future_writes(&block.fd)?;
        Ok(block)
    }

    /// A result block.
    pub(crate) fn for_results(capacity: usize) -> io::Result<Self> {
        let (segment, fd) = Segment::create("multiproc-block", capacity)?;
        Ok(Self { segment, fd })
    }

    /// The capacity in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.segment.len()
    }

    /// The descriptor that the other side gets.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The bytes, for writing. The pools hand a block out again only when the other side has
    /// finished reading it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.segment.len();
        // SAFETY: `&mut self` excludes other references in this process, whose only mapping this
        // is. The other process reads the block only between the posting of a frame (or record)
        // that names it and the finishing of that frame (or the freeing of the block), and in
        // that time the owner, which is in the hands of the in-flight entry, is not written to.
        unsafe { self.segment.bytes_mut(0, len) }
    }
}

/// An argument block as the worker sees it.
#[derive(Debug)]
pub(crate) struct ArgumentBlock(Segment);

impl ArgumentBlock {
    /// Maps a block that the parent sent.
    pub(crate) fn open(fd: &OwnedFd, capacity: usize) -> io::Result<Self> {
        Segment::open(fd, capacity, false).map(Self)
    }

    /// The first `len` bytes.
    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: the parent is the only process that can write (sealed), and it does not while a
        // frame that names the block is unfinished; the worker uses the slice only for that.
        unsafe { self.0.bytes(0, len) }
    }
}

/// A result block as the parent sees it: hostile, so bytes are only copied out.
#[derive(Debug)]
pub(crate) struct ResultBlock(Segment);

impl ResultBlock {
    /// Maps a block that a worker sent, after checking that it cannot shrink and that its memory
    /// is really there.
    pub(crate) fn open(fd: &OwnedFd) -> io::Result<Self> {
        let len = memfd::checked_len(fd)? / 4096 * 4096;
        Segment::open(fd, len, false).map(Self)
    }

    /// The number of bytes that can be copied.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Copies numbers out; the range must lie inside.
    pub(crate) fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> Vec<N> {
        self.0.copy_out_vec(at, count)
    }

    /// Copies bytes out; the range must lie inside.
    pub(crate) fn copy_out(&self, at: usize, target: &mut [u8]) {
        self.0.copy_out(at, target);
    }
}
