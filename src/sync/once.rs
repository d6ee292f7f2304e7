use super::handle::{not_made, travels};
use crate::OwnerDied;
use crate::Result;
use crate::shm::atomic::Word64;
use crate::shm::locked::{Locked, SPARE};
use crate::shm::memory::Kind;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

const KIND: Kind = Kind::new("multiproc-once");

/// Something that is to be done once, by whichever process comes first.
///
/// The others wait until it is done. If whoever does it dies, or panics, the next one does it, from
/// the start: what the first did before must not be in the way.
///
/// When it is done, a call costs one load.
///
/// ```
/// use multiproc::{Once, Process, Mutex};
///
/// fn work(once: Once, value: Mutex<u32>) {
///     once.call_once(|| *value.lock().expect("nobody dies here") += 1);
/// }
///
/// let (once, value) = (Once::new()?, Mutex::new(0)?);
/// let mut child = Process::spawn(work, (once.clone(), value.clone()))?;
/// work(once.clone(), value.clone());
/// child.join()?;
/// assert!(once.is_completed());
/// assert_eq!(*value.lock()?, 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Once(Locked<()>);

travels!([] Once, once => once.0.memory().object(), object => Locked::open(object, KIND).map(Once));

impl Once {
    /// Makes one that is not done.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        Locked::create(KIND, 1).map(Self).map_err(|error| not_made("once", error))
    }

    /// Runs `function`, unless it is done; waits while somebody else is doing it.
    ///
    /// From inside `function` it must not be called for the same object: that waits for ever.
    ///
    /// # Panics
    /// If `function` does; then it is not done.
    pub fn call_once(&self, function: impl FnOnce()) {
        // The news that somebody died on the way means only that it is still to be done.
        let lock = || self.0.lock().unwrap_or_else(OwnerDied::into_guard);
        call_once(self.done(), lock, function);
    }

    /// Whether it is done.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        is_done(self.done())
    }

    fn done(&self) -> &AtomicU64 {
        self.0.memory().word(SPARE)
    }
}

/// Runs `function` with the lock that `lock` takes, unless it is done.
fn call_once<W: Word64, G>(done: &W, lock: impl FnOnce() -> G, function: impl FnOnce()) {
    if is_done(done) {
        return;
    }
    let _held = lock();
    if !is_done(done) {
        function();
        // Release: who sees it done sees what was done.
        done.store(1, Ordering::Release);
    }
}

fn is_done<W: Word64>(done: &W) -> bool {
    // Acquire: pairs with the store in `call_once`.
    done.load(Ordering::Acquire) != 0
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("completed", &self.is_completed()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::lock;
    use crate::shm::lock::model::take;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    const DEAD: u64 = 99;

    struct Model {
        lock: ModelBed,
        done: ModelBed,
        count: AtomicU32,
        /// Loom fails if one is at it while another one changes it.
        data: UnsafeCell<()>,
    }

    struct Guard<'a>(&'a ModelBed, u64);

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            assert!(lock::give_back(self.0, self.1));
        }
    }

    impl Model {
        fn call(&self, me: u64) {
            let lock = || {
                take(&self.lock, me, |owner| owner == DEAD);
                Guard(&self.lock, me)
            };
            call_once(&self.done, lock, || {
                self.data.with_mut(|_| self.count.fetch_add(1, Ordering::Relaxed));
            });
            self.data.with(|_| assert_eq!(self.count.load(Ordering::Relaxed), 1));
        }
    }

    /// The lock is as `owner` left it.
    fn check(owner: u64, callers: u64) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let (lock, done) = (ModelBed::new(owner), ModelBed::new(0));
            let (count, data) = (AtomicU32::new(0), UnsafeCell::new(()));
            let model = Arc::new(Model { lock, done, count, data });
            let call = |me: u64| {
                let model = model.clone();
                move || model.call(me)
            };
            let others: Vec<_> =
                (1..callers).map(|other| thread::spawn(call(10 + other))).collect();
            call(10)();
            others.into_iter().for_each(|other| other.join().expect("join"));
        });
    }

    #[test]
    fn model_it_is_done_once_and_all_see_what_was_done() {
        check(0, 3);
    }

    #[test]
    fn model_who_comes_after_one_who_died_does_it() {
        check(DEAD, 3);
    }
}
