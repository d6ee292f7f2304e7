//! Waiting on a word that several processes map.
//!
//! Semantics: futex(2), `FUTEX_WAIT` and `FUTEX_WAKE`, never `FUTEX_PRIVATE_FLAG`, because the
//! words live in memory shared between processes.

use super::clock::Deadline;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Sleeps while `word` holds `expected`, until a wake, a signal, or the deadline.
///
/// Spurious returns happen; the caller checks its condition in a loop.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) {
    wait_at(word.as_ptr(), expected, deadline);
}

/// Wakes up to `count` sleepers of `word`.
pub(crate) fn wake(word: &AtomicU32, count: i32) {
    wake_at(word.as_ptr(), count);
}

/// As [`wait`], on the lower half of a 64-bit word; true if the deadline has passed.
///
/// Nobody accesses the half by itself but the kernel: to the program the word is one.
pub(crate) fn wait_low(word: &AtomicU64, expected: u32, deadline: Deadline) -> bool {
    wait_at(low(word), expected, deadline) || deadline.passed()
}

/// As [`wake`], on the lower half of a 64-bit word; how many were woken.
pub(crate) fn wake_low(word: &AtomicU64, count: u32) -> u32 {
    wake_at(low(word), i32::try_from(count).unwrap_or(i32::MAX))
}

fn low(word: &AtomicU64) -> *mut u32 {
    let half = if cfg!(target_endian = "little") { 0 } else { 1 };
    // `wrapping_add`: one half word stays within the word.
    word.as_ptr().cast::<u32>().wrapping_add(half)
}

/// `word` must be the address of a live, aligned word, as those above make it; a wrong address
/// would be an error of the call, and nothing worse: the kernel checks it.
fn wait_at(word: *mut u32, expected: u32, deadline: Deadline) -> bool {
    let timeout = deadline.remaining().map(|left| libc::timespec {
        tv_sec: left.as_secs().min(i64::MAX as u64) as libc::time_t,
        tv_nsec: left.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: FUTEX_WAIT reads the word, whose address the kernel checks, and `timeout`, which is
    // null or points to a timespec on this stack frame.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word.cast_const(), libc::FUTEX_WAIT, expected, timeout)
    };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT)
}

fn wake_at(word: *mut u32, count: i32) -> u32 {
    // SAFETY: FUTEX_WAKE uses the address only as a key; it reads and writes no memory of ours.
    let woken =
        unsafe { libc::syscall(libc::SYS_futex, word.cast_const(), libc::FUTEX_WAKE, count) };
    u32::try_from(woken).unwrap_or(0)
}
