//! Items in shared memory that are not taken in the order in which they were put.
//!
//! One lock, under which everything is changed as `journal` says; `blocks` is where the items'
//! bytes are, and `order` which item is next. `README.md` in this folder has the protocol.

mod blocks;
mod journal;
mod order;

use super::bell::{self, Armed, Rung};
use super::growing::Growing;
use super::lock;
use super::memory::{BODY, Kind};
use super::object::Object;
use super::owner;
use crate::sys::clock::Deadline;
use blocks::{Blocks, Place};
use journal::{Change, JOURNAL, Space, damaged};
use order::{LEN as ITEM_LEN, LOCKER, NUMBER, Spot, WORDS as HEADER};
use std::cmp::Ordering;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

const LOCK: usize = BODY;
const GETTERS: usize = 128;
const PUTTERS: usize = 192;
const STATE: u64 = 256;
const ITEMS: u64 = 264;
const ROOT: u64 = 272;
const PUT: u64 = 280;
const TAKEN: u64 = 288;
const LOST: u64 = 296;
const DEATHS: u64 = 304;
const BLOCKS: Blocks = Blocks(320);
/// A bit for each locker: whether an item has it.
const LOCKERS: u64 = 896;
const LOCKER_WORDS: u64 = 8;
const JOURNAL_AT: u64 = 1024;
const _: () = assert!(320 + blocks::WORDS <= LOCKERS && LOCKERS + 8 * LOCKER_WORDS <= JOURNAL_AT);
const _: () = assert!(JOURNAL_AT + JOURNAL <= 1 << 14);

/// The count of a store without a limit.
const UNLIMITED: u64 = 0;

/// How long a call that does not wait for items, or for room, waits for the lock: it is held for a
/// copy of one item at most, unless its holder was stopped.
const PATIENCE: Duration = Duration::from_millis(250);

/// Up to this length what an item claims is believed without asking how much memory there is.
const CREDIBLE: u64 = 1 << 20;

/// Whether items may be put and taken; it only ever goes on to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Open,
    /// Nothing is put any more; what is there can be taken.
    Draining,
    /// Nothing is taken any more, either.
    Over,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Outcome<R, O> {
    Done(R),
    /// There is no item, or no room; if the caller wants to wait it sleeps now.
    Wait(Option<Armed>),
    /// The item must be compared with this one first.
    Compare(Item<O>),
    Closed,
    /// Somebody else has the lock for too long.
    Busy,
}

/// A copy of an item.
#[derive(Debug)]
pub(crate) struct Item<O> {
    /// No other item of the store has it.
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    /// What is in its locker, if it has one.
    pub(crate) beside: Option<O>,
}

/// Where what cannot go through memory waits until its item is taken. All of this is called under
/// the lock, and only for lockers that the store has given to an item, or is giving.
pub(crate) trait Lockers {
    type In;
    type Out;
    /// Puts something into a locker, after throwing away what is there; false if there is no room.
    fn fill(&self, number: u32, what: &Self::In) -> io::Result<bool>;
    /// A copy of what is in a locker.
    fn look(&self, number: u32) -> io::Result<Self::Out>;
    /// Throws away what is in a locker.
    fn empty(&self, number: u32);
}

/// An item to be put.
pub(crate) struct New<'a, I> {
    /// Its bytes, in two parts.
    pub(crate) bytes: [&'a [u8]; 2],
    /// What goes into a locker.
    pub(crate) beside: Option<&'a I>,
    pub(crate) rule: Rule<'a>,
}

/// Where a new item goes.
#[derive(Clone, Copy)]
pub(crate) enum Rule<'a> {
    /// Before all others.
    Front,
    /// Where it belongs, if this is how it compares to the item with that number, as far as
    /// that is known.
    Sorted(&'a dyn Fn(u64) -> Option<Ordering>),
}

/// What the counters say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) put: u64,
    pub(crate) taken: u64,
    pub(crate) lost: u64,
    pub(crate) len: u64,
    pub(crate) deaths: u64,
}

/// For whom a bell rings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Getters,
    Putters,
}

