use super::SharedVec;
use super::handle::{Handle, length};
use crate::shm::element_size;
use crate::shm::frozen::FrozenMemory;
use crate::shm::lend::Loan;
use crate::wire::handles;
use crate::{Error, Result};
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, RangeBounds};

/// A vector that nobody can change any more: the kernel refuses every write to its memory.
///
/// So it derefs to `[T]` in every process that has a handle, at the speed of a slice, and without a
/// lock. A clone is another handle of the same memory; to send one costs the same for a gigabyte as
/// for a byte; forked children inherit it. The memory is given back when the last process drops its
/// last handle, or ends.
///
/// It is made by [`SharedVec::freeze`], or from a slice, array or vector by `try_from`.
///
/// ```
/// use multiproc::{FrozenVec, Process};
///
/// let words = FrozenVec::try_from([3u64, 5, 8])?;
/// let sum = |words: FrozenVec<u64>| words.iter().sum::<u64>();
/// assert_eq!(Process::spawn(sum, (words.clone(),))?.join()?, 16);
/// assert_eq!(words.slice(1..)?, [5, 8]);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct FrozenVec<T: Pod> {
    memory: FrozenMemory,
    /// `start + len` is at most what `memory` holds, in elements.
    start: usize,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> FrozenVec<T> {
    pub(super) fn over(memory: FrozenMemory, start: usize, len: usize) -> Self {
        Self { memory, start, len, elements: PhantomData }
    }

    /// A frozen copy of these elements. `FrozenVec::try_from` does the same with arrays and
    /// vectors.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let memory = FrozenMemory::copied(bytemuck::cast_slice(elements)).map_err(|error| {
            let what = format!("a frozen vector of {} elements could not be made", elements.len());
            Error::memory(what, error)
        })?;
        Ok(Self::over(memory, 0, elements.len()))
    }

    /// A part of it, as a handle of the same memory.
    ///
    /// # Errors
    /// Invalid input, if the range is not inside or is backwards.
    ///
    /// ```
    /// let frozen = multiproc::FrozenVec::try_from([1, 2, 3, 4])?;
    /// assert_eq!(frozen.slice(..2)?.slice(1..)?, [2]);
    /// assert!(frozen.slice(3..9).unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Result<Self> {
        let first = match range.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        if first > end || end > self.len {
            let len = self.len;
            let what = format!("the range {first}..{end} of a frozen vector of {len} elements");
            return Err(Error::invalid(what));
        }
        Ok(Self::over(self.memory.clone(), self.start + first, end - first))
    }

    /// A copy that can be changed.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn thaw(&self) -> Result<SharedVec<T>> {
        SharedVec::from_slice(self)
    }

    /// What a pool needs to lend the elements: the memory, and the first element in it.
    pub(crate) fn loan(&self) -> (Loan, usize) {
        (Loan::of_frozen(&self.memory), self.start)
    }
}

impl<T: Pod> Deref for FrozenVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.memory.slice(self.start, self.len)
    }
}

impl<T: Pod> AsRef<[T]> for FrozenVec<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for FrozenVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Pod> TryFrom<&[T]> for FrozenVec<T> {
    type Error = Error;

    fn try_from(elements: &[T]) -> Result<Self> {
        Self::from_slice(elements)
    }
}

impl<T: Pod> TryFrom<Vec<T>> for FrozenVec<T> {
    type Error = Error;

    fn try_from(elements: Vec<T>) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod, const N: usize> TryFrom<[T; N]> for FrozenVec<T> {
    type Error = Error;

    fn try_from(elements: [T; N]) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod> TryFrom<SharedVec<T>> for FrozenVec<T> {
    type Error = Error;

    /// The same as [`SharedVec::freeze`]: no copy.
    fn try_from(vec: SharedVec<T>) -> Result<Self> {
        vec.freeze()
    }
}

impl<T: Pod + PartialEq> PartialEq for FrozenVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for FrozenVec<T> {}

impl<T: Pod + PartialEq> PartialEq<[T]> for FrozenVec<T> {
    fn eq(&self, other: &[T]) -> bool {
        **self == *other
    }
}

impl<T: Pod + PartialEq> PartialEq<&[T]> for FrozenVec<T> {
    fn eq(&self, other: &&[T]) -> bool {
        **self == **other
    }
}

impl<T: Pod + PartialEq, const N: usize> PartialEq<[T; N]> for FrozenVec<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

impl<T: Pod + PartialEq> PartialEq<Vec<T>> for FrozenVec<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<'a, T: Pod> IntoIterator for &'a FrozenVec<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The memory, its length in bytes, and which elements of it.
impl<T: Pod> Serialize for FrozenVec<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.memory.len() as u64;
        let (start, len) = (self.start as u64, self.len as u64);
        (Handle(self.memory.object().clone()), bytes, start, len).serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for FrozenVec<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Handle(object), bytes, start, len) = Deserialize::deserialize(deserializer)?;
        let (bytes, start, len) = (length(bytes)?, length(start)?, length::<D::Error>(len)?);
        let memory = FrozenMemory::open(object, bytes).map_err(|_| {
            handles::refuse_decoding("a FrozenVec whose memory is not sealed or is too short")
        })?;
        let end = start.checked_add(len);
        if end.is_none_or(|end| end > bytes / element_size::<T>()) {
            return Err(handles::refuse_decoding("a FrozenVec that is longer than its memory"));
        }
        Ok(Self::over(memory, start, len))
    }
}
