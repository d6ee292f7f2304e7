//! `Timer`: a function that runs later, or not at all.

mod common;

use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Event, Timer};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn the_function_runs_when_the_interval_has_passed_and_not_before() {
    watchdog();
    let interval = Duration::from_millis(30);
    let start = Instant::now();
    let timer = Timer::new(interval, Instant::now).unwrap();
    let ran = timer.join().unwrap().expect("not cancelled");
    assert!(ran.duration_since(start) >= interval);
}

#[test]
fn a_process_runs_it_with_its_arguments() {
    watchdog();
    let event = Event::new().unwrap();
    let work = |event: Event, x: u32| {
        event.set();
        (x + 1, std::process::id())
    };
    let timer = Timer::process(Duration::from_millis(1), work, (event.clone(), 41)).unwrap();
    assert!(event.wait_timeout(PATIENCE));
    let (result, pid) = timer.join().unwrap().expect("not cancelled");
    assert!(result == 42 && pid != std::process::id());
}

#[test]
fn a_cancelled_timer_does_nothing_and_says_so() {
    watchdog();
    let event = Event::new().unwrap();
    let theirs = event.clone();
    let timer = Timer::new(LONG, move || theirs.set()).unwrap();
    assert!(!timer.is_finished());
    assert!(timer.cancel() && timer.cancel());
    assert_eq!(timer.join().unwrap(), None);
    assert!(!event.is_set());
    let timer = Timer::process(LONG, || 1, ()).unwrap();
    assert!(timer.cancel());
    wait_until("the timer's thread has ended", || timer.is_finished());
    assert_eq!(timer.join().unwrap(), None);
}

#[test]
fn it_cannot_be_cancelled_once_it_has_begun() {
    watchdog();
    let (begun, go) = (Event::new().unwrap(), Event::new().unwrap());
    let (theirs, their_go) = (begun.clone(), go.clone());
    let timer = Timer::new(Duration::ZERO, move || {
        theirs.set();
        their_go.wait();
        7
    });
    let timer = timer.unwrap();
    assert!(begun.wait_timeout(PATIENCE));
    assert!(!timer.cancel());
    go.set();
    assert_eq!(timer.join().unwrap(), Some(7));
}

#[test]
fn a_dropped_timer_runs_on() {
    watchdog();
    let event = Event::new().unwrap();
    let theirs = event.clone();
    drop(Timer::new(Duration::from_millis(5), move || theirs.set()).unwrap());
    assert!(event.wait_timeout(PATIENCE));
}

#[test]
fn a_process_that_fails_is_an_error_of_join_and_centuries_are_never() {
    watchdog();
    let timer = Timer::process(Duration::ZERO, || std::process::exit(3), ()).unwrap();
    let outcome: multiproc::Result<Option<()>> = timer.join();
    assert!(outcome.expect_err("it exited").is_exited());
    let never = Timer::new(Duration::MAX, || ()).unwrap();
    assert!(never.cancel());
}
