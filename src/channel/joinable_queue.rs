use super::line::{self, Line, QueueStats, Shutdown, queue_travels, verbs};
use super::ringed::Ringed;
use super::unfinished::{Account, TooMany};
use crate::shm::memory::Kind;
use crate::shm::owner::{self, Look};
use crate::shm::ring::{HEADER, Next, Ring, SPARE};
use crate::shm::seats::{EXAMINED, SEATS, Seats, TABLE};
use crate::sys::clock::Deadline;
use crate::wire::post::Post;
use crate::{Data, Error, Result};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-joinable-queue");
/// The word on which those sleep who join.
const BELL: usize = SPARE;
/// How many items processes had that died before they were done.
const ABANDONED: usize = SPARE + 8;
const SEATS_AT: usize = SPARE + 64;
const _: () = assert!(SEATS_AT + TABLE <= HEADER, "the words end with the ring's header");

/// A [`Queue`](crate::Queue) that knows which items are done, so that one can wait until all are:
/// Python's `multiprocessing.JoinableQueue`.
///
/// Whoever takes an item calls [`task_done`](JoinableQueue::task_done) when it has dealt with it;
/// [`join`](JoinableQueue::join) waits until that has happened for all items that were put.
///
/// An item that was taken belongs to the process that took it, and any thread of that process may
/// say that it is done. This is the difference from Python, where any process may: it lets `join`
/// see that a process died, or ended, with items that were not done. Those count as done then, and
/// as lost in [`stats`](JoinableQueue::stats), so nobody waits for them for ever.
/// One process may have 16 million items that are not done, and 1,024 processes may have any.
///
/// ```
/// use multiproc::{JoinableQueue, Process};
///
/// fn work(jobs: JoinableQueue<u32>) {
///     for job in jobs.iter().flatten() {
///         assert!(job < 100);
///         jobs.task_done().expect("it was taken");
///     }
/// }
///
/// let jobs = JoinableQueue::new()?;
/// let mut worker = Process::spawn(work, (jobs.clone(),))?;
/// for job in 0..100_u32 {
///     jobs.put(job)?;
/// }
/// jobs.join();
/// assert_eq!(jobs.unfinished(), 0);
/// jobs.close();
/// worker.join()?;
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct JoinableQueue<T>(Joinable<T>);

struct Joinable<T>(Ringed<T>);

impl<T> Clone for Joinable<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

queue_travels!(
    [T: Data] JoinableQueue<T>,
    queue => queue.0.0,
    from => Ringed::deserialize(KIND, from).map(Joinable).map(Self)
);

verbs!([T: Data] JoinableQueue<T>, capacity => Ringed::create(KIND, capacity).map(Joinable));

impl<T: Data> JoinableQueue<T> {
    /// For those who wait on descriptors.
    pub(super) fn parts(&self) -> Result<(&Ring, &Post)> {
        self.0.0.parts()
    }

    /// Says that an item, which this process has taken, is done.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if this process has taken none, or has said so
    /// for all that it took.
    pub fn task_done(&self) -> Result<()> {
        match self.0.account().done(owner::my_process()) {
            true => Ok(()),
            false => Err(Error::invalid(
                "task_done() was called more often than this process has taken items from the \
                 queue",
            )),
        }
    }

    /// Waits until all items that were put have been taken, and are done or lost. At once if
    /// nothing was put.
    pub fn join(&self) {
        while !self.0.join_until(Deadline::NEVER) {}
    }

    /// As [`join`](Self::join), for `timeout` at most. Zero means look,
    /// [`Duration::MAX`] for ever.
    ///
    /// # Errors
    /// [`is_timeout`](Error::is_timeout) if some were not done all the time.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        match self.0.join_until(Deadline::after(timeout)) {
            true => Ok(()),
            false => Err(line::timeout("end of all items of the queue", timeout)),
        }
    }

    /// How many items were put and are not done, at this moment; also those of processes that have
    /// died, until somebody finds that out.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        line::number(self.0.len().saturating_add(self.0.account().in_hands()))
    }
}

impl<T: Data> Joinable<T> {
    fn account(&self) -> Account<'_, Seats<'_>> {
        let memory = self.0.ring().memory();
        Account { seats: Seats::new(memory, SEATS_AT), bell: memory.word(BELL) }
    }

    /// Where the queue begins and ends, for the account.
    fn ends(&self) -> (u64, u64) {
        let (head, tail) = self.0.ring().numbers();
        // What nobody can take any more is not waited for.
        if self.0.ring().is_over() { (tail, tail) } else { (head, tail) }
    }

