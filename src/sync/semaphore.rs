use super::handle::{not_made, travels};
use crate::owner_died::Dead;
use crate::shm::atomic::{Bed, Word64};
use crate::shm::lock::Judge;
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::nap::Nap;
use crate::shm::object::Object;
use crate::shm::owner::{self, Look};
use crate::shm::seats::{Seats, TABLE, Table};
use crate::sys::clock::Deadline;
use crate::{Error, OwnerDied, Result};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const VALUE: usize = BODY;
const SEATS_AT: usize = 128;
const LEN: usize = SEATS_AT + TABLE;

// The value word. The lower half is the futex: the number of permits that are there, and whether
// somebody sleeps. The upper half says which seat's permit the last change moved; see README.md.
const COUNT: u64 = MAX as u64;
const ASLEEP: u64 = 1 << 31;
const LOW: u64 = u32::MAX as u64;
const GIVEN: u64 = 1 << 63;
const SEAT_SHIFT: u32 = 52;
const SEAT_MASK: u64 = (1 << 11) - 1;
const TICKET_SHIFT: u32 = 32;
const TICKET: u64 = (1 << 20) - 1;
const MAX: u32 = (1 << 31) - 1;

// The stages of a seat; its ticket above them is another one each time.
const INTENT: u64 = 1;
const HELD: u64 = 2;
const GONE: u64 = 3;

fn state(stage: u64, ticket: u64) -> u64 {
    stage | (ticket & TICKET) << 8
}

/// The words of one semaphore.
#[derive(Clone, Copy)]
struct Words<'a, T: Table> {
    value: &'a T::Word,
    seats: T,
    max: u32,
}

/// A seat in which a permit is, or is meant to be.
#[derive(Clone, Copy, Debug)]
struct Place {
    seat: u32,
    ticket: u64,
}

impl Place {
    fn taken(self) -> u64 {
        u64::from(self.seat + 1) << SEAT_SHIFT | self.ticket << TICKET_SHIFT
    }

    fn given(self) -> u64 {
        GIVEN | self.taken()
    }
}

