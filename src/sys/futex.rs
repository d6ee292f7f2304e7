//! Waiting on a word that several processes map.
//!
//! Semantics: futex(2), `FUTEX_WAIT` and `FUTEX_WAKE`, never `FUTEX_PRIVATE_FLAG`, because the
//! words live in memory shared between processes.

use super::clock::Deadline;
use std::sync::atomic::AtomicU32;

/// Sleeps while `word` holds `expected`, until a wake, a signal, or the deadline.
///
/// Spurious returns happen; the caller checks its condition in a loop.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) {
    let timeout = deadline.remaining().map(|left| libc::timespec {
        tv_sec: left.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: left.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned u32 for the whole call and `timeout` is null or points
    // to a timespec on this stack frame; FUTEX_WAIT only reads both.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, timeout);
    }
}

/// Wakes up to `count` sleepers of `word`.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    // SAFETY: FUTEX_WAKE uses the address only as a key; it reads and writes no memory of ours.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count);
    }
}
