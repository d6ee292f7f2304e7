use super::handle::travels;
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::object::Object;
use crate::{Error, Result};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const KIND: Kind = Kind::new("multiproc-atomic");

/// All operations, also those of other words of the program, have one order that all processes
/// agree on. It is what a user of a lock expects, and costs next to nothing more than the rest.
const ORDER: Ordering = Ordering::SeqCst;

/// A number or a `bool` in shared memory that is changed without a lock, by atomic instructions.
///
/// Nothing can be left locked or half changed by a process that dies. All operations are
/// sequentially consistent. `T` is one of the integers of up to 64 bits, `bool`, `f32`, `f64`.
///
/// A clone is another handle of the same value; as an argument or a result it is one, too.
///
/// ```
/// use multiproc::{AtomicValue, Pool};
///
/// let total = AtomicValue::new(0u64)?;
/// let add = |total: &AtomicValue<u64>, number: u64| {
///     total.fetch_add(number);
/// };
/// Pool::new()?.map_with(&total, add, 0..1000)?;
/// assert_eq!(total.get(), 999 * 500);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct AtomicValue<T: Scalar> {
    memory: Memory,
    scalar: PhantomData<T>,
}

impl<T: Scalar> AtomicValue<T> {
    /// A value in new shared memory.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn new(value: T) -> Result<Self> {
        let memory = Memory::create(KIND, T::TAG, 1, BODY + 8)
            .map_err(|error| Error::memory("a shared value could not be made", error))?;
        let new = Self { memory, scalar: PhantomData };
        new.set(value);
        Ok(new)
    }

    /// The value as it is now.
    #[must_use]
    #[inline]
    pub fn get(&self) -> T {
        T::from_bits(self.word().load(ORDER))
    }

    /// Overwrites the value.
    #[inline]
    pub fn set(&self, value: T) {
        self.word().store(value.to_bits(), ORDER);
    }

    /// As [`get`](Self::get), by the name that std's atomics have for it.
    #[must_use]
    #[inline]
    pub fn load(&self) -> T {
        self.get()
    }

    /// As [`set`](Self::set), by the name that std's atomics have for it.
    #[inline]
    pub fn store(&self, value: T) {
        self.set(value);
    }

    /// Overwrites the value and returns the old one.
    #[inline]
    pub fn swap(&self, value: T) -> T {
        T::from_bits(self.word().swap(value.to_bits(), ORDER))
    }

    /// Overwrites the value if it is `current`. Floats are compared by their bits: `0.0` is not
    /// `-0.0`, and a `NaN` is itself.
    ///
    /// # Errors
    /// The value, if it is another one.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> std::result::Result<T, T> {
        let same = |value: T| value.to_bits() == current.to_bits();
        self.fetch_update(|value| same(value).then_some(new))
    }

    /// Changes the value by a function, and returns the old one. The function is called again if
    /// somebody else changed the value meanwhile; it may return `None` to leave it as it is.
    ///
    /// # Errors
    /// The value, if the function returned `None`.
    #[inline]
    pub fn fetch_update(
        &self,
        mut change: impl FnMut(T) -> Option<T>,
    ) -> std::result::Result<T, T> {
        // The bits of the word are compared as they are, whatever a peer has put above the value.
        let change = |bits| change(T::from_bits(bits)).map(T::to_bits);
        match self.word().fetch_update(ORDER, ORDER, change) {
            Ok(bits) => Ok(T::from_bits(bits)),
            Err(bits) => Err(T::from_bits(bits)),
        }
    }

    /// As [`fetch_update`](Self::fetch_update), for a change that always takes place: returns the
    /// old value.
    ///
    /// ```
    /// let best = multiproc::AtomicValue::new(f64::INFINITY)?;
    /// best.update(|best| best.min(2.5));
    /// assert_eq!(best.get(), 2.5);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    #[inline]
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> T {
        match self.fetch_update(|value| Some(change(value))) {
            Ok(old) | Err(old) => old,
        }
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        self.memory.word(BODY)
    }

    fn object(&self) -> &Arc<Object> {
        self.memory.object()
    }

    fn open(object: Arc<Object>) -> io::Result<Self> {
        let memory = Memory::open(object, KIND, T::TAG, BODY + 8)?;
        Ok(Self { memory, scalar: PhantomData })
    }
}

impl<T: Number> AtomicValue<T> {
    /// Adds to the value and returns the old one. Integers wrap around.
    #[inline]
    pub fn fetch_add(&self, number: T) -> T {
        if T::FILLS_A_WORD {
            return T::from_bits(self.word().fetch_add(number.to_bits(), ORDER));
        }
        self.update(|value| value.plus(number))
    }

