//! The parent's end of the link to one worker.

use super::control::{self, Failure, Incoming, ToChild, ToParent};
use super::handles::{self, Received};
use super::sharing::Sharing;
use super::worker_link::{ONE_SHOT, POOLED_BLOCKS};
use crate::error::PanicInfo;
use crate::shm::block::{ResultBlock, WriterBlock};
use crate::shm::board::{Board, Command};
use crate::shm::bytes::{Bytes, CopyOut};
use crate::shm::claim::{self, Position};
use crate::shm::object::Object;
use crate::shm::park;
use crate::shm::results::{Items, Kind, ResultReader, Violation};
use crate::shm::tasks::{Frame, Posted, TaskSender};
use crate::sys::fd::InternalFd;
use crate::sys::futex;
use bytemuck::Pod;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many argument blocks a worker keeps mapped.
const KNOWN_BLOCKS: usize = 4;
/// How many messages with objects may come before the records that name them are read.
const MAX_MESSAGES: usize = 1024;
/// How many objects these may have.
const MAX_OBJECTS: usize = 4096;
/// How many single-use result blocks may be announced before their records are read.
const MAX_ANNOUNCED: usize = 1024;

/// What the worker says about some items.
#[derive(Debug)]
pub(crate) enum Report {
    /// Encoded results, back to back.
    Values(Bytes),
    /// One large result.
    Block(BlockBytes),
    /// One failure.
    Failed(Failure),
    /// One result, small or large, with objects.
    Carrying(Box<Report>, Received),
    /// One result whose objects this process could not take: too many open files.
    Lost,
}

/// A large result in a block that the worker may still write to. Dropping it frees the block.
#[derive(Debug)]
pub(crate) struct BlockBytes {
    block: Arc<ResultBlock>,
    len: usize,
    free: Option<(Arc<Board>, u32)>,
}

impl CopyOut for BlockBytes {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_out(&self, at: usize, target: &mut [u8]) -> io::Result<()> {
        self.block.copy_out(at, target);
        Ok(())
    }

    fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> io::Result<Vec<N>> {
        Ok(self.block.copy_out_vec(at, count))
    }
}

impl Drop for BlockBytes {
    fn drop(&mut self) {
        if let Some((board, id)) = &self.free {
            // Release: our reads of the block come before its next use.
            board.free_blocks().fetch_or(1 << id, Ordering::Release);
        }
    }
}

/// The rings, blocks and socket of one worker.
#[derive(Debug)]
pub(crate) struct ParentLink {
    socket: Arc<InternalFd>,
    board: Arc<Board>,
    sharing: Arc<Sharing>,
    tasks: TaskSender,
    results: ResultReader,
    known: VecDeque<u64>,
    pooled: [Option<(u32, Arc<ResultBlock>)>; POOLED_BLOCKS],
    one_shot: VecDeque<ResultBlock>,
    /// Objects that came for records that have not been read, in order; none where their
    /// descriptors could not be taken.
    objects: VecDeque<(u64, Option<Received>)>,
    last_words: Option<PanicInfo>,
}

/// The rings of a worker that is being started.
#[derive(Debug)]
pub(crate) struct Rings {
    board: Board,
    tasks: TaskSender,
}

impl Rings {
    /// Makes the rings; returns the descriptors for the worker, board first.
    pub(crate) fn create() -> io::Result<(Self, [OwnedFd; 2])> {
        let (board, board_fd) = Board::create()?;
        let (tasks, tasks_fd) = TaskSender::create()?;
        Ok((Self { board, tasks }, [board_fd, tasks_fd]))
    }
}

