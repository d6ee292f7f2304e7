//! `Semaphore` and `BoundedSemaphore`: never more holders than permits, and no permit lost.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start, switches};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Barrier, BoundedSemaphore, Event, Mutex, Semaphore};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(20);

/// How many are inside now, and how many were at most.
type Inside = Mutex<[u32; 2]>;

fn park(places: Semaphore, inside: Inside) {
    for _ in 0..200 {
        let _place = places.acquire().expect("nobody dies");
        {
            let mut inside = inside.lock().expect("nobody dies");
            inside[0] += 1;
            inside[1] = inside[1].max(inside[0]);
        }
        std::thread::yield_now();
        inside.lock().expect("nobody dies")[0] -= 1;
    }
}

#[test]
fn five_cars_never_use_more_than_three_places() {
    watchdog();
    let (places, inside) = (Semaphore::new(3).unwrap(), Inside::new([0, 0]).unwrap());
    let cars = [0; 5].map(|_| start(park, (places.clone(), inside.clone())));
    finish_all(cars);
    let [now, most] = *inside.lock().unwrap();
    assert!(now == 0 && (1..=3).contains(&most), "{most} at a time");
    assert_eq!(places.available(), 3);
}

#[test]
fn permits_come_by_guard_by_hand_by_try_and_by_the_clock() {
    watchdog();
    let places = Semaphore::new(2).unwrap();
    let first = places.acquire().unwrap();
    let second = places.try_acquire().unwrap().expect("one is left");
    assert_eq!(places.available(), 0);
    let fails = |places: Semaphore| {
        let tried = places.try_acquire().expect("they live").is_none();
        let waited = places.acquire_timeout(SHORT).expect("they live").is_none();
        tried && waited && !places.acquire_raw_timeout(SHORT).expect("they live")
    };
    assert!(finish(start(fails, (places.clone(),))));
    drop(first);
    assert!(places.acquire_raw_timeout(Duration::MAX).unwrap());
    drop(second);
    assert!(!fails(places.clone()) || places.available() == 1);
    places.release(1).unwrap();
    assert_eq!(places.available(), 2);
}

#[test]
fn another_process_may_release_and_wakes_who_waits() {
    watchdog();
    let items = Semaphore::new(0).unwrap();
    let consume = |items: Semaphore| (0..100).all(|_| items.acquire_raw().is_ok());
    let consumers = [0; 2].map(|_| start(consume, (items.clone(),)));
    let produce = |items: Semaphore| {
        for _ in 0..100 {
            items.release(1).expect("far from the limit");
        }
    };
    let producer = start(produce, (items.clone(),));
    items.release(100).unwrap();
    finish(producer);
    assert_eq!(consumers.map(finish), [true; 2]);
    assert_eq!(items.available(), 0);
}

#[test]
fn a_bounded_semaphore_refuses_a_release_too_many_of_whichever_process() {
    watchdog();
    let places = BoundedSemaphore::new(2).unwrap();
    let release = |places: BoundedSemaphore| places.release(1).is_ok();
    assert!(!finish(start(release, (places.clone(),))));
    places.acquire_raw().unwrap();
    assert!(places.release(2).expect_err("one too many").is_invalid_input());
    assert_eq!(places.available(), 1, "nothing was given back");
    let processes = [0; 3].map(|_| start(release, (places.clone(),)));
    assert_eq!(processes.map(finish).iter().filter(|&&released| released).count(), 1);
    assert_eq!(places.available(), 2);
}

#[test]
fn of_processes_that_release_at_the_same_time_as_many_succeed_as_were_acquired() {
    watchdog();
    const ROUNDS: u32 = 2000;
    const RELEASERS: u32 = 3;
    let places = BoundedSemaphore::new(2).unwrap();
    let gun = Barrier::new(RELEASERS + 1).unwrap();
    let release = |places: BoundedSemaphore, gun: Barrier| {
        let in_round = |_| {
            gun.wait().expect("nobody dies");
            let released = places.release(1).is_ok();
            gun.wait().expect("nobody dies");
            u32::from(released)
        };
        (0..ROUNDS).map(in_round).sum::<u32>()
    };
    let releasers = [0; RELEASERS as usize].map(|_| start(release, (places.clone(), gun.clone())));
    let mut acquired = 0;
    for round in 0..ROUNDS {
        for _ in 0..=round % 2 {
            places.acquire_raw().unwrap();
            acquired += 1;
        }
        gun.wait_timeout(PATIENCE).unwrap();
        gun.wait_timeout(PATIENCE).unwrap();
        assert_eq!(places.available(), 2, "after round {round}");
    }
    assert_eq!(finish_all(releasers).into_iter().sum::<u32>(), acquired);
}

