//! The supervisor: the pool's one thread. It sleeps until a worker rings, dies or is overdue, or
//! somebody kicks it; it collects, buries, replaces and dismisses.

use super::engine::Engine;
use super::state::{Phase, State};
use super::worker::{Doom, Worker};
use crate::sys::clock::Deadline;
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// What an event is about: a worker's slot, twice, plus which of its descriptors.
const KICK: u64 = u64::MAX;

/// The pause between looks while results pour in, so that each look finds many.
const FLOOD_PAUSE: Duration = Duration::from_micros(50);
/// So many reports in one look are a flood.
const FLOOD: usize = 16;
/// The pause before looking at starving workers again.
const SOON: Duration = Duration::from_millis(1);
/// How often workers may fail to start, one after the other, before the pool gives up.
const MAX_FAILED_STARTS: u32 = 3;
/// The pause after a failed start.
const START_PAUSE: Duration = Duration::from_millis(100);

/// Adds a worker to the pool.
pub(super) fn admit(engine: &Engine, state: &mut State, worker: Worker) {
    let child = worker.child.clone();
    let slot = state.add_worker(worker);
    let Some(worker) = &mut state.slots[slot] else {
        return;
    };
    let watched = engine
        .poller
        .add(worker.link().socket(), slot as u64 * 2)
        .and_then(|()| engine.poller.add(&*child, slot as u64 * 2 + 1));
    if watched.is_err() {
        // Out of memory for the poller: nobody would see it die, so it must not live.
        worker.condemn(Doom::Terminated);
        worker.child.kill_and_wait();
        state.slots[slot] = None;
    }
}

/// The life of the supervisor thread: until the last worker of a finished pool is gone.
pub(super) fn run(engine: &Arc<Engine>) {
    let guarded = catch_unwind(AssertUnwindSafe(|| supervise(engine)));
    if guarded.is_err() {
        // A bug of ours. Nobody may wait for ever because of it.
        engine.release_after(|state| state.abandon());
    }
    engine.announce();
}

fn supervise(engine: &Arc<Engine>) {
    let mut ready = Vec::new();
    let mut buffer = Vec::new();
    let mut healer = Healer::default();
    if engine.poller.add(&engine.kick, KICK).is_err() {
        engine.release_after(|state| state.end(Error::closed(), true));
    }
    loop {
        ready.clear();
        let deadline = fall_asleep(engine).min(healer.deadline());
        if engine.poller.wait(&mut ready, deadline).is_err() {
            let broken = Error::start("the pool's supervisor cannot wait for events any more");
            engine.release_after(|state| state.end(broken, true));
        }
        wake_up(engine, &ready, &mut buffer);
        healer.look_after(engine);
        // Asked only now: a worker that came up for a pool that is over has to be dismissed and
        // buried, or whoever waits for the last worker's end would wait for ever.
        if healer.is_idle() && engine.lock().is_over() {
            break;
        }
    }
}

/// Settles what can be settled and decides how long to sleep.
///
/// While results keep coming the answer is not at all, rather than another look from here: deaths,
/// time limits and rings wait behind the poller, and a flood may last as long as the pool.
fn fall_asleep(engine: &Engine) -> Deadline {
    let mut state = engine.lock();
    let is_flood = state.step() >= FLOOD;
    let mut deadline = state.enforce_timeout();
    if state.rebalance() {
        deadline = deadline.min(Deadline::after(SOON));
    }
    let can_sleep = !is_flood && (state.pollers > 0 || state.arm());
    if can_sleep && !state.has_finished() {
        state.supervisor_awake = false;
        state.alarm_set = deadline != Deadline::NEVER;
        return deadline;
    }
    engine.release(state);
    if is_flood {
        std::thread::sleep(FLOOD_PAUSE);
    }
    Deadline::now()
}

