//! All seats taken by the dead: whoever comes next finds room.

mod common;

use common::sync::{finish_all, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Condition, Lock, RwLock, Semaphore};
use std::mem::forget;
use std::thread;

#[test]
fn readers_find_the_seats_of_dead_readers() {
    watchdog();
    for quickly in [false, true] {
        let lock = RwLock::new(7u32).unwrap();
        let read = |lock: RwLock<u32>| (0..256).for_each(|_| forget(lock.read().unwrap()));
        let readers = [(); 4].map(|()| start(read, (lock.clone(),)));
        finish_all(readers);
        if quickly {
            wait_until("it is read", || lock.try_read().is_ok_and(|guard| guard.is_some()));
        } else {
            let guard = lock.read_timeout(PATIENCE).unwrap();
            assert_eq!(guard.map(|value| *value), Some(7));
        }
        assert!(lock.write_timeout(PATIENCE).is_ok_and(|guard| guard.is_some()));
    }
}

/// Waits with 1,024 threads at the same time, for ever.
fn wait_in_a_crowd(lock: Lock, condition: Condition, ready: Semaphore) {
    let threads: Vec<_> = std::iter::repeat_with(|| {
        let (lock, condition, ready) = (lock.clone(), condition.clone(), ready.clone());
        thread::spawn(move || {
            let guard = lock.lock().unwrap();
            ready.release(1).unwrap();
            // Nobody notifies it.
            drop(condition.wait(guard));
        })
    })
    .take(1024)
    .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn waiters_find_the_seats_of_dead_waiters() {
    watchdog();
    let (lock, condition) = (Lock::new().unwrap(), Condition::new().unwrap());
    let ready = Semaphore::new(0).unwrap();
    let crowd = start(wait_in_a_crowd, (lock.clone(), condition.clone(), ready.clone()));
    for _ in 0..1024 {
        ready.acquire_raw().unwrap();
    }
    drop(lock.lock().unwrap());
    kill(crowd);
    // Those that have no seat yet wake up every now and then.
    wait_until("there is a seat", || {
        let guard = lock.lock().unwrap_or_else(multiproc::OwnerDied::into_guard);
        let notifier = {
            let (lock, condition) = (lock.clone(), condition.clone());
            thread::spawn(move || {
                drop(lock.lock());
                condition.notify_all();
            })
        };
        let waited = condition.wait_timeout(guard, PATIENCE);
        notifier.join().unwrap();
        waited.is_ok_and(|(_, notified)| notified)
    });
}
