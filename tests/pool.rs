//! Every call, result and step in the life of a pool.

#[path = "common/events.rs"]
mod common;

use common::{Dice, Scratch, Watchdog, append, is_gone, lines, raise, wait_for, wait_until};
use multiproc::{AsyncResult, Execution, Pool};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn pool() -> Pool {
    Pool::builder().workers(2).build().expect("pool")
}

fn square(x: u64) -> u64 {
    x * x
}

fn squares(count: u64) -> Vec<u64> {
    (0..count).map(square).collect()
}

fn forever() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Says that it runs, and waits for a flag.
fn hold(started: String, go: String) -> u64 {
    raise(&started);
    wait_for(&go);
    1
}

#[multiproc::task(name = "pool-test/weigh")]
fn weigh(a: u64, text: String) -> u64 {
    a + text.len() as u64
}

// ---- calls ----

#[test]
fn every_call_returns_the_values_in_order() {
    let _dog = Watchdog::new("calls");
    let pool = pool();
    assert_eq!(pool.apply(square, (7,)).expect("apply"), 49);
    assert_eq!(pool.apply_async(square, (8,)).expect("submit").get().expect("value"), 64);
    assert_eq!(pool.map(square, 0..1000).expect("map"), squares(1000));
    assert_eq!(pool.map_async(square, 0..1000).expect("map").get().expect("map"), squares(1000));
    let pairs: Vec<(u64, u32)> = (0..100).map(|x| (x, 2)).collect();
    assert_eq!(pool.starmap(u64::pow, pairs.clone()).expect("starmap"), squares(100));
    let powers = pool.starmap_async(u64::pow, pairs).expect("starmap");
    assert_eq!(powers.get().expect("starmap"), squares(100));
    let name = "pool-test/weigh";
    assert_eq!(pool.apply_named::<_, u64>(name, (4_u64, "four".to_owned())).expect("named"), 8);
    let twelve = |a: u8,
                  b: u16,
                  c: u32,
                  d: u64,
                  e: i8,
                  f: i16,
                  g: i32,
                  h: i64,
                  i: String,
                  j: (),
                  k: Option<u8>,
                  l: Vec<u8>| {
        let sum = u64::from(a) + u64::from(b) + u64::from(c) + d;
        let signed = i64::from(e) + i64::from(f) + i64::from(g) + h;
        let () = j;
        (sum, signed, i, k, l)
    };
    let arguments = (1, 2, 3, 4, -1, -2, -3, -4, "x".to_owned(), (), Some(9), vec![1, 2]);
    let expected = (10, -10, "x".to_owned(), Some(9), vec![1, 2]);
    assert_eq!(pool.apply(twelve, arguments).expect("twelve"), expected);
}

#[test]
fn chunks_of_every_size_and_inputs_of_every_length_keep_the_order() {
    let _dog = Watchdog::new("chunks");
    let pool = pool();
    for count in [0, 1, 2, 3, 31, 32, 33, 1000] {
        for size in [1, 2, 7, 32, 999, 5000] {
            let chunks = pool.chunks_of(size).expect("size");
            assert_eq!(chunks.map(square, 0..count).expect("map"), squares(count));
            let lazy = chunks.imap(square, 0..count).expect("imap");
            let values: Vec<u64> = lazy.map(|result| result.expect("value")).collect();
            assert_eq!(values, squares(count));
            let lazy = chunks.imap_unordered(square, 0..count).expect("imap");
            let mut values: Vec<u64> = lazy.map(|result| result.expect("value")).collect();
            values.sort_unstable();
            assert_eq!(values, squares(count));
        }
    }
}

#[test]
fn for_each_runs_each_item_once() {
    let _dog = Watchdog::new("for_each");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let pool = pool();
    let items = (0..50).map(|x: u64| (x, log.clone()));
    pool.for_each(|(x, log): (u64, String)| append(&log, x), items).expect("for_each");
    let mut seen: Vec<u64> = lines(&log).iter().map(|line| line.parse().expect("number")).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
    let error = pool.for_each(|x: u64| assert_ne!(x, 3, "three"), 0..10).expect_err("a panic");
    assert!(error.panic().expect("panic").message.contains("three"));
}

/// A context that counts how often it is decoded in this process.
#[derive(Debug, serde::Serialize)]
struct Counted(Vec<u64>);

static DECODED: AtomicU64 = AtomicU64::new(0);

impl<'de> serde::Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        Vec::deserialize(deserializer).map(Self)
    }
}

#[test]
fn a_context_of_any_size_is_decoded_once_in_each_worker() {
    let _dog = Watchdog::new("map_with");
    let pool = Pool::builder().workers(1).build().expect("pool");
    for (round, len) in [10, 100, 500, 5000, 500_000].into_iter().enumerate() {
        let context = Counted((0..len).collect());
        let look = |context: &Counted, x: u64| {
            (context.0[(x * 7919) as usize % context.0.len()], DECODED.load(Ordering::SeqCst))
        };
        let chunks = pool.chunks_of(3).expect("size");
        let seen = chunks.map_with(&context, look, 0..60).expect("map");
        for (x, (value, decoded)) in seen.into_iter().enumerate() {
            assert_eq!(value, x as u64 * 7919 % len);
            assert_eq!(decoded, round as u64 + 1, "a context of {len}");
        }
    }
    assert_eq!(DECODED.load(Ordering::SeqCst), 0, "not here");
}

