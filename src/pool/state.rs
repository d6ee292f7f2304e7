//! The state of a pool, behind one lock: what waits, and who holds what.

use super::stats::PoolStats;
use super::task::{Done, Outcome, Sink, Task};
use super::worker::{Doom, Worker};
use crate::sys::clock::Deadline;
use crate::sys::pidfd::Exit;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker may be idle beside queued work of others before that is shared out anew.
const STARVING: Duration = Duration::from_micros(200);

/// Where a pool is in its life.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It takes work.
    Running,
    /// It finishes the work that it has.
    Closed,
    /// It is over: workers are dead or dying, and nothing more is run.
    Over(Error),
}

/// The rules that a pool was built with, as far as dispatch needs them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) task_timeout: Option<Duration>,
    pub(super) retries: u32,
    pub(super) max_in_flight: u64,
}

/// The most payload bytes that wait in the queue.
const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

/// Everything that the lock protects.
#[derive(Debug)]
pub(super) struct State {
    rules: Rules,
    pub(super) phase: Phase,
    /// How many workers there should be.
    pub(super) target: usize,
    pub(super) slots: Vec<Option<Worker>>,
    queue: VecDeque<Task>,
    queued_bytes: usize,
    /// Items that are not done.
    outstanding: u64,
    /// Workers that have work, by slot.
    busy: Vec<usize>,
    /// Workers that have none, by slot; the one used last is last.
    idle: Vec<usize>,
    /// Threads that are looking for results right now, so that nobody needs to ring.
    pub(super) pollers: usize,
    /// The supervisor is looking, too.
    pub(super) supervisor_awake: bool,
    /// The sleeping supervisor will look by itself before the next task can be overdue.
    pub(super) alarm_set: bool,
    starving_since: Option<Instant>,
    /// Threads that wait for room.
    pub(super) crowd: usize,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) restarts: u64,
    finished: Vec<Done>,
}

impl State {
    pub(super) fn new(rules: Rules, target: usize) -> Self {
        Self {
            rules,
            phase: Phase::Running,
            target,
            slots: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            outstanding: 0,
            busy: Vec::new(),
            idle: Vec::new(),
            pollers: 0,
            supervisor_awake: true,
            alarm_set: false,
            starving_since: None,
            crowd: 0,
            done: 0,
            failed: 0,
            restarts: 0,
            finished: Vec::new(),
        }
    }

    /// Takes a worker in; returns its slot.
    pub(super) fn add_worker(&mut self, worker: Worker) -> usize {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[slot] = Some(worker);
        self.idle.push(slot);
        slot
    }

