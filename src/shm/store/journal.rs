//! Changes of several words that happen as a whole or not at all.
//!
//! Whoever holds the store's lock notes the old value of each word before it changes the word; one
//! store, of zero into the count of notes, makes the change final. If the process is killed before
//! that, the next one that gets the lock finds notes, and puts the old values back, the latest
//! first. It may be killed doing so: putting an old value back twice is the same as once.
//!
//! Orderings: nobody but the holder of the lock reads these words (but for counts that are only
//! looked at), so between processes the lock orders everything. What the release stores are for is
//! the program itself: a killed process has done all up to some instruction, and the compiler must
//! not move a note behind the change that it is for, or a change behind the end of the notes.

use std::io;

/// Shared memory as words, in reality or in a test.
pub(crate) trait Space {
    /// The value of the word at a byte.
    fn get(&self, at: u64) -> io::Result<u64>;
    /// Changes the word, after everything that was changed before.
    fn set(&self, at: u64, value: u64) -> io::Result<()>;
    /// Sees to it that a range has memory.
    fn reserve(&self, at: u64, len: u64) -> io::Result<()>;
}

/// The most words that one change can change: a path down the tree of items, and a few more.
pub(crate) const MAX_NOTES: u64 = 400;
/// The bytes of a journal.
pub(crate) const JOURNAL: u64 = 16 + 16 * MAX_NOTES;

/// A change that is being made; undone on drop, unless it was kept.
#[derive(Debug)]
pub(crate) struct Change<'a, S: Space> {
    space: &'a S,
    journal: u64,
    notes: u64,
}

impl<'a, S: Space> Change<'a, S> {
    /// Begins a change, after undoing one that its maker did not live to keep. The caller holds
    /// the lock.
    pub(crate) fn begin(space: &'a S, journal: u64) -> io::Result<Self> {
        let left = space.get(journal)?;
        if left != 0 {
            undo(space, journal, left)?;
        }
        Ok(Self { space, journal, notes: 0 })
    }

    /// The value of a word.
    #[inline]
    pub(crate) fn get(&self, at: u64) -> io::Result<u64> {
        self.space.get(at)
    }

    /// Changes a word.
    ///
    /// # Errors
    /// If there is no such word, or the journal is full: in a sane store it never is.
    pub(crate) fn set(&mut self, at: u64, value: u64) -> io::Result<()> {
        let old = self.space.get(at)?;
        if self.notes >= MAX_NOTES {
            return Err(damaged());
        }
        let note = self.journal + 16 + 16 * self.notes;
        self.space.set(note, at)?;
        self.space.set(note + 8, old)?;
        self.space.set(self.journal, self.notes + 1)?;
        self.notes += 1;
        self.space.set(at, value)
    }

    /// Adds to a word.
    pub(crate) fn add(&mut self, at: u64, value: u64) -> io::Result<()> {
        let old = self.get(at)?;
        self.set(at, old.wrapping_add(value))
    }

    /// As [`Space::reserve`]; it is not undone.
    pub(crate) fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
        self.space.reserve(at, len)
    }

    /// Makes the change final.
    pub(crate) fn keep(mut self) -> io::Result<()> {
        self.space.set(self.journal, 0)?;
        self.notes = 0;
        Ok(())
    }
}

impl<S: Space> Drop for Change<'_, S> {
    fn drop(&mut self) {
        if self.notes > 0 {
            // The words are those that were changed just now, so they are there.
            let _ = undo(self.space, self.journal, self.notes);
        }
    }
}

/// Puts the old values back.
fn undo<S: Space>(space: &S, journal: u64, notes: u64) -> io::Result<()> {
    for number in (0..notes.min(MAX_NOTES)).rev() {
        let note = journal + 16 + 16 * number;
        let (at, old) = (space.get(note)?, space.get(note + 8)?);
        // A place that is none was noted by nobody who keeps the protocol.
        let _ = space.set(at, old);
    }
    space.set(journal, 0)
}

/// The error for words that cannot be by the protocol.
#[cold]
pub(crate) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the shared memory of the queue is damaged")
}