#[test]
fn a_context_reaches_the_workers_that_replace_dead_ones() {
    let _dog = Watchdog::new("map_with and deaths");
    let pool = Pool::builder().workers(2).retries(3).build().expect("pool");
    let scratch = Scratch::new();
    for len in [10_u64, 100_000] {
        let context: (Vec<u64>, String) = ((0..len).collect(), scratch.file(&format!("log-{len}")));
        let fragile = |(table, log): &(Vec<u64>, String), x: u64| {
            append(log, x);
            if x % 10 == 3 && lines(log).iter().filter(|line| **line == x.to_string()).count() == 1
            {
                std::process::abort();
            }
            table[x as usize % table.len()]
        };
        let values = pool.map_with(&context, fragile, 0..50).expect("map");
        assert_eq!(values, (0..50).map(|x| x % len).collect::<Vec<_>>());
    }
}

/// Large contexts and large items of several calls at once: more blocks than a worker keeps.
#[test]
fn many_large_contexts_at_once_are_not_mixed_up() {
    let _dog = Watchdog::new("many contexts");
    let pool = pool();
    std::thread::scope(|scope| {
        for thread in 0..6_u8 {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..15 {
                    let context = vec![thread; 4000];
                    let items = (0..4).map(|_| vec![thread; 100_000]);
                    let same = |context: &Vec<u8>, item: Vec<u8>| {
                        let fits = item.iter().step_by(997).all(|byte| *byte == context[0]);
                        (fits, context.len(), item.len(), item[99_999])
                    };
                    let chunks = pool.chunks_of(1).expect("size");
                    let seen = chunks.map_with(&context, same, items).expect("map");
                    assert_eq!(seen, vec![(true, 4000, 100_000, thread); 4]);
                }
            });
        }
    });
}

#[test]
fn zero_sized_arguments_and_results_are_counted_right() {
    let _dog = Watchdog::new("zero-sized");
    let pool = pool();
    pool.apply(|| (), ()).expect("nothing");
    assert_eq!(pool.map(|(): ()| (), vec![(); 10_000]).expect("map").len(), 10_000);
    let chunks = pool.chunks_of(1 << 21).expect("size");
    assert_eq!(chunks.map(|(): ()| (), vec![(); 3_000_000]).expect("map").len(), 3_000_000);
    assert_eq!(pool.imap(|(): ()| (), vec![(); 500]).expect("imap").count(), 500);
    let unordered = chunks.imap_unordered(|(): ()| (), vec![(); 5000]).expect("imap");
    assert_eq!(unordered.filter(Result::is_ok).count(), 5000);
}

#[test]
fn a_panic_in_one_item_leaves_the_others_their_values() {
    let _dog = Watchdog::new("panics");
    let pool = pool();
    let odd_ones_panic = |x: u64| {
        assert!(x.is_multiple_of(2), "{x} is odd");
        x
    };
    for chunk in [1, 5, 100] {
        let chunks = pool.chunks_of(chunk).expect("size");
        for (x, result) in chunks.imap(odd_ones_panic, 0..40).expect("imap").enumerate() {
            match result {
                Ok(value) => assert_eq!((value, x % 2), (x as u64, 0)),
                Err(error) => {
                    let info = error.panic().expect("a panic");
                    assert_eq!(info.message, format!("{x} is odd"));
                    let location = info.location.as_ref().expect("a place");
                    assert!(location.contains("tests/pool.rs"), "{location}");
                    assert_eq!(error.execution(), Execution::Failed);
                }
            }
        }
        let error = chunks.map(odd_ones_panic, 0..40).expect_err("a panic");
        assert_eq!(error.panic().expect("a panic").message, "1 is odd", "the first in order");
    }
    assert_eq!(pool.stats().restarts, 0);
}

// ---- imap ----

/// An endless input that counts how far it is read.
struct Endless(Arc<AtomicU64>);

