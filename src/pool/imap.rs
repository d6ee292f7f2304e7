use super::batch::Batch;
use super::engine::Engine;
use super::task::{self, Objects, Outcome, Part, Sink, Task};
use crate::codec::{items, naming};
use crate::entry::{FrameEntry, catch};
use crate::shm::results::MAX_ITEMS;
use crate::sys::clock::Deadline;
use crate::wire::control::Failure;
use crate::wire::handles::{Carried, MAX_HANDLES};
use crate::{Data, Error, Result};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// How many chunks a worker may be ahead of the reader.
const WINDOW_PER_WORKER: usize = 4;

/// The results of a lazy map, one by one; made by [`Pool::imap`](crate::Pool::imap) and
/// [`Pool::imap_unordered`](crate::Pool::imap_unordered).
///
/// The input is read only as results are taken, and never further ahead than the window. Each item
/// is a [`Result`]: an error of one, or a panic while it is decoded, does not end the others.
/// Dropping the iterator cancels what has not begun.
#[must_use = "nothing runs until results are asked for"]
pub struct Imap<I, R> {
    engine: Arc<Engine>,
    entry: FrameEntry,
    /// The input, until it ends.
    input: Option<I>,
    chunk: usize,
    window: usize,
    order: Order,
    /// How many items were read, and how many results returned.
    read: u64,
    returned: u64,
    ready: VecDeque<Result<R>>,
    results: PhantomData<fn() -> R>,
}

/// What is on its way.
enum Order {
    /// A batch for each chunk, in order.
    Input(VecDeque<Arc<Batch>>),
    /// One batch for all.
    Completion(Arc<Batch>),
}

impl<I, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("read", &self.read)
            .field("returned", &self.returned)
            .finish_non_exhaustive()
    }
}

impl<I, R> Imap<I, R> {
    pub(super) fn new(
        engine: Arc<Engine>,
        entry: FrameEntry,
        input: I,
        ordered: bool,
        chunk: usize,
    ) -> Self {
        let order = if ordered {
            Order::Input(VecDeque::new())
        } else {
            Order::Completion(Batch::new(None))
        };
        let chunk = chunk.min(MAX_ITEMS as usize);
        let window = (engine.workers() * WINDOW_PER_WORKER).saturating_mul(chunk);
        Self {
            engine,
            entry,
            input: Some(input),
            chunk,
            window,
            order,
            read: 0,
            returned: 0,
            ready: VecDeque::new(),
            results: PhantomData,
        }
    }

    /// Sets how many items may be read beyond those whose results were taken; at least one chunk.
    /// Four chunks a worker unless set.
    pub fn window(mut self, items: usize) -> Self {
        self.window = items.max(self.chunk);
        self
    }

    /// How many items may be read beyond those whose results were taken.
    pub(crate) fn window_size(&self) -> usize {
        self.window
    }

    /// How many items are read and not returned.
    fn ahead(&self) -> u64 {
        self.read - self.returned
    }

    /// Whether the next chunk fits the window.
    fn has_room(&self) -> bool {
        (self.ahead() as usize).saturating_add(self.chunk) <= self.window
    }

    /// A batch for a chunk that starts at the current item, and its index there.
    fn sink(&mut self, count: u64) -> (Arc<Batch>, u64) {
        let base = self.read;
        self.read += count;
        match &mut self.order {
            Order::Completion(batch) => (batch.clone(), base),
            Order::Input(batches) => {
                let batch = Batch::new(Some(count));
                batches.push_back(batch.clone());
                (batch, 0)
            }
        }
    }

    /// Submits a chunk; false if nothing more can be run, which is the result of these items.
    fn submit(&mut self, mut bytes: Vec<u8>, count: u32, objects: Objects) -> bool {
        let (sink, base) = self.sink(count.into());
        let submitted = self.engine.blocks.pack(&mut bytes).and_then(|payload| {
            self.engine.submit(Task {
                entry: self.entry,
                payload,
                objects,
                context: None,
                first: 0,
                end: count,
                sink: sink.clone(),
                base,
                retriable: true,
                attempts: 0,
            })
        });
        let Err(error) = submitted else { return true };
        self.input = None;
        let outcome = Outcome::Failed(error);
        sink.complete(&mut std::iter::once(Part { index: base, count, outcome }));
        false
    }

