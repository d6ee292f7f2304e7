use super::handle::{not_made, travels};
use crate::shm::atomic::Bed;
use crate::shm::lock::{self, Taken};
use crate::shm::locked::{Locked, SPARE};
use crate::shm::memory::Kind;
use crate::shm::owner::{self, WAITERS};
use crate::sys::clock::Deadline;
use crate::{Error, OwnerDied, Result};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-rlock");

/// The words of one lock, as the thread `me` sees them.
#[derive(Clone, Copy)]
struct Words<'a, W> {
    owner: &'a W,
    /// How often the owner has it. Only the owner reads or changes the word, so it needs no
    /// ordering; the first time, the owner writes it without looking.
    depth: &'a W,
    me: u64,
}

impl<W: Bed> Words<'_, W> {
    fn is_mine(&self) -> bool {
        // Relaxed: nobody but this thread writes its name.
        self.owner.load(Ordering::Relaxed) & !WAITERS == self.me
    }

    /// Goes one deeper; false if it cannot be counted any more.
    fn deeper(&self) -> bool {
        let depth = self.depth.load(Ordering::Relaxed).checked_add(1);
        depth.inspect(|&depth| self.depth.store(depth, Ordering::Relaxed)).is_some()
    }

    /// Has it once more; `take` is for one who does not have it yet.
    fn enter(&self, take: impl FnOnce(&W, u64) -> Option<Taken>) -> Option<Taken> {
        if self.is_mine() {
            // Nobody counts to 2^64; if somebody wrote over the word, it stays at the top.
            self.deeper();
            return Some(None);
        }
        let taken = take(self.owner, self.me)?;
        self.depth.store(1, Ordering::Relaxed);
        Some(taken)
    }

    /// One release of the owner's, in a panic or not.
    fn up(&self, panicked: bool) {
        match self.depth.load(Ordering::Relaxed) {
            0 | 1 if panicked => drop(lock::abandon(self.owner, self.me)),
            0 | 1 => drop(lock::give_back(self.owner, self.me)),
            u64::MAX => {}
            depth => self.depth.store(depth - 1, Ordering::Relaxed),
        }
    }

    /// Gives the lock back altogether, and tells how often the owner had it.
    fn leave(&self) -> u64 {
        let depth = self.depth.load(Ordering::Relaxed);
        lock::give_back(self.owner, self.me);
        depth
    }

    /// After [`Words::enter`]: has it as often as before [`Words::leave`].
    fn resume(&self, depth: u64) {
        self.depth.store(depth, Ordering::Relaxed);
    }
}

/// A lock that its owner may take again: Python's `RLock`.
///
/// The owner is one thread of one process. It gives the lock back when it has released it as often
/// as it has taken it. Everything else is as with [`Lock`](super::Lock).
///
/// ```
/// use multiproc::sync::RLock;
///
/// fn outer(lock: &RLock) -> multiproc::Result<u32> {
///     let _guard = lock.lock()?;
///     inner(lock) // takes it again
/// }
///
/// fn inner(lock: &RLock) -> multiproc::Result<u32> {
///     let _guard = lock.lock()?;
///     Ok(7)
/// }
///
/// let lock = RLock::new()?;
/// assert_eq!(outer(&lock)?, 7);
/// assert!(!lock.is_locked());
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct RLock(Locked<()>);

travels!([] RLock, it => it.0.memory().object(), object => Locked::open(object, KIND).map(Self));

