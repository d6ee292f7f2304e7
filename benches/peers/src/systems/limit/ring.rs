//! A ring in memory which two processes share, and where nobody ever sleeps.

use std::cell::Cell;
use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};

use crate::reaper;
use crate::systems::forked::{Shared, fork, wait};
use crate::systems::queued::{Item, Queues, Shape, Taken, consume, number_of_block, produce};
use crate::workload::BLOCK;

/// Rings for items of so many bytes.
struct Ring<const SIZE: usize> {
    /// Where the [`Positions`] lie, and after them the items.
    memory: Shared,
    /// How many items there is room for.
    room: u64,
}

/// What the two processes tell each other.
#[repr(C)]
struct Positions {
    /// How many items have been put.
    put: Apart<AtomicU64>,
    /// How many items have been taken.
    taken: Apart<AtomicU64>,
    /// How often either party has come to a meeting.
    met: Apart<AtomicU64>,
}

/// In cache lines of its own.
#[repr(C, align(128))]
struct Apart<T>(T);

/// One of the two parties.
struct End<'a, const SIZE: usize> {
    /// The ring.
    ring: &'a Ring<SIZE>,
    /// How many items this party has put or taken.
    own: Cell<u64>,
    /// How many the other one had taken or put when that was last looked at.
    others: Cell<u64>,
    /// How often this party came to a meeting.
    met: Cell<u64>,
}

impl<const SIZE: usize> Ring<SIZE> {
    /// An empty ring.
    fn new(room: usize) -> Result<Ring<SIZE>> {
        let memory = Shared::new(size_of::<Positions>() + room * SIZE)?;
        Ok(Ring { memory, room: room as u64 })
    }

    /// The start of the memory as what it is.
    fn positions(&self) -> &Positions {
        // SAFETY: the mapping is larger than this, aligned to a page, and lives as
        // long as `self`; zeroes are valid atomics, which both processes may use at
        // any time.
        unsafe { &*self.memory.start() }
    }

    /// Where the item with this number lies.
    fn slot(&self, number: u64) -> *mut [u8; SIZE] {
        // Less than `room`, which was a `usize`.
        let index = (number % self.room) as usize;
        // SAFETY: the mapping has `room` items after the positions.
        unsafe { self.memory.start::<u8>().add(size_of::<Positions>() + index * SIZE).cast() }
    }

    /// One of the two parties; only one of each may be used at a time.
    fn end(&self) -> End<'_, SIZE> {
        End { ring: self, own: Cell::new(0), others: Cell::new(0), met: Cell::new(0) }
    }
}

impl<const SIZE: usize> End<'_, SIZE> {
    /// Waits until the other party has come far enough. It is looked at only if it had not
    /// the last time, so that its cache line is not taken away from it at every item.
    fn look(&self, position: &AtomicU64, enough: impl Fn(u64) -> bool) {
        while !enough(self.others.get()) {
            spin_loop();
            self.others.set(position.load(Ordering::Acquire));
        }
    }

    /// Puts an item, as the producer.
    fn put(&self, item: &[u8; SIZE]) {
        let Positions { put, taken, .. } = self.ring.positions();
        let own = self.own.get();
        self.look(&taken.0, |others| own - others < self.ring.room);
        // SAFETY: the slot is free until `put` says otherwise, and this is the only
        // producer.
        unsafe { ptr::copy_nonoverlapping(item, self.ring.slot(own), 1) };
        self.own.set(own + 1);
        put.0.store(own + 1, Ordering::Release);
    }

    /// Takes an item, as the consumer.
    fn take(&self, item: &mut [u8; SIZE]) {
        let Positions { put, taken, .. } = self.ring.positions();
        let own = self.own.get();
        self.look(&put.0, |others| others > own);
        // SAFETY: the slot is not written to until `taken` says that it is free, and
        // this is the only consumer.
        unsafe { ptr::copy_nonoverlapping(self.ring.slot(own), item, 1) };
        self.own.set(own + 1);
        taken.0.store(own + 1, Ordering::Release);
    }

    /// Waits for the other party.
    fn meet(&self) {
        let met = &self.ring.positions().met.0;
        self.met.set(self.met.get() + 2);
        met.fetch_add(1, Ordering::AcqRel);
        while met.load(Ordering::Acquire) < self.met.get() {
            spin_loop();
        }
    }
}

/// A ring between a forked producer and this consumer.
pub struct Spinning;

impl Queues for Spinning {
    const NAME: &'static str = "limit";

    const CONSUMERS: usize = 1;

    fn numbers(shape: Shape) -> Result<Taken> {
        let put = |end: &End<'_, 8>, number: &u64| {
            end.put(&number.to_ne_bytes());
            Ok(())
        };
        run(shape, put, |bytes| Ok(u64::from_ne_bytes(*bytes)))
    }

    fn blocks(shape: Shape) -> Result<Taken> {
        let put = |end: &End<'_, BLOCK>, block: &Vec<u8>| {
            end.put(block.first_chunk().context("a block is too short")?);
            Ok(())
        };
        run(shape, put, |block| number_of_block(block))
    }
}

/// Runs both parties.
fn run<T: Item, const SIZE: usize>(
    shape: Shape,
    put: impl Fn(&End<'_, SIZE>, &T) -> Result<()>,
    number: impl Fn(&[u8; SIZE]) -> Result<u64>,
) -> Result<Taken> {
    let ring = Ring::<SIZE>::new(T::ROOM)?;
    let first = T::first();
    let producer = fork(|| {
        reaper::end_with_parent();
        let end = ring.end();
        let meet = || {
            end.meet();
            Ok(())
        };
        // After an error, of which there is none here, the consumer would be left alone
        // until the sampling process is killed.
        produce(shape, first, |item| put(&end, item), meet).unwrap_or_default();
    })?;
    let end = ring.end();
    let mut item = Box::new([0; SIZE]);
    let take = || {
        end.take(&mut item);
        number(&item)
    };
    let meet = || {
        end.meet();
        Ok(())
    };
    let taken = consume(shape, take, meet)?;
    wait(producer)?;
    Ok(taken)
}