    /// The next item failed before it could be submitted.
    pub(crate) fn fail_one(&mut self, error: Error) {
        let (sink, base) = self.sink(1);
        let outcome = Outcome::Failed(error);
        sink.complete(&mut std::iter::once(Part { index: base, count: 1, outcome }));
    }
}

impl<I, R: Data> Imap<I, R> {
    /// Adds an item to those of the input, whatever the window; false if nothing more can be run.
    pub(crate) fn push<T: Data>(&mut self, item: T) -> bool {
        let mut bytes = Vec::new();
        match naming(|| items::push(&(item,), &mut bytes)) {
            Ok(((), objects)) => self.submit(bytes, 1, task::objects(objects)),
            Err(error) => {
                self.fail_one(Error::arguments(error));
                true
            }
        }
    }

    /// The next result of what was read, if it comes before the deadline.
    pub(crate) fn take_until(&mut self, deadline: Deadline) -> Option<Result<R>> {
        while self.ready.is_empty() {
            if !self.wait(deadline) {
                return None;
            }
        }
        self.returned += 1;
        self.ready.pop_front()
    }

    /// Waits for more results; false if there will be none, or none came until the deadline.
    fn wait(&mut self, deadline: Deadline) -> bool {
        if self.ahead() == 0 {
            return false;
        }
        let ready = &mut self.ready;
        let mut decode = |part: &Part| unpack(part, ready);
        match &mut self.order {
            Order::Input(batches) => {
                let Some(batch) = batches.front() else { return false };
                if !self.engine.wait_for(batch, deadline) {
                    return false;
                }
                let Some(batch) = batches.pop_front() else { return false };
                batch.parts().iter().for_each(&mut decode);
            }
            Order::Completion(batch) => {
                let wanted = self.returned + 1;
                let came = self.engine.wait(
                    deadline,
                    || batch.done() >= wanted,
                    |deadline| batch.sleep_until_done(wanted, deadline),
                );
                if !came {
                    return false;
                }
                batch.take_arrived().iter().for_each(&mut decode);
            }
        }
        true
    }
}

/// Decodes the results of a part. Where that panics, the panic is the result: if one were missing,
/// somebody would wait for it.
fn unpack<R: Data>(part: &Part, ready: &mut VecDeque<Result<R>>) {
    let whole = ready.len() + part.count as usize;
    let decoded = catch(|| part.decode_into(|result| ready.push_back(result)));
    if let Err(Failure::Panicked(info)) = decoded {
        let error = Error::panicked(info);
        ready.resize_with(whole.max(ready.len()), || Err(error.clone()));
    }
}

impl<I: Iterator<Item = T>, T: Data, R: Data> Imap<I, R> {
    /// Reads the input up to the window.
    fn fill(&mut self) {
        while self.input.is_some() && self.has_room() {
            let mut bytes = Vec::new();
            let mut carried = Carried::new();
            let mut count = 0;
            let mut refused = None;
            while (count as usize) < self.chunk
                && carried.len() < MAX_HANDLES
                && let Some(input) = &mut self.input
            {
                let Some(item) = input.next() else {
                    self.input = None;
                    break;
                };
                match naming(|| items::push(&(item,), &mut bytes)) {
                    Ok(((), objects)) => {
                        carried.extend(objects);
                        count += 1;
                    }
                    Err(error) => {
                        refused = Some(Error::arguments(error));
                        break;
                    }
                }
            }
            if count > 0 {
                self.submit(bytes, count, task::objects(carried));
            }
            if let Some(error) = refused {
                self.fail_one(error);
            }
        }
    }
}

impl<I: Iterator<Item = T>, T: Data, R: Data> Iterator for Imap<I, R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.fill();
        self.take_until(Deadline::NEVER)
    }
}

impl<I, R> Drop for Imap<I, R> {
    fn drop(&mut self) {
        if self.ahead() == 0 {
            return;
        }
        match &self.order {
            Order::Completion(batch) => {
                self.engine.cancel(&(batch.clone() as Arc<dyn Sink>), false);
            }
            Order::Input(batches) => {
                for batch in batches.iter().filter(|batch| !batch.is_finished()) {
                    self.engine.cancel(&(batch.clone() as Arc<dyn Sink>), false);
                }
            }
        }
    }
}
