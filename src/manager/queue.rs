//! `Queue` and `JoinableQueue`.

use super::items::Items;
use super::proxy::proxy_type;
use super::waiting::Room;
use crate::Given;
use crate::entry::{Caller, Departure};
use crate::error::Kind;
use crate::manager::Manager;
use crate::{Data, Error, Execution, Result, Shutdown};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What becomes of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Takes no more, and gives what it has.
    Closed,
}

/// A queue in the server.
#[derive(Debug)]
pub(super) struct Line<T>(Room<State<T>>);

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    capacity: usize,
    phase: Phase,
    /// Items that were put and not declared done.
    unfinished: usize,
    /// Of these, how many each caller has got and not declared done.
    taken: HashMap<u64, usize>,
    /// Items whose consumers have died, and of which nobody has been told.
    lost: usize,
    /// Whether anybody declares items done.
    is_joinable: bool,
}

impl<T> State<T> {
    /// Puts an item, if there is room.
    fn put(&mut self, item: &mut Option<T>) -> Option<Result<()>> {
        if self.phase == Phase::Closed {
            return Some(Err(closed()));
        }
        if self.items.len() >= self.capacity {
            return None;
        }
        if let Some(item) = item.take() {
            self.items.push_back(item);
            self.unfinished += usize::from(self.is_joinable);
        }
        Some(Ok(()))
    }

    /// Takes an item, if there is one.
    fn get(&mut self, caller: u64) -> Option<Result<T>> {
        match self.items.pop_front() {
            Some(item) => {
                if self.is_joinable {
                    *self.taken.entry(caller).or_default() += 1;
                }
                Some(Ok(item))
            }
            None => (self.phase == Phase::Closed).then(|| Err(closed())),
        }
    }

    /// Declares an item done: one that this caller has got, or else anybody's.
    fn task_done(&mut self, caller: u64) -> Result<()> {
        let own = self.taken.get(&caller).map(|_| caller);
        let Some(of) = own.or_else(|| self.taken.keys().next().copied()) else {
            return Err(Error::invalid(
                "task_done was called more often than items were got from the queue",
            ));
        };
        self.unfinished -= 1;
        self.forget_one(of);
        Ok(())
    }

    fn forget_one(&mut self, of: u64) {
        if let Some(count) = self.taken.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&of);
            }
        }
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the manager's queue is closed: it takes no more items, and has none")
}

fn timed_out(what: &str, timeout: Duration) -> Error {
    let kind = Kind::Timeout(Execution::NotStarted);
    Error::new(kind, format!("{what} within {timeout:?}"))
}

impl<T: Send + Sync + 'static> Line<T> {
    fn new(capacity: usize, is_joinable: bool) -> Self {
        Self(Room::new(State {
            items: VecDeque::new(),
            capacity,
            phase: Phase::Open,
            unfinished: 0,
            taken: HashMap::new(),
            lost: 0,
            is_joinable,
        }))
    }

    /// Puts an item; false if the time passed.
    fn put(&self, caller: &dyn Caller, item: T, timeout: Duration) -> Result<bool> {
        let mut item = Some(item);
        let put = self.0.wait(caller, timeout, |state| state.put(&mut item));
        put.transpose().map(|put| put.is_some())
    }

    /// Takes an item; `None` if the time passed.
    fn get(self: &Arc<Self>, caller: &dyn Caller, timeout: Duration) -> Result<Option<T>> {
        let holder: Weak<Self> = Arc::downgrade(self);
        let id = caller.id();
        let got = self.0.wait(caller, timeout, |state| state.get(id));
        if got.is_some() && self.0.look(|state| state.is_joinable) {
            caller.holds(holder);
        }
        got.transpose()
    }

    fn close(&self, and_empty: bool) {
        let dropped = self.0.change(|state| {
            state.phase = Phase::Closed;
            let dropped =
                if and_empty { std::mem::take(&mut state.items) } else { VecDeque::new() };
            state.unfinished -= if state.is_joinable { dropped.len() } else { 0 };
            dropped
        });
        // The user's drop, outside the lock.
        drop(dropped);
    }
}