impl Iterator for Endless {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        Some(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[test]
fn imap_reads_its_input_no_further_than_its_window() {
    let _dog = Watchdog::new("window");
    let pool = pool();
    for (window, chunk) in [(1, 1), (2, 1), (10, 1), (10, 5), (3, 7), (64, 16)] {
        let bound = window.max(chunk) as u64;
        for ordered in [true, false] {
            let read = Arc::new(AtomicU64::new(0));
            let chunks = pool.chunks_of(chunk).expect("size");
            let input = Endless(read.clone());
            let lazy = match ordered {
                true => chunks.imap(square, input),
                false => chunks.imap_unordered(square, input),
            };
            let mut lazy = lazy.expect("imap").window(window);
            assert_eq!(read.load(Ordering::SeqCst), 0, "nothing runs until results are asked for");
            for taken in 0..200 {
                let value = lazy.next().expect("endless").expect("value");
                if ordered {
                    assert_eq!(value, square(taken));
                }
                let ahead = read.load(Ordering::SeqCst) - taken;
                assert!(ahead <= bound, "window {window}, chunks of {chunk}: {ahead} ahead");
            }
        }
    }
}

#[test]
fn imap_has_a_window_of_its_own_if_none_is_set() {
    let _dog = Watchdog::new("default window");
    let pool = pool();
    let read = Arc::new(AtomicU64::new(0));
    let mut lazy = pool.imap(square, Endless(read.clone())).expect("imap");
    for taken in 0..100 {
        assert_eq!(lazy.next().expect("endless").expect("value"), square(taken));
        assert!(read.load(Ordering::SeqCst) - taken <= 8, "four chunks a worker");
    }
    drop(lazy);
    wait_until("the rest is cancelled or done", || {
        let stats = pool.stats();
        stats.queued + stats.running == 0
    });
}

#[test]
fn imap_runs_ahead_of_its_reader_as_far_as_its_window() {
    let _dog = Watchdog::new("ahead");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let pool = pool();
    let items = std::iter::repeat(log.clone()).enumerate();
    let note = |(x, log): (usize, String)| {
        append(&log, x);
        x
    };
    let mut lazy = pool.imap(note, items).expect("imap").window(12);
    assert_eq!(lazy.next().expect("endless").expect("value"), 0);
    wait_until("the window is worked off", || lines(&log).len() == 12);
}

#[test]
fn unordered_results_come_as_they_are_ready() {
    let _dog = Watchdog::new("unordered");
    let scratch = Scratch::new();
    let go = scratch.file("go");
    let pool = pool();
    let first_waits = |(x, go): (u64, String)| {
        if x == 0 {
            wait_for(&go);
        }
        x
    };
    let items = (0..8).map(|x| (x, go.clone()));
    let mut lazy = pool.imap_unordered(first_waits, items).expect("imap");
    let mut seen = BTreeSet::new();
    for _ in 1..8 {
        seen.insert(lazy.next().expect("a result").expect("value"));
    }
    assert_eq!(seen, (1..8).collect());
    raise(&go);
    assert_eq!(lazy.next().expect("the last").expect("value"), 0);
    assert!(lazy.next().is_none());
    assert!(lazy.next().is_none());
}

/// An input that panics at the item with this number.
fn panics_at(at: u64) -> impl Iterator<Item = u64> {
    (0..100).inspect(move |x| assert_ne!(*x, at, "the input breaks"))
}

#[test]
fn an_input_that_panics_takes_the_caller_along_and_nothing_else() {
    let _dog = Watchdog::new("panicking input");
    let pool = pool();
    for at in [0, 1, 50, 99] {
        for chunk in [1, 7, 1000] {
            let chunks = pool.chunks_of(chunk).expect("size");
            let broken = catch_unwind(AssertUnwindSafe(|| chunks.map(square, panics_at(at))));
            assert!(broken.is_err());
            let broken = catch_unwind(AssertUnwindSafe(|| chunks.map_async(square, panics_at(at))));
            assert!(broken.is_err());
            for ordered in [true, false] {
                let lazy = match ordered {
                    true => chunks.imap(square, panics_at(at)).expect("imap"),
                    false => chunks.imap_unordered(square, panics_at(at)).expect("imap"),
                };
                let mut seen = 0;
                let broken = catch_unwind(AssertUnwindSafe(|| {
                    for result in lazy {
                        result.expect("value");
                        seen += 1;
                    }
                }));
                assert!(broken.is_err() && seen <= at);
            }
        }
    }
    assert_eq!(pool.map(square, 0..100).expect("map"), squares(100));
    wait_until("nothing is left over", || {
        let stats = pool.stats();
        stats.queued + stats.running == 0
    });
}

/// Claims to have this many items, whatever it has.
struct Liar<I>(I, (usize, Option<usize>));

impl<I: Iterator> Iterator for Liar<I> {
    type Item = I::Item;
    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.1
    }
}

#[test]
fn an_input_that_lies_about_its_length_is_read_to_its_end() {
    let _dog = Watchdog::new("lying input");
    let pool = pool();
    for hint in [
        (0, Some(0)),
        (usize::MAX, None),
        (usize::MAX, Some(usize::MAX)),
        (1, Some(1)),
        (5000, Some(3)),
    ] {
        let input = || Liar(0..300, hint);
        assert_eq!(pool.map(square, input()).expect("map"), squares(300));
        assert_eq!(pool.map_async(square, input()).expect("map").get().expect("map"), squares(300));
        assert_eq!(pool.imap(square, input()).expect("imap").count(), 300);
        assert_eq!(pool.imap_unordered(square, input()).expect("imap").count(), 300);
    }
}

// ---- sizes ----

fn marked(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for index in (0..len).step_by(4096).chain(len.checked_sub(1)) {
        bytes[index] = (index / 4096 % 251) as u8 + 1;
    }
    bytes
}

#[test]
fn results_around_every_limit_come_back_whole() {
    let _dog = Watchdog::new("sizes of results");
    let pool = pool();
    let around = |limit: usize, spread: usize| limit.saturating_sub(spread)..=limit + spread;
    let sizes: Vec<usize> = around(32, 12)
        .chain(around(64 * 1024, 48))
        .chain(around(128 * 1024, 16))
        .chain(around(256 * 1024, 40))
        .collect();
    for chunk in [1, 7, 1000] {
        let chunks = pool.chunks_of(chunk).expect("size");
        for (len, result) in sizes.iter().zip(chunks.imap(marked, sizes.clone()).expect("imap")) {
            assert_eq!(result.expect("bytes"), marked(*len), "{len} bytes in chunks of {chunk}");
        }
        // Of a type that is not copied as it is.
        let text = |len: usize| ("x".repeat(len), len);
        for (len, result) in sizes.iter().zip(chunks.imap(text, sizes.clone()).expect("imap")) {
            let (text, told) = result.expect("text");
            assert_eq!((text.len(), told), (*len, *len));
        }
        assert_eq!(chunks.map(marked, sizes.clone()).expect("map").len(), sizes.len());
    }
}

#[test]
fn arguments_around_every_limit_arrive_whole() {
    let _dog = Watchdog::new("sizes of arguments");
    let pool = pool();
    let around = |limit: usize, spread: usize| limit.saturating_sub(spread)..=limit + spread;
    let is_marked = |bytes: Vec<u8>| (bytes.len(), bytes == marked(bytes.len()));
    let text_len = |text: String, tail: u8| (text.len(), text.bytes().all(|b| b == b'x'), tail);
    for len in around(24, 24).chain(around(32 * 1024, 12)).chain(around(64 * 1024, 40)) {
        assert_eq!(pool.apply(is_marked, (marked(len),)).expect("apply"), (len, true));
        let told = pool.apply(text_len, ("x".repeat(len), 7)).expect("apply");
        assert_eq!(told, (len, true, 7));
    }
    let lens: Vec<usize> = around(32 * 1024, 8).collect();
    for chunk in [2, 100] {
        let items = lens.iter().map(|len| marked(*len));
        let told = pool.chunks_of(chunk).expect("size").map(is_marked, items).expect("map");
        assert_eq!(told, lens.iter().map(|len| (*len, true)).collect::<Vec<_>>());
    }
}

#[test]
fn large_values_go_there_and_back() {
    let _dog = Watchdog::new("large values");
    let pool = pool();
    let echo = |bytes: Vec<u8>| bytes;
    for len in [70 << 10, 1 << 20, 16 << 20, 70 << 20] {
        for _ in 0..3 {
            assert_eq!(pool.apply(echo, (marked(len),)).expect("apply"), marked(len));
        }
    }
    let echo_text = |text: String, numbers: Vec<f64>| (numbers, text);
    let numbers: Vec<f64> = (0..200_000).map(f64::from).collect();
    let text = "ä".repeat(1 << 20);
    let (back, same) = pool.apply(echo_text, (text.clone(), numbers.clone())).expect("apply");
    assert!(back == numbers && same == text);
}

#[test]
fn many_large_values_at_once_arrive_whole() {
    let _dog = Watchdog::new("many large values");
    let pool = pool();
    // More than the pool keeps in its queue: submitting waits for room.
    let ends = |bytes: Vec<u8>| (bytes.len(), bytes[0], bytes[bytes.len() - 1]);
    let results: Vec<_> =
        (0..40_u8).map(|x| pool.apply_async(ends, (vec![x; 16 << 20],)).expect("submit")).collect();
    for (x, result) in results.into_iter().enumerate() {
        assert_eq!(result.get().expect("value"), (16 << 20, x as u8, x as u8));
    }
    // Results that are not taken for a while, more than a worker has pooled blocks.
    let make = |x: u8| vec![x; 1 << 20];
    let results: Vec<_> = (0..30).map(|x| pool.apply_async(make, (x,)).expect("submit")).collect();
    for (x, result) in results.into_iter().enumerate().rev() {
        let bytes = result.get().expect("value");
        assert!(bytes.len() == 1 << 20 && bytes.iter().all(|byte| *byte == x as u8));
    }
}

#[test]
fn submitters_that_wait_for_room_for_large_arguments_all_get_on() {
    let _dog = Watchdog::new("large and many threads");
    let pool = pool();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let pool = &pool;
            scope.spawn(move || {
                let ends = |bytes: Vec<u8>| (bytes[0], bytes[bytes.len() - 1], bytes.len());
                let results: Vec<_> = (0..12)
                    .map(|_| pool.apply_async(ends, (vec![thread; 12 << 20],)).expect("submit"))
                    .collect();
                for result in results {
                    assert_eq!(result.get().expect("value"), (thread, thread, 12 << 20));
                }
            });
        }
    });
}

