use super::handle::{not_made, travels};
use super::members::{self, Member};
use crate::error::Kind as ErrorKind;
use crate::shm::atomic::{ALL, Bed, Word64};
use crate::shm::lock;
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::nap::Nap;
use crate::shm::object::Object;
use crate::shm::owner::{self, Look};
use crate::shm::seats::{EXAMINED, SEATS, Seats, TABLE, Table, all_dead};
use crate::sys::clock::Deadline;
use crate::{Error, Execution, Result};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-barrier");
const WORD: usize = BODY;
const LOCK: usize = BODY + 8;
const SEATS_AT: usize = 128;
const LEN: usize = SEATS_AT + TABLE;

// The word: the number of the round below, and two marks.
const ROUND: u64 = (1 << 30) - 1;
const BROKEN: u64 = 1 << 30;
const ASLEEP: u64 = 1 << 31;

// The stages of a party's seat; the round is above them. A member's seat has state 0.
const ARRIVED: u64 = 1;
const RELEASED: u64 = 2;
const SENT_AWAY: u64 = 3;

fn state(stage: u64, round: u64) -> u64 {
    stage | round << 8
}

/// A meeting point: nobody goes on before all parties have arrived, round after round.
///
/// A party is a thread that calls [`wait`](Barrier::wait), in whichever process. If somebody on
/// whom the others wait dies, the barrier is *broken*, as Python's is after a timeout or an
/// [`abort`](Barrier::abort): all who wait, and all who come later, get an error
/// ([`is_broken`](Error::is_broken)) until [`reset`](Barrier::reset). On whom they wait is known of
/// a party that has arrived, and of a process that received a handle as an argument and still has
/// it. In a worker of a pool only tasks count: a process that dies in the middle of a task which
/// received the handle, or has it in its context, is missed; a worker that has merely kept it, from
/// an earlier task or its initializer, is not, unless it waits. If a handle is dropped in a panic,
/// that counts as a death. A death is noticed within some tens of milliseconds.
///
/// A waiter looks for a few microseconds, then sleeps; the last party to arrive wakes all at once.
///
/// ```
/// use multiproc::{Barrier, Process};
///
/// fn phases(barrier: Barrier) -> multiproc::Result<u32> {
///     let mut led = 0;
///     for _ in 0..3 {
///         led += u32::from(barrier.wait()?.is_leader());
///     }
///     Ok(led)
/// }
///
/// let barrier = Barrier::new(2)?;
/// let mut other = Process::spawn(|barrier| phases(barrier).ok(), (barrier.clone(),))?;
/// let led = phases(barrier)? + other.join()?.expect("nobody died");
/// assert_eq!(led, 3); // one leader in each phase
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    memory: Memory,
    parties: u32,
    /// The seat of a handle that was received: only to be kept.
    _member: Option<Arc<Member>>,
}

travels!([] Barrier, barrier => barrier.memory.object(), object => open(object));

fn open(object: Arc<Object>) -> io::Result<Barrier> {
    let memory = Memory::open(object, KIND, 0, LEN)?;
    let parties = match u32::try_from(memory.count()) {
        Ok(parties @ 1..=SEATS) => parties,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let member = Member::join(&memory, SEATS_AT);
    Ok(Barrier { memory, parties, _member: Some(member) })
}

/// What [`Barrier::wait`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: u32,
}

impl BarrierWaitResult {
    /// The result for the party that arrived at this place.
    pub(crate) fn at(index: u32) -> Self {
        Self { index }
    }

    /// The number of parties that had arrived before: each number from 0 once in a round.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// True for exactly one party of a round: the first that arrived.
    #[must_use]
    pub fn is_leader(self) -> bool {
        self.index == 0
    }
}

/// A party on its way.
enum Arrival {
    /// It arrived in this round, in this seat.
    Seated { seat: u32, round: u64, index: u32 },
    /// All parties have arrived, and one of them runs its action.
    Full { word: u64 },
    /// All seats are taken.
    Crowded,
}

impl Barrier {
    /// Makes a barrier for this many parties.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) for none, or more than 1,024;
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new(parties: u32) -> Result<Self> {
        if !(1..=SEATS).contains(&parties) {
            let message = format!("a barrier is for 1 to {SEATS} parties, not {parties}");
            return Err(Error::invalid(message));
        }
        let memory = Memory::create(KIND, 0, parties.into(), LEN)
            .map_err(|error| not_made("barrier", error))?;
        Ok(Self { memory, parties, _member: None })
    }

