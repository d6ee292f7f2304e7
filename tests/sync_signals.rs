//! Signals that interrupt every sleep: whoever waits still finds the dead.

mod common;

use common::processes::is_asleep;
use common::sync::{kill, start};
use common::{wait_until, watchdog};
use multiproc::{Barrier, Condition, Event, Latch, Lock, Mutex, RwLock, Semaphore};
use std::sync::Once as Start;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// From now on, until the result is dropped, this thread is interrupted more often than each
/// millisecond.
fn interrupt_me() -> Interrupter {
    static HANDLER: Start = Start::new();
    extern "C" fn ignore(_: libc::c_int) {}
    HANDLER.call_once(|| {
        // SAFETY: the handler does nothing; the structure is zero but for what is set.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        }
    });
    // SAFETY: pthread_self has no preconditions.
    let target = unsafe { libc::pthread_self() };
    let (stop, stopped) = mpsc::channel::<()>();
    let signals = Arc::new(AtomicU32::new(0));
    let sent = signals.clone();
    let thread = std::thread::spawn(move || {
        let pause = Duration::from_micros(700);
        while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: the target joins this thread before it ends.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            sent.fetch_add(1, Ordering::Relaxed);
        }
    });
    Interrupter { signals, running: Some((stop, thread)) }
}

struct Interrupter {
    /// How many signals were sent.
    signals: Arc<AtomicU32>,
    running: Option<(mpsc::Sender<()>, std::thread::JoinHandle<()>)>,
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Kills a process when this thread was interrupted so often in its wait that its naps are much
/// longer than the time between two signals, does what is to be done `then`, and returns what the
/// wait returned.
fn wait_for_one_who_is_killed<R>(
    holder: multiproc::Process<()>,
    then: impl FnOnce() + Send + 'static,
    wait: impl FnOnce() -> R,
) -> R {
    /// After so many a nap lasts for about 20 of the pauses between them.
    const MANY: u32 = 40;
    // SAFETY: gettid has no preconditions.
    let waiter = unsafe { libc::gettid() } as u32;
    let interrupter = interrupt_me();
    let signals = interrupter.signals.clone();
    let killer = std::thread::spawn(move || {
        wait_until("the wait has begun", || is_asleep(waiter));
        let before = signals.load(Ordering::Relaxed);
        wait_until("it was interrupted", || signals.load(Ordering::Relaxed) - before >= MANY);
        kill(holder);
        then();
    });
    let result = wait();
    drop(interrupter);
    killer.join().unwrap();
    result
}

fn nothing() {}

fn forever() {
    loop {
        std::thread::park();
    }
}

#[test]
fn the_death_of_an_owner_is_found() {
    watchdog();
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let hold = |lock: Lock, held: Event| {
        let _guard = lock.lock().unwrap();
        held.set();
        forever();
    };
    let holder = start(hold, (lock.clone(), held.clone()));
    held.wait();
    assert!(wait_for_one_who_is_killed(holder, nothing, || lock.lock().is_err()));
}

#[test]
fn the_death_of_a_writer_and_of_a_reader_is_found() {
    watchdog();
    let (lock, held) = (RwLock::new(0u8).unwrap(), Event::new().unwrap());
    let write = |lock: RwLock<u8>, held: Event| {
        let _guard = lock.write().unwrap();
        held.set();
        forever();
    };
    let holder = start(write, (lock.clone(), held.clone()));
    held.wait();
    assert!(wait_for_one_who_is_killed(holder, nothing, || lock.read().is_err()));
    drop(lock.write());
    held.clear();
    let read = |lock: RwLock<u8>, held: Event| {
        let _guard = lock.read().unwrap();
        held.set();
        forever();
    };
    let holder = start(read, (lock.clone(), held.clone()));
    held.wait();
    assert!(wait_for_one_who_is_killed(holder, nothing, || lock.write().is_ok()));
}

#[test]
fn the_death_of_the_holder_of_a_permit_is_found() {
    watchdog();
    let (places, held) = (Semaphore::new(1).unwrap(), Event::new().unwrap());
    let hold = |places: Semaphore, held: Event| {
        let _guard = places.acquire().unwrap();
        held.set();
        forever();
    };
    let holder = start(hold, (places.clone(), held.clone()));
    held.wait();
    assert!(wait_for_one_who_is_killed(holder, nothing, || places.acquire().is_err()));
}

#[test]
fn the_death_of_a_party_is_found() {
    watchdog();
    let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
    let ready = Event::new().unwrap();
    let stay = |_barrier: Barrier, ready: Event| {
        ready.set();
        forever();
    };
    let party = start(stay, (barrier.clone(), ready.clone()));
    ready.wait();
    assert!(wait_for_one_who_is_killed(party, nothing, || barrier.wait().unwrap_err().is_broken()));
    ready.clear();
    let stay = |_latch: Latch, ready: Event| {
        ready.set();
        forever();
    };
    let party = start(stay, (latch.clone(), ready.clone()));
    ready.wait();
    assert!(wait_for_one_who_is_killed(party, nothing, || latch.wait().unwrap_err().is_broken()));
}

#[test]
fn the_notification_of_a_dead_waiter_is_found() {
    watchdog();
    let (value, changed) = (Mutex::new(0u32).unwrap(), Condition::new().unwrap());
    let stay = |value: Mutex<u32>, changed: Condition| {
        let mut guard = value.lock().unwrap();
        *guard += 1;
        drop(changed.wait(guard));
    };
    let waiter = start(stay, (value.clone(), changed.clone()));
    wait_until("it waits", || value.lock().is_ok_and(|value| *value == 1));
    let guard = value.lock().unwrap();
    let (theirs, notified) = (value.clone(), changed.clone());
    let notify = move || {
        // The lock is free when the other one waits.
        drop(theirs.lock());
        notified.notify_one();
    };
    assert!(wait_for_one_who_is_killed(waiter, notify, || changed.wait(guard).is_ok()));
}
