use super::handle::{not_made, travels};
use super::{LockGuard, MutexGuard, RLockGuard};
use crate::shm::atomic::{ALL, Bed, Word64};
use crate::shm::lock::Judge;
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::nap::Nap;
use crate::shm::owner::{self, Look};
use crate::shm::seats::{Seats, TABLE, Table};
use crate::sys::clock::Deadline;
use crate::sys::spin::Spin;
use crate::{OwnerDied, Result};
use bytemuck::Pod;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-condition");
const NEXT: usize = BODY;
const NOTICES: usize = BODY + 8;
const SEATS_AT: usize = 128;
const LEN: usize = SEATS_AT + TABLE;

/// How long a waiter looks before it sleeps: a few times what a sleep and a wake-up cost.
const SPIN: Duration = Duration::from_micros(20);

// The state of a seat: the stage in the lower half, on which its owner sleeps, and a ticket in the
// upper half. A waiter's ticket is its place in the queue; a notified waiter's is the ticket of the
// first one that came after the notification.
const STAGE: u64 = u32::MAX as u64;
const WAITING: u64 = 1;
const NOTIFIED: u64 = 2;

fn state(stage: u64, ticket: u32) -> u64 {
    stage | u64::from(ticket) << 32
}

fn ticket_of(state: u64) -> u32 {
    (state >> 32) as u32
}

/// Whether ticket `a` was given before `b`, with less than 2^31 between them.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The words of one condition.
#[derive(Clone, Copy)]
struct Words<'a, T: Table> {
    next: &'a T::Word,
    /// How often was notified while all seats had been in use: for those who have none.
    notices: &'a T::Word,
    seats: T,
}

/// A waiter in the queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    seat: u32,
    ticket: u32,
}

