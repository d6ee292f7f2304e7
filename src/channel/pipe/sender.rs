use super::end::{End, What};
use crate::channel::{item, line};
use crate::sys::clock::Deadline;
use crate::wire::handles::Carried;
use crate::{Data, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The writing end of a [`Pipe`](super::Pipe) in one direction.
///
/// Clones are the same end, as are handles in other processes; each message of any of them arrives
/// whole.
pub struct PipeSender<T>(Arc<End>, PhantomData<fn(T)>);

impl<T> Clone for PipeSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T> fmt::Debug for PipeSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeSender").finish_non_exhaustive()
    }
}

impl<T: Data> Serialize for PipeSender<T> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Data> Deserialize<'de> for PipeSender<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let end = End::deserialize(from, Some(line::shape::<T>()), None)?;
        Ok(Self::of(end))
    }
}

impl<T: Data> PipeSender<T> {
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
    pub fn send(&self, message: impl Borrow<T>) -> Result<()> {
        item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, Deadline::NEVER).map(drop)
        })
    }

    /// As [`send`](Self::send), without waiting: false if the pipe is full.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn try_send(&self, message: impl Borrow<T>) -> Result<bool> {
        item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, line::now())
        })
    }

    /// As [`send`](Self::send), waiting so long at most: zero is a try, centuries are for ever.
    ///
    /// # Errors
    /// As [`send`](Self::send), and [`is_timeout`](crate::Error::is_timeout) if the pipe was full all
    /// the time.
    pub fn send_timeout(&self, message: impl Borrow<T>, timeout: Duration) -> Result<()> {
        let sent = item::encoded(message.borrow(), |parts, carried| {
            self.0.send(parts, What::Value, &carried, Deadline::after(timeout))
        })?;
        if sent { Ok(()) } else { Err(line::timeout("room in the pipe", timeout)) }
    }

    /// Sends bytes as they are: a message for [`recv_bytes`](PipeReceiver::recv_bytes).
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
}