impl<T: Table> Words<'_, T> {
    /// Writes into the seat what the last change of the value did. Whoever changes the value next
    /// does this first, so that a death between the two steps loses nothing.
    fn confirm(&self, value: u64) {
        let number = (value >> SEAT_SHIFT & SEAT_MASK) as u32;
        let Some(seat) = number.checked_sub(1).filter(|&seat| seat < self.seats.capacity()) else {
            return;
        };
        let ticket = value >> TICKET_SHIFT & TICKET;
        let (from, to) = if value & GIVEN == 0 { (INTENT, HELD) } else { (HELD, GONE) };
        // It fails if somebody has done it already, and the seat may be another's by now.
        let _ = self.seats.state(seat).compare_exchange(state(from, ticket), state(to, ticket));
    }

    /// Takes a seat, for a permit to come.
    fn sit(&self, me: u64) -> Option<Place> {
        let seat = self.seats.claim(me, 0)?;
        // Relaxed: of the last owner only the ticket matters, and the claim ordered it.
        let ticket = ((self.seats.state(seat).load(Ordering::Relaxed) >> 8) + 1) & TICKET;
        self.seats.state(seat).store(state(INTENT, ticket), Ordering::Release);
        Some(Place { seat, ticket })
    }

    /// Takes a permit that is there, into a seat or anonymously; `asleep` if others may sleep.
    fn take(&self, place: Option<Place>, asleep: u64) -> bool {
        let moved = place.map_or(0, Place::taken);
        let mut seen = self.value.load(Ordering::Acquire);
        while seen & COUNT != 0 {
            self.confirm(seen);
            let new = ((seen & LOW) - 1) | asleep | moved;
            match self.value.compare_exchange(seen, new) {
                Ok(_) => {
                    self.confirm(new);
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Gives permits back, anonymously or the one in a seat; false if there would be too many.
    fn give(&self, count: u32, place: Option<Place>) -> bool {
        let moved = place.map_or(0, Place::given);
        let mut seen = self.value.load(Ordering::Acquire);
        loop {
            if seen & COUNT > u64::from(self.max) - u64::from(count.min(self.max))
                || count > self.max
            {
                return false;
            }
            self.confirm(seen);
            let new = ((seen & LOW) + u64::from(count)) | moved;
            match self.value.compare_exchange(seen, new) {
                Ok(_) => {
                    self.confirm(new);
                    if seen & ASLEEP != 0 && self.value.wake(count) < count {
                        // Nobody sleeps any more. If the word has changed since, somebody may.
                        let _ = self.value.compare_exchange(new, new & !ASLEEP);
                    }
                    return true;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Frees a seat that holds nothing.
    fn stand_up(&self, place: Place) {
        self.seats.state(place.seat).store(state(0, place.ticket), Ordering::Relaxed);
        self.seats.free(place.seat);
    }

    /// Gives the permit in a seat back.
    fn give_back(&self, place: Place) {
        // If there would be too many, somebody released what was not theirs: then it was this one.
        self.give(1, Some(place));
        self.stand_up(place);
    }

    /// Takes over the seat of an owner that is dead; where it was, if there was a permit in it.
    fn inherit(&self, me: u64, seat: u32, dead: u64) -> Option<Place> {
        self.seats.owner(seat).compare_exchange(dead, me).ok()?;
        self.confirm(self.value.load(Ordering::Acquire));
        let seen = self.seats.state(seat).load(Ordering::Acquire);
        let place = Place { seat, ticket: seen >> 8 & TICKET };
        if seen & 0xff == HELD {
            return Some(place);
        }
        self.stand_up(place);
        None
    }

    /// Waits for a permit into a seat: the given one, or a dead owner's, with the news.
    fn acquire(
        &self,
        me: u64,
        place: Option<Place>,
        deadline: Deadline,
        first: Look,
        is_dead: impl Judge,
    ) -> Option<(Option<Place>, Option<Dead>)> {
        for look in 0..T::Word::LOOKS {
            if self.take(place, 0) {
                return Some((place, None));
            }
            if deadline.passed() {
                break;
            }
            for _ in 0..1 << look {
                std::hint::spin_loop();
            }
        }
        let mut nap = Nap::new(deadline);
        let mut look = Some(first);
        let mut slept = 0;
        loop {
            if self.take(place, slept) {
                return Some((place, None));
            }
            let dead = look.take().and_then(|look| self.seats.examine(look, &is_dead));
            if let Some((seat, dead)) = dead {
                if let Some(inherited) = self.inherit(me, seat, dead) {
                    place.inspect(|&place| self.stand_up(place));
                    return Some((Some(inherited), Some(owner::named(dead))));
                }
                look = Some(first);
                if !nap.is_over() {
                    continue;
                }
            }
            if nap.is_over() {
                place.inspect(|&place| self.stand_up(place));
                return None;
            }
            let seen = self.value.load(Ordering::Relaxed);
            if seen & COUNT != 0 {
                continue;
            }
            if seen & ASLEEP != 0 || self.value.compare_exchange(seen, seen | ASLEEP).is_ok() {
                let by_the_clock = self.value.sleep(ASLEEP as u32, nap.next());
                slept = ASLEEP;
                look = by_the_clock.then_some(Look::Close);
            }
        }
    }
}

/// What both kinds of semaphore are made of.
#[derive(Clone)]
struct Inner {
    memory: Memory,
    max: u32,
}

impl Inner {
    fn create(kind: Kind, permits: u32, max: u32) -> Result<Self> {
        if permits > MAX {
            return Err(Error::invalid(format!(
                "a semaphore holds {MAX} permits at most, not {permits}"
            )));
        }
        let memory = Memory::create(kind, 0, max.into(), LEN)
            .map_err(|error| not_made("semaphore", error))?;
        // Relaxed: nobody else has it yet.
        memory.word(VALUE).store(permits.into(), Ordering::Relaxed);
        Ok(Self { memory, max })
    }

    fn open(object: Arc<Object>, kind: Kind) -> io::Result<Self> {
        let memory = Memory::open(object, kind, 0, LEN)?;
        match u32::try_from(memory.count()) {
            Ok(max) if max <= MAX => Ok(Self { memory, max }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn words(&self) -> Words<'_, Seats<'_>> {
        let (value, max) = (self.memory.word(VALUE), self.max);
        Words { value, seats: Seats::new(&self.memory, SEATS_AT), max }
    }

    fn permit(&self, deadline: Deadline) -> Result<Option<Permit<'_>>, OwnerDied<Permit<'_>>> {
        let (me, words) = (owner::me(), self.words());
        let mut nap = Nap::new(deadline);
        let place = loop {
            match words.sit(me) {
                Some(place) => break place,
                None if nap.is_over() => return Ok(None),
                // 1,024 hold or wait for permits with guards: look now and then for a seat.
                None => match words.seats.examine(Look::Close, owner::is_dead) {
                    Some((seat, dead)) => {
                        if let Some(place) = words.inherit(me, seat, dead) {
                            return Err(OwnerDied::new(self.guard(place), owner::named(dead)));
                        }
                    }
                    None => {
                        let seen = words.value.load(Ordering::Relaxed) as u32;
                        words.value.sleep(seen, nap.next());
                    }
                },
            }
        };
        let first = if deadline.passed() { Look::Close } else { Look::Quick };
        match words.acquire(me, Some(place), deadline, first, owner::is_dead) {
            Some((Some(place), news)) => OwnerDied::told(self.guard(place), news).map(Some),
            _ => Ok(None),
        }
    }

    fn permit_for_ever(&self) -> Result<Permit<'_>, OwnerDied<Permit<'_>>> {
        loop {
            if let Some(permit) = self.permit(Deadline::NEVER)? {
                return Ok(permit);
            }
        }
    }

    fn guard(&self, place: Place) -> Permit<'_> {
        Permit { inner: self, place, me: owner::me(), not_send: PhantomData }
    }

    fn acquire_raw(&self, deadline: Deadline) -> Result<bool> {
        let words = self.words();
        let first = if deadline.passed() { Look::Close } else { Look::Quick };
        match words.acquire(owner::me(), None, deadline, first, owner::is_dead) {
            None => Ok(false),
            Some((_, None)) => Ok(true),
            Some((place, Some(dead))) => {
                place.inspect(|&place| words.give_back(place));
                Err(OwnerDied::new((), dead).into())
            }
        }
    }

    fn release(&self, count: u32) -> Result<()> {
        if self.words().give(count, None) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "releasing {count} would make more than {} permits: only as many can be released as \
             were acquired",
            self.max
        )))
    }

    fn available(&self) -> u32 {
        (self.memory.word(VALUE).load(Ordering::Relaxed) & COUNT) as u32
    }
}

/// A permit of a [`Semaphore`] or [`BoundedSemaphore`]; gives it back when dropped. It stays on its
/// thread. If its process is killed the permit comes back, with the news for who gets it.
#[must_use = "the permit is given back when the guard is dropped"]
pub struct Permit<'a> {
    inner: &'a Inner,
    place: Place,
    me: u64,
    not_send: PhantomData<*const ()>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // The copy of a guard in a forked child is nobody's.
        if self.me == owner::me() {
            self.inner.words().give_back(self.place);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

macro_rules! semaphore {
    ($type:ident, $kind:expr) => {
        travels!(
            [] $type, it => it.0.memory.object(), object => Inner::open(object, $kind).map(Self)
        );

        impl $type {
            /// Waits for a permit, and returns it as a guard, which gives it back when it is
            /// dropped. Without a guard, as `acquire` of Python and of [`Lock`](super::Lock), it is
            /// [`acquire_raw`](Self::acquire_raw).
            ///
            /// # Errors
            /// [`OwnerDied`], with the permit, if its last holder died with it.
            pub fn acquire(&self) -> Result<Permit<'_>, OwnerDied<Permit<'_>>> {
                self.0.permit_for_ever()
            }

            /// As [`acquire`](Self::acquire), if a permit is there.
            ///
            /// # Errors
            /// [`OwnerDied`], with the permit, if its last holder died with it.
            pub fn try_acquire(&self) -> Result<Option<Permit<'_>>, OwnerDied<Permit<'_>>> {
                self.0.permit(Deadline::now())
            }

            /// As [`acquire`](Self::acquire), for `timeout` at most; `None` if it passed. Zero
            /// means try.
            ///
            /// # Errors
            /// [`OwnerDied`], with the permit, if its last holder died with it.
            pub fn acquire_timeout(
                &self,
                timeout: Duration,
            ) -> Result<Option<Permit<'_>>, OwnerDied<Permit<'_>>> {
                self.0.permit(Deadline::after(timeout))
            }

            /// Waits for a permit, without a guard: [`release`](Self::release) gives it back, from
            /// any process. With a guard, it is [`acquire`](Self::acquire). A permit without one
            /// has no holder: if the process dies, it is lost.
            ///
            /// # Errors
            /// [`is_owner_died`](Error::is_owner_died) if it was a guard's permit, whose holder
            /// died. Then the caller does *not* have it; the next call succeeds.
            pub fn acquire_raw(&self) -> Result<()> {
                while !self.0.acquire_raw(Deadline::NEVER)? {}
                Ok(())
            }

            /// As [`acquire_raw`](Self::acquire_raw), for `timeout` at most; whether it did. Zero
            /// means try.
            ///
            /// # Errors
            /// As [`acquire_raw`](Self::acquire_raw).
            pub fn acquire_raw_timeout(&self, timeout: Duration) -> Result<bool> {
                self.0.acquire_raw(Deadline::after(timeout))
            }

            /// How many permits are there, at this moment.
            #[must_use]
            pub fn available(&self) -> u32 {
                self.0.available()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).field("available", &self.available()).finish()
            }
        }
    };
}

/// A number of permits: as many may do something at the same time.
///
/// [`acquire`](Semaphore::acquire) gives a guard, and dropping the guard gives the permit back;
/// [`acquire_raw`](Semaphore::acquire_raw) gives none, and [`release`](Semaphore::release) gives
/// the permit back, as in Python. (Of a [`Lock`](super::Lock), it is `lock` that gives a guard, and
/// `acquire` that gives none.)
///
/// The permit of a guard whose process was killed comes back, and who gets it is told
/// ([`OwnerDied`]). Up to 1,024 guards hold or wait for permits at a time.
///
/// A waiter looks for a few microseconds, then sleeps. Releasing `n` permits wakes `n` sleepers;
/// it is not first come first served.
///
/// ```
/// use multiproc::{Process, Semaphore};
///
/// fn park(places: Semaphore) -> bool {
///     let _place = places.acquire().expect("nobody dies here");
///     places.available() < 2
/// }
///
/// let places = Semaphore::new(2)?;
/// let mut cars = Vec::new();
/// for _ in 0..3 {
///     cars.push(Process::spawn(park, (places.clone(),))?);
/// }
/// for mut car in cars {
///     assert!(car.join()?);
/// }
/// assert_eq!(places.available(), 2);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Semaphore(Inner);

semaphore!(Semaphore, Kind::new("multiproc-semaphore"));

impl Semaphore {
    /// Makes a semaphore with this many permits.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if they are 2^31 or more;
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new(permits: u32) -> Result<Self> {
        Inner::create(Kind::new("multiproc-semaphore"), permits, MAX).map(Self)
    }

    /// Adds permits: ones that were acquired without a guard, or new ones.
    ///
    /// ```
    /// let tickets = multiproc::Semaphore::new(0)?;
    /// tickets.release(3)?;
    /// tickets.acquire_raw()?;
    /// assert_eq!(tickets.available(), 2);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if that would make 2^31 or more; nothing is
    /// added then.
    pub fn release(&self, permits: u32) -> Result<()> {
        self.0.release(permits)
    }
}

/// A [`Semaphore`] that never has more permits than it began with: a release too many is an error.
///
/// ```
/// let places = multiproc::BoundedSemaphore::new(1)?;
/// places.acquire_raw()?;
/// places.release(1)?;
/// assert!(places.release(1).unwrap_err().is_invalid_input());
/// assert_eq!(places.available(), 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore(Inner);

semaphore!(BoundedSemaphore, Kind::new("multiproc-bounded"));

impl BoundedSemaphore {
    /// Makes a semaphore with this many permits, now and at most.
    ///
    /// # Errors
    /// As [`Semaphore::new`].
    pub fn new(permits: u32) -> Result<Self> {
        Inner::create(Kind::new("multiproc-bounded"), permits, permits).map(Self)
    }

    /// Gives back permits that were acquired without a guard.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if there would be more than at the beginning;
    /// nothing is given back then. Of several that release one too many, exactly one is refused.
    pub fn release(&self, permits: u32) -> Result<()> {
        self.0.release(permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use crate::shm::seats::model::ModelTable;
    use loom::thread;

    const DEAD: u64 = 99;

    struct Model {
        value: ModelBed,
        seats: ModelTable,
    }

    impl Model {
        fn new(permits: u64, seats: usize) -> loom::sync::Arc<Self> {
            let (value, seats) = (ModelBed::new(permits), ModelTable::new(seats));
            loom::sync::Arc::new(Self { value, seats })
        }

        fn words(&self) -> Words<'_, &ModelTable> {
            Words { value: &self.value, seats: &self.seats, max: 8 }
        }

        fn acquire(&self, me: u64) -> (Option<Place>, Option<Dead>) {
            let words = self.words();
            let place = words.sit(me);
            let is_dead = |owner: u64, _: Look| owner == DEAD;
            words.acquire(me, place, Deadline::NEVER, Look::Quick, is_dead).expect("no deadline")
        }
    }

    fn check(bound: usize, run: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(bound);
        builder.check(run);
    }

    #[test]
    fn model_permits_are_neither_lost_nor_made_and_nobody_sleeps_for_ever() {
        check(2, || {
            let model = Model::new(1, 2);
            let other = model.clone();
            let thread = thread::spawn(move || {
                let (place, _) = other.acquire(10);
                other.words().give_back(place.expect("a seat"));
            });
            let (place, _) = model.acquire(11);
            model.words().give_back(place.expect("a seat"));
            thread.join().expect("join");
            assert_eq!(model.value.load(Ordering::Relaxed) & COUNT, 1);
        });
    }

    #[test]
    fn model_a_release_of_two_wakes_two() {
        check(2, || {
            let model = Model::new(0, 2);
            let waiters = [10, 11].map(|me| {
                let model = model.clone();
                thread::spawn(move || {
                    let is_dead = |_: u64, _: Look| false;
                    let words = model.words();
                    words.acquire(me, None, Deadline::NEVER, Look::Quick, is_dead).is_some()
                })
            });
            assert!(model.words().give(2, None));
            for waiter in waiters {
                assert!(waiter.join().expect("join"));
            }
        });
    }

    /// A holder was killed after each of its steps, while two others acquire and give back: at the
    /// end all permits are there.
    #[test]
    fn model_a_death_at_any_step_loses_no_permit() {
        type Step = fn(&Words<'_, &ModelTable>);
        fn taken(words: &Words<'_, &ModelTable>) -> (u64, Place) {
            let place = words.sit(DEAD).expect("a seat");
            (words.value.load(Ordering::Relaxed), place)
        }
        let steps: [Step; 5] = [
            |words| assert!(words.sit(DEAD).is_some()),
            |words| {
                // The value has changed, the seat does not say so.
                let (seen, place) = taken(words);
                words.value.store(((seen & LOW) - 1) | place.taken(), Ordering::Relaxed);
            },
            |words| {
                let (_, place) = taken(words);
                assert!(words.take(Some(place), 0));
            },
            |words| {
                let (_, place) = taken(words);
                assert!(words.take(Some(place), 0));
                let seen = words.value.load(Ordering::Relaxed);
                words.value.store(((seen & LOW) + 1) | place.given(), Ordering::Relaxed);
            },
            |words| {
                let (_, place) = taken(words);
                assert!(words.take(Some(place), 0) && words.give(1, Some(place)));
            },
        ];
        for step in steps {
            check(2, move || {
                let model = Model::new(1, 3);
                step(&model.words());
                let other = model.clone();
                let thread = thread::spawn(move || {
                    let (place, _) = other.acquire(10);
                    other.words().give_back(place.expect("a seat"));
                });
                let (place, _) = model.acquire(11);
                model.words().give_back(place.expect("a seat"));
                thread.join().expect("join");
                assert_eq!(model.value.load(Ordering::Relaxed) & COUNT, 1);
            });
        }
    }
}
