//! Bad input to a pool: a clear typed error that names the value, never a panic or a hang.

#[path = "common/events.rs"]
mod common;

use common::Watchdog;
use multiproc::{Execution, Pool, PoolBuilder};
use serde::{Deserialize, Serialize, Serializer};
use std::time::Duration;

fn pool() -> Pool {
    Pool::builder().workers(2).build().expect("pool")
}

fn refused(builder: PoolBuilder, names: &str) {
    let error = builder.build().expect_err("it makes no sense");
    assert!(error.is_invalid_input(), "{error:?}");
    assert!(error.to_string().contains(names), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let _dog = Watchdog::new("settings");
    refused(Pool::builder().workers(0), "0 workers");
    refused(Pool::builder().workers(usize::MAX), "workers");
    refused(Pool::builder().workers(1).name("a\0b"), "a\\0b");
    refused(Pool::builder().workers(1).max_tasks_per_worker(0), "0 tasks");
    refused(Pool::builder().workers(1).task_timeout(Duration::ZERO), "task timeout of 0");
    refused(Pool::builder().workers(1).max_in_flight(0), "0 items");
}

#[test]
fn environment_variables_that_cannot_be_are_refused() {
    let _dog = Watchdog::new("environment");
    for (name, value) in [("A\0B", "x"), ("AB", "x\0y"), ("", "x"), ("A=B", "x")] {
        let built = Pool::builder().workers(1).env(name, value).build();
        let error = built.expect_err("not a variable");
        assert!(error.is_invalid_input(), "{name:?}={value:?}: {error:?}");
    }
}

#[test]
fn settings_that_the_system_refuses_are_errors_of_the_start() {
    let _dog = Watchdog::new("system");
    for builder in [
        Pool::builder().workers(2).affinity([1023]),
        Pool::builder().workers(2).affinity([usize::MAX]),
        Pool::builder().workers(2).pin_to([999_999]),
        Pool::builder().workers(2).open_files_limit(u64::MAX),
    ] {
        let error = builder.build().expect_err("impossible");
        assert!(error.is_start() || error.is_invalid_input() || error.is_os(), "{error:?}");
        assert_eq!(error.execution(), Execution::NotStarted);
    }
}

#[test]
fn timeouts_of_centuries_are_no_timeouts() {
    let _dog = Watchdog::new("centuries");
    let pool = Pool::builder()
        .workers(1)
        .task_timeout(Duration::MAX)
        .start_timeout(Duration::MAX)
        .max_in_flight(u64::MAX)
        .max_tasks_per_worker(u64::MAX)
        .max_memory_per_worker(u64::MAX)
        .retries(u32::MAX)
        .build()
        .expect("pool");
    let slow = |x: u64| {
        std::thread::sleep(Duration::from_millis(5));
        x
    };
    let result = pool.apply_async(slow, (1,)).expect("submit");
    assert!(result.wait_timeout(Duration::MAX));
    assert_eq!(result.get_timeout(Duration::from_secs(u64::MAX)).expect("value"), 1);
    assert_eq!(pool.map(slow, 0..5).expect("map").len(), 5);
}

#[test]
fn a_start_timeout_of_zero_is_refused_and_a_short_one_is_a_timeout() {
    let _dog = Watchdog::new("start timeout");
    refused(Pool::builder().workers(2).start_timeout(Duration::ZERO), "start timeout of 0");
    let tight = Pool::builder().workers(2).start_timeout(Duration::from_nanos(1)).build();
    if let Err(error) = tight {
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(error.execution(), Execution::NotStarted);
    }
}

#[test]
fn a_wait_of_zero_looks_once() {
    let _dog = Watchdog::new("zero");
    let scratch = common::Scratch::new();
    let go = scratch.file("go");
    let pool = pool();
    let wait = |go: String| common::wait_for(&go);
    let result = pool.apply_async(wait, (go.clone(),)).expect("submit");
    assert!(!result.wait_timeout(Duration::ZERO));
    let error = result.get_timeout(Duration::ZERO).expect_err("not ready");
    assert!(error.is_timeout(), "{error:?}");
    common::raise(&go);
    result.get().expect("it went on");
}

#[test]
fn a_chunk_size_of_zero_is_refused_and_a_huge_one_is_one_chunk() {
    let _dog = Watchdog::new("chunks");
    let pool = pool();
    let error = pool.chunks_of(0).expect_err("no chunk");
    assert!(error.is_invalid_input() && error.to_string().contains("chunk size of 0"), "{error}");
    for size in [1 << 20, 1 << 32, usize::MAX] {
        let chunks = pool.chunks_of(size).expect("size");
        let expected: Vec<u64> = (0..100).collect();
        assert_eq!(chunks.map(|x: u64| x, 0..100).expect("map"), expected);
        assert_eq!(
            chunks.map_async(|x: u64| x, 0..100).expect("map").get().expect("map"),
            expected
        );
        let lazy = chunks.imap(|x: u64| x, 0..100).expect("imap");
        assert_eq!(lazy.map(|result| result.expect("value")).collect::<Vec<_>>(), expected);
        let lazy = chunks.imap_unordered(|x: u64| x, 0..100).expect("imap").window(usize::MAX);
        assert_eq!(lazy.count(), 100);
    }
}

#[test]
fn a_pool_of_zero_or_too_many_workers_is_not_made_by_resizing_either() {
    let _dog = Watchdog::new("resize");
    let pool = pool();
    for workers in [0, usize::MAX] {
        let error = pool.resize(workers).expect_err("no such pool");
        assert!(error.is_invalid_input(), "{error:?}");
        assert!(error.to_string().contains(&workers.to_string()), "{error}");
    }
    assert_eq!(pool.worker_pids().len(), 2);
}

#[test]
fn a_task_that_nobody_registered_is_named_in_the_error() {
    let _dog = Watchdog::new("name");
    let error = pool().apply_named::<_, u64>("no/such\0task", (1_u64,)).expect_err("none");
    assert!(error.is_invalid_input() && error.to_string().contains("no/such"), "{error}");
}

/// A value that refuses to be encoded if it is asked to.
#[derive(Debug, Deserialize)]
struct Stubborn(bool);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            return Err(serde::ser::Error::custom("I will not go"));
        }
        serializer.serialize_newtype_struct("Stubborn", &self.0)
    }
}

