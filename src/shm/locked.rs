//! Plain data in shared memory behind a lock.
//!
//! This is the one place where a lock gives out references into shared memory. What other modules
//! need of it:
//!
//! - [`Locked::create`] and [`Locked::open`] make a handle of `len` elements of type `T`;
//! - [`Locked::lock`], [`Locked::try_lock`] and [`Locked::lock_timeout`] give a [`Held`], which
//!   derefs to `[T]`, or the same inside [`OwnerDied`];
//! - [`Locked::memory`] is for the object (to send it) and for the words `SPARE..DATA`, which
//!   belong to the kind.
//!
//! All processes that share the object are trusted to follow the protocol with the *data*, as
//! threads are: one that writes to it without the lock changes values under the holder's eyes. It
//! cannot lead anybody outside the memory: the length is private, and any bytes are a valid `T`.

use super::holder::{Holder, Outcome, Tried};
use super::lock::{self, Taken};
use super::memory::{BODY, Kind, Memory};
use super::object::Object;
use super::owner;
use crate::owner_died::OwnerDied;
use crate::sys::clock::Deadline;
use bytemuck::Pod;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const LOCK: usize = BODY;
/// The first of the words that the kind may use for itself, up to [`DATA`].
pub(crate) const SPARE: usize = BODY + 8;
/// Where the data begins, unless its alignment wants more.
pub(crate) const DATA: usize = 128;

/// `len` elements of `T` behind a lock.
///
/// `Locked<()>` is a lock without data, which belongs to a thread; with data it belongs to a
/// process ([`owner::me_of`]). Types that hold a user's `T` refuse one without a size
/// ([`element_size`](super::element_size)), so that nobody gets the other kind by accident.
pub(crate) struct Locked<T> {
    memory: Memory,
    data: NonNull<T>,
    len: usize,
}

// SAFETY: the pointer leads into the mapping that `memory` keeps; the elements are reached through
// `Held` only, one holder at a time, and `T: Pod` holds nothing that belongs to a thread.
unsafe impl<T: Pod> Send for Locked<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for Locked<T> {}

impl<T: Pod> Clone for Locked<T> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), data: self.data, len: self.len }
    }
}

impl<T> std::fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locked").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Where elements of type `T` begin, if bytes from `first` on are free.
pub(super) const fn data_offset<T>(first: usize) -> usize {
    first.next_multiple_of(align_of::<T>())
}

/// What tells objects with elements of another size or alignment apart.
pub(super) const fn shape<T>() -> u64 {
    (size_of::<T>() as u64) << 16 | align_of::<T>() as u64
}

/// How long an object with `len` elements is.
pub(super) fn object_len<T>(first: usize, len: usize) -> io::Result<usize> {
    let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, "more bytes than addresses");
    const { assert!(align_of::<T>() <= 4096, "multiproc: a type aligned to more than a page") };
    let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
    bytes.checked_add(data_offset::<T>(first)).ok_or_else(too_large)
}

/// The address and number of the elements of an opened object.
pub(super) fn elements<T>(memory: &Memory, first: usize) -> io::Result<(NonNull<T>, usize)> {
    let forged = |_| io::Error::new(io::ErrorKind::InvalidData, "an object with a forged length");
    let len = usize::try_from(memory.count()).map_err(forged)?;
    let bytes = object_len::<T>(first, len)? - data_offset::<T>(first);
    Ok((memory.address(data_offset::<T>(first), bytes)?.cast(), len))
}

impl<T: Pod> Locked<T> {
    /// Makes an object with `len` elements of zero bytes.
    pub(crate) fn create(kind: Kind, len: usize) -> io::Result<Self> {
        let memory = Memory::create(kind, shape::<T>(), len as u64, object_len::<T>(DATA, len)?)?;
        Self::of(memory)
    }

    /// The handle of an object that was received.
    ///
    /// # Errors
    /// If it is of another kind, or has elements of another size.
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

    /// The number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The owner word.
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU64 {
        self.memory.word(LOCK)
    }

    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock(&self) -> Outcome<Held<'_, T>> {
        // Without a deadline only a hostile word could end the wait early: wait again.
        loop {
            let me = owner::me_of::<T>();
            if let Some(taken) = lock::take(self.word(), me, Deadline::NEVER) {
                return self.held(me, taken);
            }
        }
    }

    /// Takes the lock if nobody living holds it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Tried<Held<'_, T>> {
        let me = owner::me_of::<T>();
        lock::try_take(self.word(), me).map(|taken| self.held(me, taken)).transpose()
    }

    /// Waits for the lock, for so long at most; zero means try.
    pub(crate) fn lock_timeout(&self, timeout: Duration) -> Tried<Held<'_, T>> {
        if timeout.is_zero() {
            return self.try_lock();
        }
        let me = owner::me_of::<T>();
        let taken = lock::take(self.word(), me, Deadline::after(timeout));
        taken.map(|taken| self.held(me, taken)).transpose()
    }

    /// Whether somebody holds the lock.
    pub(crate) fn is_locked(&self) -> bool {
        lock::is_held(self.word())
    }

    #[inline]
    fn held(&self, me: u64, taken: Taken) -> Outcome<Held<'_, T>> {
        OwnerDied::told(Held { locked: self, holder: Holder::new(me) }, taken)
    }
}

