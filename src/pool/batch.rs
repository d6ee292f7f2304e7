//! Where the outcomes of one call come together.

use super::task::{Outcome, Sink};
use crate::codec::{Data, Reader, decode_block, decode_value};
use crate::sys::clock::Deadline;
use crate::{Error, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The outcome of some consecutive items.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) index: u64,
    pub(super) count: u32,
    pub(super) outcome: Outcome,
}

impl Part {
    /// Decodes the results one after the other.
    pub(super) fn decode_into<R: Data>(&self, mut take: impl FnMut(Result<R>)) {
        match &self.outcome {
            Outcome::Failed(error) => {
                for _ in 0..self.count {
                    take(Err(error.clone()));
                }
            }
            Outcome::Block(block) => {
                let decoded = decode_block(block.len(), &|at, target| block.copy_out(at, target));
                take(decoded.map_err(Error::result));
            }
            Outcome::Values(bytes) => {
                let mut reader = Reader(bytes.as_slice());
                for _ in 0..self.count {
                    let decoded = decode_value(&mut reader).map_err(Error::result);
                    if decoded.is_err() {
                        // Where the next one starts is unknown now.
                        reader.0 = &[];
                    }
                    take(decoded);
                }
            }
        }
    }

    /// Decodes the one result of a call.
    pub(super) fn decode_one<R: Data>(&self) -> Result<R> {
        let mut result = None;
        self.decode_into(|decoded| {
            result.get_or_insert(decoded);
        });
        result.unwrap_or_else(|| Err(Error::start("a call ended without an outcome")))
    }

    /// Whether it is no error, as far as can be told without decoding.
    pub(super) fn is_ok(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed(_))
    }
}

/// What waits for the end of a batch besides threads.
pub(super) type WhenDone = Box<dyn FnOnce(Arc<Vec<Part>>) + Send>;

/// Runs callbacks when a batch is done; the pool's callback thread.
pub(super) trait Runner: Send + Sync {
    /// Runs `job` soon, on a thread that may block.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}

#[derive(Default)]
struct Inner {
    parts: Vec<Part>,
    done: u64,
    /// How many items there will be, once that is known.
    total: Option<u64>,
    finished: Option<Arc<Vec<Part>>>,
    taken: bool,
    waiting: usize,
    when_done: Vec<WhenDone>,
}

/// Collects the outcomes of a number of items.
pub(super) struct Batch {
    finished: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
    runner: Option<Arc<dyn Runner>>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl Batch {
    /// A batch of `total` items, or of a number to be set later.
    pub(super) fn new(total: Option<u64>, runner: Option<Arc<dyn Runner>>) -> Arc<Self> {
        let inner = Inner { total, ..Inner::default() };
        let batch = Self {
            finished: AtomicBool::new(false),
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            runner,
        };
        if total == Some(0) {
            batch.settle(batch.lock());
        }
        Arc::new(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every item is done.
    pub(super) fn is_finished(&self) -> bool {
        // Acquire: the parts were stored before.
        self.finished.load(Ordering::Acquire)
    }

    /// How many items are done.
    pub(super) fn done(&self) -> u64 {
        self.lock().done
    }

    /// Says how many items there are.
    pub(super) fn set_total(&self, total: u64) {
        let mut inner = self.lock();
        inner.total = Some(total);
        if inner.done >= total {
            self.settle(inner);
        }
    }

    /// The last item is done: wakes those who wait and runs what waits.
    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let mut parts = std::mem::take(&mut inner.parts);
        if !parts.is_sorted_by_key(|part| part.index) {
            parts.sort_unstable_by_key(|part| part.index);
        }
        let parts = Arc::new(parts);
        inner.finished = Some(parts.clone());
        let when_done = std::mem::take(&mut inner.when_done);
        if inner.waiting > 0 {
            self.changed.notify_all();
        }
        // Release: the parts are stored before.
        self.finished.store(true, Ordering::Release);
        drop(inner);
        for action in when_done {
            self.run(action, parts.clone());
        }
    }

    fn run(&self, action: WhenDone, parts: Arc<Vec<Part>>) {
        if let Some(runner) = &self.runner {
            runner.run(Box::new(move || action(parts)));
        }
    }

    /// Runs `action` when the batch is done (soon, if it is already).
    pub(super) fn when_done(&self, action: WhenDone) {
        let mut inner = self.lock();
        match inner.finished.clone() {
            Some(parts) => {
                drop(inner);
                self.run(action, parts);
            }
            None => inner.when_done.push(action),
        }
    }

    /// Sleeps until the batch is done; false if the deadline passes first.
    pub(super) fn sleep(&self, deadline: Deadline) -> bool {
        self.sleep_until(deadline, |inner| inner.finished.is_some())
    }

    /// Sleeps until at least `count` items are done; false if the deadline passes first.
    pub(super) fn sleep_until_done(&self, count: u64, deadline: Deadline) -> bool {
        self.sleep_until(deadline, |inner| inner.done >= count)
    }

    fn sleep_until(&self, deadline: Deadline, ready: impl Fn(&Inner) -> bool) -> bool {
        let mut inner = self.lock();
        inner.waiting += 1;
        while !ready(&inner) && !deadline.passed() {
            inner = match deadline.remaining() {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        inner.waiting -= 1;
        ready(&inner)
    }

    /// The outcomes in order of their items, once the batch is done, for the first who asks.
    pub(super) fn take(&self) -> Option<Arc<Vec<Part>>> {
        let mut inner = self.lock();
        if inner.taken {
            return None;
        }
        let parts = inner.finished.take()?;
        inner.taken = true;
        Some(parts)
    }

    /// Whether all outcomes are values, once the batch is done.
    pub(super) fn is_ok(&self) -> Option<bool> {
        self.lock().finished.as_ref().map(|parts| parts.iter().all(Part::is_ok))
    }

    /// The outcomes that came since the last call, in order of arrival.
    pub(super) fn take_arrived(&self) -> Vec<Part> {
        std::mem::take(&mut self.lock().parts)
    }
}

impl Sink for Batch {
    fn complete(&self, index: u64, count: u32, outcome: Outcome) {
        let mut inner = self.lock();
        inner.parts.push(Part { index, count, outcome });
        inner.done += u64::from(count);
        if inner.total.is_some_and(|total| inner.done >= total) {
            self.settle(inner);
        } else if inner.waiting > 0 {
            self.changed.notify_all();
        }
    }
}
