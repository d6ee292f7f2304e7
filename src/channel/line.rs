//! What all queues have in common: the verbs, and the words for what went wrong.

use crate::error::Kind;
use crate::shm::memory::number_of;
use crate::shm::ring::MAX_ITEM;
use crate::sys::clock::Deadline;
use crate::{Error, Execution, Result};
use std::fmt;
use std::io;
use std::time::Duration;

/// How a queue ends, for [`shutdown`](crate::PriorityQueue::shutdown): the `immediate` of Python's
/// `queue.Queue.shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// Nothing is put any more; what is in the queue can still be taken.
    Draining,
    /// Nothing is put or taken any more; what is in the queue is lost.
    Immediate,
}

/// What has happened in a queue so far, in all processes. The numbers are read one after the other
/// while others work, so they fit together exactly only when nobody does: then `put` is `taken` and
/// `lost` and `len` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueStats {
    /// Items that were put.
    pub put: u64,
    /// Items that were taken.
    pub taken: u64,
    /// Items that nobody will get: a process died with them in its hands, or the queue was shut
    /// down with them inside.
    pub lost: u64,
    /// Items that are in the queue.
    pub len: u64,
    /// Deaths of processes in the middle of a call, as far as others came upon them.
    pub deaths: u64,
}

/// A queue, as the verbs need it.
pub(super) trait Line<T> {
    /// Puts an item; false if there was no room until the deadline.
    fn put_until(&self, item: &T, deadline: Deadline) -> Result<bool>;
    /// Takes an item; `None` if there was none until the deadline.
    fn get_until(&self, deadline: Deadline) -> Result<Option<T>>;
    /// How many items there are.
    fn len(&self) -> u64;
    /// How many there can be, if there is a limit.
    fn capacity(&self) -> Option<u64>;
    /// Whether nothing can be put any more.
    fn is_closed(&self) -> bool;
    /// Ends it.
    fn shut(&self, how: Shutdown);
    /// The counters.
    fn stats(&self) -> QueueStats;
}

/// A number of items as the caller sees it.
pub(super) fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The error of a call on a queue that is closed.
#[cold]
pub(super) fn closed(what: &'static str) -> Error {
    Error::new(Kind::Closed, what)
}

/// For who puts.
pub(super) const NO_PUT: &str = "the queue is closed: nothing is put any more";
/// For who gets.
pub(super) const NO_GET: &str = "the queue is closed, and there is nothing left to be taken";

/// The error of a wait that was in vain.
#[cold]
pub(super) fn timeout(waiting: &str, timeout: Duration) -> Error {
    let kind = Kind::Timeout(Execution::NotStarted);
    Error::new(kind, format!("there was no {waiting} within {timeout:?}"))
}

/// The error of an item, or a message, that has more bytes than a ring takes.
#[cold]
pub(super) fn too_large(what: &str, parts: [&[u8]; 2]) -> Error {
    let len = parts[0].len() + parts[1].len();
    let why = format!("{what}: it has {len} bytes, and {MAX_ITEM} are the most");
    Error::new(Kind::TooLarge, why)
}

/// The error of a constructor.
#[cold]
pub(super) fn not_made(what: &str, error: io::Error) -> Error {
    Error::memory(format!("there is no shared memory for a {what}"), error)
}

/// The limit of a bounded queue.
pub(super) fn checked_capacity(capacity: usize) -> Result<u64> {
    match u64::try_from(capacity) {
        Ok(capacity @ 1..) => Ok(capacity),
        _ => Err(Error::invalid(
            "a queue that is bounded to 0 items could never take one: use a bound of 1 or more, or \
             `new` for no bound",
        )),
    }
}

/// A number for a type: handles of queues of different types do not open each other's objects.
pub(super) fn shape<T>() -> u64 {
    // All processes run the same build, so they call it the same.
    number_of(std::any::type_name::<T>())
}

/// The items of a queue, as they can be taken, until it is closed and empty: what iterating over a
/// queue gives. Each is an item, or why this one could not be taken.
pub struct Items<'a, T> {
    pub(super) line: &'a (dyn Line<T> + Sync),
}