impl RLock {
    /// Makes a lock that nobody has.
    ///
    /// # Errors
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        Locked::create(KIND, 1).map(Self).map_err(|error| not_made("lock", error))
    }

    fn words(&self) -> Words<'_, AtomicU64> {
        let (owner, depth) = (self.0.word(), self.0.memory().word(SPARE));
        Words { owner, depth, me: owner::me() }
    }

    /// Waits for the lock, unless this thread has it already.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if the last owner died or panicked while it had the lock.
    pub fn lock(&self) -> Result<RLockGuard<'_>, OwnerDied<RLockGuard<'_>>> {
        // Without a deadline only a hostile word could end the wait early: wait again.
        loop {
            let take = |word: &_, me| lock::take(word, me, Deadline::NEVER);
            if let Some(taken) = self.words().enter(take) {
                return self.guard(taken);
            }
        }
    }

    /// Takes the lock, if nobody else has it.
    ///
    /// # Errors
    /// As [`lock`](RLock::lock).
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Waits for the lock, for `timeout` at most; `None` if it passed. Zero means try.
    ///
    /// ```
    /// use multiproc::sync::RLock;
    /// use std::time::Duration;
    ///
    /// let lock = RLock::new()?;
    /// let guard = lock.lock()?;
    /// let other = lock.clone();
    /// let waited = std::thread::spawn(move || {
    ///     other.lock_timeout(Duration::from_millis(5)).is_ok_and(|guard| guard.is_some())
    /// });
    /// assert!(!waited.join().unwrap());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](RLock::lock).
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        let taken = self.words().enter(|word, me| match timeout {
            Duration::ZERO => lock::try_take(word, me),
            _ => lock::take(word, me, Deadline::after(timeout)),
        });
        taken.map(|taken| self.guard(taken)).transpose()
    }

    fn guard(&self, taken: Taken) -> Result<RLockGuard<'_>, OwnerDied<RLockGuard<'_>>> {
        let panicking = thread::panicking();
        OwnerDied::told(RLockGuard { lock: self, panicking, not_send: PhantomData }, taken)
    }

    /// Whether somebody has the lock, at this moment.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_locked()
    }

    /// Waits for the lock, without a guard: the caller has it until [`release`](RLock::release).
    /// With a guard, it is [`lock`](RLock::lock).
    ///
    /// # Errors
    /// [`is_owner_died`](Error::is_owner_died) if the last owner died or panicked while it had the
    /// lock. Then the caller does *not* have it; the next call succeeds.
    /// [`is_invalid_input`](Error::is_invalid_input) if it cannot be counted how often it has it.
    pub fn acquire(&self) -> Result<()> {
        // As in `Locked::lock`: without a deadline, nothing but the lock ends the wait.
        while !self.acquire_timeout(Duration::MAX)? {}
        Ok(())
    }

    /// As [`acquire`](RLock::acquire), if nobody else has the lock; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](RLock::acquire).
    pub fn try_acquire(&self) -> Result<bool> {
        self.acquire_timeout(Duration::ZERO)
    }

    /// As [`acquire`](RLock::acquire), for `timeout` at most; whether it did.
    ///
    /// # Errors
    /// As [`acquire`](RLock::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<bool> {
        let words = self.words();
        if words.is_mine() {
            return match words.deeper() {
                true => Ok(true),
                false => Err(Error::invalid("an RLock was acquired 2^64 times: release it")),
            };
        }
        Ok(self.lock_timeout(timeout)?.map(std::mem::forget).is_some())
    }

    /// Gives the lock back once.
    ///
    /// ```
    /// let lock = multiproc::sync::RLock::new()?;
    /// lock.acquire()?;
    /// let other = lock.clone();
    /// let error = std::thread::spawn(move || other.release()).join().unwrap().unwrap_err();
    /// assert!(error.is_invalid_input());
    /// lock.release()?;
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if this thread does not have it.
    pub fn release(&self) -> Result<()> {
        let words = self.words();
        if words.is_mine() {
            words.up(false);
            return Ok(());
        }
        let word = words.owner.load(Ordering::Relaxed);
        Err(Error::invalid(match owner::is_free(word) {
            true => "an RLock was released that nobody has: acquire it first".to_owned(),
            false => format!(
                "an RLock was released by a thread that does not have it: thread {} has",
                owner::named(word).thread
            ),
        }))
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock").field("locked", &self.is_locked()).finish()
    }
}

