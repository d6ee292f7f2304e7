//! A mapping seen as words and byte ranges.

use super::racy::copy_out as copy_racy;
use crate::sys::memfd;
use crate::sys::mmap::{Inherit, Mapping};
use bytemuck::Pod;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Mapped memory that another process may map too.
///
/// Words are accessed as atomics. Bytes that another process could change at any moment are only
/// ever copied out ([`Segment::copy_out`]). Slices exist only where a protocol gives one side the
/// range for a time; that is what the `unsafe` methods ask their caller to show.
#[derive(Debug)]
pub(crate) struct Segment(Mapping);

impl Segment {
    /// Creates a sealed memfd of `len` bytes and maps it for reading and writing.
    pub(crate) fn create(name: &str, len: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd::create(name, len)?;
        let mapping = Mapping::read_write(&fd, len, Inherit::No)?;
        Ok((Self(mapping), fd))
    }

    /// Maps the first `len` bytes of a memfd that the other process made, after checking that it
    /// cannot shrink.
    pub(crate) fn open(fd: &OwnedFd, len: usize, writable: bool) -> io::Result<Self> {
        Ok(Self(if writable {
            Mapping::read_write(fd, len, Inherit::No)?
        } else {
            Mapping::read_only(fd, len, Inherit::No)?
        }))
    }

    /// Wraps a mapping that is shared with others.
    pub(super) fn of(mapping: Mapping) -> Self {
        Self(mapping)
    }

    /// The mapping, to move or change it as a whole.
    pub(super) fn mapping(&self) -> &Mapping {
        &self.0
    }

    /// As [`mapping`](Self::mapping).
    pub(super) fn mapping_mut(&mut self) -> &mut Mapping {
        &mut self.0
    }

    /// As [`mapping`](Self::mapping).
    pub(super) fn into_mapping(self) -> Mapping {
        self.0
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The address of the first byte; the mapping lives as long as the segment.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.0.start()
    }

    /// The 32-bit word at byte `at`.
    pub(crate) fn word32(&self, at: usize) -> &AtomicU32 {
        let address = self.address(at, 4);
        debug_assert!(address.cast::<u32>().is_aligned());
        // SAFETY: the word is inside the mapping (checked by `address`), aligned (callers use
        // constant, aligned offsets from the page-aligned start), and lives as long as `self`.
        // All processes access it atomically.
        unsafe { AtomicU32::from_ptr(address.cast()) }
    }

    /// The 64-bit word at byte `at`.
    #[inline]
    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        let address = self.address(at, 8);
        debug_assert!(address.cast::<u64>().is_aligned());
        // SAFETY: as for `word32`.
        unsafe { AtomicU64::from_ptr(address.cast()) }
    }

    /// The 64-bit words from byte `at` on.
    #[inline]
    pub(crate) fn words64<const COUNT: usize>(&self, at: usize) -> &[AtomicU64; COUNT] {
        let address = self.address(at, 8 * COUNT);
        debug_assert!(address.cast::<u64>().is_aligned());
        // SAFETY: as for `word64`, for each of them.
        unsafe { &*address.cast() }
    }

    /// Copies bytes out that another process may be changing meanwhile: the result is some mix of
    /// old and new, never undefined.
    ///
    /// # Panics
    /// If the range is not inside the segment; callers check untrusted positions first.
    #[inline]
    pub(crate) fn copy_out(&self, at: usize, target: &mut [u8]) {
        if target.is_empty() {
            return;
        }
        let source = self.address(at, target.len());
        // SAFETY: the source range was checked by `address`; the target is an exclusive slice of
        // private memory, so the two do not overlap.
        unsafe { copy_racy(source, target.as_mut_ptr(), target.len()) };
    }

    /// Copies bytes in that another process may be reading, or writing, meanwhile: what is there
    /// afterwards is some mix, never undefined.
    ///
    /// # Panics
    /// If the range is not inside the segment.
    #[inline]
    pub(crate) fn copy_in(&self, at: usize, source: &[u8]) {
        if source.is_empty() {
            return;
        }
        let target = self.address(at, source.len());
        // SAFETY: the target range was checked by `address`, and the mapping is writable (only
        // writable segments are written to); the source is a slice of private memory.
        unsafe { super::racy::copy_in(source.as_ptr(), target, source.len()) };
    }

    /// Copies `count` numbers out, into memory that is not cleared first.
    ///
    /// # Panics
    /// As [`Segment::copy_out`].
    pub(crate) fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> Vec<N> {
        let mut numbers = Vec::<N>::with_capacity(count);
        let len = count * size_of::<N>();
        if len == 0 {
            return numbers;
        }
        let source = self.address(at, len);
        // SAFETY: the vector has room for `count` numbers, which is `len` bytes, and the source
        // range was checked by `address`. `copy_racy` writes every byte of its target and reads
        // none, and any bytes are a valid `N` (`Pod`), so the numbers are initialised.
        unsafe {
            let target = numbers.as_mut_ptr().cast::<u8>();
            copy_racy(source, target, len);
            numbers.set_len(count);
        }
        numbers
    }

    /// Has the processor fetch the cache line at byte `at`, to be written to soon.
    #[inline]
    pub(crate) fn expect_write(&self, at: usize) {
        let address = self.address(at, 1);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which is allowed for every address and changes nothing but the cache.
        // Processors that do not know it do nothing.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags));
        }
        let _ = address;
    }

    /// The bytes of a range that nobody writes to.
    ///
    /// # Safety
    /// No process writes to the range while the slice lives.
    pub(crate) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let start = self.address(at, len);
        // SAFETY: in bounds (checked by `address`), and the caller excludes writers.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The bytes of a range that the caller has for itself.
    ///
    /// # Safety
    /// The mapping is writable, and until the slice ends no other reference to the range exists
    /// in this process and no other process touches it.
    #[allow(clippy::mut_from_ref, reason = "exclusivity is the caller's to show")]
    pub(crate) unsafe fn bytes_mut(&self, at: usize, len: usize) -> &mut [u8] {
        let start = self.address(at, len);
        // SAFETY: in bounds (checked by `address`), and the caller has the range for itself.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    #[inline]
    fn address(&self, at: usize, len: usize) -> *mut u8 {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.0.len()), "a range outside the segment");
        // SAFETY: `at` is at most the length of the mapping, checked just above.
        unsafe { self.0.start().add(at) }.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_and_alignment_are_exact() {
        let (segment, _fd) = Segment::create("test", 4096).expect("segment");
        // SAFETY: the only reference into a segment that this test alone maps.
        let bytes = unsafe { segment.bytes_mut(0, 4096) };
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        for at in 0..9 {
            for len in (0..40).chain(250..270).chain([1000]) {
                let mut copy = vec![0; len];
                segment.copy_out(at, &mut copy);
                assert!(copy.iter().enumerate().all(|(i, &b)| b == ((at + i) % 251) as u8));
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside the segment")]
    fn a_range_outside_is_refused() {
        let (segment, _fd) = Segment::create("test", 4096).expect("segment");
        segment.copy_out(4090, &mut [0; 7]);
    }
}