impl<T> Iterator for Items<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            match self.line.get_until(Deadline::NEVER) {
                Ok(Some(item)) => return Some(Ok(item)),
                // Without a deadline only a hostile peer could end the wait.
                Ok(None) => {}
                Err(error) if error.is_closed() => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<T> fmt::Debug for Items<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("len", &self.line.len()).finish_non_exhaustive()
    }
}

/// The constructors and the verbs of a queue whose only field is a [`Line`]. `verbs!([generics]
/// Queue<T>, capacity => line)`: how that is made, with room for so many items or for all.
macro_rules! verbs {
    ([$($generics:tt)*] $name:ident<$t:ident>, $capacity:ident => $made:expr) => {
        impl<$($generics)*> $name<$t> {
            /// Makes a queue for as many items as there is memory for.
            ///
            /// # Errors
            /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
            /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
            pub fn new() -> crate::Result<Self> {
                Self::create(None)
            }

            /// Makes a queue for so many items at most.
            ///
            /// # Errors
            /// [`is_invalid_input`](crate::Error::is_invalid_input) if that is 0; else as
            /// [`new`](Self::new).
            pub fn bounded(capacity: usize) -> crate::Result<Self> {
                line::checked_capacity(capacity).map(Some).and_then(Self::create)
            }

            fn create($capacity: Option<u64>) -> crate::Result<Self> {
                $made.map(Self).map_err(|error| line::not_made("queue", error))
            }

            /// Puts an item, by value or by reference; waits while the queue is full.
            ///
            /// The item is encoded before anything else happens, on the caller's thread. When this
            /// returns the item is in the queue, whatever becomes of this process.
            ///
            /// # Errors
            /// [`is_closed`](crate::Error::is_closed) if the queue was closed;
            /// [`is_encode`](crate::Error::is_encode) if the item cannot be encoded,
            /// [`is_too_large`](crate::Error::is_too_large) if it has more bytes than this kind of
            /// queue takes, and [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no
            /// shared memory for it: then it was not put.
            pub fn put(&self, item: impl crate::Given<$t>) -> crate::Result<()> {
                let (line, item) = (&self.0, crate::Given::given(&item));
                // Without a deadline only a hostile peer could end the wait.
                while !line.put_until(item, crate::sys::clock::Deadline::NEVER)? {}
                Ok(())
            }

            /// Puts an item, if there is room now; whether there was.
            ///
            /// No call on a queue is ever in another one's way for long, unless its process was
            /// stopped (`SIGSTOP`) in the middle of it: that is waited for, for a second at most.
            ///
            /// # Errors
            /// As [`put`](Self::put).
            pub fn try_put(&self, item: impl crate::Given<$t>) -> crate::Result<bool> {
                self.0.put_until(crate::Given::given(&item), crate::sys::clock::Deadline::now())
            }

            /// Puts an item; waits while the queue is full, for `timeout` at most. Zero means try,
            /// [`Duration::MAX`](std::time::Duration::MAX) for ever.
            ///
            /// # Errors
            /// [`is_timeout`](crate::Error::is_timeout) if it was full all the time; else as
            /// [`put`](Self::put).
            pub fn put_timeout(
                &self,
                item: impl crate::Given<$t>,
                timeout: std::time::Duration,
            ) -> crate::Result<()> {
                let deadline = crate::sys::clock::Deadline::after(timeout);
                match self.0.put_until(crate::Given::given(&item), deadline)? {
                    true => Ok(()),
                    false => Err(line::timeout("room in the queue", timeout)),
                }
            }

            /// Takes the next item; waits while there is none.
            ///
            /// # Errors
            /// [`is_closed`](crate::Error::is_closed) if the queue was closed and nothing is left;
            /// [`is_decode`](crate::Error::is_decode) if the item that was taken cannot be
            /// decoded; [`is_os`](crate::Error::is_os) if it names shared objects and this process
            /// has too many open files: then it is still there.
            pub fn get(&self) -> crate::Result<$t> {
                loop {
                    let got = self.0.get_until(crate::sys::clock::Deadline::NEVER)?;
                    if let Some(item) = got {
                        return Ok(item);
                    }
                }
            }

            /// Takes the next item, if there is one now. A stopped process is waited for as by
            /// [`try_put`](Self::try_put).
            ///
            /// # Errors
            /// As [`get`](Self::get).
            pub fn try_get(&self) -> crate::Result<Option<$t>> {
                self.0.get_until(crate::sys::clock::Deadline::now())
            }

            /// Takes the next item; waits while there is none, for `timeout` at most. Zero means
            /// try, [`Duration::MAX`](std::time::Duration::MAX) for ever.
            ///
            /// # Errors
            /// [`is_timeout`](crate::Error::is_timeout) if there was none all the time; else as
            /// [`get`](Self::get).
            pub fn get_timeout(&self, timeout: std::time::Duration) -> crate::Result<$t> {
                let got = self.0.get_until(crate::sys::clock::Deadline::after(timeout))?;
                got.ok_or_else(|| line::timeout("item in the queue", timeout))
            }

            /// How many items are in the queue, at this moment.
            #[must_use]
            pub fn len(&self) -> usize {
                line::number(self.0.len())
            }

            /// Whether no item is in the queue, at this moment.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.0.len() == 0
            }

            /// Whether the queue has its limit of items, at this moment.
            #[must_use]
            pub fn is_full(&self) -> bool {
                self.0.capacity().is_some_and(|capacity| self.0.len() >= capacity)
            }

            /// The most items that can be in the queue; `None` if it is not bounded.
            #[must_use]
            pub fn capacity(&self) -> Option<usize> {
                self.0.capacity().map(line::number)
            }

            /// Closes the queue in all processes: nothing is put any more. What is inside can still
            /// be taken; after that, getting is an error and iterating ends. Whoever waits for
            /// room is woken.
            pub fn close(&self) {
                self.0.shut(crate::Shutdown::Draining);
            }

            /// Ends the queue in all processes: as [`close`](Self::close), or at once, with all
            /// that is inside. Whoever waits is woken.
            ///
            /// A queue that was closed can be shut down at once later, not the other way round.
            pub fn shutdown(&self, how: crate::Shutdown) {
                self.0.shut(how);
            }

            /// Whether the queue was closed, in whichever way.
            #[must_use]
            pub fn is_closed(&self) -> bool {
                self.0.is_closed()
            }

            /// The items, as they can be taken, until the queue is closed and empty.
            #[must_use]
            pub fn iter(&self) -> crate::Items<'_, $t> {
                crate::Items { line: &self.0 }
            }

            /// What has happened so far, in all processes.
            #[must_use]
            pub fn stats(&self) -> crate::QueueStats {
                self.0.stats()
            }
        }

        impl<'a, $($generics)*> IntoIterator for &'a $name<$t> {
            type Item = crate::Result<$t>;
            type IntoIter = crate::Items<'a, $t>;

            fn into_iter(self) -> crate::Items<'a, $t> {
                self.iter()
            }
        }

        impl<$t> Clone for $name<$t> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<$($generics)*> std::fmt::Debug for $name<$t> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($name));
                debug.field("len", &self.0.len()).field("capacity", &self.0.capacity());
                debug.field("closed", &self.0.is_closed()).finish()
            }
        }
    };
}
pub(super) use verbs;

/// Implements `Serialize` and `Deserialize` for a queue by what it is made of.
macro_rules! queue_travels {
    (
        [$($generics:tt)*] $name:ident<$t:ident>,
        $queue:ident => $inner:expr,
        $from:ident => $open:expr
    ) => {
        impl<$($generics)*> serde::Serialize for $name<$t> {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let $queue = self;
                $inner.serialize(to)
            }
        }

        impl<'de, $($generics)*> serde::Deserialize<'de> for $name<$t> {
            fn deserialize<D: serde::Deserializer<'de>>($from: D) -> Result<Self, D::Error> {
                $open
            }
        }
    };
}
pub(super) use queue_travels;
