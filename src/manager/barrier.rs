//! `Barrier`.

use super::proxy::proxy_type;
use super::waiting::Room;
use crate::entry::{Caller, Departure};
use crate::error::Kind;
use crate::manager::Manager;
use crate::{Error, Execution, Result};
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A barrier in the server.
#[derive(Debug)]
pub(super) struct Meeting {
    room: Room<Round>,
    parties: u32,
}

#[derive(Debug, Default)]
struct Round {
    number: u64,
    arrived: u32,
    is_broken: bool,
    /// The last round that was sent away, by a reset or because the barrier broke.
    sent_away: Option<u64>,
    /// Callers that have come in some round, and live.
    members: HashSet<u64>,
}

impl Round {
    fn break_it(&mut self) {
        self.is_broken = true;
        self.send_away();
    }

    fn send_away(&mut self) {
        if self.arrived > 0 {
            self.sent_away = Some(self.number);
            self.number += 1;
            self.arrived = 0;
        }
    }
}

fn broken() -> Error {
    Error::new(
        Kind::Broken,
        "the manager's barrier is broken: somebody who waited died or gave up, or it was aborted or \
         reset",
    )
}

impl Meeting {
    /// Waits for the others; the place in which it arrived.
    fn wait(self: &Arc<Self>, caller: &dyn Caller, timeout: Duration) -> Result<u32> {
        let holder: Weak<Self> = Arc::downgrade(self);
        caller.holds(holder);
        let (number, index) = self.room.change(|round| {
            round.members.insert(caller.id());
            if round.is_broken {
                return Err(broken());
            }
            let arrival = (round.number, round.arrived);
            round.arrived += 1;
            if round.arrived == self.parties {
                (round.number, round.arrived) = (round.number + 1, 0);
            }
            Ok(arrival)
        })?;
        let over = |round: &mut Round| {
            if round.number == number {
                return None;
            }
            Some(if round.sent_away == Some(number) { Err(broken()) } else { Ok(index) })
        };
        let came = self.room.wait(caller, timeout, over);
        came.unwrap_or_else(|| self.give_up(caller, number, index))
    }

    /// Somebody waits no longer, because it died or its time passed.
    fn give_up(&self, caller: &dyn Caller, number: u64, index: u32) -> Result<u32> {
        let is_alive = caller.is_alive();
        self.room.change(|round| {
            if round.number != number {
                // It ended just now. A death is the next round's business: `departed` tells it.
                return if round.sent_away == Some(number) { Err(broken()) } else { Ok(index) };
            }
            round.break_it();
            if !is_alive {
                // Its death is told hereby.
                round.members.remove(&caller.id());
            }
            Err(Error::new(
                Kind::Timeout(Execution::NotStarted),
                "not all parties came to the manager's barrier in time, which breaks it",
            ))
        })
    }
}

impl Departure for Meeting {
    fn departed(&self, caller: u64, said_so: bool) {
        self.room.change(|round| {
            if round.members.remove(&caller) && !said_so {
                round.break_it();
            }
        });
    }
}

/// What [`Barrier::wait`] returns.
pub use crate::sync::BarrierWaitResult;

proxy_type! {
    /// A meeting point of a fixed number of parties that a [`Manager`]'s server holds: Python's
    /// `Manager().Barrier()`.
    ///
    /// A party that dies, while it waits or after it has been in an earlier round, breaks the
    /// barrier, as does one whose time passes. A thread that ends does not. The server cannot know
    /// of a party that dies before it has ever come: use a timeout, or
    /// [`multiproc::Barrier`](crate::Barrier), which is in shared memory and notices.
    ///
    /// ```
    /// use multiproc::{Manager, Process};
    /// use multiproc::manager::Barrier;
    ///
    /// let manager = Manager::start()?;
    /// let barrier = manager.barrier(2)?;
    /// let wait = |barrier: Barrier| barrier.wait().map(|place| place.is_leader()).ok();
    /// let mut other = Process::spawn(wait, (barrier.clone(),))?;
    /// let leads = barrier.wait()?.is_leader();
    /// assert_eq!(other.join()?, Some(!leads)); // one of the two does
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails with [`is_disconnected`](Error::is_disconnected) if the server has ended,
    /// also while it waits; beyond that, as it says.
    Barrier [] of Meeting
}

