//! Shared memory that grows under everybody's hands, at addresses that stay.
//!
//! The file is as long as it could ever become, and mostly a hole. It is mapped in *windows*: the
//! first [`FIRST`] bytes, then as many again, then twice as many, and so on. Each process maps a
//! window when it first touches it, and keeps it, so that a word once found does not move. Memory
//! is set aside ([`Growing::reserve`]) before anything is written to it, so that a lack of memory
//! is an error of the call that needs it and not a signal.

use super::memory::{Kind, Memory};
use super::object::Object;
use super::segment::Segment;
use crate::sys::memfd;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The length of the first window, which is there from the beginning.
pub(crate) const FIRST: u64 = 1 << 16;
/// The length of the file.
const FILE: u64 = 1 << 45;

/// A growing object as this process has mapped it.
#[derive(Clone, Debug)]
pub(crate) struct Growing(Memory);

impl Growing {
    /// Makes an object whose first window has its memory, all zero but for what says its kind.
    pub(crate) fn create(kind: Kind, shape: u64, count: u64) -> io::Result<Self> {
        Memory::create_sparse(kind, shape, count, FIRST as usize, FILE as usize).map(Self)
    }

    /// The memory of an object that was received.
    ///
    /// # Errors
    /// As [`Memory::open`].
    pub(crate) fn open(object: Arc<Object>, kind: Kind, shape: u64) -> io::Result<Self> {
        Memory::open_sparse(object, kind, shape, FIRST as usize).map(Self)
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.0.object()
    }

    /// The first window; its words are at hand without a check of the file.
    #[inline]
    pub(crate) fn first(&self) -> &Memory {
        &self.0
    }

    /// The word at byte `at`, wherever another process said it is.
    ///
    /// # Errors
    /// If `at` is no multiple of 8, or outside of the file; and if it cannot be mapped.
    #[inline]
    pub(crate) fn word(&self, at: u64) -> io::Result<&AtomicU64> {
        if !at.is_multiple_of(8) {
            return Err(outside());
        }
        if at < FIRST {
            return Ok(self.0.word(at as usize));
        }
        let (segment, at) = self.locate(at, 8)?;
        Ok(segment.word64(at))
    }

    /// Copies bytes out that others may be changing meanwhile; the range is in one window.
    ///
    /// # Errors
    /// If it is not, or outside of the file; and if it cannot be mapped.
    pub(crate) fn copy_out(&self, at: u64, target: &mut [u8]) -> io::Result<()> {
        if target.is_empty() {
            // Where nothing is may be the end of a window, and the next one be of no use.
            return Ok(());
        }
        let (segment, at) = self.locate(at, target.len() as u64)?;
        segment.copy_out(at, target);
        Ok(())
    }

    /// Copies bytes in, to a range in one window.
    ///
    /// # Errors
    /// As [`copy_out`](Self::copy_out).
    pub(crate) fn copy_in(&self, at: u64, source: &[u8]) -> io::Result<()> {
        if source.is_empty() {
            return Ok(());
        }
        let (segment, at) = self.locate(at, source.len() as u64)?;
        segment.copy_in(at, source);
        Ok(())
    }

    /// Sees to it that a part of the file has memory.
    ///
    /// # Errors
    /// `OutOfMemory`, if there is none.
    pub(crate) fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let (at, len) =
            (usize::try_from(at).map_err(too_long)?, usize::try_from(len).map_err(too_long)?);
        memfd::reserve(self.object().fd(), at, len)
    }

    /// Gives the memory of a part of the file back; it may be reserved again.
    pub(crate) fn give_back(&self, at: u64, len: u64) {
        if let (Ok(at), Ok(len)) = (usize::try_from(at), usize::try_from(len)) {
            memfd::release(self.object().fd(), at, len);
        }
    }

    /// How many bytes of memory the file has.
    pub(crate) fn memory_len(&self) -> io::Result<u64> {
        memfd::checked_len(self.object().fd()).map(|len| len as u64)
    }

    /// The window in which a range is, and where in it.
    fn locate(&self, at: u64, len: u64) -> io::Result<(&Segment, usize)> {
        let end = at.checked_add(len).filter(|end| *end <= FILE).ok_or_else(outside)?;
        let Some(power) = (at / FIRST).checked_ilog2() else {
            let segment = self.object().segment().filter(|_| end <= FIRST).ok_or_else(outside)?;
            return Ok((segment, at as usize));
        };
        let start = FIRST << power;
        if end > 2 * start {
            return Err(outside());
        }
        let segment = self.object().part(power as usize, start as usize, start as usize)?;
        Ok((segment, (at - start) as usize))
    }
}

#[cold]
fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a place outside of the shared memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    const KIND: Kind = Kind::new("multiproc-test");

    #[test]
    fn what_one_handle_writes_anywhere_another_one_reads() {
        let one = Growing::create(KIND, 0, 0).expect("create");
        let other = Growing::open(one.object().clone(), KIND, 0).expect("open");
        for at in [FIRST - 64, FIRST, 2 * FIRST, 3 * FIRST - 64, 64 * FIRST, 127 * FIRST] {
            one.reserve(at, 64).expect("memory");
            one.copy_in(at, &[7; 64]).expect("a place");
            let mut bytes = [0; 64];
            other.copy_out(at, &mut bytes).expect("a place");
            assert_eq!(bytes, [7; 64]);
            one.word(at).expect("a word").store(at, Ordering::Relaxed);
            assert_eq!(other.word(at).expect("a word").load(Ordering::Relaxed), at);
        }
        assert!(one.memory_len().expect("stat") < 2 * FIRST, "the holes have no memory");
    }

    #[test]
    fn what_is_outside_or_across_two_windows_is_refused() {
        let growing = Growing::create(KIND, 0, 0).expect("create");
        for at in [FILE, 1 << 50, u64::MAX - 7, 4] {
            assert!(growing.word(at).is_err(), "{at}");
        }
        for at in [FIRST - 8, 2 * FIRST - 8, FILE - 8, u64::MAX] {
            assert!(growing.copy_out(at, &mut [0; 16]).is_err(), "{at}");
        }
    }

    #[test]
    fn nothing_can_be_copied_anywhere_and_maps_nothing() {
        let growing = Growing::create(KIND, 0, 0).expect("create");
        for at in [FIRST, FILE, u64::MAX] {
            growing.copy_in(at, &[]).expect("nothing");
            growing.copy_out(at, &mut []).expect("nothing");
        }
    }

    #[test]
    fn memory_that_was_given_back_is_zero_and_can_be_had_again() {
        let growing = Growing::create(KIND, 0, 0).expect("create");
        let before = growing.memory_len().expect("stat");
        growing.reserve(FIRST, 1 << 20).expect("memory");
        growing.copy_in(FIRST, &[1; 100]).expect("a place");
        growing.give_back(FIRST, 1 << 20);
        assert_eq!(growing.memory_len().expect("stat"), before);
        growing.reserve(FIRST, 1 << 20).expect("memory");
        assert_eq!(growing.word(FIRST).expect("a word").load(Ordering::Relaxed), 0);
    }
}
