//! `Barrier` and `Latch`: all or nobody, and an error when somebody has died.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Barrier, Event, Latch, Mutex, Process, Stdio};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn nobody_is_in_the_next_phase_before_all_have_finished_this_one() {
    watchdog();
    const PHASES: u32 = 50;
    // How many have finished each phase.
    let (barrier, done) = (Barrier::new(4).unwrap(), Mutex::new([0_u32; PHASES as usize]).unwrap());
    let run = |barrier: Barrier, done: Mutex<[u32; PHASES as usize]>| -> Vec<u32> {
        let phase = |phase: usize| {
            done.lock().expect("nobody dies")[phase] += 1;
            let arrival = barrier.wait().expect("whole");
            assert_eq!(done.lock().expect("nobody dies")[phase], 4);
            assert_eq!(arrival.is_leader(), arrival.index() == 0);
            arrival.index()
        };
        (0..PHASES as usize).map(phase).collect()
    };
    let others = [0; 2].map(|_| start(run, (barrier.clone(), done.clone())));
    let mut indices = Vec::new();
    std::thread::scope(|scope| {
        let threads = [0; 2].map(|_| scope.spawn(|| run(barrier.clone(), done.clone())));
        indices.extend(threads.map(|thread| thread.join().expect("join")));
    });
    indices.extend(others.map(finish));
    for phase in 0..PHASES as usize {
        let mut numbers: Vec<_> = indices.iter().map(|of_one| of_one[phase]).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3], "each number once");
    }
    assert_eq!(barrier.n_waiting(), 0);
}

#[test]
fn the_last_to_arrive_runs_its_action_before_anybody_goes_on() {
    watchdog();
    let (barrier, count) = (Barrier::new(3).unwrap(), Mutex::new(0_u32).unwrap());
    let run = |barrier: Barrier, count: Mutex<u32>| {
        for phase in 1..=20 {
            let act = || *count.lock().expect("nobody dies") += 1;
            barrier.wait_with(act).expect("whole");
            assert_eq!(*count.lock().expect("nobody dies"), phase);
            barrier.wait().expect("whole");
        }
    };
    let others = [0; 2].map(|_| start(run, (barrier.clone(), count.clone())));
    run(barrier, count);
    finish_all(others);
}

/// Waits, and tells whether it was told that the barrier broke.
fn hears_of_it(barrier: Barrier) -> bool {
    barrier.wait().is_err_and(|error| error.is_broken())
}

fn wait_for_arrivals(barrier: &Barrier, count: u32) {
    wait_until("the parties have arrived", || barrier.n_waiting() == count);
}

#[test]
fn a_timeout_breaks_it_for_all_until_the_reset() {
    watchdog();
    let barrier = Barrier::new(3).unwrap();
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    assert!(barrier.wait_timeout(SHORT).expect_err("nobody comes").is_timeout());
    assert!(finish(other) && barrier.is_broken());
    assert!(hears_of_it(barrier.clone()), "who comes later hears it at once");
    barrier.reset();
    assert!(!barrier.is_broken());
    let others =
        [0; 2].map(|_| start(|barrier: Barrier| barrier.wait().is_ok(), (barrier.clone(),)));
    barrier.wait().expect("as good as new");
    assert_eq!(others.map(finish), [true; 2]);
    assert!(barrier.wait_timeout(Duration::ZERO).expect_err("a try").is_timeout());
}

#[test]
fn abort_and_reset_send_those_away_who_wait() {
    watchdog();
    for aborts in [true, false] {
        let barrier = Barrier::new(2).unwrap();
        let other = start(hears_of_it, (barrier.clone(),));
        wait_for_arrivals(&barrier, 1);
        if aborts {
            barrier.abort()
        } else {
            barrier.reset()
        }
        assert!(finish(other));
        assert_eq!((barrier.is_broken(), barrier.parties()), (aborts, 2));
    }
}

#[test]
fn a_party_that_is_killed_while_it_waits_breaks_it() {
    watchdog();
    let barrier = Barrier::new(3).unwrap();
    let victim = start(hears_of_it, (barrier.clone(),));
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 2);
    kill(victim);
    assert!(finish(other) && barrier.is_broken());
    barrier.reset();
    assert_eq!(barrier.n_waiting(), 0);
}