/// The lock is held; gives it back when dropped.
pub(crate) struct Held<'a, T: Pod> {
    locked: &'a Locked<T>,
    holder: Holder<T>,
}

// SAFETY: a shared guard gives out `&[T]` only, and `T: Pod` has no interior mutability.
unsafe impl<T: Pod> Sync for Held<'_, T> {}

impl<T: Pod> std::fmt::Debug for Held<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("len", &self.locked.len).finish_non_exhaustive()
    }
}

impl<'a, T: Pod> Held<'a, T> {
    /// What is locked.
    pub(crate) fn locked(&self) -> &'a Locked<T> {
        self.locked
    }
}

impl<T: Pod> Deref for Held<'_, T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.holder.check_process();
        // SAFETY: `elements` checked that `len` elements are inside the mapping, aligned (the
        // offset is a multiple of the alignment, at most a page); `locked` keeps it mapped. The
        // lock excludes all other references: it is given back only when this guard goes.
        unsafe { std::slice::from_raw_parts(self.locked.data.as_ptr(), self.locked.len) }
    }
}

impl<T: Pod> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.holder.check_process();
        // SAFETY: as in `deref`; `&mut self` excludes other references through this guard, and the
        // check those of a parent whose guard was copied by a fork.
        unsafe { std::slice::from_raw_parts_mut(self.locked.data.as_ptr(), self.locked.len) }
    }
}

impl<T: Pod> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.holder.is_me() {
            return;
        }
        let (word, me) = (self.locked.word(), self.holder.name());
        if self.holder.panicked() {
            lock::abandon(word, me);
        } else {
            lock::give_back(word, me);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const KIND: Kind = Kind::new("multiproc-test");

    #[test]
    fn threads_that_lock_lose_no_update() {
        let locked = Locked::<u64>::create(KIND, 2).expect("create");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let mut held = locked.lock().expect("nobody dies");
                        held[0] += 1;
                        held[1] += 1;
                    }
                });
            }
        });
        assert_eq!(*locked.lock().expect("nobody died"), [40_000, 40_000]);
        assert!(!locked.is_locked());
    }

    #[test]
    fn elements_of_odd_sizes_and_none_at_all_have_their_place() {
        #[derive(Clone, Copy)]
        #[repr(C, align(256))]
        struct Wide([u8; 256]);
        // SAFETY: any bytes are valid, there is no padding, and it is Copy and 'static.
        unsafe impl bytemuck::Zeroable for Wide {}
        // SAFETY: as above.
        unsafe impl Pod for Wide {}
        let wide = Locked::<Wide>::create(KIND, 3).expect("create");
        let mut held = wide.lock().expect("new");
        held[2].0[255] = 7;
        assert!(std::ptr::from_ref(&held[0]).is_aligned());
        assert_eq!(
            Locked::<[u8; 3]>::create(KIND, 5).expect("create").lock().expect("new").len(),
            5
        );
        assert!(Locked::<u64>::create(KIND, 0).expect("create").lock().expect("new").is_empty());
        assert!(Locked::<()>::create(KIND, 9).expect("create").lock().expect("new").len() == 9);
    }

    #[test]
    fn more_elements_than_memory_are_an_error() {
        assert!(Locked::<u64>::create(KIND, usize::MAX).is_err());
        assert!(Locked::<u64>::create(KIND, usize::MAX / 16).is_err());
    }

    #[test]
    fn the_news_of_a_panic_comes_once() {
        let locked = Locked::<u8>::create(KIND, 1).expect("create");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _held = locked.lock().expect("new");
                panic!("on purpose");
            });
            assert!(thread.join().is_err());
        });
        let news = locked.try_lock().expect_err("it panicked");
        assert!(news.panicked());
        drop(news);
        assert!(locked.try_lock().expect("told before").is_some());
    }

    #[test]
    fn a_thread_that_ended_with_the_lock_is_dead_if_it_left_no_reference() {
        let locked = Locked::<u8>::create(KIND, 1).expect("create");
        thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(locked.lock().expect("new")));
        });
        assert!(locked.try_lock().expect("its process lives").is_none());
        let locked = Locked::<()>::create(KIND, 1).expect("create");
        thread::scope(|scope| {
            scope.spawn(|| std::mem::forget(locked.lock().expect("new")));
        });
        let news = locked.lock().expect_err("its owner ended");
        assert!(!news.panicked() && news.thread_id() != 0);
    }
}
