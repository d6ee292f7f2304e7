//! The worker's end of its link to the parent.

use super::control::{self, Failure, Incoming, Message, ToChild, ToParent};
use super::handles;
use crate::shm::block::{ArgumentBlock, LARGEST_POOLED, WriterBlock, capacity_for};
use crate::shm::board::{Board, Command};
use crate::shm::claim::{self, Position};
use crate::shm::park;
use crate::shm::results::{Kind, MAX_RECORD, ResultWriter};
use crate::shm::tasks::{Descriptor, TaskReceiver};
use crate::sys::clock::Deadline;
use crate::sys::procfs::resident_bytes;
use crate::sys::{exit, futex, socket, spin::Spin};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How many result blocks a worker keeps for reuse.
pub(crate) const POOLED_BLOCKS: usize = 4;
/// The number in a record that names a block that is used once. The number of a pooled block is
/// its slot, plus a multiple of [`POOLED_BLOCKS`] that is new for each new block in the slot.
pub(crate) const ONE_SHOT: u32 = u32::MAX;
/// How long an idle worker looks for the next task before it sleeps.
const IDLE_SPIN: Duration = Duration::from_micros(50);

/// Why encoding into a given space stopped.
#[derive(Debug)]
pub(crate) enum Fill {
    /// The space is too small.
    Full,
    /// The value cannot be encoded at all.
    Failed(Failure),
}

/// A value that can be encoded into a given space.
pub(crate) trait Emit {
    /// Whether the value can name objects.
    fn may_carry(&self) -> bool;
    /// The encoded length, where it is known without encoding.
    fn known_len(&self) -> Option<usize>;
    /// The encoded length.
    fn measure(&self) -> Result<usize, Failure>;
    /// Encodes into the start of `space` and returns the length.
    fn fill(&self, space: &mut [u8]) -> Result<usize, Fill>;
    /// Encodes into the start of `space`, where others follow, and returns the length.
    fn fill_entry(&self, space: &mut [u8]) -> Result<usize, Fill>;
}

/// The frame that the worker is running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) descriptor: Descriptor,
    frame: u32,
    claimed: u32,
}

impl Running {
    /// How many items the frame holds.
    fn items(&self) -> u32 {
        self.descriptor.end.wrapping_sub(self.descriptor.first)
    }
}

/// Where tasks come from.
#[derive(Debug)]
pub(crate) struct Inbox {
    tasks: TaskReceiver,
    blocks: Vec<(u64, ArgumentBlock)>,
    /// Blocks whose descriptors this process could not take.
    lost: Vec<u64>,
    next: u32,
    /// How many announced messages were looked for.
    news: u32,
    /// Called with the numbers of objects that the parent has dropped.
    forget: fn(&[u64]),
}

impl Inbox {
    pub(crate) fn open(tasks: &OwnedFd, forget: fn(&[u64])) -> io::Result<Self> {
        let tasks = TaskReceiver::open(tasks)?;
        Ok(Self { tasks, blocks: Vec::new(), lost: Vec::new(), next: 0, news: 0, forget })
    }

    /// Waits for the next frame; `None` when the parent wants the worker to exit.
    pub(crate) fn wait(&mut self, outbox: &Outbox) -> Option<Running> {
        let mut spin = Spin::new(IDLE_SPIN);
        loop {
            if outbox.board.command() == Command::Exit {
                return None;
            }
            if self.tasks.is_posted(self.next) {
                let descriptor = self.tasks.read(self.next);
                // The objects of a frame are announced before it is posted.
                self.hear(outbox);
                return Some(Running { descriptor, frame: self.next, claimed: 0 });
            }
            self.hear(outbox);
            if spin.again() {
                continue;
            }
            // The parent may have taken back frames that this worker never looked at, so many that
            // others have taken their places in the ring.
            let claimed = || claim::position(outbox.board.claim()).frame;
            if claimed() != self.next {
                self.next = claimed();
                continue;
            }
            outbox.sleep(park::IDLE, || {
                self.tasks.is_posted(self.next)
                    || claimed() != self.next
                    || outbox.board.news() != self.news
                    || outbox.board.command() == Command::Exit
            });
        }
    }

