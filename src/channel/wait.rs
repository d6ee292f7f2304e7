//! Waiting for whichever of many things is ready first.

use super::pipe::{PipeEnd, PipeReceiver};
use super::{JoinableQueue, LifoQueue, PriorityQueue, Queue, SimpleQueue};
use crate::pool::AsyncResult;
use crate::shm::ring::Ring;
use crate::sys::clock::Deadline;
use crate::sys::socket;
use crate::wire::post::Post;
use crate::{Data, Error, Result};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What [`wait`] can wait for. There is nothing to implement: queues, the reading ends of pipes,
/// connections, listeners (ready when a client has knocked), the results of a pool, processes
/// (ready when they have ended), and whatever has a file descriptor, [`AsFd`], which is ready when
/// it is readable or hung up. Not the objects of a [`Manager`](crate::Manager): give these a thread.
pub trait Wait {
    /// How to learn that it is ready.
    #[doc(hidden)]
    fn source(&self) -> Result<Source<'_>>;
}

/// How to learn that something is ready.
#[doc(hidden)]
#[derive(Debug)]
pub struct Source<'a>(pub(crate) How<'a>);

#[derive(Debug)]
pub(crate) enum How<'a> {
    /// By a descriptor that is readable then.
    Fd(BorrowedFd<'a>),
    /// By a look at the ring; the bell in the socket rings when it is worth another one.
    Ring(&'a Ring, &'a Post),
    /// By a look now and then.
    Look(&'a dyn Ready),
}

/// Something that can be looked at.
pub(crate) trait Ready: std::fmt::Debug {
    /// Whether it is ready now.
    fn is_ready(&self) -> bool;
}

/// Waits until at least one of the objects is ready, and returns the numbers of those that are, in
/// ascending order; an empty list if the timeout passes first. `None` waits for ever, zero looks
/// once. Python's `multiprocessing.connection.wait`.
///
/// Ready means that the next `get` or `recv` does not wait, be it for an item, for the end of
/// file, or for the news that the queue is closed, unless somebody else is quicker. Sleeping costs
/// no processor time but for a look every 64 ms, or more often for a [`PriorityQueue`] or a
/// [`LifoQueue`], which have no bell.
///
/// ```
/// use multiproc::{Pipe, Process, Queue, wait};
/// use std::time::Duration;
///
/// fn work(queue: Queue<u32>) -> multiproc::Result<()> {
///     queue.put(7)
/// }
///
/// let queue = Queue::new()?;
/// let (_sender, receiver) = Pipe::<u32>::one_way()?;
/// let mut process = Process::spawn(work, (queue.clone(),))?;
/// assert_eq!(wait(&[&receiver, &queue], None)?, [1]);
/// assert_eq!(queue.get()?, 7);
/// assert_eq!(wait(&[&receiver, &queue, &process], None)?, [2]);
/// process.join()??;
/// assert!(wait(&[&receiver], Some(Duration::from_millis(1)))?.is_empty());
/// # Ok::<(), multiproc::Error>(())
/// ```
///
/// # Errors
/// [`is_os`](crate::Error::is_os) if the system refuses to wait on so many descriptors;
/// [`is_invalid_input`](crate::Error::is_invalid_input) for a handle that cannot be waited for.
pub fn wait(objects: &[&dyn Wait], timeout: Option<Duration>) -> Result<Vec<usize>> {
    let deadline = Deadline::after_opt(timeout);
    let sources = objects.iter().map(|object| object.source().map(|source| source.0));
    let sources = sources.collect::<Result<Vec<How<'_>>>>()?;
    let mut pause = Pause::of(&sources);
    loop {
        let ready = look(&sources)?;
        if !ready.is_empty() || deadline.passed() {
            return Ok(ready);
        }
        // Whoever makes one of them ready from here on sees that somebody waits ...
        for source in &sources {
            if let How::Ring(ring, _) = source {
                ring.poll_tail();
            }
        }
        // ... and who did before that is seen here.
        let ready = look(&sources)?;
        if !ready.is_empty() {
            return Ok(ready);
        }
        sleep(&sources, pause.next(deadline))?;
    }
}

/// Whether there is an item, or nobody to wait for.
fn is_ready(ring: &Ring, post: &Post) -> bool {
    ring.is_readable() || post.is_hung_up()
}

fn refused(error: io::Error) -> Error {
    Error::os("the objects could not be waited for", error)
}

/// The numbers of those that are ready.
fn look(sources: &[How<'_>]) -> Result<Vec<usize>> {
    let fds: Vec<_> = sources
        .iter()
        .filter_map(|source| if let How::Fd(fd) = source { Some(*fd) } else { None })
        .collect();
    let mut readable = socket::readable(&fds, Deadline::now()).map_err(refused)?.into_iter();
    let mut ready = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let is_ready = match source {
            How::Fd(_) => readable.next().unwrap_or(false),
            How::Ring(ring, post) => is_ready(ring, post),
            How::Look(look) => look.is_ready(),
        };
        if is_ready {
            ready.push(number);
        }
    }
    Ok(ready)
}

/// Sleeps until a descriptor is readable, or the deadline.
fn sleep(sources: &[How<'_>], deadline: Deadline) -> Result<()> {
    let with_fd = sources.iter().filter_map(|source| match source {
        How::Fd(fd) => Some((*fd, None)),
        How::Ring(ring, post) => Some((post.fd(), Some((*ring, *post)))),
        How::Look(_) => None,
    });
    let (fds, rings): (Vec<_>, Vec<_>) = with_fd.unzip();
    let readable = socket::readable(&fds, deadline).map_err(refused)?;
    let mut only_noise = readable.contains(&true);
    for (is_readable, ring) in readable.into_iter().zip(rings) {
        match ring {
            Some((ring, post)) if is_readable => {
                ring.as_consumer(|| post.quiet());
                only_noise &=
                    !is_ready(ring, post) && socket::is_readable(post.fd()).unwrap_or(true);
            }
            Some(_) => {}
            None => only_noise &= !is_readable,
        }
    }
    if only_noise {
        // A mail of somebody who died before it had put the item, or of somebody who is about to.
        for source in sources {
            if let How::Ring(ring, post) = source {
                ring.while_empty(|| post.clear());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// How long to sleep at a time.
#[derive(Debug)]
struct Pause {
    next: Option<Duration>,
    longest: Duration,
}

impl Pause {
    fn of(sources: &[How<'_>]) -> Self {
        let longest = |source: &How<'_>| match source {
            How::Fd(_) => None,
            // A wake-up is lost with the process that it came to.
            How::Ring(..) => Some(Duration::from_millis(64)),
            How::Look(_) => Some(Duration::from_millis(8)),
        };
        let longest = sources.iter().filter_map(longest).min();
        Self {
            next: longest.map(|_| Duration::from_millis(1)),
            longest: longest.unwrap_or_default(),
        }
    }

    fn next(&mut self, deadline: Deadline) -> Deadline {
        let Some(next) = self.next else { return deadline };
        self.next = Some((next * 2).min(self.longest));
        deadline.min(Deadline::after(next))
    }
}

impl<T: AsFd> Wait for T {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source(How::Fd(self.as_fd())))
    }
}

impl<R> Wait for AsyncResult<R> {
    fn source(&self) -> Result<Source<'_>> {
        self.ready_fd().map(|fd| Source(How::Fd(fd))).map_err(refused)
    }
}

macro_rules! rings {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        impl<$($generics)*> Wait for $type {
            fn source(&self) -> Result<Source<'_>> {
                let (ring, post) = self.parts()?;
                Ok(Source(How::Ring(ring, post)))
            }
        }
    )*};
}

rings! {
    [T: Data] Queue<T>;
    [T: Data] SimpleQueue<T>;
    [T: Data] JoinableQueue<T>;
    [T: Data] PipeReceiver<T>;
    [S: Data, R: Data] PipeEnd<S, R>;
}

impl<T: Data + Ord> Wait for PriorityQueue<T> {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source(How::Look(self)))
    }
}

impl<T: Data> Wait for LifoQueue<T> {
    fn source(&self) -> Result<Source<'_>> {
        Ok(Source(How::Look(self)))
    }
}

impl<T: Data + Ord> Ready for PriorityQueue<T> {
    fn is_ready(&self) -> bool {
        !self.is_empty() || self.is_closed()
    }
}

impl<T: Data> Ready for LifoQueue<T> {
    fn is_ready(&self) -> bool {
        !self.is_empty() || self.is_closed()
    }
}
