//! A ring of items as a queue: encoding and decoding, outside of the ring's locks.

use super::item;
use super::line::{self, Line, NO_GET, NO_PUT, QueueStats, Shutdown};
use crate::shm::memory::Kind;
use crate::shm::object::Object;
use crate::shm::ring::{Got, Put, Receiving, Ring, Room, SPARE};
use crate::sys::clock::Deadline;
use crate::wire::handles::Received;
use crate::{Data, Result};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The word of the ring's memory that tells queues of different items apart.
const SHAPE: usize = SPARE;
/// The words from here on belong to the type of queue.
pub(super) const OWN: usize = SPARE + 64;

/// A queue made of a ring.
pub(super) struct Ringed<T> {
    ring: Ring,
    types: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Ringed<T> {
    fn clone(&self) -> Self {
        Self { ring: self.ring.clone(), types: PhantomData }
    }
}

impl<T: Data> Ringed<T> {
    /// Makes an empty queue.
    pub(super) fn create(kind: Kind, room: Room) -> io::Result<Self> {
        let ring = Ring::create(kind, room)?;
        // Relaxed: nobody else has it yet.
        ring.memory().word(SHAPE).store(line::shape::<T>(), Ordering::Relaxed);
        Ok(Self { ring, types: PhantomData })
    }

    /// The queue in an object that was received.
    pub(super) fn open(object: Arc<Object>, kind: Kind) -> io::Result<Self> {
        let ring = Ring::open(object, kind)?;
        // Relaxed: written before it was sent.
        if ring.memory().word(SHAPE).load(Ordering::Relaxed) != line::shape::<T>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a queue of other items"));
        }
        Ok(Self { ring, types: PhantomData })
    }

    /// The object.
    pub(super) fn object(&self) -> &Arc<Object> {
        self.ring.object()
    }

    /// The ring.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Takes an item; `receiving` is told of it while nobody else can take one.
    #[inline]
    pub(super) fn get_with(
        &self,
        receiving: &mut impl Receiving<Mail = Received>,
        deadline: Deadline,
    ) -> Result<Option<T>> {
        let got = self.ring.get(receiving, deadline);
        match got.map_err(|error| line::trouble("no item was taken", error))? {
            Got::Item(taken) => {
                item::decode(taken.bytes.as_slice(), taken.mail.unwrap_or_default()).map(Some)
            }
            Got::Empty => Ok(None),
            Got::Closed | Got::Over => Err(line::closed(NO_GET)),
        }
    }
}

/// No objects beside the items.
struct Plain;

impl Receiving for Plain {
    type Mail = Received;

    fn mail(&mut self, _: u64) -> Option<Received> {
        None
    }
}

impl<T: Data> Line<T> for Ringed<T> {
    #[inline]
    fn put_until(&self, item: &T, deadline: Deadline) -> Result<bool> {
        item::encoded(item, |bytes, _carried| {
            let put = self.ring.put(bytes, None, deadline);
            match put.map_err(|error| line::trouble("the item was not put", error))? {
                Put::Done { .. } => Ok(true),
                Put::Full => Ok(false),
                Put::Closed | Put::Over => Err(line::closed(NO_PUT)),
            }
        })
    }

    #[inline]
    fn get_until(&self, deadline: Deadline) -> Result<Option<T>> {
        self.get_with(&mut Plain, deadline)
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
        match how {
            Shutdown::Draining => self.ring.close(),
            Shutdown::Immediate => self.ring.close_now(),
        };
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
