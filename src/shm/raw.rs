//! Plain data in shared memory without a lock: every access is a racy copy.
//!
//! A process that reads while another one writes gets some mix of old and new bytes, unless the
//! element is a number of up to 8 bytes, which is one access. There are no references into the
//! memory, so no mix can do more than be a wrong value: any bytes are a valid `T`.

use super::element_size;
use super::memory::{BODY, Kind, Memory};
use super::object::Object;
use super::racy;
use bytemuck::Pod;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// `len` elements of `T`.
pub(crate) struct Raw<T> {
    memory: Memory,
    /// That many elements are inside `memory`.
    len: usize,
    elements: PhantomData<T>,
}

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), len: self.len, elements: PhantomData }
    }
}

impl<T> std::fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Pod> Raw<T> {
    /// Makes an object with `len` elements of zero bytes.
    pub(crate) fn create(kind: Kind, len: usize) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, "more bytes than addresses");
        let bytes = len.checked_mul(element_size::<T>()).ok_or_else(too_large)?;
        let bytes = bytes.checked_add(BODY).ok_or_else(too_large)?;
        let memory = Memory::create(kind, element_size::<T>() as u64, len as u64, bytes)?;
        Self::of(memory)
    }

    /// The handle of an object that was received.
    ///
    /// # Errors
    /// If it is of another kind, or has elements of another size.
    pub(crate) fn open(object: Arc<Object>, kind: Kind) -> io::Result<Self> {
        Self::of(Memory::open(object, kind, element_size::<T>() as u64, BODY)?)
    }

    fn of(memory: Memory) -> io::Result<Self> {
        let len = usize::try_from(memory.count()).ok();
        let bytes = len.and_then(|len| len.checked_mul(element_size::<T>()));
        match (len, bytes) {
            (Some(len), Some(bytes)) => {
                memory.address(BODY, bytes)?;
                Ok(Self { memory, len, elements: PhantomData })
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an object with a forged length")),
        }
    }

    /// What travels.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.memory.object()
    }

    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements from `start` on, as many as `target` has.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline]
    pub(crate) fn read(&self, start: usize, target: &mut [T]) {
        let source = self.address(start, target.len());
        let len = size_of_val(target);
        // SAFETY: the range is inside the mapping (checked by `address`), which `memory` keeps; the
        // target is an exclusive slice of private memory.
        unsafe { racy::copy_out(source, target.as_mut_ptr().cast(), len) };
    }

    /// One element.
    ///
    /// # Panics
    /// If it is not inside.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> T {
        let mut element = T::zeroed();
        self.read(index, std::slice::from_mut(&mut element));
        element
    }

    /// Overwrites elements from `start` on.
    ///
    /// # Panics
    /// If they are not inside.
    #[inline]
    pub(crate) fn write(&self, start: usize, source: &[T]) {
        let target = self.address(start, source.len());
        // SAFETY: as in `read`, with the directions exchanged; `Memory` is mapped writable.
        unsafe { racy::copy_in(source.as_ptr().cast(), target, size_of_val(source)) };
    }

    fn address(&self, start: usize, count: usize) -> *mut u8 {
        let end = start.checked_add(count);
        assert!(end.is_some_and(|end| end <= self.len), "elements outside the array");
        let at = BODY + start * element_size::<T>();
        match self.memory.address(at, count * element_size::<T>()) {
            Ok(address) => address.as_ptr(),
            Err(_) => unreachable!("`of` checked that all elements are inside"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::new("multiproc-test-raw");

    #[test]
    fn elements_are_read_as_they_were_written() {
        let raw = Raw::<[u8; 3]>::create(KIND, 200).expect("memory");
        raw.write(1, &[[1, 2, 3], [4, 5, 6]]);
        assert_eq!((raw.get(0), raw.get(1), raw.get(2)), ([0; 3], [1, 2, 3], [4, 5, 6]));
        let mut all = vec![[9; 3]; 200];
        raw.read(0, &mut all);
        assert_eq!(all[..4], [[0; 3], [1, 2, 3], [4, 5, 6], [0; 3]]);
    }

    #[test]
    fn an_object_with_elements_of_another_size_or_a_forged_count_is_refused() {
        let raw = Raw::<u32>::create(KIND, 4).expect("memory");
        assert!(Raw::<u64>::open(raw.object().clone(), KIND).is_err());
        for count in [5000, u64::MAX, u64::MAX / 4] {
            let memory = Memory::create(KIND, 4, count, 128).expect("memory");
            assert!(Raw::<u32>::open(memory.object().clone(), KIND).is_err());
        }
    }

    #[test]
    #[should_panic(expected = "outside the array")]
    fn an_element_outside_is_refused() {
        Raw::<u8>::create(KIND, 4).expect("memory").get(4);
    }
}