impl<T: Send + Sync> Departure for Line<T> {
    fn departed(&self, caller: u64, _: bool) {
        self.0.change(|state| {
            let lost = state.taken.remove(&caller).unwrap_or(0);
            state.unfinished -= lost;
            state.lost += lost;
        });
    }
}

proxy_type! {
    /// A queue that a [`Manager`]'s server holds: Python's `Manager().Queue()`.
    ///
    /// First in, first out, for any number of producers and consumers. An item is in the server or
    /// with one consumer, never with two; one that a consumer was given is gone with it if it is
    /// killed, and a consumer that is killed while it waits takes nothing.
    /// [`multiproc::Queue`](crate::Queue) is in shared memory and much quicker; this one can be
    /// reached by whoever can reach the manager.
    ///
    /// ```
    /// use multiproc::{Manager, Process};
    /// use multiproc::manager::Queue;
    ///
    /// let manager = Manager::start()?;
    /// let queue = manager.queue::<u32>()?;
    /// let produce = |queue: Queue<u32>| {
    ///     for number in 0..3 {
    ///         queue.put(number).expect("the server lives");
    ///     }
    ///     queue.close().expect("the server lives");
    /// };
    /// let mut producer = Process::spawn(produce, (queue.clone(),))?;
    /// let numbers: Vec<u32> = queue.iter().collect::<Result<_, _>>()?;
    /// assert_eq!(numbers, [0, 1, 2]);
    /// producer.join()?;
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does; beyond that, as it
    /// says.
    Queue [T] of Line<T>
}

