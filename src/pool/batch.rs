//! Where the outcomes of one call come together.

use super::task::{Outcome, Part, Sink};
use crate::codec::{Data, Reader, decode_block, decode_entry, may_carry};
use crate::sys::clock::Deadline;
use crate::wire::handles::{self, Received};
use crate::{Error, Result};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

impl Part {
    /// Decodes the results one after the other.
    pub(super) fn decode_into<R: Data>(&self, take: impl FnMut(Result<R>)) {
        match &self.outcome {
            Outcome::Carrying(outcome, objects) => {
                handles::providing(objects.clone(), || self.decode_outcome(outcome, take));
            }
            // What it decodes must not find the objects of another message.
            outcome if may_carry::<R>() => {
                handles::providing(Received::new(), || self.decode_outcome(outcome, take));
            }
            outcome => self.decode_outcome(outcome, take),
        }
    }

    #[inline]
    fn decode_outcome<R: Data>(&self, outcome: &Outcome, mut take: impl FnMut(Result<R>)) {
        match outcome {
            Outcome::Failed(error) => {
                for _ in 0..self.count {
                    take(Err(error.clone()));
                }
            }
            Outcome::Block(block) => {
                take(decode_block(block).map_err(Error::result));
            }
            Outcome::Values(bytes) => {
                let mut reader = Reader(bytes.as_slice());
                for _ in 0..self.count {
                    take(decode_entry(&mut reader).map_err(Error::result));
                }
            }
            // One carries the objects of one result, and no outcome with objects inside.
            Outcome::Carrying(..) => debug_assert!(false, "objects within objects"),
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

/// The value of a call: its one outcome.
pub(super) fn decode_first<R: Data>(parts: &[Part]) -> Result<R> {
    match parts.first() {
        Some(part) => part.decode_one(),
        None => Err(Error::closed()),
    }
}

/// Parts; a call has one, and needs no allocation for it.
#[derive(Debug, Default)]
enum Parts {
    #[default]
    None,
    One([Part; 1]),
    Many(Vec<Part>),
}

impl Parts {
    fn push(&mut self, part: Part) {
        *self = match std::mem::take(self) {
            Self::None => Self::One([part]),
            Self::One([first]) => Self::Many(vec![first, part]),
            Self::Many(mut parts) => {
                parts.push(part);
                Self::Many(parts)
            }
        };
    }

    fn as_slice(&self) -> &[Part] {
        match self {
            Self::None => &[],
            Self::One(part) => part,
            Self::Many(parts) => parts,
        }
    }

    fn sort(&mut self) {
        if let Self::Many(parts) = self
            && !parts.is_sorted_by_key(|part| part.index)
        {
            parts.sort_unstable_by_key(|part| part.index);
        }
    }

    fn into_vec(self) -> Vec<Part> {
        match self {
            Self::None => Vec::new(),
            Self::One([part]) => vec![part],
            Self::Many(parts) => parts,
        }
    }
}

/// What waits for the end of a batch besides threads.
pub(super) type WhenDone = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    parts: Parts,
    done: u64,
    /// How many items there will be, once that is known.
    total: Option<u64>,
    taken: bool,
    waiting: usize,
    /// The least number of items done that a waiting thread waits for.
    wanted: u64,
    when_done: Vec<WhenDone>,
}

/// Collects the outcomes of a number of items.
pub(super) struct Batch {
    /// All outcomes in order, once every item is done.
    settled: OnceLock<Parts>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl Batch {
    /// A batch of `total` items, or of a number to be set later.
    pub(super) fn new(total: Option<u64>) -> Arc<Self> {
        let batch = Self {
            settled: OnceLock::new(),
            inner: Mutex::new(Inner { total, ..Inner::default() }),
            changed: Condvar::new(),
        };
        let batch = Arc::new(batch);
        if total == Some(0) {
            batch.settle(batch.lock());
        }
        batch
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every item is done.
    pub(super) fn is_finished(&self) -> bool {
        self.settled.get().is_some()
    }

    /// How many items are done.
    pub(super) fn done(&self) -> u64 {
        self.lock().done
    }

    /// Says how many items there are.
    pub(super) fn set_total(self: &Arc<Self>, total: u64) {
        let mut inner = self.lock();
        inner.total = Some(total);
        if inner.done >= total {
            self.settle(inner);
        }
    }

    /// The last item is done: wakes those who wait and runs what waits.
    fn settle(&self, mut inner: MutexGuard<'_, Inner>) {
        let mut parts = std::mem::take(&mut inner.parts);
        parts.sort();
        let when_done = std::mem::take(&mut inner.when_done);
        // Set once: an item is reported once, so the last one is the last one once.
        let _ = self.settled.set(parts);
        if inner.waiting > 0 {
            self.changed.notify_all();
        }
        drop(inner);
        for action in when_done {
            action();
        }
    }

    /// Runs `action` when the batch is done: at once if it is already, else on the thread that
    /// brings the last outcome, which must not be held up.
    pub(super) fn when_done(&self, action: WhenDone) {
        let mut inner = self.lock();
        if self.is_finished() {
            drop(inner);
            action();
        } else {
            inner.when_done.push(action);
        }
    }

    /// The outcomes in order, once the batch is done.
    pub(super) fn parts(&self) -> &[Part] {
        self.settled.get().map_or(&[], Parts::as_slice)
    }

    /// Sleeps until the batch is done; false if the deadline passes first.
    pub(super) fn sleep(&self, deadline: Deadline) -> bool {
        self.sleep_until(deadline, u64::MAX, |_| self.is_finished())
    }

    /// Sleeps until at least `count` items are done; false if the deadline passes first.
    pub(super) fn sleep_until_done(&self, count: u64, deadline: Deadline) -> bool {
        self.sleep_until(deadline, count, |inner| inner.done >= count)
    }

    fn sleep_until(&self, deadline: Deadline, wanted: u64, ready: impl Fn(&Inner) -> bool) -> bool {
        let mut inner = self.lock();
        inner.wanted = if inner.waiting == 0 { wanted } else { inner.wanted.min(wanted) };
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

    /// Whether the caller is the first who takes the outcomes of the finished batch.
    pub(super) fn take(&self) -> bool {
        !std::mem::replace(&mut self.lock().taken, true)
    }

    /// The outcomes that came since the last call, in order of arrival, of a batch without total.
    pub(super) fn take_arrived(&self) -> Vec<Part> {
        std::mem::take(&mut self.lock().parts).into_vec()
    }
}

impl Sink for Batch {
    fn complete(&self, parts: &mut dyn Iterator<Item = Part>) {
        let mut inner = self.lock();
        for part in parts {
            inner.done += u64::from(part.count);
            inner.parts.push(part);
        }
        if inner.total.is_some_and(|total| inner.done >= total) {
            self.settle(inner);
        } else if inner.waiting > 0 && inner.done >= inner.wanted {
            self.changed.notify_all();
        }
    }
}
