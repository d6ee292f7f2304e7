//! `JoinableQueue`: `join` waits for all items, and never for those of the dead.

mod common;

use common::sync::{finish, finish_all, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::{Event, JoinableQueue, Process, Queue, Shutdown, StartMethod, Value};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

fn join(jobs: &JoinableQueue<u32>) {
    jobs.join_timeout(PATIENCE).expect("all is done");
}

#[test]
fn join_returns_when_every_item_is_done_and_not_before() {
    watchdog();
    let (jobs, sum) = (JoinableQueue::bounded(10).unwrap(), Value::new(0_u64).unwrap());
    let work = |jobs: JoinableQueue<u32>, sum: Value<u64>| {
        for job in &jobs {
            let job = job.expect("a job");
            *sum.lock().expect("nobody dies") += u64::from(job);
            jobs.task_done().expect("it was taken");
        }
    };
    let workers: Vec<_> = (0..3).map(|_| start(work, (jobs.clone(), sum.clone()))).collect();
    join(&jobs);
    for round in 1..=20 {
        (1..=100_u32).for_each(|job| jobs.put(job).unwrap());
        join(&jobs);
        assert_eq!(*sum.lock().unwrap(), round * 5050);
        assert_eq!(jobs.unfinished(), 0);
    }
    jobs.close();
    finish_all(workers);
    jobs.join();
}

#[test]
fn an_item_counts_from_its_put_until_it_is_done() {
    watchdog();
    let jobs = JoinableQueue::new().unwrap();
    jobs.put(1_u32).unwrap();
    assert!(jobs.join_timeout(SHORT).expect_err("it is inside").is_timeout());
    assert_eq!((jobs.get().unwrap(), jobs.unfinished()), (1, 1));
    assert!(jobs.join_timeout(Duration::ZERO).expect_err("it is in hands").is_timeout());
    jobs.task_done().unwrap();
    jobs.join_timeout(Duration::ZERO).unwrap();
}

#[test]
fn saying_done_too_often_is_an_error_also_in_a_process_that_took_nothing() {
    watchdog();
    let jobs = JoinableQueue::new().unwrap();
    assert!(jobs.task_done().expect_err("nothing was taken").is_invalid_input());
    jobs.put(1_u32).unwrap();
    assert_eq!(jobs.get().unwrap(), 1);
    let done = |jobs: JoinableQueue<u32>| jobs.task_done().is_err_and(|e| e.is_invalid_input());
    assert!(finish(start(done, (jobs.clone(),))));
    let by_a_thread = std::thread::scope(|scope| scope.spawn(|| jobs.task_done()).join().unwrap());
    by_a_thread.expect("this process took it");
    assert!(jobs.task_done().expect_err("done already").is_invalid_input());
}

#[test]
fn an_item_that_leads_to_others_keeps_who_joins_waiting() {
    watchdog();
    // Each job below 4 puts two more before it is done: 2^5 - 1 in all.
    let (jobs, done) = (JoinableQueue::new().unwrap(), Value::new(0_u32).unwrap());
    let work = |jobs: JoinableQueue<u32>, done: Value<u32>| {
        for job in jobs.iter().flatten() {
            if job < 4 {
                jobs.put(job + 1).expect("it is open");
                jobs.put(job + 1).expect("it is open");
            }
            *done.lock().expect("nobody dies") += 1;
            jobs.task_done().expect("it was taken");
        }
    };
    let workers: Vec<_> = (0..2).map(|_| start(work, (jobs.clone(), done.clone()))).collect();
    for round in 1..=20 {
        jobs.put(0).unwrap();
        join(&jobs);
        assert_eq!(*done.lock().unwrap(), round * 31);
    }
    jobs.close();
    finish_all(workers);
}

/// Takes so many items, tells, and waits to be killed.
fn hold(jobs: JoinableQueue<u32>, count: u32, held: Event) {
    for _ in 0..count {
        jobs.get().expect("a job");
    }
    held.set();
    std::thread::park();
}

#[test]
fn who_joins_does_not_wait_for_the_items_of_the_dead_which_are_counted() {
    watchdog();
    let jobs = JoinableQueue::new().unwrap();
    (0..5_u32).for_each(|job| jobs.put(job).unwrap());
    let events = [0; 2].map(|_| Event::new().unwrap());
    let first = start(hold, (jobs.clone(), 3, events[0].clone()));
    assert!(events[0].wait_timeout(PATIENCE));
    let second = start(hold, (jobs.clone(), 1, events[1].clone()));
    assert!(events[1].wait_timeout(PATIENCE));
    kill(first);
    assert!(jobs.join_timeout(SHORT).expect_err("one lives, and one is inside").is_timeout());
    assert_eq!(jobs.get().unwrap(), 4);
    jobs.task_done().unwrap();
    assert!(jobs.join_timeout(SHORT).expect_err("one lives").is_timeout());
    let joiner = start(|jobs: JoinableQueue<u32>| jobs.join(), (jobs.clone(),));
    kill(second);
    finish(joiner);
    let stats = jobs.stats();
    assert_eq!((stats.put, stats.taken, stats.lost, stats.len), (5, 1, 4, 0));
}

#[test]
fn a_process_that_returns_without_saying_done_is_not_waited_for() {
    watchdog();
    let jobs = JoinableQueue::new().unwrap();
    jobs.put(1_u32).unwrap();
    finish(start(|jobs: JoinableQueue<u32>| drop(jobs.get()), (jobs.clone(),)));
    join(&jobs);
    assert_eq!(jobs.stats().lost, 1);
}

#[test]
fn shutting_down_at_once_lets_go_who_joins_unless_items_are_in_hands() {
    watchdog();
    let jobs = JoinableQueue::new().unwrap();
    (0..3_u32).for_each(|job| jobs.put(job).unwrap());
    jobs.get().unwrap();
    let joiner = start(|jobs: JoinableQueue<u32>| jobs.join(), (jobs.clone(),));
    jobs.shutdown(Shutdown::Immediate);
    assert!(jobs.join_timeout(SHORT).expect_err("one is in hands").is_timeout());
    jobs.task_done().unwrap();
    finish(joiner);
    assert_eq!((jobs.stats().lost, jobs.stats().taken, jobs.unfinished()), (2, 1, 0));
}

#[test]
fn consumers_that_are_killed_at_random_never_keep_who_joins_waiting() {
    watchdog();
    const ROUNDS: u32 = 60;
    const EACH: u32 = 40;
    let (jobs, done) = (JoinableQueue::new().unwrap(), Queue::<u32>::new().unwrap());
    let work = |jobs: JoinableQueue<u32>, done: Queue<u32>| {
        for job in jobs.iter().flatten() {
            jobs.task_done().expect("it was taken");
            done.put(job).expect("it is open");
        }
    };
    let new = || {
        let arguments = (jobs.clone(), done.clone());
        Process::builder(work, arguments).start_method(StartMethod::ForkServer).spawn().unwrap()
    };
    let mut workers: Vec<_> = (0..2).map(|_| new()).collect();
    for round in 0..ROUNDS {
        // Before anything of this round is there: the workers may be done with all of it by the time
        // the last job is put.
        let before = done.len();
        (0..EACH).for_each(|job| jobs.put(round * EACH + job).unwrap());
        // Some of them when it begins, some in the middle of it.
        wait_until("some are done", || done.len() >= before + (round % 20) as usize);
        kill(std::mem::replace(&mut workers[round as usize % 2], new()));
        join(&jobs);
    }
    jobs.close();
    finish_all(workers);
    let stats = jobs.stats();
    assert_eq!(stats.put, u64::from(ROUNDS * EACH));
    assert_eq!((stats.put, stats.len), (stats.taken + stats.lost, 0));
    // One at a time is in the hands of a worker.
    assert!(stats.lost <= u64::from(ROUNDS), "{stats:?}");
}