    /// The live workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().flatten()
    }

    /// The live workers.
    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.slots.iter_mut().flatten()
    }

    /// How many workers to start now.
    pub(super) fn missing(&self) -> usize {
        match self.phase {
            Phase::Over(_) => 0,
            Phase::Closed if self.outstanding == 0 => 0,
            _ => {
                let staying = self.workers().filter(|worker| !worker.leaving).count();
                self.target.saturating_sub(staying)
            }
        }
    }

    /// Whether new work is taken now.
    ///
    /// # Errors
    /// If the pool is closed or over.
    pub(super) fn check_open(&self) -> Result<()> {
        match &self.phase {
            Phase::Running => Ok(()),
            Phase::Closed => Err(Error::closed()),
            Phase::Over(error) => Err(error.clone()),
        }
    }

    /// Whether as much work is in flight as the pool accepts.
    pub(super) fn is_full(&self) -> bool {
        self.outstanding >= self.rules.max_in_flight || self.queued_bytes > MAX_QUEUED_BYTES
    }

    /// Whether a worker has nothing to do.
    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether all work is done.
    pub(super) fn is_drained(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether the pool has nothing more to do and the last worker is gone. Without workers alone
    /// it may just be waiting for a replacement.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.phase, Phase::Running)
            && self.is_drained()
            && self.workers().next().is_none()
    }

    /// Takes a task in. It goes to a worker at once if one wants it.
    pub(super) fn submit(&mut self, task: Task) {
        self.outstanding += u64::from(task.len());
        self.enqueue_back(task);
        self.dispatch();
    }

    fn enqueue_back(&mut self, task: Task) {
        self.queued_bytes += task.payload.len();
        self.queue.push_back(task);
    }

    /// Puts tasks back in front, in their order.
    fn enqueue_front(&mut self, tasks: Vec<Task>) {
        for task in tasks.into_iter().rev() {
            self.queued_bytes += task.payload.len();
            self.queue.push_front(task);
        }
    }

    /// Workers have been added: they get work, or are dismissed if the pool is over by now.
    pub(super) fn receive(&mut self) {
        self.dismiss();
        self.dispatch();
    }

    /// The supervisor is gone: the workers are killed, and what they held fails.
    pub(super) fn abandon(&mut self) {
        let error = Error::start("the pool's supervisor has failed; this is a bug in multiproc");
        self.end(error, true);
        for slot in 0..self.slots.len() {
            if let Some(worker) = &self.slots[slot] {
                worker.child.kill_and_wait();
                self.bury(slot, Exit::Unknown);
            }
        }
    }

    /// Gives queued tasks to workers: first to idle ones, the latest first because it may still
    /// be awake, then ahead to busy ones.
    fn dispatch(&mut self) {
        if self.queue.is_empty() || matches!(self.phase, Phase::Over(_)) {
            return;
        }
        while !self.queue.is_empty()
            && let Some(slot) = self.idle.pop()
        {
            let usable = self.slots[slot].as_ref().is_some_and(Worker::is_usable);
            if usable && self.give(slot) {
                self.busy.push(slot);
            } else if self.slots[slot].is_some() {
                // Not usable, or its socket is full; its death or its next result changes that.
                self.busy.push(slot);
            }
        }
        let one_at_a_time = self.rules.task_timeout.is_some();
        for index in 0..self.busy.len() {
            let slot = self.busy[index];
            while !self.queue.is_empty()
                && self.slots[slot].as_ref().is_some_and(|worker| worker.wants_more(one_at_a_time))
                && self.give(slot)
            {}
            if self.queue.is_empty() {
                break;
            }
        }
    }

    /// Gives the first queued task to a worker and wakes it; false if it has no room.
    fn give(&mut self, slot: usize) -> bool {
        let listening = self.pollers > 0 || self.supervisor_awake;
        let (Some(worker), Some(task)) = (&mut self.slots[slot], self.queue.pop_front()) else {
            return false;
        };
        let bytes = task.payload.len();
        if !listening && worker.is_idle() {
            // Before the task is visible, so that its result cannot come before the wish.
            worker.link().arm();
        }
        match worker.post(task) {
            Ok(()) => {
                worker.link().wake();
                self.queued_bytes -= bytes;
                true
            }
            Err(task) => {
                self.queue.push_front(task);
                false
            }
        }
    }

    /// Collects results and hands out work; returns how many reports came in.
    pub(super) fn step(&mut self) -> usize {
        let ready = |slot: &usize| self.slots[*slot].as_ref().is_some_and(Worker::has_results);
        if !self.busy.iter().any(ready) {
            return 0;
        }
        let now = Instant::now();
        let mut reports = 0;
        let mut index = 0;
        while index < self.busy.len() {
            let slot = self.busy[index];
            let Some(worker) = &mut self.slots[slot] else {
                self.busy.swap_remove(index);
                continue;
            };
            reports += worker.collect(now, &mut self.finished);
            if worker.is_idle() && worker.is_usable() {
                self.busy.swap_remove(index);
                self.idle.push(slot);
            } else {
                index += 1;
            }
        }
        if reports > 0 {
            self.dispatch();
        }
        reports
    }

    /// Shares work out anew if a worker has been idle beside work of others for a while. Returns
    /// whether to look again soon.
    pub(super) fn rebalance(&mut self) -> bool {
        let starving = self.queue.is_empty()
            && !self.idle.is_empty()
            && self
                .busy
                .iter()
                .any(|slot| self.slots[*slot].as_ref().is_some_and(Worker::has_spare));
        if !starving {
            self.starving_since = None;
            return false;
        }
        let now = Instant::now();
        if now.duration_since(*self.starving_since.get_or_insert(now)) < STARVING {
            return true;
        }
        self.starving_since = None;
        let spare = |slot: &&usize| self.slots[**slot].as_ref().is_some_and(Worker::has_spare);
        let load = |slot: &&usize| self.slots[**slot].as_ref().map_or(0, Worker::outstanding);
        if let Some(&victim) = self.busy.iter().filter(spare).max_by_key(load)
            && let Some(worker) = &mut self.slots[victim]
        {
            let tasks = worker.take_back();
            let shares = self.idle.len() as u32 + 1;
            let tasks = tasks.into_iter().flat_map(|task| split(task, shares)).collect();
            self.enqueue_front(tasks);
            self.settle();
            self.dispatch();
        }
        true
    }

    /// Workers that were left with nothing when their work was taken back are idle. They report
    /// nothing that would make `step` notice it; and as long as they count as busy, tasks are
    /// queued behind the long one of another worker, and nothing of its work is shared out to them.
    fn settle(&mut self) {
        let Self { slots, busy, idle, .. } = self;
        busy.retain(|slot| {
            let worker = slots[*slot].as_ref();
            let is_free = worker.is_some_and(|worker| worker.is_idle() && worker.is_usable());
            if is_free {
                // First, so that it is the last to be given anything: it was slow to begin what it
                // had, and must not get just that again while another one could do it.
                idle.insert(0, *slot);
            }
            !is_free
        });
    }

    /// Asks every busy worker for a ring at its next result; false if a result is there already.
    /// What a worker that broke the protocol has there is not looked at any more.
    pub(super) fn arm(&self) -> bool {
        let armed = |worker: &Worker| !worker.is_believed() || worker.link().arm();
        self.busy.iter().all(|slot| self.slots[*slot].as_ref().is_none_or(armed))
    }

    /// Wants no rings.
    pub(super) fn disarm(&self) {
        for slot in &self.busy {
            if let Some(worker) = &self.slots[*slot] {
                worker.link().disarm();
            }
        }
    }

    /// A worker has ended: settles what it held.
    pub(super) fn bury(&mut self, slot: usize, exit: Exit) {
        let Some(worker) = self.slots[slot].take() else {
            return;
        };
        self.busy.retain(|busy| *busy != slot);
        self.idle.retain(|idle| *idle != slot);
        let again = worker.bury(exit, self.rules.retries, &mut self.finished);
        self.enqueue_front(again);
        if let Phase::Over(error) = &self.phase {
            let error = error.clone();
            self.fail_queued(&error);
        }
        self.dispatch();
    }

    /// Kills workers whose task has run too long; returns when to look again.
    pub(super) fn enforce_timeout(&mut self) -> Deadline {
        let Some(limit) = self.rules.task_timeout else {
            return Deadline::NEVER;
        };
        let mut next = Deadline::NEVER;
        for slot in &self.busy {
            if let Some(worker) = &mut self.slots[*slot] {
                let deadline = worker.deadline(Some(limit));
                // A result that is on its way counts.
                if deadline.passed() && !worker.link().has_results() {
                    worker.condemn(Doom::Timeout(limit));
                } else {
                    next = next.min(deadline);
                }
            }
        }
        next
    }

    /// Cancels the tasks of a sink: removes those that have not begun, and if `kill` is set, kills
    /// the workers that run one. Returns whether anything was cancelled.
    pub(super) fn cancel(&mut self, sink: &Arc<dyn Sink>, kill: bool) -> bool {
        let holding: Vec<usize> = self.busy.clone();
        for slot in holding {
            if let Some(worker) = &mut self.slots[slot]
                && worker.holds(|task| task.belongs_to(sink))
            {
                let tasks = worker.take_back();
                self.enqueue_front(tasks);
            }
        }
        let cancelled = || Error::cancelled("the task was cancelled before it began");
        let mut any = false;
        for task in std::mem::take(&mut self.queue) {
            if task.belongs_to(sink) {
                any = true;
                self.queued_bytes -= task.payload.len();
                self.finished.push(task.done(0, task.len(), Outcome::Failed(cancelled())));
            } else {
                self.queue.push_back(task);
            }
        }
        if kill {
            any |= self.kill_those_that_run(sink);
        }
        self.settle();
        self.dispatch();
        any
    }

    /// Kills the workers that run an item of a sink, of which nothing is queued; returns whether
    /// there were any. What they held besides was taken back before.
    fn kill_those_that_run(&mut self, sink: &Arc<dyn Sink>) -> bool {
        let now = Instant::now();
        let mut any = false;
        for slot in &self.busy {
            let Some(worker) = &mut self.slots[*slot] else {
                continue;
            };
            if worker.holds(|task| task.belongs_to(sink)) {
                // It runs the oldest that it has not reported: that can be another than the oldest
                // that was collected, before or after those of this sink.
                worker.collect(now, &mut self.finished);
            }
            if worker.runs(|task| task.belongs_to(sink)) {
                any = true;
                worker.condemn(Doom::Cancelled);
            }
        }
        any
    }

    fn fail_queued(&mut self, error: &Error) {
        for task in std::mem::take(&mut self.queue) {
            self.finished.push(task.done(0, task.len(), Outcome::Failed(error.clone())));
        }
        self.queued_bytes = 0;
    }

    /// Ends the pool: queued work fails with `error`; `kill` says whether the workers die with
    /// what they run.
    pub(super) fn end(&mut self, error: Error, kill: bool) {
        if matches!(self.phase, Phase::Over(_)) && !kill {
            return;
        }
        self.fail_queued(&error);
        self.phase = Phase::Over(error);
        for slot in 0..self.slots.len() {
            let Some(worker) = &mut self.slots[slot] else {
                continue;
            };
            if kill {
                worker.condemn(Doom::Terminated);
            } else {
                let tasks = worker.take_back();
                worker.leaving = true;
                worker.link().ask_to_exit();
                self.enqueue_front(tasks);
            }
        }
        if let Phase::Over(error) = &self.phase {
            let error = error.clone();
            self.fail_queued(&error);
        }
    }

    /// Lets go of workers that are not wanted: all of them when the pool is closed and drained,
    /// the surplus otherwise.
    pub(super) fn dismiss(&mut self) {
        let staying = self.workers().filter(|worker| !worker.leaving).count();
        let wanted = match self.phase {
            Phase::Running => self.target,
            Phase::Closed if self.outstanding > 0 => self.target,
            _ => 0,
        };
        let mut surplus = staying.saturating_sub(wanted);
        // Idle workers first: nothing has to be moved.
        let mut order: Vec<usize> = self.idle.clone();
        order.extend(&self.busy);
        for slot in order {
            if surplus == 0 {
                break;
            }
            if let Some(worker) = &mut self.slots[slot]
                && !worker.leaving
            {
                surplus -= 1;
                worker.leaving = true;
                let tasks = worker.take_back();
                worker.link().ask_to_exit();
                self.enqueue_front(tasks);
            }
        }
        self.idle.retain(|slot| self.slots[*slot].as_ref().is_some_and(Worker::is_usable));
        self.dispatch();
    }

    /// Moves the outcomes to an empty vector, to be delivered once the lock is free.
    pub(super) fn take_finished(&mut self, finished: &mut Vec<Done>) {
        for done in &self.finished {
            let count = u64::from(done.part.count);
            self.outstanding = self.outstanding.saturating_sub(count);
            match done.part.outcome {
                Outcome::Failed(_) => self.failed += count,
                _ => self.done += count,
            }
        }
        std::mem::swap(&mut self.finished, finished);
    }

    /// Whether outcomes wait to be delivered.
    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// A snapshot for the user.
    pub(super) fn stats(&self) -> PoolStats {
        PoolStats {
            queued: self.queue.iter().map(|task| u64::from(task.len())).sum(),
            running: self.workers().map(Worker::outstanding).sum(),
            done: self.done,
            failed: self.failed,
            restarts: self.restarts,
            workers: self.workers().map(Worker::stats).collect(),
        }
    }
}

/// Splits a task into at most `shares` parts of about the same length.
fn split(mut task: Task, shares: u32) -> Vec<Task> {
    let share = task.len().div_ceil(shares.max(1)).max(1);
    let mut parts = Vec::new();
    while task.len() > share {
        let rest = task.split_off(share);
        parts.push(std::mem::replace(&mut task, rest));
    }
    parts.push(task);
    parts
}