impl ParentLink {
    /// The link to a worker that has come up.
    pub(crate) fn new(rings: Rings, socket: InternalFd) -> Self {
        let (socket, board) = (Arc::new(socket), Arc::new(rings.board));
        Self {
            sharing: Arc::new(Sharing::new(socket.clone(), board.clone())),
            socket,
            board,
            tasks: rings.tasks,
            results: ResultReader::default(),
            known: VecDeque::new(),
            pooled: Default::default(),
            one_shot: VecDeque::new(),
            objects: VecDeque::new(),
            last_words: None,
        }
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Posts a frame; `None` while there is no room. The worker is not woken yet.
    pub(crate) fn post(&mut self, frame: &Frame<'_>) -> Option<Posted> {
        self.tasks.post(frame)
    }

    /// Makes sure that the worker has an argument block; false while its socket is full.
    pub(crate) fn share_block(
        &mut self,
        uid: u64,
        block: &WriterBlock,
        in_flight: impl Fn(u64) -> bool,
    ) -> io::Result<bool> {
        if self.known.contains(&uid) {
            return Ok(true);
        }
        let mut forget = Vec::new();
        while self.known.len() >= KNOWN_BLOCKS
            && let Some(index) = self.known.iter().position(|uid| !in_flight(*uid))
        {
            forget.extend(self.known.remove(index));
        }
        let message = ToChild::Block { uid, capacity: block.capacity() as u64, forget };
        match control::send(self.socket.as_fd(), &message, &[block.fd().as_fd()], false) {
            Ok(()) => {
                self.known.push_back(uid);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let ToChild::Block { forget, .. } = message {
                    self.known.extend(forget);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the worker has these objects; false while its socket is full.
    pub(crate) fn share_objects(&self, objects: &[Arc<Object>]) -> io::Result<bool> {
        self.sharing.share(objects)
    }

    /// A single-use block was used: the worker has dropped it.
    pub(crate) fn forget_block(&mut self, uid: u64) {
        self.known.retain(|known| *known != uid);
    }

    /// Wakes the worker if it sleeps for want of tasks.
    pub(crate) fn wake(&self) {
        if park::must_wake(self.board.parked(), park::IDLE) {
            futex::wake(self.board.parked(), 1);
        }
    }

    /// Asks the worker to finish what it has claimed and exit.
    pub(crate) fn ask_to_exit(&self) {
        self.board.set_command(Command::Exit);
        self.wake();
    }

    /// The oldest frame is finished.
    pub(crate) fn finish(&mut self, finished: Posted, next: Option<Posted>) {
        self.tasks.finish(finished, next);
    }

    /// Takes back all that the worker has not claimed and returns where that begins.
    pub(crate) fn revoke(&self) -> Position {
        claim::revoke(self.board.claim(), self.tasks.tail())
    }

    /// Whether all that was ever posted lies before this position.
    pub(crate) fn is_end(&self, position: Position) -> bool {
        position == Position::start_of(self.tasks.tail())
    }

    /// How far the worker has claimed.
    pub(crate) fn claimed(&self) -> Position {
        claim::position(self.board.claim())
    }

    /// The frames from `first` on were taken back; `before` is the last one outstanding.
    pub(crate) fn take_back(&mut self, first: Posted, before: Option<Posted>) {
        self.tasks.take_back(first, before);
    }

    /// Whether a result waits to be collected.
    pub(crate) fn has_results(&self) -> bool {
        self.results.is_ready(&self.board)
    }

    /// Asks for a ring at the next result; false if one is there already.
    pub(crate) fn arm(&self) -> bool {
        park::arm(self.board.bell(), || self.has_results())
    }

    /// Wants no ring.
    pub(crate) fn disarm(&self) {
        // Relaxed: a ring too many is harmless.
        self.board.bell().store(0, Ordering::Relaxed);
    }

    /// Takes the next report.
    ///
    /// # Errors
    /// If the worker does not keep the protocol.
    pub(crate) fn collect(&mut self) -> Result<Option<(Items, Report)>, Violation> {
        let Some(record) = self.results.next(&self.board)? else {
            return Ok(None);
        };
        let report = match record.kind {
            Kind::Values => Report::Values(record.body),
            Kind::Failure => {
                let failure = postcard::from_bytes(record.body.as_slice());
                Report::Failed(failure.map_err(|_| Violation("a garbled failure"))?)
            }
            Kind::Block => Report::Block(self.block(record.body.as_slice())?),
            Kind::Carrying => {
                let (number, rest) = first_word(record.body.as_slice())?;
                let value = Report::Values(Bytes::from(rest));
                self.carrying(value, number)?
            }
            Kind::CarryingBlock => {
                let (number, rest) = first_word(record.body.as_slice())?;
                let value = Report::Block(self.block(rest)?);
                self.carrying(value, number)?
            }
            Kind::Wrap => return Err(Violation("a stray wrap")),
        };
        Ok(Some((record.items, report)))
    }

    /// After a round of `collect`: wakes the worker if it waits for room.
    pub(crate) fn collected(&self) {
        if park::must_wake(self.board.parked(), park::NEEDS_ROOM) {
            futex::wake(self.board.parked(), 1);
        }
    }

    /// After the worker's death: finished items that it did not publish.
    pub(crate) fn unpublished(&self) -> Option<(u32, Bytes)> {
        self.results.unpublished(&self.board)
    }

    /// Reads what is in the socket; rings need no answer, they woke the caller. False if the
    /// worker's end is closed.
    ///
    /// # Errors
    /// If the worker does not keep the protocol.
    pub(crate) fn drain_socket(&mut self, buffer: &mut Vec<u8>) -> Result<bool, Violation> {
        // More than the socket holds at a time: a worker that sends without end gets no more
        // attention than the others.
        const MOST: usize = 1024;
        for _ in 0..MOST {
            match control::try_recv(self.socket.as_fd(), buffer) {
                Ok(Incoming::Message(message)) => match message.body {
                    ToParent::Bell => self.sharing.catch_up(),
                    ToParent::LastWords(info) => self.last_words = Some(info),
                    ToParent::Block { .. } if message.is_short => {
                        return Err(Violation(
                            "a large result did not arrive: too many open files in the parent",
                        ));
                    }
                    ToParent::Block { id } => self.announced(id, message.fds)?,
                    ToParent::Objects { number, uids } => {
                        let fds = (!message.is_short).then_some(message.fds);
                        self.announced_objects(number, &uids, fds)?;
                    }
                    ToParent::Missing { uids } => {
                        self.known.retain(|known| !uids.contains(known));
                        self.sharing.missing(&uids);
                    }
                    _ => return Err(Violation("a message that a worker never sends")),
                },
                Ok(Incoming::Nothing) => return Ok(true),
                Ok(Incoming::Closed) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Violation("a garbled message"));
                }
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// What the worker said of a panic that aborts it.
    pub(crate) fn take_last_words(&mut self) -> Option<PanicInfo> {
        self.last_words.take()
    }

    fn announced(&mut self, id: u32, fds: Vec<OwnedFd>) -> Result<(), Violation> {
        let fd = fds.first().ok_or(Violation("a block without a descriptor"))?;
        let block = ResultBlock::open(fd).map_err(|_| Violation("a block that cannot be used"))?;
        if id != ONE_SHOT {
            self.pooled[slot_of(id)] = Some((id, Arc::new(block)));
        } else if self.one_shot.len() < MAX_ANNOUNCED {
            self.one_shot.push_back(block);
        } else {
            return Err(Violation("too many blocks without a record"));
        }
        Ok(())
    }

    /// Keeps the objects of message `number` until its record is read; no descriptors where this
    /// process could not take them.
    fn announced_objects(
        &mut self,
        number: u64,
        uids: &[u64],
        fds: Option<Vec<OwnedFd>>,
    ) -> Result<(), Violation> {
        if fds.as_ref().is_some_and(|fds| fds.len() != uids.len()) {
            return Err(Violation("objects without descriptors"));
        }
        let waiting = self.objects.iter().flat_map(|(_, objects)| objects).map(Received::len);
        let objects = waiting.sum::<usize>() + fds.as_ref().map_or(0, Vec::len);
        if objects > MAX_OBJECTS || self.objects.len() >= MAX_MESSAGES {
            return Err(Violation("too many objects without a record"));
        }
        let received = fds.map(|fds| handles::receive(uids, fds.into_iter()).collect());
        self.objects.push_back((number, received));
        Ok(())
    }

    /// A result with the objects of message `number`.
    fn carrying(&mut self, value: Report, number: u64) -> Result<Report, Violation> {
        let is_it = |(sent, _): &(u64, Option<Received>)| *sent == number;
        if !self.objects.iter().any(is_it) {
            // The worker sends the message before the record, so it must be here by now.
            self.drain_socket(&mut Vec::new())?;
        }
        let missing = Violation("a record for objects that were never sent");
        let index = self.objects.iter().position(is_it).ok_or(missing)?;
        // Those before it were for results that then could not be sent.
        let (_, objects) = self.objects.drain(..=index).next_back().ok_or(missing)?;
        Ok(match objects {
            Some(objects) => Report::Carrying(Box::new(value), objects),
            None => Report::Lost,
        })
    }

    fn block(&mut self, body: &[u8]) -> Result<BlockBytes, Violation> {
        let garbled = Violation("a garbled block record");
        let (id, rest) = first_word(body)?;
        let (len, _) = first_word(rest)?;
        let id = u32::try_from(id).map_err(|_| garbled)?;
        let len = usize::try_from(len).map_err(|_| garbled)?;
        let mut found = self.find_block(id, len);
        if found.is_none() {
            // The worker sends the descriptor before the record, so it must be here by now.
            let mut buffer = Vec::new();
            self.drain_socket(&mut buffer)?;
            found = self.find_block(id, len);
        }
        found.ok_or(Violation("a record for a block that was never sent"))
    }

    fn find_block(&mut self, id: u32, len: usize) -> Option<BlockBytes> {
        if id == ONE_SHOT {
            let fits = self.one_shot.front().is_some_and(|block| len <= block.len());
            let block = if fits { self.one_shot.pop_front() } else { None };
            return block.map(|block| BlockBytes { block: Arc::new(block), len, free: None });
        }
        let (found, block) = self.pooled[slot_of(id)].clone()?;
        if found != id {
            return None;
        }
        let free = Some((self.board.clone(), slot_of(id) as u32));
        (len <= block.len()).then(|| BlockBytes { block, len, free })
    }
}

/// The first word of a record's body, and the rest.
fn first_word(body: &[u8]) -> Result<(u64, &[u8]), Violation> {
    let (word, rest) = body.split_first_chunk().ok_or(Violation("a garbled record"))?;
    Ok((u64::from_ne_bytes(*word), rest))
}

fn slot_of(id: u32) -> usize {
    id as usize % POOLED_BLOCKS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    /// P4: also where the parent has too many open files to take what is sent.
    #[test]
    fn messages_without_a_record_are_bounded_with_and_without_descriptors() {
        let refused = |fds: fn() -> Option<Vec<OwnedFd>>| {
            let (rings, _) = Rings::create().expect("rings");
            let (parent, _worker) = socket::pair().expect("a pair");
            let mut link = ParentLink::new(rings, InternalFd::new(parent));
            let announce = |number| link.announced_objects(number, &[], fds());
            let refused =
                (0..2 * MAX_MESSAGES as u64).map(announce).position(|taken| taken.is_err());
            (refused, link.objects.len())
        };
        let bound = (Some(MAX_MESSAGES), MAX_MESSAGES);
        assert_eq!(refused(|| Some(Vec::new())), bound);
        assert_eq!(refused(|| None), bound);
    }
}