// ---- results ----

#[test]
fn a_result_is_waited_for_asked_for_and_taken_once() {
    let _dog = Watchdog::new("results");
    let scratch = Scratch::new();
    let (started, go) = (scratch.file("started"), scratch.file("go"));
    let pool = pool();
    let result = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
    wait_until("it runs", || common::is_raised(&started));
    assert!(!result.ready());
    assert_eq!(result.successful(), None);
    assert!(!result.wait_timeout(Duration::from_millis(5)));
    let error = result.get_timeout(Duration::from_millis(5)).expect_err("not ready");
    assert!(error.is_timeout() && error.to_string().contains("5ms"), "{error}");
    assert_eq!(error.execution(), Execution::Unknown);
    raise(&go);
    result.wait();
    assert!(result.ready() && result.wait_timeout(Duration::ZERO));
    assert_eq!(result.successful(), Some(true));
    assert_eq!(result.get_timeout(Duration::from_secs(9)).expect("value"), 1);
    let error = result.get_timeout(Duration::from_secs(9)).expect_err("taken");
    assert!(error.is_invalid_input() && error.to_string().contains("taken"), "{error}");

    let failed = pool.map_async(|x: u64| assert_ne!(x, 5), 0..10).expect("submit");
    failed.wait();
    assert_eq!(failed.successful(), Some(false));
    assert!(failed.get().expect_err("a panic").is_panic());
    // Dropped, it runs all the same.
    let log = scratch.file("log");
    drop(pool.apply_async(|log: String| append(&log, "ran"), (log.clone(),)).expect("submit"));
    wait_until("it has run", || lines(&log).len() == 1);
}