    /// The frame is done with: go on with the next one.
    ///
    /// # Errors
    /// If something in this process has overwritten the claim word: the parent would wait for ever
    /// for items that this worker cannot find.
    pub(crate) fn finish(&mut self, outbox: &Outbox) -> io::Result<()> {
        // The parent may have taken frames back, so the next one is where the claim word stands:
        // at the start of a later frame.
        let position = claim::position(outbox.board.claim());
        let moved = position.frame.wrapping_sub(self.next).cast_signed();
        if position.item != 0 || moved <= 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a garbled claim word"));
        }
        self.next = position.frame;
        Ok(())
    }

    /// The payload of a frame of which an item is claimed.
    pub(crate) fn payload<'a>(
        &'a mut self,
        outbox: &Outbox,
        descriptor: &'a Descriptor,
    ) -> io::Result<&'a [u8]> {
        match descriptor.block() {
            Some((uid, len)) => self.block(outbox, uid, len),
            None => Ok(self.tasks.bytes(descriptor)),
        }
    }

    /// The first bytes of a block that a claimed frame names.
    pub(crate) fn block(&mut self, outbox: &Outbox, uid: u64, len: usize) -> io::Result<&[u8]> {
        if !self.blocks.iter().any(|(known, _)| *known == uid) {
            // The parent sends it before the frame.
            self.read_socket(outbox);
            self.check_lost(uid)?;
        }
        let block = self.blocks.iter().find(|(known, _)| *known == uid);
        let missing = || io::Error::new(io::ErrorKind::NotFound, "a block is missing");
        Ok(block.ok_or_else(missing)?.1.bytes(len))
    }

    /// Reads what the parent has announced.
    fn hear(&mut self, outbox: &Outbox) {
        let news = outbox.board.news();
        if news != self.news {
            self.news = news;
            self.read_socket(outbox);
        }
    }

    /// Reads everything that the parent has sent.
    fn read_socket(&mut self, outbox: &Outbox) {
        /// So many messages may have kept the parent from sending one more.
        const MANY: u32 = 32;
        let mut buffer = Vec::new();
        let mut messages = 0;
        while let Ok(Incoming::Message(message)) = control::try_recv(&*outbox.socket, &mut buffer) {
            self.take_message(outbox, message);
            messages += 1;
        }
        if messages >= MANY {
            outbox.ring();
        }
    }

    /// Whether a block was sent in vain; the parent sends it again when it is needed again.
    fn check_lost(&self, wanted: u64) -> io::Result<()> {
        if self.lost.contains(&wanted) {
            return Err(io::Error::other("large arguments did not arrive: too many open files"));
        }
        Ok(())
    }

    fn take_message(&mut self, outbox: &Outbox, message: Message<ToChild>) {
        let mut fds = message.fds.into_iter();
        match message.body {
            ToChild::Block { uid, capacity, forget } => {
                self.blocks.retain(|(known, _)| !forget.contains(known));
                self.lost.retain(|lost| *lost != uid && !forget.contains(lost));
                match fds.next().map(|fd| ArgumentBlock::open(&fd, capacity as usize)) {
                    Some(Ok(block)) => self.blocks.push((uid, block)),
                    // Too many open files, or no memory to map it.
                    _ => {
                        self.lost.push(uid);
                        outbox.report_missing(vec![uid]);
                    }
                }
            }
            ToChild::Objects { uids } if message.is_short => outbox.report_missing(uids),
            ToChild::Objects { uids } => {
                handles::receive(&uids, fds).for_each(|(uid, object)| handles::admit(uid, object));
            }
            ToChild::Forget { uids } => {
                uids.iter().for_each(|uid| handles::dismiss(*uid));
                (self.forget)(&uids);
            }
            ToChild::Setup(_) | ToChild::Fork { .. } => {}
        }
    }

    /// Gives the memory of a large, single-use block back.
    pub(crate) fn forget_large(&mut self, descriptor: &Descriptor) {
        if let Some((uid, len)) = descriptor.block()
            && len > LARGEST_POOLED
        {
            self.blocks.retain(|(known, _)| *known != uid);
        }
    }
}

#[derive(Debug)]
struct PooledBlock {
    block: WriterBlock,
    id: u32,
    /// How many bytes the parent has been shown.
    announced: usize,
    busy: bool,
}

/// When a worker retires of its own accord.
#[derive(Debug)]
pub(crate) struct Limits {
    tasks_left: Option<u64>,
    memory: Option<u64>,
    checked: Option<Instant>,
    reached: bool,
}

impl Limits {
    /// After so many tasks, or when so many bytes are resident after a task.
    pub(crate) fn new(tasks: Option<u64>, memory: Option<u64>) -> Self {
        Self { tasks_left: tasks, memory, checked: None, reached: false }
    }

    fn count(&mut self, claimed: bool) {
        if let Some(left) = &mut self.tasks_left {
            *left = left.saturating_sub(u64::from(claimed));
        }
    }