/// A handle of a store.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    space: Growing,
    /// The most items, if there is a limit.
    capacity: Option<u64>,
}

impl Space for Growing {
    #[inline]
    fn get(&self, at: u64) -> io::Result<u64> {
        // Relaxed: the lock orders.
        Ok(self.word(at)?.load(Relaxed))
    }

    #[inline]
    fn set(&self, at: u64, value: u64) -> io::Result<()> {
        // Release: see `journal`.
        self.word(at)?.store(value, Release);
        Ok(())
    }

    fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        match at.checked_add(len) {
            // It has been there since the beginning.
            Some(end) if end <= super::growing::FIRST => Ok(()),
            _ => Growing::reserve(self, at, len),
        }
    }
}

/// The lock, held; given back on drop.
struct Locked<'a> {
    store: &'a Store,
    me: u64,
}

impl Locked<'_> {
    fn change(&self) -> io::Result<Change<'_, Growing>> {
        Change::begin(&self.store.space, JOURNAL_AT)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        lock::give_back(self.store.word(LOCK), self.me);
    }
}

impl Store {
    /// Makes an empty store for so many items, or for as many as there is memory for; `shape` tells
    /// stores of different items apart.
    pub(crate) fn create(kind: Kind, shape: u64, capacity: Option<u64>) -> io::Result<Self> {
        let space = Growing::create(kind, shape, capacity.unwrap_or(UNLIMITED))?;
        let store = Self { space, capacity };
        let mut change = Change::begin(&store.space, JOURNAL_AT)?;
        BLOCKS.init(&mut change)?;
        change.keep()?;
        Ok(store)
    }

    /// The store in an object that was received.
    pub(crate) fn open(object: Arc<Object>, kind: Kind, shape: u64) -> io::Result<Self> {
        let space = Growing::open(object, kind, shape)?;
        let capacity = Some(space.first().count()).filter(|count| *count != UNLIMITED);
        Ok(Self { space, capacity })
    }

    /// The object.
    pub(crate) fn object(&self) -> &Arc<Object> {
        self.space.object()
    }