impl Manager {
    /// Makes a barrier for this many parties.
    ///
    /// # Errors
    /// As [`Manager::create`], and [`is_invalid_input`](Error::is_invalid_input) for none.
    pub fn barrier(&self, parties: u32) -> Result<Barrier> {
        if parties == 0 {
            return Err(Error::invalid("a barrier is for 1 party at least, not for 0"));
        }
        let make = |(parties,): (u32,)| Ok(Meeting { room: Room::default(), parties });
        self.hold_raw(make, (&parties,)).map(Barrier)
    }
}

impl Barrier {
    /// Waits until all parties have arrived.
    ///
    /// # Errors
    /// [`is_broken`](Error::is_broken) if the barrier is broken, or is broken or reset meanwhile.
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.wait_timeout(Duration::MAX)
    }

    /// As [`wait`](Barrier::wait), for `timeout` at most. As in Python, a timeout breaks the
    /// barrier.
    ///
    /// # Errors
    /// As `wait`, and [`is_timeout`](Error::is_timeout) if it passed.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        let wait = |meeting: &Arc<Meeting>, caller: &dyn Caller, (timeout,): (Duration,)| {
            meeting.wait(caller, timeout)
        };
        self.0.raw(wait, (&timeout,)).map(BarrierWaitResult::at)
    }

    /// Breaks the barrier.
    pub fn abort(&self) -> Result<()> {
        let abort = |meeting: &Arc<Meeting>, _: &dyn Caller, ()| {
            meeting.room.change(Round::break_it);
            Ok(())
        };
        self.0.raw(abort, ())
    }

    /// Mends the barrier, and makes it empty: those who wait get an error
    /// ([`is_broken`](Error::is_broken)).
    pub fn reset(&self) -> Result<()> {
        let reset = |meeting: &Arc<Meeting>, _: &dyn Caller, ()| {
            meeting.room.change(|round| {
                round.send_away();
                round.is_broken = false;
            });
            Ok(())
        };
        self.0.raw(reset, ())
    }

    /// The number of parties.
    pub fn parties(&self) -> Result<u32> {
        self.0.raw(|meeting: &Arc<Meeting>, _: &dyn Caller, ()| Ok(meeting.parties), ())
    }

    /// How many wait, at this moment.
    pub fn n_waiting(&self) -> Result<u32> {
        let waiting = |meeting: &Arc<Meeting>, _: &dyn Caller, ()| {
            Ok(meeting.room.look(|round| round.arrived))
        };
        self.0.raw(waiting, ())
    }

    /// Whether the barrier is broken.
    pub fn is_broken(&self) -> Result<bool> {
        let broken = |meeting: &Arc<Meeting>, _: &dyn Caller, ()| {
            Ok(meeting.room.look(|round| round.is_broken))
        };
        self.0.raw(broken, ())
    }
}

#[cfg(test)]
mod tests {
    use super::super::waiting::model::Thread;
    use super::*;

    const GONE: Thread = Thread { id: 1, is_alive: false };

    #[test]
    fn a_party_that_dies_when_its_round_has_just_ended_breaks_the_next_one() {
        let meeting = Arc::new(Meeting { room: Room::default(), parties: 1 });
        // It was the last one to come.
        assert_eq!(meeting.wait(&GONE, Duration::MAX).ok(), Some(0));
        meeting.departed(1, false);
        assert!(meeting.room.look(|round| round.is_broken));
    }

    #[test]
    fn a_party_that_dies_while_it_waits_breaks_the_barrier_once() {
        let meeting = Arc::new(Meeting { room: Room::default(), parties: 2 });
        assert!(meeting.wait(&GONE, Duration::MAX).is_err());
        assert!(meeting.room.look(|round| round.is_broken));
        meeting
            .room
            .change(|round| *round = Round { members: round.members.clone(), ..Round::default() });
        meeting.departed(1, false);
        assert!(!meeting.room.look(|round| round.is_broken));
    }
}