/// Has an [`RLock`], and gives it back once when dropped. It stays on its thread.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    panicking: bool,
    not_send: PhantomData<*const ()>,
}

impl<'a> RLockGuard<'a> {
    /// Gives the lock back altogether, and tells how to take it again.
    pub(super) fn give_back(self) -> (&'a RLock, u64) {
        let lock = self.lock;
        std::mem::forget(self);
        (lock, lock.words().leave())
    }

    pub(super) fn again((lock, depth): (&'a RLock, u64)) -> Result<Self, OwnerDied<Self>> {
        let outcome = lock.lock();
        lock.words().resume(depth);
        outcome
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        // The copy of a guard in a forked child is nobody's.
        let words = self.lock.words();
        if words.is_mine() {
            words.up(!self.panicking && thread::panicking());
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::lock::model::take;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    const DEAD: u64 = 99;

    struct Model {
        owner: ModelBed,
        depth: ModelBed,
        count: AtomicU32,
        /// Loom fails if two threads are at it at once.
        data: UnsafeCell<()>,
    }

    impl Model {
        fn words(&self, me: u64) -> Words<'_, ModelBed> {
            Words { owner: &self.owner, depth: &self.depth, me }
        }

        fn enter(&self, me: u64) -> Taken {
            let taken = self.words(me).enter(|word, me| Some(take(word, me, |it| it == DEAD)));
            taken.expect("no deadline")
        }

        fn count(&self) {
            self.data.with_mut(|_| self.count.fetch_add(1, Ordering::Relaxed));
        }
    }

    /// Runs a function, which counts twice, in `threads` threads, when the words are as `owner`
    /// left them; the news comes so often.
    fn check(owner: u64, threads: u64, news: usize, run: fn(&Model, u64) -> usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let (owner, depth) = (ModelBed::new(owner), ModelBed::new(7));
            let (count, data) = (AtomicU32::new(0), UnsafeCell::new(()));
            let model = Arc::new(Model { owner, depth, count, data });
            let start = |other| {
                let model = model.clone();
                thread::spawn(move || run(&model, 10 + other))
            };
            let others: Vec<_> = (1..threads).map(start).collect();
            let first = run(&model, 10);
            let told = others.into_iter().map(|other| other.join().expect("join"));
            assert_eq!(told.sum::<usize>() + first, news);
            assert!(!lock::is_held(&model.owner));
            assert_eq!(u64::from(model.count.load(Ordering::Relaxed)), 2 * threads);
        });
    }

    /// Takes it twice, and counts each time that it is a level up.
    fn nested(model: &Model, me: u64) -> usize {
        let news = model.enter(me);
        assert_eq!(model.enter(me), None, "it is told at the first level");
        model.count();
        model.words(me).up(false);
        assert!(model.words(me).is_mine());
        model.count();
        model.words(me).up(false);
        assert!(!model.words(me).is_mine());
        usize::from(news.is_some())
    }

    #[test]
    fn model_one_at_a_time_until_it_was_released_as_often_as_taken() {
        check(0, 3, 0, nested);
    }

    #[test]
    fn model_the_depth_of_a_dead_owner_is_not_inherited() {
        check(DEAD, 2, 1, nested);
        check(owner::abandoned_in_panic(DEAD), 2, 1, nested);
    }

    /// As a wait for a condition does it.
    #[test]
    fn model_who_left_it_altogether_has_it_as_often_when_it_comes_back() {
        check(0, 2, 0, |model, me| {
            model.enter(me);
            model.enter(me);
            model.count();
            let depth = model.words(me).leave();
            assert!(depth == 2 && !model.words(me).is_mine());
            model.enter(me);
            model.words(me).resume(depth);
            model.count();
            model.words(me).up(false);
            assert!(model.words(me).is_mine());
            model.words(me).up(false);
            0
        });
    }
}
