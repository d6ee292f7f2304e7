//! Workers that die in every way there is: exactly the item that they ran is lost, and the pool
//! heals.

#[path = "common/events.rs"]
mod common;

use common::{Scratch, Watchdog, append, kill, lines, process_state, signal, wait_until};
use multiproc::{Execution, Pool};
use serde::de::Deserializer;
use serde::ser::{SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const ITEMS: u64 = 40;
const VICTIM: u64 = 17;
const CHUNKS: [usize; 3] = [1, 7, 100];

/// What an item does to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
    Nothing,
    Signal(i32),
    NullPointer,
    Abort,
    Exit(i32),
    StackOverflow,
    EatMemory,
    PanicWithNumber,
    CloseDescriptors,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    number: u64,
    deed: Deed,
    log: String,
}

fn run(item: Item) -> u64 {
    append(&item.log, item.number);
    do_it(item.deed);
    item.number * 2
}

fn do_it(deed: Deed) {
    match deed {
        Deed::Nothing => {}
        Deed::Signal(number) => {
            signal(std::process::id(), number);
            // A stopping or killing signal has arrived by the time the call returns; the loop is
            // for those that come a moment later.
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Deed::NullPointer => {
            // SAFETY: none: this process is meant to crash here, and nothing outlives it.
            let value = unsafe { std::hint::black_box(std::ptr::null::<u8>()).read_volatile() };
            panic!("read {value} from address 0");
        }
        Deed::Abort => std::process::abort(),
        Deed::Exit(code) => std::process::exit(code),
        Deed::StackOverflow => {
            assert!(dig(0) > 0);
        }
        Deed::EatMemory => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 64 << 20]);
                std::hint::black_box(&eaten);
            }
        }
        Deed::PanicWithNumber => std::panic::panic_any(42_u32),
        Deed::CloseDescriptors => {
            // SAFETY: closing descriptors touches no memory; this process ends here.
            unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

#[allow(unconditional_recursion, reason = "it is to overflow the stack")]
fn dig(depth: u64) -> u64 {
    let space = std::hint::black_box([depth; 512]);
    dig(depth + 1) + space[(depth % 512) as usize]
}

fn pool() -> Pool {
    Pool::builder().workers(2).core_limit(0).build().expect("pool")
}

fn items(deed: Deed, log: &str) -> Vec<Item> {
    let item = |number| {
        let deed = if number == VICTIM { deed } else { Deed::Nothing };
        Item { number, deed, log: log.to_owned() }
    };
    (0..ITEMS).map(item).collect()
}

/// Runs the items in chunks of each size: only the victim is lost, and the others ran once.
fn check(pool: &Pool, deed: Deed, verify: impl Fn(&multiproc::Error)) {
    for chunk in CHUNKS {
        let scratch = Scratch::new();
        let log = scratch.file("log");
        let results: Vec<_> = pool
            .chunks_of(chunk)
            .expect("size")
            .imap(run, items(deed, &log))
            .expect("imap")
            .collect();
        assert_eq!(results.len() as u64, ITEMS, "chunks of {chunk}");
        for (number, result) in results.into_iter().enumerate() {
            match result {
                Err(error) if number as u64 == VICTIM => verify(&error),
                Err(error) => panic!("chunks of {chunk}: item {number} was lost, too: {error}"),
                Ok(value) => {
                    assert_ne!(number as u64, VICTIM, "chunks of {chunk}: the victim survived");
                    assert_eq!(value, number as u64 * 2);
                }
            }
        }
        assert_each_ran_once(&log);
        assert_usable(pool);
    }
}

fn assert_each_ran_once(log: &str) {
    let mut runs: HashMap<u64, u32> = HashMap::new();
    for line in lines(log) {
        *runs.entry(line.parse().expect("a number")).or_default() += 1;
    }
    for number in 0..ITEMS {
        let ran = runs.get(&number).copied().unwrap_or(0);
        assert!(ran == 1 || number == VICTIM && ran == 0, "item {number} ran {ran} times");
    }
}

/// The pool has as many workers as before, and they work.
fn assert_usable(pool: &Pool) {
    wait_until("the pool has two workers again", || pool.worker_pids().len() == 2);
    assert_eq!(pool.map(|x: u64| x + 1, 0..100).expect("map"), (1..=100).collect::<Vec<_>>());
}

fn died_of(signal: i32) -> impl Fn(&multiproc::Error) {
    move |error| {
        assert!(error.is_worker_died(), "{error:?}");
        let status = error.exit_status().expect("a status");
        assert_eq!(status.signal(), Some(signal), "{error}");
        assert_eq!(error.execution(), Execution::Unknown);
        assert!(error.worker_pid().is_some());
    }
}

fn exited_with(code: i32) -> impl Fn(&multiproc::Error) {
    move |error| {
        assert!(error.is_worker_died(), "{error:?}");
        assert_eq!(error.exit_status().and_then(|status| status.code()), Some(code), "{error}");
    }
}

#[test]
fn a_killed_worker_loses_only_its_item() {
    let _dog = Watchdog::new("killed");
    check(&pool(), Deed::Signal(libc::SIGKILL), died_of(libc::SIGKILL));
}

#[test]
fn a_segfault_by_null_pointer_loses_only_its_item() {
    let _dog = Watchdog::new("segfault");
    // In a build with debug assertions a null read may be caught by the compiler's check first.
    check(&pool(), Deed::NullPointer, |error| {
        let status = error.exit_status().expect("a status");
        assert!(matches!(status.signal(), Some(libc::SIGSEGV | libc::SIGABRT)), "{error}");
    });
}

#[test]
fn a_raised_segfault_loses_only_its_item() {
    let _dog = Watchdog::new("raised segfault");
    check(&pool(), Deed::Signal(libc::SIGSEGV), died_of(libc::SIGSEGV));
}

#[test]
fn an_abort_loses_only_its_item() {
    let _dog = Watchdog::new("abort");
    check(&pool(), Deed::Abort, died_of(libc::SIGABRT));
}

#[test]
fn an_exit_with_0_is_a_death_that_loses_only_its_item() {
    let _dog = Watchdog::new("exit 0");
    check(&pool(), Deed::Exit(0), exited_with(0));
}

#[test]
fn an_exit_with_3_is_a_death_that_loses_only_its_item() {
    let _dog = Watchdog::new("exit 3");
    check(&pool(), Deed::Exit(3), exited_with(3));
}

#[test]
fn a_stack_overflow_loses_only_its_item() {
    let _dog = Watchdog::new("stack overflow");
    check(&pool(), Deed::StackOverflow, |error| {
        let signal = error.exit_status().and_then(|status| status.signal());
        assert!(matches!(signal, Some(libc::SIGSEGV | libc::SIGABRT)), "{error}");
    });
}

#[test]
fn running_out_of_memory_loses_only_its_item() {
    let _dog = Watchdog::new("out of memory");
    let pool = Pool::builder().workers(2).core_limit(0).memory_limit(1 << 30).build();
    check(&pool.expect("pool"), Deed::EatMemory, died_of(libc::SIGABRT));
}

#[test]
fn a_stopped_worker_is_killed_by_the_task_timeout_and_loses_only_its_item() {
    let _dog = Watchdog::new("stopped");
    let pool = Pool::builder().workers(2).task_timeout(Duration::from_secs(5)).build();
    check(&pool.expect("pool"), Deed::Signal(libc::SIGSTOP), |error| {
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(error.execution(), Execution::Unknown);
    });
}

#[test]
fn a_panic_with_a_payload_that_is_no_text_is_an_error_of_its_item_and_kills_nobody() {
    let _dog = Watchdog::new("panic");
    let pool = pool();
    let mut before = pool.worker_pids();
    check(&pool, Deed::PanicWithNumber, |error| {
        assert!(error.is_panic(), "{error:?}");
        assert_eq!(error.panic().expect("info").message, "<non-string payload>");
        assert_eq!(error.execution(), Execution::Failed);
    });
    let mut after = pool.worker_pids();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
}

#[test]
fn a_worker_that_closes_all_its_descriptors_is_replaced_and_loses_only_its_item() {
    let _dog = Watchdog::new("closed descriptors");
    check(&pool(), Deed::CloseDescriptors, |error| assert!(error.is_worker_died(), "{error:?}"));
}

/// An argument that kills whoever decodes it, if it has a fuse.
#[derive(Clone, Debug)]
struct Bomb(Item);

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bomb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let item = Item::deserialize(deserializer)?;
        do_it(item.deed);
        Ok(Self(item))
    }
}

