use super::line::{self, Line, queue_travels, verbs};
use super::stored::{Discipline, Stored};
use crate::shm::memory::Kind;
use crate::{Data, Result};
use std::cmp::Ordering;

/// A queue whose smallest item is taken first, between processes: Python's `queue.PriorityQueue`,
/// which its `multiprocessing` lacks.
///
/// Items are compared by their [`Ord`]; of equal ones the eldest is first. For the largest first
/// put [`std::cmp::Reverse`]. Putting decodes and compares about as many of the items that are
/// there as the queue's length has binary digits, or half as many again, outside of any lock: if
/// the comparison panics, blocks, or uses the queue itself, nobody else notices. Getting compares
/// nothing. As whole items are decoded to be compared, large ones are better kept elsewhere (in a
/// [`SharedVec`](crate::SharedVec), say, which an item may name).
///
/// It is one lock around a tree in shared memory. A process that is killed in the middle of a put
/// or a get has done it or not: the next one undoes what is half done, and nothing is lost. Items
/// may have any size; the lock is held while an item's bytes are copied. Items may name shared
/// objects (locks, queues and so on); the kernel limits their number: while some two hundred such
/// items are inside, one more has to wait.
///
/// An item that its process cannot decode counts as the smallest: whoever takes it gets the error.
///
/// ```
/// use multiproc::{PriorityQueue, Process};
///
/// let jobs = PriorityQueue::<(u32, String)>::new()?;
/// jobs.put((3, "sweep".to_owned()))?;
/// jobs.put((1, "cook".to_owned()))?;
/// let cook = |jobs: PriorityQueue<(u32, String)>| jobs.get().map(|(_, job)| job);
/// let mut process = Process::spawn(cook, (jobs.clone(),))?;
/// assert_eq!(process.join()??, "cook");
/// assert_eq!(jobs.len(), 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct PriorityQueue<T>(Stored<T, Smallest>);

struct Smallest;

impl<T: Data + Ord> Discipline<T> for Smallest {
    const KIND: Kind = Kind::new("multiproc-priority-queue");
    const COMPARE: Option<fn(&T, &T) -> Ordering> = Some(T::cmp);
}

queue_travels!(
    [T: Data + Ord] PriorityQueue<T>,
    queue => queue.0,
    from => Stored::deserialize(from).map(Self)
);

verbs!([T: Data + Ord] PriorityQueue<T>, capacity => Stored::create(capacity));
