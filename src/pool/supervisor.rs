//! The supervisor: the pool's one thread. It sleeps until a worker rings, dies or is overdue, or
//! somebody kicks it; it collects, buries, replaces and dismisses.

use super::engine::Engine;
use super::state::{Phase, State};
use super::worker::Worker;
use crate::Error;
use crate::sys::clock::Deadline;
use std::sync::Arc;
use std::time::Duration;

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
        worker.condemn(super::worker::Doom::Terminated);
        worker.child.kill_and_wait();
        state.slots[slot] = None;
    }
}

/// The life of the supervisor thread: until the last worker of a finished pool is gone.
pub(super) fn run(engine: &Arc<Engine>) {
    let mut ready = Vec::new();
    let mut buffer = Vec::new();
    let mut failed_starts = 0;
    if engine.poller.add(&engine.kick, KICK).is_err() {
        engine.release_after(|state| state.end(Error::closed(), true));
    }
    loop {
        ready.clear();
        let deadline = fall_asleep(engine);
        let deadline =
            if failed_starts > 0 { Deadline::after(START_PAUSE).min(deadline) } else { deadline };
        if engine.poller.wait(&mut ready, deadline).is_err() {
            let broken = Error::start("the pool's supervisor cannot wait for events any more");
            engine.release_after(|state| state.end(broken, true));
        }
        if wake_up(engine, &ready, &mut buffer) {
            break;
        }
        heal(engine, &mut failed_starts);
    }
    engine.announce();
}

/// Settles what can be settled and decides how long to sleep.
fn fall_asleep(engine: &Engine) -> Deadline {
    loop {
        let mut state = engine.lock();
        let mut reports = state.step();
        while reports >= FLOOD {
            engine.release(state);
            std::thread::sleep(FLOOD_PAUSE);
            state = engine.lock();
            reports = state.step();
        }
        let mut deadline = state.enforce_timeout();
        if state.rebalance() {
            deadline = deadline.min(Deadline::after(SOON));
        }
        let can_sleep = state.pollers > 0 || state.arm();
        if can_sleep && !state.has_finished() {
            state.supervisor_awake = false;
            state.alarm_set = deadline != Deadline::NEVER;
            return deadline;
        }
        engine.release(state);
    }
}

/// Handles events; true if the pool is over and the last worker gone.
fn wake_up(engine: &Engine, ready: &[u64], buffer: &mut Vec<u8>) -> bool {
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
    state.step();
    state.dismiss();
    let over = !matches!(state.phase, Phase::Running)
        && state.is_drained()
        && state.workers().next().is_none();
    engine.release(state);
    over && engine.lock().is_drained()
}

/// Reads a worker's socket.
fn hear(engine: &Engine, worker: &mut Worker, buffer: &mut Vec<u8>) {
    match worker.link_mut().drain_socket(buffer) {
        Ok(true) => {}
        // Closed. Its death, if it is dead, is seen through the pidfd; a worker that closed the
        // socket and lives cannot be talked to.
        Ok(false) => {
            engine.poller.remove(worker.link().socket());
            worker.condemn(super::worker::Doom::Violation("it closed its control socket"));
        }
        Err(violation) => worker.condemn(super::worker::Doom::Violation(violation.0)),
    }
}

/// Starts the workers that are missing.
fn heal(engine: &Engine, failed_starts: &mut u32) {
    let missing = engine.lock().missing();
    if missing == 0 {
        return;
    }
    match engine.roster.start(missing) {
        Ok(workers) => {
            *failed_starts = 0;
            let mut state = engine.lock();
            for worker in workers {
                admit(engine, &mut state, worker);
            }
            state.hand_out();
            engine.release(state);
        }
        Err(error) => {
            *failed_starts += 1;
            // A failed initializer fails again; a failed start may be a passing shortage.
            if error.is_initializer() || *failed_starts >= MAX_FAILED_STARTS {
                engine.release_after(|state| state.end(error, false));
                engine.announce();
                *failed_starts = 0;
            }
        }
    }
}