/// A result that kills whoever encodes it, if it has a fuse.
#[derive(Debug)]
struct Shell(Item);

impl Serialize for Shell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        do_it(self.0.deed);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Item::deserialize(deserializer).map(Self)
    }
}

fn run_bomb(bomb: Bomb) -> u64 {
    append(&bomb.0.log, bomb.0.number);
    bomb.0.number * 2
}

fn load_shell(item: Item) -> Shell {
    append(&item.log, item.number);
    Shell(item)
}

#[test]
fn a_death_while_decoding_loses_only_its_item() {
    let _dog = Watchdog::new("decoding");
    let pool = pool();
    for deed in [Deed::Signal(libc::SIGKILL), Deed::Abort, Deed::Exit(0)] {
        for chunk in CHUNKS {
            let scratch = Scratch::new();
            let log = scratch.file("log");
            let bombs = items(deed, &log).into_iter().map(Bomb);
            let chunks = pool.chunks_of(chunk).expect("size");
            for (number, result) in chunks.imap(run_bomb, bombs).expect("imap").enumerate() {
                match number as u64 {
                    VICTIM => assert!(result.expect_err("dead").is_worker_died()),
                    number => assert_eq!(result.expect("a value"), number * 2),
                }
            }
            assert_each_ran_once(&log);
            assert_usable(&pool);
        }
    }
}

