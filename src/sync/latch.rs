use super::handle::{not_made, travels};
use super::members::{self, Member};
use crate::error::Kind as ErrorKind;
use crate::shm::atomic::{ALL, Bed, Word64};
use crate::shm::lock;
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::nap::Nap;
use crate::shm::object::Object;
use crate::shm::owner::{self, Look};
use crate::shm::seats::{Seats, TABLE, Table};
use crate::sys::clock::Deadline;
use crate::{Error, Result};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-latch");
const WORD: usize = BODY;
const LOCK: usize = BODY + 8;
const SEATS_AT: usize = 128;
const LEN: usize = SEATS_AT + TABLE;

// The word: how many are still to count down, and two marks.
const COUNT: u64 = MAX as u64;
const BROKEN: u64 = 1 << 30;
const ASLEEP: u64 = 1 << 31;
const MAX: u32 = (1 << 30) - 1;

/// How long to wait for the inner lock while looking for the dead: others will look, too.
const GRACE: Duration = Duration::from_millis(100);

// The state of a member's seat: 0, counting (with the count before it), or done.
const COUNTING: u64 = 1;
const DONE: u64 = 2;

/// Counts down to zero once, and lets all go who wait for that.
///
/// A process that received a handle as an argument and dies before it counted down (or dropped the
/// handle) *breaks* the latch: it would never reach zero. A panic in which the handle is dropped
/// counts as a death. In a worker of a pool only the task counts that received the handle, or each
/// whose context it is in: a worker that has merely kept it, from an earlier task or its
/// initializer, is not missed. The waiting are told within some tens of milliseconds. Up to 1,024
/// handles in other processes are watched in that way.
///
/// A waiter looks for a few microseconds, then sleeps; the last count down wakes all at once.
///
/// ```
/// use multiproc::{Latch, Process};
///
/// let loaded = Latch::new(2)?;
/// for _ in 0..2 {
///     Process::spawn(|loaded: Latch| loaded.count_down().is_ok(), (loaded.clone(),))?;
/// }
/// loaded.wait()?;
/// assert_eq!(loaded.count(), 0);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Latch {
    memory: Memory,
    /// The seat of a handle that was received.
    member: Option<Arc<Member>>,
}

travels!([] Latch, latch => latch.memory.object(), object => open(object));

fn open(object: Arc<Object>) -> io::Result<Latch> {
    let memory = Memory::open(object, KIND, 0, LEN)?;
    let member = Member::join(&memory, SEATS_AT);
    Ok(Latch { memory, member: Some(member) })
}

impl Latch {
    /// Makes a latch that opens when it was counted down `count` times.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if `count` is 2^30 or more;
    /// [`is_out_of_memory`](Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](Error::is_os) if there is no file descriptor.
    pub fn new(count: u32) -> Result<Self> {
        if count > MAX {
            return Err(Error::invalid(format!("a latch counts from {MAX} at most, not {count}")));
        }
        let memory = Memory::create(KIND, 0, 0, LEN);
        let memory = memory.map_err(|error| not_made("latch", error))?;
        // Relaxed: nobody else has it yet.
        memory.word(WORD).store(count.into(), Ordering::Relaxed);
        Ok(Self { memory, member: None })
    }

    fn word(&self) -> &AtomicU64 {
        self.memory.word(WORD)
    }

