//! Which objects one worker has been sent.
//!
//! A worker keeps an object, mapped, from the first task that needs it until the parent has
//! dropped it: tasks that share an object cost no system call after the first. The drop is told
//! through the socket; a word on the board tells the worker to look there, and if it sleeps it is
//! woken.

use super::control::{self, ToChild};
use super::handles::MAX_HANDLES;
use crate::shm::board::Board;
use crate::shm::object::{Knower, Object};
use crate::shm::park;
use crate::sys::fd::InternalFd;
use crate::sys::{fork, futex};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many dropped objects one message names; it stays well within the size of a message.
const MOST: usize = 4096;

/// The objects of one worker.
#[derive(Debug)]
pub(super) struct Sharing {
    socket: Arc<InternalFd>,
    board: Arc<Board>,
    sent: Mutex<Sent>,
    /// A forked copy of this process must not speak to the worker.
    generation: u32,
}

#[derive(Debug, Default)]
struct Sent {
    known: HashSet<u64>,
    /// Dropped here, and the worker does not know yet.
    dropped: Vec<u64>,
}

impl Sharing {
    pub(super) fn new(socket: Arc<InternalFd>, board: Arc<Board>) -> Self {
        Self { socket, board, sent: Mutex::default(), generation: fork::generation() }
    }

    /// Makes sure that the worker has these objects; false while its socket is full.
    pub(super) fn share(self: &Arc<Self>, objects: &[Arc<Object>]) -> io::Result<bool> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |object: &&Arc<Object>| !sent.known.contains(&object.uid());
        let new: Vec<&Arc<Object>> = objects.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(true);
        }
        if !self.flush(&mut sent) {
            return Ok(false);
        }
        for some in new.chunks(MAX_HANDLES) {
            let uids: Vec<u64> = some.iter().map(|object| object.uid()).collect();
            let fds: Vec<_> = some.iter().map(|object| object.fd()).collect();
            if !self.send(&ToChild::Objects { uids: uids.clone() }, &fds)? {
                return Ok(false);
            }
            sent.known.extend(uids);
            for object in some {
                let knower: Weak<Self> = Arc::downgrade(self);
                object.known_by(knower);
            }
        }
        Ok(true)
    }

    /// The worker did not get these: they are sent again when they are needed again.
    pub(super) fn missing(&self, uids: &[u64]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.known.retain(|uid| !uids.contains(uid));
    }

    /// The worker has read its socket: what did not fit then may fit now.
    pub(super) fn catch_up(&self) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !sent.dropped.is_empty() {
            self.flush(&mut sent);
            drop(sent);
            self.wake();
        }
    }

    /// Wakes a worker that sleeps, to have it look at its socket.
    fn wake(&self) {
        if park::must_wake(self.board.parked(), park::IDLE) {
            futex::wake(self.board.parked(), 1);
        }
    }

    /// Sends the news of dropped objects; false while the socket is full.
    fn flush(&self, sent: &mut Sent) -> bool {
        while !sent.dropped.is_empty() {
            let rest = sent.dropped.len().saturating_sub(MOST);
            let message = ToChild::Forget { uids: sent.dropped[rest..].to_vec() };
            match self.send(&message, &[]) {
                Ok(true) => sent.dropped.truncate(rest),
                Ok(false) => return false,
                // The worker is dead, or dying.
                Err(_) => sent.dropped.clear(),
            }
        }
        true
    }

    fn send(&self, message: &ToChild, fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
        match control::send(self.socket.as_fd(), message, fds, false) {
            Ok(()) => {
                self.board.announce();
                Ok(true)
            }
            // Too many descriptors are on their way: somebody has to read some first.
            Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Knower for Sharing {
    fn forget(&self, uid: u64) {
        if self.generation != fork::generation() {
            return;
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.known.remove(&uid) {
            sent.dropped.push(uid);
            self.flush(&mut sent);
            drop(sent);
            self.wake();
        }
    }
}
