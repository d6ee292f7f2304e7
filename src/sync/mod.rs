//! Locks and signals between processes.
//!
//! Every type here is a handle of an object in shared memory: cloning it, sending it as an
//! argument, an item, a context or a result, and inheriting it by fork all give another handle of
//! the same object. `src/sync/README.md` explains the protocols.
//!
//! | situation | use |
//! |---|---|
//! | one at a time may do something | [`Lock`]; [`RLock`] if the code that has it calls code that takes it |
//! | one at a time may change some data | [`Mutex`]; [`RwLock`] if most only read |
//! | a few at a time may do something | [`Semaphore`], or [`BoundedSemaphore`] to find a release too many |
//! | tell all that something has happened | [`Event`] |
//! | wait until data has changed so that … | [`Condition`] on a [`Mutex`] |
//! | all go on when all have arrived, again and again | [`Barrier`] |
//! | one waits until all have finished, once | [`Latch`] |
//! | the first one sets something up, once | [`Once`] |
//!
//! # What waiting costs
//!
//! Whoever has to wait looks for a few microseconds, then sleeps in the kernel. Since a process can
//! be killed in the middle of anything, no sleep relies on a wake-up: a sleeper looks for itself
//! after 1 ms, 2 ms, 4 ms and so on, at most every 64 ms. So a wait of seconds costs 16 short looks
//! a second, and what a killed process should have told is found after a few of them. None of the
//! types is first come first served, except for [`Condition`], which notifies the one that has
//! waited longest; [`RwLock`] lets readers and writers take turns. One release wakes one waiter:
//! only an [`Event`], a [`Barrier`], a [`Latch`] and [`Condition::notify_all`] wake all.
//!
//! The first time that a thread takes anything it finds out its own name, which costs 10 us.
//!
//! # What they protect against
//!
//! The death of a process at any instruction. Processes that share an object trust each other with
//! its *data*, as threads do; one that writes over the words of the object makes others wait in
//! vain or get in too early, but never leads them outside the memory. Who lives is asked of
//! `/proc` by thread ids and start times, so objects must not be shared with a process in another
//! pid or time namespace (a container).
//! A process that calls `exec` keeps its name, so it must not hold a lock then.
mod barrier;
mod condition;
mod event;
mod handle;
mod latch;
mod lock;
mod members;
mod mutex;
mod once;
mod rlock;
mod rwlock;
mod semaphore;

pub(crate) use members::{Members, Tasks};

pub use crate::OwnerDied;
pub use barrier::{Barrier, BarrierWaitResult};

pub use condition::{Condition, Guard};
pub use event::Event;
pub use latch::Latch;
pub use lock::{Lock, LockGuard};
pub use mutex::{Mutex, MutexGuard};
pub use once::Once;
pub use rlock::{RLock, RLockGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
