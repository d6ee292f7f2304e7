//! Objects: shared memory that any number of processes may hold and pass on.
//!
//! An object is a memfd of fixed size, mapped at most once in each process. What travels is a
//! descriptor beside a message; `wire::handles` sees to that. A process that has sent an object
//! tells the receivers when it drops its own last reference ([`Knower::forget`]), so that they keep
//! an object mapped between tasks but not for longer than anybody needs it.

use super::segment::Segment;
use crate::sys::mmap::{Inherit, Mapping};
use crate::sys::{memfd, named, room};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// How the memory of an object may be used; all its holders agree on it, by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every holder reads and writes. Forked children have it, too.
    Shared,
    /// One process owns it and lends it to others: forked children do not have it.
    Owned,
    /// Nobody can write to it any more: the kernel refuses.
    Frozen,
    /// Every holder reads and writes. The file is much longer than its memory, which comes and goes
    /// in parts; see [`Object::part`]. Forked children have it, too.
    Sparse,
    /// A file with a name, to be read, and written if the descriptor allows it. Forked children
    /// have it, too.
    Named,
}

/// Somebody who was sent an object and keeps it until told otherwise.
pub(crate) trait Knower: Send + Sync + std::fmt::Debug {
    /// The object with this number has gone here. Called from drops: does not wait, and takes no
    /// lock that is held while objects are dropped.
    fn forget(&self, uid: u64);
}

/// How many parts of a sparse object can be mapped.
pub(super) const PARTS: usize = 32;

/// A piece of shared memory.
#[derive(Debug)]
pub(crate) struct Object {
    uid: u64,
    fd: OwnedFd,
    memory: OnceLock<(Access, Segment)>,
    /// What else is mapped of a sparse object, by number.
    parts: OnceLock<Box<[OnceLock<Segment>; PARTS]>>,
    /// Whether memory that was mapped as `Owned` is mapped as `Frozen` now.
    frozen: AtomicBool,
    knowers: Mutex<Vec<Weak<dyn Knower>>>,
}