#[test]
fn a_queued_call_is_cancelled_and_a_running_one_only_on_request() {
    let _dog = Watchdog::new("cancel");
    let scratch = Scratch::new();
    let (started, go) = (scratch.file("started"), scratch.file("go"));
    let log = scratch.file("log");
    let pool = Pool::builder().workers(1).build().expect("pool");
    let running = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
    wait_until("it runs", || common::is_raised(&started));
    let note = |log: String, x: u64| append(&log, x);
    let queued: Vec<_> =
        (0..10).map(|x| pool.apply_async(note, (log.clone(), x)).expect("submit")).collect();
    for (x, result) in queued.iter().enumerate() {
        if x % 2 == 0 {
            assert!(result.cancel());
            assert!(!result.cancel(), "there is nothing more to cancel");
        }
    }
    assert!(!running.cancel(), "it has begun");
    raise(&go);
    assert_eq!(running.get().expect("it went on"), 1);
    for (x, result) in queued.into_iter().enumerate() {
        match x % 2 {
            0 => {
                let error = result.get().expect_err("cancelled");
                assert!(error.is_cancelled(), "{error:?}");
                assert_eq!(error.execution(), Execution::NotStarted);
            }
            _ => result.get().expect("it ran"),
        }
    }
    assert_eq!(lines(&log), ["1", "3", "5", "7", "9"]);
    assert!(pool.stats().restarts == 0);
    let victim = pool.worker_pids()[0];
    let (started, never) = (scratch.file("started, too"), scratch.file("never"));
    let running = pool.apply_async(hold, (started.clone(), never)).expect("submit");
    let behind = pool.apply_async(square, (3,)).expect("submit");
    wait_until("it runs", || common::is_raised(&started));
    assert!(running.cancel_running());
    assert_eq!(behind.get().expect("not lost"), 9);
    assert!(running.get().expect_err("cancelled").is_cancelled());
    wait_until("the worker is gone", || is_gone(victim));
    let done = pool.apply_async(square, (3,)).expect("submit");
    done.wait();
    assert!(!done.cancel() && !done.cancel_running());
    assert_eq!(done.get().expect("value"), 9);
}

#[test]
fn cancelling_what_runs_never_costs_the_tasks_of_others() {
    let _dog = Watchdog::new("cancel_running");
    let pool = pool();
    let mut dice = Dice::new(5);
    for round in 0..300_u64 {
        let short = |spins: u64| {
            for _ in 0..spins {
                std::hint::spin_loop();
            }
        };
        let doomed = pool.map_async(short, vec![dice.below(3000); 20]).expect("submit");
        let others: Vec<_> =
            (0..20).map(|x| pool.apply_async(square, (x,)).expect("submit")).collect();
        for _ in 0..dice.below(3000) {
            std::hint::spin_loop();
        }
        doomed.cancel_running();
        for (x, other) in others.into_iter().enumerate() {
            let value = other.get();
            assert_eq!(value.expect("of another call"), square(x as u64), "round {round}");
        }
        if let Err(error) = doomed.get() {
            assert!(error.is_cancelled(), "{error:?}");
        }
    }
}

/// Calls with large arguments that are cancelled before they begin: their blocks were sent to the
/// worker, which never asks for them.
#[test]
fn large_arguments_that_are_cancelled_do_not_clog_the_worker() {
    let _dog = Watchdog::new("clogged");
    let scratch = Scratch::new();
    let pool = Pool::builder().workers(1).build().expect("pool");
    for round in 0..2 {
        let (started, go) =
            (scratch.file(&format!("s{round}")), scratch.file(&format!("g{round}")));
        let running = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
        wait_until("it runs", || common::is_raised(&started));
        let len = |bytes: Vec<u8>| bytes.len();
        for index in 0..600 {
            let size = (100 << 10) << (index % 6);
            let result = pool.apply_async(len, (vec![1; size],)).expect("submit");
            assert!(result.cancel());
        }
        let last = pool.apply_async(len, (vec![1; 7 << 20],)).expect("submit");
        raise(&go);
        assert_eq!(running.get().expect("value"), 1);
        assert_eq!(last.get().expect("value"), 7 << 20);
    }
    assert_eq!(pool.map(square, 0..100).expect("map"), squares(100));
}

#[test]
fn callbacks_hear_of_success_and_of_failure() {
    let _dog = Watchdog::new("callbacks");
    let pool = pool();
    let (sender, receiver) = channel();
    let both = |result: AsyncResult<u64>, sender: &Sender<Result<u64, String>>| {
        let (good, bad) = (sender.clone(), sender.clone());
        result
            .on_success(move |value| good.send(Ok(*value)).expect("send"))
            .on_error(move |error| bad.send(Err(error.to_string())).expect("send"))
    };
    let result = both(pool.apply_async(square, (5,)).expect("submit"), &sender);
    assert_eq!(receiver.recv().expect("heard"), Ok(25));
    assert_eq!(result.get().expect("the value can still be taken"), 25);
    let breaks = |x: u64| -> u64 { panic!("broken {x}") };
    let result = both(pool.apply_async(breaks, (5,)).expect("submit"), &sender);
    let told = receiver.recv().expect("heard").expect_err("an error");
    assert!(told.contains("broken 5"), "{told}");
    assert!(result.get().expect_err("an error").is_panic());
    // One that is set when the call is long done, and one on a call of several items.
    let result = pool.apply_async(square, (6,)).expect("submit");
    result.wait();
    drop(both(result, &sender));
    assert_eq!(receiver.recv().expect("heard"), Ok(36));
    let (all, heard) = channel();
    let map = pool.map_async(square, 0..50).expect("submit");
    drop(map.on_success(move |values: &Vec<u64>| all.send(values.clone()).expect("send")));
    assert_eq!(heard.recv().expect("heard"), squares(50));
    assert!(receiver.try_recv().is_err(), "each was called once");
}

#[test]
fn a_callback_that_panics_harms_nothing() {
    let _dog = Watchdog::new("panicking callback");
    let pool = pool();
    let (sender, receiver) = channel();
    for x in 0..20_u64 {
        let sender = sender.clone();
        let result = pool.apply_async(square, (x,)).expect("submit");
        let result = result.on_success(|_| panic!("on purpose, in a callback"));
        drop(result.on_success(move |value| sender.send(*value).expect("send")));
    }
    let mut heard: Vec<u64> = (0..20).map(|_| receiver.recv().expect("heard")).collect();
    heard.sort_unstable();
    assert_eq!(heard, squares(20));
    pool.close();
    pool.join().expect("join");
}