    /// Whether no further item may be claimed. Memory is measured at most once a millisecond:
    /// reading it costs more than a tiny task.
    fn are_reached(&mut self) -> bool {
        const INTERVAL: Duration = Duration::from_millis(1);
        if self.tasks_left == Some(0) {
            self.reached = true;
        }
        if let Some(limit) = self.memory
            && !self.reached
            && self.checked.is_none_or(|at| at.elapsed() >= INTERVAL)
        {
            self.checked = Some(Instant::now());
            self.reached = resident_bytes() > limit;
        }
        self.reached
    }
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Outbox {
    board: Board,
    results: ResultWriter,
    socket: Arc<OwnedFd>,
    limits: Limits,
    blocks: [Option<PooledBlock>; POOLED_BLOCKS],
    blocks_made: u32,
    /// How many messages with objects were sent.
    carried: u64,
}

impl Outbox {
    pub(crate) fn open(socket: Arc<OwnedFd>, board: &OwnedFd, limits: Limits) -> io::Result<Self> {
        let board = Board::open(board)?;
        Ok(Self {
            board,
            results: ResultWriter::default(),
            socket,
            limits,
            blocks: Default::default(),
            blocks_made: 0,
            carried: 0,
        })
    }

    /// Whether the worker has reached a limit and exits after this frame.
    pub(crate) fn is_retiring(&mut self) -> bool {
        self.limits.are_reached()
    }

    /// Claims the next item of the frame; false if there is none left, or the parent took the
    /// rest back.
    pub(crate) fn claim(&mut self, running: &mut Running) -> bool {
        if running.claimed >= running.items() || self.limits.are_reached() {
            return false;
        }
        let at = Position { frame: running.frame, item: running.claimed };
        let claimed = claim::claim(self.board.claim(), at, running.items()).is_ok();
        running.claimed += u32::from(claimed);
        self.limits.count(claimed);
        claimed
    }

    /// Sends the result of the item that was claimed last.
    #[inline]
    pub(crate) fn emit(&mut self, running: &Running, value: &impl Emit) -> Result<(), Failure> {
        if value.may_carry() {
            handles::collecting(|| self.emit_value(running, value)).0
        } else {
            self.emit_value(running, value)
        }
    }

    fn emit_value(&mut self, running: &Running, value: &impl Emit) -> Result<(), Failure> {
        if value.known_len().is_some_and(|len| len > MAX_RECORD) {
            return self.emit_block(running, value);
        }
        let mut min = 64;
        loop {
            if !self.results.is_open() {
                self.open_record(running, min);
            }
            match value.fill_entry(self.results.space(&mut self.board)) {
                Ok(_) if value.may_carry() && handles::is_carrying() => {
                    return self.emit_carrying(running, value);
                }
                Ok(len) => {
                    self.results.add(&self.board, len);
                    return Ok(());
                }
                Err(Fill::Failed(failure)) => return Err(failure),
                Err(Fill::Full) if self.results.count() > 0 => self.publish(Kind::Values),
                Err(Fill::Full) if !self.results.is_largest() => {
                    self.results.close(&self.board, Kind::Values);
                    min = MAX_RECORD;
                }
                Err(Fill::Full) => return self.emit_block(running, value),
            }
        }
    }

    /// Sends a result with objects, in a record of its own.
    fn emit_carrying(&mut self, running: &Running, value: &impl Emit) -> Result<(), Failure> {
        // What was encoded into the open record was not added to it.
        self.publish(Kind::Values);
        let number = self.send_collected()?;
        let mut min = 64;
        loop {
            self.open_record(running, min);
            let space = self.results.space(&mut self.board);
            let (header, body) = space.split_at_mut(8);
            match value.fill_entry(body) {
                Ok(len) => {
                    header.copy_from_slice(&number.to_ne_bytes());
                    self.results.add_other(8 + len);
                    self.publish(Kind::Carrying);
                    return Ok(());
                }
                Err(Fill::Failed(failure)) => {
                    self.results.close(&self.board, Kind::Carrying);
                    return Err(failure);
                }
                Err(Fill::Full) if !self.results.is_largest() => {
                    self.results.close(&self.board, Kind::Carrying);
                    min = MAX_RECORD;
                }
                Err(Fill::Full) => {
                    self.results.close(&self.board, Kind::Carrying);
                    return self.emit_block_with(running, value, Some(number));
                }
            }
        }
    }

