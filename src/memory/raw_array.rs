use super::handle::travels;
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::shm::raw::Raw;
use crate::{Error, Result};
use bytemuck::Pod;
use std::fmt;
use std::io;
use std::sync::Arc;

const KIND: Kind = Kind::new("multiproc-raw-array");

/// An array of fixed length in shared memory, without a lock. (Python: `RawArray`.)
///
/// Elements are copied in and out, as [`RawValue`](super::RawValue) does it; there are no slices,
/// because other processes may be writing. It is for data of which each process writes its own
/// part, or where a stale element does no harm. [`Array`](super::Array) has a lock, and
/// [`SharedVec`](super::SharedVec) can be lent to a pool in parts.
///
/// A clone is another handle of the same array; as an argument or a result it is one, too.
///
/// ```
/// use multiproc::{Process, RawArray};
///
/// let squares = RawArray::<u64>::zeroed(4)?;
/// let fill = |squares: RawArray<u64>, index: usize| squares.set(index, (index * index) as u64);
/// for index in 0..4 {
///     Process::spawn(fill, (squares.clone(), index))?.join()??;
/// }
/// assert_eq!(squares.to_vec(), [0, 1, 4, 9]);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct RawArray<T: Pod>(Raw<T>);

impl<T: Pod> RawArray<T> {
    /// An array of `len` elements whose bytes are all zero.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn zeroed(len: usize) -> Result<Self> {
        Raw::create(KIND, len).map(Self).map_err(|error| not_made(len, error))
    }

    /// An array with a copy of these elements.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let array = Self::zeroed(elements.len())?;
        array.0.write(0, elements);
        Ok(array)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of an element as it is now.
    ///
    /// # Errors
    /// Invalid input, if there is no element `index`.
    pub fn get(&self, index: usize) -> Result<T> {
        check(index, self.len())?;
        Ok(self.0.get(index))
    }

    /// Overwrites an element.
    ///
    /// # Errors
    /// Invalid input, if there is no element `index`.
    pub fn set(&self, index: usize, element: T) -> Result<()> {
        check(index, self.len())?;
        self.0.write(index, &[element]);
        Ok(())
    }

    /// Overwrites all elements, one after the other.
    ///
    /// # Errors
    /// Invalid input, if there are not as many elements as the array has.
    pub fn copy_from_slice(&self, elements: &[T]) -> Result<()> {
        check_len(elements.len(), self.len())?;
        self.0.write(0, elements);
        Ok(())
    }

    /// A copy of all elements, made one after the other.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        let mut elements = vec![T::zeroed(); self.len()];
        self.0.read(0, &mut elements);
        elements
    }

    /// The elements, each as it is when the iterator comes to it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + '_ {
        (0..self.len()).map(|index| self.0.get(index))
    }

    fn object(&self) -> &Arc<Object> {
        self.0.object()
    }

    fn open(object: Arc<Object>) -> io::Result<Self> {
        Raw::open(object, KIND).map(Self)
    }
}

/// The error for an array of `len` elements.
pub(super) fn not_made(len: usize, error: io::Error) -> Error {
    Error::memory(format!("a shared array of {len} elements could not be made"), error)
}

/// Whether an array of `len` elements has this one.
pub(super) fn check(index: usize, len: usize) -> Result<()> {
    if index < len {
        return Ok(());
    }
    Err(Error::invalid(format!("element {index} of an array of {len} elements")))
}

/// Whether as many elements came as an array has.
pub(super) fn check_len(came: usize, len: usize) -> Result<()> {
    if came == len {
        return Ok(());
    }
    Err(Error::invalid(format!("{came} elements for an array of {len}: its length is fixed")))
}

travels!([T: Pod] RawArray<T>, it => it.object(), object => Self::open(object));

impl<T: Pod> Clone for RawArray<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for RawArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Pod, const N: usize> TryFrom<[T; N]> for RawArray<T> {
    type Error = Error;

    fn try_from(elements: [T; N]) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod> TryFrom<Vec<T>> for RawArray<T> {
    type Error = Error;

    fn try_from(elements: Vec<T>) -> Result<Self> {
        Self::from_slice(&elements)
    }
}
