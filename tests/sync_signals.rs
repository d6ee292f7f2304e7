//! Signals that interrupt every sleep: whoever waits still finds the dead.

mod common;

use common::sync::{kill, start};
use common::{wait_until, watchdog};
use multiproc::{Barrier, Condition, Event, Latch, Lock, Mutex, RwLock, Semaphore};
use std::sync::Once as Start;
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
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        while stopped
            .recv_timeout(Duration::from_micros(700))
            .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            // SAFETY: the target joins this thread before it ends.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
        }
    });
    Interrupter(Some((stop, thread)))
}

struct Interrupter(Option<(std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

impl Drop for Interrupter {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Kills a process when this thread has waited long enough for its naps to be longer than the time
/// between two signals, does what is to be done `then`, and returns what the wait returned.
fn wait_for_one_who_is_killed<R>(
    holder: multiproc::Process<()>,
    then: impl FnOnce() + Send + 'static,
    wait: impl FnOnce() -> R,
) -> R {
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        kill(holder);
        then();
    });
    let interrupter = interrupt_me();
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