    /// Sends the descriptors of the objects that the value names; returns the message's number.
    fn send_collected(&mut self) -> Result<u64, Failure> {
        let carried = handles::take_collected();
        let fds: Vec<_> = handles::descriptors(&carried).collect();
        self.carried += 1;
        let number = self.carried;
        let message = ToParent::Objects { number, uids: handles::numbers(&carried) };
        control::send(&*self.socket, &message, &fds, true).map_err(|error| {
            Failure::Encode(format!("the shared objects in it could not be sent: {error}"))
        })?;
        Ok(number)
    }

    /// Sends the failure of the item that was claimed last.
    pub(crate) fn fail(&mut self, running: &Running, failure: &Failure) {
        self.publish(Kind::Values);
        let encoded = postcard::to_stdvec(&shortened(failure)).unwrap_or_default();
        self.open_record(running, encoded.len());
        self.results.space(&mut self.board)[..encoded.len()].copy_from_slice(&encoded);
        self.results.add_other(encoded.len());
        self.publish(Kind::Failure);
    }

    /// Publishes what the open record holds and rings if the parent wants to hear of it.
    pub(crate) fn flush(&mut self) {
        self.publish(Kind::Values);
    }

    /// Tells the parent to look, whether it asked or not.
    pub(crate) fn ring(&self) {
        // A full socket holds news already; a closed one means that the parent is gone, and then
        // the lifeline ends this process.
        let _ = socket::send(&*self.socket, BELL, &[], false);
    }

    /// Tells the parent that the descriptors of these could not be taken.
    fn report_missing(&self, uids: Vec<u64>) {
        // If the parent is gone there is nobody to tell.
        let _ = control::send(&*self.socket, &ToParent::Missing { uids }, &[], true);
    }

    fn publish(&mut self, kind: Kind) {
        if self.results.count() == 0 {
            return self.results.close(&self.board, kind);
        }
        self.results.close(&self.board, kind);
        if park::must_ring(self.board.bell()) {
            self.ring();
        }
    }

    /// Opens a record whose first item is the one that was claimed last.
    fn open_record(&mut self, running: &Running, min: usize) {
        let item = running.claimed - 1;
        while !self.results.open(&self.board, running.frame, item, min) {
            if !self.results.is_sound(&self.board) {
                // It would wait for ever, and the parent with it.
                eprintln!("multiproc: a worker ends: a garbled result head");
                exit::exit_now(1);
            }
            let head = self.results.head(&self.board);
            // The parent may have made room before that look, and make none after it.
            if self.results.open(&self.board, running.frame, item, min) {
                return;
            }
            self.sleep(park::NEEDS_ROOM, || self.results.head(&self.board) != head);
        }
    }

    /// Sleeps until the parent wakes the worker, unless `ready` says that it need not. The parent
    /// is told of results that it has not collected: it may be asleep, too.
    fn sleep(&self, state: u32, ready: impl Fn() -> bool) {
        if !park::prepare(self.board.parked(), state, ready) {
            return;
        }
        if !self.results.all_collected(&self.board) {
            self.ring();
        }
        futex::wait(self.board.parked(), state, Deadline::NEVER);
        self.board.parked().store(park::AWAKE, Ordering::Relaxed);
    }

    fn emit_block(&mut self, running: &Running, value: &impl Emit) -> Result<(), Failure> {
        self.emit_block_with(running, value, None)
    }

    /// Sends a result in a block; its objects were sent already, or are those that the encoding
    /// finds.
    fn emit_block_with(
        &mut self,
        running: &Running,
        value: &impl Emit,
        sent: Option<u64>,
    ) -> Result<(), Failure> {
        let len = match value.known_len() {
            Some(len) => len,
            None => value.measure()?,
        };
        let refused = |error: io::Error| {
            Failure::Encode(format!("no shared memory for a result of {len} bytes: {error}"))
        };
        self.publish(Kind::Values);
        let slot = self.slot_for(len).map_err(refused)?;
        let mut one_shot = None;
        let (id, block) = match slot.and_then(|slot| self.blocks[slot].as_mut()) {
            Some(pooled) => (pooled.id, &mut pooled.block),
            None => {
                let block = WriterBlock::for_results(capacity_for(len)).map_err(refused)?;
                (ONE_SHOT, one_shot.insert(block))
            }
        };
        let filled = value.fill(&mut block.bytes_mut()[..len]);
        match filled {
            Ok(_) => {}
            Err(Fill::Failed(failure)) => return Err(failure),
            Err(Fill::Full) => {
                let what = "the value was encoded twice, with different lengths";
                return Err(Failure::Encode(what.to_owned()));
            }
        }
        let objects = match sent {
            None if value.may_carry() && handles::is_carrying() => Some(self.send_collected()?),
            sent => sent,
        };
        match one_shot {
            Some(block) => self.announce(ONE_SHOT, &block).map_err(refused)?,
            None => self.use_pooled(slot, len).map_err(refused)?,
        }
        let mut body = Vec::with_capacity(24);
        let words = objects.into_iter().chain([id.into(), len as u64]);
        words.for_each(|word| body.extend_from_slice(&word.to_ne_bytes()));
        self.open_record(running, body.len());
        self.results.space(&mut self.board)[..body.len()].copy_from_slice(&body);
        self.results.add_other(body.len());
        self.publish(if objects.is_some() { Kind::CarryingBlock } else { Kind::Block });
        Ok(())
    }