fn submit_deeper(pool: Arc<Pool>, depth: u64, sender: Sender<u64>) {
    let result = pool.clone().apply_async(square, (depth,)).expect("submit");
    let chain = move |value: &u64| {
        assert_eq!(*value, square(depth));
        if depth == 0 {
            return sender.send(depth).expect("send");
        }
        submit_deeper(pool, depth - 1, sender);
    };
    drop(result.on_success(chain));
}

#[test]
fn callbacks_submit_a_hundred_deep() {
    let _dog = Watchdog::new("deep");
    // Room for one at a time: a callback must not wait for room that only callbacks make.
    for max_in_flight in [1, 1000] {
        let pool = Pool::builder().workers(1).max_in_flight(max_in_flight).build().expect("pool");
        let pool = Arc::new(pool);
        let (sender, receiver) = channel();
        submit_deeper(pool.clone(), 100, sender);
        assert_eq!(receiver.recv().expect("the last"), 0);
    }
}

#[test]
fn callbacks_may_block_on_the_pool_they_belong_to() {
    let _dog = Watchdog::new("blocking callbacks");
    let pool = Arc::new(Pool::builder().workers(1).max_in_flight(2).build().expect("pool"));
    let (sender, receiver) = channel();
    let inner = pool.clone();
    let result = pool.apply_async(square, (1,)).expect("submit");
    let result = result.on_success(move |_| {
        for depth in 0..100 {
            assert_eq!(inner.apply(square, (depth,)).expect("apply"), square(depth));
            let result = inner.apply_async(square, (depth,)).expect("submit");
            assert_eq!(result.get().expect("get"), square(depth));
        }
        assert_eq!(inner.map(square, 0..50).expect("map"), squares(50));
        assert_eq!(inner.imap(square, 0..50).expect("imap").count(), 50);
        sender.send(()).expect("send");
    });
    receiver.recv().expect("all done");
    drop(result);
}

#[test]
fn a_pool_may_be_dropped_by_its_own_callback() {
    let _dog = Watchdog::new("dropped in a callback");
    let pool = Arc::new(pool());
    let pids = pool.worker_pids();
    let (sender, receiver) = channel();
    let (own, gate) = (pool.clone(), Arc::new(AtomicBool::new(false)));
    let open = gate.clone();
    let result = pool.apply_async(square, (1,)).expect("submit").on_success(move |_| {
        while !open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(own);
        sender.send(()).expect("send");
    });
    drop(pool);
    gate.store(true, Ordering::SeqCst);
    receiver.recv().expect("dropped");
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    drop(result);
}

// ---- nothing waits behind a long task ----

#[test]
fn nothing_waits_behind_a_long_item_of_the_same_chunk() {
    let _dog = Watchdog::new("long first item");
    let scratch = Scratch::new();
    let (log, go) = (scratch.file("log"), scratch.file("go"));
    let pool = pool();
    let first_waits = |(x, log, go): (u64, String, String)| {
        if x == 0 {
            wait_for(&go);
        }
        append(&log, x);
        x
    };
    let items: Vec<_> = (0..100).map(|x| (x, log.clone(), go.clone())).collect();
    let result = pool.chunks_of(1000).expect("size").map_async(first_waits, items).expect("submit");
    // All others have run while the first one still waits for its flag.
    wait_until("all others have run", || lines(&log).len() == 99);
    assert!(!lines(&log).contains(&"0".to_owned()));
    raise(&go);
    assert_eq!(result.get().expect("map"), (0..100).collect::<Vec<_>>());
}

#[test]
fn nothing_waits_behind_a_long_call_on_another_worker() {
    let _dog = Watchdog::new("long call");
    let scratch = Scratch::new();
    for round in 0..10 {
        let (started, go) =
            (scratch.file(&format!("s{round}")), scratch.file(&format!("g{round}")));
        let pool = pool();
        // Both are busy when the rest is submitted, so that some is given ahead to each.
        let long = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
        let short = pool.apply_async(|| std::thread::sleep(Duration::from_millis(20)), ());
        let rest: Vec<_> =
            (0..200).map(|x| pool.apply_async(square, (x,)).expect("submit")).collect();
        for (x, result) in rest.into_iter().enumerate() {
            assert_eq!(result.get().expect("value"), square(x as u64));
        }
        short.expect("submit").get().expect("value");
        assert!(!long.ready());
        raise(&go);
        assert_eq!(long.get().expect("value"), 1);
    }
}

#[test]
fn nothing_waits_behind_a_long_call_when_nobody_looks() {
    let _dog = Watchdog::new("long call, nobody looks");
    let scratch = Scratch::new();
    let (started, go, log) = (scratch.file("started"), scratch.file("go"), scratch.file("log"));
    let pool = pool();
    let long = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
    wait_until("it runs", || common::is_raised(&started));
    let note = |log: String| append(&log, "x");
    for _ in 0..50 {
        drop(pool.apply_async(note, (log.clone(),)).expect("submit"));
    }
    // Only the supervisor is there to notice.
    wait_until("all others have run", || lines(&log).len() == 50);
    raise(&go);
    assert_eq!(long.get().expect("value"), 1);
}

// ---- life ----

