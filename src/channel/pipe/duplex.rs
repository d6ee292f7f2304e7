use super::end::{End, What};
use super::receiver::Messages;
use crate::channel::item::{self, Arrived};
use crate::channel::line;
use crate::shm::bytes::Bytes;
use crate::shm::ring::Ring;
use crate::sys::clock::Deadline;
use crate::wire::handles::Carried;
use crate::wire::post::Post;
use crate::{Data, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// An end of a [`Pipe`](super::Pipe) in both directions: it sends `S` and receives `R`.
///
/// Clones are the same end, as are handles in other processes. Each message of any of them arrives
/// whole; one that comes goes to one of them.
pub struct PipeEnd<S, R = S>(Arc<End>, PhantomData<fn(S) -> R>);

impl<S, R> Clone for PipeEnd<S, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<S, R> fmt::Debug for PipeEnd<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeEnd").finish_non_exhaustive()
    }
}

impl<S: Data, R: Data> Serialize for PipeEnd<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, S: Data, R: Data> Deserialize<'de> for PipeEnd<S, R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let end = End::deserialize(from, Some(line::shape::<S>()), Some(line::shape::<R>()))?;
        Ok(Self::of(end))
    }
}

impl<S: Data, R: Data> PipeEnd<S, R> {
    pub(super) fn of(end: Arc<End>) -> Self {
        Self(end, PhantomData)
    }

    /// Sends a message, and waits while the pipe is full.
    ///
    /// # Errors
    /// [`is_closed`](crate::Error::is_closed) if nobody can receive it any more. That is told at once
    /// when the other side has dropped its ends; when it was killed right after it had received
    /// something, one more message may be sent in vain.
    /// [`is_encode`](crate::Error::is_encode) if it cannot be encoded,
    /// [`is_too_large`](crate::Error::is_too_large) if it has more than 8 GiB,
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it.
    #[inline]
    pub fn send(&self, message: impl Borrow<S>) -> Result<()> {
        item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, Deadline::NEVER).map(drop)
        })
    }

    /// As [`send`](Self::send), without waiting: false if the pipe is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn try_send(&self, message: impl Borrow<S>) -> Result<bool> {
        item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, line::now())
        })
    }

    /// As [`send`](Self::send), waiting so long at most: zero is a try, centuries are for ever.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`is_timeout`](crate::Error::is_timeout) if the pipe was full all
    /// the time.
    pub fn send_timeout(&self, message: impl Borrow<S>, timeout: Duration) -> Result<()> {
        let sent = item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, Deadline::after(timeout))
        })?;
        if sent { Ok(()) } else { Err(line::timeout("room in the pipe", timeout)) }
    }

    /// Sends bytes as they are: a message for [`recv_bytes`](Self::recv_bytes).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_bytes(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let parts = [bytes.as_ref(), &[]];
        self.0.send(parts, What::Raw, &Carried::new(), Deadline::NEVER).map(drop)
    }

    /// Whether nobody can receive any more what is sent here.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_alone()
    }

    /// Receives a message, and waits for it.
    ///
    /// # Errors
    /// [`is_end_of_file`](crate::Error::is_end_of_file) if nobody can send any more, and everything was
    /// received. [`is_decode`](crate::Error::is_decode) if the message cannot be decoded; one that is
    /// raw bytes is left there for [`recv_bytes`](Self::recv_bytes).
    #[inline]
    pub fn recv(&self) -> Result<R> {
        loop {
            if let Some(message) = self.recv_until(Deadline::NEVER)? {
                return Ok(message);
            }
        }
    }

    /// As [`recv`](Self::recv), without waiting: `None` if there is no message now.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<R>> {
        self.recv_until(line::now())
    }

    /// As [`recv`](Self::recv), waiting so long at most: zero is a try, centuries are for ever.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`is_timeout`](crate::Error::is_timeout) if nothing came.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R> {
        let message = self.recv_until(Deadline::after(timeout))?;
        message.ok_or_else(|| line::timeout("message", timeout))
    }

    #[inline]
    fn recv_until(&self, deadline: Deadline) -> Result<Option<R>> {
        let message = self.0.recv::<Arrived<R>>(What::Value, usize::MAX, deadline)?;
        message.map(|(message, received)| message.decoded(received)).transpose()
    }

    /// Receives a message that was sent by `send_bytes`, of `max` bytes at most.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`is_too_large`](crate::Error::is_too_large) if the message has more
    /// than `max` bytes, [`is_decode`](crate::Error::is_decode) if it is a value: both leave it there,
    /// to be received otherwise.
    pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>> {
        loop {
            if let Some((bytes, _)) = self.0.recv::<Bytes>(What::Raw, max, Deadline::NEVER)? {
                return Ok(bytes.into_vec());
            }
        }
    }

    /// As [`recv_bytes`](Self::recv_bytes), into a buffer, whose length is the maximum; returns how
    /// many bytes came.
    ///
    /// # Errors
    /// As [`recv_bytes`](Self::recv_bytes).
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            if let Some((bytes, _)) =
                self.0.recv::<Bytes>(What::Raw, buffer.len(), Deadline::NEVER)?
            {
                let bytes = bytes.as_slice();
                buffer[..bytes.len()].copy_from_slice(bytes);
                return Ok(bytes.len());
            }
        }
    }

    /// Waits until there is something to be received, be it the end of file, for so long at most;
    /// whether there is.
    ///
    /// # Errors
    /// None today.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        self.0.poll(Deadline::after(timeout))
    }

    /// The number of messages that wait here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no message waits here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages, one after the other, until the end of file.
    pub fn iter(&self) -> Messages<'_, R> {
        Messages::new(move || self.recv())
    }

    /// For those who wait on descriptors.
    pub(in crate::channel) fn parts(&self) -> Result<(&Ring, &Post)> {
        self.0.readable()
    }
}

impl<'a, S: Data, R: Data> IntoIterator for &'a PipeEnd<S, R> {
    type Item = Result<R>;
    type IntoIter = Messages<'a, R>;

    fn into_iter(self) -> Messages<'a, R> {
        self.iter()
    }
}
