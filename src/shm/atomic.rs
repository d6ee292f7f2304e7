//! The atomic operations that the protocols use, behind traits, so that the model tests run the
//! very same protocol code on loom's atomics.

use crate::sys::clock::Deadline;
use crate::sys::futex;
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
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64) -> u64;
    fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64>;
    /// A sequentially consistent fence.
    fn fence();
}

/// A word on whose lower half threads can sleep.
pub(crate) trait Bed: Word64 {
    /// How often to look before sleeping, each time after twice as many pauses.
    const LOOKS: u32;
    /// Sleeps while the lower half is `low`, until a wake or the deadline, or for no reason; true
    /// if the deadline has passed.
    fn sleep(&self, low: u32, deadline: Deadline) -> bool;
    /// Wakes up to `count` sleepers and tells how many.
    fn wake(&self, count: u32) -> u32;
}

/// All sleepers.
pub(crate) const ALL: u32 = i32::MAX as u32;

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
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    #[inline]
    fn swap(&self, value: u64) -> u64 {
        // AcqRel: as below.
        self.swap(value, Ordering::AcqRel)
    }
    #[inline]
    fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        // AcqRel: whoever moves the word owns what it moved over, and sees what the previous
        // owner did before; Acquire on failure: the loser follows the winner's move.
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
    }
    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl Bed for AtomicU64 {
    // 127 pauses in all, 2 to 6 us: about what a sleep and a wake-up cost.
    const LOOKS: u32 = 7;

    fn sleep(&self, low: u32, deadline: Deadline) -> bool {
        futex::wait_low(self, low, deadline)
    }
    fn wake(&self, count: u32) -> u32 {
        futex::wake_low(self, count)
    }
}

#[cfg(test)]
pub(crate) mod model {
    use super::*;
    use loom::sync::{Condvar, Mutex, atomic};

    impl Word32 for atomic::AtomicU32 {
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
            atomic::fence(Ordering::SeqCst);
        }
    }

    impl Word64 for atomic::AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            self.load(order)
        }
        fn store(&self, value: u64, order: Ordering) {
            self.store(value, order);
        }
        fn swap(&self, value: u64) -> u64 {
            self.swap(value, Ordering::AcqRel)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
            self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
        }
        fn fence() {
            atomic::fence(Ordering::SeqCst);
        }
    }

    /// A word with a futex as the kernel has it: the comparison and the falling asleep are one
    /// step to a waker. It has no clock: whoever is not woken sleeps for ever, and loom says so.
    #[derive(Debug)]
    pub(crate) struct ModelBed {
        word: atomic::AtomicU64,
        bucket: Mutex<Sleepers>,
        bell: Condvar,
    }

    /// First asleep, first woken, as in the kernel.
    #[derive(Debug, Default)]
    struct Sleepers {
        came: u32,
        woken: u32,
    }

    impl ModelBed {
        pub(crate) fn new(value: u64) -> Self {
            let word = atomic::AtomicU64::new(value);
            Self { word, bucket: Mutex::new(Sleepers::default()), bell: Condvar::new() }
        }
    }

    impl Word64 for ModelBed {
        fn load(&self, order: Ordering) -> u64 {
            self.word.load(order)
        }
        fn store(&self, value: u64, order: Ordering) {
            self.word.store(value, order);
        }
        fn swap(&self, value: u64) -> u64 {
            self.word.swap(value, Ordering::AcqRel)
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
            Word64::compare_exchange(&self.word, old, new)
        }
        fn fence() {
            atomic::fence(Ordering::SeqCst);
        }
    }

    impl Bed for ModelBed {
        const LOOKS: u32 = 0;

        fn sleep(&self, low: u32, _: Deadline) -> bool {
            let mut bucket = self.bucket.lock().expect("bucket");
            // SeqCst: the kernel has a full barrier before it reads the word.
            atomic::fence(Ordering::SeqCst);
            if self.word.load(Ordering::SeqCst) as u32 != low {
                return false;
            }
            let number = bucket.came;
            bucket.came += 1;
            while bucket.woken <= number {
                bucket = self.bell.wait(bucket).expect("bucket");
            }
            false
        }

        fn wake(&self, count: u32) -> u32 {
            let mut bucket = self.bucket.lock().expect("bucket");
            let count = count.min(bucket.came - bucket.woken);
            bucket.woken += count;
            self.bell.notify_all();
            count
        }
    }
}
