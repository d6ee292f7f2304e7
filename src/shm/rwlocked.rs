//! Plain data in shared memory behind a readers-writer lock: as `locked`, with the protocol of
//! `rwlock`.

use super::holder::{Holder, Outcome, Tried};
use super::locked::{elements, object_len, shape};
use super::memory::{BODY, Kind, Memory};
use super::object::Object;
use super::rwlock::Words;
use super::seats::{Seats, TABLE};
use super::{lock, owner};
use crate::owner_died::{Dead, OwnerDied};
use crate::sys::clock::Deadline;
use bytemuck::Pod;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

const WRITER: usize = BODY;
const HINT: usize = BODY + 8;
const TABLE_AT: usize = 128;
const DATA: usize = TABLE_AT + TABLE;

/// `len` elements of `T` behind a readers-writer lock.
pub(crate) struct RwLocked<T> {
    memory: Memory,
    data: NonNull<T>,
    len: usize,
}

// SAFETY: the pointer leads into the mapping that `memory` keeps; the elements are reached through
// the two guards only, which the lock keeps apart, and `T: Pod` holds nothing that belongs to a
// thread.
unsafe impl<T: Pod> Send for RwLocked<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for RwLocked<T> {}

impl<T: Pod> Clone for RwLocked<T> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), data: self.data, len: self.len }
    }
}

impl<T> std::fmt::Debug for RwLocked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RwLocked").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Pod> RwLocked<T> {
    /// Makes an object with `len` elements of zero bytes.
    pub(crate) fn create(kind: Kind, len: usize) -> io::Result<Self> {
        let bytes = object_len::<T>(DATA, len)?;
        Self::of(Memory::create(kind, shape::<T>(), len as u64, bytes)?)
    }

    /// The handle of an object that was received.
    pub(crate) fn open(object: Arc<Object>, kind: Kind) -> io::Result<Self> {
        Self::of(Memory::open(object, kind, shape::<T>(), DATA)?)
    }

    fn of(memory: Memory) -> io::Result<Self> {
        let (data, len) = elements(&memory, DATA)?;
        Ok(Self { memory, data, len })
    }

    /// The memory.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn words(&self) -> Words<'_, Seats<'_>> {
        let (writer, hint) = (self.memory.word(WRITER), self.memory.word(HINT));
        Words { writer, hint, seats: Seats::new(&self.memory, TABLE_AT) }
    }

    /// Waits until there is no writer.
    pub(crate) fn read(&self) -> Outcome<Reading<'_, T>> {
        loop {
            let read = self.words().read(owner::me_of::<T>(), Deadline::NEVER, owner::is_dead);
            if let Some((seat, taken)) = read {
                return OwnerDied::told(self.reading(seat), taken);
            }
        }
    }

    /// As [`RwLocked::read`], for so long at most; zero means try.
    pub(crate) fn read_timeout(&self, timeout: Duration) -> Tried<Reading<'_, T>> {
        let read = match timeout {
            Duration::ZERO => self.words().try_read(owner::me_of::<T>()),
            _ => self.words().read(owner::me_of::<T>(), Deadline::after(timeout), owner::is_dead),
        };
        let read = read.map(|(seat, taken)| OwnerDied::told(self.reading(seat), taken));
        read.transpose()
    }

    /// Waits until there is neither a writer nor a reader.
    pub(crate) fn write(&self) -> Outcome<Writing<'_, T>> {
        loop {
            let me = owner::me_of::<T>();
            if let Some(taken) = self.words().write(me, Deadline::NEVER, owner::is_dead) {
                return OwnerDied::told(self.writing(me), taken);
            }
        }
    }

    /// As [`RwLocked::write`], for so long at most; zero means try.
    pub(crate) fn write_timeout(&self, timeout: Duration) -> Tried<Writing<'_, T>> {
        let me = owner::me_of::<T>();
        let taken = match timeout {
            Duration::ZERO => self.words().try_write(me),
            _ => self.words().write(me, Deadline::after(timeout), owner::is_dead),
        };
        let written = taken.map(|taken| OwnerDied::told(self.writing(me), taken));
        written.transpose()
    }

    /// Whether somebody writes.
    pub(crate) fn is_writing(&self) -> bool {
        lock::is_held(self.words().writer)
    }

    fn reading(&self, seat: u32) -> Reading<'_, T> {
        Reading { locked: self, seat, holder: Holder::new(owner::me_of::<T>()) }
    }

    fn writing(&self, me: u64) -> Writing<'_, T> {
        Writing { locked: self, holder: Holder::new(me) }
    }
}

/// The lock is held for reading.
pub(crate) struct Reading<'a, T: Pod> {
    locked: &'a RwLocked<T>,
    seat: u32,
    holder: Holder<T>,
}

// SAFETY: a shared guard gives out `&[T]` only, and `T: Pod` has no interior mutability.
unsafe impl<T: Pod> Sync for Reading<'_, T> {}

impl<T: Pod> Deref for Reading<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.holder.check_process();
        // SAFETY: `elements` checked that `len` elements are inside the mapping and aligned;
        // `locked` keeps it mapped. While the seat is held no writer gets the lock.
        unsafe { std::slice::from_raw_parts(self.locked.data.as_ptr(), self.locked.len) }
    }
}

impl<T: Pod> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        if self.holder.is_me() {
            self.locked.words().stop_reading(self.seat);
        }
    }
}

/// The lock is held for writing.
pub(crate) struct Writing<'a, T: Pod> {
    locked: &'a RwLocked<T>,
    holder: Holder<T>,
}

// SAFETY: as for `Reading`.
unsafe impl<T: Pod> Sync for Writing<'_, T> {}

impl<T: Pod> Deref for Writing<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.holder.check_process();
        // SAFETY: inside the mapping and aligned, as in `Reading`; the lock is held for writing,
        // so the only references are those through this guard.
        unsafe { std::slice::from_raw_parts(self.locked.data.as_ptr(), self.locked.len) }
    }
}

impl<T: Pod> DerefMut for Writing<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.holder.check_process();
        // SAFETY: as in `deref`; `&mut self` excludes other references through this guard.
        unsafe { std::slice::from_raw_parts_mut(self.locked.data.as_ptr(), self.locked.len) }
    }
}

impl<T: Pod> Drop for Writing<'_, T> {
    fn drop(&mut self) {
        if !self.holder.is_me() {
            return;
        }
        let (me, panicked) = (self.holder.name(), self.holder.panicked());
        let suspect = panicked.then(|| Dead { panicked: true, ..owner::named(me) });
        self.locked.words().stop_writing(me, suspect);
    }
}
