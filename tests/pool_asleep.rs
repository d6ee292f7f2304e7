//! Nothing that could run is left lying while everybody sleeps: each test here hung, or could.

#[path = "common/events.rs"]
mod common;

use common::{Scratch, Watchdog, kill, process_state, raise, signal, wait_for, wait_until};
use multiproc::{AsyncResult, Pool};
use std::sync::atomic::{AtomicBool, Ordering};

fn same(x: u64) -> u64 {
    x
}

/// A worker whose only task was cancelled before it looked is as free as any other: the next task
/// goes to it, and not behind the long one of its neighbour, where nobody would fetch it.
#[test]
fn a_worker_whose_task_was_taken_back_is_free() {
    let _dog = Watchdog::new("taken back");
    let scratch = Scratch::new();
    let (begun, go) = (scratch.file("begun"), scratch.file("go"));
    let pool = Pool::builder().workers(2).build().expect("pool");
    let long = |begun: String, go: String| {
        raise(&begun);
        wait_for(&go);
    };
    let long = pool.apply_async(long, (begun.clone(), go.clone())).expect("submit");
    wait_for(&begun);
    let pids = pool.worker_pids();
    let free = pool.apply(std::process::id, ()).expect("the other worker");
    assert!(pids.contains(&free));
    signal(free, libc::SIGSTOP);
    wait_until("it is stopped", || process_state(free) == Some('T'));
    let never = pool.apply_async(same, (1,)).expect("submit");
    assert!(never.cancel());
    signal(free, libc::SIGCONT);
    for x in 0..3 {
        assert_eq!(pool.apply(same, (x,)).expect("value"), x);
    }
    raise(&go);
    long.get().expect("value");
}

/// The same, when what waits is already given: it is shared out anew.
#[test]
fn a_worker_whose_task_was_taken_back_takes_over_from_others() {
    let _dog = Watchdog::new("taken back, then taking over");
    let scratch = Scratch::new();
    let (begun, go) = (scratch.file("begun"), scratch.file("go"));
    let pool = Pool::builder().workers(2).build().expect("pool");
    let long = |begun: String, go: String| {
        raise(&begun);
        wait_for(&go);
    };
    let long = pool.apply_async(long, (begun.clone(), go.clone())).expect("submit");
    wait_for(&begun);
    let free = pool.apply(std::process::id, ()).expect("the other worker");
    signal(free, libc::SIGSTOP);
    wait_until("it is stopped", || process_state(free) == Some('T'));
    let never = pool.apply_async(same, (1,)).expect("submit");
    let behind = pool.apply_async(same, (2,)).expect("submit");
    assert!(never.cancel());
    signal(free, libc::SIGCONT);
    assert_eq!(behind.get().expect("value"), 2);
    raise(&go);
    long.get().expect("value");
}

/// A large payload is dropped by the worker after its frame. When the frame was split, another
/// part of the same payload may come to the same worker, which then needs it again.
#[test]
fn a_split_chunk_of_a_large_payload_can_come_back_to_its_worker() {
    let _dog = Watchdog::new("split large payload");
    let scratch = Scratch::new();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let run = |(number, go, bytes): (u64, String, Vec<u8>)| {
        if number == 0 {
            wait_for(&go);
        } else {
            raise(&go);
        }
        (number, bytes.len())
    };
    let go = scratch.file("go");
    let items = (0..20).map(|number| (number, go.clone(), vec![7; 4 << 20]));
    let chunks = pool.chunks_of(20).expect("size");
    let results = chunks.imap(run, items).expect("imap").map(|result| result.expect("value"));
    assert!(results.eq((0..20).map(|number| (number, 4 << 20))));
}

