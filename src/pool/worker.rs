//! One worker as its pool sees it: the link, and exactly what it holds.

use super::task::{Done, Outcome, Payload, Task};
use crate::codec::NotDecoded;
use crate::error::Kind;
use crate::shm::results::{Items, Violation};
use crate::shm::tasks::{Frame, Posted};
use crate::sys::clock::Deadline;
use crate::sys::pidfd::{Child, Exit};
use crate::wire::parent_link::{ParentLink, Report};
use crate::{Error, Execution, ExitStatus};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much work a worker is given ahead, in time.
const AHEAD: Duration = Duration::from_micros(200);
/// The most frames that a worker is given ahead.
const MAX_DEPTH: usize = 512;
/// The most payload blocks that a worker is given ahead.
const MAX_BLOCKS: usize = 2;

/// Why a worker is being killed.
#[derive(Clone, Debug)]
pub(super) enum Doom {
    /// Its task took too long.
    Timeout(Duration),
    /// Its task was cancelled.
    Cancelled,
    /// The pool was terminated.
    Terminated,
    /// It does not keep the protocol.
    Violation(&'static str),
}

#[derive(Debug)]
struct InFlight {
    task: Task,
    posted: Posted,
    /// How many of the task's items have been reported.
    reported: u32,
}

/// A live worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Arc<Child>,
    link: ParentLink,
    in_flight: VecDeque<InFlight>,
    doom: Option<Doom>,
    /// Its socket is closed or full: it is given nothing more, and killed.
    unreachable: bool,
    /// It takes no new work and exits when it has none.
    pub(super) leaving: bool,
    /// When the pool last heard of progress, or gave work to an idle worker.
    progress: Instant,
    /// Average time of a frame.
    pace: Duration,
    busy: Duration,
    items: u64,
}

impl Worker {
    pub(super) fn new(child: Arc<Child>, link: ParentLink) -> Self {
        Self {
            child,
            link,
            in_flight: VecDeque::new(),
            doom: None,
            unreachable: false,
            leaving: false,
            progress: Instant::now(),
            pace: AHEAD,
            busy: Duration::ZERO,
            items: 0,
        }
    }

    /// The link's socket, for the poller.
    pub(super) fn link(&self) -> &ParentLink {
        &self.link
    }

