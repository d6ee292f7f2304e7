//! Sleeping without missing the wake-up: the worker's bed and the parent's doorbell.
//!
//! Both are Dekker's pattern. One side publishes work and then reads a flag; the other raises the
//! flag and then looks for work once more. A sequentially consistent fence between the two steps
//! on each side makes it impossible for both to miss the other.

use super::atomic::Word32;
use std::sync::atomic::Ordering;

/// The worker is awake.
pub(crate) const AWAKE: u32 = 0;
/// The worker sleeps until a task or a command comes.
pub(crate) const IDLE: u32 = 1;
/// The worker sleeps until results have been collected.
pub(crate) const NEEDS_ROOM: u32 = 2;

/// The sleeper announces why it is about to sleep; false if `ready` says that it need not.
///
/// After true the caller sleeps on the word while it holds `state` (a futex wait).
pub(crate) fn prepare<W: Word32>(word: &W, state: u32, ready: impl FnOnce() -> bool) -> bool {
    // Relaxed: ordered by the fence.
    word.store(state, Ordering::Relaxed);
    W::fence();
    if ready() {
        word.store(AWAKE, Ordering::Relaxed);
        return false;
    }
    true
}

/// The waker, having published what the sleeper waits for: true if the sleeper sleeps for `state`
/// and must be woken (a futex wake).
pub(crate) fn must_wake<W: Word32>(word: &W, state: u32) -> bool {
    W::fence();
    if word.load(Ordering::Relaxed) != state {
        return false;
    }
    // Relaxed: what the sleeper needs was published before the fence; the word only carries the
    // news that it may look.
    word.store(AWAKE, Ordering::Relaxed);
    true
}

/// The parent wants to hear the doorbell at the next result; false if `ready` says that there is
/// one already, and then the bell is off again.
pub(crate) fn arm<W: Word32>(bell: &W, ready: impl FnOnce() -> bool) -> bool {
    prepare(bell, 1, ready)
}

/// The worker, having published a result: true if it must ring.
pub(crate) fn must_ring<W: Word32>(bell: &W) -> bool {
    W::fence();
    // The plain load keeps the line shared when nobody listens; the swap makes sure that one
    // arming gives one ring.
    bell.load(Ordering::Relaxed) != 0 && bell.swap(0, Ordering::Relaxed) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    /// In no interleaving does the sleeper go to sleep for good on work that was published.
    #[test]
    fn model_a_published_task_is_seen_or_the_sleeper_is_woken() {
        loom::model(|| {
            let word = Arc::new(AtomicU32::new(AWAKE));
            let tail = Arc::new(AtomicU32::new(0));
            let waker = {
                let (word, tail) = (word.clone(), tail.clone());
                thread::spawn(move || {
                    tail.store(1, Ordering::Release);
                    must_wake(&*word, IDLE)
                })
            };
            let sleeps = prepare(&*word, IDLE, || tail.load(Ordering::Acquire) != 0);
            let woken = waker.join().expect("waker");
            assert!(!sleeps || woken, "asleep on published work");
        });
    }

    /// In no interleaving is a result left lying while the parent sleeps and no bell rang.
    #[test]
    fn model_a_published_result_is_seen_or_the_bell_rings() {
        loom::model(|| {
            let bell = Arc::new(AtomicU32::new(0));
            let tail = Arc::new(AtomicU32::new(0));
            let worker = {
                let (bell, tail) = (bell.clone(), tail.clone());
                thread::spawn(move || {
                    tail.store(1, Ordering::Release);
                    must_ring(&*bell)
                })
            };
            let sleeps = arm(&*bell, || tail.load(Ordering::Acquire) != 0);
            let rang = worker.join().expect("worker");
            assert!(!sleeps || rang, "asleep beside a result");
        });
    }
}
