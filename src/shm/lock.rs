//! The lock: one owner word, as `owner` describes it.
//!
//! Taking it free is one compare-and-swap from 0, giving it back another one to 0. Whoever finds it
//! held looks for a few microseconds, then marks the word with `WAITERS` and sleeps; who gives a
//! marked word back wakes one sleeper. A sleeper that wakes takes the lock *with* the mark, since
//! others may sleep still: at worst one wake-up too many when the last of them is gone.
//!
//! Before its first sleep, and whenever a sleep ends by the clock, a sleeper looks whether the
//! owner still lives, and puts itself in the place of a dead one: then the lock comes with the
//! news. The same news comes from an owner that panicked (the word is left `ABANDONED`).
//!
//! Only the owner gives back: a word that names somebody else is left alone.

use super::atomic::Bed;
use super::nap::Nap;
use super::owner::{self, Look, WAITERS};
use crate::owner_died::Dead;
use crate::sys::clock::Deadline;
use std::sync::atomic::Ordering;

/// The lock is the caller's; with the news that the last owner died, if it did.
pub(crate) type Taken = Option<Dead>;

/// Who is dead: [`owner::is_dead`], or a model's answer.
pub(crate) trait Judge: Fn(u64, Look) -> bool {}
impl<F: Fn(u64, Look) -> bool> Judge for F {}

/// Takes the lock, waiting until the deadline; `None` if it passed.
#[inline]
pub(crate) fn take<W: Bed>(word: &W, me: u64, deadline: Deadline) -> Option<Taken> {
    match word.compare_exchange(0, me) {
        Ok(_) => Some(None),
        Err(_) => take_held(word, me, deadline, owner::is_dead),
    }
}

/// Takes the lock if that needs no waiting, also from an owner that is dead.
#[inline]
pub(crate) fn try_take<W: Bed>(word: &W, me: u64) -> Option<Taken> {
    match word.compare_exchange(0, me) {
        Ok(_) => Some(None),
        Err(seen) => try_take_held(word, me, seen),
    }
}

#[cold]
fn try_take_held<W: Bed>(word: &W, me: u64, seen: u64) -> Option<Taken> {
    // Sleepers of a dead owner still need a wake-up from the new one.
    let mine = me | seen & WAITERS;
    if owner::is_free(seen) || owner::is_dead(seen, Look::Close) {
        return owner::replace_dead(word, seen, mine).then(|| owner::news(seen));
    }
    None
}

/// The part of [`take`] for a lock that is held.
#[cold]
pub(crate) fn take_held<W: Bed>(
    word: &W,
    me: u64,
    deadline: Deadline,
    is_dead: impl Judge,
) -> Option<Taken> {
    for look in 0..W::LOOKS {
        // Relaxed: the compare-and-swap that follows orders.
        let seen = word.load(Ordering::Relaxed);
        if owner::is_free(seen) && word.compare_exchange(seen, me).is_ok() {
            return Some(owner::news(seen));
        }
        for _ in 0..1 << look {
            std::hint::spin_loop();
        }
    }
    let mut nap = Nap::new(deadline);
    let mut look = Some(Look::Quick);
    loop {
        let seen = word.load(Ordering::Relaxed);
        let free = owner::is_free(seen);
        if free || look.take().is_some_and(|look| is_dead(seen, look)) {
            if word.compare_exchange(seen, me | WAITERS).is_ok() {
                return Some(owner::news(seen));
            }
        } else if nap.is_over() {
            return None;
        } else if seen & WAITERS != 0 || word.compare_exchange(seen, seen | WAITERS).is_ok() {
            let by_the_clock = word.sleep((seen | WAITERS) as u32, nap.next());
            look = by_the_clock.then_some(Look::Close);
            continue;
        }
        // Somebody else was quicker. If that goes on for ever, it is not by this protocol.
        if nap.is_over() {
            return None;
        }
    }
}

/// Gives the lock back, if it is `me` who holds it; false if not.
#[inline]
pub(crate) fn give_back<W: Bed>(word: &W, me: u64) -> bool {
    word.compare_exchange(me, 0).is_ok() || leave(word, me, 0)
}