#[test]
fn an_argument_that_cannot_be_encoded_is_named_and_nothing_else_is_lost() {
    let _dog = Watchdog::new("unencodable");
    let pool = pool();
    let take = |stubborn: Stubborn| stubborn.0;
    let check = |error: multiproc::Error| {
        assert!(error.is_encode(), "{error:?}");
        assert_eq!(error.execution(), Execution::NotStarted);
        assert!(error.to_string().contains("Stubborn"), "{error}");
    };
    check(pool.apply(take, (Stubborn(true),)).expect_err("it refuses"));
    check(pool.apply_async(take, (Stubborn(true),)).map(drop).expect_err("it refuses"));
    let items = || (0..40).map(|x| Stubborn(x == 17));
    check(pool.map(take, items()).expect_err("it refuses"));
    check(pool.map_async(take, items()).map(drop).expect_err("it refuses"));
    check(pool.for_each(|_: Stubborn| (), items()).expect_err("it refuses"));
    check(pool.map_with(&Stubborn(true), |_: &Stubborn, x: u64| x, 0..3).expect_err("it refuses"));
    check(
        Pool::builder()
            .workers(1)
            .initializer(|_: Stubborn| (), (Stubborn(true),))
            .build()
            .expect_err("it refuses"),
    );
    // An iterator tells it of the one item; the others are run.
    for chunk in [1, 7, 100] {
        let chunks = pool.chunks_of(chunk).expect("size");
        for (x, result) in chunks.imap(take, items()).expect("imap").enumerate() {
            match x {
                17 => check(result.expect_err("it refuses")),
                _ => assert!(!result.expect("value")),
            }
        }
        let unordered = chunks.imap_unordered(take, items()).expect("imap");
        let (values, errors): (Vec<_>, Vec<_>) = unordered.partition(Result::is_ok);
        assert_eq!((values.len(), errors.len()), (39, 1));
    }
    assert!(!pool.apply(take, (Stubborn(false),)).expect("value"));
    // Of a call that was refused half-way, what had been submitted runs on.
    common::wait_until("nothing is left over", || {
        let stats = pool.stats();
        stats.queued + stats.running == 0
    });
    assert_eq!(pool.stats().restarts, 0);
}

#[test]
fn a_result_that_cannot_be_encoded_is_an_error_of_its_item() {
    let _dog = Watchdog::new("unencodable result");
    let pool = pool();
    for chunk in [1, 7, 100] {
        let chunks = pool.chunks_of(chunk).expect("size");
        let results = chunks.imap(|x: u64| Stubborn(x == 17), 0..40).expect("imap");
        for (x, result) in results.enumerate() {
            match x {
                17 => {
                    let error = result.expect_err("it refuses");
                    assert!(error.is_encode(), "{error:?}");
                    assert_eq!(error.execution(), Execution::Failed);
                    assert!(error.to_string().contains("Stubborn"), "{error}");
                }
                _ => assert!(!result.expect("value").0),
            }
        }
    }
    assert_eq!(pool.stats().restarts, 0);
}