#[test]
fn a_closed_pool_finishes_its_work_and_its_workers_exit() {
    let _dog = Watchdog::new("close and join");
    let pool = pool();
    let pids = pool.worker_pids();
    let result = pool.map_async(
        |x: u64| {
            std::thread::sleep(Duration::from_millis(2));
            x
        },
        0..50,
    );
    let result = result.expect("submit");
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    let result = result.on_success(move |values: &Vec<u64>| {
        count.store(values.len() as u64, Ordering::SeqCst);
    });
    pool.close();
    pool.join().expect("join");
    assert!(result.ready(), "join waited for the work");
    assert_eq!(heard.load(Ordering::SeqCst), 50, "and for the callbacks");
    assert_eq!(result.get().expect("map"), (0..50).collect::<Vec<_>>());
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    assert!(pool.worker_pids().is_empty());
}

#[test]
fn a_closed_pool_survives_deaths_until_its_work_is_done() {
    let _dog = Watchdog::new("close and deaths");
    let pool = pool();
    let dies = |x: u64| {
        if x.is_multiple_of(5) {
            std::process::exit(1);
        }
        x
    };
    let results: Vec<_> = (0..50).map(|x| pool.apply_async(dies, (x,)).expect("submit")).collect();
    pool.close();
    pool.join().expect("join");
    for (x, result) in results.into_iter().enumerate() {
        assert!(result.ready());
        assert_eq!(result.get().is_err(), x % 5 == 0);
    }
}

#[test]
fn several_threads_may_join_and_terminate_at_once() {
    let _dog = Watchdog::new("joins");
    for _ in 0..20 {
        let pool = pool();
        let result = pool.map_async(square, 0..1000).expect("submit");
        pool.close();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pool = &pool;
                scope.spawn(move || match thread {
                    3 => pool.terminate(),
                    _ => pool.join().expect("join"),
                });
            }
        });
        assert!(result.ready());
        assert!(pool.worker_pids().is_empty());
    }
}

#[test]
fn terminate_ends_running_and_queued_work_with_typed_errors() {
    let _dog = Watchdog::new("terminate");
    let pool = pool();
    let pids = pool.worker_pids();
    let results: Vec<_> = (0..20).map(|_| pool.apply_async(forever, ()).expect("submit")).collect();
    wait_until("two run", || pool.stats().running >= 2);
    pool.terminate();
    assert!(pids.iter().all(|pid| is_gone(*pid)));
    let mut cancelled = 0;
    for result in results {
        assert!(result.ready());
        let error = result.get().expect_err("ended");
        assert!(error.is_closed() || error.is_cancelled(), "{error:?}");
        cancelled += u64::from(error.is_cancelled());
    }
    assert!(cancelled <= 2, "{cancelled} were cancelled, two ran");
    pool.terminate();
    pool.join().expect("join after terminate");
}

#[test]
fn dropping_a_pool_with_work_ends_it() {
    let _dog = Watchdog::new("drop");
    for _ in 0..20 {
        let pool = pool();
        let pids = pool.worker_pids();
        let running: Vec<_> =
            (0..4).map(|_| pool.apply_async(forever, ()).expect("submit")).collect();
        drop(pool);
        assert!(pids.iter().all(|pid| is_gone(*pid)));
        for result in running {
            let error = result.get().expect_err("ended");
            assert!(error.is_closed() || error.is_cancelled(), "{error:?}");
        }
    }
}

#[test]
fn results_outlive_their_pool() {
    let _dog = Watchdog::new("outlive");
    let pool = pool();
    let small = pool.apply_async(square, (4,)).expect("submit");
    let large = pool.apply_async(marked, (5 << 20,)).expect("submit");
    small.wait();
    large.wait();
    drop(pool);
    assert_eq!(small.get().expect("value"), 16);
    assert_eq!(large.get().expect("value"), marked(5 << 20));
}

#[test]
fn a_pool_is_resized_while_it_works() {
    let _dog = Watchdog::new("resize");
    let pool = pool();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut rounds = 0;
                    while !over.load(Ordering::Relaxed) || rounds == 0 {
                        assert_eq!(pool.map(square, 0..500).expect("map"), squares(500));
                        rounds += 1;
                    }
                })
            })
            .collect();
        for workers in [6, 1, 4, 1, 3, 8, 2, 5, 1] {
            pool.resize(workers).expect("resize");
            wait_until("the pool has its size", || pool.worker_pids().len() == workers);
        }
        for workers in (1..=6).cycle().take(60) {
            pool.resize(workers).expect("resize");
        }
        pool.resize(3).expect("resize");
        over.store(true, Ordering::Relaxed);
        for thread in work {
            thread.join().expect("no item is lost");
        }
    });
    wait_until("the pool has its size", || pool.worker_pids().len() == 3);
    let stats = pool.stats();
    assert_eq!((stats.failed, stats.restarts), (0, 0), "nobody died");
}

#[test]
fn a_smaller_pool_lets_running_items_finish() {
    let _dog = Watchdog::new("resize down");
    let scratch = Scratch::new();
    let pool = Pool::builder().workers(3).build().expect("pool");
    let go = scratch.file("go");
    let held: Vec<_> = (0..3)
        .map(|x| {
            pool.apply_async(hold, (scratch.file(&format!("s{x}")), go.clone())).expect("submit")
        })
        .collect();
    wait_until("all run", || (0..3).all(|x| common::is_raised(&scratch.file(&format!("s{x}")))));
    pool.resize(1).expect("resize");
    raise(&go);
    for result in held {
        assert_eq!(result.get().expect("it finished"), 1);
    }
    wait_until("one is left", || pool.worker_pids().len() == 1);
    assert_eq!(pool.apply(square, (2,)).expect("apply"), 4);
}