/// A number for an object, block or context that no other one of this process has, or ever had:
/// a forked child goes on counting where its parent was, but speaks to other receivers.
pub(crate) fn next_uid() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // Relaxed: only the numbers must differ.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Object {
    /// Makes an object of `len` zero bytes whose memory is really there.
    pub(crate) fn create(name: &str, len: usize, access: Access) -> io::Result<Arc<Self>> {
        room::check_addresses(len)?;
        let fd = memfd::create_reserved(name, len)?;
        let object = Self::received(fd);
        let mapping = object.mapping(access, len)?;
        // The cell is new, so the value goes in.
        let _ = object.memory.set((access, Segment::of(mapping)));
        Ok(Arc::new(object))
    }

    /// Makes a sparse object of `len` bytes, of which the first `there` are there, and mapped.
    pub(super) fn create_sparse(name: &str, len: usize, there: usize) -> io::Result<Arc<Self>> {
        let fd = memfd::create(name, len)?;
        memfd::reserve(&fd, 0, there)?;
        let object = Self::received(fd);
        object.map(Access::Sparse, there)?;
        Ok(Arc::new(object))
    }

    /// Part `index` of a sparse object: `len` bytes from byte `at` on. The same part is always
    /// asked for with the same place and length.
    ///
    /// # Errors
    /// If the file is not as long as that, or there are no addresses left.
    #[inline]
    pub(super) fn part(&self, index: usize, at: usize, len: usize) -> io::Result<&Segment> {
        match self.parts.get().and_then(|parts| parts.get(index)?.get()) {
            Some(segment) => Ok(segment),
            None => self.map_part(index, at, len),
        }
    }

    #[cold]
    fn map_part(&self, index: usize, at: usize, len: usize) -> io::Result<&Segment> {
        let there = memfd::checked_sparse_len(&self.fd)?;
        if at.checked_add(len).is_none_or(|end| end > there) {
            return Err(invalid("a shared object that is shorter than it should be"));
        }
        room::check_addresses(len)?;
        let mapping = Mapping::part(&self.fd, at, len)?;
        let parts = self.parts.get_or_init(Default::default);
        let part = parts.get(index).ok_or_else(|| invalid("a part that no object has"))?;
        Ok(part.get_or_init(|| Segment::of(mapping)))
    }

    /// An object whose descriptor came from elsewhere; it is checked when it is mapped.
    pub(crate) fn received(fd: OwnedFd) -> Self {
        Self {
            uid: next_uid(),
            fd,
            memory: OnceLock::new(),
            parts: OnceLock::new(),
            frozen: AtomicBool::new(false),
            knowers: Mutex::default(),
        }
    }

    /// An object whose memory its owner has mapped.
    pub(super) fn owned(fd: OwnedFd, mapping: Mapping) -> Self {
        let object = Self::received(fd);
        // The cell is new, so the value goes in.
        let _ = object.memory.set((Access::Owned, Segment::of(mapping)));
        object
    }

    /// The number of the object in this process.
    pub(crate) fn uid(&self) -> u64 {
        self.uid
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The memory, mapped as it was first asked for.
    ///
    /// # Errors
    /// If the descriptor is not that of such memory, is shorter than `len` bytes, or could become
    /// shorter; and if it is mapped for another use already.
    pub(crate) fn map(&self, access: Access, len: usize) -> io::Result<&Segment> {
        self.map_if_new(access, len, |_| len)
    }

    /// As [`map`](Self::map), of all bytes that there are: `least` or more.
    pub(crate) fn map_whole(&self, access: Access, least: usize) -> io::Result<&Segment> {
        self.map_if_new(access, least, |there| there)
    }

    /// `part` says how many of the bytes that there are to map, if none are mapped yet.
    fn map_if_new(
        &self,
        access: Access,
        len: usize,
        part: impl FnOnce(usize) -> usize,
    ) -> io::Result<&Segment> {
        let (mapped, segment) = match self.memory.get() {
            Some(memory) => memory,
            None => {
                let there = self.checked_len(access)?;
                if there < len {
                    return Err(invalid("a shared object that is shorter than it should be"));
                }
                let len = self.whole_pages(access, part(there))?;
                let memory = (access, Segment::of(self.mapping(access, len)?));
                self.memory.get_or_init(|| memory)
            }
        };
        let frozen = *mapped == Access::Owned && self.is_frozen();
        let mapped = if frozen { Access::Frozen } else { *mapped };
        if mapped != access || segment.len() < len {
            return Err(invalid("a shared object of another kind or size"));
        }
        Ok(segment)
    }

    /// The memory, if it is mapped.
    pub(super) fn segment(&self) -> Option<&Segment> {
        self.memory.get().map(|(_, segment)| segment)
    }

    /// Makes the mapping longer; the file is long enough.
    pub(super) fn grow_segment(&mut self, len: usize) -> io::Result<()> {
        self.memory.get_mut().map_or(Ok(()), |(_, segment)| segment.mapping_mut().grow(len))
    }

    /// Takes the memory out, to put it into another object.
    pub(super) fn take_segment(&mut self) -> Option<Segment> {
        self.memory.take().map(|(_, segment)| segment)
    }

    /// Maps owned memory anew, at the same addresses, so that this process cannot write to it any
    /// more. Its owner lends no mutable reference meanwhile.
    pub(super) fn freeze_in_place(&self) -> io::Result<()> {
        if !self.is_frozen() {
            let segment = self.segment().ok_or_else(|| invalid("memory that is not mapped"))?;
            segment.mapping().freeze_in_place(&self.fd)?;
            // Release: whoever sees this may count on the new mapping.
            self.frozen.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether [`freeze_in_place`](Self::freeze_in_place) was done.
    #[inline]
    pub(super) fn is_frozen(&self) -> bool {
        // Acquire: see `freeze_in_place`.
        self.frozen.load(Ordering::Acquire)
    }

    /// How many bytes there are.
    fn checked_len(&self, access: Access) -> io::Result<usize> {
        match access {
            Access::Frozen => memfd::checked_frozen_len(&self.fd),
            Access::Shared | Access::Owned => memfd::checked_len(&self.fd),
            Access::Sparse => memfd::checked_sparse_len(&self.fd),
            Access::Named => named::checked_len(&self.fd),
        }
    }

    /// The length in which the file can be unmapped again: of explicit huge pages only whole ones.
    fn whole_pages(&self, access: Access, len: usize) -> io::Result<usize> {
        if access == Access::Named {
            // Checked to be of ordinary pages.
            return Ok(len);
        }
        match memfd::huge_page(&self.fd)? {
            None => Ok(len),
            // Vectors may be made of them; nothing else is.
            Some(_) if matches!(access, Access::Shared | Access::Sparse) => {
                Err(invalid("a shared object of huge pages"))
            }
            // The file has whole pages: no byte is mapped that it does not have.
            Some(page) => len.checked_next_multiple_of(page).ok_or_else(|| invalid("too long")),
        }
    }

    fn mapping(&self, access: Access, len: usize) -> io::Result<Mapping> {
        match access {
            Access::Shared | Access::Sparse => Mapping::read_write(&self.fd, len, Inherit::Yes),
            Access::Owned => Mapping::read_write(&self.fd, len, Inherit::No),
            Access::Frozen => Mapping::frozen(&self.fd, len),
            Access::Named if named::is_writable(&self.fd) => {
                Mapping::read_write(&self.fd, len, Inherit::Yes)
            }
            Access::Named => Mapping::read_only(&self.fd, len, Inherit::Yes),
        }
    }

    /// Remembers who is to be told when this process has dropped the object.
    pub(crate) fn known_by(&self, knower: Weak<dyn Knower>) {
        let mut knowers = self.knowers.lock().unwrap_or_else(PoisonError::into_inner);
        knowers.retain(|knower| knower.strong_count() > 0);
        knowers.push(knower);
    }

    /// Tells everybody who was sent the object to drop it, at once or when they have finished
    /// what they are doing.
    pub(crate) fn forget_elsewhere(&self) {
        let knowers = {
            let mut knowers = self.knowers.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *knowers)
        };
        for knower in knowers.iter().filter_map(Weak::upgrade) {
            knower.forget(self.uid);
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.forget_elsewhere();
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of one explicit huge page, if the machine has any set aside.
    fn huge() -> Option<Object> {
        memfd::create_growable("test", PAGE, Some(PAGE)).ok().map(Object::received)
    }

    const PAGE: usize = 1 << 21;

    #[test]
    fn what_is_made_of_huge_pages_is_no_object_with_words() {
        let Some(object) = huge() else { return };
        assert!(object.map_whole(Access::Shared, 64).is_err());
    }

    #[test]
    fn huge_pages_of_which_a_part_is_asked_for_are_unmapped_as_a_whole() {
        for access in [Access::Owned, Access::Frozen] {
            let Some(object) = huge() else { return };
            if access == Access::Frozen {
                memfd::seal_writes(object.fd()).expect("seal");
            }
            let segment = object.map(access, 5000).expect("map");
            assert_eq!(segment.len(), PAGE);
            let start = segment.start();
            drop(object);
            // SAFETY: msync with this flag only asks whether the range is mapped.
            let asked = unsafe { libc::msync(start.as_ptr().cast(), PAGE, libc::MS_ASYNC) };
            assert_eq!(asked, -1, "it is still mapped");
        }
    }
}