/// A replacement that comes up when the pool has nothing left to do is waited for by everybody who
/// joins.
#[test]
fn all_who_join_return_although_a_worker_comes_up_late() {
    let _dog = Watchdog::new("late worker");
    let scratch = Scratch::new();
    let (first, late, go) = (scratch.file("first"), scratch.file("late"), scratch.file("go"));
    let initialize = |first: String, late: String, go: String| {
        if common::is_raised(&first) {
            raise(&late);
            wait_for(&go);
        }
        raise(&first);
    };
    let arguments = (first, late.clone(), go.clone());
    let pool = Pool::builder()
        .workers(1)
        .max_tasks_per_worker(1)
        .initializer(initialize, arguments)
        .build()
        .expect("pool");
    assert_eq!(pool.apply(same, (3,)).expect("value"), 3);
    wait_for(&late);
    pool.close();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                pool.join().expect("join");
                assert_eq!(pool.worker_pids(), [0; 0]);
            });
        }
        raise(&go);
    });
}

/// A closed pool whose only worker has died is not at its end, whoever asks.
#[test]
fn none_who_join_return_while_a_worker_is_replaced() {
    let _dog = Watchdog::new("replaced");
    let scratch = Scratch::new();
    let (first, late, go) = (scratch.file("first"), scratch.file("late"), scratch.file("go"));
    let initialize = |first: String, late: String, go: String| {
        if common::is_raised(&first) {
            raise(&late);
            wait_for(&go);
        }
        raise(&first);
    };
    let arguments = (first, late.clone(), go.clone());
    let pool = Pool::builder().workers(1).initializer(initialize, arguments).build().expect("pool");
    let fatal: AsyncResult<()> = pool.apply_async(|| std::process::abort(), ()).expect("submit");
    let next = pool.apply_async(same, (3,)).expect("submit");
    assert!(fatal.get().expect_err("dead").is_worker_died());
    wait_for(&late);
    pool.close();
    std::thread::scope(|scope| {
        let joins: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    pool.join().expect("join");
                    assert!(next.ready(), "joined before the end");
                })
            })
            .collect();
        raise(&go);
        joins.into_iter().for_each(|join| join.join().expect("join"));
    });
    assert_eq!(next.get().expect("value"), 3);
}

/// A death is dealt with even while results of other workers never stop coming.
#[test]
fn a_death_is_noticed_in_a_flood_of_results() {
    let _dog = Watchdog::new("death in a flood");
    let scratch = Scratch::new();
    let begun = scratch.file("begun");
    let pool = Pool::builder().workers(2).build().expect("pool");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stuck = |begun: String| {
            raise(&begun);
            loop {
                std::thread::park();
            }
        };
        let stuck: AsyncResult<()> = pool.apply_async(stuck, (begun.clone(),)).expect("submit");
        wait_for(&begun);
        let free = pool.apply(std::process::id, ()).expect("the other worker");
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(pool.apply_async(same, (1,)).expect("submit"));
            }
        });
        wait_until("the flood has begun", || pool.stats().done > 1000);
        let victim = pool.worker_pids().into_iter().find(|pid| *pid != free).expect("it lives");
        kill(victim);
        assert!(stuck.get().expect_err("killed").is_worker_died());
        over.store(true, Ordering::Relaxed);
    });
}

/// Work behind a long item is shared out even while there is always a thread that looks for
/// results, so that neither the last of them nor the supervisor ever goes to sleep.
#[test]
fn work_is_shared_out_while_threads_never_stop_looking() {
    let _dog = Watchdog::new("shared out");
    let scratch = Scratch::new();
    let go = scratch.file("go");
    let pool = Pool::builder().workers(2).build().expect("pool");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(pool.apply(same, (1,)).expect("value"), 1);
                }
            });
        }
        wait_until("all are at it", || pool.stats().done > 1000);
        let run =
            |(number, go): (u64, String)| if number == 0 { wait_for(&go) } else { raise(&go) };
        let chunks = pool.chunks_of(2).expect("size");
        let both = chunks.map_async(run, [(0, go.clone()), (1, go.clone())]).expect("submit");
        both.get().expect("values");
        over.store(true, Ordering::Relaxed);
    });
}
