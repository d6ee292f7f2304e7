//! On which objects a thread of a server runs functions, and for which it waits.
//!
//! A function that runs on an object has its lock. If it calls another object through a proxy,
//! another thread of the server takes that one's lock *for* it. Two such functions may wait for
//! each other, or one for itself, and no lock would tell. So what a thread has goes along with its
//! calls, and who has something and must wait looks now and then whether it waits for itself. Who
//! has nothing can be in no circle, and waits as always.

use super::managed::Target;
use crate::{Error, Result};
use std::cell::RefCell;
use std::sync::{
    Arc, LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    TryLockError, TryLockResult,
};
use std::time::Duration;

thread_local! {
    /// The objects whose locks this thread has, or waits for, to run a function on them; before
    /// these, what those have for whom it does that.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Distinct for objects that are there at the same time, as those that are held are.
fn address(target: &Target) -> usize {
    Arc::as_ptr(target).addr()
}

/// Runs something with more objects held.
fn with_more<R>(more: impl IntoIterator<Item = usize>, run: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| held.truncate(self.0));
        }
    }
    let before = HELD.with_borrow_mut(|held| {
        let before = held.len();
        held.extend(more);
        before
    });
    let _restore = Restore(before);
    run()
}

/// Runs a function on an object that a lock protects.
pub(super) fn holding<R>(target: &Target, run: impl FnOnce() -> R) -> R {
    with_more([address(target)], run)
}

/// Whether this thread runs a function on any object that a lock protects.
pub(crate) fn holds_any() -> bool {
    HELD.try_with(|held| !held.borrow().is_empty()).unwrap_or(false)
}

/// Whether this thread runs a function on this object, or is asked by one that does: a call of it
/// would wait for itself.
pub(crate) fn holds(target: &Target) -> bool {
    HELD.with_borrow(|held| held.contains(&address(target)))
}

/// What a thread of a server has while it waits for the answer to a call of the same server; both
/// ends of its channel know it.
#[derive(Debug, Default)]
pub(crate) struct Burden(Mutex<Vec<usize>>);

impl Burden {
    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This thread is about to call, with what it has.
    pub(crate) fn take_on(&self) {
        let held = HELD.try_with(|held| held.borrow().clone());
        *self.lock() = held.unwrap_or_default();
    }

    /// Answers the call.
    pub(crate) fn carrying<R>(&self, answer: impl FnOnce() -> R) -> R {
        let burden = self.lock().clone();
        with_more(burden, answer)
    }
}

/// The lock of the object that this thread holds last, for a function that may change it.
pub(super) fn exclusive<S>(lock: &RwLock<S>) -> Result<RwLockWriteGuard<'_, S>> {
    acquire(|| lock.try_write(), || lock.write())
}

/// The lock of the object that this thread holds last, for a function that looks at it.
pub(super) fn shared<S>(lock: &RwLock<S>) -> Result<RwLockReadGuard<'_, S>> {
    acquire(|| lock.try_read(), || lock.read())
}