#[test]
fn a_process_that_dies_before_it_arrives_breaks_it() {
    watchdog();
    let (barrier, started) = (Barrier::new(2).unwrap(), Event::new().unwrap());
    let dawdle = |_barrier: Barrier, started: Event| {
        started.set();
        std::thread::park();
    };
    let victim = start(dawdle, (barrier.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    kill(victim);
    assert!(finish(other));
    assert!(hears_of_it(barrier.clone()));
    barrier.reset();
    assert!(!barrier.is_broken(), "the dead are forgotten");
}

#[test]
fn a_process_that_has_dropped_its_handle_may_die() {
    watchdog();
    let (barrier, dropped) = (Barrier::new(2).unwrap(), Event::new().unwrap());
    let leave = |barrier: Barrier, dropped: Event| {
        drop(barrier);
        dropped.set();
        std::thread::park();
    };
    let process = start(leave, (barrier.clone(), dropped.clone()));
    assert!(dropped.wait_timeout(PATIENCE));
    let other = start(|barrier: Barrier| barrier.wait().is_ok(), (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    kill(process);
    barrier.wait().expect("nobody is missed");
    assert!(finish(other));
}

#[test]
fn a_panic_in_the_action_breaks_it_and_a_death_in_the_action_too() {
    watchdog();
    let barrier = Barrier::new(2).unwrap();
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    let theirs = barrier.clone();
    let panics = std::thread::spawn(move || drop(theirs.wait_with(|| panic!("on purpose"))));
    assert!(panics.join().is_err() && finish(other));
    barrier.reset();
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    let dies = |barrier: Barrier| drop(barrier.wait_with(|| std::process::abort()));
    assert!(start(dies, (barrier.clone(),)).join().is_err());
    assert!(finish(other));
}

#[test]
fn numbers_of_parties_that_make_no_sense_are_refused() {
    assert!(Barrier::new(0).expect_err("none").is_invalid_input());
    assert!(Barrier::new(1025).expect_err("too many").is_invalid_input());
    assert!(Barrier::new(1).unwrap().wait().unwrap().is_leader());
}

#[test]
fn a_process_that_panics_before_it_arrives_breaks_it_and_so_with_a_latch() {
    watchdog();
    let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
    let other = start(hears_of_it, (barrier.clone(),));
    wait_for_arrivals(&barrier, 1);
    let panics = |_barrier: Barrier, _latch: Latch| -> () { panic!("on purpose") };
    let builder = Process::builder(panics, (barrier.clone(), latch.clone()));
    assert!(builder.stderr(Stdio::Null).spawn().unwrap().join().expect_err("panic").is_panic());
    assert!(finish(other));
    assert!(latch.wait().expect_err("nobody counts down").is_broken());
}

// --- Latch --------------------------------------------------------------------------------------

#[test]
fn a_latch_opens_when_all_have_counted_down() {
    watchdog();
    let (latch, work) = (Latch::new(4).unwrap(), Mutex::new(0_u32).unwrap());
    let waiter = start(|latch: Latch| latch.wait().is_ok(), (latch.clone(),));
    let count = |latch: Latch, work: Mutex<u32>| {
        *work.lock().expect("nobody dies") += 1;
        latch.count_down().is_ok()
    };
    let others = [0; 3].map(|_| start(count, (latch.clone(), work.clone())));
    assert_eq!(others.map(finish), [true; 3]);
    assert_eq!(latch.count(), 1);
    assert!(!latch.wait_timeout(SHORT).unwrap() && !latch.wait_timeout(Duration::ZERO).unwrap());
    assert!(count(latch.clone(), work.clone()));
    assert!(latch.wait_timeout(Duration::MAX).unwrap());
    assert_eq!(*work.lock().unwrap(), 4);
    assert!(finish(waiter));
    assert!(latch.count_down().expect_err("open").is_invalid_input());
    Latch::new(0).unwrap().wait().expect("open from the start");
    assert!(Latch::new(u32::MAX).expect_err("too many").is_invalid_input());
}

#[test]
fn a_process_that_dies_without_counting_down_breaks_the_latch() {
    watchdog();
    let (latch, started) = (Latch::new(2).unwrap(), Event::new().unwrap());
    let dawdle = |_latch: Latch, started: Event| {
        started.set();
        std::thread::park();
    };
    let waiter = start(|latch: Latch| latch.wait().is_err_and(|e| e.is_broken()), (latch.clone(),));
    let victim = start(dawdle, (latch.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    kill(victim);
    assert!(finish(waiter));
    assert!(in_time(|| latch.wait()).expect_err("broken").is_broken());
}

#[test]
fn a_process_that_dies_after_counting_down_is_not_missed() {
    watchdog();
    let (latch, started) = (Latch::new(2).unwrap(), Event::new().unwrap());
    let count_and_stay = |latch: Latch, started: Event| {
        latch.count_down().expect("two are to come");
        started.set();
        std::thread::park();
    };
    let victim = start(count_and_stay, (latch.clone(), started.clone()));
    assert!(started.wait_timeout(PATIENCE));
    kill(victim);
    assert!(!latch.wait_timeout(Duration::from_millis(100)).expect("not broken"));
    latch.count_down().unwrap();
    latch.wait().unwrap();
}
