use super::handle::{not_made, travels};
use crate::Result;
use crate::shm::atomic::{ALL, Bed};
use crate::shm::memory::{BODY, Kind, Memory};
use crate::shm::nap::Nap;
use crate::sys::clock::Deadline;
use crate::sys::spin::Spin;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

const KIND: Kind = Kind::new("multiproc-event");
const WORD: usize = BODY;
const LEN: usize = 2 * BODY;

// The word: whether the event is set, whether somebody sleeps, and above how often it was set.
const SET: u64 = 1;
const ASLEEP: u64 = 2;
const TURN: u64 = 4;
/// What the kernel compares.
const LOW: u64 = u32::MAX as u64;

/// How long a waiter looks before it sleeps: a few times what a sleep and a wake-up cost.
const SPIN: Duration = Duration::from_micros(20);

/// A flag that processes and threads wait for: Python's `Event`.
///
/// A [`set`](Event::set) lets all go who wait at that moment, also if it is followed by a
/// [`clear`](Event::clear) at once: waiters compare how often the event was set (2^30 times later
/// they could be mistaken). Nobody owns an event, so nobody can tell that the process that should
/// have set it died; where that matters use [`wait_timeout`](Event::wait_timeout), or a
/// [`Latch`](super::Latch).
///
/// Setting and looking cost one atomic operation. A waiter looks for 20 us, then sleeps; setting
/// wakes all that sleep, with one system call, and makes none if nobody does.
///
/// ```
/// use multiproc::{Event, Process};
///
/// let start = Event::new()?;
/// let run = |start: Event| {
///     start.wait();
///     "ran".to_owned()
/// };
/// let mut runner = Process::spawn(run, (start.clone(),))?;
/// assert!(!start.is_set());
/// start.set();
/// assert_eq!(runner.join()?, "ran");
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Event(Memory);

travels!([] Event, it => it.0.object(), object => Memory::open(object, KIND, 0, LEN).map(Self));

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there is no file descriptor.
    pub fn new() -> Result<Self> {
        let memory = Memory::create(KIND, 0, 0, LEN);
        memory.map(Self).map_err(|error| not_made("event", error))
    }

    /// Sets the event and wakes all who wait. What the caller did before is seen by those who see
    /// the event set.
    pub fn set(&self) {
        set(self.0.word(WORD));
    }

    /// Clears the event: from now on who waits, waits for the next [`set`](Event::set).
    pub fn clear(&self) {
        clear(self.0.word(WORD));
    }

    /// Whether the event is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        // Acquire: what the setter did before is seen.
        self.0.word(WORD).load(Ordering::Acquire) & SET != 0
    }

    /// Waits until the event is set; at once if it is.
    pub fn wait(&self) {
        while !wait(self.0.word(WORD), Deadline::NEVER) {}
    }

    /// Waits until the event is set, for `timeout` at most; whether it was set. Zero means look.
    ///
    /// ```
    /// use multiproc::Event;
    /// use std::time::Duration;
    ///
    /// let event = Event::new()?;
    /// assert!(!event.wait_timeout(Duration::from_millis(5)));
    /// event.set();
    /// assert!(event.wait_timeout(Duration::ZERO));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        if timeout.is_zero() {
            return self.is_set();
        }
        wait(self.0.word(WORD), Deadline::after(timeout))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish()
    }
}

fn set<W: Bed>(word: &W) {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let new = match seen & SET {
            0 => ((seen & !ASLEEP).wrapping_add(TURN) & LOW) | SET,
            // Written all the same, so that what this setter did before is seen, too.
            _ => seen,
        };
        match word.compare_exchange(seen, new) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
    if seen & (SET | ASLEEP) == ASLEEP {
        word.wake(ALL);
    }
}

fn clear<W: Bed>(word: &W) {
    let mut seen = word.load(Ordering::Relaxed);
    while seen & SET != 0 {
        match word.compare_exchange(seen, seen & !SET) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

fn wait<W: Bed>(word: &W, deadline: Deadline) -> bool {
    // Acquire, here and below: what the setter did before is seen.
    let first = word.load(Ordering::Acquire);
    let passed = |seen: u64| seen & SET != 0 || (seen ^ first) & !(SET | ASLEEP) != 0;
    let mut spin = (W::LOOKS > 0).then(|| Spin::new(SPIN));
    let mut nap = Nap::new(deadline);
    loop {
        let seen = word.load(Ordering::Acquire);
        if passed(seen) {
            return true;
        }
        if spin.as_mut().is_some_and(Spin::again) {
            continue;
        }
        spin = None;
        if nap.is_over() {
            return false;
        }
        if seen & ASLEEP != 0 || word.compare_exchange(seen, seen | ASLEEP).is_ok() {
            word.sleep((seen | ASLEEP) as u32, nap.next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::atomic::model::ModelBed;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    #[test]
    fn model_a_set_followed_by_a_clear_lets_all_go_who_waited() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let word = Arc::new(ModelBed::new(0));
            let waiters = [0, 1].map(|_| {
                let word = word.clone();
                thread::spawn(move || wait(&*word, Deadline::NEVER))
            });
            set(&*word);
            clear(&*word);
            // Who came too late waits for this one.
            set(&*word);
            for waiter in waiters {
                assert!(waiter.join().expect("join"));
            }
        });
    }

    #[test]
    fn model_a_waiter_sees_what_the_setter_did() {
        loom::model(|| {
            let shared = Arc::new((ModelBed::new(0), AtomicU32::new(0)));
            let other = shared.clone();
            let setter = thread::spawn(move || {
                other.1.store(7, Ordering::Relaxed);
                set(&other.0);
            });
            wait(&shared.0, Deadline::NEVER);
            assert_eq!(shared.1.load(Ordering::Relaxed), 7);
            setter.join().expect("join");
        });
    }

    #[test]
    fn the_count_of_turns_wraps_within_what_the_kernel_compares() {
        let word = std::sync::atomic::AtomicU64::new(LOW & !(SET | ASLEEP));
        set(&word);
        assert_eq!(word.load(Ordering::Relaxed), SET);
    }
}