/// After a panic in a method the object is as that method left it, as in one program.
fn acquire<G>(
    mut attempt: impl FnMut() -> TryLockResult<G>,
    wait: impl FnOnce() -> LockResult<G>,
) -> Result<G> {
    let mut attempt = || match attempt() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    if let Some(guard) = attempt() {
        return Ok(guard);
    }
    let (wanted, held) = HELD.with_borrow(|held| {
        let (wanted, held) = held.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
        (wanted, held.to_vec())
    });
    match held.is_empty() {
        true => Ok(wait().unwrap_or_else(PoisonError::into_inner)),
        false => Waiting { held, wanted }
            .until(attempt, || wait().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// A thread that has something and waits for something else.
#[derive(Debug)]
struct Waiting {
    held: Vec<usize>,
    wanted: usize,
}

/// All of them.
static WAITING: Mutex<Vec<Arc<Waiting>>> = Mutex::new(Vec::new());

fn all_waiting() -> MutexGuard<'static, Vec<Arc<Waiting>>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first pause between two looks, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(16));

/// Whoever has this waits in the lock that it wants. One at a time: in a circle are two at least, so
/// that there always is another one that looks, and leaves it.
static PATIENT: Mutex<()> = Mutex::new(());

/// Whether this thread may wait in a lock, as long as what is returned is there.
fn try_patience() -> Option<MutexGuard<'static, ()>> {
    match PATIENT.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Waiting {
    /// Tries again until the lock is there, or it is clear that it never will be. `wait` gets it
    /// in the end where `attempt` would not: from functions that only look, and always overlap.
    fn until<G>(
        self,
        mut attempt: impl FnMut() -> Option<G>,
        wait: impl FnOnce() -> G,
    ) -> Result<G> {
        let place = Place::of(self);
        let (mut pause, longest) = PAUSES;
        let mut was_in_circle = false;
        loop {
            std::thread::sleep(pause);
            if let Some(guard) = attempt() {
                return Ok(guard);
            }
            // A lock may be on its way from one to the other: a circle is one that stays.
            let is_in_circle = place.is_in_circle();
            if is_in_circle && was_in_circle && place.leave_circle() {
                return Err(Error::invalid(
                    "functions that run on objects of the manager called each other's objects \
                     through proxies, and would wait for each other for ever: call from outside of \
                     them, or always in the same order",
                ));
            }
            if pause == longest
                && !is_in_circle
                && let Some(_patience) = try_patience()
            {
                return Ok(wait());
            }
            was_in_circle = is_in_circle;
            pause = (2 * pause).min(longest);
        }
    }

    /// Whether what this thread waits for waits for this thread, maybe with others in between.
    fn is_in_circle(&self, all: &[Arc<Self>]) -> bool {
        let mut reached = vec![self.wanted];
        let mut at = 0;
        while let Some(&object) = reached.get(at) {
            at += 1;
            for other in all.iter().filter(|other| other.held.contains(&object)) {
                if self.held.contains(&other.wanted) {
                    return true;
                }
                if !reached.contains(&other.wanted) {
                    reached.push(other.wanted);
                }
            }
        }
        false
    }
}

/// A place among those who wait.
#[derive(Debug)]
struct Place(Arc<Waiting>);

impl Place {
    fn of(waiting: Waiting) -> Self {
        let waiting = Arc::new(waiting);
        all_waiting().push(waiting.clone());
        Self(waiting)
    }

    fn is_in_circle(&self) -> bool {
        self.0.is_in_circle(&all_waiting())
    }

    /// Waits no longer, if there still is a circle: the others can go on then, and see none.
    fn leave_circle(&self) -> bool {
        let mut all = all_waiting();
        let is_in_circle = self.0.is_in_circle(&all);
        if is_in_circle {
            all.retain(|waiting| !Arc::ptr_eq(waiting, &self.0));
        }
        is_in_circle
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        all_waiting().retain(|waiting| !Arc::ptr_eq(waiting, &self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(all: &[(&[usize], usize)]) -> Vec<Arc<Waiting>> {
        let one =
            |&(held, wanted): &(&[usize], usize)| Arc::new(Waiting { held: held.to_vec(), wanted });
        all.iter().map(one).collect()
    }

    #[test]
    fn a_circle_is_found_however_many_are_in_it() {
        let circles: [&[(&[usize], usize)]; 3] = [
            &[(&[1], 2), (&[2], 1)],
            &[(&[1], 2), (&[2], 3), (&[7, 3], 4), (&[4, 8], 1)],
            // Two look at 2, and one of them waits for the first.
            &[(&[1], 2), (&[2], 9), (&[2], 1)],
        ];
        for circle in circles {
            let all = waiting(circle);
            assert!(all[0].is_in_circle(&all), "{circle:?}");
        }
    }

    #[test]
    fn who_waits_in_a_line_or_beside_a_circle_is_in_none() {
        let lines: [&[(&[usize], usize)]; 3] = [
            &[(&[1], 2)],
            &[(&[1], 2), (&[2], 3), (&[3], 4), (&[5], 1)],
            // It waits for a circle of others, one of whom will leave it.
            &[(&[1], 2), (&[2], 3), (&[3], 2)],
        ];
        for line in lines {
            let all = waiting(line);
            assert!(!all[0].is_in_circle(&all), "{line:?}");
        }
    }
}
