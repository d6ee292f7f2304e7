//! Frames over a socket: whole messages of bytes and objects, for many threads at once. What is in
//! them is for others to say.

use super::baton::Baton;
use super::frame::{Frame, Header, Kind as FrameKind, Reader, Source, Stand};
use crate::error::Kind;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::socket::wait_readable;
use crate::sys::stream::{self, Came, Family};
use crate::{Error, Execution, Result};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) body: &'a [u8],
    /// The objects that go along: their numbers here, and in the same order their descriptors.
    pub(crate) numbers: Vec<u64>,
    pub(crate) fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Outgoing<'a> {
    /// A message without objects.
    pub(crate) fn plain(kind: FrameKind, body: &'a [u8]) -> Self {
        Self { kind, body, numbers: Vec::new(), fds: Vec::new() }
    }
}

/// A socket that messages go through in both directions.
#[derive(Debug)]
pub(crate) struct Framed {
    /// As an object, so that it can travel.
    object: Arc<Object>,
    family: Family,
    largest: u64,
    sending: Baton<Sending>,
    /// Never held while somebody waits.
    receiving: Mutex<Reader>,
}

/// The direction out.
#[derive(Debug, Default)]
struct Sending {
    /// A message was cut off: the peer would take the next one for the rest of it.
    is_cut: bool,
}

impl Source for BorrowedFd<'_> {
    fn first(&mut self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(Came, bool)> {
        stream::recv_with_fds(*self, bytes, fds)
    }

    fn more(&mut self, bytes: &mut Vec<u8>, most: usize) -> io::Result<Came> {
        stream::recv_more(*self, bytes, most)
    }
}

impl Framed {
    /// Messages of at most `largest` bytes over a connected socket, in either direction.
    pub(crate) fn new(object: Arc<Object>, family: Family, largest: u64) -> Self {
        let (sending, receiving) = (Baton::default(), Mutex::default());
        Self { object, family, largest, sending, receiving }
    }

    /// The socket.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The most bytes that a message has.
    pub(crate) fn largest(&self) -> u64 {
        self.largest
    }