/// A value that refuses to be decoded if it is 17.
#[derive(Debug, PartialEq, Serialize)]
struct Picky(u64, String);

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(Half(deserializer))?;
        Ok(Self(number, String::new()))
    }
}

/// Reads the first part of a pair, and refuses 17 before the second part is read.
struct Half<D>(D);

impl<'de, D: serde::Deserializer<'de>> serde::Deserializer<'de> for Half<D> {
    type Error = D::Error;
    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let (number, _text) = <(u64, String)>::deserialize(self.0)?;
        if number == 17 {
            return Err(serde::de::Error::custom("not 17"));
        }
        visitor.visit_u64(number)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

#[test]
fn a_value_that_cannot_be_decoded_is_an_error_of_its_item_alone() {
    let _dog = Watchdog::new("undecodable");
    let pool = pool();
    for chunk in [1, 7, 100] {
        let chunks = pool.chunks_of(chunk).expect("size");
        // As an argument.
        let items = (0..40).map(|x| Picky(x, "x".repeat(x as usize)));
        for (x, result) in chunks.imap(|picky: Picky| picky.0, items).expect("imap").enumerate() {
            match x {
                17 => {
                    let error = result.expect_err("refused");
                    assert!(error.is_decode(), "{error:?}");
                    assert!(error.to_string().contains("Picky"), "{error}");
                }
                _ => assert_eq!(result.expect("value"), x as u64, "chunks of {chunk}"),
            }
        }
        // As a result.
        let make = |x: u64| Picky(x, "x".repeat(x as usize));
        for (x, result) in chunks.imap(make, 0..40).expect("imap").enumerate() {
            match x {
                17 => {
                    let error = result.expect_err("refused");
                    assert!(error.is_decode(), "{error:?}");
                    assert_eq!(error.execution(), Execution::Failed);
                }
                _ => assert_eq!(result.expect("value").0, x as u64, "chunks of {chunk}"),
            }
        }
    }
}

#[test]
fn work_after_close_and_terminate_is_refused_in_every_call() {
    let _dog = Watchdog::new("closed");
    for terminate in [false, true] {
        let pool = pool();
        if terminate {
            pool.terminate()
        } else {
            pool.close()
        }
        let id = |x: u64| x;
        let errors = [
            pool.apply(id, (1,)).map(drop),
            pool.apply_async(id, (1,)).map(drop),
            pool.map(id, 0..9).map(drop),
            pool.map_async(id, 0..9).map(drop),
            pool.starmap(u64::pow, [(1, 2)]).map(drop),
            pool.starmap_async(u64::pow, [(1, 2)]).map(drop),
            pool.for_each(|_: u64| (), 0..9),
            pool.map_with(&1_u64, |_: &u64, x: u64| x, 0..9).map(drop),
            pool.map_with(&vec![0_u8; 5000], |_: &Vec<u8>, x: u64| x, 0..9).map(drop),
            pool.chunks_of(3).expect("size").map(id, 0..9).map(drop),
            pool.imap(id, 0..9).expect("imap").next().expect("an item").map(drop),
            pool.imap_unordered(id, 0..9).expect("imap").next().expect("an item").map(drop),
            pool.resize(3),
        ];
        for (index, result) in errors.into_iter().enumerate() {
            let error = result.expect_err("closed");
            assert!(error.is_closed(), "call {index}: {error:?}");
            assert_eq!(error.execution(), Execution::NotStarted);
        }
        pool.join().expect("join");
        pool.join().expect("again");
        pool.close();
        pool.terminate();
        assert!(pool.worker_pids().is_empty());
    }
}

#[test]
fn a_join_before_close_is_an_error_and_not_a_hang() {
    let _dog = Watchdog::new("join");
    let pool = pool();
    let error = pool.join().expect_err("it would wait for ever");
    assert!(error.is_invalid_input() && error.to_string().contains("close"), "{error}");
    assert_eq!(pool.apply(|| 1_u8, ()).expect("still open"), 1);
}

#[test]
fn empty_input_gives_empty_output() {
    let _dog = Watchdog::new("empty");
    let pool = pool();
    let id = |x: u64| x;
    assert_eq!(pool.map(id, []).expect("map"), []);
    assert_eq!(pool.map_async(id, []).expect("map").get().expect("map"), []);
    assert_eq!(pool.starmap(u64::pow, []).expect("starmap"), []);
    assert_eq!(pool.map_with(&7_u64, |_: &u64, x: u64| x, []).expect("map"), []);
    assert_eq!(pool.imap(id, []).expect("imap").count(), 0);
    assert_eq!(pool.imap_unordered(id, []).expect("imap").count(), 0);
    pool.for_each(|_: u64| (), []).expect("for_each");
}
