//! `Array` and `RawArray`: elements that several processes change.

mod common;

use common::watchdog;
use multiproc::{Array, Pool, Process, RawArray, StartMethod};
use std::time::Duration;

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

#[test]
fn elements_are_counted_by_many_processes_and_none_is_lost() {
    watchdog();
    let counts = Array::<u64>::zeroed(8).expect("memory");
    let count = |counts: Array<u64>, seed: usize| {
        for step in 0..1600 {
            counts.update((step + seed) % 8, |count| *count += 1).expect("nobody dies");
        }
    };
    for method in METHODS {
        let start = |seed| {
            let builder = Process::builder(count, (counts.clone(), seed)).start_method(method);
            builder.spawn().expect("spawn")
        };
        [start(0), start(3)].into_iter().for_each(|mut process| process.join().expect("join"));
    }
    assert_eq!(counts.to_vec().expect("nobody died"), [800; 8]);
}

#[test]
fn the_guard_is_the_whole_slice() {
    watchdog();
    let array = Array::try_from([5.0f32, 1.0, 3.0]).expect("memory");
    let sort = |array: Array<f32>| {
        array.lock().expect("nobody died").sort_by(f32::total_cmp);
    };
    Process::spawn(sort, (array.clone(),)).expect("spawn").join().expect("join");
    let guard = array.lock().expect("nobody died");
    assert_eq!(
        (&guard[..], format!("{guard:?}")),
        (&[1.0, 3.0, 5.0][..], "[1.0, 3.0, 5.0]".into())
    );
    let look = |array: Array<f32>| {
        let none = array.try_lock().expect("the owner lives").is_none();
        let late = array.lock_timeout(Duration::from_millis(1)).expect("it lives").is_none();
        (none, late, array.is_locked())
    };
    let seen = Process::spawn(look, (array.clone(),)).expect("spawn").join().expect("join");
    assert_eq!(seen, (true, true, true));
    drop(guard);
    assert!(!array.is_locked());
}

#[test]
fn elements_one_by_one_and_all_at_once() {
    watchdog();
    let array = Array::from_slice(&[1i16, 2, 3]).expect("memory");
    assert_eq!((array.len(), array.is_empty()), (3, false));
    array.set(1, -9).expect("inside");
    assert_eq!(array.get(1).expect("inside"), -9);
    assert_eq!(array.update(2, |element| std::mem::replace(element, 8)).expect("inside"), 3);
    assert_eq!(array.iter().expect("nobody died").collect::<Vec<_>>(), [1, -9, 8]);
    array.copy_from_slice(&[7, 7, 7]).expect("three");
    assert_eq!(array.to_vec().expect("nobody died"), [7; 3]);
    let empty = Array::<u8>::zeroed(0).expect("memory");
    assert!(empty.is_empty() && empty.lock().expect("new").is_empty());
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    watchdog();
    let array = Array::<u8>::zeroed(3).expect("memory");
    let raw = RawArray::<u8>::zeroed(3).expect("memory");
    for index in [3, usize::MAX] {
        let errors = [
            array.get(index).expect_err("outside"),
            array.set(index, 1).expect_err("outside"),
            array.update(index, |_| ()).expect_err("outside"),
            raw.get(index).expect_err("outside"),
            raw.set(index, 1).expect_err("outside"),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(error.is_invalid_input() && text.contains(&index.to_string()), "{text}");
        }
    }
    for elements in [&[1u8; 2][..], &[1; 4]] {
        let error = array.copy_from_slice(elements).expect_err("another length");
        assert!(error.is_invalid_input() && error.to_string().contains("array of 3"), "{error}");
        assert!(raw.copy_from_slice(elements).is_err());
    }
    assert_eq!((array.to_vec().expect("nobody died"), raw.to_vec()), (vec![0; 3], vec![0; 3]));
}

#[test]
fn too_many_elements_are_an_error() {
    watchdog();
    for len in [1 << 50, usize::MAX, usize::MAX / 8] {
        assert!(Array::<u64>::zeroed(len).expect_err("too many").is_out_of_memory());
        assert!(RawArray::<u64>::zeroed(len).expect_err("too many").is_out_of_memory());
    }
}

#[test]
fn processes_write_their_parts_of_a_raw_array() {
    watchdog();
    let array = RawArray::<[u8; 3]>::zeroed(1000).expect("memory");
    let fill = |array: &RawArray<[u8; 3]>, part: usize| {
        for index in part * 100..(part + 1) * 100 {
            array.set(index, [part as u8, 1, (index % 100) as u8]).expect("inside");
        }
    };
    let pool = Pool::builder().workers(2).build().expect("pool");
    pool.map_with(&array, fill, 0..10).expect("map");
    let expected: Vec<_> = (0..1000).map(|n| [(n / 100) as u8, 1, (n % 100) as u8]).collect();
    assert_eq!(array.to_vec(), expected);
    assert!(array.iter().eq(expected));
}

#[test]
fn a_raw_array_travels_as_a_result_and_through_a_fork() {
    watchdog();
    let make = || RawArray::try_from(vec![1u16, 2, 3]).expect("memory");
    let array = Process::spawn(make, ()).expect("spawn").join().expect("join");
    let fork = |array: RawArray<u16>| {
        let locked = Array::try_from([1u8]).expect("memory");
        let handles = (array.clone(), locked.clone());
        let forked = Process::fork(move || {
            handles.0.set(0, 100).expect("inside");
            handles.1.set(0, 100).expect("inside");
        });
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        forked.fork_with_threads(risk).spawn().expect("fork").join().expect("join");
        locked.get(0).expect("inside")
    };
    let locked = Process::spawn(fork, (array.clone(),)).expect("spawn").join().expect("join");
    assert_eq!((locked, array.to_vec()), (100, vec![100, 2, 3]));
    array.copy_from_slice(&[4, 5, 6]).expect("three");
    assert_eq!(format!("{array:?} {}", array.is_empty()), "[4, 5, 6] false");
}
