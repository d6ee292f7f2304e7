//! Many threads do everything that a pool can do, at once, on a few workers.

#[path = "common/events.rs"]
mod common;

use common::{Dice, Watchdog};
use multiproc::{Error, Pool};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn same(x: u64) -> u64 {
    x
}

fn bytes(len: u64) -> Vec<u8> {
    vec![len as u8; len as usize]
}

fn busy(micros: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    micros
}

fn odd_panics(x: u64) -> u64 {
    assert!(x.is_multiple_of(2), "odd");
    x
}

/// What may come of a task where workers are killed and tasks cancelled.
fn expected(error: &Error, kills: bool) {
    let lost = error.is_worker_died() || error.is_cancelled();
    assert!(error.is_panic() || kills && lost, "{error:?}");
}

fn check<T: PartialEq + std::fmt::Debug>(result: multiproc::Result<T>, value: T, kills: bool) {
    match result {
        Ok(got) => assert!(got == value, "another value"),
        Err(error) => expected(&error, kills),
    }
}

fn one(pool: &Pool, dice: &mut Dice, kills: bool) {
    let x = dice.below(1000);
    match dice.below(if kills { 15 } else { 13 }) {
        0 => (0..20).for_each(|x| check(pool.apply(same, (x,)), x, kills)),
        1 => check(pool.map(same, 0..200), (0..200).collect(), kills),
        2 => {
            let chunks = pool.chunks_of(1 + dice.below(9) as usize).expect("size");
            let results = chunks.imap(odd_panics, 0..60).expect("imap");
            for (x, result) in (0..60).zip(results) {
                check(result, x, kills);
            }
        }
        3 => {
            let all: Vec<_> =
                (0..60).map(|x| pool.apply_async(same, (x,)).expect("submit")).collect();
            for (x, result) in (0..60).zip(all) {
                if dice.below(3) == 0 && result.cancel() {
                    assert!(result.get().expect_err("cancelled").is_cancelled());
                } else {
                    check(result.get(), x, kills);
                }
            }
        }
        4 => {
            let sent = bytes([70_000, 300_000, 1_000_000][dice.below(3) as usize] + x);
            check(pool.apply(|bytes: Vec<u8>| bytes, (sent.clone(),)), sent, kills);
        }
        5 => {
            let mut results = pool.imap_unordered(same, 0..).expect("imap");
            for result in results.by_ref().take(dice.below(12) as usize) {
                result.map_or_else(|error| expected(&error, kills), drop);
            }
        }
        6 => {
            let len = [100_000, 280_000][dice.below(2) as usize];
            let wanted: Vec<_> = (0..12).map(|x| bytes(len + x)).collect();
            check(pool.map(bytes, len..len + 12), wanted, kills);
        }
        7 => {
            // More than the result ring holds, one result after the other.
            let len = 20_000 + 40 * x;
            let wanted: Vec<_> = (0..16).map(|x| bytes(len + x)).collect();
            check(pool.map(bytes, len..len + 16), wanted, kills);
        }
        8 => {
            let result = pool.apply_async(busy, (x,)).expect("submit");
            let _ = result.wait_timeout(Duration::from_micros(x / 2));
            check(result.get(), x, kills);
        }
        9 => {
            let context = bytes(1500 + 300 * x);
            let len = context.len();
            let with = |context: &Vec<u8>, x: usize| context.len() + x;
            check(pool.map_with(&context, with, 0..8), (len..len + 8).collect(), kills);
        }
        10 => {
            let (sender, receiver) = channel();
            let other = sender.clone();
            let result = pool.apply_async(same, (x,)).expect("submit");
            let result = result.on_success(move |_| sender.send(()).expect("send"));
            let result = result.on_error(move |_| other.send(()).expect("send"));
            receiver.recv().expect("one of them is called");
            check(result.get(), x, kills);
        }
        11 => {
            // One long item in front, in one chunk with short ones.
            let chunks = pool.chunks_of(30).expect("size");
            let items = std::iter::once(2 * x).chain(0..29);
            let wanted: Vec<u64> = items.clone().collect();
            check(chunks.map(busy, items), wanted, kills);
        }
        12 => {
            let all = pool.map_async(bytes, (0..20).map(|x| 5_000 * x)).expect("submit");
            if all.cancel() {
                let _ = all.get();
            } else {
                check(all.get(), (0..20).map(|x| bytes(5_000 * x)).collect(), kills);
            }
        }
        13 => {
            let stuck: multiproc::AsyncResult<u64> =
                pool.apply_async(|| busy(u64::MAX), ()).expect("submit");
            let _ = stuck.wait_timeout(Duration::from_micros(x));
            stuck.cancel_running();
            expected(&stuck.get().expect_err("endless"), kills);
        }
        _ => {
            let pids = pool.worker_pids();
            if let Some(pid) = pids.get(dice.below(4) as usize) {
                common::kill(*pid);
            }
        }
    }
}

fn storm(workers: usize, threads: u64, rounds: u64, most: Option<u64>, kills: bool, seed: u64) {
    let mut builder = Pool::builder().workers(workers);
    if let Some(most) = most {
        builder = builder.max_in_flight(most);
    }
    let pool = builder.build().expect("pool");
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let pool = &pool;
            scope.spawn(move || {
                let mut dice = Dice::new(seed * 1000 + thread + 1);
                (0..rounds).for_each(|_| one(pool, &mut dice, kills));
            });
        }
    });
    pool.close();
    pool.join().expect("join");
    let stats = pool.stats();
    assert_eq!((stats.queued, stats.running, stats.workers.len()), (0, 0, 0));
}

/// Rounds for each thread; more on request, for a hunt.
fn rounds() -> u64 {
    std::env::var("STORM_ROUNDS").map_or(15, |rounds| rounds.parse().expect("a number"))
}

fn seed() -> u64 {
    std::env::var("STORM_SEED").map_or(1, |seed| seed.parse().expect("a number"))
}

#[test]
fn everything_at_once_comes_to_an_end() {
    let _dog = Watchdog::new("storm");
    for workers in 1..=3 {
        storm(workers, 8, rounds(), None, false, seed());
    }
}

#[test]
fn everything_at_once_comes_to_an_end_in_a_full_pool() {
    let _dog = Watchdog::new("storm in a full pool");
    for workers in 1..=3 {
        storm(workers, 8, rounds(), Some(5 * workers as u64), false, seed() + 500);
    }
}

#[test]
fn everything_at_once_comes_to_an_end_although_workers_die() {
    let _dog = Watchdog::new("storm with deaths");
    for workers in 1..=3 {
        storm(workers, 6, rounds(), Some(100), true, seed() + 900);
    }
}