    fn settle(&self, look: Look) {
        let head = || self.0.ring().numbers().0;
        let lost = self.account().settle(look, owner::me(), head, owner::is_dead);
        if lost > 0 {
            // Relaxed: it stands for itself.
            self.0.ring().memory().word(ABANDONED).fetch_add(lost, Ordering::Relaxed);
            self.account().wake();
        }
    }

    /// As [`settle`](Self::settle), with a look at every seat.
    fn settle_all(&self) {
        for _ in 0..SEATS.div_ceil(EXAMINED) {
            self.settle(Look::Close);
        }
    }

    fn join_until(&self, deadline: Deadline) -> bool {
        self.account().wait(deadline, || self.ends(), |look| self.settle(look))
    }

    /// Takes an item into this process's hands, unless they are full.
    fn take(&self, deadline: Deadline) -> std::result::Result<Result<Option<T>>, TooMany> {
        let mut noting = Noting { account: self.account(), noted: None, refused: None };
        let got = self.0.get_noting(|item| noting.note(item), deadline);
        if !matches!(got, Ok(Some(_))) {
            // There was none, or nobody can deal with it any more.
            noting.forget();
        }
        noting.refused.map_or(Ok(got), Err)
    }
}

/// Notes each item that is taken in the account.
struct Noting<'a> {
    account: Account<'a, Seats<'a>>,
    /// The seat in which an item was noted, which may not have been taken yet.
    noted: Option<u32>,
    refused: Option<TooMany>,
}

impl Noting<'_> {
    /// What was noted last was not taken.
    fn forget(&mut self) {
        if let Some(seat) = self.noted.take() {
            self.account.lower(seat);
        }
    }

    /// This item is about to be taken.
    fn note(&mut self, item: Next) -> io::Result<()> {
        self.forget();
        if item.is_after_death {
            self.account.pass_on(item.number, |owner, look| {
                // A thread is about to settle what such a process had.
                !owner::is_process(owner) || owner::is_dead(owner, look)
            });
        }
        match self.account.taking(owner::my_process(), item.number) {
            Ok(seat) => {
                self.noted = Some(seat);
                Ok(())
            }
            Err(why) => {
                self.refused = Some(why);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

impl<T: Data> Line<T> for Joinable<T> {
    fn put_until(&self, item: &T, deadline: Deadline) -> Result<bool> {
        self.0.put_until(item, deadline)
    }

    fn get_until(&self, deadline: Deadline) -> Result<Option<T>> {
        let mut taken = self.take(deadline);
        if matches!(taken, Err(TooMany::Processes)) {
            // Otherwise only who joins looks for the dead, and perhaps nobody does.
            self.settle_all();
            taken = self.take(deadline);
        }
        taken.unwrap_or_else(|why| {
            Err(Error::invalid(match why {
                TooMany::Items => {
                    "this process has taken 16 million items and called task_done() for none of \
                     them"
                }
                TooMany::Processes => {
                    "1,024 processes have taken items from the queue and live, so no other one can"
                }
            }))
        })
    }

    fn len(&self) -> u64 {
        self.0.len()
    }

    fn capacity(&self) -> Option<u64> {
        self.0.capacity()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn shut(&self, how: Shutdown) {
        self.0.shut(how);
        self.account().wake();
    }

    fn stats(&self) -> QueueStats {
        self.settle(Look::Close);
        // Relaxed: it stands for itself.
        let abandoned = self.0.ring().memory().word(ABANDONED).load(Ordering::Relaxed);
        // Of those that the ring lost with their consumers the account knows, too.
        let twice = self.0.ring().counts().lost_in_copy;
        let stats = self.0.stats();
        let lost = stats.lost.saturating_sub(twice).saturating_add(abandoned);
        let taken = stats.taken.saturating_add(twice).saturating_sub(abandoned);
        QueueStats { lost, taken, ..stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::seats::Table;

    /// A queue with an item, in which somebody has taken items so often that no seat is left.
    fn crowded(by: u64) -> JoinableQueue<u32> {
        let jobs = JoinableQueue::new().expect("a queue");
        jobs.put(7_u32).expect("put");
        while jobs.0.account().seats.claim(by, 0).is_some() {}
        jobs
    }

    #[test]
    fn processes_that_have_died_keep_nobody_from_taking_items_though_nobody_joins() {
        let jobs = crowded(owner::dead::process());
        assert_eq!(jobs.try_get().expect("a seat"), Some(7));
        jobs.task_done().expect("it was taken");
        assert_eq!(jobs.unfinished(), 0);
    }

    #[test]
    fn as_many_as_there_can_be_that_live_keep_another_one_from_taking_an_item_which_stays() {
        let jobs = crowded(owner::me());
        assert!(jobs.try_get().expect_err("no seat").is_invalid_input());
        assert_eq!((jobs.len(), jobs.unfinished()), (1, 1));
    }
}
