//! `RwLock`: readers together, writers alone, and neither starved.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, watchdog};
use multiproc::{Barrier, Event, Mutex, RwLock};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

type Pair = RwLock<[u64; 2]>;

#[test]
fn readers_never_see_a_half_written_value_and_no_write_is_lost() {
    watchdog();
    let pair: Pair = RwLock::new([0, 0]).unwrap();
    let write = |pair: Pair| {
        for _ in 0..2000 {
            let mut pair = pair.write().expect("nobody dies");
            pair[0] += 1;
            pair[1] += 1;
        }
    };
    let read = |pair: Pair| -> bool {
        (0..4000).all(|_| {
            let pair = pair.read().expect("nobody dies");
            pair[0] == pair[1]
        })
    };
    let writers = [0; 2].map(|_| start(write, (pair.clone(),)));
    let readers = [0; 2].map(|_| start(read, (pair.clone(),)));
    std::thread::scope(|scope| {
        scope.spawn(|| write(pair.clone()));
        assert!(read(pair.clone()));
    });
    finish_all(writers);
    assert_eq!(readers.map(finish), [true; 2]);
    assert_eq!(*pair.read().unwrap(), [6000, 6000]);
}

#[test]
fn readers_read_at_the_same_time() {
    watchdog();
    let (value, meet) = (RwLock::new(7_u32).unwrap(), Barrier::new(3).unwrap());
    let read = |value: RwLock<u32>, meet: Barrier| {
        let value = value.read().expect("nobody dies");
        // Only if all three have the lock does anybody go on.
        meet.wait_timeout(PATIENCE).expect("all read");
        *value
    };
    let others = [0; 2].map(|_| start(read, (value.clone(), meet.clone())));
    assert_eq!(read(value, meet), 7);
    assert_eq!(others.map(finish), [7, 7]);
}

fn hold_read(value: RwLock<u32>, held: Event, go: Event) {
    let _guard = value.read().expect("nobody died");
    held.set();
    go.wait();
}

fn hold_write(value: RwLock<u32>, held: Event, go: Event) {
    let mut guard = value.write().expect("nobody died");
    *guard += 1;
    held.set();
    go.wait();
}

#[test]
fn a_reader_elsewhere_keeps_writers_out_and_a_writer_everybody() {
    watchdog();
    let value = RwLock::new(0_u32).unwrap();
    for writes in [false, true] {
        let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
        let hold = if writes { hold_write_boxed } else { hold_read_boxed };
        let process = hold(&value, &held, &go);
        assert!(held.wait_timeout(PATIENCE));
        assert_eq!(value.is_writing(), writes);
        assert!(value.try_write().unwrap().is_none());
        assert!(value.write_timeout(SHORT).unwrap().is_none());
        assert_eq!(value.try_read().unwrap().is_some(), !writes);
        assert_eq!(value.read_timeout(SHORT).unwrap().is_some(), !writes);
        go.set();
        drop(value.write_timeout(Duration::MAX).unwrap().expect("for ever"));
        finish(process);
    }
    assert_eq!(*value.read().unwrap(), 1);
}

fn hold_read_boxed(v: &RwLock<u32>, held: &Event, go: &Event) -> multiproc::Process<()> {
    start(hold_read, (v.clone(), held.clone(), go.clone()))
}

fn hold_write_boxed(v: &RwLock<u32>, held: &Event, go: &Event) -> multiproc::Process<()> {
    start(hold_write, (v.clone(), held.clone(), go.clone()))
}

#[test]
fn a_killed_reader_is_no_news_and_in_nobodys_way() {
    watchdog();
    let value = RwLock::new(5_u32).unwrap();
    for _ in 0..3 {
        let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
        let process = hold_read_boxed(&value, &held, &go);
        assert!(held.wait_timeout(PATIENCE));
        kill(process);
    }
    drop(value.try_write().expect("no news").expect("the dead do not read"));
    *in_time(|| value.write()).expect("no news") = 6;
    assert_eq!(*value.read().unwrap(), 6);
}

#[test]
fn after_a_writer_was_killed_readers_are_told_until_a_writer_was() {
    watchdog();
    let value = RwLock::new(0_u32).unwrap();
    let (held, go) = (Event::new().unwrap(), Event::new().unwrap());
    let process = hold_write_boxed(&value, &held, &go);
    assert!(held.wait_timeout(PATIENCE));
    let pid = process.pid();
    kill(process);
    for _ in 0..2 {
        let news = value.read().expect_err("the writer died");
        assert_eq!((news.thread_id(), **news.get_ref()), (pid, 1));
    }
    assert!(value.try_read().is_err());
    let told = |value: RwLock<u32>| value.read().is_err();
    assert!(finish(start(told, (value.clone(),))), "in other processes, too");
    *value.write().expect_err("the writer died").into_guard() = 0;
    assert_eq!(*value.read().expect("mended"), 0);
}

