//! Child processes, named by a descriptor instead of a number that may be reused.
//!
//! Semantics: pidfd_open(2), pidfd_send_signal(2), waitid(2) with `P_PIDFD`.

use super::clock::Deadline;
use super::fd::InternalFd;
use super::socket::{is_readable, wait_readable};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// How a child ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it; the flag says whether a core was dumped.
    Signal(i32, bool),
    /// Somebody else took the status (`SIGCHLD` is ignored, or another `wait` was faster).
    Unknown,
}

/// A child process of ours.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    fd: InternalFd,
    exit: Mutex<Option<Exit>>,
}

impl Child {
    /// Opens a child that has not been waited for.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
        Ok(Self::from_parts(pid, unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// A child of which both names are known.
    pub(crate) fn from_parts(pid: i32, fd: OwnedFd) -> Self {
        Self { pid, fd: InternalFd::new(fd), exit: Mutex::new(None) }
    }

    /// The process id; meaningful to humans and while the child has not been reaped.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal. A child that has ended is no error: it needs no signal.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is open for the call and the info pointer may be null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_fd().as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// How the child ended, if it has; reaps it the first time.
    pub(crate) fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut exit = self.exit.lock().unwrap_or_else(PoisonError::into_inner);
        if exit.is_none() {
            *exit = self.reap()?;
        }
        Ok(*exit)
    }

    /// Waits for the end of the child and reaps it; `None` if the deadline passes first.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<Option<Exit>> {
        loop {
            if let Some(exit) = self.try_wait()? {
                return Ok(Some(exit));
            }
            if !wait_readable(&self.fd, deadline)? {
                return Ok(None);
            }
        }
    }

    /// Kills the child and reaps it.
    pub(crate) fn kill_and_wait(&self) {
        let _ = self.signal(libc::SIGKILL);
        let _ = self.wait(Deadline::NEVER);
    }

    fn reap(&self) -> io::Result<Option<Exit>> {
        // SAFETY: siginfo_t is plain data for which all zeros is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = self.fd.as_fd().as_raw_fd() as libc::id_t;
        let flags = libc::WEXITED | libc::WNOHANG;
        // SAFETY: `info` is a live siginfo_t that the kernel fills.
        if unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, flags) } != 0 {
            return match io::Error::last_os_error() {
                // Not our child any more: it was reaped behind our back. It may also still run
                // (a child of a process that was replaced by fork); the pidfd knows.
                error if error.raw_os_error() == Some(libc::ECHILD) => {
                    Ok(is_readable(&self.fd)?.then_some(Exit::Unknown))
                }
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            };
        }
        // SAFETY: waitid fills these fields for a child event and leaves them zero for none.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok(match info.si_code {
            _ if pid == 0 => None,
            libc::CLD_EXITED => Some(Exit::Code(status)),
            libc::CLD_KILLED => Some(Exit::Signal(status, false)),
            libc::CLD_DUMPED => Some(Exit::Signal(status, true)),
            _ => Some(Exit::Unknown),
        })
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