impl<T: Table> Words<'_, T> {
    /// Takes a place at the end of the queue, while the caller still has the lock.
    fn queue(&self, me: u64) -> Option<Place> {
        let seat = self.seats.claim(me, 0)?;
        let mut seen = self.next.load(Ordering::Relaxed);
        let ticket = loop {
            match self.next.compare_exchange(seen, u64::from((seen as u32).wrapping_add(1))) {
                Ok(_) => break seen as u32,
                Err(now) => seen = now,
            }
        };
        // Release: who finds the seat waiting finds its ticket, and the queue's end, as they are.
        self.seats.state(seat).store(state(WAITING, ticket), Ordering::Release);
        Some(Place { seat, ticket })
    }

    /// Sleeps until notified (true) or the deadline. The seat stays the caller's: if it dies before
    /// it has the lock again, the notification is passed on.
    fn wait(&self, me: u64, place: Place, deadline: Deadline, is_dead: impl Judge) -> bool {
        let own = self.seats.state(place.seat);
        let waiting = state(WAITING, place.ticket);
        let mut spin = (T::Word::LOOKS > 0).then(|| Spin::new(SPIN));
        let mut nap = Nap::new(deadline);
        let mut look = Some(Look::Quick);
        loop {
            // Acquire: what the notifier did before.
            if own.load(Ordering::Acquire) != waiting {
                return true;
            }
            if spin.as_mut().is_some_and(Spin::again) && !nap.is_over() {
                continue;
            }
            spin = None;
            if nap.is_over() {
                // If the notification comes just now, it counts.
                return own.compare_exchange(waiting, 0).is_err();
            }
            let dead = look.take().and_then(|look| self.seats.examine(look, &is_dead));
            if let Some((seat, dead)) = dead
                && self.bury(me, seat, dead, place)
            {
                // Its notification is this waiter's now. Had this one its own, too, it goes on.
                if own.compare_exchange(waiting, 0).is_err() {
                    self.notify(1);
                }
                return true;
            }
            let by_the_clock = own.sleep(WAITING as u32, nap.next());
            look = by_the_clock.then_some(Look::Close);
        }
    }

    /// The number of notices, of which there is one for each notification from now on.
    fn listen(&self) -> u64 {
        // The one who took the last seat may not have come so far.
        self.seats.raise(self.seats.capacity());
        self.notices.load(Ordering::Acquire)
    }

    /// Whether somebody was notified since [`Words::listen`]. If not, whoever notifies next sees
    /// the place that the caller has taken before it asked.
    fn noticed(&self, heard: u64) -> bool {
        // A change of the word, though to the same: it comes before or after that of a notifier.
        self.notices.compare_exchange(heard, heard).is_err()
    }

    /// Tells those who have no seat that somebody is notified.
    fn give_notice(&self) {
        if self.seats.high() < self.seats.capacity() {
            return;
        }
        let seen = self.notices.load(Ordering::Relaxed);
        // In the lower half, on which they sleep. Whoever is quicker has given notice for both.
        let next = u64::from((seen as u32).wrapping_add(1));
        let _ = self.notices.compare_exchange(seen, next);
        self.notices.wake(ALL);
    }

    /// Sleeps for a while without a seat; true if somebody was notified.
    fn wait_outside(&self, me: u64, heard: u64, nap: &mut Nap) -> bool {
        if self.notices.sleep(heard as u32, nap.next()) {
            self.make_room(me);
        }
        self.notices.load(Ordering::Acquire) != heard
    }

    /// All seats are taken: frees one whose owner is dead, if it finds any.
    fn make_room(&self, me: u64) {
        // As one who came after all that wait, so no notification is for the caller.
        let last = Place { seat: 0, ticket: self.next.load(Ordering::Acquire) as u32 };
        if let Some((seat, dead)) = self.seats.examine(Look::Close, owner::is_dead) {
            self.bury(me, seat, dead, last);
        }
    }

    /// Clears the seat of a dead waiter; true if it had a notification for which the caller waits.
    fn bury(&self, me: u64, seat: u32, dead: u64, place: Place) -> bool {
        let state = self.seats.state(seat);
        let seen = state.load(Ordering::Acquire);
        let horizon = ticket_of(seen);
        let notified = seen & STAGE == NOTIFIED;
        let mine = notified && is_before(place.ticket, horizon);
        if notified && !mine && self.waiting().any(|(ticket, _)| is_before(ticket, horizon)) {
            // It is for somebody who waited then, and will find it.
            return false;
        }
        if self.seats.owner(seat).compare_exchange(dead, me).is_err() {
            return false;
        }
        let last = state.swap(0);
        self.seats.free(seat);
        if last == seen || last & STAGE != NOTIFIED {
            return mine;
        }
        // A notifier that took it for alive has come meanwhile.
        let horizon = ticket_of(last);
        if is_before(place.ticket, horizon) {
            return true;
        }
        if self.waiting().any(|(ticket, _)| is_before(ticket, horizon)) {
            self.notify(1);
        }
        false
    }

    /// The waiters, by ticket and seat, in no order.
    fn waiting(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.seats.high()).filter_map(|seat| {
            let seen = self.seats.state(seat).load(Ordering::Acquire);
            (seen & STAGE == WAITING).then_some((ticket_of(seen), seat))
        })
    }

    /// Notifies those that have waited longest.
    fn notify(&self, count: usize) {
        self.give_notice();
        let next = self.next.load(Ordering::Acquire) as u32;
        if count == 1 {
            // Somebody else may notify the same one at the same time: then the next one.
            while let Some((ticket, seat)) =
                self.waiting().max_by_key(|&(ticket, _)| age(next, ticket))
            {
                if self.notify_seat(seat, ticket) {
                    return;
                }
            }
            return;
        }
        let mut waiting: Vec<_> = self.waiting().collect();
        waiting.sort_unstable_by_key(|&(ticket, _)| std::cmp::Reverse(age(next, ticket)));
        let mut left = count;
        for (ticket, seat) in waiting {
            if left == 0 {
                break;
            }
            left -= usize::from(self.notify_seat(seat, ticket));
        }
    }

    fn notify_seat(&self, seat: u32, ticket: u32) -> bool {
        let horizon = self.next.load(Ordering::Acquire) as u32;
        let own = self.seats.state(seat);
        let notified =
            own.compare_exchange(state(WAITING, ticket), state(NOTIFIED, horizon)).is_ok();
        if notified {
            own.wake(ALL);
        }
        notified
    }

    /// The waiter has the lock again.
    fn stand_up(&self, place: Place) {
        // Relaxed: published by the freeing.
        self.seats.state(place.seat).store(0, Ordering::Relaxed);
        self.seats.free(place.seat);
    }
}

/// How long ago a ticket was given, in tickets.
fn age(next: u32, ticket: u32) -> u32 {
    next.wrapping_sub(ticket)
}

