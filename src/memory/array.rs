use super::handle::travels;
use super::raw_array::{check, check_len, not_made};
use crate::shm::element_size;
use crate::shm::locked::{Held, Locked};
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::{Error, OwnerDied, Result};
use bytemuck::Pod;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-array");

/// An array of fixed length in shared memory, with a lock. (Python: `Array`.)
///
/// [`lock`](Self::lock) gives a guard that derefs to the whole slice; the other methods take the
/// lock for a moment. [`RawArray`](super::RawArray) has no lock; [`SharedVec`](super::SharedVec)
/// needs none, and grows, but has one owner.
///
/// Huge pages and alignment can be chosen for a [`SharedVec`](super::SharedVec) only
/// ([`SharedVec::options`](super::SharedVec::options)); here the elements are aligned as `T` is.
///
/// If a process dies while it holds the lock, the next one that takes it is told once, as with
/// [`Value`](super::Value). The lock is not reentrant. A clone is another handle of the same array;
/// as an argument or a result it is one, too.
///
/// ```
/// use multiproc::{Array, Process};
///
/// let counts = Array::<u32>::zeroed(10)?;
/// let count = |counts: Array<u32>, digits: String| -> Result<(), String> {
///     let mut counts = counts.lock().map_err(|died| died.to_string())?;
///     digits.bytes().for_each(|digit| counts[usize::from(digit - b'0')] += 1);
///     Ok(())
/// };
/// for digits in ["31415", "27182"] {
///     Process::spawn(count, (counts.clone(), digits.to_owned()))?.join()?.expect("nobody died");
/// }
/// assert_eq!(counts.to_vec()?, [0, 3, 2, 1, 1, 1, 0, 1, 1, 0]);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Array<T: Pod>(Locked<T>);

impl<T: Pod> Array<T> {
    /// An array of `len` elements whose bytes are all zero.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn zeroed(len: usize) -> Result<Self> {
        element_size::<T>();
        Locked::create(KIND, len).map(Self).map_err(|error| not_made(len, error))
    }

    /// An array with a copy of these elements.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let array = Self::zeroed(elements.len())?;
        array.copy_from_slice(elements)?;
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

    /// A copy of an element.
    ///
    /// # Errors
    /// Invalid input, if there is no element `index`. Owner died: elements may be half changed; the
    /// next call works.
    #[inline]
    pub fn get(&self, index: usize) -> Result<T> {
        check(index, self.len())?;
        Ok(self.lock()?[index])
    }

    /// Overwrites an element.
    ///
    /// # Errors
    /// As [`get`](Self::get); then the element was not overwritten.
    #[inline]
    pub fn set(&self, index: usize, element: T) -> Result<()> {
        check(index, self.len())?;
        self.lock()?[index] = element;
        Ok(())
    }

    /// Changes an element by a function, and returns what that returns. The function works on a
    /// copy, as in [`Value::update`](super::Value::update).
    ///
    /// # Errors
    /// As [`get`](Self::get); then the function was not called.
    #[inline]
    pub fn update<R>(&self, index: usize, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        check(index, self.len())?;
        let mut guard = self.lock()?;
        let mut element = guard[index];
        let result = change(&mut element);
        guard[index] = element;
        Ok(result)
    }

    /// Overwrites all elements.
    ///
    /// # Errors
    /// Invalid input, if there are not as many elements as the array has; owner died, and then
    /// nothing was overwritten.
    pub fn copy_from_slice(&self, elements: &[T]) -> Result<()> {
        check_len(elements.len(), self.len())?;
        self.lock()?.copy_from_slice(elements);
        Ok(())
    }

    /// A copy of all elements, of one moment.
    ///
    /// # Errors
    /// Owner died: elements may be half changed. The next call works.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        Ok(self.lock()?.to_vec())
    }

    /// Copies of all elements, of one moment. To iterate in place, lock: `array.lock()?.iter()`.
    ///
    /// # Errors
    /// As [`to_vec`](Self::to_vec).
    pub fn iter(&self) -> Result<std::vec::IntoIter<T>> {
        self.to_vec().map(Vec::into_iter)
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard with the news, if the last owner died or panicked. The lock is taken then, too.
    #[inline]
    pub fn lock(&self) -> Result<ArrayGuard<'_, T>, OwnerDied<ArrayGuard<'_, T>>> {
        self.0.lock().map(ArrayGuard).map_err(|died| died.map(ArrayGuard))
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Option<ArrayGuard<'_, T>>, OwnerDied<ArrayGuard<'_, T>>> {
        let held = self.0.try_lock();
        held.map(|held| held.map(ArrayGuard)).map_err(|died| died.map(ArrayGuard))
    }

    /// Waits for the lock, for so long at most; zero means try, centuries mean for ever.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<ArrayGuard<'_, T>>, OwnerDied<ArrayGuard<'_, T>>> {
        let held = self.0.lock_timeout(timeout);
        held.map(|held| held.map(ArrayGuard)).map_err(|died| died.map(ArrayGuard))
    }

    /// Whether somebody has the lock, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    fn object(&self) -> &Arc<Object> {
        self.0.memory().object()
    }

    fn open(object: Arc<Object>) -> io::Result<Self> {
        element_size::<T>();
        Locked::open(object, KIND).map(Self)
    }
}

travels!([T: Pod] Array<T>, it => it.object(), object => Self::open(object));

impl<T: Pod> Clone for Array<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Array");
        debug.field("len", &self.len()).field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl<T: Pod, const N: usize> TryFrom<[T; N]> for Array<T> {
    type Error = Error;

    fn try_from(elements: [T; N]) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod> TryFrom<Vec<T>> for Array<T> {
    type Error = Error;

    fn try_from(elements: Vec<T>) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

/// The lock of an [`Array`] is held; derefs to the slice of its elements.
///
/// # Panics
/// To deref it in a forked child, which does not hold the lock.
#[must_use = "the lock is given back when the guard goes"]
pub struct ArrayGuard<'a, T: Pod>(Held<'a, T>);

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
