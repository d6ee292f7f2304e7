//! Processes that are killed in the middle of something: nobody else is harmed, and whoever comes
//! next is told what it must know.

mod common;

use common::{wait_until, watchdog};
use multiproc::{Array, AtomicValue, FrozenVec, Pool, Process, SharedVec, Value};

fn for_ever() {
    loop {
        std::thread::park();
    }
}

/// Starts `process`, waits until it says that it is in the middle, and kills it.
fn kill_in_the_middle(process: multiproc::ProcessBuilder<()>, middle: &AtomicValue<bool>) {
    let mut process = process.spawn().expect("spawn");
    wait_until("it is in the middle", || middle.swap(false));
    process.kill().expect("kill");
    process.join().expect_err("it was killed");
}

fn flag() -> AtomicValue<bool> {
    AtomicValue::new(false).expect("memory")
}

#[test]
fn killed_in_an_update_leaves_the_value_and_the_next_one_is_told_once() {
    watchdog();
    let (value, middle) = (Value::new([1u64; 100]).expect("memory"), flag());
    let update = |value: Value<[u64; 100]>, middle: AtomicValue<bool>| {
        let _ = value.update(|value| {
            value[..50].fill(2);
            middle.set(true);
            for_ever();
        });
    };
    let set = |value: &Value<[u64; 100]>| value.set([3; 100]).map(|()| [0; 100]);
    let change = |value: &Value<[u64; 100]>| value.update(|value| *value);
    type Next = fn(&Value<[u64; 100]>) -> multiproc::Result<[u64; 100]>;
    for next in [Value::get as Next, set, change] {
        value.set([1; 100]).expect("nobody died");
        let builder = Process::builder(update, (value.clone(), middle.clone()));
        kill_in_the_middle(builder, &middle);
        let error = next(&value).expect_err("the news");
        assert!(error.is_owner_died() && error.to_string().contains("died"), "{error}");
        assert_eq!(value.get().expect("told before"), [1; 100], "the copy was lost, not the value");
    }
}

#[test]
fn killed_with_a_guard_leaves_what_it_did_and_the_next_one_gets_the_guard_with_the_news() {
    watchdog();
    let (value, middle) = (Value::new([1u64, 1]).expect("memory"), flag());
    let hold = |value: Value<[u64; 2]>, middle: AtomicValue<bool>| {
        let mut guard = value.lock().expect("nobody died");
        guard[0] = 2;
        middle.set(true);
        for_ever()
    };
    let builder = || Process::builder(hold, (value.clone(), middle.clone()));
    kill_in_the_middle(builder(), &middle);
    let died = value.lock().expect_err("the news");
    assert!(!died.panicked());
    let mut guard = died.into_guard();
    assert_eq!(*guard, [2, 1], "half changed");
    *guard = [5, 5];
    drop(guard);
    assert_eq!(value.get().expect("told before"), [5, 5]);
    // Also by the calls that do not wait.
    kill_in_the_middle(builder(), &middle);
    drop(value.try_lock().expect_err("the news"));
    kill_in_the_middle(builder(), &middle);
    drop(value.lock_timeout(std::time::Duration::from_secs(3600)).expect_err("the news"));
    assert!(!value.is_locked());
}

#[test]
fn those_who_wait_while_the_owner_is_killed_get_the_lock_and_one_is_told() {
    watchdog();
    let (array, middle) = (Array::<u32>::zeroed(10).expect("memory"), flag());
    let hold = |array: Array<u32>, middle: AtomicValue<bool>| {
        let mut guard = array.lock().expect("nobody died");
        guard[..5].fill(1);
        middle.set(true);
        for_ever()
    };
    let wait = |array: Array<u32>| match array.lock() {
        Ok(_) => 0u32,
        Err(died) => {
            died.into_guard().fill(0);
            1
        }
    };
    let mut owner: Process<()> =
        Process::spawn(hold, (array.clone(), middle.clone())).expect("spawn");
    wait_until("it holds the lock", || middle.get());
    let waiters = [(); 3].map(|()| Process::spawn(wait, (array.clone(),)).expect("spawn"));
    owner.kill().expect("kill");
    owner.join().expect_err("it was killed");
    let told: u32 = waiters.into_iter().map(|mut waiter| waiter.join().expect("join")).sum();
    assert_eq!(told, 1);
    assert_eq!(array.to_vec().expect("told before"), [0; 10], "mended");
}