    /// The number of parties.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// How many wait at this moment.
    #[must_use]
    pub fn n_waiting(&self) -> u32 {
        self.arrived(self.word().load(Ordering::Acquire) & ROUND)
    }

    /// Whether the barrier is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.word().load(Ordering::Acquire) & BROKEN != 0
    }

    /// Waits until all parties have arrived.
    ///
    /// # Errors
    /// [`is_broken`](Error::is_broken) if it is broken, or is reset, meanwhile;
    /// [`is_invalid_input`](Error::is_invalid_input) if all 1,024 seats are taken.
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.wait_until(Deadline::NEVER, || ())
    }

    /// As [`wait`](Barrier::wait), and the last party to arrive runs its `action` before the others
    /// go on. (A closure cannot live in shared memory, so each party brings its own.)
    ///
    /// ```
    /// let barrier = multiproc::Barrier::new(1)?;
    /// let mut rounds = 0;
    /// barrier.wait_with(|| rounds += 1)?;
    /// assert_eq!(rounds, 1);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait).
    ///
    /// # Panics
    /// If the action does; that breaks the barrier for the others.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWaitResult> {
        self.wait_until(Deadline::NEVER, action)
    }

    /// As [`wait`](Barrier::wait), for `timeout` at most. As in Python, a timeout breaks the
    /// barrier: the others would wait in vain. There is one timeout that does not: of a party too
    /// many, which came while the action of a full round was running. Nobody waits for it.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiproc::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(5)).unwrap_err();
    /// assert!(error.is_timeout() && barrier.is_broken());
    /// assert!(barrier.wait().unwrap_err().is_broken());
    /// barrier.reset();
    /// assert!(!barrier.is_broken());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait), and [`is_timeout`](Error::is_timeout).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.wait_until(Deadline::after(timeout), || ())
    }

    /// Breaks the barrier.
    pub fn abort(&self) {
        // Inside, so that it does not come in the middle of the end of a round.
        let _inside = self.enter();
        self.break_it();
    }

    /// Mends the barrier, and makes it empty: those who wait get an error
    /// ([`is_broken`](Error::is_broken)), and the dead are forgotten.
    pub fn reset(&self) {
        let inside = self.enter();
        let seats = self.seats();
        for (seat, dead) in all_dead(&seats).collect::<Vec<_>>() {
            members::evict(seats, seat, dead);
        }
        inside.finish(SENT_AWAY);
    }

    fn word(&self) -> &AtomicU64 {
        self.memory.word(WORD)
    }

    fn seats(&self) -> Seats<'_> {
        Seats::new(&self.memory, SEATS_AT)
    }

    /// The number of seats in this state.
    fn in_state(&self, wanted: u64) -> impl Iterator<Item = u32> {
        (0..self.seats().high()).filter(move |&seat| {
            let seats = self.seats();
            // Acquire: what a party did before it arrived is seen by those who go on.
            let owner = seats.owner(seat).load(Ordering::Acquire);
            owner != 0 && seats.state(seat).load(Ordering::Acquire) == wanted
        })
    }

    fn arrived(&self, round: u64) -> u32 {
        self.in_state(state(ARRIVED, round)).count() as u32
    }

    /// Takes the inner lock. There is no state to be mended but one: a round that was being
    /// finished by somebody who died.
    fn enter(&self) -> Inside<'_> {
        loop {
            if let Some(inside) = self.enter_until(Deadline::NEVER) {
                return inside;
            }
        }
    }

    /// As [`Barrier::enter`]. It is left within microseconds by all but a process that is stopped
    /// there, or one that scribbles; from them a deadline protects.
    fn enter_until(&self, deadline: Deadline) -> Option<Inside<'_>> {
        let me = owner::me();
        let news = lock::take(self.memory.word(LOCK), me, deadline)?;
        let inside = Inside { barrier: self, me };
        if news.is_some() {
            for stage in [RELEASED, SENT_AWAY] {
                if self.in_state(state(stage, inside.round())).next().is_some() {
                    inside.finish(stage);
                }
            }
        }
        Some(inside)
    }

    fn wait_until(&self, deadline: Deadline, action: impl FnOnce()) -> Result<BarrierWaitResult> {
        let (mut nap, mut has_looked) = (Nap::new(deadline), false);
        loop {
            match self.arrive(entry(deadline))? {
                Arrival::Full { word } => {
                    if nap.is_over() {
                        // Nobody waits for it: the round that is on is not to be spoiled.
                        return Err(timed_out(FULL));
                    }
                    self.sleep(word, &mut nap);
                    self.look_for_dead(Look::Close, None, entry(deadline));
                }
                Arrival::Crowded => {
                    // Seats of the dead become free, or the barrier breaks: see there again.
                    let may_look = !has_looked || !nap.is_over();
                    has_looked = true;
                    if may_look && self.finds_dead(entry(deadline)) {
                        continue;
                    }
                    return Err(Error::invalid(format!(
                        "all {SEATS} seats of the barrier are taken by waiters and by processes \
                         that hold a handle"
                    )));
                }
                Arrival::Seated { seat, round, index } => {
                    // Whatever happens from here on, also a panic, the seat is given back.
                    let _seat = OwnSeat { barrier: self, seat };
                    return match index + 1 == self.parties {
                        true => self.complete(seat, round, action, deadline),
                        false => self.await_round(seat, round, deadline, &mut nap),
                    }
                    .map(|()| BarrierWaitResult { index });
                }
            }
        }
    }

    fn arrive(&self, deadline: Deadline) -> Result<Arrival> {
        let inside = self.enter_until(deadline).ok_or_else(|| self.cannot_enter())?;
        let word = self.word().load(Ordering::Relaxed);
        if word & BROKEN != 0 {
            return Err(broken());
        }
        let (round, seats) = (inside.round(), self.seats());
        let index = self.arrived(round);
        if index >= self.parties {
            return Ok(Arrival::Full { word });
        }
        let Some(seat) = seats.claim(inside.me, 0) else { return Ok(Arrival::Crowded) };
        // Release: what the party did before is seen by those who go on.
        seats.state(seat).store(state(ARRIVED, round), Ordering::Release);
        Ok(Arrival::Seated { seat, round, index })
    }

    /// Breaks the barrier; whether it was broken before.
    fn break_it(&self) -> bool {
        let before = self.word().fetch_or(BROKEN, Ordering::AcqRel);
        Bed::wake(self.word(), ALL);
        before & BROKEN != 0
    }

    /// The last party: runs the action, then lets all go.
    fn complete(
        &self,
        seat: u32,
        round: u64,
        action: impl FnOnce(),
        deadline: Deadline,
    ) -> Result<()> {
        /// The action did not return.
        struct Unless<'a>(&'a Barrier);
        impl Drop for Unless<'_> {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let panicked = Unless(self);
        action();
        std::mem::forget(panicked);
        let inside = self.enter_until(entry(deadline)).ok_or_else(|| self.cannot_enter())?;
        if self.word().load(Ordering::Relaxed) & BROKEN == 0 && inside.round() == round {
            inside.finish(RELEASED);
        }
        drop(inside);
        match self.seats().state(seat).load(Ordering::Acquire) == state(RELEASED, round) {
            true => Ok(()),
            false => Err(broken()),
        }
    }

    /// Every other party: waits until the last one lets it go.
    fn await_round(&self, seat: u32, round: u64, deadline: Deadline, nap: &mut Nap) -> Result<()> {
        let mut look = Some(Look::Quick);
        let mut spins = 1_u32 << <AtomicU64 as Bed>::LOOKS;
        loop {
            // Acquire, both: what the others did before they arrived is seen.
            let word = self.word().load(Ordering::Acquire);
            let own = self.seats().state(seat).load(Ordering::Acquire);
            if own == state(RELEASED, round) {
                return Ok(());
            }
            if own != state(ARRIVED, round) || word & BROKEN != 0 {
                return Err(broken());
            }
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if let Some(look) = look.take()
                && self.look_for_dead(look, Some(round), entry(deadline))
            {
                continue;
            }
            if nap.is_over() {
                return self.give_up(seat, round, entry(deadline));
            }
            look = self.sleep(word, nap).then_some(Look::Close);
        }
    }

    fn give_up(&self, seat: u32, round: u64, deadline: Deadline) -> Result<()> {
        let _inside = self.enter_until(deadline).ok_or_else(|| self.cannot_enter())?;
        let own = self.seats().state(seat).load(Ordering::Acquire);
        if own == state(RELEASED, round) {
            return Ok(());
        }
        if own != state(ARRIVED, round) || self.break_it() {
            return Err(broken());
        }
        Err(timed_out(TOO_FEW))
    }

    /// A party with a deadline gives up because it cannot take the inner lock. The others are not
    /// to wait for it.
    fn cannot_enter(&self) -> Error {
        self.break_it();
        timed_out(CLOSED)
    }

    /// Sleeps until the word is another one; true if the clock ended it.
    fn sleep(&self, seen: u64, nap: &mut Nap) -> bool {
        let marked = seen | ASLEEP;
        if seen & ASLEEP != 0 || Word64::compare_exchange(self.word(), seen, marked).is_ok() {
            return self.word().sleep(marked as u32, nap.next());
        }
        false
    }

    /// Looks at seats until it was at all of them, or somebody was found dead: then true.
    fn finds_dead(&self, deadline: Deadline) -> bool {
        (0..SEATS / EXAMINED).any(|_| self.look_for_dead(Look::Close, None, deadline))
    }

    /// Looks at a few seats, and at the inner lock; true if somebody was found dead and something
    /// has changed.
    fn look_for_dead(&self, look: Look, round: Option<u64>, deadline: Deadline) -> bool {
        if look == Look::Close && lock::is_held(self.memory.word(LOCK)) {
            // Whoever has it may have died while finishing the round.
            drop(self.enter_until(deadline));
        }
        let seats = self.seats();
        let Some((seat, dead)) = seats.examine(look, owner::is_dead) else {
            return false;
        };
        let Some(inside) = self.enter_until(deadline) else {
            return false;
        };
        let awaited = owner::is_process(dead)
            || seats.state(seat).load(Ordering::Acquire) == state(ARRIVED, inside.round());
        if seats.owner(seat).load(Ordering::Acquire) != dead {
            return true;
        }
        if !awaited {
            members::evict(seats, seat, dead);
        } else if round.is_none_or(|round| round == inside.round()) {
            // Its seat stays as it is until the reset.
            self.break_it();
        }
        true
    }
}

