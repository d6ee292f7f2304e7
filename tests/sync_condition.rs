//! `Condition`: with each kind of lock, and when waiters are killed.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, watchdog};
use multiproc::{Condition, Lock, Mutex, RLock, Semaphore};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

/// A box for one number: full or not, and the number.
type Slot = Mutex<[u64; 2]>;

#[test]
fn producers_and_consumers_lose_nothing() {
    watchdog();
    const ITEMS: u64 = 300;
    let (slot, changed) = (Slot::new([0, 0]).unwrap(), Condition::new().unwrap());
    let produce = |slot: Slot, changed: Condition, first: u64| {
        for item in first..first + ITEMS {
            let slot = slot.lock().expect("nobody dies");
            let mut slot = changed.wait_while(slot, |slot| slot[0] == 1).expect("nobody dies");
            *slot = [1, item];
            drop(slot);
            changed.notify_all();
        }
    };
    let consume = |slot: Slot, changed: Condition| {
        let mut sum = 0;
        for _ in 0..ITEMS {
            let slot = slot.lock().expect("nobody dies");
            let mut slot = changed.wait_while(slot, |slot| slot[0] == 0).expect("nobody dies");
            sum += slot[1];
            slot[0] = 0;
            drop(slot);
            changed.notify_all();
        }
        sum
    };
    let producers = [0, ITEMS].map(|first| start(produce, (slot.clone(), changed.clone(), first)));
    let consumer = start(consume, (slot.clone(), changed.clone()));
    let sum = consume(slot.clone(), changed.clone()) + finish(consumer);
    finish_all(producers);
    assert_eq!(sum, (0..2 * ITEMS).sum());
}

/// Waits once, having told that it has the lock; whoever has the lock next knows that it waits.
fn wait_once(lock: Mutex<u32>, condition: Condition, queued: Semaphore) -> bool {
    let guard = lock.lock().unwrap_or_else(multiproc::OwnerDied::into_guard);
    queued.release(1).expect("few");
    condition.wait_timeout(guard, PATIENCE).is_ok_and(|(_, notified)| notified)
}

struct Stage {
    lock: Mutex<u32>,
    condition: Condition,
    queued: Semaphore,
}

impl Stage {
    fn new() -> Self {
        let (lock, condition) = (Mutex::new(0).unwrap(), Condition::new().unwrap());
        Self { lock, condition, queued: Semaphore::new(0).unwrap() }
    }

    /// A process that waits when this returns.
    fn waiter(&self) -> multiproc::Process<bool> {
        let handles = (self.lock.clone(), self.condition.clone(), self.queued.clone());
        let process = start(wait_once, handles);
        assert!(self.queued.acquire_raw_timeout(PATIENCE).unwrap());
        drop(self.lock.lock().unwrap());
        process
    }
}

#[test]
fn notify_wakes_as_many_as_it_says_and_first_those_that_came_first() {
    watchdog();
    let stage = Stage::new();
    let [a, b, c, d] = [0; 4].map(|_| stage.waiter());
    stage.condition.notify_one();
    assert!(finish(a));
    stage.condition.notify(2);
    assert!(finish(b) && finish(c));
    assert!(d.is_alive());
    stage.condition.notify(100);
    assert!(finish(d));
    stage.condition.notify_all(); // nobody waits: nothing happens
}

#[test]
fn notify_all_wakes_all() {
    watchdog();
    let stage = Stage::new();
    let waiters = [0; 4].map(|_| stage.waiter());
    stage.condition.notify_all();
    assert_eq!(waiters.map(finish), [true; 4]);
}

#[test]
fn nothing_that_was_notified_before_wakes_who_comes_later() {
    watchdog();
    let stage = Stage::new();
    stage.condition.notify_all();
    let guard = stage.lock.lock().unwrap();
    let (guard, notified) = stage.condition.wait_timeout(guard, SHORT).unwrap();
    assert!(!notified && *guard == 0);
}

