//! The atomic operations that the protocols use, behind traits, so that the model tests run the
//! very same protocol code on loom's atomics.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A shared 32-bit word.
pub(crate) trait Word32 {
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32, order: Ordering);
    fn swap(&self, value: u32, order: Ordering) -> u32;
    /// A sequentially consistent fence.
    fn fence();
}

/// A shared 64-bit word.
pub(crate) trait Word64 {
    fn load(&self, order: Ordering) -> u64;
    fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64>;
}

impl Word32 for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }
    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
    fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.swap(value, order)
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl Word64 for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        // AcqRel: whoever moves the word owns what it moved over, and sees what the previous
        // owner did before; Acquire on failure: the loser follows the winner's move.
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(test)]
mod model {
    use super::*;

    impl Word32 for loom::sync::atomic::AtomicU32 {
        fn load(&self, order: Ordering) -> u32 {
            self.load(order)
        }
        fn store(&self, value: u32, order: Ordering) {
            self.store(value, order);
        }
        fn swap(&self, value: u32, order: Ordering) -> u32 {
            self.swap(value, order)
        }
        fn fence() {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    impl Word64 for loom::sync::atomic::AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            self.load(order)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
            self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
        }
    }
}
