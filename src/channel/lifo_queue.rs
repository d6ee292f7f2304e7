use super::line::{self, Line, queue_travels, verbs};
use super::stored::{Discipline, Stored};
use crate::shm::memory::Kind;
use crate::{Data, Result};
use std::cmp::Ordering;

/// A queue whose latest item is taken first, between processes: a stack, Python's
/// `queue.LifoQueue`, which its `multiprocessing` lacks.
///
/// It is one lock around a list in shared memory. A process that is killed in the middle of a put
/// or a get has done it or not: the next one undoes what is half done, and nothing is lost. Items
/// may have any size; the lock is held while an item's bytes are copied. Items may name shared
/// objects (locks, queues and so on); the kernel limits their number: while some two hundred such
/// items are inside, one more has to wait.
///
/// ```
/// use multiproc::{LifoQueue, Process};
///
/// let plates = LifoQueue::new()?;
/// for plate in 1..=3_u32 {
///     plates.put(plate)?;
/// }
/// let mut process = Process::spawn(|plates: LifoQueue<u32>| plates.get(), (plates.clone(),))?;
/// assert_eq!(process.join()??, 3);
/// assert_eq!(plates.try_get()?, Some(2));
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct LifoQueue<T>(Stored<T, Latest>);

struct Latest;

impl<T: Data> Discipline<T> for Latest {
    const KIND: Kind = Kind::new("multiproc-lifo-queue");
    const COMPARE: Option<fn(&T, &T) -> Ordering> = None;
}

queue_travels!(
    [T: Data] LifoQueue<T>,
    queue => queue.0,
    from => Stored::deserialize(from).map(Self)
);

verbs!([T: Data] LifoQueue<T>, capacity => Stored::create(capacity));
