//! Locks and signals that a forked child inherits.

mod common;

use common::isolated;
use multiproc::{Barrier, Event, Lock, Mutex, Process, RwLock, Semaphore, Stdio};
use std::process::ExitCode;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_forked_child_shares_the_lock_and_is_another_owner,
            a_guard_that_a_fork_copied_gives_back_nothing_and_reaches_nothing,
            a_permit_and_a_read_guard_that_a_fork_copied_give_back_nothing,
            a_forked_child_counts_and_signals_with_its_parent,
        ],
        &[],
    )
}

fn a_forked_child_shares_the_lock_and_is_another_owner() {
    let lock = Lock::new().unwrap();
    let guard = lock.lock().unwrap();
    let theirs = lock.clone();
    let held = move || theirs.is_locked() && theirs.try_lock().is_ok_and(|guard| guard.is_none());
    assert!(Process::fork(held).spawn().unwrap().join().unwrap());
    drop(guard);
    let theirs = lock.clone();
    let mut child = Process::fork(move || std::mem::forget(theirs.lock())).spawn().unwrap();
    let pid = child.pid();
    child.join().unwrap();
    assert_eq!(lock.lock().expect_err("it died with the lock").thread_id(), pid);
}

fn a_guard_that_a_fork_copied_gives_back_nothing_and_reaches_nothing() {
    let value: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(1).unwrap()));
    let guard = value.lock().unwrap();
    // The closure, and with it the guard, is in both processes.
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let (theirs, their_go) = (held.clone(), go.clone());
    let touch = move || {
        theirs.set();
        their_go.wait();
        *guard
    };
    let mut child = Process::fork(touch).stderr(Stdio::Null).spawn().unwrap();
    held.wait();
    let mine = value.lock().expect("the parent's copy was dropped and gave it back");
    go.set();
    assert!(child.join().expect_err("its guard is nobody's").is_panic());
    assert!(value.is_locked(), "the child's copy gave nothing back");
    drop(mine);
    assert_eq!(*value.lock().expect("no news"), 1);
}

fn a_permit_and_a_read_guard_that_a_fork_copied_give_back_nothing() {
    let places: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1).unwrap()));
    let value: &'static RwLock<u8> = Box::leak(Box::new(RwLock::new(0).unwrap()));
    let guards = (places.acquire().unwrap(), value.read().unwrap());
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let (theirs, their_go) = (held.clone(), go.clone());
    let drop_them = move || {
        theirs.set();
        their_go.wait();
        drop(guards);
    };
    let mut child = Process::fork(drop_them).spawn().unwrap();
    held.wait();
    // The parent's copies were dropped with the closure.
    let (permit, reader) = (places.try_acquire().unwrap(), value.read().unwrap());
    assert!(permit.is_some());
    go.set();
    child.join().unwrap();
    assert_eq!(places.available(), 0, "the child's copy gave nothing back");
    assert!(value.try_write().unwrap().is_none());
    drop((permit, reader));
    assert_eq!(places.available(), 1);
    assert!(value.try_write().unwrap().is_some());
}

fn a_forked_child_counts_and_signals_with_its_parent() {
    let (total, barrier) = (Mutex::new(0_u64).unwrap(), Barrier::new(2).unwrap());
    let (theirs, meet) = (total.clone(), barrier.clone());
    let count = |total: &Mutex<u64>| {
        for _ in 0..20_000 {
            *total.lock().expect("nobody dies") += 1;
        }
    };
    let mut child = Process::fork(move || {
        meet.wait().expect("whole");
        count(&theirs);
        meet.wait().expect("whole");
    })
    .spawn()
    .unwrap();
    barrier.wait().unwrap();
    count(&total);
    barrier.wait().unwrap();
    assert_eq!(*total.lock().unwrap(), 40_000);
    child.join().unwrap();
}
