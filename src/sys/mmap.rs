//! Mapped memory.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// Whether a forked child has the mapping, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inherit {
    /// It shares the memory.
    Yes,
    /// The addresses are unmapped there: the memory belongs to exactly one process, or to one
    /// parent and one worker.
    No,
}

/// A mapping of a file, unmapped on drop.
///
/// It hands out raw addresses only; `shm` decides who may touch which byte.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain address space; moving the owner to another thread moves nothing.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives only the address and the length; every access through the
// address is made, and justified, in `shm`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` for reading and writing.
    pub(crate) fn read_write(fd: impl AsFd, len: usize, inherit: Inherit) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Self::new(fd, len, protection, MapFlags::MAP_SHARED, inherit)
    }

    /// Maps `len` bytes of `fd` for reading; writes of others show.
    pub(crate) fn read_only(fd: impl AsFd, len: usize, inherit: Inherit) -> io::Result<Self> {
        Self::new(fd, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, inherit)
    }

    /// Maps `len` bytes of a file that nobody can write to any more, for reading.
    ///
    /// The mapping is private: before Linux 6.7 a file that is sealed against writing could not be
    /// mapped shared, and a file that is to be sealed must not be.
    pub(crate) fn frozen(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::new(fd, len, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, Inherit::Yes)
    }

    fn new(
        fd: impl AsFd,
        len: usize,
        protection: ProtFlags,
        sharing: MapFlags,
        inherit: Inherit,
    ) -> io::Result<Self> {
        let size = NonZeroUsize::new(len)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a mapping of 0 bytes"))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(None, size, protection, sharing, fd, 0) }?;
        // From here on the drop unmaps, also when the advice is refused.
        let mapping = Self { start: start.cast(), len };
        if inherit == Inherit::No {
            // SAFETY: the range was mapped just now and belongs to `mapping`.
            unsafe { madvise(start, len, MmapAdvise::MADV_DONTFORK) }?;
        }
        Ok(mapping)
    }

    /// The address of the first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, is owned by `self` alone, and no reference into
        // it outlives `self`: `shm` ties each to a borrow of the mapping. In a forked child the
        // range is absent (MADV_DONTFORK), and unmapping nothing is no error.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