/// Waiting until data behind a lock has changed: Python's `Condition`.
///
/// It works with the guards of a [`Mutex`](super::Mutex), a [`Lock`](super::Lock) or an
/// [`RLock`](super::RLock) (which is given back altogether, and taken again as often). All who wait
/// on one condition should do so with the same lock. There are no spurious wake-ups but one: of
/// more than 1,024 waiters all those above are woken by any notification. Yet what was notified may
/// have been changed again by the time the waiter has the lock: use
/// [`wait_while`](Condition::wait_while).
///
/// Notifications go to those who have waited longest, one for each. A waiter that was killed before
/// it had the lock again eats none: another one that waited then gets it within some tens of
/// milliseconds. A waiter looks for 20 us, then sleeps; a notification wakes exactly the waiters
/// that it is for, and looks at all seats that were ever taken at the same time.
///
/// ```
/// use multiproc::{Condition, Mutex, Process};
///
/// fn produce(count: Mutex<u32>, changed: Condition) {
///     for _ in 0..3 {
///         *count.lock().expect("nobody dies here") += 1;
///         changed.notify_one();
///     }
/// }
///
/// let (count, changed) = (Mutex::new(0)?, Condition::new()?);
/// let mut producer = Process::spawn(produce, (count.clone(), changed.clone()))?;
/// let count = changed.wait_while(count.lock()?, |count| *count < 3)?;
/// assert_eq!(*count, 3);
/// drop(count);
/// producer.join()?;
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Condition(Memory);

travels!([] Condition, it => it.0.object(), object => Memory::open(object, KIND, 0, LEN).map(Self));

