//! The way between one thread of a client and the server's thread for it: requests and replies,
//! with the objects that they name.

use crate::sys::clock::Deadline;
use crate::sys::fd::InternalFd;
use crate::sys::socket;
use crate::wire::control::{self, Body, Incoming};
use crate::wire::handles::{self, Carried, Received};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end of a channel. A forked child loses it: to the other end this process is gone when it is.
#[derive(Debug)]
pub(super) struct Channel {
    socket: InternalFd,
}

/// What came through a channel.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) received: Received,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    body: Body,
    /// The numbers of the objects, whose descriptors come last.
    objects: Vec<u64>,
}

impl Channel {
    /// A new channel: one end, and what makes the other.
    pub(super) fn pair() -> io::Result<(Self, Vec<OwnedFd>)> {
        let (here, there) = socket::pair()?;
        Ok((Self { socket: InternalFd::new(here) }, vec![there]))
    }

    /// The end that somebody sent; there is no telling what it really is.
    pub(super) fn from_descriptors(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let [socket] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no end of a channel"))?;
        Ok(Self { socket: InternalFd::new(socket) })
    }

    /// Sends bytes and objects.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end is gone; others if there is no memory for them.
    pub(super) fn send(&self, bytes: Vec<u8>, carried: &Carried) -> io::Result<()> {
        let mut bodies = Vec::new();
        let body = Body::pack(bytes, &mut bodies)?;
        let envelope = Envelope { body, objects: handles::numbers(carried) };
        let fds: Vec<BorrowedFd<'_>> =
            bodies.iter().map(AsFd::as_fd).chain(handles::descriptors(carried)).collect();
        control::send(&self.socket, &envelope, &fds, true)
    }

    /// Waits for what the other end sends; `None` if it is gone.
    pub(super) fn recv(&self) -> io::Result<Option<Packet>> {
        let message = match control::recv::<Envelope>(&self.socket, Deadline::NEVER) {
            Ok(Incoming::Message(message)) => message,
            Ok(Incoming::Closed | Incoming::Nothing) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Envelope { body, objects } = message.body;
        let mut fds = message.fds.into_iter();
        let bytes = body.unpack(&mut fds)?;
        Ok(Some(Packet { bytes, received: handles::receive(&objects, fds).collect() }))
    }

    /// Whether the other end is gone, seen from a side whose turn it is: the other has nothing to
    /// say until it is answered.
    pub(super) fn is_peer_gone(&self) -> bool {
        socket::is_readable(&self.socket).unwrap_or(true)
    }
}
