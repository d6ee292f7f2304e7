use super::end::{End, What};
use crate::channel::item::Arrived;
use crate::channel::line;
use crate::shm::bytes::Bytes;
use crate::shm::ring::Ring;
use crate::sys::clock::Deadline;
use crate::wire::post::Post;
use crate::{Data, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The reading end of a [`Pipe`](super::Pipe) in one direction.
///
/// Clones are the same end, as are handles in other processes: each message goes to one of them.
pub struct PipeReceiver<T>(Arc<End>, PhantomData<fn() -> T>);

impl<T> Clone for PipeReceiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T> fmt::Debug for PipeReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReceiver").finish_non_exhaustive()
    }
}

impl<T: Data> Serialize for PipeReceiver<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Data> Deserialize<'de> for PipeReceiver<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let end = End::deserialize(from, None, Some(line::shape::<T>()))?;
        Ok(Self::of(end))
    }
}

impl<T: Data> PipeReceiver<T> {
    pub(super) fn of(end: Arc<End>) -> Self {
        Self(end, PhantomData)
    }

    /// Receives a message, and waits for it.
    ///
    /// # Errors
    /// [`is_end_of_file`](crate::Error::is_end_of_file) if nobody can send any more, and everything was
    /// received. [`is_decode`](crate::Error::is_decode) if the message cannot be decoded; one that is
    /// raw bytes is left there for [`recv_bytes`](Self::recv_bytes).
    #[inline]
    pub fn recv(&self) -> Result<T> {
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
    pub fn try_recv(&self) -> Result<Option<T>> {
        self.recv_until(line::now())
    }

    /// As [`recv`](Self::recv), waiting so long at most: zero is a try, centuries are for ever.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`is_timeout`](crate::Error::is_timeout) if nothing came.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T> {
        let message = self.recv_until(Deadline::after(timeout))?;
        message.ok_or_else(|| line::timeout("message", timeout))
    }

    #[inline]
    fn recv_until(&self, deadline: Deadline) -> Result<Option<T>> {
        let message = self.0.recv::<Arrived<T>>(What::Value, usize::MAX, deadline)?;
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
    pub fn iter(&self) -> Messages<'_, T> {
        Messages::new(move || self.recv())
    }

    /// For those who wait on descriptors.
    pub(in crate::channel) fn parts(&self) -> Result<(&Ring, &Post)> {
        self.0.readable()
    }
}

impl<'a, T: Data> IntoIterator for &'a PipeReceiver<T> {
    type Item = Result<T>;
    type IntoIter = Messages<'a, T>;

    fn into_iter(self) -> Messages<'a, T> {
        self.iter()
    }
}

/// The messages of a pipe until its end of file; see [`PipeReceiver::iter`].
pub struct Messages<'a, T> {
    recv: Option<Box<dyn FnMut() -> Result<T> + 'a>>,
}

impl<T> fmt::Debug for Messages<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<'a, T> Messages<'a, T> {
    pub(super) fn new(recv: impl FnMut() -> Result<T> + 'a) -> Self {
        Self { recv: Some(Box::new(recv)) }
    }
}

impl<T> Iterator for Messages<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match (self.recv.as_mut()?)() {
            Err(error) if error.is_end_of_file() => {
                self.recv = None;
                None
            }
            message => Some(message),
        }
    }
}
