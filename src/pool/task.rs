//! A unit of work on its way through the pool.

use super::arguments::SharedBlock;
use crate::Error;
use crate::entry::FrameEntry;
use crate::shm::bytes::Bytes;
use crate::shm::tasks;
use crate::wire::handles::{Carried, Received};
use crate::wire::parent_link::BlockBytes;
use std::sync::Arc;

/// Encoded items.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// A few bytes.
    Small(Bytes),
    /// Bytes that a split task shares with its other part.
    Shared(Arc<Vec<u8>>),
    /// Too many for a ring.
    Block(Arc<SharedBlock>, usize),
}

impl Payload {
    /// The number of bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.as_slice().len(),
            Self::Shared(bytes) => bytes.len(),
            Self::Block(_, len) => *len,
        }
    }

    /// The payload as the ring takes it.
    pub(super) fn as_frame(&self) -> tasks::Payload<'_> {
        match self {
            Self::Small(bytes) => tasks::Payload::Bytes(bytes.as_slice()),
            Self::Shared(bytes) => tasks::Payload::Bytes(bytes),
            Self::Block(block, len) => tasks::Payload::Block { uid: block.uid(), len: *len as u64 },
        }
    }

    /// The block, if it is in one.
    pub(super) fn block(&self) -> Option<&Arc<SharedBlock>> {
        match self {
            Self::Block(block, _) => Some(block),
            _ => None,
        }
    }
}

/// Shared objects that a worker must have before a task; none costs nothing.
pub(super) type Objects = Option<Arc<Carried>>;

/// Objects for a task.
pub(super) fn objects(carried: Carried) -> Objects {
    if carried.is_empty() { None } else { Some(Arc::new(carried)) }
}

/// What became of some items.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Encoded results, back to back.
    Values(Bytes),
    /// One large encoded result.
    Block(BlockBytes),
    /// One encoded result, small or large, with the objects that it names.
    Carrying(Box<Outcome>, Received),
    /// The same error for each of the items.
    Failed(Error),
}

/// Takes the outcomes of tasks. Called without any lock held; must not block.
pub(super) trait Sink: Send + Sync + std::fmt::Debug {
    /// Items are done. Each is reported exactly once.
    fn complete(&self, parts: &mut dyn Iterator<Item = Part>);
}

/// The outcome of `count` consecutive items.
#[derive(Debug)]
pub(super) struct Part {
    /// The sink's index of the first of them.
    pub(super) index: u64,
    pub(super) count: u32,
    pub(super) outcome: Outcome,
}

/// Items to run: `first..end` of those in the payload.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) entry: FrameEntry,
    pub(super) payload: Payload,
    /// The shared objects that the items and their context name.
    pub(super) objects: Objects,
    /// A block that the items need besides their own, with the context of `map_with`.
    pub(super) context: Option<Arc<SharedBlock>>,
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) sink: Arc<dyn Sink>,
    /// The sink's index of item 0 of the payload.
    pub(super) base: u64,
    /// Whether an item may be run again after a worker died of it.
    pub(super) retriable: bool,
    /// How often a worker died of the first item.
    pub(super) attempts: u32,
}

impl Task {
    /// How many items.
    pub(super) fn len(&self) -> u32 {
        self.end - self.first
    }

    /// The items from `at` on, counted from the first; `self` keeps those before.
    pub(super) fn split_off(&mut self, at: u32) -> Self {
        let middle = self.first + at;
        let rest = Self { first: middle, attempts: 0, ..self.clone() };
        self.end = middle;
        rest
    }

    /// An outcome for `count` of the items from `at` on, ready to be delivered.
    pub(super) fn done(&self, at: u32, count: u32, outcome: Outcome) -> Done {
        let index = self.base + u64::from(self.first) + u64::from(at);
        Done { sink: self.sink.clone(), part: Part { index, count, outcome } }
    }

    /// Whether the task reports to this sink.
    pub(super) fn belongs_to(&self, sink: &Arc<dyn Sink>) -> bool {
        Arc::ptr_eq(&self.sink, sink)
    }
}

/// An outcome that has yet to be delivered, once no lock is held.
#[derive(Debug)]
pub(super) struct Done {
    sink: Arc<dyn Sink>,
    pub(super) part: Part,
}

/// Delivers outcomes, those that follow each other for one sink in one go.
pub(super) fn deliver(finished: &mut Vec<Done>) {
    let mut rest = finished.drain(..).peekable();
    while let Some(first) = rest.next() {
        let sink = first.sink;
        let same = std::iter::from_fn(|| rest.next_if(|done| Arc::ptr_eq(&done.sink, &sink)));
        sink.complete(&mut std::iter::once(first.part).chain(same.map(|done| done.part)));
    }
}
