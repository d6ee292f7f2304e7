use super::handle::{Handle, length};
use super::{FrozenVec, VecOptions};
use crate::shm::element_size;
use crate::shm::frozen::FrozenMemory;
use crate::shm::lend::Loan;
use crate::shm::owned::OwnedMemory;
use crate::wire::handles;
use crate::{Error, Result};
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A vector in shared memory, with one owner: it can be lent to a pool in place, sent without a
/// copy, and frozen.
///
/// In the owner it is as good as a `Vec<T>`: it grows, and derefs to `[T]`. `T` is plain data
/// ([`bytemuck::Pod`]): numbers, arrays of them, and structs for which it is derived. The memory
/// is reserved when it is taken, so what would be a crash later is an error at once: whatever may
/// take memory returns a [`Result`]. Each vector is a file without a name, one open descriptor.
///
/// # Sending it
/// As an argument or a result it moves without a copy, whatever its size: it is *sealed*, so that
/// nobody can write to that memory any more, and the receiver reads the same memory. Both sides can
/// still change their vector: the first change after that copies it (as `Arc::make_mut` does).
/// To send the same data to many, [`freeze`](Self::freeze) it.
///
/// # Speed
/// Each `v[i]` looks first whether the memory is there, as no `Vec` does. In a loop that counts,
/// take the slice once: `let slice = &mut v[..];`.
///
/// # Fork
/// A forked child does not have the memory of its parent's vectors. Frozen ones it has. A slice
/// that was leaked before the fork leads nowhere in the child: to look there ends it by `SIGSEGV`.
///
/// # Panics
/// To deref a vector in a forked child of its owner. To deref a *sealed* vector mutably if there is
/// no memory for the copy; [`make_mut`](Self::make_mut) returns an error instead.
///
/// ```
/// use multiproc::{Process, SharedVec};
///
/// fn primes(below: u32) -> SharedVec<u32> {
///     let is_prime = |n: &u32| (2..*n).all(|d| n % d != 0);
///     SharedVec::try_from_iter((2..below).filter(is_prime)).expect("memory")
/// }
///
/// let mut found = Process::spawn(primes, (30,))?.join()?;
/// assert_eq!(*found, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
/// found.push(31)?;
/// found[0] = 0;
/// assert_eq!(found.iter().sum::<u32>(), 158);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct SharedVec<T: Pod> {
    memory: OwnedMemory,
    /// At most `memory.capacity()`, in elements; it lives here, and nobody else can change it.
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Pod> SharedVec<T> {
    /// An empty vector.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn new() -> Result<Self> {
        Self::with_capacity(0)
    }

    /// An empty vector with room for `capacity` elements.
    ///
    /// # Errors
    /// Out of memory, if that much cannot be reserved; an OS error if this process has too many
    /// open files.
    pub fn with_capacity(capacity: usize) -> Result<Self> {
        VecOptions::new().with_capacity(capacity)
    }

    /// A vector of `len` elements whose bytes are all zero.
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    ///
    /// ```
    /// let zeros = multiproc::SharedVec::<f64>::zeroed(1000)?;
    /// assert_eq!(zeros.iter().sum::<f64>(), 0.0);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn zeroed(len: usize) -> Result<Self> {
        VecOptions::new().zeroed(len)
    }

    /// A vector with a copy of these elements. `SharedVec::try_from` does the same with arrays and
    /// vectors.
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        VecOptions::new().copied(elements)
    }

    /// A vector of the elements of an iterator. (`FromIterator` could not return an error.)
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    pub fn try_from_iter(elements: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut vec = Self::new()?;
        vec.extend(elements)?;
        Ok(vec)
    }

    /// How the memory is made: huge pages, alignment.
    ///
    /// ```
    /// use multiproc::{HugePages, SharedVec};
    ///
    /// let options = SharedVec::<f32>::options().huge_pages(HugePages::Transparent).align(1 << 21);
    /// let vec: SharedVec<f32> = options.zeroed(1 << 20)?;
    /// assert_eq!(vec.as_ptr().addr() % (1 << 21), 0);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    #[must_use]
    pub fn options() -> VecOptions {
        VecOptions::new()
    }

    pub(super) fn over(memory: OwnedMemory, len: usize) -> Self {
        Self { memory, len, elements: PhantomData }
    }

    /// For a vector that was made just now: its memory is all zero.
    pub(super) fn set_zeroed_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    /// How many elements there is room for, without taking more memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity() / element_size::<T>()
    }

    /// Makes room for `additional` more elements. When memory must be taken, more than that is, so
    /// that a vector that grows element by element is seldom moved.
    ///
    /// # Errors
    /// Out of memory, if it cannot be reserved: the vector is as it was.
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        let bytes = self.len.saturating_add(additional).saturating_mul(element_size::<T>());
        let used = self.used();
        self.memory.prepare(used, bytes).map_err(|error| self.no_room(additional, error))
    }

    #[cold]
    fn no_room(&self, additional: usize, error: std::io::Error) -> Error {
        let (len, size) = (self.len, element_size::<T>());
        let what =
            format!("{additional} more elements of {size} bytes do not fit into a vector of {len}");
        Error::memory(what, error)
    }

    /// The elements, for writing: what `&mut v[..]` gives, with an error instead of a panic if the
    /// vector is sealed and cannot be copied.
    ///
    /// # Errors
    /// Out of memory; an OS error in a forked child of the owner.
    pub fn make_mut(&mut self) -> Result<&mut [T]> {
        self.reserve(0)?;
        Ok(self.memory.slice_mut(self.len))
    }

    /// Appends an element.
    ///
    /// # Errors
    /// Out of memory: the vector is as it was.
    pub fn push(&mut self, element: T) -> Result<()> {
        self.reserve(1)?;
        self.memory.slice_mut(self.len + 1)[self.len] = element;
        self.len += 1;
        Ok(())
    }

    /// Removes the last element and returns it.
    ///
    /// # Panics
    /// In a forked child of the owner.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.last().copied()?;
        self.len -= 1;
        Some(last)
    }

    /// Appends a copy of these elements.
    ///
    /// # Errors
    /// Out of memory: the vector is as it was.
    pub fn extend_from_slice(&mut self, elements: &[T]) -> Result<()> {
        self.reserve(elements.len())?;
        let len = self.len + elements.len();
        self.memory.slice_mut(len)[self.len..].copy_from_slice(elements);
        self.len = len;
        Ok(())
    }

    /// Appends the elements of an iterator.
    ///
    /// # Errors
    /// Out of memory: the vector ends with the last element that there was room for.
    pub fn extend(&mut self, elements: impl IntoIterator<Item = T>) -> Result<()> {
        let elements = elements.into_iter();
        self.reserve(elements.size_hint().0)?;
        for element in elements {
            self.push(element)?;
        }
        Ok(())
    }

    /// Makes the vector `len` elements long: by appending copies of `element`, or by dropping the
    /// last ones.
    ///
    /// # Errors
    /// Out of memory: the vector is as it was.
    pub fn resize(&mut self, len: usize, element: T) -> Result<()> {
        if let Some(additional) = len.checked_sub(self.len) {
            self.reserve(additional)?;
            self.memory.slice_mut(len)[self.len..].fill(element);
        }
        self.len = len;
        Ok(())
    }

    /// Drops all elements after the first `len`. The memory stays reserved.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Drops all elements. The memory stays reserved.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Makes the vector unchangeable, for ever, without a copy: the kernel refuses every write to
    /// the memory, in every process, and so it can be read everywhere, be cloned and sent for
    /// next to nothing.
    ///
    /// # Errors
    /// An OS error if the kernel refuses; out of memory, if a worker to which the vector was lent
    /// does not let go of it in time, and the copy that is made then does not fit.
    ///
    /// ```
    /// use multiproc::{Pool, SharedVec};
    ///
    /// let table = SharedVec::try_from_iter((0..1000u64).map(|n| n * n))?.freeze()?;
    /// let look_up = |table: &multiproc::FrozenVec<u64>, n: usize| table[n];
    /// assert_eq!(Pool::new()?.map_with(&table, look_up, [3, 30])?, [9, 900]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn freeze(self) -> Result<FrozenVec<T>> {
        let memory = self.sealed()?;
        Ok(FrozenVec::over(memory, 0, self.len))
    }

    /// Exchanges the memory for one that nobody can write to; the elements stay where they are.
    fn sealed(&self) -> Result<FrozenMemory> {
        let sealed = self.memory.seal(self.used());
        sealed.map_err(|error| Error::memory("a SharedVec could not be sealed", error))
    }

    /// What a pool needs to lend the elements for writing.
    pub(crate) fn loan_mut(&mut self) -> Result<Loan> {
        self.reserve(0)?;
        self.loan()
    }

    /// What a pool needs to lend the elements for reading.
    pub(crate) fn loan(&self) -> Result<Loan> {
        let loan = self.memory.lend(self.used());
        loan.map_err(|error| Error::memory("a SharedVec could not be lent", error))
    }

    /// The bytes in use.
    #[inline]
    fn used(&self) -> usize {
        self.len * element_size::<T>()
    }
}

