//! 200 random kills during 200,000 tasks from several threads: every task ends exactly once, with
//! its value or with one error that says that its worker died.

#[path = "common/events.rs"]
mod common;

use common::{Dice, Watchdog, descendants, is_gone, kill, wait_until};
use multiproc::Pool;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KILLS: u64 = 200;
const TASKS: u64 = 200_000;
/// Of each of the three kinds of submission, as many threads.
const THREADS: u64 = 2;
const SHARE: u64 = TASKS / (3 * THREADS) + 1;

fn work(x: u64) -> u64 {
    x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ x >> 7
}

#[derive(Debug, Default)]
struct Tally {
    values: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    fn count(&self, x: u64, result: multiproc::Result<u64>) {
        match result {
            Ok(value) => {
                assert_eq!(value, work(x));
                self.values.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(error.is_worker_died(), "{error:?}");
                assert!(error.worker_pid().is_some());
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn seen(&self) -> u64 {
        self.values.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed)
    }
}

/// Kills a random worker each time when another of `KILLS` parts of the tasks is done.
fn kill_at_random(pool: &Pool, tally: &Tally, over: &AtomicBool, seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut killed = 0;
    for number in 0..KILLS {
        let at = number * (TASKS * 9 / 10 / KILLS) + dice.below(TASKS / KILLS / 2);
        while tally.seen() < at && !over.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // While all are dead there is nobody to kill; wait for the next one.
        loop {
            let pids = pool.worker_pids();
            if let Some(pid) = pids.get(dice.below(pids.len() as u64) as usize) {
                kill(*pid);
                killed += 1;
                break;
            }
            std::thread::yield_now();
        }
    }
    killed
}

/// Submits all tasks in three ways at once while workers are killed; returns the tally.
fn storm(pool: &Pool, seed: u64) -> (Tally, u64) {
    let tally = Tally::default();
    let over = AtomicBool::new(false);
    let killed = std::thread::scope(|scope| {
        let (tally, over) = (&tally, &over);
        let killer = scope.spawn(move || kill_at_random(pool, tally, over, seed));
        let submitters: Vec<_> = (0..THREADS)
            .flat_map(|thread| {
                let start = thread * SHARE * 3;
                [
                    scope.spawn(move || map_all(pool, tally, start)),
                    scope.spawn(move || apply_all(pool, tally, start + SHARE)),
                    scope.spawn(move || imap_all(pool, tally, start + 2 * SHARE)),
                ]
            })
            .collect();
        for submitter in submitters {
            submitter.join().expect("a submitter");
        }
        over.store(true, Ordering::Relaxed);
        killer.join().expect("the killer")
    });
    (tally, killed)
}

/// `map` tells only the first error, so its items are accounted for call by call.
fn map_all(pool: &Pool, tally: &Tally, start: u64) {
    for from in (start..start + SHARE).step_by(100) {
        let to = (from + 100).min(start + SHARE);
        match pool.chunks_of(25).expect("size").map(work, from..to) {
            Ok(values) => {
                assert_eq!(values.len() as u64, to - from);
                for (x, value) in (from..to).zip(values) {
                    tally.count(x, Ok(value));
                }
            }
            Err(error) => {
                assert!(error.is_worker_died(), "{error:?}");
                tally.count(from, Err(error));
                tally.values.fetch_add(to - from - 1, Ordering::Relaxed);
            }
        }
    }
}

fn apply_all(pool: &Pool, tally: &Tally, start: u64) {
    for from in (start..start + SHARE).step_by(500) {
        let results: Vec<_> = (from..(from + 500).min(start + SHARE))
            .map(|x| (x, pool.apply_async(work, (x,)).expect("submit")))
            .collect();
        for (x, result) in results {
            tally.count(x, result.get());
        }
    }
}

fn imap_all(pool: &Pool, tally: &Tally, start: u64) {
    let half = start + SHARE / 2;
    let ordered = pool.chunks_of(10).expect("size").imap(work, start..half).expect("imap");
    let mut count = 0;
    for (x, result) in (start..half).zip(ordered) {
        tally.count(x, result);
        count += 1;
    }
    assert_eq!(count, half - start);
    // In order of completion the values tell which items they are of.
    let end = start + SHARE;
    let mut missing: std::collections::HashSet<u64> = (half..end).map(work).collect();
    let chunks = pool.chunks_of(7).expect("size");
    let mut lost = 0;
    for result in chunks.imap_unordered(work, half..end).expect("imap") {
        match result {
            Ok(value) => {
                assert!(missing.remove(&value), "a value that came twice, or from nowhere");
                tally.values.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                lost += 1;
                tally.count(0, Err(error));
            }
        }
    }
    assert_eq!(missing.len(), lost);
}

#[test]
fn two_hundred_kills_during_two_hundred_thousand_tasks_lose_at_most_one_each() {
    let _dog = Watchdog::new("chaos");
    let pool = Pool::builder().workers(4).build().expect("pool");
    let (tally, killed) = storm(&pool, 1);
    assert_eq!(killed, KILLS);
    assert_eq!(tally.seen(), 3 * THREADS * SHARE);
    let lost = tally.lost.load(Ordering::Relaxed);
    assert!(lost <= KILLS, "{lost} items lost by {KILLS} kills");
    assert_eq!(pool.map(work, 0..1000).expect("map"), (0..1000).map(work).collect::<Vec<_>>());
    wait_until("all workers are there", || pool.worker_pids().len() == 4);

    // With retries nothing is lost at all.
    let patient = Pool::builder().workers(4).retries(1000).build().expect("pool");
    let (tally, killed) = storm(&patient, 2);
    assert_eq!(killed, KILLS);
    assert_eq!(tally.seen(), 3 * THREADS * SHARE);
    assert_eq!(tally.lost.load(Ordering::Relaxed), 0);

    let mut workers = pool.worker_pids();
    workers.extend(patient.worker_pids());
    drop((pool, patient));
    assert!(workers.iter().all(|pid| is_gone(*pid)));
    assert_eq!(descendants(), Vec::<u32>::new());
}
