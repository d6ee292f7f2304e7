//! Waking those who wait for something that a lock protects.
//!
//! Who finds, under the lock, that it must wait, *arms* the bell before it gives the lock back, and
//! sleeps while the lower half of the word is what it was then. Who makes the change that others
//! wait for *rings*, under the lock too, and wakes one of them when it has given the lock back. As
//! both look at the word under the lock, no ring is missed: either the change comes first and is
//! seen, or the arming does and is seen.
//!
//! The word: below, what the kernel compares: how often it rang, and whether somebody may sleep.
//! Above, how often it was armed, so that whoever takes the mark away because nobody slept fails
//! if somebody armed meanwhile.

use super::atomic::Bed;
use crate::sys::clock::Deadline;
use std::sync::atomic::Ordering;

const ASLEEP: u64 = 1 << 31;
const RINGS: u64 = ASLEEP - 1;
const LOW: u64 = u32::MAX as u64;
const ARMED: u64 = 1 << 32;

/// What the word was when the bell was armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Armed(u32);

/// What the word was when the bell rang; nothing if nobody can be asleep.
#[derive(Clone, Copy, Debug)]
#[must_use = "somebody may have to be woken"]
pub(crate) struct Rung(Option<u64>);

/// Gets ready to sleep. Under the lock.
pub(crate) fn arm<W: Bed>(word: &W) -> Armed {
    // Relaxed, here and below: the compare-and-swap that follows compares again.
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let new = (seen | ASLEEP).wrapping_add(ARMED);
        match word.compare_exchange(seen, new) {
            Ok(_) => return Armed(new as u32),
            Err(now) => seen = now,
        }
    }
}

/// Notes that what is waited for has happened. Under the lock.
pub(crate) fn ring<W: Bed>(word: &W) -> Rung {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & ASLEEP != 0 {
        let rings = seen.wrapping_add(1) & RINGS;
        let new = seen & !LOW | ASLEEP | rings;
        match word.compare_exchange(seen, new) {
            Ok(_) => return Rung(Some(new)),
            Err(now) => seen = now,
        }
    }
    Rung(None)
}

/// Wakes so many of those who sleep. After the lock was given back.
pub(crate) fn wake<W: Bed>(word: &W, rung: Rung, count: u32) {
    if let Rung(Some(seen)) = rung
        && word.wake(count) < count
    {
        // Nobody sleeps any more. If the word has changed since, somebody may.
        let _ = word.compare_exchange(seen, seen & !ASLEEP);
    }
}

/// Sleeps until the bell rings, or the deadline, or for no reason.
pub(crate) fn sleep<W: Bed>(word: &W, armed: Armed, deadline: Deadline) {
    word.sleep(armed.0, deadline);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::Word64;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::lock;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// A number of items behind a lock, with a bell.
    struct Model {
        lock: ModelBed,
        bell: ModelBed,
        items: UnsafeCell<u32>,
    }

    impl Model {
        fn locked<R>(&self, me: u64, run: impl FnOnce(&mut u32) -> R) -> R {
            if self.lock.compare_exchange(0, me).is_err() {
                // The numbers are of no threads that the kernel knows.
                lock::take_held(&self.lock, me, Deadline::NEVER, |_, _| false).expect("for ever");
            }
            // SAFETY: the lock is held; loom checks it.
            let result = self.items.with_mut(|items| run(unsafe { &mut *items }));
            lock::give_back(&self.lock, me);
            result
        }

        fn put(&self, me: u64) {
            let rung = self.locked(me, |items| {
                *items += 1;
                ring(&self.bell)
            });
            wake(&self.bell, rung, 1);
        }

        fn get(&self, me: u64) {
            loop {
                let armed = self.locked(me, |items| match items.checked_sub(1) {
                    Some(rest) => {
                        *items = rest;
                        None
                    }
                    None => Some(arm(&self.bell)),
                });
                match armed {
                    Some(armed) => sleep(&self.bell, armed, Deadline::NEVER),
                    None => return,
                }
            }
        }
    }

    fn check(putters: u64, getters: u64) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let model = Arc::new(Model {
                lock: ModelBed::new(0),
                bell: ModelBed::new(0),
                items: UnsafeCell::new(0),
            });
            let others: Vec<_> = (1..getters)
                .map(|getter| {
                    let model = model.clone();
                    thread::spawn(move || model.get(10 + getter))
                })
                .chain((0..putters).map(|putter| {
                    let (model, each) = (model.clone(), getters / putters);
                    thread::spawn(move || (0..each).for_each(|_| model.put(20 + putter)))
                }))
                .collect();
            model.get(10);
            for other in others {
                other.join().expect("join");
            }
        });
    }

    #[test]
    fn model_nobody_sleeps_for_ever_beside_an_item() {
        check(1, 1);
        check(1, 2);
    }

    #[test]
    fn model_two_who_put_wake_two_who_get() {
        check(2, 2);
    }

    #[test]
    fn the_rings_wrap_within_what_the_kernel_compares() {
        let word = std::sync::atomic::AtomicU64::new(u64::MAX);
        assert!(ring(&word).0.is_some());
        assert_eq!(word.load(Ordering::Relaxed), !LOW | ASLEEP);
        assert_eq!(arm(&word), Armed(ASLEEP as u32));
        assert_eq!(word.load(Ordering::Relaxed) & !LOW, 0);
    }
}
