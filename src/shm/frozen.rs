//! Memory that nobody can write to any more, which the kernel guarantees: a slice into it is good
//! in every process, whatever another one does.

use super::element_size;
use super::object::{Access, Object};
use crate::sys::memfd;
use crate::sys::mmap::{Inherit, Mapping};
use bytemuck::Pod;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// See the [module](self). A clone is another handle of the same memory.
#[derive(Clone, Debug)]
pub(crate) struct FrozenMemory {
    object: Arc<Object>,
    /// The start of the mapping of `object`.
    start: NonNull<u8>,
    /// A length in bytes that is mapped.
    len: usize,
}

// SAFETY: `start` is the address of a mapping that `object` keeps; that is not tied to a thread.
unsafe impl Send for FrozenMemory {}
// SAFETY: the memory is only read.
unsafe impl Sync for FrozenMemory {}

impl FrozenMemory {
    /// The first `len` bytes of an object, which may come from elsewhere.
    ///
    /// # Errors
    /// If it is not sealed against writing, or is shorter.
    pub(crate) fn open(object: Arc<Object>, len: usize) -> io::Result<Self> {
        let segment = object.map(Access::Frozen, len)?;
        let start = segment.mapping().start();
        Ok(Self { object, start, len })
    }

    /// A sealed copy.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn copied(bytes: &[u8]) -> io::Result<Self> {
        // A mapping of no bytes does not exist.
        let len = bytes.len().max(1);
        let fd = memfd::create_growable("multiproc-frozen", len, None)?;
        {
            let mapping = Mapping::read_write(&fd, len, Inherit::No)?;
            // SAFETY: the mapping is new, of at least this length, and nobody else has the file.
            unsafe {
                let target = mapping.start().as_ptr();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            }
        }
        memfd::seal_writes(&fd)?;
        Self::open(Arc::new(Object::received(fd)), len)
    }

    /// What travels.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of the first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Elements `start..start + count`.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline]
    pub(crate) fn slice<T: Pod>(&self, start: usize, count: usize) -> &[T] {
        let end = start.checked_add(count);
        let room = self.len / element_size::<T>();
        assert!(end.is_some_and(|end| end <= room), "a range outside the memory");
        // SAFETY: `self.len` bytes from `self.start` on, which is the start of a page and so
        // aligned for `T` (`element_size`), are mapped while `object` lives, also in forked
        // children; any bytes are a `T`. They never change: the file is sealed against writing
        // (checked when it was mapped, or done by `OwnedMemory::seal`), which the kernel allows
        // only when nobody has it mapped for writing, and the mapping is read-only.
        unsafe {
            let start = self.start.as_ptr().cast::<T>().add(start);
            std::slice::from_raw_parts(start, count)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_somebody_can_write_to_is_refused() {
        let fd = memfd::create_reserved("test", 4096).expect("memfd");
        let error = FrozenMemory::open(Arc::new(Object::received(fd)), 4096).expect_err("writable");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn memory_that_is_shorter_than_it_claims_is_refused() {
        let memory = FrozenMemory::copied(b"abc").expect("memory");
        let fd = memory.object().fd().try_clone_to_owned().expect("dup");
        let object = Arc::new(Object::received(fd));
        assert!(FrozenMemory::open(object.clone(), 1 << 20).is_err());
        assert_eq!(FrozenMemory::open(object, 3).expect("open").slice::<u8>(0, 3), b"abc");
    }

    #[test]
    fn nothing_is_something_that_can_be_frozen() {
        assert_eq!(FrozenMemory::copied(b"").expect("memory").slice::<u8>(0, 0), b"");
    }
}
