//! A ring of items as a queue, with a socket beside it for the objects that items name: encoding
//! and decoding, outside of the ring's locks.

use super::item::{self, Arrived, Copied};
use super::line::{self, Line, NO_GET, NO_PUT, QueueStats, Shutdown};
use crate::shm::bytes::CopyOut;
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::shm::ring::{Got, Next, Put, Receiving, Ring, Room};
use crate::sys::clock::Deadline;
use crate::wire::handles::{Carried, Received};
use crate::wire::post::{Outgoing, Post};
use crate::wire::travel::Handle;
use crate::{Data, Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// A queue made of a ring.
pub(super) struct Ringed<T> {
    ring: Ring,
    post: Post,
    types: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Ringed<T> {
    fn clone(&self) -> Self {
        Self { ring: self.ring.clone(), post: self.post.clone(), types: PhantomData }
    }
}

impl<T: Data> Ringed<T> {
    /// Makes an empty queue for so many items, or for as many as there is memory for.
    pub(super) fn create(kind: Kind, capacity: Option<u64>) -> io::Result<Self> {
        let room = capacity.map_or(Room::Unlimited, Room::Items);
        let ring = Ring::create(kind, line::shape::<T>(), room)?;
        Ok(Self { ring, post: Post::to_self()?, types: PhantomData })
    }

    /// The queue in objects that were received.
    fn open(kind: Kind, ring: Arc<Object>, post: Arc<Object>) -> io::Result<Self> {
        let ring = Ring::open(ring, kind, line::shape::<T>())?;
        Ok(Self { ring, post: Post::open(post), types: PhantomData })
    }

    /// Encodes a handle of the queue.
    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let handles = [self.ring.object(), self.post.object()].map(|object| Handle(object.clone()));
        handles.serialize(serializer)
    }

    /// Decodes a handle of a queue of this kind.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        kind: Kind,
        deserializer: D,
    ) -> Result<Self, D::Error> {
        let [ring, post] = <[Handle; 2]>::deserialize(deserializer)?;
        Self::open(kind, ring.0, post.0).map_err(|_| {
            crate::wire::handles::refuse_decoding(
                "what came is no such queue, or one of other items",
            )
        })
    }

    /// What it is made of, for those who wait on descriptors.
    pub(super) fn parts(&self) -> Result<(&Ring, &Post)> {
        Ok((&self.ring, &self.post))
    }

    /// The ring.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Takes an item; `note` is told which while nobody else can take one, and before it is taken.
    /// If it was not, `note` is told another one, or nothing is returned.
    #[inline]
    pub(super) fn get_noting(
        &self,
        note: impl FnMut(Next) -> io::Result<()>,
        deadline: Deadline,
    ) -> Result<Option<T>> {
        let mut taking = Taking { post: &self.post, note, item: None, mail: None };
        let got = self.ring.get(&mut taking, deadline);
        match got.map_err(|error| Error::memory("no item was taken", error))? {
            // It is there: the ring has had it copied.
            Got::Item => taking.item.map(|item| item.decoded(taking.mail)).transpose(),
            Got::Empty => Ok(None),
            Got::Closed | Got::Over => Err(line::closed(NO_GET)),
        }
    }

    /// Puts an item that has been encoded.
    #[inline]
    fn put_encoded(
        &self,
        bytes: [&[u8]; 2],
        carried: &Carried,
        deadline: Deadline,
    ) -> Result<bool> {
        let put = self.ring.put(bytes, &mut Outgoing(&self.post, carried), deadline);
        match put.map_err(|error| Error::memory("the item was not put", error))? {
            Put::Done { rings } => {
                if rings {
                    self.post.ring();
                }
                Ok(true)
            }
            Put::Full => Ok(false),
            Put::TooLarge => Err(line::too_large("the item was not put", bytes)),
            Put::Closed | Put::Over => Err(line::closed(NO_PUT)),
        }
    }
}

/// What is done with an item while nobody else can take one.
struct Taking<'a, T, N> {
    post: &'a Post,
    note: N,
    item: Option<Arrived<T>>,
    mail: Option<Received>,
}

impl<T: Data, N: FnMut(Next) -> io::Result<()>> Receiving for Taking<'_, T, N> {
    #[inline]
    fn copy(&mut self, bytes: &impl CopyOut) -> io::Result<()> {
        self.item = Some(Arrived::copied(bytes)?);
        Ok(())
    }

    fn mail(&mut self, number: u64) -> io::Result<bool> {
        self.mail = self.post.receive(number)?;
        Ok(self.mail.is_some())
    }

    #[inline]
    fn taking(&mut self, item: Next) -> io::Result<()> {
        (self.note)(item)
    }
}

impl<T: Data> Line<T> for Ringed<T> {
    #[inline]
    fn put_until(&self, item: &T, deadline: Deadline) -> Result<bool> {
        item::encoded(item, |bytes, carried| self.put_encoded(bytes, &carried, deadline))
    }

    #[inline]
    fn get_until(&self, deadline: Deadline) -> Result<Option<T>> {
        self.get_noting(|_| Ok(()), deadline)
    }

    fn len(&self) -> u64 {
        // What nobody can take any more is in no queue.
        if self.ring.is_over() { 0 } else { self.ring.len() }
    }

    fn capacity(&self) -> Option<u64> {
        match self.ring.room() {
            Room::Items(capacity) => Some(capacity),
            Room::Bytes | Room::Unlimited => None,
        }
    }

    fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }

    fn shut(&self, how: Shutdown) {
        let rings = match how {
            Shutdown::Draining => self.ring.close(),
            Shutdown::Immediate => self.ring.close_now(),
        };
        if rings {
            self.post.ring();
        }
    }

    fn stats(&self) -> QueueStats {
        let (counts, there) = (self.ring.counts(), self.ring.len());
        let (len, lost) = if self.ring.is_over() { (0, there) } else { (there, 0) };
        QueueStats {
            put: counts.put,
            taken: counts.taken,
            lost: counts.lost.saturating_add(lost),
            len,
            deaths: counts.deaths,
        }
    }
}
