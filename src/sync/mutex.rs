use super::handle::{not_made, travels};
use crate::shm::element_size;
use crate::shm::locked::{Held, Locked};
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::{OwnerDied, Result};
use bytemuck::Pod;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-mutex");

/// Plain data behind a lock, in shared memory.
///
/// As [`Lock`](super::Lock), with a value that only the guard reaches. `T` is plain data
/// ([`bytemuck::Pod`], which can be derived): numbers, arrays of them, and structures of them
/// without padding. The news of an owner's death means here that the value may be half changed. The
/// owner is the process: a guard that a thread leaks ([`std::mem::forget`]) keeps the lock until
/// the process ends, as another thread may still have a reference to the value. A
/// [`Value`](crate::Value) is the same with `get`, `set` and `update`.
///
/// ```
/// use multiproc::{Mutex, Process};
///
/// fn add(total: Mutex<u64>) -> bool {
///     for _ in 0..1000 {
///         match total.lock() {
///             Ok(mut total) => *total += 1,
///             Err(_) => return false,
///         }
///     }
///     true
/// }
///
/// let total = Mutex::new(0u64)?;
/// let mut first = Process::spawn(add, (total.clone(),))?;
/// let mut second = Process::spawn(add, (total.clone(),))?;
/// assert!(first.join()? && second.join()?);
/// assert_eq!(*total.lock()?, 2000);
/// # Ok::<(), multiproc::Error>(())
/// ```
///
/// # Limit
/// A forked child shares the value, and does not hold the lock: a guard that was taken before the
/// fork panics there. But a `&mut T` that was *leaked* from a guard and kept in a `static` is in
/// both processes after a fork; if both write through it, they change the value under each other's
/// eyes. It stays some value of `T`. Do not leak guards in programs that fork.
///
/// What holds a pointer is refused by the compiler:
///
/// ```compile_fail
/// let names = multiproc::Mutex::new(String::new());
/// ```
pub struct Mutex<T>(Locked<T>);

impl<T: Pod> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

travels!([T: Pod] Mutex<T>, mutex => mutex.object(), object => Self::open(object));

impl<T: Pod> Mutex<T> {
    /// Makes a mutex with this value.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new(value: T) -> Result<Self> {
        element_size::<T>();
        let locked = Locked::create(KIND, 1);
        let locked = locked.map_err(|error| not_made("value behind a lock", error))?;
        locked.lock()?.copy_from_slice(&[value]);
        Ok(Self(locked))
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last owner died or panicked while it had the lock.
    #[inline]
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, OwnerDied<MutexGuard<'_, T>>> {
        self.0.lock().map(MutexGuard).map_err(|died| died.map(MutexGuard))
    }

    /// Takes the lock, if nobody has it.
    ///
    /// # Errors
    /// As [`lock`](Mutex::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Option<MutexGuard<'_, T>>, OwnerDied<MutexGuard<'_, T>>> {
        let held = self.0.try_lock().map_err(|died| died.map(MutexGuard))?;
        Ok(held.map(MutexGuard))
    }

    /// Waits for the lock, for `timeout` at most; `None` if it passed. Zero means try.
    ///
    /// ```
    /// use multiproc::Mutex;
    /// use std::time::Duration;
    ///
    /// let point = Mutex::new([1.0, 2.0])?;
    /// let guard = point.lock()?;
    /// assert!(point.lock_timeout(Duration::from_millis(5))?.is_none());
    /// assert_eq!(*guard, [1.0, 2.0]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](Mutex::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<MutexGuard<'_, T>>, OwnerDied<MutexGuard<'_, T>>> {
        let held = self.0.lock_timeout(timeout).map_err(|died| died.map(MutexGuard))?;
        Ok(held.map(MutexGuard))
    }

    /// Whether somebody has the lock, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        self.0.memory().object()
    }

    pub(crate) fn open(object: Arc<Object>) -> io::Result<Self> {
        element_size::<T>();
        let locked = Locked::open(object, KIND)?;
        match locked.len() {
            1 => Ok(Self(locked)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "more or less than one value")),
        }
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// Has a [`Mutex`], and derefs to its value; gives it back when dropped. It stays on its thread:
///
/// ```compile_fail
/// let value = multiproc::Mutex::new(1).unwrap();
/// let guard = value.lock().unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard)); // error: cannot be sent between threads
/// });
/// ```
///
/// # Panics
/// Its copy in a forked child panics when it is dereferenced: the lock belongs to the parent.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct MutexGuard<'a, T: Pod>(Held<'a, T>);

impl<'a, T: Pod> MutexGuard<'a, T> {
    pub(super) fn locked(&self) -> &'a Locked<T> {
        self.0.locked()
    }

    pub(super) fn again(locked: &'a Locked<T>) -> Result<Self, OwnerDied<Self>> {
        locked.lock().map(Self).map_err(|died| died.map(Self))
    }
}

impl<T: Pod> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // The length was checked to be 1 when the handle was made.
        &self.0[0]
    }
}

impl<T: Pod> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