#[test]
fn a_writer_that_panics_leaves_the_news() {
    watchdog();
    let value = RwLock::new(0_u32).unwrap();
    let theirs = value.clone();
    let thread = std::thread::spawn(move || {
        let _guard = theirs.write();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert!(value.read().expect_err("it panicked").panicked());
    assert!(value.try_write().expect_err("it panicked").panicked());
    assert!(value.try_write().expect("told before").is_some());
}

#[test]
fn waiters_that_are_killed_are_in_nobodys_way() {
    watchdog();
    let value = RwLock::new(0_u32).unwrap();
    let started = Event::new().unwrap();
    let read = |value: RwLock<u32>, started: Event| {
        started.set();
        value.read().map(|guard| *guard).ok()
    };
    let write = |value: RwLock<u32>, started: Event| {
        started.set();
        value.write().map(|guard| *guard).ok()
    };
    let guard = value.write().unwrap();
    for _ in 0..2 {
        started.clear();
        let process = start(read, (value.clone(), started.clone()));
        assert!(started.wait_timeout(PATIENCE));
        kill(process);
        started.clear();
        let process = start(write, (value.clone(), started.clone()));
        assert!(started.wait_timeout(PATIENCE));
        kill(process);
    }
    drop(guard);
    // A reader of its own keeps the writer waiting; both come to their turn. A writer that was
    // killed as it got the lock is news.
    let reader = in_time(|| value.read()).unwrap_or_else(multiproc::OwnerDied::into_guard);
    started.clear();
    let process = start(write, (value.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    drop(reader);
    finish(process);
    drop(in_time(|| value.write()));
}

#[test]
fn readers_and_writers_take_turns_so_that_neither_starves() {
    watchdog();
    // Two processes write without a pause until a reader has read a thousand times, and the other
    // way round.
    let (value, stop) = (RwLock::new(0_u64).unwrap(), Event::new().unwrap());
    let writers = [0; 2].map(|_| {
        start(
            |value: RwLock<u64>, stop: Event| {
                while !stop.is_set() {
                    *value.write().expect("nobody dies") += 1;
                }
            },
            (value.clone(), stop.clone()),
        )
    });
    for _ in 0..1000 {
        drop(value.read_timeout(PATIENCE).expect("nobody dies").expect("a turn"));
    }
    stop.set();
    finish_all(writers);
    stop.clear();
    let readers = [0; 2].map(|_| {
        start(
            |value: RwLock<u64>, stop: Event| {
                while !stop.is_set() {
                    drop(value.read().expect("nobody dies"));
                }
            },
            (value.clone(), stop.clone()),
        )
    });
    for _ in 0..1000 {
        drop(value.write_timeout(PATIENCE).expect("nobody dies").expect("a turn"));
    }
    stop.set();
    finish_all(readers);
}

#[test]
fn many_threads_of_many_processes_read_and_write() {
    watchdog();
    let (total, sum) = (RwLock::new(0_u64).unwrap(), Mutex::new(0_u64).unwrap());
    let work = |total: RwLock<u64>, sum: Mutex<u64>| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let before = *total.read().expect("nobody dies");
                        let mut total = total.write().expect("nobody dies");
                        assert!(*total >= before);
                        *total += 1;
                    }
                    *sum.lock().expect("nobody dies") += 100;
                });
            }
        });
    };
    let processes = [0; 2].map(|_| start(work, (total.clone(), sum.clone())));
    work(total.clone(), sum.clone());
    finish_all(processes);
    assert_eq!(*total.read().unwrap(), *sum.lock().unwrap());
}

#[test]
fn more_than_a_thousand_readers_wait_for_a_seat() {
    watchdog();
    let value = RwLock::new(1_u8).unwrap();
    let mut guards: Vec<_> = (0..1024).map(|_| value.read().unwrap()).collect();
    assert!(value.try_read().unwrap().is_none());
    assert!(value.read_timeout(SHORT).unwrap().is_none());
    drop(guards.pop());
    assert_eq!(*value.read_timeout(PATIENCE).unwrap().expect("a seat"), 1);
    drop(guards);
    assert!(value.try_write().unwrap().is_some());
}