#[test]
fn a_death_while_encoding_loses_only_its_item() {
    let _dog = Watchdog::new("encoding");
    let pool = pool();
    for deed in [Deed::Signal(libc::SIGKILL), Deed::Abort, Deed::Exit(0)] {
        for chunk in CHUNKS {
            let scratch = Scratch::new();
            let log = scratch.file("log");
            let chunks = pool.chunks_of(chunk).expect("size");
            let results = chunks.imap(load_shell, items(deed, &log)).expect("imap");
            for (number, result) in results.enumerate() {
                match number as u64 {
                    VICTIM => assert!(result.expect_err("dead").is_worker_died()),
                    number => assert_eq!(result.expect("a value").0.number, number),
                }
            }
            assert_each_ran_once(&log);
            assert_usable(&pool);
        }
    }
}

#[test]
fn a_panic_while_decoding_or_encoding_is_an_error_of_its_item() {
    let _dog = Watchdog::new("codec panic");
    let pool = pool();
    let scratch = Scratch::new();
    for chunk in CHUNKS {
        let chunks = pool.chunks_of(chunk).expect("size");
        let log = scratch.file(&format!("bombs-{chunk}"));
        let bombs = items(Deed::PanicWithNumber, &log).into_iter().map(Bomb);
        for (number, result) in chunks.imap(run_bomb, bombs).expect("imap").enumerate() {
            assert_eq!(result.is_err(), number as u64 == VICTIM, "{result:?}");
        }
        let log = scratch.file(&format!("shells-{chunk}"));
        let results = chunks.imap(load_shell, items(Deed::PanicWithNumber, &log)).expect("imap");
        for (number, result) in results.enumerate() {
            match number as u64 {
                VICTIM => assert!(result.expect_err("a panic").is_panic()),
                number => assert_eq!(result.expect("a value").0.number, number),
            }
        }
        assert_each_ran_once(&log);
    }
    assert_eq!(pool.stats().restarts, 0);
}

const PIECES: usize = 16;
const PIECE: usize = 1 << 20;

/// 16 MiB that kill their worker when half of them have been written for good.
#[derive(Debug)]
struct Heavy {
    fuse: bool,
}

struct Piece(u8);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&vec![self.0; PIECE])
    }
}

impl Serialize for Heavy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// How often the middle was reached: the first time the value was only measured.
        static MIDDLE: AtomicU32 = AtomicU32::new(0);
        let mut pieces = serializer.serialize_tuple(PIECES)?;
        for index in 0..PIECES {
            if self.fuse && index == PIECES / 2 && MIDDLE.fetch_add(1, Ordering::Relaxed) == 1 {
                do_it(Deed::Signal(libc::SIGKILL));
            }
            pieces.serialize_element(&Piece(index as u8))?;
        }
        pieces.end()
    }
}

impl<'de> Deserialize<'de> for Heavy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;
        impl<'de> serde::de::Visitor<'de> for Pieces {
            type Value = Heavy;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("16 pieces")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Heavy, A::Error> {
                let mut index = 0;
                while let Some(piece) = seq.next_element::<&[u8]>()? {
                    assert_eq!(piece.len(), PIECE);
                    assert!(piece.iter().step_by(4096).all(|byte| *byte == index));
                    index += 1;
                }
                assert_eq!(usize::from(index), PIECES);
                Ok(Heavy { fuse: false })
            }
        }
        deserializer.deserialize_tuple(PIECES, Pieces)
    }
}

