//! `Once`: done once, whoever dies on the way.

mod common;

use common::sync::{finish, in_time, kill, start};
use common::{PATIENCE, watchdog};
use multiproc::{Event, Mutex, Once};

#[test]
fn of_many_processes_and_threads_one_does_it_and_all_see_it_done() {
    watchdog();
    let (once, count) = (Once::new().unwrap(), Mutex::new(0_u32).unwrap());
    let work = |once: Once, count: Mutex<u32>| {
        once.call_once(|| *count.lock().expect("nobody dies") += 1);
        let seen = *count.lock().expect("nobody dies");
        (seen, once.is_completed())
    };
    let others = [0; 3].map(|_| start(work, (once.clone(), count.clone())));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(work(once.clone(), count.clone()), (1, true)));
        }
    });
    assert_eq!(others.map(finish), [(1, true); 3]);
}

#[test]
fn if_the_one_that_does_it_is_killed_the_next_one_does_it() {
    watchdog();
    let (once, begun) = (Once::new().unwrap(), Event::new().unwrap());
    let stall = |once: Once, begun: Event| {
        once.call_once(|| {
            begun.set();
            std::thread::park();
        });
    };
    let process = start(stall, (once.clone(), begun.clone()));
    assert!(begun.wait_timeout(PATIENCE));
    let waiter = start(|once: Once| once.call_once(|| ()), (once.clone(),));
    kill(process);
    finish(waiter);
    let mut ran = false;
    in_time(|| once.call_once(|| ran = true));
    assert!(!ran && once.is_completed());
}

#[test]
fn if_it_panics_it_is_not_done() {
    watchdog();
    let once = Once::new().unwrap();
    let theirs = once.clone();
    let panics = std::thread::spawn(move || theirs.call_once(|| panic!("on purpose")));
    assert!(panics.join().is_err() && !once.is_completed());
    let done = |once: Once| {
        let mut ran = false;
        once.call_once(|| ran = true);
        ran
    };
    assert!(finish(start(done, (once.clone(),))));
    assert!(!done(once));
}

#[test]
fn a_waiter_that_is_killed_is_in_nobodys_way() {
    watchdog();
    let (once, begun, go) = (Once::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let run = |once: Once, begun: Event, go: Event| {
        once.call_once(|| {
            begun.set();
            go.wait();
        });
    };
    let runner = start(run, (once.clone(), begun.clone(), go.clone()));
    assert!(begun.wait_timeout(PATIENCE));
    begun.clear();
    let wait = |once: Once, begun: Event| {
        begun.set();
        once.call_once(|| ());
    };
    let victim = start(wait, (once.clone(), begun.clone()));
    let other = start(wait, (once.clone(), begun.clone()));
    assert!(begun.wait_timeout(PATIENCE));
    kill(victim);
    go.set();
    finish(runner);
    finish(other);
    assert!(once.is_completed());
}
