//! The addresses of mappings that a forked child does not have.
//!
//! A reference into such a mapping can get into the child: a `&'static` slice of a leaked vector,
//! captured by the closure that the child runs. The kernel leaves a hole there, in which the child
//! would map something else by and by, and the reference would lead into that. So the child makes
//! the addresses inaccessible for good before it runs anything: to touch them ends it.
//!
//! The lock is one word, taken in the parent around the fork, so that the child finds the list in
//! order and free.

use super::exit;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::cell::UnsafeCell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

static HOLES: Holes = Holes { locked: AtomicBool::new(false), ranges: UnsafeCell::new(Vec::new()) };

struct Holes {
    locked: AtomicBool,
    /// Where, and how many bytes.
    ranges: UnsafeCell<Vec<(usize, usize)>>,
}

// SAFETY: `ranges` is reached by whoever has set `locked`, one thread at a time.
unsafe impl Sync for Holes {}

/// Takes the lock; before a fork, in the thread that forks.
pub(super) extern "C" fn lock() {
    // Acquire: pairs with the release below.
    while HOLES.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err()
    {
        std::thread::yield_now();
    }
}

/// Gives it back; after a fork, in the parent.
pub(super) extern "C" fn unlock() {
    HOLES.locked.store(false, Ordering::Release);
}

fn with<R>(run: impl FnOnce(&mut Vec<(usize, usize)>) -> R) -> R {
    lock();
    // SAFETY: the lock was taken just now, and is given back after the last use.
    let result = run(unsafe { &mut *HOLES.ranges.get() });
    unlock();
    result
}

/// A mapping of this range will be missing in forked children.
pub(super) fn add(start: usize, len: usize) {
    with(|ranges| ranges.push((start, len)));
}

/// It is gone, or has become one that they get.
pub(super) fn remove(start: usize) {
    with(|ranges| {
        if let Some(at) = ranges.iter().rposition(|range| range.0 == start) {
            ranges.swap_remove(at);
        }
    });
}

/// In the child, which has the lock from before the fork: closes the holes and gives it back.
/// Allocates nothing.
pub(super) fn close() {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    // SAFETY: the lock was taken before the fork, and this is the only thread of the child.
    let ranges = unsafe { &mut *HOLES.ranges.get() };
    for &(start, len) in ranges.iter() {
        if let (start @ Some(_), Some(len)) = (NonZeroUsize::new(start), NonZeroUsize::new(len)) {
            // SAFETY: the flag makes the kernel refuse to touch what is mapped already.
            match unsafe { mmap_anonymous(start, len, ProtFlags::PROT_NONE, flags) } {
                // The child has the memory after all: a thread of the parent was just freezing it.
                Ok(_) | Err(Errno::EEXIST) => {}
                // It must not go on: something else would come to lie there.
                Err(_) => exit::abort_with("multiproc: a forked child has no addresses left"),
            }
        }
    }
    ranges.clear();
    unlock();
}
