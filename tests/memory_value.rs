//! `Value`, `RawValue`, `AtomicValue`: one value that several processes change.

mod common;

use bytemuck::{Pod, Zeroable};
use common::{wait_until, watchdog};
use multiproc::{AtomicValue, Condition, Pool, Process, RawValue, StartMethod, Value};
use std::time::Duration;

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Account {
    balance: i64,
    transfers: u32,
    flags: [u8; 4],
}

#[test]
fn a_struct_is_updated_by_many_processes_and_none_is_lost() {
    watchdog();
    let start = Account { balance: 100, transfers: 0, flags: [1, 2, 3, 4] };
    let account = Value::new(start).expect("memory");
    let earn = |account: Value<Account>, times: u32| {
        for _ in 0..times {
            let update = account.update(|account| {
                account.balance += 2;
                account.transfers += 1;
            });
            update.expect("nobody dies");
        }
    };
    for method in METHODS {
        let start = || {
            let builder = Process::builder(earn, (account.clone(), 2000)).start_method(method);
            builder.spawn().expect("spawn")
        };
        let processes = [start(), start(), start()];
        processes.into_iter().for_each(|mut process| process.join().expect("join"));
    }
    let expected = Account { balance: 100 + 24_000, transfers: 12_000, flags: [1, 2, 3, 4] };
    assert_eq!(account.get().expect("nobody died"), expected);
}

#[test]
fn a_guard_keeps_others_out_and_gives_access_in_place() {
    watchdog();
    let value = Value::new([0u64; 4]).expect("memory");
    let mut guard = value.lock().expect("new");
    guard[3] = 7;
    assert!(value.is_locked());
    let look = |value: Value<[u64; 4]>| {
        let none = value.try_lock().expect("the owner lives").is_none();
        let timeout = Duration::from_millis(1);
        let late = value.lock_timeout(timeout).expect("the owner lives").is_none();
        (none, late)
    };
    let seen = Process::spawn(look, (value.clone(),)).expect("spawn").join().expect("join");
    assert_eq!(seen, (true, true));
    drop(guard);
    assert!(!value.is_locked());
    let guard = value.lock_timeout(Duration::MAX).expect("nobody died").expect("for ever");
    assert_eq!((*guard, format!("{guard:?}")), ([0, 0, 0, 7], "[0, 0, 0, 7]".to_owned()));
}

#[test]
fn a_condition_waits_with_the_guard_of_a_value() {
    watchdog();
    let (value, changed) = (Value::new(0u32).expect("memory"), Condition::new().expect("memory"));
    let count = |value: Value<u32>, changed: Condition| {
        for _ in 0..3 {
            value.update(|value| *value += 1).expect("nobody dies");
            changed.notify_one();
        }
    };
    let mut process = Process::spawn(count, (value.clone(), changed.clone())).expect("spawn");
    let guard = value.lock().expect("nobody dies");
    let guard = changed.wait_while(guard, |value| *value < 3).expect("nobody died");
    assert_eq!(*guard, 3);
    process.join().expect("join");
}

#[test]
fn a_result_or_a_context_is_the_same_value() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let made = pool.apply(|| Value::new(5u8).expect("memory"), ()).expect("apply");
    let add = |value: &Value<u8>, number: u8| value.update(|value| *value += number).is_ok();
    assert_eq!(pool.map_with(&made, add, [1, 2, 3]).expect("map"), [true; 3]);
    assert_eq!(made.get().expect("nobody died"), 11);
}

#[test]
fn values_are_inherited_by_a_fork() {
    watchdog();
    let child = || {
        let (value, raw) = (Value::new(1u32).expect("memory"), RawValue::new(2u8).expect("memory"));
        let atomic = AtomicValue::new(3i64).expect("memory");
        let handles = (value.clone(), raw.clone(), atomic.clone());
        let forked = Process::fork(move || {
            let (value, raw, atomic) = handles;
            value.set(10).expect("nobody died");
            raw.set(20);
            atomic.fetch_add(30);
        });
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        forked.fork_with_threads(risk).spawn().expect("fork").join().expect("join");
        (value.get().expect("nobody died"), raw.get(), atomic.get())
    };
    let seen = Process::spawn(child, ()).expect("spawn").join().expect("join");
    assert_eq!(seen, (10, 20, 33));
}

#[test]
fn a_raw_number_is_never_torn() {
    watchdog();
    let value = RawValue::new(0u64).expect("memory");
    let stop = AtomicValue::new(false).expect("memory");
    let write = |value: RawValue<u64>, stop: AtomicValue<bool>| {
        while !stop.get() {
            value.set(u64::MAX);
            value.set(0);
        }
    };
    let mut process = Process::spawn(write, (value.clone(), stop.clone())).expect("spawn");
    let mut seen = [false; 2];
    wait_until("both values were seen", || {
        for _ in 0..1000 {
            let now = value.get();
            assert!(now == 0 || now == u64::MAX, "{now:x}");
            seen[usize::from(now == 0)] = true;
        }
        seen == [true; 2]
    });
    stop.set(true);
    process.join().expect("join");
}

