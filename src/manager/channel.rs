//! The way between one thread of a client and the server's thread for it: requests and replies,
//! with the objects that they name.

use super::link::disconnected;
use super::remote::{Line, not_carried};
use crate::channel::RawEnd;
use crate::entry::Burden;
use crate::shm::bytes::Bytes;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::fd::InternalMark;
use crate::wire::handles::{Carried, Received};
use crate::{Error, Result};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// One end of a channel.
#[derive(Debug)]
pub(super) enum Channel {
    /// On this machine: a pipe in shared memory, with descriptors.
    Local(Local),
    /// Over a connection, which carries bytes only.
    Remote(Line),
}

/// One end of a pipe. A forked child loses it: to the other end this process is gone when it is.
#[derive(Debug)]
pub(super) struct Local {
    // Dropped first: see `InternalMark`.
    _mark: Option<InternalMark>,
    end: RawEnd,
    /// If the server itself is the client.
    burden: Option<Arc<Burden>>,
}

/// What came through a channel.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    pub(super) received: Received,
}

impl Channel {
    /// A new channel: one end, and what makes the other.
    pub(super) fn pair() -> io::Result<(Self, Vec<Arc<Object>>)> {
        let (here, there) = RawEnd::pair()?;
        Ok((Self::local(here), there.objects()))
    }

    fn local(end: RawEnd) -> Self {
        Self::Local(Local { _mark: end.socket().map(InternalMark::new), end, burden: None })
    }

    /// The end of a channel of which this process has both, which know what the client has while it
    /// waits.
    pub(super) fn with_burden(self, burden: Arc<Burden>) -> Self {
        match self {
            Self::Local(local) => Self::Local(Local { burden: Some(burden), ..local }),
            remote => remote,
        }
    }

    /// What the client has while it waits, if it is a thread of the server.
    #[inline]
    pub(super) fn burden(&self) -> Option<&Burden> {
        match self {
            Self::Local(local) => local.burden.as_deref(),
            Self::Remote(_) => None,
        }
    }

    /// The end that somebody sent; what it really is, is checked.
    pub(super) fn from_objects(objects: Vec<Arc<Object>>) -> io::Result<Self> {
        let objects = <[Arc<Object>; 3]>::try_from(objects)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no end of a channel"))?;
        RawEnd::open(objects).map(Self::local)
    }

    /// As [`from_objects`](Self::from_objects), of objects that just came.
    pub(super) fn from_descriptors(fds: Vec<OwnedFd>) -> io::Result<Self> {
        Self::from_objects(fds.into_iter().map(|fd| Arc::new(Object::received(fd))).collect())
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
    #[inline]
    pub(super) fn send(&self, bytes: &[u8], carried: &Carried) -> Result<()> {
        match self {
            Self::Local(local) => local.end.send(bytes, carried).map_err(ended),
            Self::Remote(_) if !carried.is_empty() => Err(not_carried()),
            Self::Remote(line) => line.send_bytes(bytes).map_err(ended),
        }
    }

    /// Waits for what the other end sends.
    ///
    /// # Errors
    /// [`Error::is_disconnected`] if it is gone.
    #[inline]
    pub(super) fn recv(&self) -> Result<Packet> {
        match self {
            Self::Local(local) => {
                let (bytes, received) = local.end.recv().map_err(ended)?;
                Ok(Packet { bytes: bytes.into_vec(), received })
            }
            Self::Remote(line) => {
                let bytes = line.recv_bytes(usize::MAX).map_err(ended)?;
                Ok(Packet { bytes, received: Received::default() })
            }
        }
    }

    /// As [`recv`](Self::recv), but `None` if nothing came until the deadline.
    #[inline]
    pub(super) fn recv_until(&self, deadline: Deadline) -> Result<Option<Packet>> {
        match self {
            Self::Local(local) => {
                let message = local.end.recv_until(deadline).map_err(ended)?;
                let packet =
                    |(bytes, received): (Bytes, _)| Packet { bytes: bytes.into_vec(), received };
                Ok(message.map(packet))
            }
            Self::Remote(line) => {
                let left = deadline.remaining().unwrap_or(Duration::MAX);
                match line.recv_bytes_timeout(usize::MAX, left) {
                    Ok(bytes) => Ok(Some(Packet { bytes, received: Received::default() })),
                    Err(error) if error.is_timeout() => Ok(None),
                    Err(error) => Err(ended(error)),
                }
            }
        }
    }

    /// Sees to it that [what is watched](Self::watched) is readable once the other end has sent
    /// something or is gone; false if it has already.
    pub(super) fn arm(&self) -> bool {
        match self {
            Self::Local(local) => local.end.arm(),
            Self::Remote(_) => true,
        }
    }

    /// What becomes readable when the other end sends something, or goes, after [`arm`](Self::arm).
    pub(super) fn watched(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Local(local) => local.end.socket(),
            Self::Remote(line) => Some(line.as_fd()),
        }
    }

    /// Whether the other end has sent something, or is gone.
    pub(super) fn is_readable(&self) -> bool {
        match self {
            Self::Local(local) => local.end.is_readable(),
            Self::Remote(line) => line.poll(Duration::ZERO).unwrap_or(true),
        }
    }

    /// Whether the other end is gone, seen from a side whose turn it is: the other has nothing to
    /// say until it is answered.
    pub(super) fn is_peer_gone(&self) -> bool {
        match self {
            Self::Local(local) => local.end.is_alone(),
            Self::Remote(line) => line.poll(Duration::ZERO).unwrap_or(true),
        }
    }
}

/// The error for a socket at the door that failed.
pub(super) fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => disconnected(),
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => {
            Error::memory("there is no memory for a channel to the manager", error)
        }
        _ => Error::os("the manager could not be asked", error),
    }
}

/// The error for a channel that failed: however it ended, there is no server any more.
fn ended(error: Error) -> Error {
    if error.is_end_of_file() || error.is_closed() || error.is_disconnected() {
        return disconnected();
    }
    error
}
