//! Children that end when their parent does.
//!
//! `PR_SET_PDEATHSIG` fires when the *thread* that forked ends, which is wrong for a library that
//! is called from any thread. Instead every process that starts children holds the write end of
//! one pipe. Each child gets the read end opened anew, so that it has an open file description of
//! its own, and asks the kernel for a signal when the pipe hangs up (`O_ASYNC`, `F_SETOWN` and
//! `F_SETSIG`, fcntl(2)). The kernel closes the write end however the parent dies, so the signal
//! needs no thread, no polling and no co-operation of the code that the child runs.

use super::clock::Deadline;
use super::fd::InternalFd;
use super::fork;
use super::socket::{is_readable, wait_readable};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

struct Pipe {
    generation: u32,
    /// Where the read end can be opened anew.
    path: CString,
    // Held open, so that the path leads there.
    _read: OwnedFd,
    // Held open for as long as this process lives.
    _write: InternalFd,
}

static PIPE: Mutex<Option<Pipe>> = Mutex::new(None);

/// The end of this process's lifeline that one child gets: an open file description of its own.
pub(crate) fn read_end() -> io::Result<OwnedFd> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = fork::generation();
    let pipe = match pipe.as_mut().filter(|pipe| pipe.generation == generation) {
        Some(pipe) => pipe,
        None => pipe.insert(Pipe::new(generation)?),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(open(&*pipe.path, flags, Mode::empty())?)
}

impl Pipe {
    fn new(generation: u32) -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let path = CString::new(format!("/proc/self/fd/{}", read.as_raw_fd()))?;
        Ok(Self { generation, path, _read: read, _write: InternalFd::new(write) })
    }
}

/// From <linux/fcntl.h>; the same on every architecture. The libc crate lacks it.
const F_SETSIG: libc::c_int = 10;

/// The parent's life, as its child sees it.
#[derive(Debug)]
pub(crate) struct Lifeline(OwnedFd);

impl Lifeline {
    /// Watches the parent through the end that it opened for this process alone; `signal` (0 for
    /// none) comes to this process when the parent dies, and at once if it is dead already.
    pub(crate) fn watch(read_end: OwnedFd, signal: i32) -> io::Result<Self> {
        let lifeline = Self(read_end);
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
        // SAFETY: fcntl with these commands changes only the open file description, which the
        // parent opened for us alone; getpid has no preconditions.
        let armed = unsafe {
            libc::fcntl(fd, F_SETSIG, signal) == 0
                && libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
                && libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) == 0
        };
        if armed { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether the parent still lives.
    pub(crate) fn parent_is_alive(&self) -> bool {
        !is_readable(&self.0).unwrap_or(true)
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