/// Gives the lock back in a panic: the next owner is told.
#[cold]
pub(crate) fn abandon<W: Bed>(word: &W, me: u64) -> bool {
    leave(word, me, owner::abandoned_in_panic(me))
}

/// Changes the word from `me` to a free one, `to`, and wakes a sleeper if there is one.
#[cold]
pub(super) fn leave<W: Bed>(word: &W, me: u64, to: u64) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & !WAITERS == me {
        match word.compare_exchange(seen, to) {
            Ok(_) => {
                if seen & WAITERS != 0 {
                    word.wake(1);
                }
                return true;
            }
            Err(now) => seen = now,
        }
    }
    false
}

/// Gives the lock back whoever holds it; false if nobody does.
pub(crate) fn give_back_for_anyone<W: Bed>(word: &W) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    while !owner::is_free(seen) {
        match word.compare_exchange(seen, 0) {
            Ok(_) => {
                if seen & WAITERS != 0 {
                    word.wake(1);
                }
                return true;
            }
            Err(now) => seen = now,
        }
    }
    false
}

/// Whether somebody holds the lock, dead or alive.
pub(crate) fn is_held<W: Bed>(word: &W) -> bool {
    !owner::is_free(word.load(Ordering::Relaxed))
}

#[cfg(test)]
pub(crate) mod model {
    use super::*;
    use crate::shm::atomic::Word64;
    use crate::shm::atomic::model::ModelBed;

    /// As [`take`](super::take), where the model says who is dead.
    pub(crate) fn take(word: &ModelBed, me: u64, is_dead: impl Fn(u64) -> bool) -> Taken {
        let taken = match word.compare_exchange(0, me) {
            Ok(_) => Some(None),
            Err(_) => take_held(word, me, Deadline::NEVER, |seen, _| is_dead(seen & !WAITERS)),
        };
        taken.expect("no deadline")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;
    use std::sync::atomic::AtomicU64;

    const ALIVE: [u64; 3] = [11, 12, 13];
    const DEAD: u64 = 99;

    fn check(first: u64, threads: usize, expected_news: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let shared = Arc::new((ModelBed::new(first), UnsafeCell::new(0usize)));
            let run = |me: u64| {
                let shared = shared.clone();
                move || {
                    let news = model::take(&shared.0, me, |owner| owner == DEAD);
                    // Loom fails if two threads are here at once.
                    // SAFETY: the lock is held.
                    shared.1.with_mut(|count| unsafe { *count += 1 });
                    assert!(give_back(&shared.0, me));
                    usize::from(news.is_some())
                }
            };
            let others: Vec<_> =
                ALIVE[1..threads].iter().map(|&me| thread::spawn(run(me))).collect();
            let mut news = run(ALIVE[0])();
            for other in others {
                news += other.join().expect("join");
            }
            // SAFETY: the others have been joined.
            assert_eq!(shared.1.with(|count| unsafe { *count }), threads);
            assert_eq!(news, expected_news);
            assert!(!is_held(&shared.0));
        });
    }

    #[test]
    fn model_one_at_a_time_and_nobody_sleeps_for_ever() {
        check(0, 3, 0);
    }

    /// The owner died, its waiters asleep or not: one of the lockers is told, and only one.
    #[test]
    fn model_the_death_of_the_owner_is_told_once() {
        check(DEAD, 3, 1);
        check(DEAD | WAITERS, 2, 1);
    }

    #[test]
    fn model_a_panic_is_told_once() {
        check(owner::abandoned_in_panic(DEAD), 3, 1);
    }

    #[test]
    fn only_the_owner_gives_back() {
        let word = AtomicU64::new(0);
        assert_eq!(try_take(&word, owner::me()), Some(None));
        assert!(!give_back(&word, DEAD) && is_held(&word));
        assert_eq!(try_take(&word, owner::me()), None, "this thread has it, and lives");
        assert!(give_back_for_anyone(&word) && !give_back_for_anyone(&word));
    }
}