    /// Subtracts from the value and returns the old one. Integers wrap around.
    #[inline]
    pub fn fetch_sub(&self, number: T) -> T {
        if T::FILLS_A_WORD {
            return T::from_bits(self.word().fetch_sub(number.to_bits(), ORDER));
        }
        self.update(|value| value.minus(number))
    }

    /// Makes the value at least `number` and returns the old one.
    #[inline]
    pub fn fetch_max(&self, number: T) -> T {
        self.update(|value| if number > value { number } else { value })
    }

    /// Makes the value at most `number` and returns the old one.
    #[inline]
    pub fn fetch_min(&self, number: T) -> T {
        self.update(|value| if number < value { number } else { value })
    }
}

impl<T: Bitwise> AtomicValue<T> {
    /// Combines the value with `other` by *and*, and returns the old one.
    #[inline]
    pub fn fetch_and(&self, other: T) -> T {
        T::from_bits(self.word().fetch_and(other.to_bits(), ORDER))
    }

    /// Combines the value with `other` by *or*, and returns the old one.
    #[inline]
    pub fn fetch_or(&self, other: T) -> T {
        T::from_bits(self.word().fetch_or(other.to_bits(), ORDER))
    }

    /// Combines the value with `other` by *exclusive or*, and returns the old one.
    #[inline]
    pub fn fetch_xor(&self, other: T) -> T {
        T::from_bits(self.word().fetch_xor(other.to_bits(), ORDER))
    }
}

travels!([T: Scalar] AtomicValue<T>, it => it.object(), object => Self::open(object));

impl<T: Scalar> Clone for AtomicValue<T> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), scalar: PhantomData }
    }
}

impl<T: Scalar + fmt::Debug> fmt::Debug for AtomicValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtomicValue").field(&self.get()).finish()
    }
}

/// What an [`AtomicValue`] can hold: an integer of up to 64 bits, `bool`, `f32` or `f64`.
pub trait Scalar: sealed::Bits {}

/// A [`Scalar`] that can be counted with.
pub trait Number: Scalar + PartialOrd + sealed::Count {}

/// A [`Scalar`] that is bits: an integer or `bool`.
pub trait Bitwise: Scalar {}

mod sealed {
    /// In a word, and back; whatever the word holds is some value.
    pub trait Bits: Copy + Send + Sync + 'static {
        /// A number for the type.
        const TAG: u64;
        fn to_bits(self) -> u64;
        fn from_bits(bits: u64) -> Self;
    }

    pub trait Count: Copy {
        /// Whether the sum of two words is the word of the sum.
        const FILLS_A_WORD: bool;
        fn plus(self, other: Self) -> Self;
        fn minus(self, other: Self) -> Self;
    }
}

macro_rules! integers {
    ($($type:ident $tag:literal),*) => { $(
        impl sealed::Bits for $type {
            const TAG: u64 = $tag;
            #[inline]
            fn to_bits(self) -> u64 {
                self as u64
            }
            #[inline]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
        impl sealed::Count for $type {
            const FILLS_A_WORD: bool = size_of::<Self>() == 8;
            #[inline]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
        impl Scalar for $type {}
        impl Number for $type {}
        impl Bitwise for $type {}
    )* };
}

integers!(u8 1, u16 2, u32 3, u64 4, usize 5, i8 6, i16 7, i32 8, i64 9, isize 10);

macro_rules! floats {
    ($($type:ident $bits:ident $tag:literal),*) => { $(
        impl sealed::Bits for $type {
            const TAG: u64 = $tag;
            #[inline]
            fn to_bits(self) -> u64 {
                $type::to_bits(self).into()
            }
            #[inline]
            fn from_bits(bits: u64) -> Self {
                $type::from_bits(bits as $bits)
            }
        }
        impl sealed::Count for $type {
            const FILLS_A_WORD: bool = false;
            #[inline]
            fn plus(self, other: Self) -> Self {
                self + other
            }
            #[inline]
            fn minus(self, other: Self) -> Self {
                self - other
            }
        }
        impl Scalar for $type {}
        impl Number for $type {}
    )* };
}

floats!(f32 u32 11, f64 u64 12);

impl sealed::Bits for bool {
    const TAG: u64 = 13;
    #[inline]
    fn to_bits(self) -> u64 {
        self.into()
    }
    #[inline]
    fn from_bits(bits: u64) -> Self {
        bits & 1 == 1
    }
}
impl Scalar for bool {}
impl Bitwise for bool {}