    fn seats(&self) -> Seats<'_> {
        Seats::new(&self.memory, SEATS_AT)
    }

    /// Counts down once. What the caller did before is seen by those who see the latch open.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if the count is zero already.
    pub fn count_down(&self) -> Result<()> {
        let me = loop {
            if let Some(me) = self.enter(Deadline::NEVER) {
                break me;
            }
        };
        let seats = self.seats();
        let seat = self.member.as_ref().and_then(|member| member.seat());
        let state = seat.map(|seat| seats.state(seat));
        let before = self.word().load(Ordering::Relaxed) & COUNT;
        if before == 0 {
            lock::give_back(self.memory.word(LOCK), me);
            return Err(Error::invalid("a latch was counted down that is open already"));
        }
        // Release, both: who recovers from a death in here sees the steps in order.
        if let Some(state) = state.filter(|state| state.load(Ordering::Relaxed) != DONE) {
            state.store(COUNTING | before << 8, Ordering::Release);
        }
        let woken = self.word().fetch_sub(1, Ordering::AcqRel) & ASLEEP != 0 && before == 1;
        if let Some(state) = state {
            state.store(DONE, Ordering::Release);
        }
        lock::give_back(self.memory.word(LOCK), me);
        if woken {
            Bed::wake(self.word(), ALL);
        }
        Ok(())
    }

    /// Takes the inner lock; if its owner died, finds out how far that one came.
    fn enter(&self, deadline: Deadline) -> Option<u64> {
        let me = owner::me();
        let news = lock::take(self.memory.word(LOCK), me, deadline)?;
        if news.is_some() {
            self.recover();
        }
        Some(me)
    }

    fn recover(&self) {
        let count = self.word().load(Ordering::Acquire) & COUNT;
        for seat in 0..self.seats().high() {
            let seats = self.seats();
            let state = seats.state(seat);
            let seen = state.load(Ordering::Acquire);
            if seen & 0xff == COUNTING {
                let counted = seen >> 8 == count + 1;
                state.store(if counted { DONE } else { 0 }, Ordering::Release);
            }
        }
    }

    /// How many are still to count down.
    #[must_use]
    pub fn count(&self) -> u32 {
        // Acquire: at zero, what those did who counted down is seen.
        (self.word().load(Ordering::Acquire) & COUNT) as u32
    }

    /// Waits until the count is zero.
    ///
    /// # Errors
    /// [`is_broken`](Error::is_broken) if it can never be, because a process died on which it
    /// depends.
    pub fn wait(&self) -> Result<()> {
        while !self.wait_until(Deadline::NEVER)? {}
        Ok(())
    }

    /// Waits until the count is zero, for `timeout` at most; whether it is. Zero means look.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let latch = multiproc::Latch::new(1)?;
    /// assert!(!latch.wait_timeout(Duration::from_millis(5))?);
    /// latch.count_down()?;
    /// assert!(latch.wait_timeout(Duration::ZERO)?);
    /// assert!(latch.count_down().unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Latch::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_until(Deadline::after(timeout))
    }

    fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        let mut nap = Nap::new(deadline);
        let mut look = Some(Look::Quick);
        let mut spins = 1_u32 << <AtomicU64 as Bed>::LOOKS;
        loop {
            // Acquire: what those did who counted down is seen.
            let seen = self.word().load(Ordering::Acquire);
            if seen & COUNT == 0 {
                return Ok(true);
            }
            if seen & BROKEN != 0 {
                let message = "the latch is broken: a process died that had not counted down";
                return Err(Error::new(ErrorKind::Broken, message));
            }
            if spins > 0 && !deadline.passed() {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if look.take().is_some_and(|look| self.break_if_dead(look)) {
                continue;
            }
            if nap.is_over() {
                return Ok(false);
            }
            let marked = Word64::compare_exchange(self.word(), seen, seen | ASLEEP);
            if seen & ASLEEP != 0 || marked.is_ok() {
                let by_the_clock = self.word().sleep((seen | ASLEEP) as u32, nap.next());
                look = by_the_clock.then_some(Look::Close);
            }
        }
    }

    /// Looks at a few members; true if one was found dead and something has changed.
    fn break_if_dead(&self, look: Look) -> bool {
        let seats = self.seats();
        let Some((seat, dead)) = seats.examine(look, owner::is_dead) else {
            return false;
        };
        if seats.state(seat).load(Ordering::Acquire) & 0xff == COUNTING {
            // It died in the middle: the next one inside finds out.
            if let Some(me) = self.enter(Deadline::after(GRACE)) {
                lock::give_back(self.memory.word(LOCK), me);
            }
        }
        let counted = seats.state(seat).load(Ordering::Acquire) != 0;
        // Acquire: looked at after the state. If the dead one still has the seat, the state is its.
        if seats.owner(seat).load(Ordering::Acquire) != dead {
            return true;
        }
        if !counted && owner::is_process(dead) {
            self.word().fetch_or(BROKEN, Ordering::AcqRel);
            self.word().wake(ALL);
        } else {
            members::evict(seats, seat, dead);
        }
        true
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latch").field("count", &self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a count down from two: the member's state and the count after each.
    const STEPS: [(u64, u64); 4] =
        [(0, 2), (COUNTING | 2 << 8, 2), (COUNTING | 2 << 8, 1), (DONE, 1)];

    /// A latch for two, with a member that died after that step, in the inner lock or out of it.
    fn dead_after((state, count): (u64, u64), inside: bool) -> Latch {
        let latch = Latch::new(2).expect("latch");
        let seats = latch.seats();
        let seat = seats.claim(owner::dead::process(), 0).expect("a seat");
        seats.state(seat).store(state, Ordering::Relaxed);
        latch.word().store(count, Ordering::Relaxed);
        if inside {
            latch.memory.word(LOCK).store(owner::dead::thread(), Ordering::Relaxed);
        }
        latch
    }

    #[test]
    fn a_death_before_the_count_changes_breaks_it() {
        for latch in
            [dead_after(STEPS[0], false), dead_after(STEPS[0], true), dead_after(STEPS[1], true)]
        {
            assert!(latch.wait().expect_err("it will not come").is_broken());
        }
    }

    #[test]
    fn a_death_after_the_count_has_changed_is_one_that_counted() {
        for latch in
            [dead_after(STEPS[2], true), dead_after(STEPS[3], true), dead_after(STEPS[3], false)]
        {
            let timeout = Duration::from_millis(20);
            assert!(!latch.wait_timeout(timeout).expect("not broken"));
            latch.count_down().expect("one is to come");
            latch.wait().expect("open");
            let seat = latch.seats().owner(0).load(Ordering::Relaxed);
            assert_eq!(seat, 0, "the dead one is forgotten");
        }
    }

    #[test]
    fn who_sleeps_finds_it_open_though_the_last_one_died_before_the_wake_up() {
        let latch = Latch::new(1).expect("latch");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| latch.wait());
            while latch.word().load(Ordering::Relaxed) & ASLEEP == 0 {
                std::thread::yield_now();
            }
            latch.word().fetch_sub(1, Ordering::AcqRel);
            waiter.join().expect("join").expect("open");
        });
    }
}
