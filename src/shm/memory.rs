//! A shared object as one type of handle sees it: its words, at offsets that the type fixes.

use super::object::{Access, Object};
use super::segment::Segment;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an object is for. A handle of one kind cannot be made to look at an object of another:
/// the first words of the object say its kind and shape, and opening compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The name that the memory has in `/proc/<pid>/maps`.
    pub(crate) name: &'static str,
}

impl Kind {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// A number for the name.
    const fn tag(self) -> u64 {
        number_of(self.name)
    }
}

/// A number for a name (FNV-1a), the same in all processes.
pub(crate) const fn number_of(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (mut hash, mut index) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

const KIND: usize = 0;
const SHAPE: usize = 8;
const COUNT: usize = 16;
/// Where the handle's own words begin.
pub(crate) const BODY: usize = 64;

/// The memory of an object, mapped, with the address at hand.
///
/// An object of a kind is laid out by that kind's handle type alone. The words below [`BODY`] are
/// written when the object is made, and read once, when it is opened.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    object: Arc<Object>,
    start: NonNull<u8>,
    len: usize,
    count: u64,
}

// SAFETY: the pointer leads to the mapping that `object` keeps, wherever the handle is moved to;
// words are accessed atomically, and everything else by the protocols of `locked` and `rwlock`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes an object of `len` bytes, zero but for what says its kind; `shape` and `count` mean
    /// what the kind wants them to.
    pub(crate) fn create(kind: Kind, shape: u64, count: u64, len: usize) -> io::Result<Self> {
        let object = Object::create(kind.name, len.max(BODY), Access::Shared)?;
        label(object.map(Access::Shared, len.max(BODY))?, kind, shape, count);
        Self::open(object, kind, shape, len)
    }

    /// As [`create`](Self::create), of a sparse object of `len` bytes: this is the memory of its
    /// first `there` bytes.
    pub(crate) fn create_sparse(
        kind: Kind,
        shape: u64,
        count: u64,
        there: usize,
        len: usize,
    ) -> io::Result<Self> {
        let object = Object::create_sparse(kind.name, len, there)?;
        label(object.map(Access::Sparse, there)?, kind, shape, count);
        Self::open_sparse(object, kind, shape, there)
    }

    /// As [`open`](Self::open), of a sparse object: the memory of its first `there` bytes.
    pub(crate) fn open_sparse(
        object: Arc<Object>,
        kind: Kind,
        shape: u64,
        there: usize,
    ) -> io::Result<Self> {
        let segment = object.map(Access::Sparse, there)?;
        let (start, len, count) = checked(segment, kind, shape)?;
        Ok(Self { object, start, len, count })
    }

    /// The memory of an object that was received, of `least` bytes or more: as far as the words of
    /// the kind reach.
    ///
    /// # Errors
    /// If it is of another kind or shape, or shorter.
    pub(crate) fn open(
        object: Arc<Object>,
        kind: Kind,
        shape: u64,
        least: usize,
    ) -> io::Result<Self> {
        let segment = object.map_whole(Access::Shared, least.max(BODY))?;
        let (start, len, count) = checked(segment, kind, shape)?;
        Ok(Self { object, start, len, count })
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The count that the object was made with, as it was when this handle was made. Another
    /// process may have forged it: check it against the length.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The word at byte `at`, a multiple of 8.
    ///
    /// # Panics
    /// If it is not inside the object. Kinds have fixed offsets, and check counts when they open.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at < self.len && self.len - at >= 8,
            "a word outside the object"
        );
        // SAFETY: inside the mapping and aligned (checked just above; the mapping starts at a
        // page), and `object`, which keeps the mapping, lives as long as `self`. All processes
        // access words atomically.
        unsafe { AtomicU64::from_ptr(self.start.add(at).as_ptr().cast()) }
    }

    /// The words from byte `at` on, a multiple of 8.
    ///
    /// # Panics
    /// As [`word`](Self::word), if not all of them are inside.
    #[inline]
    pub(super) fn words<const COUNT: usize>(&self, at: usize) -> &[AtomicU64; COUNT] {
        assert!(
            at.is_multiple_of(8) && at < self.len && self.len - at >= 8 * COUNT,
            "words outside the object"
        );
        // SAFETY: as for `word`, for each of them.
        unsafe { &*self.start.add(at).as_ptr().cast() }
    }

    /// The address of byte `at`; what may be done there is the caller's protocol to say.
    pub(super) fn address(&self, at: usize, len: usize) -> io::Result<NonNull<u8>> {
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an object that is too short"));
        }
        // SAFETY: `at` is at most the length of the mapping.
        Ok(unsafe { self.start.add(at) })
    }
}

/// Writes what an object is into its first words.
fn label(segment: &Segment, kind: Kind, shape: u64, count: u64) {
    // Relaxed: nobody else has the object yet; the message that carries it there orders.
    segment.word64(SHAPE).store(shape, Ordering::Relaxed);
    segment.word64(COUNT).store(count, Ordering::Relaxed);
    segment.word64(KIND).store(kind.tag(), Ordering::Relaxed);
}

/// Start, length and count of an object, if it is what its first words should say.
fn checked(segment: &Segment, kind: Kind, shape: u64) -> io::Result<(NonNull<u8>, usize, u64)> {
    // Relaxed: written before the object was sent.
    let word = |at| segment.word64(at).load(Ordering::Relaxed);
    if word(KIND) != kind.tag() || word(SHAPE) != shape {
        let what = format!("the object that came is no {}, or one of another type", kind.name);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok((segment.start(), segment.len(), word(COUNT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::new("multiproc-test");

    #[test]
    fn an_object_opens_as_what_it_was_made_as_and_as_nothing_else() {
        let memory = Memory::create(KIND, 5, 7, 100).expect("create");
        let object = memory.object();
        assert_eq!(Memory::open(object.clone(), KIND, 5, 100).expect("open").count(), 7);
        assert!(Memory::open(object.clone(), KIND, 6, 100).is_err());
        assert!(Memory::open(object.clone(), Kind::new("multiproc-other"), 5, 100).is_err());
    }

    #[test]
    fn an_object_that_is_too_short_for_its_kind_is_refused() {
        let memory = Memory::create(KIND, 0, 0, 100).expect("create");
        assert!(Memory::open(memory.object().clone(), KIND, 0, 8192).is_err());
    }

    #[test]
    #[should_panic(expected = "outside the object")]
    fn a_word_outside_is_refused() {
        let memory = Memory::create(KIND, 0, 0, 100).expect("create");
        memory.word(memory.len);
    }
}
