use super::batch::Batch;
use super::engine::Engine;
use super::imap::Imap;
use super::result::AsyncResult;
use super::task::{self, Objects, Part, Payload, Task};
use crate::codec::{Encode, NotEncoded, encode_value, items, naming};
use crate::entry::{self, ContextHeader, FrameEntry};
use crate::shm::object::next_uid;
use crate::shm::results::MAX_ITEMS;
use crate::sys::clock::Deadline;
use crate::wire::handles::{Carried, MAX_HANDLES};
use crate::{Arguments, Data, Error, Function, Result};
use std::sync::Arc;

/// A chunk is closed when its items take this many bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// How many chunks there are a worker, when their size is not given: idle workers share out what
/// others have not begun, so this only has to be enough to start with.
const CHUNKS_PER_WORKER: usize = 8;
/// A context up to this size travels with each chunk; a larger one in a block of its own.
const SMALL_CONTEXT: usize = 1024;

/// A pool with a chunk size; made by [`Pool::chunks_of`](crate::Pool::chunks_of).
///
/// Items of one chunk travel together, which is cheaper; each still has an outcome of its own, and
/// idle workers take over what others have not begun.
#[derive(Clone, Debug)]
pub struct Chunks {
    pub(super) engine: Arc<Engine>,
    pub(super) size: Option<usize>,
}

/// The function of a map, and what goes before the items.
pub(super) struct Job {
    entry: FrameEntry,
    /// Bytes in front of the items of each chunk.
    header: Vec<u8>,
    context: Option<Arc<super::arguments::SharedBlock>>,
    /// The shared objects that the context names.
    objects: Objects,
    /// Whether an item may be run again after a worker died of it.
    retriable: bool,
}

impl Chunks {
    /// As [`Pool::map`](crate::Pool::map).
    ///
    /// # Errors
    /// As there.
    pub fn map<F, T, R>(&self, _function: F, items: impl IntoIterator<Item = T>) -> Result<Vec<R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        T: Data,
        R: Data,
    {
        let job = Job::plain(entry::frame_entry::<F, (T,)>()?);
        decode_all(self.run(&job, items.into_iter().map(|item| (item,)))?.parts())
    }

    /// As [`Pool::starmap`](crate::Pool::starmap).
    ///
    /// # Errors
    /// As there.
    pub fn starmap<F, A>(
        &self,
        _function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<F::Output>>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        let job = Job::plain(entry::frame_entry::<F, A>()?);
        decode_all(self.run(&job, items.into_iter())?.parts())
    }

