use super::Queue;
use crate::Given;
use crate::shm::ring::Ring;
use crate::wire::post::Post;
use crate::{Data, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A queue with four verbs: Python's `multiprocessing.SimpleQueue`. It is a [`Queue`] without a
/// limit, and promises the same.
///
/// ```
/// use multiproc::{Process, SimpleQueue};
///
/// let names = SimpleQueue::new()?;
/// let greet = |names: SimpleQueue<String>| names.put("Alice".to_owned());
/// let mut process = Process::spawn(greet, (names.clone(),))?;
/// assert_eq!(names.get()?, "Alice");
/// assert!(names.is_empty());
/// process.join()??;
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "T: Data")]
pub struct SimpleQueue<T>(Queue<T>);

impl<T: Data> SimpleQueue<T> {
    /// For those who wait on descriptors.
    pub(super) fn parts(&self) -> Result<(&Ring, &Post)> {
        self.0.parts()
    }

    /// Makes an empty queue.
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn new() -> Result<Self> {
        Queue::new().map(Self)
    }

    /// Puts an item.
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put(&self, item: impl Given<T>) -> Result<()> {
        self.0.put(item)
    }

    /// Takes the next item; waits while there is none.
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn get(&self) -> Result<T> {
        self.0.get()
    }

    /// Whether no item is in the queue, at this moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`is_empty`](Self::is_empty), by Python's name for it.
    #[must_use]
    pub fn empty(&self) -> bool {
        self.is_empty()
    }

    /// Closes the queue in all processes: nothing is put any more, and getting is an error when
    /// nothing is left. (Python's `close` closes the handle only; here dropping does that.)
    pub fn close(&self) {
        self.0.close();
    }
}

impl<T> Clone for SimpleQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Data> fmt::Debug for SimpleQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimpleQueue").field(&self.0).finish()
    }
}