#[test]
fn numbers_at_the_limits_are_refused_or_work() {
    assert!(Semaphore::new(u32::MAX).expect_err("too many").is_invalid_input());
    let most = Semaphore::new((1 << 31) - 1).unwrap();
    assert!(most.release(1).expect_err("too many").is_invalid_input());
    drop(most.acquire().unwrap());
    assert_eq!(most.available(), (1 << 31) - 1);
    let none = BoundedSemaphore::new(0).unwrap();
    assert!(none.try_acquire().unwrap().is_none());
    assert!(none.release(1).is_err() && none.release(u32::MAX).is_err());
    none.release(0).unwrap();
}

#[test]
fn the_permits_of_killed_processes_come_back_with_the_news_each_once() {
    watchdog();
    let places = Semaphore::new(2).unwrap();
    let hold = |places: Semaphore, held: Event| {
        let _place = places.acquire().expect("nobody died");
        held.set();
        std::thread::park();
    };
    let mut pids = Vec::new();
    for _ in 0..2 {
        let held = Event::new().unwrap();
        let process = start(hold, (places.clone(), held.clone()));
        assert!(held.wait_timeout(PATIENCE));
        pids.push(process.pid());
        kill(process);
    }
    assert_eq!(places.available(), 0);
    let first = in_time(|| places.acquire()).expect_err("its holder died");
    let second = places.try_acquire().expect_err("its holder died");
    let mut told = [first.thread_id(), second.thread_id()];
    told.sort_unstable();
    pids.sort_unstable();
    assert_eq!(told, *pids);
    drop((first, second));
    assert_eq!(places.available(), 2);
    drop(places.acquire().expect("told before"));
}

#[test]
fn acquiring_by_hand_hears_of_a_death_and_does_not_have_the_permit_then() {
    watchdog();
    let places = Semaphore::new(1).unwrap();
    let theirs = places.clone();
    std::thread::spawn(move || std::mem::forget(theirs.acquire())).join().unwrap();
    let error = in_time(|| places.acquire_raw()).expect_err("its holder ended");
    assert!(error.is_owner_died(), "{error}");
    assert_eq!(places.available(), 1);
    places.acquire_raw().expect("told before");
}

#[test]
fn waiters_that_are_killed_take_no_permit_with_them() {
    watchdog();
    let places = Semaphore::new(1).unwrap();
    let place = places.acquire().unwrap();
    let wait = |places: Semaphore, started: Event| {
        started.set();
        places.acquire().is_ok()
    };
    for _ in 0..5 {
        let started = Event::new().unwrap();
        let process = start(wait, (places.clone(), started.clone()));
        assert!(started.wait_timeout(PATIENCE));
        kill(process);
    }
    drop(place);
    drop(in_time(|| places.acquire()).expect("the dead had none"));
    assert_eq!(places.available(), 1);
}

#[test]
fn a_hundred_waiters_are_let_go_one_for_each_release() {
    watchdog();
    let (places, passed) = (Semaphore::new(0).unwrap(), Mutex::new(0_u32).unwrap());
    let wait_many = |places: Semaphore, passed: Mutex<u32>| {
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    places.acquire_raw().expect("nobody dies");
                    *passed.lock().expect("nobody dies") += 1;
                });
            }
        });
    };
    let waiting = [0; 2].map(|_| start(wait_many, (places.clone(), passed.clone())));
    for count in 1..=100 {
        places.release(1).unwrap();
        wait_until("one more has passed", || *passed.lock().unwrap() == count);
        assert_eq!(places.available(), 0);
    }
    finish_all(waiting);
}

#[test]
fn a_release_wakes_one_of_a_hundred_sleepers_and_not_all() {
    watchdog();
    let places = Semaphore::new(0).unwrap();
    let passed = AtomicU32::new(0);
    // They begin to look before the last of them has come.
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let before = switches();
                places.acquire_raw().expect("nobody dies");
                WAKE_UPS.fetch_add(switches() - before, Ordering::Relaxed);
                passed.fetch_add(1, Ordering::Relaxed);
            });
        }
        for count in 1..=100 {
            places.release(1).unwrap();
            wait_until("one more has passed", || passed.load(Ordering::Relaxed) == count);
        }
        // Each of them looks for itself 7 times, and then every 64 ms; that is no herd.
        let own_looks = 100 * (7 + start.elapsed().as_millis() as u64 / 64);
        // With a herd it would be 100 + 99 + 98 + ... and their own looks.
        let wake_ups = WAKE_UPS.load(Ordering::Relaxed);
        assert!(wake_ups < own_looks + 1000, "{wake_ups} wake-ups, {own_looks} by the clock");
    });
}

static WAKE_UPS: AtomicU64 = AtomicU64::new(0);

#[test]
fn more_than_a_thousand_guards_wait_for_a_seat_and_by_hand_there_is_no_limit() {
    watchdog();
    let places = Semaphore::new(2000).unwrap();
    let mut guards: Vec<_> = (0..1024).map(|_| places.acquire().unwrap()).collect();
    assert!(places.try_acquire().unwrap().is_none() && places.available() == 976);
    places.acquire_raw().unwrap();
    drop(guards.pop());
    assert!(places.acquire_timeout(PATIENCE).unwrap().is_some());
}
