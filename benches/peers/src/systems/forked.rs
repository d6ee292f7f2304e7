//! Processes forked here and the memory between them, by bare system calls.

use std::io;
use std::ptr;

use anyhow::{Context, Result, ensure};

/// Memory shared with processes forked later, zeroed at first.
pub struct Shared {
    /// Where it is mapped.
    start: *mut libc::c_void,
    /// How many bytes.
    size: usize,
}

impl Shared {
    /// Maps that many bytes.
    pub fn new(size: usize) -> Result<Shared> {
        // SAFETY: an anonymous mapping at an address that the kernel chooses
        // touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("mmap");
        }
        Ok(Shared { start, size })
    }

    /// Where it is mapped, aligned to a page.
    pub fn start<T>(&self) -> *mut T {
        self.start.cast()
    }

    /// The bytes, which must be used by one process only.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has this size and lives as long as `self`, which
        // is borrowed exclusively; any content is valid.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.size) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and borrows of it have ended.
        unsafe { libc::munmap(self.start, self.size) };
    }
}

/// Forks a process which runs `child` and ends.
///
/// What it runs may only use memory that exists and system calls: with more than
/// one thread here, anything else (a lock, say) could be in an unusable state.
pub fn fork(child: impl FnOnce()) -> Result<libc::pid_t> {
    // SAFETY: the child only runs `child`, which the callers (`limit` and `pthread`)
    // keep to atomics, objects of pthread and system calls, and `_exit`; these are
    // fine after any fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            child();
            // SAFETY: ends the process at once, whatever its state.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child, which must end with success.
pub fn wait(pid: libc::pid_t) -> Result<()> {
    let mut status = 0;
    // SAFETY: the status is written to a variable that lives throughout.
    let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if result != pid {
        return Err(io::Error::last_os_error()).context("waitpid");
    }
    ensure!(status == 0, "a child ended with status {status:#x}");
    Ok(())
}