#[test]
fn kills_at_random_moments_never_lose_the_invariant_without_a_word() {
    watchdog();
    let accounts = Value::new([500i64, 500]).expect("memory");
    let beats = AtomicValue::new(0u64).expect("memory");
    let transfer = |accounts: Value<[i64; 2]>, beats: AtomicValue<u64>| loop {
        let _ = accounts.update(|[from, to]| {
            *from -= 7;
            *to += 7;
        });
        beats.fetch_add(1);
    };
    let mut told = 0;
    for _ in 0..60 {
        let before = beats.get();
        let arguments = (accounts.clone(), beats.clone());
        let mut process: Process<()> = Process::spawn(transfer, arguments).expect("spawn");
        wait_until("it works", || beats.get() > before + 100);
        process.kill().expect("kill");
        process.join().expect_err("it was killed");
        match accounts.get() {
            Ok([from, to]) => assert_eq!(from + to, 1000),
            Err(error) => {
                assert!(error.is_owner_died(), "{error}");
                accounts.set([500, 500]).expect("told before");
                told += 1;
            }
        }
    }
    println!("told {told} times");
    let [from, to] = accounts.get().expect("told before");
    assert_eq!(from + to, 1000);
}

#[test]
fn killed_while_it_grows_a_vector_harms_nobody() {
    watchdog();
    let beats = AtomicValue::new(0u64).expect("memory");
    let mine = SharedVec::try_from_iter(0..10_000u64).expect("memory");
    let frozen = FrozenVec::try_from([7u8; 5000]).expect("memory");
    let grow = |vec: SharedVec<u64>, frozen: FrozenVec<u8>, beats: AtomicValue<u64>| {
        let mut vecs = vec![vec];
        loop {
            let last = vecs.last_mut().expect("one");
            last.push(1).expect("memory");
            last.reserve(last.capacity() + 1).expect("memory");
            let thawed = frozen.thaw().expect("memory");
            assert_eq!(thawed[0], 7);
            if last.len() > 10_012 {
                vecs.clear();
                vecs.push(SharedVec::try_from_iter(0..10_000).expect("memory"));
            }
            beats.fetch_add(1);
        }
    };
    for round in 0..20 {
        let before = beats.get();
        let copy = SharedVec::from_slice(&mine).expect("memory");
        let arguments = (copy, frozen.clone(), beats.clone());
        let mut process: Process<()> = Process::spawn(grow, arguments).expect("spawn");
        wait_until("it grows", || beats.get() > before + round);
        process.kill().expect("kill");
        process.join().expect_err("it was killed");
        assert!(mine.iter().copied().eq(0..10_000));
        assert!(frozen.iter().all(|byte| *byte == 7));
    }
}

#[test]
fn a_worker_that_dies_with_a_vector_leaves_the_senders_copy_readable() {
    watchdog();
    let pool = Pool::builder().workers(1).build().expect("pool");
    let crash = |vec: &SharedVec<u8>, _: u8| -> u8 {
        assert_eq!(vec.len(), 1 << 20);
        std::process::abort()
    };
    let mut vec = SharedVec::<u8>::zeroed(1 << 20).expect("memory");
    for byte in 1..4 {
        vec.fill(byte);
        assert!(pool.map_with(&vec, crash, [0]).expect_err("it crashed").is_worker_died());
        assert!(vec.iter().all(|seen| *seen == byte));
    }
}
