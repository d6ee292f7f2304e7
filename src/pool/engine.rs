//! The pool's engine room: the lock, the threads that wait, and the wake-ups.

use super::arguments::Blocks;
use super::batch::Batch;
use super::callbacks::Callbacks;
use super::roster::Roster;
use super::state::{Phase, State};
use super::task::{Done, Sink, Task, deliver};
use crate::sys::clock::Deadline;
use crate::sys::epoll::{Kick, Poller};
use crate::sys::fork;
use crate::sys::spin::Spin;
use crate::{Error, Result};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest and the shortest time that a thread looks for its result before it sleeps.
const LONG_LOOK: u32 = 50;
const SHORT_LOOK: u32 = 2;

thread_local! {
    static FINISHED: Cell<Vec<Done>> = const { Cell::new(Vec::new()) };
}

/// What all handles of a pool share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) roster: Roster,
    pub(super) poller: Poller,
    pub(super) kick: Kick,
    pub(super) blocks: Arc<Blocks>,
    pub(super) callbacks: Arc<Callbacks>,
    state: Mutex<State>,
    /// There is room for more work, or a phase has ended.
    changed: Condvar,
    /// How long to look before sleeping, in microseconds: shorter after looks that found nothing.
    look: AtomicU32,
    generation: u32,
}

impl Engine {
    pub(super) fn new(roster: Roster, state: State) -> Result<Self> {
        let failed = |error| Error::os("the pool could not be set up", error);
        Ok(Self {
            roster,
            poller: Poller::new().map_err(failed)?,
            kick: Kick::new().map_err(failed)?,
            blocks: Arc::default(),
            callbacks: Arc::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            look: AtomicU32::new(LONG_LOOK),
            generation: fork::generation(),
        })
    }