    /// The link.
    pub(super) fn link_mut(&mut self) -> &mut ParentLink {
        &mut self.link
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether it may be given anything at all.
    pub(super) fn is_usable(&self) -> bool {
        self.doom.is_none() && !self.unreachable && !self.leaving
    }

    /// Whether it has kept the protocol so far.
    pub(super) fn is_believed(&self) -> bool {
        !matches!(self.doom, Some(Doom::Violation(_)))
    }

    /// Whether results wait to be collected.
    pub(super) fn has_results(&self) -> bool {
        self.is_believed() && self.link.has_results()
    }

    /// Whether it should be given another frame now. With a task timeout there is never more than
    /// one, so that the clock of a task starts when it is handed over.
    pub(super) fn wants_more(&self, one_at_a_time: bool) -> bool {
        self.is_usable()
            && match self.in_flight.len() {
                0 => true,
                _ if one_at_a_time => false,
                1 => true,
                given => {
                    let depth = AHEAD.as_nanos() / self.pace.as_nanos().max(1);
                    given < (depth as usize).clamp(2, MAX_DEPTH)
                }
            }
    }

    /// Posts a task, or gives it back if there is no room.
    #[allow(clippy::result_large_err, reason = "the task goes back where it came from")]
    pub(super) fn post(&mut self, task: Task) -> Result<(), Task> {
        for block in task.payload.block().into_iter().chain(&task.context) {
            let blocks = self.in_flight.iter().filter(|entry| entry.task.payload.block().is_some());
            if blocks.count() >= MAX_BLOCKS {
                return Err(task);
            }
            let Some(writer) = block.block() else {
                return Err(task);
            };
            // The worker drops a single-use block after the first frame that names it. Of a split
            // task it may hold another part; only when that is done is the block sent again.
            let is_named = |entry: &InFlight| {
                entry.task.payload.block().is_some_and(|known| known.uid() == block.uid())
            };
            if block.is_single_use() && self.in_flight.iter().any(is_named) {
                return Err(task);
            }
            let uses = |uid: u64| {
                let used_by = |task: &Task| {
                    let mut blocks = task.payload.block().into_iter().chain(&task.context);
                    blocks.any(|block| block.uid() == uid)
                };
                used_by(&task) || self.in_flight.iter().any(|entry| used_by(&entry.task))
            };
            match self.link.share_block(block.uid(), writer, uses) {
                Ok(true) => {}
                // Its socket is full of blocks of tasks that were taken back, and it has nothing
                // to do that would make it look there: only a new one can go on.
                Ok(false) if self.in_flight.is_empty() => {
                    self.cut_off();
                    return Err(task);
                }
                Ok(false) => return Err(task),
                // A dead worker's socket is closed; its death is on the way.
                Err(_) => {
                    self.cut_off();
                    return Err(task);
                }
            }
        }
        if let Some(objects) = &task.objects {
            match self.link.share_objects(objects) {
                Ok(true) => {}
                // It reads its socket before each task, so there is room again after this one.
                Ok(false) if !self.in_flight.is_empty() => return Err(task),
                Ok(false) | Err(_) => {
                    self.cut_off();
                    return Err(task);
                }
            }
        }
        let frame = Frame {
            entry: task.entry.0,
            first: task.first,
            end: task.end,
            payload: task.payload.as_frame(),
        };
        let Some(posted) = self.link.post(&frame) else {
            return Err(task);
        };
        if self.in_flight.is_empty() {
            self.progress = Instant::now();
        }
        self.in_flight.push_back(InFlight { task, posted, reported: 0 });
        Ok(())
    }

    /// Takes all that the worker has reported; returns how many reports there were.
    pub(super) fn collect(&mut self, now: Instant, done: &mut Vec<Done>) -> usize {
        if !self.has_results() {
            return 0;
        }
        let mut reports = 0;
        let mut frames = 0;
        loop {
            match self.link.collect() {
                Ok(None) => break,
                Ok(Some((items, report))) => match self.accept(items, report, done) {
                    Ok(finished) => {
                        reports += 1;
                        frames += u32::from(finished);
                    }
                    Err(violation) => {
                        self.condemn(Doom::Violation(violation.0));
                        break;
                    }
                },
                Err(violation) => {
                    self.condemn(Doom::Violation(violation.0));
                    break;
                }
            }
        }
        self.link.collected();
        if frames > 0 {
            let elapsed = now.saturating_duration_since(self.progress);
            self.busy += elapsed;
            self.pace = (self.pace * 3 + elapsed / frames) / 4;
        }
        self.progress = now;
        reports
    }

    /// Checks a report against what the worker holds; true if it finishes a frame.
    fn accept(
        &mut self,
        items: Items,
        report: Report,
        done: &mut Vec<Done>,
    ) -> Result<bool, Violation> {
        let front = self.in_flight.front_mut().ok_or(Violation("a report without a task"))?;
        let left = front.task.len() - front.reported;
        let in_order = items.frame == front.posted.frame && items.first == front.reported;
        if !in_order || items.count == 0 || items.count > left {
            return Err(Violation("a report of something else than what comes next"));
        }
        if items.count != 1 && !matches!(report, Report::Values(_)) {
            return Err(Violation("one outcome for several items"));
        }
        let outcome = Outcome::from(report);
        done.push(front.task.done(front.reported, items.count, outcome));
        front.reported += items.count;
        self.items += u64::from(items.count);
        Ok(self.pop_finished())
    }

    /// Forgets the oldest frame if all its items are reported.
    fn pop_finished(&mut self) -> bool {
        let is_finished = |entry: &mut InFlight| entry.reported == entry.task.len();
        let Some(finished) = self.in_flight.pop_front_if(is_finished) else {
            return false;
        };
        let next = self.in_flight.front().map(|entry| entry.posted);
        self.link.finish(finished.posted, next);
        if let Some(block) = finished.task.payload.block()
            && block.is_single_use()
        {
            self.link.forget_block(block.uid());
        }
        true
    }

    /// How many items it holds that are not reported.
    pub(super) fn outstanding(&self) -> u64 {
        let left = |entry: &InFlight| u64::from(entry.task.len() - entry.reported);
        self.in_flight.iter().map(left).sum()
    }

    /// Whether it holds anything that another worker could do: more than the item it runs.
    pub(super) fn has_spare(&self) -> bool {
        match self.in_flight.front() {
            None => false,
            Some(front) => {
                if self.in_flight.len() > 1 {
                    return true;
                }
                let claimed = self.link.claimed();
                let of_front =
                    if claimed.frame == front.posted.frame { claimed.item } else { u32::MAX };
                of_front < front.task.len()
            }
        }
    }

    /// Takes back everything that the worker has not claimed, in order.
    pub(super) fn take_back(&mut self) -> Vec<Task> {
        if self.in_flight.is_empty() || !self.is_believed() {
            return Vec::new();
        }
        let claimed = self.link.revoke();
        let index = self.in_flight.iter().position(|entry| entry.posted.frame == claimed.frame);
        let Some(index) = index else {
            if !self.link.is_end(claimed) {
                self.condemn(Doom::Violation("a claim of what it was not given"));
            }
            return Vec::new();
        };
        let entry = &mut self.in_flight[index];
        // The word moves on to the next frame with the last item.
        if claimed.item < entry.reported || claimed.item >= entry.task.len() {
            self.condemn(Doom::Violation("a claim that is out of range"));
            return Vec::new();
        }
        let mut tasks = Vec::new();
        let mut removed = index;
        if claimed.item > 0 {
            // The worker keeps the items that it has claimed.
            tasks.push(entry.task.split_off(claimed.item));
            removed += 1;
        }
        if let Some(first) = self.in_flight.get(removed).map(|entry| entry.posted) {
            let before = removed.checked_sub(1).map(|last| self.in_flight[last].posted);
            self.link.take_back(first, before);
        }
        tasks.extend(self.in_flight.drain(removed..).map(|entry| entry.task));
        self.pop_finished();
        tasks
    }

    /// Whether the worker holds a task that `matches`.
    pub(super) fn holds(&self, matches: impl Fn(&Task) -> bool) -> bool {
        self.in_flight.iter().any(|entry| matches(&entry.task))
    }

    /// Whether the worker is inside an item of a task that `matches`.
    pub(super) fn runs(&self, matches: impl Fn(&Task) -> bool) -> bool {
        self.in_flight.front().is_some_and(|front| matches(&front.task))
    }

    /// When the running task must be done, given the time limit.
    pub(super) fn task_deadline(&self, limit: Duration) -> Option<Instant> {
        match self.in_flight.is_empty() || self.doom.is_some() {
            true => None,
            false => self.progress.checked_add(limit),
        }
    }

    /// Ends a worker that cannot be reached any more; what it has reported stays true.
    pub(super) fn cut_off(&mut self) {
        self.unreachable = true;
        let _ = self.child.signal(libc::SIGKILL);
    }

    /// Kills the worker; its death tells the rest.
    pub(super) fn condemn(&mut self, doom: Doom) {
        if self.doom.is_none() {
            self.doom = Some(doom);
        }
        let _ = self.child.signal(libc::SIGKILL);
    }

    /// Settles everything that a dead worker held: what it finished is delivered, what it ran is
    /// lost, and what it had not begun is returned to be run by others.
    pub(super) fn bury(mut self, exit: Exit, retries: u32, done: &mut Vec<Done>) -> Vec<Task> {
        // The socket first: it may hold blocks and last words.
        let mut buffer = Vec::new();
        if let Err(violation) = self.link.drain_socket(&mut buffer) {
            self.doom.get_or_insert(Doom::Violation(violation.0));
        }
        self.collect(Instant::now(), done);
        let claimed = self.link.claimed();
        let lost = self.lost(exit);
        let mut again = Vec::new();
        let mut reached_claim = false;
        for (position, mut entry) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            let len = entry.task.len();
            // Frames before the claim word's are claimed whole, those after it not at all. A
            // worker of ours reports one frame before it claims the next, so only the first can
            // be in between.
            let claimed_items = if entry.posted.frame == claimed.frame {
                reached_claim = true;
                claimed.item.clamp(entry.reported, len)
            } else if reached_claim || position > 0 {
                0
            } else {
                len
            };
            let mut next = entry.reported;
            if position == 0 && !matches!(self.doom, Some(Doom::Violation(_))) {
                next += self.recover(&entry, claimed_items, done);
            }
            for at in next..claimed_items {
                let mut item = entry.task.clone();
                item.first += at;
                item.end = item.first + 1;
                if self.doom.is_none() && item.retriable && item.attempts < retries {
                    item.attempts += 1;
                    again.push(item);
                } else {
                    done.push(entry.task.done(at, 1, Outcome::Failed(lost.clone())));
                }
            }
            if claimed_items < len {
                again.push(entry.task.split_off(claimed_items));
            }
        }
        again
    }

