//! Killed while waiting: the others are let go, or told, as if the dead had never come.
//! (Locks, conditions, semaphores, barriers and readers have such tests in their own files.)

mod common;

use common::sync::{finish, in_time, kill, start, wait_until_asleep};
use common::{PATIENCE, watchdog};
use multiproc::{BoundedSemaphore, Event, Latch, Process, RLock};
use std::time::Duration;

/// A process that sleeps in `wait`, which gets the handle.
fn sleeper<H: multiproc::Data + Clone>(
    wait: impl multiproc::Function<(H, Event), Output = bool>,
    handle: &H,
) -> Process<bool> {
    let started = Event::new().unwrap();
    let process = start(wait, (handle.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    wait_until_asleep(&process);
    process
}

#[test]
fn waiting_for_an_rlock() {
    watchdog();
    let lock = RLock::new().unwrap();
    let wait = |lock: RLock, started: Event| {
        started.set();
        lock.lock().is_ok()
    };
    let outer = lock.lock().unwrap();
    let inner = lock.lock().unwrap();
    let victims = [(); 3].map(|()| sleeper(wait, &lock));
    let other = sleeper(wait, &lock);
    victims.into_iter().for_each(kill);
    drop(inner);
    assert!(lock.is_locked(), "still had once");
    drop(outer);
    assert!(finish(other));
    drop(in_time(|| lock.lock()).expect("the dead did not have it"));
    assert!(!lock.is_locked());
}

#[test]
fn waiting_for_a_bounded_semaphore() {
    watchdog();
    let places = BoundedSemaphore::new(2).unwrap();
    let wait = |places: BoundedSemaphore, started: Event| {
        started.set();
        places.acquire().is_ok()
    };
    let by_hand = |places: BoundedSemaphore, started: Event| {
        started.set();
        places.acquire_raw().is_ok()
    };
    let permits = [(); 2].map(|()| places.acquire().unwrap());
    let victims = [sleeper(wait, &places), sleeper(by_hand, &places), sleeper(wait, &places)];
    let other = sleeper(wait, &places);
    victims.into_iter().for_each(kill);
    drop(permits);
    assert!(finish(other));
    drop([(); 2].map(|()| in_time(|| places.acquire()).expect("the dead had none")));
    assert_eq!(places.available(), 2);
    assert!(places.release(1).expect_err("all are back").is_invalid_input());
}

#[test]
fn waiting_for_a_latch() {
    watchdog();
    for has_counted in [true, false] {
        let latch = Latch::new(2).unwrap();
        let count_and_wait = |latch: Latch, started: Event| {
            latch.count_down().expect("two are to come");
            started.set();
            latch.wait().is_ok()
        };
        let wait = |latch: Latch, started: Event| {
            started.set();
            latch.wait().is_ok()
        };
        let other = sleeper(wait, &latch);
        let victim =
            if has_counted { sleeper(count_and_wait, &latch) } else { sleeper(wait, &latch) };
        kill(victim);
        if has_counted {
            assert!(!latch.wait_timeout(Duration::from_millis(100)).expect("it is not missed"));
            latch.count_down().unwrap();
            latch.wait().unwrap();
        } else {
            // It had a handle, and might have counted down.
            assert!(in_time(|| latch.wait()).expect_err("it never will").is_broken());
        }
        assert_eq!(finish(other), has_counted);
    }
}
