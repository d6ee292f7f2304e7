//! Guards that are leaked: a reference that outlives its thread stays the only one.

mod common;

use common::watchdog;
use multiproc::{Array, Mutex, RwLock, Value};
use std::mem::forget;
use std::sync::mpsc;
use std::thread;

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

/// Runs `borrow` on a thread that ends with the guard that it leaks, and returns the reference.
fn outlive<R: Send + 'static>(borrow: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(borrow()).unwrap()).join().unwrap();
    receive.recv().unwrap()
}

#[test]
fn a_value_that_is_borrowed_for_ever_is_not_lent_again_when_the_thread_ends() {
    watchdog();
    let mutex: &'static Mutex<u64> = leak(Mutex::new(7).unwrap());
    let borrowed: &'static mut u64 = outlive(|| &mut **leak(mutex.lock().unwrap()));
    for _ in 0..3 {
        assert!(mutex.try_lock().is_ok_and(|guard| guard.is_none()), "lent a second time");
    }
    *borrowed += 1;
    let value: &'static Value<u64> = leak(Value::new(7).unwrap());
    let borrowed: &'static mut u64 = outlive(|| &mut **leak(value.lock().unwrap()));
    assert!(value.try_lock().is_ok_and(|guard| guard.is_none()), "lent a second time");
    *borrowed += 1;
    let array: &'static Array<u64> = leak(Array::zeroed(2).unwrap());
    let borrowed: &'static mut [u64] = outlive(|| &mut **leak(array.lock().unwrap()));
    assert!(array.try_lock().is_ok_and(|guard| guard.is_none()), "lent a second time");
    borrowed[1] += 1;
}

#[test]
fn a_value_that_is_read_for_ever_is_not_written_when_the_thread_ends() {
    watchdog();
    let lock: &'static RwLock<u64> = leak(RwLock::new(7).unwrap());
    let read: &'static u64 = outlive(|| &**leak(lock.read().unwrap()));
    for _ in 0..3 {
        assert!(lock.try_write().is_ok_and(|guard| guard.is_none()), "written while it is read");
    }
    assert_eq!((*read, lock.read().map(|guard| *guard).ok()), (7, Some(7)));
    let lock: &'static RwLock<u64> = leak(RwLock::new(7).unwrap());
    let written: &'static mut u64 = outlive(|| &mut **leak(lock.write().unwrap()));
    assert!(lock.try_read().is_ok_and(|guard| guard.is_none()), "read while it is written");
    assert!(lock.try_write().is_ok_and(|guard| guard.is_none()), "written twice");
    *written += 1;
}

#[test]
fn what_a_process_leaked_comes_back_when_the_process_ends() {
    watchdog();
    let mutex = Mutex::new(7u64).unwrap();
    let leak = |mutex: Mutex<u64>| {
        let keep = move || forget(mutex.lock().unwrap());
        thread::spawn(keep).join().unwrap();
    };
    common::sync::finish(common::sync::start(leak, (mutex.clone(),)));
    drop(mutex.lock().expect_err("its owner died"));
    assert_eq!(*mutex.lock().expect("the news came once"), 7);
}