impl<T: Pod> Deref for SharedVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.memory.slice(self.len)
    }
}

impl<T: Pod> DerefMut for SharedVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self.make_mut() {
            Ok(elements) => elements,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<T: Pod> AsRef<[T]> for SharedVec<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod> AsMut<[T]> for SharedVec<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for SharedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.memory.is_here() {
            f.debug_list().entries(self.iter()).finish()
        } else {
            f.write_str("[not in this forked child]")
        }
    }
}

impl<T: Pod> TryFrom<&[T]> for SharedVec<T> {
    type Error = Error;

    fn try_from(elements: &[T]) -> Result<Self> {
        Self::from_slice(elements)
    }
}

impl<T: Pod> TryFrom<Vec<T>> for SharedVec<T> {
    type Error = Error;

    fn try_from(elements: Vec<T>) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod, const N: usize> TryFrom<[T; N]> for SharedVec<T> {
    type Error = Error;

    fn try_from(elements: [T; N]) -> Result<Self> {
        Self::from_slice(&elements)
    }
}

impl<T: Pod + PartialEq> PartialEq for SharedVec<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for SharedVec<T> {}

impl<T: Pod + PartialEq> PartialEq<[T]> for SharedVec<T> {
    fn eq(&self, other: &[T]) -> bool {
        **self == *other
    }
}

impl<T: Pod + PartialEq> PartialEq<&[T]> for SharedVec<T> {
    fn eq(&self, other: &&[T]) -> bool {
        **self == **other
    }
}

impl<T: Pod + PartialEq, const N: usize> PartialEq<[T; N]> for SharedVec<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

impl<T: Pod + PartialEq> PartialEq<Vec<T>> for SharedVec<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        **self == **other
    }
}

impl<'a, T: Pod> IntoIterator for &'a SharedVec<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Pod> IntoIterator for &'a mut SharedVec<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// The memory, its length in bytes, and the number of elements.
impl<T: Pod> Serialize for SharedVec<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refused = |_| handles::refuse_encoding("a SharedVec could not be sealed to be sent");
        let memory = self.sealed().map_err(refused)?;
        (Handle(memory.object().clone()), memory.len() as u64, self.len as u64)
            .serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for SharedVec<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Handle(object), bytes, len) = Deserialize::deserialize(deserializer)?;
        let (bytes, len) = (length(bytes)?, length(len)?);
        let memory = FrozenMemory::open(object, bytes).map_err(|_| {
            handles::refuse_decoding("a SharedVec whose memory is not sealed or is too short")
        })?;
        if len > bytes / element_size::<T>() {
            return Err(handles::refuse_decoding("a SharedVec that is longer than its memory"));
        }
        Ok(Self::over(OwnedMemory::received(memory), len))
    }
}
