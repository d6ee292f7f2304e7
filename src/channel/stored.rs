//! A store of items as a queue, with lockers for the objects that items name: encoding, comparing
//! and waiting, all outside of the store's lock.

use super::item;
use super::line::{self, Line, NO_GET, NO_PUT, QueueStats, Shutdown};
use crate::shm::memory::Kind;
use crate::shm::nap::Nap;
use crate::shm::object::Object;
use crate::shm::store::{self, New, Outcome, Rule, Side, State, Store};
use crate::sys::clock::Deadline;
use crate::wire::handles::{Carried, Received, refuse_decoding};
use crate::wire::lockers::Lockers;
use crate::wire::travel::Handle;
use crate::{Data, Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// Which item comes first.
pub(super) trait Discipline<T>: 'static {
    /// What the shared memory is for.
    const KIND: Kind;
    /// How a new item compares to others; `None` if it simply goes before all of them.
    const COMPARE: Option<fn(&T, &T) -> Ordering>;
}

/// How often to look before sleeping, each time after twice as many pauses: about what a sleep and
/// a wake-up cost.
const LOOKS: u32 = 7;

/// How many comparisons a put may make when its time is over: enough for any queue that others do
/// not change all the time, or write over.
const LAST_COMPARISONS: usize = 4096;

/// A queue made of a store.
pub(super) struct Stored<T, D> {
    store: Store,
    lockers: Lockers,
    types: PhantomData<fn(T, D) -> T>,
}

impl<T, D> Clone for Stored<T, D> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), lockers: self.lockers.clone(), types: PhantomData }
    }
}

impl<T: Data, D: Discipline<T>> Stored<T, D> {
    /// Makes an empty queue for so many items, or for as many as there is memory for.
    pub(super) fn create(capacity: Option<u64>) -> io::Result<Self> {
        let store = Store::create(D::KIND, line::shape::<T>(), capacity)?;
        Ok(Self { store, lockers: Lockers::create()?, types: PhantomData })
    }

    /// The queue in objects that were received.
    fn open(store: Arc<Object>, lockers: Arc<Object>) -> io::Result<Self> {
        let store = Store::open(store, D::KIND, line::shape::<T>())?;
        Ok(Self { store, lockers: Lockers::open(lockers), types: PhantomData })
    }

    /// Encodes a handle of the queue.
    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let objects = [self.store.object(), self.lockers.object()];
        objects.map(|object| Handle(object.clone())).serialize(serializer)
    }

    /// Decodes a handle of a queue of this kind.
    pub(super) fn deserialize<'de, F: Deserializer<'de>>(from: F) -> Result<Self, F::Error> {
        let [store, lockers] = <[Handle; 2]>::deserialize(from)?;
        Self::open(store.0, lockers.0)
            .map_err(|_| refuse_decoding("what came is no such queue, or one of other items"))
    }

    /// Waits for what `side` waits for, unless the wait is over; whether to try again.
    fn wait<R>(
        &self,
        outcome: &Outcome<R, Received>,
        side: Side,
        nap: &mut Nap,
        over: bool,
    ) -> bool {
        if over {
            return false;
        }
        if let Outcome::Wait(Some(armed)) = outcome {
            self.store.sleep(side, *armed, nap.next());
        }
        true
    }

    /// Looks for a moment whether what is waited for happens.
    fn look(&self, is_there: impl Fn() -> bool) {
        for look in 0..LOOKS {
            if is_there() || self.store.state() != State::Open {
                break;
            }
            for _ in 0..1 << look {
                std::hint::spin_loop();
            }
        }
    }

    /// Puts an item that has been encoded.
    fn put_encoded(
        &self,
        item: &T,
        bytes: [&[u8]; 2],
        carried: &Carried,
        deadline: Deadline,
    ) -> Result<bool> {
        let beside = (!carried.is_empty()).then_some(carried);
        // The answers of this item to the others, by their numbers.
        let mut known = HashMap::new();
        if !deadline.passed() {
            self.look(|| !self.is_full());
        }
        let mut nap = Nap::new(deadline);
        loop {
            let over = nap.is_over();
            let answers = |number: u64| known.get(&number).copied();
            let rule = match D::COMPARE {
                Some(_) => Rule::Sorted(&answers),
                None => Rule::Front,
            };
            let new = New { bytes, beside, rule };
            let outcome = self.store.put(&new, &self.lockers, !over, deadline);
            match outcome.map_err(|error| Error::memory("the item was not put", error))? {
                Outcome::Done(()) => return Ok(true),
                Outcome::Closed => return Err(line::closed(NO_PUT)),
                Outcome::Compare(_) if over && known.len() >= LAST_COMPARISONS => return Ok(false),
                Outcome::Compare(other) => {
                    let number = other.number;
                    let order = D::COMPARE.map(|order| compare(item, other, order));
                    known.insert(number, order.unwrap_or(Ordering::Less));
                }
                outcome if self.wait(&outcome, Side::Putters, &mut nap, over) => {}
                _ => return Ok(false),
            }
        }
    }

    fn is_full(&self) -> bool {
        self.store.capacity().is_some_and(|capacity| self.store.glance() >= capacity)
    }
}

/// How `new` compares to an item of the store. One that cannot be decoded comes before all others,
/// so that somebody takes it soon, and hears of it.
fn compare<T: Data>(
    new: &T,
    other: store::Item<Received>,
    order: fn(&T, &T) -> Ordering,
) -> Ordering {
    match item::decode::<T>(&other.bytes, other.beside.unwrap_or_default()) {
        Ok(other) => order(new, &other),
        Err(_) => Ordering::Greater,
    }
}

impl<T: Data, D: Discipline<T>> Line<T> for Stored<T, D> {
    fn put_until(&self, new: &T, deadline: Deadline) -> Result<bool> {
        item::encoded(new, |bytes, carried| self.put_encoded(new, bytes, &carried, deadline))
    }

    fn get_until(&self, deadline: Deadline) -> Result<Option<T>> {
        if !deadline.passed() {
            self.look(|| self.store.glance() > 0);
        }
        let mut nap = Nap::new(deadline);
        loop {
            let over = nap.is_over();
            let outcome = self.store.take(&self.lockers, !over, deadline);
            match outcome.map_err(|error| Error::memory("no item was taken", error))? {
                Outcome::Done(item) => {
                    return item::decode(&item.bytes, item.beside.unwrap_or_default()).map(Some);
                }
                Outcome::Closed => return Err(line::closed(NO_GET)),
                outcome if self.wait(&outcome, Side::Getters, &mut nap, over) => {}
                _ => return Ok(None),
            }
        }
    }

    fn len(&self) -> u64 {
        self.store.len()
    }

    fn capacity(&self) -> Option<u64> {
        self.store.capacity()
    }

    fn is_closed(&self) -> bool {
        self.store.state() != State::Open
    }

    fn shut(&self, how: Shutdown) {
        // If the memory is damaged there is nothing to be ended.
        let state = match how {
            Shutdown::Draining => State::Draining,
            Shutdown::Immediate => State::Over,
        };
        let _ = self.store.shut(state, &self.lockers);
    }

    fn stats(&self) -> QueueStats {
        let counts = self.store.counts();
        QueueStats {
            put: counts.put,
            taken: counts.taken,
            lost: counts.lost,
            len: counts.len,
            deaths: counts.deaths,
        }
    }
}