impl Condition {
    /// Makes a condition.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        let memory = Memory::create(KIND, 0, 0, LEN);
        memory.map(Self).map_err(|error| not_made("condition", error))
    }

    fn words(&self) -> Words<'_, Seats<'_>> {
        let (next, notices) = (self.0.word(NEXT), self.0.word(NOTICES));
        Words { next, notices, seats: Seats::new(&self.0, SEATS_AT) }
    }

    /// Gives the lock back, waits until notified, and takes the lock again.
    ///
    /// # Errors
    /// [`OwnerDied`], with the guard, if meanwhile somebody died or panicked who had the lock.
    pub fn wait<G: Guard>(&self, guard: G) -> Result<G, OwnerDied<G>> {
        match self.wait_until(guard, Deadline::NEVER) {
            Ok((guard, _)) => Ok(guard),
            Err(died) => Err(died.map(|(guard, _)| guard)),
        }
    }

    /// As [`wait`](Condition::wait), for `timeout` at most; with the guard comes whether it was
    /// notified. Taking the lock again may take longer than the timeout.
    ///
    /// ```
    /// use multiproc::{Condition, Lock};
    /// use std::time::Duration;
    ///
    /// let (lock, condition) = (Lock::new()?, Condition::new()?);
    /// let (_guard, notified) = condition.wait_timeout(lock.lock()?, Duration::from_millis(5))?;
    /// assert!(!notified && lock.is_locked());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Condition::wait), with both.
    pub fn wait_timeout<G: Guard>(
        &self,
        guard: G,
        timeout: Duration,
    ) -> Result<(G, bool), OwnerDied<(G, bool)>> {
        self.wait_until(guard, Deadline::after(timeout))
    }

    /// Waits until `condition` is false; at once if it is. It is called with the lock held, with
    /// what the lock protects: the value of a [`Mutex`](super::Mutex), `()` for the others.
    ///
    /// # Errors
    /// As [`wait`](Condition::wait), at the first such news.
    pub fn wait_while<G: Guard>(
        &self,
        mut guard: G,
        mut condition: impl FnMut(&mut G::State) -> bool,
    ) -> Result<G, OwnerDied<G>> {
        while guard.show(&mut condition) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait_while`](Condition::wait_while), for `timeout` at most; with the guard comes
    /// whether `condition` has become false.
    ///
    /// # Errors
    /// As [`wait_timeout`](Condition::wait_timeout).
    pub fn wait_timeout_while<G: Guard>(
        &self,
        mut guard: G,
        timeout: Duration,
        mut condition: impl FnMut(&mut G::State) -> bool,
    ) -> Result<(G, bool), OwnerDied<(G, bool)>> {
        let deadline = Deadline::after(timeout);
        while guard.show(&mut condition) {
            if deadline.passed() {
                return Ok((guard, false));
            }
            (guard, _) = self.wait_until(guard, deadline)?;
        }
        Ok((guard, true))
    }

    fn wait_until<G: Guard>(
        &self,
        guard: G,
        deadline: Deadline,
    ) -> Result<(G, bool), OwnerDied<(G, bool)>> {
        let (words, me) = (self.words(), owner::me());
        match words.queue(me) {
            Some(place) => self.wait_at(place, guard, deadline),
            None => self.wait_for_a_place(guard, deadline),
        }
    }

    /// Waits in a place that was taken with the lock.
    fn wait_at<G: Guard>(
        &self,
        place: Place,
        guard: G,
        deadline: Deadline,
    ) -> Result<(G, bool), OwnerDied<(G, bool)>> {
        let (words, me) = (self.words(), owner::me());
        let (notified, guard) = guard.without(|| words.wait(me, place, deadline, owner::is_dead));
        words.stand_up(place);
        match guard {
            Ok(guard) => Ok((guard, notified)),
            Err(died) => Err(died.map(|guard| (guard, notified))),
        }
    }

    /// As there is none, any notification counts: nobody can tell for whom it was.
    #[cold]
    fn wait_for_a_place<G: Guard>(
        &self,
        mut guard: G,
        deadline: Deadline,
    ) -> Result<(G, bool), OwnerDied<(G, bool)>> {
        let (words, me, mut nap) = (self.words(), owner::me(), Nap::new(deadline));
        let heard = words.listen();
        loop {
            let (noticed, again) = guard.without(|| words.wait_outside(me, heard, &mut nap));
            guard = again.map_err(|died| died.map(|guard| (guard, noticed)))?;
            if noticed || nap.is_over() {
                return Ok((guard, noticed));
            }
            if let Some(place) = words.queue(me) {
                if words.noticed(heard) {
                    words.stand_up(place);
                    return Ok((guard, true));
                }
                return self.wait_at(place, guard, deadline);
            }
        }
    }

    /// Notifies one waiter, if there is one: the one that has waited longest.
    pub fn notify_one(&self) {
        self.words().notify(1);
    }

    /// Notifies `count` waiters, or all if there are fewer.
    pub fn notify(&self, count: usize) {
        self.words().notify(count);
    }

    /// Notifies all who wait.
    pub fn notify_all(&self) {
        self.words().notify(usize::MAX);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}

/// A guard with which a [`Condition`] can be waited for: that of a [`Mutex`](super::Mutex), of a
/// [`Lock`](super::Lock) or of an [`RLock`](super::RLock).
pub trait Guard: sealed::Again {}

mod sealed {
    use crate::OwnerDied;

    /// What can be given back and taken again.
    pub trait Again: Sized {
        /// What the lock protects.
        type State: ?Sized;
        /// Shows what the lock protects.
        fn show<R>(&mut self, to: impl FnOnce(&mut Self::State) -> R) -> R;
        /// Gives the lock back for the time of `run`.
        fn without<R>(self, run: impl FnOnce() -> R) -> (R, Result<Self, OwnerDied<Self>>);
    }
}

impl<T: Pod> Guard for MutexGuard<'_, T> {}

impl<T: Pod> sealed::Again for MutexGuard<'_, T> {
    type State = T;
    fn show<R>(&mut self, to: impl FnOnce(&mut T) -> R) -> R {
        to(self)
    }
    fn without<R>(self, run: impl FnOnce() -> R) -> (R, Result<Self, OwnerDied<Self>>) {
        let locked = self.locked();
        drop(self);
        (run(), Self::again(locked))
    }
}

impl Guard for LockGuard<'_> {}

impl sealed::Again for LockGuard<'_> {
    type State = ();
    fn show<R>(&mut self, to: impl FnOnce(&mut ()) -> R) -> R {
        to(&mut ())
    }
    fn without<R>(self, run: impl FnOnce() -> R) -> (R, Result<Self, OwnerDied<Self>>) {
        let locked = self.locked();
        drop(self);
        (run(), Self::again(locked))
    }
}

impl Guard for RLockGuard<'_> {}

impl sealed::Again for RLockGuard<'_> {
    type State = ();
    fn show<R>(&mut self, to: impl FnOnce(&mut ()) -> R) -> R {
        to(&mut ())
    }
    fn without<R>(self, run: impl FnOnce() -> R) -> (R, Result<Self, OwnerDied<Self>>) {
        let lock = self.give_back();
        (run(), Self::again(lock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::seats::model::ModelTable;
    use crate::sync::Lock;
    use loom::sync::Arc;
    use loom::thread;
    use std::time::Instant;

    const DEAD: u64 = 99;
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Model {
        next: ModelBed,
        notices: ModelBed,
        seats: ModelTable,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Self::with_seats(3)
        }

        fn with_seats(seats: usize) -> Arc<Self> {
            let [next, notices] = [0; 2].map(ModelBed::new);
            Arc::new(Self { next, notices, seats: ModelTable::new(seats) })
        }

        fn words(&self) -> Words<'_, &ModelTable> {
            Words { next: &self.next, notices: &self.notices, seats: &self.seats }
        }

        fn wait(&self, me: u64, place: Place) {
            let is_dead = |owner: u64, _: Look| owner == DEAD;
            assert!(self.words().wait(me, place, Deadline::NEVER, is_dead));
            self.words().stand_up(place);
        }
    }

    fn check(run: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(run);
    }

    #[test]
    fn model_each_notification_reaches_a_waiter() {
        check(|| {
            let model = Model::new();
            let waiters = [10, 11].map(|me| {
                // Queued with the lock held, before the notifier has it.
                let place = model.words().queue(me).expect("a seat");
                let model = model.clone();
                thread::spawn(move || model.wait(me, place))
            });
            model.words().notify(1);
            model.words().notify(1);
            for waiter in waiters {
                waiter.join().expect("join");
            }
        });
    }

    #[test]
    fn model_two_notifiers_do_not_notify_the_same_waiter() {
        check(|| {
            let model = Model::new();
            let first = model.words().queue(10).expect("a seat");
            let second = model.words().queue(11).expect("a seat");
            let other = model.clone();
            let notifier = thread::spawn(move || other.words().notify(1));
            model.words().notify(1);
            notifier.join().expect("join");
            model.wait(10, first);
            model.wait(11, second);
        });
    }

    /// The oldest waiter was notified and died; the notification is another's.
    #[test]
    fn model_the_notification_of_a_dead_waiter_is_passed_on() {
        check(|| {
            let model = Model::new();
            model.words().queue(DEAD).expect("a seat");
            let place = model.words().queue(10).expect("a seat");
            model.words().notify(1);
            model.wait(10, place);
            assert_eq!(model.seats.0[0][0].load(Ordering::Relaxed), 0);
        });
    }

    /// One who had no seat takes one, without the lock, while somebody notifies.
    #[test]
    fn model_a_waiter_that_was_late_for_a_seat_misses_no_notification() {
        check(|| {
            let model = Model::with_seats(1);
            let heard = model.words().listen();
            let other = model.clone();
            let notifier = thread::spawn(move || other.words().notify(1));
            let place = model.words().queue(10).expect("a seat");
            if !model.words().noticed(heard) {
                model.wait(10, place);
            }
            notifier.join().expect("join");
        });
    }

    #[test]
    fn who_finds_all_seats_taken_waits_until_notified_or_the_deadline() {
        let (lock, condition) = (Lock::new().expect("lock"), Condition::new().expect("condition"));
        let seats = condition.words().seats;
        while let Some(seat) = seats.claim(owner::me(), 0) {
            seats.state(seat).store(state(WAITING, 0), Ordering::Release);
        }
        let (begin, short) = (Instant::now(), Duration::from_millis(50));
        let guard = lock.lock().expect("nobody dies");
        let (guard, notified) = condition.wait_timeout(guard, short).expect("nobody dies");
        assert!(!notified && begin.elapsed() >= short);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                drop(lock.lock().expect("nobody dies"));
                condition.notify_one();
            });
            let (_, notified) = condition.wait_timeout(guard, PATIENCE).expect("nobody dies");
            assert!(notified);
        });
    }

    #[test]
    fn who_finds_all_seats_taken_by_the_dead_takes_one_of_them() {
        let (lock, condition) = (Lock::new().expect("lock"), Condition::new().expect("condition"));
        let (seats, dead, me) = (condition.words().seats, owner::dead::thread(), owner::me());
        while let Some(seat) = seats.claim(dead, 0) {
            seats.state(seat).store(state(WAITING, 0), Ordering::Release);
        }
        std::thread::scope(|scope| {
            let guard = lock.lock().expect("nobody dies");
            scope.spawn(|| {
                let is_mine = |seat| seats.owner(seat).load(Ordering::Acquire) == me;
                while !(0..seats.high()).any(is_mine) {
                    std::thread::yield_now();
                }
                condition.notify_all();
            });
            let (_, notified) = condition.wait_timeout(guard, PATIENCE).expect("nobody dies");
            assert!(notified);
        });
    }

    #[test]
    fn a_later_waiter_does_not_get_an_old_notification() {
        loom::model(|| {
            let model = Model::new();
            let dead = model.words().queue(DEAD).expect("a seat");
            model.words().notify(1);
            let place = model.words().queue(10).expect("a seat");
            assert!(!model.words().bury(10, dead.seat, DEAD, place));
            assert_eq!(model.seats.0[0][0].load(Ordering::Relaxed), 0, "buried all the same");
        });
    }

    #[test]
    fn tickets_wrap() {
        assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX) && !is_before(5, 5));
        assert_eq!(age(2, u32::MAX), 3);
    }
}
