//! The operating system: thin, safe wrappers over the Linux calls that the crate needs.
//!
//! Nothing here knows what a task or a worker is. Every descriptor made here is close-on-exec,
//! every interrupted call is retried, and every wait takes a [`Deadline`](clock::Deadline).

pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod epoll;
#[cfg(test)]
pub(crate) mod eventually;
pub(crate) mod exit;
pub(crate) mod fd;
pub(crate) mod fork;
pub(crate) mod futex;
mod holes;
pub(crate) mod identity;
pub(crate) mod image;
pub(crate) mod lasting;
pub(crate) mod lifeline;
pub(crate) mod limits;
pub(crate) mod memfd;
pub(crate) mod mmap;
pub(crate) mod named;
pub(crate) mod pidfd;
pub(crate) mod procfs;
mod rights;
pub(crate) mod room;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod spin;
pub(crate) mod stack;
pub(crate) mod stream;