    /// Chooses the slot of a pooled block for a result; `None` if it needs a single-use block.
    fn slot_for(&mut self, len: usize) -> io::Result<Option<usize>> {
        // Acquire: the parent has finished reading the blocks that it frees.
        let free = self.board.free_blocks().swap(0, Ordering::Acquire);
        for (slot, pooled) in self.blocks.iter_mut().enumerate() {
            if free & 1 << slot != 0
                && let Some(pooled) = pooled
            {
                pooled.busy = false;
            }
        }
        if len > LARGEST_POOLED {
            return Ok(None);
        }
        let fits = |slot: &Option<PooledBlock>| {
            slot.as_ref().is_some_and(|pooled| !pooled.busy && pooled.block.capacity() >= len)
        };
        if let Some(slot) = self.blocks.iter().position(fits) {
            return Ok(Some(slot));
        }
        let idle = |slot: &Option<PooledBlock>| slot.as_ref().is_none_or(|pooled| !pooled.busy);
        let Some(slot) = self.blocks.iter().position(idle) else {
            return Ok(None);
        };
        let block = WriterBlock::for_results(capacity_for(len))?;
        self.blocks_made = self.blocks_made.wrapping_add(1) % (ONE_SHOT / POOLED_BLOCKS as u32);
        let id = self.blocks_made * POOLED_BLOCKS as u32 + slot as u32;
        self.blocks[slot] = Some(PooledBlock { block, id, announced: 0, busy: false });
        Ok(Some(slot))
    }

    /// Marks a pooled block as on its way to the parent, and shows it if the parent has not seen
    /// as much of it before.
    fn use_pooled(&mut self, slot: Option<usize>, len: usize) -> io::Result<()> {
        let Some(pooled) = slot.and_then(|slot| self.blocks[slot].as_mut()) else {
            return Ok(());
        };
        pooled.busy = true;
        if pooled.announced >= len {
            return Ok(());
        }
        pooled.announced = len;
        let (id, fd) = (pooled.id, pooled.block.fd().as_fd());
        control::send(&*self.socket, &ToParent::Block { id }, &[fd], true)
    }

    fn announce(&self, id: u32, block: &WriterBlock) -> io::Result<()> {
        control::send(&*self.socket, &ToParent::Block { id }, &[block.fd().as_fd()], true)
    }
}

/// The doorbell message: `ToParent::Bell`, encoded.
const BELL: &[u8] = &[0];

/// Cuts texts that would not fit a record.
fn shortened(failure: &Failure) -> Failure {
    const MOST: usize = MAX_RECORD / 4;
    let cut = |text: &String| match text.char_indices().nth(MOST / 4) {
        Some((end, _)) if text.len() > MOST => format!("{}… (cut)", &text[..end]),
        _ => text.clone(),
    };
    match failure {
        Failure::Panicked(info) => {
            let mut info = info.clone();
            info.message = cut(&info.message);
            info.backtrace = info.backtrace.as_ref().map(cut);
            Failure::Panicked(info)
        }
        Failure::Decode(text) => Failure::Decode(cut(text)),
        Failure::Encode(text) => Failure::Encode(cut(text)),
        Failure::Other(text) => Failure::Other(cut(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doorbell_is_the_encoded_message() {
        assert_eq!(postcard::to_stdvec(&ToParent::Bell).expect("encode"), BELL);
    }

    #[test]
    fn a_huge_panic_message_is_cut_to_fit_a_record() {
        let failure = Failure::Decode("ä".repeat(1 << 20));
        let encoded = postcard::to_stdvec(&shortened(&failure)).expect("encode");
        assert!(encoded.len() <= MAX_RECORD);
    }
}
