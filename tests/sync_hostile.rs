//! A peer that writes random words all over an object: the others may get wrong answers, but what
//! they call with a timeout returns, and nobody is led outside of the memory.

mod common;

use common::scribble::under_fire;
use multiproc::{
    Barrier, BoundedSemaphore, Condition, Event, Latch, Lock, Mutex, Once, RLock, RwLock, Semaphore,
};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);

#[test]
fn lock() {
    under_fire(&Lock::new().unwrap(), "multiproc-lock", |lock| {
        let _ = lock.try_lock();
        drop(lock.lock_timeout(SHORT));
        let _ = lock.release();
        let _ = (lock.acquire_timeout(SHORT), lock.is_locked());
    });
}

#[test]
fn mutex() {
    under_fire(&Mutex::new([0_u64; 64]).unwrap(), "multiproc-mutex", |mutex| {
        match mutex.lock_timeout(SHORT) {
            Ok(Some(mut guard)) => guard[63] = guard[0] & 1,
            Ok(None) => {}
            Err(died) => died.into_guard()[7] = 1,
        }
    });
}

#[test]
fn rwlock() {
    under_fire(&RwLock::new([0_u64; 64]).unwrap(), "multiproc-rwlock", |lock| {
        drop(lock.read_timeout(SHORT));
        drop(lock.try_read());
        drop(lock.try_write());
        if let Ok(Some(mut guard)) = lock.write_timeout(SHORT) {
            guard[1] = 1;
        }
    });
}

#[test]
fn rlock() {
    under_fire(&RLock::new().unwrap(), "multiproc-rlock", |lock| {
        let first = lock.lock_timeout(SHORT);
        let second = lock.try_lock();
        drop((first, second));
        let _ = (lock.acquire_timeout(SHORT), lock.release(), lock.release());
    });
}

#[test]
fn semaphores() {
    under_fire(&Semaphore::new(3).unwrap(), "multiproc-semaphore", |semaphore| {
        let first = semaphore.acquire_timeout(SHORT);
        let second = semaphore.try_acquire();
        drop((first, second));
        let _ = (semaphore.release(2), semaphore.acquire_raw_timeout(SHORT));
    });
    under_fire(&BoundedSemaphore::new(3).unwrap(), "multiproc-bounded", |semaphore| {
        drop(semaphore.acquire_timeout(SHORT));
        let _ = (semaphore.release(1), semaphore.available());
    });
}

#[test]
fn event() {
    under_fire(&Event::new().unwrap(), "multiproc-event", |event| {
        event.wait_timeout(SHORT);
        event.clear();
        event.wait_timeout(SHORT);
        event.set();
    });
}

#[test]
fn condition() {
    let lock = Mutex::new(0_u32).unwrap();
    under_fire(&Condition::new().unwrap(), "multiproc-condition", |condition| {
        let guard = lock.lock().expect("nobody scribbles over the mutex");
        drop(condition.wait_timeout(guard, SHORT).expect("nobody dies"));
        condition.notify_one();
        condition.notify_all();
    });
}

#[test]
fn barrier_and_latch() {
    under_fire(&Barrier::new(2).unwrap(), "multiproc-barrier", |barrier| {
        let _ = (barrier.wait_timeout(SHORT), barrier.n_waiting(), barrier.is_broken());
    });
    under_fire(&Latch::new(2).unwrap(), "multiproc-latch", |latch| {
        let _ = (latch.wait_timeout(SHORT), latch.count());
    });
}

#[test]
fn once() {
    under_fire(&Once::new().unwrap(), "multiproc-once", |once| {
        let _ = once.is_completed();
    });
}