#[test]
fn a_death_half_way_through_a_result_of_16_mib_loses_only_that_item() {
    let _dog = Watchdog::new("half a result");
    let pool = pool();
    for chunk in [1, 3] {
        let chunks = pool.chunks_of(chunk).expect("size");
        let heavy = |number: u64| Heavy { fuse: number == 3 };
        for (number, result) in chunks.imap(heavy, 0..6).expect("imap").enumerate() {
            match number {
                3 => died_of(libc::SIGKILL)(&result.expect_err("dead")),
                _ => assert!(!result.expect("16 MiB").fuse),
            }
        }
        assert_usable(&pool);
    }
}

fn first_and_last(bytes: Vec<u8>) -> (usize, u8, u8) {
    (bytes.len(), bytes[0], bytes[bytes.len() - 1])
}

#[test]
fn workers_killed_while_large_arguments_are_on_their_way_lose_at_most_one_each() {
    let _dog = Watchdog::new("large arguments");
    const LEN: usize = 16 << 20;
    let pool = pool();
    let over = AtomicBool::new(false);
    let killed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let before = pool.worker_pids();
                if let [first, ..] = before[..] {
                    // Before the kill: what it costs may be counted first.
                    killed.fetch_add(1, Ordering::Relaxed);
                    kill(first);
                    wait_until("the dead worker is buried", || {
                        over.load(Ordering::Relaxed) || !pool.worker_pids().contains(&first)
                    });
                }
            }
        });
        let mut lost = 0;
        let is_over = |round: u8| round >= 60 && killed.load(Ordering::Relaxed) > 0;
        for round in (0..=u8::MAX).cycle().take_while(|&round| !is_over(round)) {
            match pool.apply(first_and_last, (vec![round; LEN],)) {
                Ok(told) => assert_eq!(told, (LEN, round, round)),
                Err(error) => {
                    assert!(error.is_worker_died(), "{error:?}");
                    lost += 1;
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        assert!(lost <= killed.load(Ordering::Relaxed));
    });
    assert_usable(&pool);
}

#[test]
fn an_idle_worker_killed_from_outside_is_replaced_and_costs_nothing() {
    let _dog = Watchdog::new("idle");
    let pool = pool();
    for _ in 0..10 {
        let victim = pool.worker_pids()[0];
        kill(victim);
        wait_until("it is replaced", || {
            let pids = pool.worker_pids();
            pids.len() == 2 && !pids.contains(&victim)
        });
        assert_eq!(pool.map(|x: u64| x, 0..10).expect("map"), (0..10).collect::<Vec<_>>());
    }
    let stats = pool.stats();
    assert_eq!((stats.restarts, stats.failed), (10, 0));
}

#[test]
fn a_task_given_to_a_worker_that_is_just_dying_is_run_by_another() {
    let _dog = Watchdog::new("just dying");
    let pool = pool();
    for round in 0..30_u64 {
        for pid in pool.worker_pids() {
            kill(pid);
        }
        // The pool may not know yet. A death before the item was claimed costs nothing; one
        // after the claim is told.
        match pool.apply(|x: u64| x + 1, (round,)) {
            Ok(value) => assert_eq!(value, round + 1),
            Err(error) => assert!(error.is_worker_died(), "{error:?}"),
        }
    }
    assert_usable(&pool);
}

#[test]
fn all_workers_killed_at_once_again_and_again_lose_only_what_they_ran() {
    let _dog = Watchdog::new("all at once");
    let pool = Pool::builder().workers(3).build().expect("pool");
    let scratch = Scratch::new();
    for round in 0..10 {
        let log = scratch.file(&format!("log-{round}"));
        let slow = |(number, log): (u64, String)| {
            append(&log, number);
            std::thread::sleep(Duration::from_millis(2));
            number
        };
        let items: Vec<_> = (0..60).map(|number| (number, log.clone())).collect();
        let results: Vec<_> = std::thread::scope(|scope| {
            let pool = &pool;
            let results =
                scope.spawn(move || pool.imap(slow, items).expect("imap").collect::<Vec<_>>());
            wait_until("work has begun", || lines(&log).len() > 5);
            for pid in pool.worker_pids() {
                kill(pid);
            }
            results.join().expect("join")
        });
        let lost = results.iter().filter(|result| result.is_err()).count();
        assert!(lost <= 3, "{lost} items lost with 3 workers");
        for (number, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value, number as u64),
                Err(error) => assert!(error.is_worker_died(), "{error:?}"),
            }
        }
        let mut ran = lines(&log);
        ran.sort();
        ran.dedup();
        assert_eq!(ran.len(), lines(&log).len(), "an item ran twice");
    }
    wait_until("three workers", || pool.worker_pids().len() == 3);
}

