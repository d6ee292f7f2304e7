//! A connection whose peer has not proved yet who it is.

use super::Address;
use super::auth::{Admission, Answering, HELLO, Outcome, Terms};
use crate::sys::clock::Deadline;
use crate::sys::stream::{self, Came, Interest};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a peer is left in peace when others crowd in: every peer has this much time, however
/// many there are.
const GRACE: Duration = Duration::from_millis(200);

/// One handshake, on the listener's side. It never waits, and it takes no more than two messages of
/// fixed length.
pub(super) struct Pending {
    socket: OwnedFd,
    peer: Option<Address>,
    handshake: Answering,
    outcome: Outcome,
    /// What is to be sent before anything else.
    out: Vec<u8>,
    since: Instant,
    /// The whole handshake has to be over by then.
    deadline: Deadline,
}

impl Pending {
    pub(super) fn new(
        socket: OwnedFd,
        peer: Option<Address>,
        admission: Admission,
        patience: Duration,
    ) -> Self {
        Self {
            socket,
            peer,
            handshake: Answering::new(admission),
            outcome: Outcome::Open,
            out: Vec::new(),
            since: Instant::now(),
            deadline: Deadline::after(patience),
        }
    }

    /// Goes on as far as that is possible now.
    pub(super) fn advance(&mut self, terms: &Terms) -> Outcome {
        loop {
            if !self.out.is_empty() {
                match stream::send_some(&self.socket, &[IoSlice::new(&self.out)], &[]) {
                    Ok(Some(sent)) => drop(self.out.drain(..sent)),
                    Ok(None) => return Outcome::Open,
                    Err(_) => return Outcome::Refused,
                }
            } else if self.outcome != Outcome::Open {
                return self.outcome;
            } else {
                let mut bytes = Vec::with_capacity(HELLO);
                match stream::recv_more(&self.socket, &mut bytes, self.handshake.wants()) {
                    Ok(Came::Bytes(_)) => {
                        self.outcome = self.handshake.feed(terms, &bytes, &mut self.out);
                    }
                    Ok(Came::Nothing) => return Outcome::Open,
                    Ok(Came::End) | Err(_) => return Outcome::Refused,
                }
            }
        }
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, Interest) {
        let interest = if self.out.is_empty() { Interest::Read } else { Interest::Write };
        (self.socket.as_fd(), interest)
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// When it may have to go for others.
    pub(super) fn grace(&self) -> Deadline {
        self.since.checked_add(GRACE).map_or(Deadline::NEVER, Deadline::at)
    }

    /// Who is to go first when there are too many: who has not even said hello, then who is oldest.
    pub(super) fn rank(&self) -> (bool, Instant) {
        (self.handshake.is_under_way(), self.since)
    }

    /// The socket, on which the next byte is that of a message.
    pub(super) fn into_parts(self) -> (OwnedFd, Option<Address>) {
        (self.socket, self.peer)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Pending");
        debug.field("peer", &self.peer).field("since", &self.since).finish_non_exhaustive()
    }
}
