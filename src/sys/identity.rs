//! Who this thread and this process are, in a way that the reuse of numbers cannot confuse.
//!
//! A thread is named by its id and, in the upper half of the word, by the time at which it was
//! started (field 22 of proc(5)): the kernel gives ids out again, but not with the same start.

use super::{fork, procfs};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// This thread's name, or 0 until it is needed and again after a fork.
    static ME: Cell<u64> = const { Cell::new(0) };
}

/// This process's name, or 0 until it is needed and again after a fork.
static PROCESS: AtomicU64 = AtomicU64::new(0);

/// The name of this thread: its id below, when it started above (0 if `/proc` does not tell).
#[inline]
pub(crate) fn thread() -> u64 {
    match ME.get() {
        0 => learn_thread(),
        me => me,
    }
}

/// The name of this process: that of its first thread.
#[inline]
pub(crate) fn process() -> u64 {
    // Relaxed: the number stands for itself.
    match PROCESS.load(Ordering::Relaxed) {
        0 => learn_process(),
        me => me,
    }
}

#[cold]
fn learn_process() -> u64 {
    // Registers the handler that calls `forget` in a forked child.
    fork::generation();
    let me = name(std::process::id());
    // The first name stays: another thread may find another one, if it cannot read `/proc`.
    // Relaxed: as above.
    PROCESS.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(me)
}

#[cold]
fn learn_thread() -> u64 {
    // Registers the handler that calls `forget` in a forked child.
    fork::generation();
    // SAFETY: gettid has no preconditions.
    let tid = unsafe { libc::gettid() };
    let me = name(tid.unsigned_abs());
    ME.set(me);
    me
}

fn name(tid: u32) -> u64 {
    // Cut to 32 bits, which is 497 days of ticks; 0 stands for not known.
    let started = procfs::thread(tid).map_or(0, |thread| (thread.started as u32).max(1));
    u64::from(started) << 32 | u64::from(tid)
}

/// A forked child is somebody else. Called in the child, by the thread that forked, before
/// anything else runs there; touches nothing but this thread's word and an atomic.
pub(super) fn forget() {
    ME.set(0);
    // Relaxed: the child has one thread.
    PROCESS.store(0, Ordering::Relaxed);
}

/// Whether a thread with this id is known to the kernel, zombies included; true if it does not
/// tell.
pub(crate) fn exists(tid: u32) -> bool {
    let Ok(tid @ 1..) = i32::try_from(tid) else {
        return false;
    };
    // SAFETY: signal 0 is never delivered; the kernel only looks whether the thread is there.
    let result = unsafe { libc::syscall(libc::SYS_tkill, tid, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_different_names_and_keep_them() {
        let me = thread();
        assert_eq!(me, thread());
        assert_ne!(me >> 32, 0, "the start time is known");
        let other = std::thread::spawn(thread).join().expect("join");
        assert_ne!(me, other);
        assert_eq!(process() as u32, std::process::id());
    }

    #[test]
    fn a_thread_exists_and_number_zero_does_not() {
        assert!(exists(thread() as u32));
        assert!(!exists(0) && !exists(u32::MAX));
    }
}
