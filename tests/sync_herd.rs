//! No thundering herd: of a hundred that sleep, a hand-over wakes one.

mod common;

use common::sync::{finish_all, start, switches};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{AtomicValue, Condition, Lock, Semaphore};
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::Instant;

const PROCESSES: u64 = 2;
const THREADS: u64 = 50;
const WAITERS: u64 = PROCESSES * THREADS;

#[derive(Clone, Serialize, Deserialize)]
struct Queue {
    lock: Lock,
    condition: Condition,
    /// How many have come.
    came: Semaphore,
    /// How many have had their turn.
    passed: AtomicValue<u64>,
    /// How many may have had it.
    allowed: AtomicValue<u64>,
    /// How often anybody has slept for it.
    sleeps: AtomicValue<u64>,
}

impl Queue {
    fn new() -> Self {
        Self {
            lock: Lock::new().unwrap(),
            condition: Condition::new().unwrap(),
            came: Semaphore::new(0).unwrap(),
            passed: AtomicValue::new(0).unwrap(),
            allowed: AtomicValue::new(0).unwrap(),
            sleeps: AtomicValue::new(0).unwrap(),
        }
    }

    /// Runs what each waiter does, in all threads of this process, each with its number of sleeps.
    fn in_threads(&self, wait: impl Fn(&dyn Fn() -> u64) + Sync) {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let before = switches();
                    wait(&|| switches() - before);
                });
            }
        });
    }

    /// Lets them pass one by one, by `hand_over`, and looks how often they slept since `begin`,
    /// when none of them had come yet.
    fn pass_one_by_one(&self, begin: Instant, hand_over: impl Fn()) {
        for count in 1..=WAITERS {
            self.allowed.set(count);
            hand_over();
            wait_until("one more has passed", || self.passed.get() == count);
        }
        // Each of them looks for itself 7 times, and then every 64 ms; that is no herd. And each
        // may wait a few times for what the others have in the process: its memory, its files.
        let own_looks = WAITERS * (17 + begin.elapsed().as_millis() as u64 / 64);
        wait_until("all have told", || self.came.available() == WAITERS as u32);
        // With a herd it would be 100 + 99 + 98 + ... and their own looks.
        let sleeps = self.sleeps.get();
        assert!(sleeps < own_looks + 1000, "{sleeps} times asleep, {own_looks} by the clock");
    }

    fn wait_for_all_to_come(&self) {
        for _ in 0..WAITERS {
            assert!(self.came.acquire_raw_timeout(PATIENCE).unwrap());
        }
    }
}

#[test]
fn a_lock_that_is_given_back_wakes_one_of_a_hundred() {
    watchdog();
    let (begin, queue) = (Instant::now(), Queue::new());
    let guard = queue.lock.lock().unwrap();
    let wait = |queue: Queue| {
        queue.in_threads(|slept| {
            queue.came.release(1).expect("few");
            let guard = queue.lock.lock().expect("nobody dies");
            let slept = slept();
            let turn = queue.passed.fetch_add(1) + 1;
            // The others find it held, if they were woken.
            while queue.allowed.get() <= turn && turn < WAITERS {
                thread::sleep(std::time::Duration::from_micros(200));
            }
            drop(guard);
            queue.sleeps.fetch_add(slept);
            queue.came.release(1).expect("few");
        });
    };
    let processes = [(); PROCESSES as usize].map(|()| start(wait, (queue.clone(),)));
    queue.wait_for_all_to_come();
    drop(guard);
    queue.pass_one_by_one(begin, || ());
    finish_all(processes);
}

#[test]
fn notify_one_wakes_one_of_a_hundred() {
    watchdog();
    let (begin, queue) = (Instant::now(), Queue::new());
    let wait = |queue: Queue| {
        queue.in_threads(|slept| {
            let guard = queue.lock.lock().expect("nobody dies");
            queue.came.release(1).expect("few");
            let before = slept();
            drop(queue.condition.wait(guard).expect("nobody dies"));
            queue.sleeps.fetch_add(slept() - before);
            queue.passed.fetch_add(1);
            queue.came.release(1).expect("few");
        });
    };
    let processes = [(); PROCESSES as usize].map(|()| start(wait, (queue.clone(),)));
    queue.wait_for_all_to_come();
    drop(queue.lock.lock().unwrap());
    queue.pass_one_by_one(begin, || queue.condition.notify_one());
    finish_all(processes);
}