/// How long to wait for the inner lock, in a call that ends at this deadline.
fn entry(deadline: Deadline) -> Deadline {
    /// So long it may take in a process that the system does not let run.
    const GRACE: Duration = Duration::from_millis(100);
    if deadline == Deadline::NEVER { deadline } else { Deadline::after(GRACE) }
}

/// The caller has the inner lock.
struct Inside<'a> {
    barrier: &'a Barrier,
    me: u64,
}

impl Inside<'_> {
    fn round(&self) -> u64 {
        self.barrier.word().load(Ordering::Relaxed) & ROUND
    }

    /// Ends the round: all that have arrived are released, or sent away.
    ///
    /// Whoever finds a seat so marked while the round goes on knows that its end was decided.
    fn finish(&self, stage: u64) {
        let (barrier, round) = (self.barrier, self.round());
        let seats = barrier.seats();
        for seat in barrier.in_state(state(ARRIVED, round)) {
            seats.state(seat).store(state(stage, round), Ordering::Release);
        }
        // The marks come before the new round, which is neither broken nor slept on.
        let before = Word64::swap(barrier.word(), (round + 1) & ROUND);
        Bed::wake(barrier.word(), ALL);
        if stage == RELEASED && before & BROKEN != 0 {
            // By one who could not enter meanwhile. It will not be there in the new round.
            barrier.break_it();
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        lock::give_back(self.barrier.memory.word(LOCK), self.me);
    }
}

