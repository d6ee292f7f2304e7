//! `Event`: set, clear, wait.

mod common;

use common::sync::{finish, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Event, Semaphore};
use std::time::Duration;

#[test]
fn a_set_is_seen_by_all_processes_and_a_clear_too() {
    watchdog();
    let event = Event::new().unwrap();
    let look = |event: Event| event.is_set();
    assert!(!event.is_set() && !finish(start(look, (event.clone(),))));
    event.set();
    event.set();
    assert!(event.is_set() && finish(start(look, (event.clone(),))));
    finish(start(|event: Event| event.clear(), (event.clone(),)));
    assert!(!event.is_set());
}

#[test]
fn zero_looks_a_short_wait_ends_and_centuries_are_for_ever() {
    watchdog();
    let event = Event::new().unwrap();
    assert!(!event.wait_timeout(Duration::ZERO));
    assert!(!event.wait_timeout(Duration::from_millis(5)));
    let setter = start(|event: Event| event.set(), (event.clone(),));
    assert!(event.wait_timeout(Duration::MAX));
    assert!(event.wait_timeout(Duration::ZERO));
    event.wait();
    finish(setter);
}

#[test]
fn two_processes_play_ping_pong() {
    watchdog();
    const ROUNDS: u32 = 2000;
    let (ping, pong) = (Event::new().unwrap(), Event::new().unwrap());
    let answer = |ping: Event, pong: Event| {
        for _ in 0..ROUNDS {
            ping.wait();
            ping.clear();
            pong.set();
        }
    };
    let player = start(answer, (ping.clone(), pong.clone()));
    for _ in 0..ROUNDS {
        ping.set();
        assert!(pong.wait_timeout(PATIENCE));
        pong.clear();
    }
    finish(player);
}

#[test]
fn a_set_followed_by_a_clear_lets_all_go_who_waited() {
    watchdog();
    let (event, ready) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    let wait = |event: Event, ready: Semaphore| {
        ready.release(1).expect("few");
        event.wait_timeout(PATIENCE)
    };
    for _ in 0..10 {
        let waiters = [0; 3].map(|_| start(wait, (event.clone(), ready.clone())));
        for _ in 0..3 {
            assert!(ready.acquire_raw_timeout(PATIENCE).unwrap());
        }
        // They are about to wait, or do: each one is seen to sleep before the flash.
        for waiter in &waiters {
            wait_until("the waiter sleeps", || is_asleep_in_futex(waiter.pid()));
        }
        event.set();
        event.clear();
        assert_eq!(waiters.map(finish), [true; 3]);
    }
}

/// Whether the first thread of a process sleeps in the kernel, and on a futex.
fn is_asleep_in_futex(pid: u32) -> bool {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let number = libc::SYS_futex.to_string();
    read("syscall").split(' ').next() == Some(number.as_str())
}

#[test]
fn a_killed_waiter_is_in_nobodys_way() {
    watchdog();
    let (event, ready) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
    let wait = |event: Event, ready: Semaphore| {
        ready.release(1).expect("few");
        event.wait();
    };
    let processes = [0; 3].map(|_| start(wait, (event.clone(), ready.clone())));
    for _ in 0..3 {
        ready.acquire_raw().unwrap();
    }
    let [first, second, third] = processes;
    kill(first);
    kill(second);
    event.set();
    finish(third);
}

#[test]
fn what_the_setter_wrote_is_there_when_the_event_is_set() {
    watchdog();
    let (event, data) = (Event::new().unwrap(), multiproc::RwLock::new(0_u64).unwrap());
    let write = |event: Event, data: multiproc::RwLock<u64>| {
        *data.write().expect("nobody dies") = 7;
        event.set();
    };
    let process = start(write, (event.clone(), data.clone()));
    assert!(event.wait_timeout(PATIENCE));
    assert_eq!(*data.read().unwrap(), 7);
    finish(process);
}