    /// As [`Pool::map_with`](crate::Pool::map_with).
    ///
    /// # Errors
    /// As there.
    pub fn map_with<C, F, T, R>(
        &self,
        context: &C,
        _function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<R>>
    where
        F: Fn(&C, T) -> R + Copy + Send + Sync + 'static,
        C: Data,
        T: Data,
        R: Data,
    {
        let entry = entry::context_entry::<F, C, T, R>()?;
        let encode = |bytes: &mut Vec<u8>| encode_value(context, bytes);
        let job = Job::with_context(entry, &self.engine, encode)?;
        decode_all(self.run(&job, items.into_iter().map(|item| (item,)))?.parts())
    }

    /// As [`Pool::for_each`](crate::Pool::for_each).
    ///
    /// # Errors
    /// As there.
    pub fn for_each<F, T>(&self, _function: F, items: impl IntoIterator<Item = T>) -> Result<()>
    where
        F: Fn(T) + Copy + Send + Sync + 'static,
        T: Data,
    {
        let job = Job::plain(entry::frame_entry::<F, (T,)>()?);
        let batch = self.run(&job, items.into_iter().map(|item| (item,)))?;
        decode_all::<()>(batch.parts()).map(drop)
    }

    /// As [`Pool::map_async`](crate::Pool::map_async).
    ///
    /// # Errors
    /// As there.
    pub fn map_async<F, T, R>(
        &self,
        _function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<AsyncResult<Vec<R>>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        T: Data,
        R: Data,
    {
        let job = Job::plain(entry::frame_entry::<F, (T,)>()?);
        self.run_async(&job, items.into_iter().map(|item| (item,)))
    }

    /// As [`Pool::starmap_async`](crate::Pool::starmap_async).
    ///
    /// # Errors
    /// As there.
    pub fn starmap_async<F, A>(
        &self,
        _function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<AsyncResult<Vec<F::Output>>>
    where
        F: Function<A, Output: Data>,
        A: Arguments,
    {
        let job = Job::plain(entry::frame_entry::<F, A>()?);
        self.run_async(&job, items.into_iter())
    }

    /// As [`Pool::imap`](crate::Pool::imap), in chunks.
    ///
    /// # Errors
    /// As there.
    pub fn imap<F, T, R, I>(&self, _function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        let entry = entry::frame_entry::<F, (T,)>()?;
        Ok(Imap::new(self.engine.clone(), entry, items.into_iter(), true, self.size.unwrap_or(1)))
    }

    /// As [`Pool::imap_unordered`](crate::Pool::imap_unordered), in chunks.
    ///
    /// # Errors
    /// As there.
    pub fn imap_unordered<F, T, R, I>(&self, _function: F, items: I) -> Result<Imap<I::IntoIter, R>>
    where
        F: Fn(T) -> R + Copy + Send + Sync + 'static,
        I: IntoIterator<Item = T>,
        T: Data,
        R: Data,
    {
        let entry = entry::frame_entry::<F, (T,)>()?;
        Ok(Imap::new(self.engine.clone(), entry, items.into_iter(), false, self.size.unwrap_or(1)))
    }

    /// Runs all items and waits for them; returns the outcomes in order.
    pub(super) fn run<A: Encode>(
        &self,
        job: &Job,
        items: impl Iterator<Item = A>,
    ) -> Result<Arc<Batch>> {
        let batch = Batch::new(None);
        let total = self.submit_all(job, items, &batch);
        batch.set_total(total.as_ref().copied().unwrap_or_else(|stopped| stopped.submitted));
        self.engine.wait_for(&batch, Deadline::NEVER);
        if let Err(stopped) = total {
            return Err(stopped.error);
        }
        Ok(batch)
    }

    fn run_async<A: Encode, R: Data>(
        &self,
        job: &Job,
        items: impl Iterator<Item = A>,
    ) -> Result<AsyncResult<Vec<R>>> {
        let batch = Batch::new(None);
        match self.submit_all(job, items, &batch) {
            Ok(total) => {
                batch.set_total(total);
                Ok(AsyncResult::new(self.engine.clone(), batch, decode_all))
            }
            Err(stopped) => Err(stopped.error),
        }
    }

    /// Cuts the items into chunks and submits them; returns how many items there were.
    fn submit_all<A: Encode>(
        &self,
        job: &Job,
        mut items: impl Iterator<Item = A>,
        batch: &Arc<Batch>,
    ) -> std::result::Result<u64, Stopped> {
        let mut size = ChunkSize::new(self, items.size_hint().0);
        let mut chunk = Chunk::default();
        let mut submitted = 0;
        loop {
            let stopped = |error| Stopped { error, submitted };
            let more = chunk.fill(job, size.next(), &mut items).map_err(stopped)?;
            if chunk.count > 0 {
                let payload = self.engine.blocks.pack(&mut chunk.bytes).map_err(stopped)?;
                let task = Task {
                    entry: job.entry,
                    payload,
                    objects: chunk.objects(job),
                    context: job.context.clone(),
                    first: 0,
                    end: chunk.count,
                    sink: batch.clone(),
                    base: submitted,
                    retriable: job.retriable,
                    attempts: 0,
                };
                self.engine.submit(task).map_err(stopped)?;
                submitted += u64::from(chunk.count);
            }
            if !more {
                return Ok(submitted);
            }
        }
    }
}

/// Submitting ended early.
struct Stopped {
    error: Error,
    /// How many items are on their way all the same.
    submitted: u64,
}

impl Job {
    fn plain(entry: FrameEntry) -> Self {
        Self { entry, header: Vec::new(), context: None, objects: None, retriable: true }
    }

    /// The job, whose items must not be run again if a worker dies of them.
    pub(super) fn only_once(self) -> Self {
        Self { retriable: false, ..self }
    }

    /// A job whose items share a context, which is encoded once.
    pub(super) fn with_context(
        entry: FrameEntry,
        engine: &Engine,
        encode: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), NotEncoded>,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        let ((), carried) = naming(|| encode(&mut bytes)).map_err(Error::arguments)?;
        let objects = task::objects(carried);
        let mut header = Vec::new();
        if bytes.len() <= SMALL_CONTEXT {
            let uid = next_uid();
            ContextHeader { uid, len: bytes.len() as u64, in_block: false }.write(&mut header);
            header.extend_from_slice(&bytes);
            return Ok(Self { entry, header, context: None, objects, retriable: true });
        }
        let block = engine.blocks.fresh(bytes.len(), |space| {
            space.copy_from_slice(&bytes);
            Ok(())
        })?;
        let (uid, len) = (block.uid(), bytes.len() as u64);
        ContextHeader { uid, len, in_block: true }.write(&mut header);
        Ok(Self { entry, header, context: Some(block), objects, retriable: true })
    }
}

/// How many items the next chunk should have.
struct ChunkSize {
    fixed: Option<usize>,
    next: usize,
    submitted: usize,
    workers: usize,
}

impl ChunkSize {
    fn new(chunks: &Chunks, expected: usize) -> Self {
        let workers = chunks.engine.workers();
        // Each task has its own clock if there is a time limit for tasks.
        let alone = chunks.engine.roster.rules.task_timeout.map(|_| 1);
        let known = (expected > 0).then(|| expected.div_ceil(workers * CHUNKS_PER_WORKER));
        Self { fixed: chunks.size.or(alone).or(known), next: 1, submitted: 0, workers }
    }

    /// Chunks of an iterator that does not tell its length grow with what has come so far.
    fn next(&mut self) -> usize {
        let size = self.fixed.unwrap_or(self.next).min(MAX_ITEMS as usize);
        self.submitted += size;
        self.next = (self.submitted / (self.workers * CHUNKS_PER_WORKER)).max(1);
        size
    }
}

/// A chunk in the making.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    count: u32,
    /// The shared objects that the items name.
    carried: Carried,
}

impl Chunk {
    /// Starts anew with up to `most` items; false if there are no more after them.
    fn fill<A: Encode>(
        &mut self,
        job: &Job,
        most: usize,
        items: &mut impl Iterator<Item = A>,
    ) -> Result<bool> {
        self.count = 0;
        self.bytes.clear();
        self.bytes.extend_from_slice(&job.header);
        while (self.count as usize) < most
            && self.bytes.len() - job.header.len() < CHUNK_BYTES
            && self.carried.len() < MAX_HANDLES
        {
            let Some(item) = items.next() else { return Ok(false) };
            self.push(&item).map_err(Error::arguments)?;
            self.count += 1;
        }
        Ok(true)
    }

