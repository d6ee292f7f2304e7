use super::handle::{not_made, travels};
use crate::shm::element_size;
use crate::shm::memory::Kind;
use crate::shm::rwlocked::{Reading, RwLocked, Writing};
use crate::{OwnerDied, Result};
use bytemuck::Pod;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-rwlock");

/// Plain data in shared memory that many may read at a time, or one may change.
///
/// Readers and writers take turns: a writer that waits keeps new readers out, and a writer that
/// goes lets those in that have waited. So neither can starve the other, and a thread that reads
/// must not ask to read again: it may wait for a writer that waits for it. Up to 1,024 readers
/// hold it at a time; more wait.
///
/// A reader that dies is no news: it changed nothing. After a writer died, or panicked, every
/// reader gets the guard with the news until a writer has got it, since readers cannot mend
/// anything.
///
/// A read costs two writes to a seat of the reader's own, and a writer looks at all seats that
/// were ever in use: reads are cheap and do not slow each other down, writes cost a little more
/// than a [`Mutex`](super::Mutex).
///
/// ```
/// use multiproc::{Process, RwLock};
///
/// let prices = RwLock::new([3u32, 5, 8])?;
/// prices.write()?[1] = 6;
/// let mut reader = Process::spawn(
///     |prices: RwLock<[u32; 3]>| prices.read().map(|prices| prices.iter().sum::<u32>()).ok(),
///     (prices.clone(),),
/// )?;
/// assert_eq!(reader.join()?, Some(17));
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct RwLock<T>(RwLocked<T>);

/// What a try or a timed wait gives.
type Tried<G> = Result<Option<G>, OwnerDied<G>>;

impl<T: Pod> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

travels!([T: Pod] RwLock<T>, lock => lock.0.memory().object(), object => open(object));

fn open<T: Pod>(object: std::sync::Arc<crate::shm::object::Object>) -> std::io::Result<RwLock<T>> {
    element_size::<T>();
    let locked = RwLocked::open(object, KIND)?;
    match locked.memory().count() {
        1 => Ok(RwLock(locked)),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

impl<T: Pod> RwLock<T> {
    /// Makes a lock with this value.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new(value: T) -> Result<Self> {
        element_size::<T>();
        let locked = RwLocked::create(KIND, 1).map_err(|error| not_made("lock", error))?;
        locked.write()?.copy_from_slice(&[value]);
        Ok(Self(locked))
    }

    /// Waits until nobody writes.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last writer died or panicked.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, T>, OwnerDied<RwLockReadGuard<'_, T>>> {
        self.0.read().map(RwLockReadGuard).map_err(|died| died.map(RwLockReadGuard))
    }

    /// Reads, if nobody writes and no writer waits.
    ///
    /// # Errors
    /// As [`read`](RwLock::read).
    pub fn try_read(&self) -> Tried<RwLockReadGuard<'_, T>> {
        self.read_timeout(Duration::ZERO)
    }

    /// Waits until nobody writes, for `timeout` at most; `None` if it passed. Zero means try.
    ///
    /// # Errors
    /// As [`read`](RwLock::read).
    pub fn read_timeout(&self, timeout: Duration) -> Tried<RwLockReadGuard<'_, T>> {
        let held = self.0.read_timeout(timeout).map_err(|died| died.map(RwLockReadGuard))?;
        Ok(held.map(RwLockReadGuard))
    }

    /// Waits until nobody reads or writes.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last writer died or panicked.
    pub fn write(&self) -> Result<RwLockWriteGuard<'_, T>, OwnerDied<RwLockWriteGuard<'_, T>>> {
        self.0.write().map(RwLockWriteGuard).map_err(|died| died.map(RwLockWriteGuard))
    }

    /// Writes, if nobody reads or writes.
    ///
    /// ```
    /// let lock = multiproc::RwLock::new(1u8)?;
    /// let reader = lock.read()?;
    /// assert!(lock.try_write()?.is_none());
    /// assert!(lock.try_read()?.is_some());
    /// drop(reader);
    /// assert!(lock.try_write()?.is_some());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](RwLock::write).
    pub fn try_write(&self) -> Tried<RwLockWriteGuard<'_, T>> {
        self.write_timeout(Duration::ZERO)
    }

    /// Waits until nobody reads or writes, for `timeout` at most; `None` if it passed. Zero means
    /// try.
    ///
    /// # Errors
    /// As [`write`](RwLock::write).
    pub fn write_timeout(&self, timeout: Duration) -> Tried<RwLockWriteGuard<'_, T>> {
        let held = self.0.write_timeout(timeout).map_err(|died| died.map(RwLockWriteGuard))?;
        Ok(held.map(RwLockWriteGuard))
    }

    /// Whether somebody writes, or waits for the readers to go, at this moment.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.0.is_writing()
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

/// Reads an [`RwLock`]. It stays on its thread; its copy in a forked child panics when it is
/// dereferenced.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: Pod>(Reading<'a, T>);

impl<T: Pod> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // The length was checked to be 1 when the handle was made.
        &self.0[0]
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Has an [`RwLock`] for itself. It stays on its thread; its copy in a forked child panics when it
/// is dereferenced.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: Pod>(Writing<'a, T>);

impl<T: Pod> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0[0]
    }
}

impl<T: Pod> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0[0]
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