    /// The most items, if there is a limit.
    pub(crate) fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.space.first().word(at)
    }

    fn bell(&self, side: Side) -> &AtomicU64 {
        match side {
            Side::Getters => self.word(GETTERS),
            Side::Putters => self.word(PUTTERS),
        }
    }

    /// A counter, as it is at this moment.
    fn count(&self, at: u64) -> u64 {
        // Relaxed: it stands for itself.
        self.word(at as usize).load(Relaxed)
    }

    /// The state.
    pub(crate) fn state(&self) -> State {
        // Acquire: whoever sees the end sees what came before it.
        match self.word(STATE as usize).load(Acquire) {
            0 => State::Open,
            1 => State::Draining,
            _ => State::Over,
        }
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> u64 {
        self.settle();
        self.glance()
    }

    /// As [`len`](Self::len), without a look whether somebody died in the middle of changing it.
    pub(crate) fn glance(&self) -> u64 {
        if self.state() == State::Over { 0 } else { self.count(ITEMS) }
    }

    /// Undoes the change of somebody who died in the middle of it. Whoever takes the lock does
    /// that, but those who only look at counters would see half of the change for as long as nobody
    /// does.
    fn settle(&self) {
        if self.count(JOURNAL_AT) == 0 {
            return;
        }
        let me = owner::me();
        if let Some(news) = lock::try_take(self.word(LOCK), me) {
            let locked = Locked { store: self, me };
            self.note_death(news);
            // If the memory is damaged there is nothing to be undone.
            drop(locked.change());
        }
    }

    fn note_death(&self, news: lock::Taken) {
        if news.is_some() {
            // Relaxed: under the lock.
            self.word(DEATHS as usize).fetch_add(1, Relaxed);
        }
    }

    /// What the counters say at this moment.
    pub(crate) fn counts(&self) -> Counts {
        self.settle();
        let there = self.count(ITEMS);
        // What nobody can take any more is lost, also if nobody could say so under the lock.
        let (len, lost) = if self.state() == State::Over { (0, there) } else { (there, 0) };
        Counts {
            put: self.count(PUT),
            taken: self.count(TAKEN),
            lost: self.count(LOST).wrapping_add(lost),
            len,
            deaths: self.count(DEATHS),
        }
    }

    /// Takes the lock; `None` if that takes too long.
    fn lock(&self, deadline: Deadline) -> Option<Locked<'_>> {
        let me = owner::me();
        let patience = match deadline.remaining() {
            None => Deadline::NEVER,
            Some(left) => Deadline::after(left.max(PATIENCE)),
        };
        let news = lock::take(self.word(LOCK), me, patience)?;
        let locked = Locked { store: self, me };
        self.note_death(news);
        Some(locked)
    }

    /// Puts an item, if there is room; if not, and `wait` says so, gets ready to wait for some.
    pub(crate) fn put<L: Lockers>(
        &self,
        new: &New<'_, L::In>,
        lockers: &L,
        wait: bool,
        deadline: Deadline,
    ) -> io::Result<Outcome<(), L::Out>> {
        let Some(locked) = self.lock(deadline) else {
            return Ok(Outcome::Busy);
        };
        let mut change = locked.change()?;
        if self.state() != State::Open {
            return Ok(Outcome::Closed);
        }
        let items = change.get(ITEMS)?;
        let full = || Ok(Outcome::Wait(wait.then(|| bell::arm(self.bell(Side::Putters)))));
        if self.capacity.is_some_and(|capacity| items >= capacity) {
            return full();
        }
        let path = match new.rule {
            Rule::Front => None,
            Rule::Sorted(known) => match order::find(&change, ROOT, known)? {
                Spot::Path(path) => Some(path),
                Spot::Unknown(place) => return self.copy(place, lockers).map(Outcome::Compare),
            },
        };
        let number = change.get(PUT)?.wrapping_add(1);
        let place = self.fill(&mut change, number, new.bytes)?;
        if !self.fill_locker(&mut change, place, new.beside, lockers)? {
            return full();
        }
        match path {
            Some(path) => order::insert(&mut change, ROOT, &path, place)?,
            None => order::push(&mut change, ROOT, place)?,
        }
        change.set(ITEMS, items.wrapping_add(1))?;
        change.set(PUT, number)?;
        change.keep()?;
        let rung = bell::ring(self.bell(Side::Getters));
        drop(locked);
        bell::wake(self.bell(Side::Getters), rung, 1);
        Ok(Outcome::Done(()))
    }

    /// Takes a block and writes an item into it. Until the change is kept the block is a free one,
    /// so nothing of this is noted.
    fn fill(
        &self,
        change: &mut Change<'_, Growing>,
        number: u64,
        bytes: [&[u8]; 2],
    ) -> io::Result<Place> {
        let [first, second] = bytes.map(|part| part.len() as u64);
        let len = first.saturating_add(second);
        let new = BLOCKS.take(change, HEADER.saturating_add(len))?;
        self.space.set(new.body(NUMBER), number)?;
        self.space.set(new.body(ITEM_LEN), len)?;
        self.space.copy_in(new.body(HEADER), bytes[0])?;
        self.space.copy_in(new.body(HEADER + first), bytes[1])?;
        Ok(new)
    }

    /// Finds a locker for what goes beside an item, and puts it there. Until the change is kept it
    /// is a free one, too. False if there is no room.
    fn fill_locker<L: Lockers>(
        &self,
        change: &mut Change<'_, Growing>,
        new: Place,
        beside: Option<&L::In>,
        lockers: &L,
    ) -> io::Result<bool> {
        let Some(beside) = beside else {
            self.space.set(new.body(LOCKER), 0)?;
            return Ok(true);
        };
        for word in 0..LOCKER_WORDS {
            let used = change.get(LOCKERS + 8 * word)?;
            if used != u64::MAX {
                let bit = used.trailing_ones();
                let locker = 64 * word as u32 + bit;
                if !lockers.fill(locker, beside)? {
                    return Ok(false);
                }
                change.set(LOCKERS + 8 * word, used | 1 << bit)?;
                self.space.set(new.body(LOCKER), u64::from(locker) + 1)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The locker of an item, if it has one.
    fn locker(&self, place: Place) -> io::Result<Option<u32>> {
        match self.space.get(place.body(LOCKER))? {
            0 => Ok(None),
            number if number <= 64 * LOCKER_WORDS => Ok(Some(number as u32 - 1)),
            _ => Err(damaged()),
        }
    }

    /// Takes the first item, if there is one; if not, and `wait` says so, gets ready to wait for
    /// one.
    pub(crate) fn take<L: Lockers>(
        &self,
        lockers: &L,
        wait: bool,
        deadline: Deadline,
    ) -> io::Result<Outcome<Item<L::Out>, L::Out>> {
        let Some(locked) = self.lock(deadline) else {
            return Ok(Outcome::Busy);
        };
        let mut change = locked.change()?;
        let state = self.state();
        if state == State::Over {
            return Ok(Outcome::Closed);
        }
        let Some(found) = order::first(&change, ROOT)? else {
            return Ok(match state {
                State::Open => Outcome::Wait(wait.then(|| bell::arm(self.bell(Side::Getters)))),
                _ => Outcome::Closed,
            });
        };
        let (_, place) = found;
        let item = self.copy(place, lockers)?;
        let locker = self.locker(place)?;
        order::unlink(&mut change, found)?;
        BLOCKS.give_back(&mut change, place)?;
        if let Some(locker) = locker.map(u64::from) {
            let word = LOCKERS + 8 * (locker / 64);
            let used = change.get(word)?;
            change.set(word, used & !(1 << (locker % 64)))?;
        }
        let left = change.get(ITEMS)?.saturating_sub(1);
        change.set(ITEMS, left)?;
        change.add(TAKEN, 1)?;
        change.keep()?;
        if let Some((at, len)) = place.spare() {
            self.space.give_back(at, len);
        }
        if let Some(locker) = locker {
            lockers.empty(locker);
        }
        let rung = bell::ring(self.bell(Side::Putters));
        drop(locked);
        bell::wake(self.bell(Side::Putters), rung, 1);
        Ok(Outcome::Done(item))
    }

    /// Copies an item out. Under the lock.
    fn copy<L: Lockers>(&self, place: Place, lockers: &L) -> io::Result<Item<L::Out>> {
        let number = self.space.get(place.body(NUMBER))?;
        let len = self.space.get(place.body(ITEM_LEN))?;
        if len > place.capacity() - HEADER || len > CREDIBLE && len > self.space.memory_len()? {
            return Err(damaged());
        }
        let len = usize::try_from(len).map_err(|_| damaged())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        self.space.copy_out(place.body(HEADER), &mut bytes)?;
        let beside = self.locker(place)?.map(|locker| lockers.look(locker)).transpose()?;
        Ok(Item { number, bytes, beside })
    }

    /// Goes on to a later state and wakes everybody.
    pub(crate) fn shut(&self, state: State, lockers: &impl Lockers) -> io::Result<()> {
        // AcqRel: as a lock would.
        self.word(STATE as usize).fetch_max(state as u64, AcqRel);
        // Whoever has the lock for long, or for ever, cannot keep this from happening: the state is
        // there already, and whoever sleeps looks again by the clock.
        let locked = self.lock(Deadline::now());
        if let Some(locked) = &locked
            && state == State::Over
        {
            let mut change = locked.change()?;
            let lost = change.get(ITEMS)?;
            change.add(LOST, lost)?;
            change.set(ITEMS, 0)?;
            change.set(ROOT, 0)?;
            change.keep()?;
            for locker in 0..64 * LOCKER_WORDS {
                if self.space.get(LOCKERS + 8 * (locker / 64))? >> (locker % 64) & 1 != 0 {
                    lockers.empty(locker as u32);
                }
            }
        }
        let sides = [Side::Getters, Side::Putters].map(|side| self.bell(side));
        let rung: [(&AtomicU64, Rung); 2] = sides.map(|bell| (bell, bell::ring(bell)));
        drop(locked);
        for (bell, rung) in rung {
            bell::wake(bell, rung, super::atomic::ALL);
        }
        Ok(())
    }

    /// Sleeps until there may be an item, or room.
    pub(crate) fn sleep(&self, side: Side, armed: Armed, deadline: Deadline) {
        bell::sleep(self.bell(side), armed, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::new("multiproc-test");

    fn new() -> Store {
        Store::create(KIND, 0, None).expect("create")
    }

    /// No lockers.
    struct Nothing;

    impl Lockers for Nothing {
        type In = ();
        type Out = ();
        fn fill(&self, _: u32, (): &()) -> io::Result<bool> {
            Ok(false)
        }
        fn look(&self, _: u32) -> io::Result<()> {
            Ok(())
        }
        fn empty(&self, _: u32) {}
    }

    fn put(store: &Store, bytes: &[u8]) {
        let new = New { bytes: [bytes, &[]], beside: None, rule: Rule::Front };
        let outcome = store.put(&new, &Nothing, false, Deadline::NEVER).expect("put");
        assert!(matches!(outcome, Outcome::Done(())), "{outcome:?}");
    }

    fn take(store: &Store) -> Option<Vec<u8>> {
        match store.take(&Nothing, false, Deadline::NEVER).expect("take") {
            Outcome::Done(item) => Some(item.bytes),
            _ => None,
        }
    }

    #[test]
    fn items_of_all_sizes_come_back_as_they_went() {
        let store = new();
        let other = Store::open(store.object().clone(), KIND, 0).expect("open");
        let item = |len: usize| (0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        let lens = [0, 1, 24, 25, 100, 4000, 4096, 60_000, 1 << 16, 1 << 20, (5 << 20) + 3];
        for len in lens {
            put(&store, &item(len));
        }
        assert_eq!(other.len(), lens.len() as u64);
        for len in lens.into_iter().rev() {
            assert!(take(&other) == Some(item(len)), "{len}");
        }
        assert_eq!(take(&other), None);
    }

    #[test]
    fn what_large_items_needed_goes_back_when_they_are_taken() {
        let store = new();
        for _ in 0..3 {
            put(&store, &vec![1; 16 << 20]);
        }
        assert!(store.space.memory_len().expect("stat") > 48 << 20);
        while take(&store).is_some() {}
        assert!(store.space.memory_len().expect("stat") < 1 << 20);
    }

    #[test]
    fn the_memory_of_small_items_is_used_again() {
        let store = new();
        for _ in 0..1000 {
            for len in [10, 100, 10_000] {
                put(&store, &vec![2; len]);
            }
            while take(&store).is_some() {}
        }
        assert!(store.space.memory_len().expect("stat") < 1 << 18);
    }

    #[test]
    fn whoever_finds_the_lock_of_a_dead_one_undoes_what_it_did() {
        let store = new();
        put(&store, b"one");
        let before = (store.len(), store.count(PUT));
        let mut change = Change::begin(&store.space, JOURNAL_AT).expect("begin");
        change.set(ROOT, 0).expect("set");
        change.add(ITEMS, 7).expect("set");
        std::mem::forget(change);
        store.word(LOCK).store(owner::dead::thread(), Release);
        let looks = store.clone();
        assert_eq!((looks.len(), looks.counts().deaths), (1, 1), "who only looks sees no half");
        store.word(LOCK).store(owner::dead::thread(), Release);
        assert_eq!(take(&store).as_deref(), Some(&b"one"[..]));
        let counts = store.counts();
        assert_eq!((counts.len + 1, counts.put), before);
        assert_eq!((counts.deaths, counts.taken, counts.lost), (2, 1, 0));
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let store = new();
        put(&store, b"one");
        let root = Place::of(store.count(ROOT)).expect("a place").expect("an item");
        for lie in [17, 1 << 19, 1 << 30, u64::MAX] {
            store.space.set(root.body(ITEM_LEN), lie).expect("set");
            assert!(store.take(&Nothing, false, Deadline::NEVER).is_err(), "{lie}");
        }
        assert!(!lock::is_held(store.word(LOCK)));
    }
}