/// The seat of a party, until it goes on.
struct OwnSeat<'a> {
    barrier: &'a Barrier,
    seat: u32,
}

impl Drop for OwnSeat<'_> {
    fn drop(&mut self) {
        members::leave(self.barrier.seats(), self.seat);
    }
}

fn broken() -> Error {
    let message = "the barrier is broken: somebody died, gave up, aborted or reset it";
    Error::new(ErrorKind::Broken, message)
}

const TOO_FEW: &str = "not all parties came to the barrier in time; it is broken now";
const FULL: &str = "all parties had come to the barrier before, and the action of one of them was \
                    not over in time; the barrier goes on without this one";
const CLOSED: &str = "the barrier could not be entered in time: a process is stopped, or does not \
                      run, in the middle of changing it; it is broken now";

fn timed_out(message: &'static str) -> Error {
    Error::new(ErrorKind::Timeout(Execution::Failed), message)
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Barrier");
        debug.field("parties", &self.parties).field("waiting", &self.n_waiting()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// One party waits; the other one died inside the inner lock, after so many steps of the end of
    /// the round: to mark its own seat, to mark the other's, and to begin the next round.
    fn meet_a_dead_party(stage: u64, steps: usize) -> Result<BarrierWaitResult> {
        let barrier = Barrier::new(2).expect("barrier");
        let theirs = barrier.clone();
        let waiter = thread::spawn(move || theirs.wait());
        while barrier.n_waiting() == 0 {
            thread::yield_now();
        }
        let dead = owner::dead::thread();
        let inside = barrier.enter();
        let seats = barrier.seats();
        let seat = seats.claim(dead, 0).expect("a seat");
        seats.state(seat).store(state(ARRIVED, 0), Ordering::Release);
        for seat in [seat, 1 - seat].into_iter().take(steps) {
            seats.state(seat).store(state(stage, 0), Ordering::Release);
        }
        if steps == 3 {
            barrier.word().store(1, Ordering::Release);
        }
        barrier.memory.word(LOCK).store(dead, Ordering::Release);
        drop(inside); // gives nothing back: the lock is the dead one's
        waiter.join().expect("join")
    }

    #[test]
    fn a_round_whose_end_was_decided_is_finished_by_whoever_comes_next() {
        for steps in 1..=3 {
            meet_a_dead_party(RELEASED, steps).expect("all had arrived");
            assert!(meet_a_dead_party(SENT_AWAY, steps).expect_err("it was reset").is_broken());
        }
    }

    #[test]
    fn a_round_whose_end_was_not_decided_is_broken() {
        assert!(meet_a_dead_party(RELEASED, 0).expect_err("the dead go nowhere").is_broken());
    }

    #[test]
    fn a_party_that_cannot_enter_in_time_breaks_it() {
        let barrier = Barrier::new(2).expect("barrier");
        let inside = barrier.enter();
        let (theirs, short) = (barrier.clone(), Duration::from_millis(5));
        let late = thread::spawn(move || theirs.wait_timeout(short)).join().expect("join");
        let error = late.expect_err("this thread is inside");
        assert!(error.is_timeout() && error.to_string().contains("entered"), "{error}");
        assert!(barrier.is_broken(), "it has left");
        // Also when that comes in the middle of the end of a round: then for the next one.
        inside.finish(RELEASED);
        assert!(barrier.is_broken());
        inside.finish(SENT_AWAY);
        assert!(!barrier.is_broken(), "reset");
    }

    #[test]
    fn a_party_too_many_that_gives_up_does_not_spoil_the_round() {
        let barrier = Barrier::new(1).expect("barrier");
        let extra = || barrier.wait_timeout(Duration::from_millis(5));
        let in_action = || thread::scope(|scope| scope.spawn(extra).join().expect("join"));
        let mut late = None;
        barrier.wait_with(|| late = Some(in_action())).expect("all were there");
        let error = late.expect("it ran").expect_err("the action was running");
        assert!(error.is_timeout() && error.to_string().contains("without"), "{error}");
        assert!(!barrier.is_broken());
    }

    #[test]
    fn when_the_dead_have_all_the_seats_there_is_room_or_it_is_broken() {
        for (dead, breaks) in [(owner::dead::thread(), false), (owner::dead::process(), true)] {
            let barrier = Barrier::new(2).expect("barrier");
            while barrier.seats().claim(dead, 0).is_some() {}
            let patience = Duration::from_millis(if breaks { 60_000 } else { 5 });
            let error = barrier.wait_timeout(patience).expect_err("nobody comes");
            assert!(error.is_timeout() != breaks && error.is_broken() == breaks, "{error}");
        }
        let barrier = Barrier::new(2).expect("barrier");
        while barrier.seats().claim(owner::me(), 0).is_some() {}
        assert!(barrier.wait().expect_err("all of them live").is_invalid_input());
    }

    #[test]
    fn the_number_of_the_round_wraps() {
        let barrier = Barrier::new(1).expect("barrier");
        barrier.word().store(ROUND, Ordering::Relaxed);
        barrier.wait().expect("the last round");
        assert!(!barrier.is_broken());
        barrier.wait().expect("the first round");
    }
}
