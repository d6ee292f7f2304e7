use super::line::{self, Line, queue_travels, verbs};
use super::ringed::Ringed;
use crate::shm::memory::Kind;
use crate::shm::ring::Ring;
use crate::wire::post::Post;
use crate::{Data, Result};

const KIND: Kind = Kind::new("multiproc-queue");

/// A queue between processes, first in, first out, with any number of producers and consumers:
/// Python's `multiprocessing.Queue`.
///
/// Items go through a ring in shared memory; nothing is encoded later, and no thread or process
/// stands between. So other than in Python an item that cannot be encoded is an error of the call
/// that puts it, and a process that exits, or is killed, has either put its item or has not.
/// What one thread puts comes out in that order.
///
/// A process that is killed at any instruction blocks nobody, and loses nothing that others have
/// put or will take: at most the item that it was taking, if that is larger than 128 KiB, or names
/// shared objects; [`stats`](Queue::stats) counts it. Items have up to 8 GiB.
///
/// | | |
/// |---|---|
/// | [`bounded`](Queue::bounded) | who puts waits while so many items are inside |
/// | [`new`](Queue::new) | as many items as there is memory for; the memory goes back when the queue is empty |
///
/// Items may name shared objects: locks, vectors, other queues, also this one. Their descriptors
/// travel through a socket, of which the kernel limits the length: while some two hundred such
/// items are inside the queue counts as full.
///
/// Clones, handles that came as arguments or inside of other items, and copies in forked children
/// are all the same queue. It is as durable as they are: when the last one goes, in whichever
/// process, what is inside goes, too.
///
/// ```
/// use multiproc::{Process, Queue};
///
/// fn square(numbers: Queue<u64>, squares: Queue<u64>) -> multiproc::Result<()> {
///     for number in &numbers {
///         let number = number?;
///         squares.put(number * number)?;
///     }
///     squares.close();
///     Ok(())
/// }
///
/// let (numbers, squares) = (Queue::bounded(16)?, Queue::new()?);
/// let mut process = Process::spawn(square, (numbers.clone(), squares.clone()))?;
/// for number in 1..=5_u64 {
///     numbers.put(number)?;
/// }
/// numbers.close();
/// let all: Vec<u64> = squares.iter().collect::<Result<_, _>>()?;
/// assert_eq!(all, [1, 4, 9, 16, 25]);
/// process.join()??;
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Queue<T>(Ringed<T>);

queue_travels!(
    [T: Data] Queue<T>,
    queue => queue.0,
    from => Ringed::deserialize(KIND, from).map(Self)
);

verbs!([T: Data] Queue<T>, capacity => Ringed::create(KIND, capacity));

impl<T: Data> Queue<T> {
    /// For those who wait on descriptors.
    pub(super) fn parts(&self) -> Result<(&Ring, &Post)> {
        self.0.parts()
    }
}