#[test]
fn a_killed_waiter_eats_no_notification() {
    watchdog();
    for _ in 0..5 {
        let stage = Stage::new();
        let (first, second) = (stage.waiter(), stage.waiter());
        // The first is stopped, so that it cannot take what it is given.
        let pid = first.pid() as i32;
        // SAFETY: a child of this process that nobody has waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        stage.condition.notify_one();
        kill(first);
        assert!(finish(second), "the notification was passed on");
    }
}

#[test]
fn waiters_that_were_killed_before_keep_nobody_from_being_notified() {
    watchdog();
    let stage = Stage::new();
    for _ in 0..4 {
        kill(stage.waiter());
    }
    let waiter = stage.waiter();
    in_time(|| stage.condition.notify_one());
    assert!(finish(waiter));
}

#[test]
fn a_waiter_hears_of_the_death_of_an_owner() {
    watchdog();
    let stage = Stage::new();
    let wait = |lock: Mutex<u32>, condition: Condition, queued: Semaphore| {
        let guard = lock.lock().expect("nobody died");
        queued.release(1).expect("few");
        condition.wait(guard).is_err_and(|news| **news.get_ref() == 1)
    };
    let handles = (stage.lock.clone(), stage.condition.clone(), stage.queued.clone());
    let waiter = start(wait, handles);
    assert!(stage.queued.acquire_raw_timeout(PATIENCE).unwrap());
    let notify_and_die = |lock: Mutex<u32>, condition: Condition| {
        let mut guard = lock.lock().expect("nobody died");
        *guard = 1;
        condition.notify_one();
        std::process::abort()
    };
    let builder = multiproc::Process::<()>::builder(
        notify_and_die,
        (stage.lock.clone(), stage.condition.clone()),
    );
    assert!(builder.spawn().expect("spawn").join().is_err());
    assert!(finish(waiter));
}

#[test]
fn it_works_with_a_lock_and_with_an_rlock_taken_twice() {
    watchdog();
    let (lock, rlock) = (Lock::new().unwrap(), RLock::new().unwrap());
    let (condition, flag) = (Condition::new().unwrap(), Mutex::new(0_u32).unwrap());
    let raise = |lock: Lock, rlock: RLock, condition: Condition, flag: Mutex<u32>| {
        for turn in 1..=2 {
            let _guards = match turn {
                1 => (lock.lock().ok(), None),
                _ => (None, rlock.lock().ok()),
            };
            *flag.lock().expect("nobody dies") = turn;
            condition.notify_all();
            drop(_guards);
            // The second turn begins when the first was seen.
            while *flag.lock().expect("nobody dies") == 1 {
                std::thread::yield_now();
            }
        }
    };
    let guard = lock.lock().unwrap();
    let handles = (lock.clone(), rlock.clone(), condition.clone(), flag.clone());
    let process = start(raise, handles);
    let seen = |wanted: u32| *flag.lock().expect("nobody dies") < wanted;
    let (guard, raised) = condition.wait_timeout_while(guard, PATIENCE, |()| seen(1)).unwrap();
    assert!(raised && lock.is_locked());
    drop(guard);
    let outer = rlock.lock().unwrap();
    let inner = rlock.lock().unwrap();
    *flag.lock().unwrap() = 0;
    let (inner, raised) = condition.wait_timeout_while(inner, PATIENCE, |()| seen(2)).unwrap();
    assert!(raised);
    drop(inner);
    assert!(rlock.is_locked(), "still had once");
    drop(outer);
    assert!(!rlock.is_locked());
    finish(process);
}

#[test]
fn a_timed_wait_for_what_does_not_come_ends_with_the_lock() {
    watchdog();
    let stage = Stage::new();
    let guard = stage.lock.lock().unwrap();
    let (guard, became) = stage.condition.wait_timeout_while(guard, SHORT, |_| true).unwrap();
    assert!(!became && stage.lock.is_locked());
    drop(guard);
    let guard = stage.lock.lock().unwrap();
    let (_guard, became) =
        stage.condition.wait_timeout_while(guard, Duration::ZERO, |value| *value == 0).unwrap();
    assert!(!became);
}