/// Handles events. The results are collected by the next attempt to fall asleep.
fn wake_up(engine: &Engine, ready: &[u64], buffer: &mut Vec<u8>) {
    let mut state = engine.lock();
    state.supervisor_awake = true;
    state.disarm();
    for &token in ready {
        if token == KICK {
            engine.kick.clear();
            continue;
        }
        let slot = (token / 2) as usize;
        let Some(worker) = state.slots.get_mut(slot).and_then(Option::as_mut) else {
            continue;
        };
        if token % 2 == 0 {
            hear(engine, worker, buffer);
        } else if let Ok(Some(exit)) = worker.child.try_wait() {
            engine.poller.remove(worker.link().socket());
            engine.poller.remove(&*worker.child);
            let expected = worker.leaving;
            state.restarts += u64::from(!expected && !matches!(state.phase, Phase::Over(_)));
            state.bury(slot, exit);
        }
    }
    state.dismiss();
    let is_over = matches!(state.phase, Phase::Over(_));
    engine.release(state);
    if is_over {
        engine.roster.call_off();
    }
}

/// Reads a worker's socket.
fn hear(engine: &Engine, worker: &mut Worker, buffer: &mut Vec<u8>) {
    match worker.link_mut().drain_socket(buffer) {
        Ok(true) => {}
        // Closed. A dying process closes its descriptors before its pidfd tells of its death, so
        // this is most likely a death like any other, with results to collect; the pidfd will say
        // how it ended. The signal is for one that lives: it cannot be talked to.
        Ok(false) => {
            engine.poller.remove(worker.link().socket());
            worker.cut_off();
        }
        Err(violation) => worker.condemn(Doom::Violation(violation.0)),
    }
}

/// Replaces workers. Starting one takes a while, and its initializer as long as it likes, so that
/// happens on a thread of its own.
#[derive(Default)]
struct Healer {
    coming: Option<Receiver<Result<Vec<Worker>>>>,
    failed_starts: u32,
    not_before: Option<Instant>,
}

impl Healer {
    /// Whether no worker is being started.
    fn is_idle(&self) -> bool {
        self.coming.is_none()
    }

    /// When to try again after a failed start.
    fn deadline(&self) -> Deadline {
        self.not_before.map_or(Deadline::NEVER, Deadline::at)
    }

    /// Takes in the workers that have come up, and starts those that are missing.
    fn look_after(&mut self, engine: &Arc<Engine>) {
        match self.coming.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(workers)) => self.take_in(engine, workers),
            Some(Err(TryRecvError::Disconnected)) => {
                self.take_in(engine, Err(Error::start("the thread that starts workers has died")));
            }
            None => {}
        }
        self.coming = None;
        let missing = engine.lock().missing();
        let too_early = self.not_before.is_some_and(|at| Instant::now() < at);
        if missing == 0 || too_early {
            return;
        }
        self.not_before = None;
        let (sender, receiver) = channel();
        let on_thread = engine.clone();
        let thread = std::thread::Builder::new().name("multiproc-heal".to_owned());
        let spawned = thread.spawn(move || {
            // Caught, so that the supervisor hears of it even if the thread dies.
            let started = catch_unwind(AssertUnwindSafe(|| on_thread.roster.start(missing)));
            if let Ok(workers) = started {
                let _ = sender.send(workers);
            }
            drop(sender);
            on_thread.kick.kick();
        });
        match spawned {
            Ok(_) => self.coming = Some(receiver),
            Err(error) => {
                let error = Error::os("the thread that starts workers could not be started", error);
                self.take_in(engine, Err(error));
            }
        }
    }

    fn take_in(&mut self, engine: &Engine, workers: Result<Vec<Worker>>) {
        match workers {
            Ok(workers) => {
                self.failed_starts = 0;
                let mut state = engine.lock();
                for mut worker in workers {
                    if matches!(state.phase, Phase::Over(_)) {
                        // It was ready before it could be called off; nobody waits for its
                        // finalizer.
                        worker.condemn(Doom::Terminated);
                    }
                    admit(engine, &mut state, worker);
                }
                state.receive();
                engine.release(state);
            }
            Err(error) => {
                self.failed_starts += 1;
                self.not_before = Instant::now().checked_add(START_PAUSE);
                // A failed initializer fails again; a failed start may be a passing shortage.
                if error.is_initializer() || self.failed_starts >= MAX_FAILED_STARTS {
                    engine.release_after(|state| state.end(error, false));
                    engine.announce();
                }
            }
        }
    }
}
