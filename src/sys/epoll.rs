//! Waiting on many descriptors at once.

use super::clock::Deadline;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::AsFd;

/// A set of descriptors, each with a token of the caller's.
#[derive(Debug)]
pub(crate) struct Poller(Epoll);

impl Poller {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds `fd`, to be reported as `token` while it is readable or hung up.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Removes `fd`; one that is not in the set is no error.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = self.0.delete(fd);
    }

    /// Waits until something is ready or the deadline passes; appends the tokens to `ready`.
    pub(crate) fn wait(&self, ready: &mut Vec<u64>, deadline: Deadline) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let timeout = EpollTimeout::try_from(deadline.poll_millis()).unwrap_or(EpollTimeout::MAX);
        match self.0.wait(&mut events, timeout) {
            Ok(count) => ready.extend(events[..count].iter().map(EpollEvent::data)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A descriptor that one thread makes readable to wake another from a [`Poller`].
#[derive(Debug)]
pub(crate) struct Kick(EventFd);

impl Kick {
    /// A new one, not readable.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Makes it readable.
    pub(crate) fn kick(&self) {
        // The only failure is a counter at its maximum, which is readable all the same.
        let _ = self.0.write(1);
    }

    /// Makes it unreadable again.
    pub(crate) fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Kick {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
