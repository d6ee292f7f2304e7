//! Children that end when their parent does.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, which is wrong for a library that
//! is called from any thread. Instead every process that starts children holds the write end of
//! one pipe. Each child opens the read end anew, so that it has an open file description of its
//! own, and asks the kernel for a signal when the pipe hangs up (`O_ASYNC`, `F_SETOWN` and
//! `F_SETSIG`, fcntl(2)). The kernel closes the write end however the parent dies, so the signal
//! needs no thread, no polling and no co-operation of the code that the child runs.

use super::clock::Deadline;
use super::fd::InternalFd;
use super::fork;
use super::socket::wait_readable;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

struct Pipe {
    generation: u32,
    read: OwnedFd,
    // Held open for as long as this process lives.
    _write: InternalFd,
}

static PIPE: Mutex<Option<Pipe>> = Mutex::new(None);

/// The end of this process's lifeline that children get, as a descriptor of its own.
pub(crate) fn read_end() -> io::Result<OwnedFd> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = fork::generation();
    if let Some(pipe) = pipe.as_ref().filter(|pipe| pipe.generation == generation) {
        return pipe.read.try_clone();
    }
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let copy = read.try_clone()?;
    *pipe = Some(Pipe { generation, read, _write: InternalFd::new(write) });
    Ok(copy)
}

/// From <linux/fcntl.h>; the same on every architecture. The libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// The parent's life, as its child sees it.
#[derive(Debug)]
pub(crate) struct Lifeline(OwnedFd);

impl Lifeline {
    /// Watches the parent through the end that it passed; `signal` (0 for none) comes to this
    /// process when the parent dies, and at once if it is dead already.
    pub(crate) fn watch(read_end: OwnedFd, signal: i32) -> io::Result<Self> {
        let own = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", read_end.as_raw_fd()))?;
        let lifeline = Self(own.into());
        if signal != 0 {
            lifeline.arm(signal)?;
            if !lifeline.parent_is_alive() {
                // SAFETY: raising a signal in this process has no memory effects.
                unsafe { libc::kill(libc::getpid(), signal) };
            }
        }
        Ok(lifeline)
    }

    fn arm(&self, signal: i32) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: fcntl with these commands changes only the open file description, which is
        // ours alone; getpid has no preconditions.
        let armed = unsafe {
            libc::fcntl(fd, F_SETSIG, signal) == 0
                && libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
                && libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) == 0
        };
        if armed { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether the parent still lives.
    pub(crate) fn parent_is_alive(&self) -> bool {
        !self.wait(Deadline::after(std::time::Duration::ZERO))
    }

    /// Waits for the death of the parent; false if the deadline passes first.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        wait_readable(&self.0, deadline).unwrap_or(true)
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