proxy_type! {
    /// A [`Queue`] whose consumers say when they are done with an item, so that
    /// [`join`](JoinableQueue::join) can wait for all of them: Python's
    /// `Manager().JoinableQueue()`. [`multiproc::JoinableQueue`](crate::JoinableQueue) is in shared
    /// memory.
    ///
    /// An item that a consumer got and had not declared done when it died will not be done by
    /// anybody: it counts no longer, and one `join` tells.
    ///
    /// ```
    /// use multiproc::{Manager, Process};
    /// use multiproc::manager::JoinableQueue;
    ///
    /// let manager = Manager::start()?;
    /// let jobs = manager.joinable_queue::<u32>()?;
    /// let work = |jobs: JoinableQueue<u32>| {
    ///     while jobs.get().is_ok() {
    ///         jobs.task_done().expect("one was got");
    ///     }
    /// };
    /// let mut worker = Process::spawn(work, (jobs.clone(),))?;
    /// for job in 0..10 {
    ///     jobs.put(job)?;
    /// }
    /// jobs.join()?; // all ten are done
    /// jobs.close()?;
    /// worker.join()?;
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Queue`].
    JoinableQueue [T] of Line<T>
}

fn check_capacity(capacity: usize) -> Result<()> {
    match capacity {
        0 => Err(Error::invalid("a queue for 0 items: a bounded queue has room for one at least")),
        _ => Ok(()),
    }
}

impl Manager {
    /// Makes a queue that takes as many items as the server's memory does.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn queue<T: Data + Send + Sync>(&self) -> Result<Queue<T>> {
        self.hold_raw(|()| Ok(Line::<T>::new(UNBOUNDED, false)), ()).map(Queue)
    }

    /// Makes a queue for at most `capacity` items at a time.
    ///
    /// # Errors
    /// As [`Manager::create`], and [`is_invalid_input`](Error::is_invalid_input) for a capacity of
    /// 0.
    pub fn bounded_queue<T: Data + Send + Sync>(&self, capacity: usize) -> Result<Queue<T>> {
        check_capacity(capacity)?;
        let make = |(capacity,): (usize,)| Ok(Line::<T>::new(capacity, false));
        self.hold_raw(make, (&capacity,)).map(Queue)
    }

    /// Makes a joinable queue that takes as many items as the server's memory does.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn joinable_queue<T: Data + Send + Sync>(&self) -> Result<JoinableQueue<T>> {
        self.hold_raw(|()| Ok(Line::<T>::new(UNBOUNDED, true)), ()).map(JoinableQueue)
    }

    /// Makes a joinable queue for at most `capacity` items at a time.
    ///
    /// # Errors
    /// As [`Manager::create`], and [`is_invalid_input`](Error::is_invalid_input) for a capacity of
    /// 0.
    pub fn bounded_joinable_queue<T: Data + Send + Sync>(
        &self,
        capacity: usize,
    ) -> Result<JoinableQueue<T>> {
        check_capacity(capacity)?;
        let make = |(capacity,): (usize,)| Ok(Line::<T>::new(capacity, true));
        self.hold_raw(make, (&capacity,)).map(JoinableQueue)
    }
}

/// The methods that both kinds have.
macro_rules! queue_methods {
    ($name:ident) => {
        impl<T: Data + Send + Sync> $name<T> {
            fn put_within(&self, item: &T, timeout: Duration) -> Result<bool> {
                self.0.raw(
                    |line: &Arc<Line<T>>, caller: &dyn Caller, (item, timeout): (T, Duration)| {
                        line.put(caller, item, timeout)
                    },
                    (item, &timeout),
                )
            }

            fn get_within(&self, timeout: Duration) -> Result<Option<T>> {
                self.0.raw(
                    |line: &Arc<Line<T>>, caller: &dyn Caller, (timeout,): (Duration,)| {
                        line.get(caller, timeout)
                    },
                    (&timeout,),
                )
            }

            /// Puts an item, given as it is or borrowed, and waits while the queue is full.
            ///
            /// # Errors
            /// [`is_closed`](Error::is_closed) if the queue is, or is closed meanwhile.
            pub fn put(&self, item: impl Given<T>) -> Result<()> {
                self.put_timeout(item, Duration::MAX)
            }

            /// Puts an item if there is room now; whether there was.
            ///
            /// # Errors
            /// [`is_closed`](Error::is_closed) if the queue is.
            pub fn try_put(&self, item: impl Given<T>) -> Result<bool> {
                self.put_within(item.given(), Duration::ZERO)
            }

            /// Puts an item, and waits for room for `timeout` at most.
            ///
            /// # Errors
            /// [`is_timeout`](Error::is_timeout) if it passed, [`is_closed`](Error::is_closed) if
            /// the queue is, or is closed meanwhile.
            pub fn put_timeout(&self, item: impl Given<T>, timeout: Duration) -> Result<()> {
                match self.put_within(item.given(), timeout)? {
                    true => Ok(()),
                    false => Err(timed_out("there was no room in the manager's queue", timeout)),
                }
            }

            /// Puts all items, one after another.
            ///
            /// # Errors
            /// As [`put`](Self::put); those before are in the queue then.
            pub fn put_many(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
                items.into_iter().try_for_each(|item| self.put(item))
            }

            /// Takes the next item, and waits for one.
            ///
            /// # Errors
            /// [`is_closed`](Error::is_closed) if the queue is closed, or is meanwhile, and has no
            /// items any more.
            pub fn get(&self) -> Result<T> {
                self.get_timeout(Duration::MAX)
            }

            /// Takes the next item, if there is one now.
            ///
            /// # Errors
            /// As [`get`](Self::get).
            pub fn try_get(&self) -> Result<Option<T>> {
                self.get_within(Duration::ZERO)
            }

            /// Takes the next item, and waits for one for `timeout` at most.
            ///
            /// # Errors
            /// [`is_timeout`](Error::is_timeout) if it passed; otherwise as [`get`](Self::get).
            pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
                let got = self.get_within(timeout)?;
                got.ok_or_else(|| timed_out("no item came to the manager's queue", timeout))
            }

            /// Takes item after item until the queue is closed and empty.
            #[must_use]
            pub fn iter(&self) -> Items<'_, T> {
                Items::new(|| self.get())
            }

            /// The number of items in the queue.
            pub fn len(&self) -> Result<usize> {
                let len = |line: &Arc<Line<T>>, _: &dyn Caller, ()| {
                    Ok(line.0.look(|state| state.items.len()))
                };
                self.0.raw(len, ())
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> Result<bool> {
                self.len().map(|len| len == 0)
            }

            /// Whether there is no room.
            pub fn is_full(&self) -> Result<bool> {
                let is_full = |line: &Arc<Line<T>>, _: &dyn Caller, ()| {
                    Ok(line.0.look(|state| state.items.len() >= state.capacity))
                };
                self.0.raw(is_full, ())
            }

            /// The most items that can be in the queue; `None` if it is not bounded.
            pub fn capacity(&self) -> Result<Option<usize>> {
                let capacity = |line: &Arc<Line<T>>, _: &dyn Caller, ()| {
                    Ok(line.0.look(|state| state.capacity))
                };
                let capacity: usize = self.0.raw(capacity, ())?;
                Ok((capacity != UNBOUNDED).then_some(capacity))
            }

            /// Closes the queue: it takes no more items, and gives those that it has. Closing it
            /// again changes nothing.
            pub fn close(&self) -> Result<()> {
                let close = |line: &Arc<Line<T>>, _: &dyn Caller, ()| Ok(line.close(false));
                self.0.raw(close, ())
            }

            /// Ends the queue: as [`close`](Self::close), or at once, and drops the items that are
            /// in it. Whoever waits is woken.
            pub fn shutdown(&self, how: Shutdown) -> Result<()> {
                let close = |line: &Arc<Line<T>>, _: &dyn Caller, (and_empty,): (bool,)| {
                    line.close(and_empty);
                    Ok(())
                };
                self.0.raw(close, (&(how == Shutdown::Immediate),))
            }

            /// Whether the queue is closed.
            pub fn is_closed(&self) -> Result<bool> {
                let is_closed = |line: &Arc<Line<T>>, _: &dyn Caller, ()| {
                    Ok(line.0.look(|state| state.phase == Phase::Closed))
                };
                self.0.raw(is_closed, ())
            }
        }

        impl<'a, T: Data + Send + Sync> IntoIterator for &'a $name<T> {
            type Item = Result<T>;
            type IntoIter = Items<'a, T>;

            fn into_iter(self) -> Items<'a, T> {
                self.iter()
            }
        }
    };
}

/// The capacity of a queue that has no limit.
const UNBOUNDED: usize = usize::MAX;

queue_methods!(Queue);
queue_methods!(JoinableQueue);

impl<T: Data + Send + Sync> JoinableQueue<T> {
    /// Declares an item done that was got.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if more items would be done than were got.
    pub fn task_done(&self) -> Result<()> {
        let done = |line: &Arc<Line<T>>, caller: &dyn Caller, ()| {
            line.0.change(|state| state.task_done(caller.id()))
        };
        self.0.raw(done, ())
    }

    /// Waits until all items that were put are done.
    ///
    /// # Errors
    /// [`is_owner_died`](Error::is_owner_died), once all others are done, if items were lost with
    /// consumers that died before they declared them done; this is told once.
    pub fn join(&self) -> Result<()> {
        self.join_within(Duration::MAX).map(drop)
    }

    /// As [`join`](JoinableQueue::join), for `timeout` at most.
    ///
    /// # Errors
    /// As `join`, and [`is_timeout`](Error::is_timeout) if it passed.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        match self.join_within(timeout)? {
            true => Ok(()),
            false => Err(timed_out("not all items of the manager's queue were done", timeout)),
        }
    }

    fn join_within(&self, timeout: Duration) -> Result<bool> {
        let join = |line: &Arc<Line<T>>, caller: &dyn Caller, (timeout,): (Duration,)| {
            let lost = line.0.wait(caller, timeout, |state| {
                (state.unfinished == 0).then(|| std::mem::take(&mut state.lost))
            });
            match lost {
                None => Ok(false),
                Some(0) => Ok(true),
                Some(lost) => Err(Error::new(
                    Kind::OwnerDied,
                    format!("{lost} items were lost with consumers that ended before task_done"),
                )),
            }
        };
        self.0.raw(join, (&timeout,))
    }

    /// The number of items that were put and are not done.
    pub fn unfinished(&self) -> Result<usize> {
        let unfinished =
            |line: &Arc<Line<T>>, _: &dyn Caller, ()| Ok(line.0.look(|state| state.unfinished));
        self.0.raw(unfinished, ())
    }
}