    /// Delivers what the worker finished but did not publish; returns how many items.
    fn recover(&self, entry: &InFlight, claimed: u32, done: &mut Vec<Done>) -> u32 {
        match self.link.unpublished() {
            Some((count, bytes)) if entry.reported + count <= claimed => {
                done.push(entry.task.done(entry.reported, count, Outcome::Values(bytes)));
                count
            }
            _ => 0,
        }
    }

    /// The error for the item that the worker was running.
    fn lost(&mut self, exit: Exit) -> Error {
        let died = |message: String| {
            Error::new(Kind::WorkerDied(ExitStatus::from(exit), self.child.pid()), message)
        };
        match (&self.doom, self.link.take_last_words()) {
            (Some(Doom::Timeout(limit)), _) => Error::new(
                Kind::Timeout(Execution::Unknown),
                format!(
                    "the task ran longer than the task timeout of {limit:?}; its worker was killed"
                ),
            ),
            (Some(Doom::Cancelled), _) => Error::new(
                Kind::Cancelled(Execution::Unknown),
                "the task was cancelled while it ran; its worker was killed",
            ),
            (Some(Doom::Terminated), _) => Error::new(
                Kind::Cancelled(Execution::Unknown),
                "the pool was terminated while the task ran",
            ),
            (Some(Doom::Violation(what)), _) => {
                died(format!("the worker broke the protocol ({what}) and was killed"))
            }
            (None, Some(info)) if matches!(exit, Exit::Signal(libc::SIGABRT, _)) => {
                Error::panicked(info)
            }
            (None, _) => died("the worker died while it ran the task".to_owned()),
        }
    }

    /// The numbers for the pool's statistics.
    pub(super) fn stats(&self) -> super::WorkerStats {
        let mut busy = self.busy;
        if !self.is_idle() {
            busy += self.progress.elapsed();
        }
        super::WorkerStats { pid: self.child.pid() as u32, busy, items: self.items }
    }

    /// The time left to the running task.
    pub(super) fn deadline(&self, limit: Option<Duration>) -> Deadline {
        match limit.and_then(|limit| self.task_deadline(limit)) {
            Some(at) => Deadline::at(at),
            None => Deadline::NEVER,
        }
    }
}

impl From<Report> for Outcome {
    fn from(report: Report) -> Self {
        match report {
            Report::Values(bytes) => Self::Values(bytes),
            Report::Block(block) => Self::Block(block),
            Report::Failed(failure) => Self::Failed(Error::failed(failure)),
            Report::Lost => Self::Failed(Error::result(NotDecoded(
                "the shared objects in it did not arrive: too many open files".to_owned(),
            ))),
            Report::Carrying(report, objects) => {
                Self::Carrying(Box::new(Self::from(*report)), objects)
            }
        }
    }
}

const _: () = {
    // A task is moved around in queues; keep it small.
    assert!(size_of::<Payload>() <= 48);
};