#[test]
fn map_returns_the_first_error_after_the_rest_has_run() {
    let _dog = Watchdog::new("first error");
    let pool = pool();
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let error = pool.map(run, items(Deed::Exit(3), &log)).expect_err("a death");
    exited_with(3)(&error);
    assert_each_ran_once(&log);
}

#[test]
fn items_lost_with_their_worker_are_retried_as_often_as_asked() {
    let _dog = Watchdog::new("retries");
    for chunk in CHUNKS {
        let pool = Pool::builder().workers(2).core_limit(0).retries(2).build().expect("pool");
        let scratch = Scratch::new();
        let log = scratch.file("log");
        let dies_twice = |item: Item| {
            append(&item.log, item.number);
            let runs =
                lines(&item.log).iter().filter(|line| **line == item.number.to_string()).count();
            if item.deed != Deed::Nothing && runs <= 2 {
                do_it(item.deed);
            }
            item.number
        };
        let results: Vec<_> = pool
            .chunks_of(chunk)
            .expect("size")
            .map(dies_twice, items(Deed::Signal(libc::SIGKILL), &log))
            .expect("the third try succeeds");
        assert_eq!(results, (0..ITEMS).collect::<Vec<_>>());
        let of_victim = lines(&log).iter().filter(|line| **line == VICTIM.to_string()).count();
        assert_eq!((of_victim, lines(&log).len() as u64), (3, ITEMS + 2));
    }
}

#[test]
fn an_item_that_always_kills_is_given_up_after_its_retries() {
    let _dog = Watchdog::new("given up");
    let pool = Pool::builder().workers(2).retries(3).build().expect("pool");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let item = Item { number: 1, deed: Deed::Exit(9), log: log.clone() };
    exited_with(9)(&pool.apply(run, (item,)).expect_err("always dies"));
    assert_eq!(lines(&log).len(), 4);
}

#[test]
fn a_stopped_worker_without_a_timeout_only_waits_and_can_be_cancelled() {
    let _dog = Watchdog::new("stopped and cancelled");
    let pool = pool();
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let item = Item { number: 1, deed: Deed::Signal(libc::SIGSTOP), log: log.clone() };
    let stopped = pool.apply_async(run, (item,)).expect("submit");
    wait_until("a worker stops", || {
        pool.worker_pids().iter().any(|pid| process_state(*pid) == Some('T'))
    });
    // The other one goes on.
    assert_eq!(pool.map(|x: u64| x, 0..50).expect("map").len(), 50);
    assert!(!stopped.ready());
    assert!(stopped.cancel_running());
    assert!(stopped.get().expect_err("cancelled").is_cancelled());
    assert_usable(&pool);
}

/// More tasks than the ring holds are given to a worker and taken back before it looks once.
#[test]
fn a_worker_that_sleeps_through_many_cancelled_tasks_finds_the_next_one() {
    let _dog = Watchdog::new("slept through");
    let pool = Pool::builder().workers(1).build().expect("pool");
    assert_eq!(pool.apply(|x: u64| x, (1,)).expect("apply"), 1);
    let worker = pool.worker_pids()[0];
    for rounds in [3, 1023, 1024, 1025, 3000] {
        signal(worker, libc::SIGSTOP);
        wait_until("it is stopped", || process_state(worker) == Some('T'));
        for _ in 0..rounds {
            let result = pool.apply_async(|x: u64| x, (2,)).expect("submit");
            result.cancel();
        }
        let last = pool.apply_async(|x: u64| x, (rounds,)).expect("submit");
        signal(worker, libc::SIGCONT);
        assert_eq!(last.get().expect("value"), rounds);
    }
    assert_eq!(pool.worker_pids(), [worker]);
}
