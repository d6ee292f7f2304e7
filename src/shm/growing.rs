//! Shared memory that grows under everybody's hands, at addresses that stay.
//!
//! The file is mapped in *windows*: the first [`FIRST`] bytes, then as many again, then twice as
//! many, and so on. Each process maps a window when it first touches it, and keeps it, so that a
//! word once found does not move. The file is sealed against shrinking and may have holes; memory
//! is set aside ([`Growing::reserve`]) before anything is written to it, so that a lack of memory
//! is an error of the call that needs it and not a signal.

use super::memory::{Kind, Memory};
use super::object::Object;
use super::segment::Segment;
use crate::sys::memfd;
use crate::sys::mmap::{Inherit, Mapping};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The length of the first window, which is there from the beginning.
pub(crate) const FIRST: u64 = 1 << 16;
/// As many windows as make 2^46 bytes.
const WINDOWS: usize = 30;

/// A growing object as this process has mapped it.
#[derive(Clone, Debug)]
pub(crate) struct Growing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// All windows but the first.
    later: [OnceLock<Segment>; WINDOWS],
    /// How long the file is, or was when this process last asked: it never gets shorter.
    len: AtomicU64,
}

impl Growing {
    /// Makes an object whose first window has its memory, all zero but for what says its kind.
    pub(crate) fn create(kind: Kind, shape: u64, count: u64) -> io::Result<Self> {
        Memory::create_growing(kind, shape, count, FIRST as usize).map(Self::of)
    }

    /// The memory of an object that was received.
    ///
    /// # Errors
    /// As [`Memory::open`].
    pub(crate) fn open(object: Arc<Object>, kind: Kind, shape: u64) -> io::Result<Self> {
        Memory::open_first(object, kind, shape, FIRST as usize).map(Self::of)
    }

    fn of(memory: Memory) -> Self {
        let later = [const { OnceLock::new() }; WINDOWS];
        Self(Arc::new(Inner { memory, later, len: AtomicU64::new(FIRST) }))
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.0.memory.object()
    }

    /// The first window; its words are at hand without a check of the file.
    #[inline]
    pub(crate) fn first(&self) -> &Memory {
        &self.0.memory
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
            return Ok(self.0.memory.word(at as usize));
        }
        let (segment, at) = self.locate(at, 8)?;
        Ok(segment.word64(at))
    }

    /// Copies bytes out that others may be changing meanwhile; the range is in one window.
    ///
    /// # Errors
    /// If it is not, or outside of the file; and if it cannot be mapped.
    pub(crate) fn copy_out(&self, at: u64, target: &mut [u8]) -> io::Result<()> {
        let (segment, at) = self.locate(at, target.len() as u64)?;
        segment.copy_out(at, target);
        Ok(())
    }

    /// Copies bytes in, to a range in one window.
    ///
    /// # Errors
    /// As [`copy_out`](Self::copy_out).
    pub(crate) fn copy_in(&self, at: u64, source: &[u8]) -> io::Result<()> {
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
            memfd::give_back(self.object().fd(), at, len);
        }
    }

    /// How many bytes of memory the file has.
    pub(crate) fn memory_len(&self) -> io::Result<u64> {
        memfd::extent(self.object().fd()).map(|(_, allocated)| allocated)
    }

    /// The window in which a range is, and where in it.
    fn locate(&self, at: u64, len: u64) -> io::Result<(&Segment, usize)> {
        let end = at.checked_add(len).ok_or_else(outside)?;
        // Relaxed: the number stands for itself.
        if end > self.0.len.load(Ordering::Relaxed) {
            let (there, _) = memfd::extent(self.object().fd())?;
            self.0.len.fetch_max(there, Ordering::Relaxed);
            if end > there {
                return Err(outside());
            }
        }
        let Some(power) = (at / FIRST).checked_ilog2() else {
            let segment = self.object().segment().filter(|_| end <= FIRST).ok_or_else(outside)?;
            return Ok((segment, at as usize));
        };
        let start = FIRST << power;
        if end > 2 * start {
            return Err(outside());
        }
        let cell = self.0.later.get(power as usize).ok_or_else(outside)?;
        let segment = match cell.get() {
            Some(segment) => segment,
            None => {
                let (at, len) = (start as usize, start as usize);
                let mapping = Mapping::part(self.object().fd(), at, len, Inherit::Yes)?;
                cell.get_or_init(|| Segment::of(mapping))
            }
        };
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
        growing.reserve(4 * FIRST, 4096).expect("memory");
        for at in [4 * FIRST + 4096, 1 << 50, u64::MAX - 7, 4] {
            assert!(growing.word(at).is_err(), "{at}");
        }
        for at in [FIRST - 8, 2 * FIRST - 8, 4 * FIRST + 4088, u64::MAX] {
            assert!(growing.copy_out(at, &mut [0; 16]).is_err(), "{at}");
        }
        // A window begins inside of the file and goes on beyond its end.
        assert!(growing.word(4 * FIRST + 4088).is_ok());
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
