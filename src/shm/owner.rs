//! Owner words: who holds something in shared memory, and whether they still live.
//!
//! A word is 0 while nobody holds the thing. Otherwise its lower half is the id of the owner's
//! thread and the marks below, and its upper half is when that thread was started, so that an id
//! that the kernel gave out again is not taken for the owner. The lower half is also the futex.
//!
//! Who died is judged by positive proof only: the kernel knows no such thread, or one that was
//! started at another time, or a zombie. If `/proc` cannot be read (hidepid, no descriptors left)
//! an owner counts as alive until its id is gone. Ids mean something in one pid namespace only, and
//! start times in one time namespace: objects must not be shared across either.

use super::atomic::Word64;
use crate::owner_died::Dead;
use crate::sys::{identity, procfs};
use std::sync::atomic::Ordering;

/// Somebody sleeps until the word changes.
pub(crate) const WAITERS: u64 = 1 << 31;
/// Nobody holds it, but the last owner, who is still named, did not give it back properly.
const ABANDONED: u64 = 1 << 30;
/// The owner is a process, named by its first thread, and lives as long as any thread of it does.
const PROCESS: u64 = 1 << 29;
/// With `ABANDONED`: the last owner panicked, and may live on.
const PANICKED: u64 = 1 << 28;
/// The kernel's ids have at most 22 bits.
const ID: u64 = (1 << 28) - 1;

/// This thread as an owner.
#[inline]
pub(crate) fn me() -> u64 {
    identity::thread()
}

/// Who owns a lock of data that the caller takes: the process, if there are data; the thread, if
/// `T` is `()`, which stands for none.
///
/// A thread can end and leave behind what it borrowed for ever (by a leaked guard) to other
/// threads. So while anybody of its process lives, data that it locked are not lent again.
#[inline]
pub(crate) fn me_of<T>() -> u64 {
    if size_of::<T>() == 0 { me() } else { my_process() }
}

/// This process as an owner.
#[inline]
pub(crate) fn my_process() -> u64 {
    identity::process() | PROCESS
}

/// Whether the owner is a process, not a thread.
pub(crate) fn is_process(word: u64) -> bool {
    word & PROCESS != 0
}

/// Whether a word with this value can be taken at once.
#[inline]
pub(crate) fn is_free(word: u64) -> bool {
    word == 0 || word & ABANDONED != 0
}

/// The word of something whose owner, named by `word`, died; free, but with the news.
pub(crate) fn abandoned(word: u64) -> u64 {
    word & !(WAITERS | PANICKED) | ABANDONED
}

/// As [`abandoned`], of something whose owner panicked.
pub(crate) fn abandoned_in_panic(word: u64) -> u64 {
    abandoned(word) | PANICKED
}

/// The free word that tells of this death.
pub(crate) fn abandoned_by(dead: Dead) -> u64 {
    let panicked = if dead.panicked { PANICKED } else { 0 };
    u64::from(dead.thread) & ID | ABANDONED | panicked
}

/// The news that comes with taking something whose word was `word`.
#[inline]
pub(crate) fn news(word: u64) -> Option<Dead> {
    if word == 0 { None } else { Some(named(word)) }
}

/// The owner that `word` names, as a dead one.
pub(crate) fn named(word: u64) -> Dead {
    Dead {
        thread: (word & ID) as u32,
        panicked: word & (ABANDONED | PANICKED) == ABANDONED | PANICKED,
    }
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Ask the kernel for the id: 0.2 us, and finds whoever has been reaped.
    Quick,
    /// Read `/proc`: 10 us, and also finds zombies and owners of an id that was given out again.
    Close,
}

/// Whether the owner that `word` names is known to be dead, or has abandoned what it had.
pub(crate) fn is_dead(word: u64, look: Look) -> bool {
    let id = (word & ID) as u32;
    if word & ABANDONED != 0 || !identity::exists(id) {
        return true;
    }
    if look == Look::Quick {
        return false;
    }
    let Some(thread) = procfs::thread(id) else {
        return !identity::exists(id);
    };
    let started = (word >> 32) as u32;
    if started != 0 && started != (thread.started as u32).max(1) {
        return true;
    }
    match thread.state {
        // A process goes on while threads other than its first do.
        b'Z' => word & PROCESS == 0 || thread.siblings <= 1,
        b'X' | b'x' => true,
        _ => false,
    }
}

/// Puts `me` in the place of an owner that is known to be dead.
pub(crate) fn replace_dead<W: Word64>(word: &W, seen: u64, me: u64) -> bool {
    word.load(Ordering::Relaxed) == seen && word.compare_exchange(seen, me).is_ok()
}

/// Owners for tests of what becomes of the things of the dead.
#[cfg(test)]
pub(crate) mod dead {
    use super::*;

    /// A thread that has ended.
    pub(crate) fn thread() -> u64 {
        let dead = std::thread::spawn(me).join().expect("join");
        while !is_dead(dead, Look::Close) {
            // The kernel lets go of a joined thread a moment later.
            std::thread::yield_now();
        }
        dead
    }

    /// A process that has ended.
    pub(crate) fn process() -> u64 {
        thread() | PROCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_thread_lives_and_a_joined_one_is_dead() {
        assert!(!is_dead(me(), Look::Close) && !is_dead(my_process(), Look::Close));
        assert!(is_dead(dead::thread(), Look::Close) && is_dead(dead::process(), Look::Close));
    }

    #[test]
    fn who_has_abandoned_something_counts_as_dead_for_it() {
        assert!(is_dead(abandoned_in_panic(my_process()), Look::Quick));
        assert!(is_process(abandoned_in_panic(my_process())));
    }

    #[test]
    fn an_id_that_was_given_out_again_is_not_its_former_owner() {
        let former = me() - (1 << 32);
        assert!(!is_dead(former, Look::Quick) && is_dead(former, Look::Close));
    }

    #[test]
    fn an_owner_without_a_known_start_is_judged_by_its_id() {
        assert!(!is_dead(me() & ID, Look::Close));
        assert!(is_dead(ID, Look::Close) && is_dead(1 << 40, Look::Quick));
    }

    #[test]
    fn an_abandoned_word_is_free_and_names_who_left_it() {
        let word = abandoned_in_panic(me() | WAITERS);
        assert!(is_free(word) && !is_free(me()));
        assert_eq!(news(word), Some(Dead { thread: me() as u32, panicked: true }));
        assert_eq!(news(0), None);
        assert!(!named(abandoned(me())).panicked);
    }
}
