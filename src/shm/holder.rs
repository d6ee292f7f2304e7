//! What a guard remembers of whoever took the lock.

use super::owner;
use crate::owner_died::OwnerDied;
use crate::sys::fork;
use std::marker::PhantomData;
use std::thread;

/// What a lock operation gives: the guard, perhaps with the news.
pub(crate) type Outcome<G> = Result<G, OwnerDied<G>>;
/// What a try or a timed wait gives.
pub(crate) type Tried<G> = Result<Option<G>, OwnerDied<G>>;

/// Who has a lock of `T`, as long as the guard lives that this is a part of.
///
/// A guard belongs to the thread that took it: it is not `Send`. In a forked child, which is
/// somebody else, its copy neither gives the lock back nor reaches the data.
pub(super) struct Holder<T> {
    me: u64,
    generation: u32,
    panicking: bool,
    not_send: PhantomData<*const T>,
}

impl<T> Holder<T> {
    /// The caller, which has just taken the lock by the name of `me`.
    #[inline]
    pub(super) fn new(me: u64) -> Self {
        let (generation, panicking) = (fork::known_generation(), thread::panicking());
        Self { me, generation, panicking, not_send: PhantomData }
    }

    /// The name that is in the owner word.
    #[inline]
    pub(super) fn name(&self) -> u64 {
        self.me
    }

    /// Panics in a forked child, on a guard that its parent took.
    #[inline]
    pub(super) fn check_process(&self) {
        if self.generation != fork::known_generation() {
            not_the_owner();
        }
    }

    /// Whether the lock is the caller's to give back; in a forked child it is not.
    #[inline]
    pub(super) fn is_me(&self) -> bool {
        self.me == owner::me_of::<T>()
    }

    /// Whether a panic has begun since the lock was taken.
    #[inline]
    pub(super) fn panicked(&self) -> bool {
        !self.panicking && thread::panicking()
    }
}

#[cold]
fn not_the_owner() -> ! {
    panic!("this guard was taken before a fork: the lock belongs to the parent; lock it again here")
}
