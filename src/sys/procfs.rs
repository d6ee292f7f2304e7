//! The few facts that only `/proc` tells.

use std::fs;

/// The number of threads of this process, or 1 if `/proc` cannot be read.
pub(crate) fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// The resident memory of this process in bytes, or 0 if `/proc` cannot be read.
pub(crate) fn resident_bytes() -> u64 {
    // SAFETY: sysconf takes a constant and returns a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages.saturating_mul(u64::try_from(page).unwrap_or(4096))
}