#[test]
fn raw_values_of_any_plain_type_go_both_ways() {
    watchdog();
    let account = RawValue::new(Account { balance: 1, transfers: 2, flags: [3; 4] });
    let account = account.expect("memory");
    let change = |account: RawValue<Account>| {
        let before = account.get();
        account.set(Account { balance: -before.balance, ..before });
    };
    Process::spawn(change, (account.clone(),)).expect("spawn").join().expect("join");
    let expected = Account { balance: -1, transfers: 2, flags: [3; 4] };
    assert_eq!(account.get(), expected);
    assert!(format!("{account:?}").contains("balance: -1"));
}

#[test]
fn atomic_counters_of_every_width_lose_nothing_and_wrap_around() {
    watchdog();
    let byte = AtomicValue::new(250u8).expect("memory");
    let short = AtomicValue::new(-3i16).expect("memory");
    let word = AtomicValue::new(0usize).expect("memory");
    let sum = AtomicValue::new(0.5f64).expect("memory");
    type All = (AtomicValue<u8>, AtomicValue<i16>, AtomicValue<usize>, AtomicValue<f64>);
    let count = |(byte, short, word, sum): All| {
        for _ in 0..1000 {
            byte.fetch_add(1);
            short.fetch_sub(2);
            word.fetch_add(3);
            sum.fetch_add(0.25);
        }
    };
    let all = || (byte.clone(), short.clone(), word.clone(), sum.clone());
    let processes = [(); 3].map(|()| Process::spawn(count, (all(),)).expect("spawn"));
    processes.into_iter().for_each(|mut process| process.join().expect("join"));
    assert_eq!(byte.get(), 250u8.wrapping_add((3000 % 256) as u8));
    assert_eq!((short.get(), word.get(), sum.get()), (-6003, 9000, 750.5));
}

#[test]
fn the_operations_of_atomic_values() {
    watchdog();
    let number = AtomicValue::new(0i8).expect("memory");
    number.store(5);
    assert_eq!(number.load(), 5);
    assert_eq!((number.swap(-7), number.get()), (5, -7));
    assert_eq!(number.compare_exchange(5, 1), Err(-7));
    assert_eq!(number.compare_exchange(-7, i8::MAX), Ok(-7));
    assert_eq!((number.fetch_add(1), number.get()), (i8::MAX, i8::MIN));
    assert_eq!((number.fetch_sub(1), number.get()), (i8::MIN, i8::MAX));
    assert_eq!(number.compare_exchange(i8::MAX, -1), Ok(i8::MAX), "after wrapping around");
    assert_eq!((number.fetch_and(0x0f), number.fetch_or(0x30), number.fetch_xor(1)), (-1, 15, 63));
    assert_eq!((number.fetch_max(9), number.fetch_min(9), number.get()), (62, 62, 9));
    assert_eq!(number.fetch_update(|n| (n > 10).then_some(0)), Err(9));
    assert_eq!((number.update(|n| n * 2), number.get()), (9, 18));
    let flag = AtomicValue::new(false).expect("memory");
    assert_eq!((flag.swap(true), flag.fetch_and(false), flag.fetch_or(true)), (false, true, false));
    assert_eq!((flag.fetch_xor(true), flag.get()), (true, false));
    assert_eq!(
        (flag.compare_exchange(false, true), format!("{flag:?}")),
        (Ok(false), "AtomicValue(true)".to_owned())
    );
    let float = AtomicValue::new(-0.0f32).expect("memory");
    assert!(float.compare_exchange(0.0, 1.0).is_err(), "other bits");
    float.set(f32::NAN);
    assert!(float.compare_exchange(f32::NAN, 1.0).is_ok());
    assert_eq!((float.fetch_max(2.5), float.fetch_min(-1.0), float.get()), (1.0, 2.5, -1.0));
}

#[test]
fn a_panic_in_an_update_leaves_the_value_and_is_told() {
    watchdog();
    let value = Value::new(4u32).expect("memory");
    let fail = |value: Value<u32>| {
        let _ = value.update(|value| {
            *value = 99;
            panic!("in the middle")
        });
    };
    let mut process = Process::builder(fail, (value.clone(),));
    process = process.stderr(multiproc::Stdio::Null);
    assert!(process.spawn().expect("spawn").join().expect_err("it panicked").is_panic());
    let error = value.get().expect_err("the news");
    assert!(error.is_owner_died(), "{error}");
    assert_eq!(value.get().expect("told before"), 4);
}
