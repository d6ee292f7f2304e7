use super::handle::travels;
use crate::sync::{Mutex, MutexGuard};
use crate::{OwnerDied, Result};
use bytemuck::Pod;
use std::fmt;
use std::time::Duration;

/// A value in shared memory, with a lock. (Python: `Value`.)
///
/// [`get`](Self::get), [`set`](Self::set) and [`update`](Self::update) take the lock for a moment;
/// [`lock`](Self::lock) keeps it as long as the guard lives. So it is a [`Mutex`] with these three,
/// and a [`Condition`](crate::Condition) can be waited for with its guard, too. For a single
/// number, and for a `bool`, which is no plain data, [`AtomicValue`](super::AtomicValue) does the
/// same without a lock.
///
/// If a process dies while it holds the lock, the next one that takes it is told once: `lock` by
/// [`OwnerDied`], which carries the guard; the others by an error for which
/// [`is_owner_died`](crate::Error::is_owner_died) is true, and then they have done nothing.
/// The same news comes from a panic while the lock was held.
///
/// The lock is not reentrant: to lock it twice in one thread is a deadlock. A clone is another
/// handle of the same value; as an argument or a result it is one, too.
///
/// ```
/// use multiproc::{Process, Value};
///
/// let range = Value::new([f64::MAX, f64::MIN])?;
/// let see = |range: Value<[f64; 2]>, seen: f64| {
///     range.update(|[low, high]| {
///         *low = low.min(seen);
///         *high = high.max(seen);
///     })
/// };
/// for seen in [3.5, -1.0, 2.0] {
///     Process::spawn(see, (range.clone(), seen))?.join()??;
/// }
/// assert_eq!(range.get()?, [-1.0, 3.5]);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Value<T: Pod>(Mutex<T>);

impl<T: Pod> Value<T> {
    /// A value in new shared memory.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn new(value: T) -> Result<Self> {
        Mutex::new(value).map(Self)
    }

    /// A copy of the value.
    ///
    /// # Errors
    /// Owner died: the value may be half changed. The next call returns it.
    #[inline]
    pub fn get(&self) -> Result<T> {
        Ok(*self.lock()?)
    }

    /// Overwrites the value.
    ///
    /// # Errors
    /// Owner died: the value was not overwritten. The next call does it.
    #[inline]
    pub fn set(&self, value: T) -> Result<()> {
        *self.lock()? = value;
        Ok(())
    }

    /// Changes the value by a function, and returns what that returns.
    ///
    /// The function works on a copy, which replaces the value when it returns: if it panics, or the
    /// process is killed in it, the value is as it was (and the next one is told all the same).
    ///
    /// # Errors
    /// Owner died: the function was not called. The next call does it.
    #[inline]
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        let mut guard = self.lock()?;
        let mut value = *guard;
        let result = change(&mut value);
        *guard = value;
        Ok(result)
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard with the news, if the last owner died or panicked. The lock is taken then, too.
    #[inline]
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, OwnerDied<ValueGuard<'_, T>>> {
        self.0.lock()
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    #[inline]
    pub fn try_lock(&self) -> Result<Option<ValueGuard<'_, T>>, OwnerDied<ValueGuard<'_, T>>> {
        self.0.try_lock()
    }

    /// Waits for the lock, for so long at most; zero means try, centuries mean for ever.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<ValueGuard<'_, T>>, OwnerDied<ValueGuard<'_, T>>> {
        self.0.lock_timeout(timeout)
    }

    /// Whether somebody has the lock, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

travels!([T: Pod] Value<T>, it => it.0.object(), object => Mutex::open(object).map(Self));

impl<T: Pod> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

/// The lock of a [`Value`] is held; derefs to the value, and gives the lock back when dropped.
pub type ValueGuard<'a, T> = MutexGuard<'a, T>;