#[cfg(test)]
pub(crate) mod model {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    /// A space whose user is killed after so many changes of words.
    #[derive(Debug, Default)]
    pub(crate) struct Mortal {
        words: RefCell<BTreeMap<u64, u64>>,
        left: Cell<Option<u64>>,
        /// How far memory was ever reserved.
        pub(crate) reserved: Cell<u64>,
    }

    /// What a killed one unwinds with.
    struct Killed;

    impl Mortal {
        /// Runs `act`, which is killed after `changes` changes of words; whether it came through.
        pub(crate) fn live_for(&self, changes: u64, act: impl FnOnce()) -> bool {
            self.left.set(Some(changes));
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            self.left.set(None);
            match outcome {
                Ok(()) => true,
                Err(payload) if payload.is::<Killed>() => false,
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }

        /// What is in the words, but for those of the journal, which may hold anything.
        pub(crate) fn snapshot(&self, journal: u64) -> BTreeMap<u64, u64> {
            let words = self.words.borrow();
            let kept = words.iter().filter(|&(at, value)| {
                *value != 0 && !(journal + 16..journal + JOURNAL).contains(at)
            });
            kept.map(|(at, value)| (*at, *value)).collect()
        }
    }

    impl Space for Mortal {
        fn get(&self, at: u64) -> io::Result<u64> {
            Ok(self.words.borrow().get(&at).copied().unwrap_or(0))
        }

        fn set(&self, at: u64, value: u64) -> io::Result<()> {
            match self.left.get() {
                // Dead: what is dropped while it unwinds changes nothing.
                Some(0) if std::thread::panicking() => return Ok(()),
                Some(0) => std::panic::resume_unwind(Box::new(Killed)),
                Some(left) => self.left.set(Some(left - 1)),
                None => {}
            }
            self.words.borrow_mut().insert(at, value);
            Ok(())
        }

        fn reserve(&self, at: u64, len: u64) -> io::Result<()> {
            self.reserved.set(self.reserved.get().max(at + len));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::model::Mortal;
    use super::*;

    const AT: u64 = 1 << 12;

    fn change_three(space: &Mortal) {
        let mut change = Change::begin(space, AT).expect("begin");
        change.set(8, 10).expect("set");
        change.set(16, 20).expect("set");
        change.set(8, 30).expect("set");
        change.keep().expect("keep");
    }

    #[test]
    fn a_change_that_is_killed_at_any_store_is_made_as_a_whole_or_not_at_all() {
        let mut outcomes = [0, 0];
        for life in 0.. {
            let space = Mortal::default();
            space.set(8, 1).expect("set");
            space.set(16, 2).expect("set");
            let through = space.live_for(life, || change_three(&space));
            // Whoever mends is killed at any store as well, again and again.
            let mut mends = 0;
            while !space.live_for(mends, || drop(Change::begin(&space, AT).expect("begin"))) {
                mends += 1;
            }
            let now = [8, 16].map(|at| space.get(at).expect("get"));
            assert!(now == [1, 2] || now == [30, 20], "{now:?} after {life} stores");
            outcomes[usize::from(now == [30, 20])] += 1;
            if through {
                break;
            }
        }
        assert!(outcomes[0] > 9 && outcomes[1] == 1, "{outcomes:?}");
    }

    #[test]
    fn a_change_that_is_given_up_is_undone() {
        let space = Mortal::default();
        let mut change = Change::begin(&space, AT).expect("begin");
        change.set(8, 1).expect("set");
        change.set(8, 2).expect("set");
        drop(change);
        assert!(space.snapshot(AT).is_empty());
    }

    #[test]
    fn a_full_journal_is_an_error_and_forged_notes_are_bounded() {
        let space = Mortal::default();
        let mut change = Change::begin(&space, AT).expect("begin");
        for _ in 0..MAX_NOTES {
            change.set(8, 1).expect("set");
        }
        assert!(change.set(8, 1).is_err());
        drop(change);
        space.set(AT, u64::MAX).expect("set");
        drop(Change::begin(&space, AT).expect("begin"));
        assert_eq!(space.get(AT).expect("get"), 0);
    }
}
