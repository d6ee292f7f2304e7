//! A list of values of different sizes, in memory with a name.
//!
//! First comes the lock, then the number of slots, then where each slot is and how many bytes fit
//! in: that never changes, and is copied out and checked when the list is opened. A slot has two
//! halves and a word that says which one counts. A value is written to the other half, then the
//! word is changed. So a process that is killed while it writes leaves the old value, and the news
//! of its death, which comes with the lock, is of no concern.

use super::lock;
use super::named::{Content, Named};
use super::owner;
use crate::sys::clock::Deadline;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

const LOCK: usize = 0;
const COUNT: usize = 8;
const TABLE: usize = 16;
/// In the table, for each slot: where, and how many bytes fit in.
const ENTRY: usize = 16;
/// In front of the bytes of each half: their tag and their number.
const HEAD: usize = 16;

/// A value: what it is, for those above, and its bytes.
pub(crate) type Tagged = (u64, Vec<u8>);

/// Where a slot is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    at: usize,
    /// How many bytes fit in; a multiple of 8.
    capacity: usize,
}

impl Slot {
    fn end(self) -> Option<usize> {
        self.capacity.checked_add(HEAD)?.checked_mul(2)?.checked_add(8)?.checked_add(self.at)
    }

    fn half(self, which: u64) -> usize {
        self.at + 8 + (which & 1) as usize * (HEAD + self.capacity)
    }
}

/// The slots of a list. All are inside its memory and none overlaps another.
#[derive(Debug)]
pub(crate) struct Slots(Vec<Slot>);

/// Makes a list of these values; each slot is as large as its value needs, and 8 bytes at least.
///
/// # Errors
/// As [`Named::create`].
pub(crate) fn create(name: &str, values: &[Tagged]) -> io::Result<(Named, Slots)> {
    let mut at = TABLE + values.len() * ENTRY;
    let mut slots = Vec::with_capacity(values.len());
    for (_, bytes) in values {
        let slot = Slot { at, capacity: bytes.len().max(1).next_multiple_of(8) };
        at = slot.end().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        slots.push(slot);
    }
    let slots = Slots(slots);
    let named = Named::create(name, Content::List, at, |named| {
        let mut fine = named.write(COUNT, &(values.len() as u64).to_ne_bytes());
        for (index, (slot, (tag, bytes))) in slots.0.iter().zip(values).enumerate() {
            let entry = [slot.at as u64, slot.capacity as u64];
            fine &= named.write(TABLE + index * ENTRY, bytemuck::cast_slice(&entry));
            fine &= write_half(named, slot.half(0), *tag, bytes);
        }
        if fine { Ok(()) } else { Err(forged()) }
    })?;
    Ok((named, slots))
}

fn write_half(named: &Named, at: usize, tag: u64, bytes: &[u8]) -> bool {
    let head = [tag, bytes.len() as u64];
    named.write(at, bytemuck::cast_slice(&head)) && named.write(at + HEAD, bytes)
}

fn forged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the list is damaged: another process wrote to it")
}

fn numbers(named: &Named, at: usize) -> Option<[usize; 2]> {
    let mut words = [0u64; 2];
    if !named.read(at, bytemuck::cast_slice_mut(&mut words)) {
        return None;
    }
    Some([usize::try_from(words[0]).ok()?, usize::try_from(words[1]).ok()?])
}

impl Slots {
    /// The slots of a list that somebody made.
    ///
    /// # Errors
    /// `InvalidData` if they are not inside the memory, or overlap.
    pub(crate) fn of(named: &Named) -> io::Result<Self> {
        let [_, count] = numbers(named, LOCK).ok_or_else(forged)?;
        if count > (named.len() - TABLE) / ENTRY {
            return Err(forged());
        }
        let mut before = TABLE + count * ENTRY;
        let mut slots = Vec::with_capacity(count);
        for index in 0..count {
            let [at, capacity] = numbers(named, TABLE + index * ENTRY).ok_or_else(forged)?;
            let slot = Slot { at, capacity };
            let aligned = at.is_multiple_of(8) && capacity.is_multiple_of(8);
            let end = slot.end().filter(|end| aligned && at >= before && *end <= named.len());
            before = end.ok_or_else(forged)?;
            slots.push(slot);
        }
        Ok(Self(slots))
    }

    /// The number of slots.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many bytes fit into a slot.
    ///
    /// # Panics
    /// If there is none of this number.
    pub(crate) fn capacity(&self, index: usize) -> usize {
        self.0[index].capacity
    }

