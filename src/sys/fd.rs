//! Descriptors that must not leak into forked children.
//!
//! Exec closes what is close-on-exec; a fork without exec keeps everything. The parent's ends of
//! sockets and of the lifeline are registered here, so that a forked child can neutralise them.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

static INTERNAL: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// An owned descriptor that forked children lose.
#[derive(Debug)]
pub(crate) struct InternalFd(Option<OwnedFd>);

impl InternalFd {
    /// Takes ownership of `fd` and registers it.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let mut registry = INTERNAL.lock().unwrap_or_else(PoisonError::into_inner);
        registry.insert(fd.as_raw_fd());
        Self(Some(fd))
    }

    /// Gives the descriptor back; forked children keep it from now on.
    pub(crate) fn into_owned(mut self) -> Option<OwnedFd> {
        let mut registry = INTERNAL.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = self.0.take()?;
        registry.remove(&fd.as_raw_fd());
        Some(fd)
    }
}

impl AsFd for InternalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only `drop` takes the descriptor out.
        self.0.as_ref().expect("an internal descriptor is there until it is dropped").as_fd()
    }
}

impl Drop for InternalFd {
    fn drop(&mut self) {
        let mut registry = INTERNAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = self.0.take() {
            registry.remove(&fd.as_raw_fd());
            // Closed while the registry is locked: the number cannot be reused by a new
            // descriptor that a fork in between would take for this one.
            drop(fd);
        }
    }
}

/// The mark of a descriptor that something else owns, and that forked children lose all the same.
/// It goes before its owner does.
#[derive(Debug)]
pub(crate) struct InternalMark(RawFd);

impl InternalMark {
    /// Marks a descriptor.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> Self {
        let mut registry = INTERNAL.lock().unwrap_or_else(PoisonError::into_inner);
        registry.insert(fd.as_raw_fd());
        Self(fd.as_raw_fd())
    }
}

impl Drop for InternalMark {
    fn drop(&mut self) {
        INTERNAL.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Replaces every internal descriptor of a freshly forked child by one of `/dev/null`.
///
/// They are not closed: objects inherited from the parent still own the numbers and close them
/// when they are dropped.
pub(crate) fn neutralise_after_fork() {
    let Ok(null) = open_null() else {
        return;
    };
    // The child has one thread; a lock held by another thread of the parent (forking with several
    // threads is the caller's unsafe choice) would never be released, so do not wait for it.
    let Ok(registry) = INTERNAL.try_lock() else {
        return;
    };
    for &fd in registry.iter() {
        // SAFETY: dup3 changes only the descriptor table. `fd` is owned by an `InternalFd` of this
        // crate, or by what has marked it, which never assume what their descriptor refers to.
        unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
    }
}

/// Replaces one descriptor by one of `/dev/null`, in a child that inherited it from its creator.
pub(crate) fn neutralise(fd: BorrowedFd<'_>) {
    if let Ok(null) = open_null() {
        // SAFETY: as in `neutralise_after_fork`: the number stays owned by whoever owns it.
        unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    }
}

/// Replaces the descriptor of a socket by one whose other end is closed. Who waits on the old one
/// goes on waiting on that.
pub(crate) fn hang_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (dead, _) = super::socket::pair()?;
    // SAFETY: dup3 changes only the descriptor table, and in one step: the number is never free.
    // It stays owned by whoever owns it, and refers to a socket as before.
    match unsafe { libc::dup3(dead.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn open_null() -> nix::Result<OwnedFd> {
    open(c"/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}