    #[inline]
    fn push<A: Encode>(&mut self, item: &A) -> std::result::Result<(), NotEncoded> {
        if A::fixed_len().is_some() {
            return items::push(item, &mut self.bytes);
        }
        let ((), carried) = naming(|| items::push(item, &mut self.bytes))?;
        self.carried.extend(carried);
        Ok(())
    }

    /// The objects that the chunk needs; forgets those of its items.
    fn objects(&mut self, job: &Job) -> Objects {
        if self.carried.is_empty() {
            return job.objects.clone();
        }
        let mut carried = std::mem::take(&mut self.carried);
        carried.extend(job.objects.iter().flat_map(|objects| objects.iter().cloned()));
        task::objects(carried)
    }
}

/// All values in order, or the first error.
pub(super) fn decode_all<R: Data>(parts: &[Part]) -> Result<Vec<R>> {
    let count = parts.iter().map(|part| part.count as usize).sum();
    let mut values = Vec::with_capacity(count);
    let mut first_error = None;
    for part in parts {
        part.decode_into(|value| match value {
            Ok(value) => values.push(value),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        });
    }
    match first_error {
        None => Ok(values),
        Some(error) => Err(error),
    }
}

/// A payload for one argument tuple, as a task of one item.
pub(super) fn single(
    entry: FrameEntry,
    (payload, objects): (Payload, Objects),
    sink: Arc<Batch>,
) -> Task {
    Task {
        entry,
        payload,
        objects,
        context: None,
        first: 0,
        end: 1,
        sink,
        base: 0,
        retriable: true,
        attempts: 0,
    }
}
