//! Queues that a forked child inherits.

mod common;

use common::isolated;
use multiproc::{JoinableQueue, LifoQueue, PriorityQueue, Process, Queue};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_forked_child_has_the_same_queues,
            large_items_come_from_a_forked_child,
            a_forked_child_did_not_take_what_its_parent_took,
        ],
        &[],
    )
}

fn a_forked_child_has_the_same_queues() {
    let (queue, back) = (Queue::<u32>::bounded(2).unwrap(), Queue::<u64>::new().unwrap());
    let (sorted, stack) = (PriorityQueue::new().unwrap(), LifoQueue::new().unwrap());
    let theirs = (queue.clone(), back.clone(), sorted.clone(), stack.clone());
    let add = move || {
        let (queue, back, sorted, stack) = theirs;
        for item in &queue {
            let item = item.unwrap();
            back.put(u64::from(item) * 2).unwrap();
            sorted.put(1000 - item).unwrap();
            stack.put(item).unwrap();
        }
    };
    let mut child = Process::fork(add).spawn().unwrap();
    (0..100).for_each(|item| queue.put(item).unwrap());
    for item in 0..100 {
        assert_eq!(back.get().unwrap(), item * 2);
    }
    queue.close();
    child.join().unwrap();
    for item in 0..100 {
        assert_eq!((sorted.get().unwrap(), stack.get().unwrap()), (901 + item, 99 - item));
    }
}

fn large_items_come_from_a_forked_child() {
    let (queue, stack) = (Queue::<Vec<u8>>::new().unwrap(), LifoQueue::<Vec<u8>>::new().unwrap());
    let theirs = (queue.clone(), stack.clone());
    let put = move || {
        for len in [0, 100, 1 << 17, 3 << 20] {
            theirs.0.put(vec![len as u8 | 1; len]).unwrap();
            theirs.1.put(vec![len as u8 | 1; len]).unwrap();
        }
    };
    let mut child = Process::fork(put).spawn().unwrap();
    for len in [0, 100, 1 << 17, 3 << 20] {
        assert!(queue.get().unwrap() == vec![len as u8 | 1; len]);
    }
    child.join().unwrap();
    for len in [3 << 20, 1 << 17, 100, 0] {
        assert!(stack.get().unwrap() == vec![len as u8 | 1; len]);
    }
}

fn a_forked_child_did_not_take_what_its_parent_took() {
    let jobs = JoinableQueue::new().unwrap();
    jobs.put(1_u8).unwrap();
    jobs.put(2).unwrap();
    assert_eq!(jobs.get().unwrap(), 1);
    let theirs = jobs.clone();
    let child = move || {
        let none = theirs.task_done().is_err_and(|error| error.is_invalid_input());
        let own = theirs.get().unwrap() == 2 && theirs.task_done().is_ok();
        none && own
    };
    assert!(Process::fork(child).spawn().unwrap().join().unwrap());
    assert!(jobs.join_timeout(Duration::ZERO).is_err());
    jobs.task_done().unwrap();
    jobs.join_timeout(Duration::from_secs(60)).unwrap();
}