#[test]
fn the_statistics_add_up() {
    let _dog = Watchdog::new("stats");
    let scratch = Scratch::new();
    let (started, go) = (scratch.file("started"), scratch.file("go"));
    let pool = Pool::builder().workers(1).build().expect("pool");
    assert_eq!(pool.map(square, 0..100).expect("map").len(), 100);
    let _ = pool.map(|x: u64| assert!(x > 9), 0..30);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed), (120, 10));
    assert_eq!((stats.queued, stats.running, stats.restarts), (0, 0, 0));
    assert_eq!(stats.workers.len(), 1);
    assert_eq!(stats.workers[0].items, 130);
    assert_eq!(stats.workers[0].pid, pool.worker_pids()[0]);
    let held = pool.apply_async(hold, (started.clone(), go.clone())).expect("submit");
    let queued = pool.map_async(square, 0..40).expect("submit");
    wait_until("it runs", || common::is_raised(&started));
    let stats = pool.stats();
    assert_eq!(stats.queued + stats.running, 41);
    assert!(stats.running >= 1);
    let busy = stats.workers[0].busy;
    wait_until("busy time passes", || pool.stats().workers[0].busy > busy);
    raise(&go);
    held.get().expect("value");
    queued.get().expect("value");
    let _: multiproc::Result<()> = pool.apply(|| std::process::exit(1), ());
    wait_until("the death is counted", || pool.stats().restarts == 1);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed), (161, 11));
}

#[test]
fn many_threads_use_one_pool_at_once() {
    let _dog = Watchdog::new("many threads");
    let pool = pool();
    std::thread::scope(|scope| {
        for thread in 0..12_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..30 {
                    match (thread + round) % 6 {
                        0 => {
                            assert_eq!(pool.apply(square, (round,)).expect("apply"), square(round))
                        }
                        1 => assert_eq!(pool.map(square, 0..100).expect("map"), squares(100)),
                        2 => {
                            let lazy = pool.imap(square, 0..40).expect("imap");
                            let values: Vec<u64> =
                                lazy.map(|value| value.expect("value")).collect();
                            assert_eq!(values, squares(40));
                        }
                        3 => {
                            let all: Vec<_> = (0..40)
                                .map(|x| pool.apply_async(square, (x,)).expect("submit"))
                                .collect();
                            for (x, result) in all.into_iter().enumerate() {
                                assert_eq!(result.get().expect("value"), square(x as u64));
                            }
                        }
                        4 => {
                            let echo = |bytes: Vec<u8>| bytes;
                            let bytes = vec![thread as u8; 200_000];
                            assert_eq!(pool.apply(echo, (bytes.clone(),)).expect("echo"), bytes);
                        }
                        _ => {
                            let mut lazy = pool.imap_unordered(square, 0..).expect("imap");
                            for _ in 0..10 {
                                lazy.next().expect("endless").expect("value");
                            }
                        }
                    }
                }
            });
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.failed, stats.restarts), (stats.failed, 0));
}

#[test]
fn a_pool_in_an_arc_is_dropped_by_whichever_thread_is_last() {
    let _dog = Watchdog::new("arc");
    let pool = Arc::new(pool());
    let pids = pool.worker_pids();
    let sum = Arc::new(Mutex::new(0));
    let threads: Vec<_> = (0..6)
        .map(|x| {
            let (pool, sum) = (pool.clone(), sum.clone());
            std::thread::spawn(move || {
                *sum.lock().expect("lock") += pool.apply(square, (x,)).expect("apply");
            })
        })
        .collect();
    drop(pool);
    for thread in threads {
        thread.join().expect("join");
    }
    assert_eq!(*sum.lock().expect("lock"), 55);
    wait_until("the workers are gone", || pids.iter().all(|pid| is_gone(*pid)));
}

thread_local! {
    static OF_THREAD: std::cell::RefCell<Option<Pool>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_pool_with_work_may_end_with_the_thread_that_it_belongs_to() {
    let _dog = Watchdog::new("thread-local");
    let thread = std::thread::spawn(|| {
        OF_THREAD.set(Some(pool()));
        OF_THREAD.with_borrow(|pool| {
            let pool = pool.as_ref().expect("set");
            assert_eq!(pool.map(square, 0..100).expect("map"), squares(100));
            (0..10).for_each(|_| drop(pool.apply_async(forever, ()).expect("submit")));
            pool.worker_pids()
        })
    });
    let pids = thread.join().expect("join");
    assert!(pids.iter().all(|pid| is_gone(*pid)));
}

#[test]
fn a_worker_may_have_a_pool_of_its_own() {
    let _dog = Watchdog::new("nested");
    let pool = pool();
    let nested = |x: u64| {
        let inner = Pool::builder().workers(2).build().expect("an inner pool");
        let pids = inner.worker_pids();
        (inner.map(square, 0..x).expect("inner map").iter().sum::<u64>(), pids)
    };
    let results = pool.map(nested, [3, 4]).expect("map");
    assert_eq!([results[0].0, results[1].0], [5, 14]);
    for (_, pids) in results {
        wait_until("inner workers are gone", || pids.iter().all(|pid| is_gone(*pid)));
    }
}

#[test]
fn what_a_dropped_iterator_had_submitted_is_cancelled_or_done() {
    let _dog = Watchdog::new("dropped imap");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let pool = Pool::builder().workers(1).build().expect("pool");
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let items = (0..1000_u64).inspect(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let mut lazy = pool.imap(square, items).expect("imap");
    lazy.next().expect("one").expect("value");
    drop(lazy);
    assert!(read.load(Ordering::SeqCst) < 20);
    pool.apply(|log: String| append(&log, "free"), (log.clone(),)).expect("apply");
    wait_until("nothing is left over", || {
        let stats = pool.stats();
        stats.queued + stats.running == 0
    });
}
