//! Objects that a server process holds, and proxies of them: Python's managers.
//!
//! [`Manager`] starts the server and makes the objects; the types here are proxies, each named
//! after what it stands for. Those that are also in shared memory are much quicker there: a manager
//! is for collections, for objects of types that cannot be in shared memory, and for what must be
//! reached by any process that can be sent a handle.
//!
//! | in the server | for |
//! |---|---|
//! | [`List`], [`Dict`], [`Set`], [`Value`], [`Array`], [`Namespace`] | data of any type that travels |
//! | [`Queue`], [`JoinableQueue`] | items from producers to consumers |
//! | [`Lock`], [`RLock`], [`Semaphore`], [`BoundedSemaphore`], [`Condition`], [`Event`], [`Barrier`] | taking turns |
//! | [`Pool`], [`AsyncResult`] | worker processes that several processes share |
//! | [`Proxy`], [`#[multiproc::managed]`](macro@crate::managed) | objects of any type of one's own |
//!
//! # Where they differ from their namesakes
//!
//! Some have the names of types of this crate that are in shared memory. Every method of a proxy is
//! a call, so it returns a [`Result`](crate::Result), `len` and `is_empty` too, and none of them
//! can be given to [`wait`](crate::wait()). Beyond that:
//!
//! - Whoever had a lock died: `lock` fails, and other than with [`OwnerDied`](crate::OwnerDied) the
//!   caller does *not* have it. The next call succeeds.
//! - A consumer died with an item: [`JoinableQueue::join`] fails, once, where
//!   [that in shared memory](crate::JoinableQueue::join) goes on and counts it. And any process may
//!   call [`task_done`](JoinableQueue::task_done).
//! - A queue with a limit is made by [`bounded_queue`](Manager::bounded_queue).
//!
//! # What a client can do, and what not
//!
//! Clients are processes of the same program: a server calls only methods that the program itself
//! names, on objects of their type, so a client that sends garbage gets errors and nobody else
//! notices. But all that have a handle of a manager trust each other with its objects.
//!
//! # Limits
//!
//! A call may name at most 224 shared objects, and a proxy is one: a list of more proxies cannot be
//! copied as a whole, but item by item. An object that holds a proxy of itself (a dictionary that
//! was put into itself), or two that hold proxies of each other, keep each other until the manager
//! is shut down: take the proxy out again, or keep it outside of the server. If the program is
//! built with `panic = "abort"`, a panic in a method ends the server.

mod array;
mod async_result;
mod barrier;
mod channel;
mod condition;
mod control;
mod dict;
mod event;
mod imap;
mod items;
mod life;
mod link;
mod list;
mod lock;
mod lookup;
mod maybe_made;
mod message;
mod names;
mod namespace;
mod parked;
mod pool;
mod proxy;
mod queue;
mod remote;
mod semaphore;
mod server;
mod session;
mod set;
mod slice;
// Their servers enter through the hook.
#[cfg(all(test, feature = "hook"))]
mod tests;
mod value;
mod waiting;

pub use array::Array;
pub use async_result::AsyncResult;
pub use barrier::{Barrier, BarrierWaitResult};
pub use condition::{Condition, Guard};
pub use dict::Dict;
pub use event::Event;
pub use imap::Imap;
pub use items::Items;
pub use life::{Manager, ManagerBuilder};
pub use list::List;
pub use lock::{Lock, LockGuard, RLock, RLockGuard};
pub use lookup::Lookup;
#[doc(hidden)]
pub use maybe_made::MaybeMade;
pub use namespace::Namespace;
pub use pool::Pool;
pub use proxy::Proxy;
pub use queue::{JoinableQueue, Queue};
pub use semaphore::{BoundedSemaphore, Permit, Semaphore};
pub use set::Set;
pub use value::Value;
