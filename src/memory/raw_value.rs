use super::handle::travels;
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::shm::raw::Raw;
use crate::{Error, Result};
use bytemuck::Pod;
use std::fmt;
use std::io;
use std::sync::Arc;

const KIND: Kind = Kind::new("multiproc-raw-value");

/// A value in shared memory, without a lock. (Python: `RawValue`.)
///
/// [`get`](Self::get) and [`set`](Self::set) copy it. A number of up to 8 bytes is copied as a
/// whole; of a larger value a process that reads while another one writes may get some bytes of the
/// old and some of the new. Two processes that both do `set(get() + 1)` lose updates: use
/// [`AtomicValue`](super::AtomicValue) for that, or [`Value`](super::Value), which has a lock.
///
/// A clone is another handle of the same value; as an argument or a result it is one, too.
///
/// ```
/// use multiproc::{Process, RawValue};
///
/// let progress = RawValue::new(0.0f32)?;
/// let work = |progress: RawValue<f32>| progress.set(0.5);
/// Process::spawn(work, (progress.clone(),))?.join()?;
/// assert_eq!(progress.get(), 0.5);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct RawValue<T: Pod>(Raw<T>);

impl<T: Pod> RawValue<T> {
    /// A value in new shared memory.
    ///
    /// # Errors
    /// Out of memory; an OS error if this process has too many open files.
    pub fn new(value: T) -> Result<Self> {
        let raw = Raw::create(KIND, 1)
            .map_err(|error| Error::memory("a shared value could not be made", error))?;
        raw.write(0, &[value]);
        Ok(Self(raw))
    }

    /// A copy of the value as it is now.
    #[must_use]
    pub fn get(&self) -> T {
        self.0.get(0)
    }

    /// Overwrites the value.
    pub fn set(&self, value: T) {
        self.0.write(0, &[value]);
    }

    fn object(&self) -> &Arc<Object> {
        self.0.object()
    }

    fn open(object: Arc<Object>) -> io::Result<Self> {
        let raw = Raw::open(object, KIND)?;
        if raw.len() != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more or less than one value"));
        }
        Ok(Self(raw))
    }
}

travels!([T: Pod] RawValue<T>, it => it.object(), object => Self::open(object));

impl<T: Pod> Clone for RawValue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for RawValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawValue").field(&self.get()).finish()
    }
}
