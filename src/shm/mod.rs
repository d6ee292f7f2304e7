//! Memory shared with another process.
//!
//! `README.md` in this folder explains the protocols. This layer decides who may touch which
//! byte, and when; nothing above it needs `unsafe` to use shared memory.

pub(crate) mod atomic;
pub(crate) mod bell;
pub(crate) mod block;
pub(crate) mod board;
pub(crate) mod bytes;
pub(crate) mod claim;
pub(crate) mod frozen;
pub(crate) mod growing;
mod holder;
pub(crate) mod lend;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod locked;
pub(crate) mod memory;
pub(crate) mod named;
pub(crate) mod nap;
pub(crate) mod object;
pub(crate) mod owned;
pub(crate) mod owner;
pub(crate) mod park;
pub(crate) mod racy;
pub(crate) mod raw;
pub(crate) mod results;
pub(crate) mod ring;
pub(crate) mod rwlock;
pub(crate) mod rwlocked;
pub(crate) mod seats;
pub(crate) mod segment;
pub(crate) mod store;
pub(crate) mod tasks;

/// The size of an element in bytes. What has no size, or is aligned to more than a page, cannot be
/// an element; to try is a compile error.
pub(crate) const fn element_size<T>() -> usize {
    const {
        assert!(size_of::<T>() > 0, "multiproc: a type without a size cannot be shared");
        assert!(align_of::<T>() <= 4096, "multiproc: a type aligned to more than a page");
    }
    size_of::<T>()
}
