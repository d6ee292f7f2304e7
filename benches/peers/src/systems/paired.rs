//! How the things by which two parties synchronise are measured, once for all
//! systems.
//!
//! A party is a thread or a process, whichever the system is about. Besides the
//! caller there is at most one other, which does a [`Job`].

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Part, System};
use crate::measure::{per_op, seconds};
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;

/// Added to the counter when there has been enough counting.
const END: u64 = 1 << 62;

/// Rounds by which it is found out how many rounds fill the time.
const TRIAL: u64 = 300;

/// The direction of a signal between the two parties.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// From the caller to the other party.
    There = 0,
    /// From the other party to the caller.
    Back = 1,
}

/// What two parties share, as a system has it.
///
/// The operations are written as a user of the system would.
pub trait Primitives: Sized {
    /// The name of the system, see [`System::name`].
    const NAME: &'static str;

    /// A lock that is free, numbers which are zero, an event each way that is not
    /// set, and a semaphore each way that nobody can take.
    fn create() -> Result<Self>;

    /// Takes the lock and gives it back.
    fn lock(&self) -> Result<()>;

    /// Adds to a counter while holding the lock; returns the sum.
    fn count(&self, more: u64) -> Result<u64>;

    /// Adds one to a shared number that has a lock of its own.
    fn update(&self) -> Result<()>;

    /// The number which [`Primitives::update`] changes.
    fn value(&self) -> Result<u64>;

    /// Sets an event.
    fn set(&self, event: Way) -> Result<()>;

    /// Waits until an event is set, and clears it.
    fn take(&self, event: Way) -> Result<()>;

    /// Lets the semaphore be acquired once more.
    fn release(&self, semaphore: Way) -> Result<()>;

    /// Acquires the semaphore, which it waits for.
    fn acquire(&self, semaphore: Way) -> Result<()>;

    /// Starts the other party, which does `job`; runs `own` meanwhile; waits for
    /// both. Returns the result of either.
    ///
    /// If `own` fails the other party may wait for ever, until the sampling process
    /// is killed.
    fn beside<T>(&self, job: Job, own: impl FnOnce() -> Result<T>) -> Result<(T, u64)>;
}

/// What the other party does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Counts until the counter has reached [`END`]; results in how often it did.
    Count,
    /// Answers that many events.
    Events(u64),
    /// Answers that many releases of the semaphore.
    Semaphores(u64),
}

impl Job {
    /// Does it, in the other party.
    pub fn run(self, shared: &impl Primitives) -> Result<u64> {
        match self {
            Job::Count => {
                let mut times = 1;
                while shared.count(1)? < END {
                    times += 1;
                }
                Ok(times)
            }
            Job::Events(rounds) => {
                for _ in 0..rounds {
                    shared.take(Way::There)?;
                    shared.set(Way::Back)?;
                }
                Ok(rounds)
            }
            Job::Semaphores(rounds) => {
                for _ in 0..rounds {
                    shared.acquire(Way::There)?;
                    shared.release(Way::Back)?;
                }
                Ok(rounds)
            }
        }
    }

    /// The part of the caller in one round of this.
    fn round(self, shared: &impl Primitives) -> Result<()> {
        match self {
            Job::Count => shared.count(1).map(drop),
            Job::Events(_) => {
                shared.set(Way::There)?;
                shared.take(Way::Back)
            }
            Job::Semaphores(_) => {
                shared.release(Way::There)?;
                shared.acquire(Way::Back)
            }
        }
    }
}

/// [`Primitives`] as a [`System`].
pub struct Paired<P>(PhantomData<P>);

impl<P> Paired<P> {
    /// The only one there is.
    pub fn new() -> Paired<P> {
        Paired(PhantomData)
    }
}

impl<P: Primitives> System for Paired<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        if workload.synchronises() { Part::Takes } else { Part::None }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let time = settings.loop_time();
        let shared = P::create()?;
        Sample::here(match workload {
            Workload::LockUncontended => per_op(time, || shared.lock())? * 1e9,
            Workload::LockContended => contended(&shared, time)? * 1e9,
            Workload::ValueUpdate => updates(&shared, time)? * 1e9,
            Workload::EventPingpong => exchange(&shared, time, Job::Events)? * 1e6,
            Workload::SemaphoreHandoff => exchange(&shared, time, Job::Semaphores)? * 1e6,
            _ => bail!("{} has no such primitive", P::NAME),
        })
    }
}

/// Seconds per update of a number which nobody else wants.
fn updates(shared: &impl Primitives, time: Duration) -> Result<f64> {
    let mut updates = 0;
    let each = per_op(time, || {
        updates += 1;
        shared.update()
    })?;
    ensure!(shared.value()? == updates, "updates were lost");
    Ok(each)
}

/// Seconds per turn of a lock which both parties take all the time, the turns of
/// both counted.
///
/// Whoever has the lock adds to a counter, so that it would be noticed if the lock
/// did not exclude.
fn contended(shared: &impl Primitives, time: Duration) -> Result<f64> {
    let ((each, own), others) = shared.beside(Job::Count, || {
        let mut own = 0;
        let each = contend(shared, time, &mut own);
        // In any case, or the other party would never end.
        shared.count(END)?;
        Ok((each?, own))
    })?;
    let total = shared.count(0)?;
    ensure!(total == END + own + others, "{total} is not {own} + {others}: a lock did not exclude");
    Ok(each)
}

/// The caller's side of [`contended`]; adds to `own` how often it counted.
fn contend(shared: &impl Primitives, time: Duration, own: &mut u64) -> Result<f64> {
    let mut count = |times: u64| -> Result<u64> {
        let mut sum = 0;
        for _ in 0..times {
            sum = shared.count(1)?;
            *own += 1;
        }
        Ok(sum)
    };
    // The other party takes a while to start, and is then left to warm up.
    let mut alone = 0;
    while count(1)? == alone + 1 {
        alone += 1;
    }
    let start = Instant::now();
    while start.elapsed() < time / 4 {
        count(100)?;
    }
    let (start, first) = (Instant::now(), count(1)?);
    while start.elapsed() < time {
        // So many that reading the clock costs next to nothing.
        count(500)?;
    }
    let turns = count(1)? - first;
    Ok(start.elapsed().as_secs_f64() / turns as f64)
}

/// Seconds per round trip of a signal to the other party and back.
fn exchange(shared: &impl Primitives, time: Duration, job: fn(u64) -> Job) -> Result<f64> {
    let trial = rounds(shared, TRIAL, job)?;
    rounds(shared, ((time.as_secs_f64() / trial) as u64).max(TRIAL), job)
}

/// Seconds per round trip in that many of them, after a warm-up of a quarter of it.
fn rounds(shared: &impl Primitives, rounds: u64, job: fn(u64) -> Job) -> Result<f64> {
    let job = job(rounds + rounds / 4);
    let (time, _) = shared.beside(job, || {
        for _ in 0..rounds / 4 {
            job.round(shared)?;
        }
        seconds(|| (0..rounds).try_for_each(|_| job.round(shared)))
    })?;
    Ok(time / rounds as f64)
}