    /// Whether this process owns the workers; a fork of it does not.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Refuses calls in a forked child.
    pub(super) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        Err(Error::invalid(
            "this pool belongs to the process that this one was forked from: build one here",
        ))
    }

    /// Locks the state. Nothing of the user's runs under this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the lock and delivers what is finished.
    pub(super) fn release(&self, mut state: MutexGuard<'_, State>) {
        if !state.has_finished() {
            // A new worker may have taken so much off the queue that there is room.
            if state.crowd > 0 && !state.is_full() {
                drop(state);
                self.changed.notify_all();
            }
            return;
        }
        // Swapped with this thread's empty one, so that neither is ever allocated again.
        // A thread that is ending has none any more.
        let mut finished = FINISHED.try_with(Cell::take).unwrap_or_default();
        state.take_finished(&mut finished);
        let roomy = state.crowd > 0 && !state.is_full();
        let drained = state.is_drained() && !matches!(state.phase, Phase::Running);
        drop(state);
        if roomy || drained {
            self.changed.notify_all();
        }
        if drained {
            self.kick.kick();
        }
        deliver(&mut finished);
        let _ = FINISHED.try_with(|empty| empty.set(finished));
    }

    /// Looks for results once; returns how many reports there were.
    pub(super) fn poll(&self) -> usize {
        // If another thread has the lock, it is looking.
        let Ok(mut state) = self.state.try_lock() else {
            return 0;
        };
        let reports = state.step();
        self.release(state);
        reports
    }

    /// Takes a task, waiting while the pool is full.
    ///
    /// # Errors
    /// If the pool is closed or over.
    pub(super) fn submit(&self, task: Task) -> Result<()> {
        let mut state = self.lock_with_room()?;
        let is_chunk = task.len() > 1;
        state.submit(task);
        // Nobody may be waiting for it: then the supervisor alone sees that its first item is long
        // while a worker is free for the others.
        let uneven = is_chunk && state.has_idle() && !state.supervisor_awake;
        let kick = uneven || self.wants_supervisor(&state);
        self.release(state);
        if kick {
            self.kick.kick();
        }
        Ok(())
    }

    /// Takes a task and waits until its batch is done, looking for the result from the start.
    ///
    /// # Errors
    /// If the pool is closed or over.
    pub(super) fn submit_and_wait(&self, task: Task, batch: &Batch) -> Result<()> {
        let mut state = self.lock_with_room()?;
        state.pollers += 1;
        state.submit(task);
        let kick = self.wants_supervisor(&state);
        self.release(state);
        if kick {
            self.kick.kick();
        }
        let found = self.look(Deadline::NEVER, || batch.is_finished());
        self.stop_polling();
        if !found {
            batch.sleep(Deadline::NEVER);
        }
        Ok(())
    }

    /// Changes the state and delivers what that finishes.
    pub(super) fn release_after(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.release(state);
    }

    /// How many workers the pool should have.
    pub(super) fn workers(&self) -> usize {
        self.lock().target
    }

    /// Whether the sleeping supervisor must set its alarm clock anew.
    fn wants_supervisor(&self, state: &State) -> bool {
        self.roster.rules.task_timeout.is_some() && !state.supervisor_awake && !state.alarm_set
    }

    fn lock_with_room(&self) -> Result<MutexGuard<'_, State>> {
        self.check_ours()?;
        loop {
            let mut state = self.lock();
            state.check_open()?;
            if !state.is_full() {
                return Ok(state);
            }
            if state.step() > 0 || state.has_finished() {
                self.release_and_arm(state);
                continue;
            }
            if self.callbacks.is_current_thread() {
                // Whoever submits from a callback cannot wait for callbacks to make room.
                return Ok(state);
            }
            if !state.supervisor_awake && !state.arm() {
                continue;
            }
            state.crowd += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.crowd -= 1;
        }
    }

    /// Waits until `ready` says so: looks for results itself for a while, then sleeps in `sleep`
    /// while the supervisor looks. Returns whether it became ready before the deadline.
    pub(super) fn wait(
        &self,
        deadline: Deadline,
        ready: impl Fn() -> bool,
        sleep: impl FnOnce(Deadline) -> bool,
    ) -> bool {
        if ready() {
            return true;
        }
        self.lock().pollers += 1;
        let found = self.look(deadline, &ready);
        self.stop_polling();
        found || ready() || sleep(deadline)
    }

    fn look(&self, deadline: Deadline, ready: impl Fn() -> bool) -> bool {
        // Relaxed: a hint.
        let look = self.look.load(Ordering::Relaxed);
        let mut spin = Spin::new(Duration::from_micros(look.into()));
        loop {
            if self.poll() > 0 {
                if ready() {
                    let longer = (look * 2).min(LONG_LOOK);
                    self.look.store(longer, Ordering::Relaxed);
                    return true;
                }
                spin = Spin::new(Duration::from_micros(look.into()));
            } else if ready() {
                return true;
            }
            if !spin.again() || deadline.passed() {
                self.look.store((look / 2).max(SHORT_LOOK), Ordering::Relaxed);
                return false;
            }
        }
    }

    /// The last thread that looked for results makes sure that the next one is heard of.
    fn stop_polling(&self) {
        loop {
            let mut state = self.lock();
            state.pollers = state.pollers.saturating_sub(1);
            if state.supervisor_awake {
                return;
            }
            // Not only by the last one: among many threads there may never be a last one.
            let starving = state.rebalance();
            if state.pollers > 0 {
                return;
            }
            if starving {
                // The supervisor keeps an eye on it.
                self.kick.kick();
            }
            if state.arm() {
                return self.release(state);
            }
            state.pollers += 1;
            state.step();
            self.release(state);
        }
    }

    /// Frees the lock after a look for results by a thread that does not wait for any.
    ///
    /// Who looks for the descriptor of a large result empties the worker's socket, and with it may
    /// go a ring that the supervisor has not heard yet: it sleeps on, while the bell of that worker
    /// is off. So whoever collects leaves as one of those who look: the last of them arms the
    /// bells.
    fn release_and_arm(&self, mut state: MutexGuard<'_, State>) {
        state.pollers += 1;
        self.release(state);
        self.stop_polling();
    }

    /// Waits for a batch; true if it is done.
    pub(super) fn wait_for(&self, batch: &Batch, deadline: Deadline) -> bool {
        self.wait(deadline, || batch.is_finished(), |deadline| batch.sleep(deadline))
    }

    /// Waits until `over` says so, or the deadline passes; woken by changes of phase and room.
    pub(super) fn wait_for_state(&self, over: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !over(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes those who wait for a change of phase.
    pub(super) fn announce(&self) {
        self.changed.notify_all();
    }

    /// Cancels the tasks of a sink.
    pub(super) fn cancel(&self, sink: &Arc<dyn Sink>, kill: bool) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut state = self.lock();
        let cancelled = state.cancel(sink, kill);
        // It may have collected, and it may have left a worker idle beside the work of another.
        self.release_and_arm(state);
        cancelled
    }
}