    /// Whether no message has come in part.
    pub(crate) fn is_between(&self) -> bool {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner).is_between()
    }

    /// Sends one message, whole: other threads' messages come before it or after it.
    ///
    /// # Errors
    /// Timeout: `NotStarted` if nothing was sent. If a part was, no further message can be sent.
    /// Closed if the peer is gone, disconnected if it went in the middle of this message. OS error
    /// if the kernel refuses the descriptors; then nothing was sent.
    pub(crate) fn send(&self, message: &Outgoing<'_>, deadline: Deadline) -> Result<()> {
        if message.body.len() as u64 > self.largest {
            return Err(too_large(message.body.len() as u64, self.largest));
        }
        let Some(mut sending) = self.sending.take(deadline) else {
            let what = "other threads were sending until the timeout passed; nothing was sent";
            return Err(Error::new(Kind::Timeout(Execution::NotStarted), what));
        };
        if sending.is_cut {
            let what = "a message to this peer was cut off before: no other can be sent";
            return Err(Error::new(Kind::Disconnected, what));
        }
        // Counted where it is encoded: there are never as many.
        let count = u16::try_from(message.numbers.len()).unwrap_or(u16::MAX);
        let head = Header { kind: message.kind, count, len: message.body.len() as u64 }.encode();
        let tail: Vec<u8> = message.numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let mut parts = [&head[..], message.body, &tail].map(IoSlice::new);
        let mut sent = 0;
        let result = self.send_parts(&mut parts, &message.fds, deadline, &mut sent);
        if result.is_err() && sent > 0 {
            sending.is_cut = true;
            // The peer is to know that the rest will not come.
            stream::end(self, true);
        }
        result.map_err(|failure| failure.describe(sent))
    }

    fn send_parts(
        &self,
        mut parts: &mut [IoSlice<'_>],
        mut fds: &[BorrowedFd<'_>],
        deadline: Deadline,
        sent: &mut usize,
    ) -> std::result::Result<(), NotSent> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match stream::send_some(self, parts, fds).map_err(NotSent::Failed)? {
                Some(count) => {
                    *sent += count;
                    IoSlice::advance_slices(&mut parts, count);
                    // They have gone with the first byte.
                    fds = &[];
                }
                None => {
                    if !stream::wait_writable(self, deadline).map_err(NotSent::Failed)? {
                        return Err(NotSent::Late);
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives one message of at most `limit` bytes; `None` if the deadline passed. What has come
    /// until then stays for the next call.
    ///
    /// # Errors
    /// End of file, if the peer has ended between two messages; disconnected, if in the middle of
    /// one, or if it sent what is no message. Too large, or out of memory: that message is skipped.
    pub(crate) fn recv(&self, limit: u64, deadline: Deadline) -> Result<Option<Frame>> {
        let limit = limit.min(self.largest);
        loop {
            let stand = {
                let mut reader = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
                reader.advance(&mut self.as_fd(), limit)
            };
            match stand {
                Ok(Stand::Whole(frame)) => return Ok(Some(frame)),
                Ok(Stand::TooLarge(len)) => return Err(too_large(len, limit)),
                Ok(Stand::NoMemory(len)) => {
                    let what = format!("there is no memory for a message of {len} bytes");
                    return Err(Error::new(Kind::OutOfMemory, what));
                }
                Ok(Stand::Ended) => {
                    let what = "the peer has closed the connection, or is dead";
                    return Err(Error::new(Kind::EndOfFile, what));
                }
                Ok(Stand::Torn) => {
                    let what = "the peer has gone in the middle of a message";
                    return Err(Error::new(Kind::Disconnected, what));
                }
                Ok(Stand::Garbled) => {
                    stream::end(self, false);
                    let what = "the peer sent what is no message: the connection is given up";
                    return Err(Error::new(Kind::Disconnected, what));
                }
                Ok(Stand::Waiting) => {
                    if deadline.passed() || !self.wait_readable(deadline)? {
                        return Ok(None);
                    }
                }
                Ok(Stand::Busy) if deadline.passed() => return Ok(None),
                Ok(Stand::Busy) => {}
                Err(error) => self.judge(error)?,
            }
        }
    }

    /// Waits until something is there to be read, be it a part of a message, or the end.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> Result<bool> {
        wait_readable(self, deadline)
            .map_err(|error| Error::os("the connection could not be waited for", error))
    }

    /// What an error of a receive means.
    fn judge(&self, error: io::Error) -> Result<()> {
        // The peer did not read everything. That of Unix sockets loses nothing of what it sent.
        if self.family == Family::Unix && error.kind() == io::ErrorKind::ConnectionReset {
            return Ok(());
        }
        let what = "the connection broke; messages may be lost";
        Err(Error::new(Kind::Disconnected, what).with_source(error))
    }
}

impl AsFd for Framed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.object.fd()
    }
}

/// Why a message was not sent, or not wholly.
#[derive(Debug)]
enum NotSent {
    Late,
    Failed(io::Error),
}

impl NotSent {
    fn describe(self, sent: usize) -> Error {
        match self {
            Self::Late if sent == 0 => {
                let what = "the peer took nothing until the timeout passed; nothing was sent";
                Error::new(Kind::Timeout(Execution::NotStarted), what)
            }
            Self::Late => {
                let what = "the timeout passed in the middle of the message: no other can be sent";
                Error::new(Kind::Timeout(Execution::Unknown), what)
            }
            Self::Failed(error) if sent > 0 => {
                let what = "the connection broke in the middle of the message";
                Error::new(Kind::Disconnected, what).with_source(error)
            }
            Self::Failed(error) => match error.kind() {
                // A reset is the end of a peer that had not read everything.
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    Error::new(Kind::Closed, "the peer has closed the connection, or is dead")
                }
                _ => Error::os("the message could not be sent", error),
            },
        }
    }
}

fn too_large(len: u64, limit: u64) -> Error {
    Error::new(Kind::TooLarge, format!("a message of {len} bytes (at most {limit} are allowed)"))
}
