//! The way between one thread of a client and the server's thread for it: requests and replies,
//! with the objects that they name.

use super::link::disconnected;
use super::remote::{Line, not_carried};
use crate::sys::clock::Deadline;
use crate::sys::fd::InternalFd;
use crate::sys::socket;
use crate::wire::control::{self, Body, Incoming};
use crate::wire::handles::{self, Carried, Received};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// One end of a channel. A forked child loses it: to the other end this process is gone when it is.
#[derive(Debug)]
pub(super) enum Channel {
    /// On this machine, with descriptors.
    Local(InternalFd),
    /// Over a connection, which carries bytes only.
    Remote(Line),
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
        Ok((Self::Local(InternalFd::new(here)), vec![there]))
    }

    /// The end that somebody sent; there is no telling what it really is.
    pub(super) fn from_descriptors(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let [socket] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no end of a channel"))?;
        Ok(Self::Local(InternalFd::new(socket)))
    }

    /// A channel over a connection.
    pub(super) fn of(line: Line) -> Self {
        Self::Remote(line)
    }

    /// Whether only bytes go through.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// Sends bytes and objects.
    ///
    /// # Errors
    /// [`Error::is_disconnected`] if the other end is gone; others if there is no memory for them.
    pub(super) fn send(&self, bytes: Vec<u8>, carried: &Carried) -> Result<()> {
        match self {
            Self::Local(socket) => send(socket, bytes, carried).map_err(broken),
            Self::Remote(_) if !carried.is_empty() => Err(not_carried()),
            Self::Remote(line) => line.send_bytes(&bytes).map_err(ended),
        }
    }

    /// Waits for what the other end sends.
    ///
    /// # Errors
    /// [`Error::is_disconnected`] if it is gone.
    pub(super) fn recv(&self) -> Result<Packet> {
        match self {
            Self::Local(socket) => recv(socket).map_err(broken)?.ok_or_else(disconnected),
            Self::Remote(line) => {
                let bytes = line.recv_bytes(LARGEST).map_err(ended)?;
                Ok(Packet { bytes, received: Received::default() })
            }
        }
    }

    /// Whether the other end is gone, seen from a side whose turn it is: the other has nothing to
    /// say until it is answered.
    pub(super) fn is_peer_gone(&self) -> bool {
        match self {
            Self::Local(socket) => socket::is_readable(socket).unwrap_or(true),
            Self::Remote(line) => line.poll(Duration::ZERO).unwrap_or(true),
        }
    }
}

/// The largest message over a connection, in bytes; its own limit may be lower.
const LARGEST: usize = usize::MAX;

fn send(socket: &InternalFd, bytes: Vec<u8>, carried: &Carried) -> io::Result<()> {
    let mut bodies = Vec::new();
    let body = Body::pack(bytes, &mut bodies)?;
    let envelope = Envelope { body, objects: handles::numbers(carried) };
    let fds: Vec<BorrowedFd<'_>> =
        bodies.iter().map(AsFd::as_fd).chain(handles::descriptors(carried)).collect();
    control::send(socket, &envelope, &fds, true)
}

fn recv(socket: &InternalFd) -> io::Result<Option<Packet>> {
    let message = match control::recv::<Envelope>(socket, Deadline::NEVER)? {
        Incoming::Message(message) => message,
        Incoming::Closed | Incoming::Nothing => return Ok(None),
    };
    let Envelope { body, objects } = message.body;
    let mut fds = message.fds.into_iter();
    let bytes = body.unpack(&mut fds)?;
    Ok(Some(Packet { bytes, received: handles::receive(&objects, fds).collect() }))
}

/// The error for a socket that failed.
pub(super) fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => disconnected(),
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => {
            Error::memory("there is no memory for a message to or from the manager", error)
        }
        _ => Error::os("the manager could not be asked", error),
    }
}

/// The error for a connection that failed: however it ended, there is no server any more.
fn ended(error: Error) -> Error {
    if error.is_end_of_file() || error.is_closed() || error.is_disconnected() {
        return disconnected().with_source(error);
    }
    error
}