    /// The value in a slot.
    ///
    /// # Errors
    /// `InvalidData` if another process wrote nonsense.
    ///
    /// # Panics
    /// If there is no slot of this number.
    pub(crate) fn load(&self, named: &Named, index: usize) -> io::Result<Tagged> {
        let slot = self.0[index];
        let _turn = Turn::take(named)?;
        // Acquire: the half was written before the word was changed, also by one that was killed
        // before it gave the lock back.
        let which = word(named, slot.at)?.load(Ordering::Acquire);
        let half = slot.half(which);
        let [tag, len] = numbers(named, half).ok_or_else(forged)?;
        if len > slot.capacity {
            return Err(forged());
        }
        let mut bytes = vec![0; len];
        if !named.read(half + HEAD, &mut bytes) {
            return Err(forged());
        }
        Ok((tag as u64, bytes))
    }

    /// Overwrites the value in a slot; false if it does not fit.
    ///
    /// # Errors
    /// `InvalidData` if the memory cannot be written to.
    ///
    /// # Panics
    /// If there is no slot of this number.
    pub(crate) fn store(
        &self,
        named: &Named,
        index: usize,
        tag: u64,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let slot = self.0[index];
        if bytes.len() > slot.capacity {
            return Ok(false);
        }
        let _turn = Turn::take(named)?;
        let which = word(named, slot.at)?;
        // Relaxed: it changes under the lock only.
        let next = which.load(Ordering::Relaxed) & 1 ^ 1;
        if !write_half(named, slot.half(next), tag, bytes) {
            return Err(forged());
        }
        // Release: see `load`.
        which.store(next, Ordering::Release);
        Ok(true)
    }
}

fn word(named: &Named, at: usize) -> io::Result<&AtomicU64> {
    named.word64(at).ok_or_else(forged)
}

/// The lock of a list is held.
struct Turn<'a> {
    word: &'a AtomicU64,
    me: u64,
}

impl<'a> Turn<'a> {
    fn take(named: &'a Named) -> io::Result<Self> {
        let (word, me) = (word(named, LOCK)?, owner::me());
        // Whether the last owner died does not matter: no slot is ever half written.
        while lock::take(word, me, Deadline::NEVER).is_none() {}
        Ok(Self { word, me })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock::give_back(self.word, self.me);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(what: &str, values: &[Tagged]) -> (Named, Slots) {
        let name = format!("test-list-{what}-{}", std::process::id());
        let made = create(&name, values).expect("a list");
        made.0.unlink().expect("unlink");
        made
    }

    #[test]
    fn values_come_back_and_what_does_not_fit_changes_nothing() {
        let values = [(1, vec![1; 8]), (2, Vec::new()), (3, vec![3; 17])];
        let (named, slots) = list("values", &values);
        for _ in 0..3 {
            for (index, value) in values.iter().enumerate() {
                assert_eq!(slots.load(&named, index).expect("load"), *value);
                assert!(slots.store(&named, index, value.0, &value.1).expect("store"));
            }
            assert!(!slots.store(&named, 1, 9, &[9; 9]).expect("too long"));
        }
        assert!(slots.store(&named, 1, 9, &[9; 8]).expect("it fits"));
        let seen: Vec<_> = (0..3).map(|index| slots.load(&named, index).expect("load")).collect();
        assert_eq!(seen, [values[0].clone(), (9, vec![9; 8]), values[2].clone()]);
    }

    #[test]
    fn a_writer_that_dies_in_the_middle_leaves_the_old_value() {
        let (named, slots) = list("death", &[(1, vec![1; 8])]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let turn = Turn::take(&named).expect("lock");
                assert!(write_half(&named, slots.0[0].half(1), 2, &[2; 5]));
                std::mem::forget(turn);
            });
        });
        assert_eq!(slots.load(&named, 0).expect("load"), (1, vec![1; 8]));
        assert!(slots.store(&named, 0, 3, &[3]).expect("store"));
        assert_eq!(slots.load(&named, 0).expect("load"), (3, vec![3]));
    }

    #[test]
    fn forged_tables_are_refused_and_forged_lengths_are_errors() {
        let (named, slots) = list("forged", &[(1, vec![1; 8]), (2, vec![2; 8])]);
        let put = |at: usize, word: u64| assert!(named.write(at, &word.to_ne_bytes()));
        let good = |at: usize| {
            let mut word = [0; 8];
            assert!(named.read(at, &mut word));
            u64::from_ne_bytes(word)
        };
        for at in [COUNT, TABLE, TABLE + 8, TABLE + ENTRY, TABLE + ENTRY + 8] {
            let before = good(at);
            for word in [3, 1 << 20, u64::MAX, u64::MAX - 7, 1 << 63, before + 8] {
                put(at, word);
                assert!(Slots::of(&named).is_err(), "{at} {word}");
            }
            put(at, before);
        }
        assert_eq!(Slots::of(&named).expect("as it was").len(), 2);
        let head = slots.0[1].half(0);
        for len in [9, u64::MAX] {
            put(head + 8, len);
            assert!(slots.load(&named, 1).is_err());
        }
        put(slots.0[1].at, u64::MAX);
        assert!(slots.load(&named, 1).is_ok(), "the other half: empty");
        assert_eq!(slots.load(&named, 0).expect("the neighbour").0, 1);
    }
}
