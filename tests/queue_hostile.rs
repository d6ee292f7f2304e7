//! A peer that writes random words all over a queue: the others may get wrong items, or errors, but
//! what they call with a timeout returns, nobody panics, and nobody is led outside of the memory.

mod common;

use common::scribble::under_fire;
use multiproc::{JoinableQueue, LifoQueue, PriorityQueue, Queue};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(2);

/// A few calls of each kind.
macro_rules! act {
    ($queue:ident) => {{
        for len in [3, 50, 3000, 200_000] {
            let _ = $queue.put_timeout(vec![len as u8; len], SHORT);
        }
        let _ = ($queue.try_get(), $queue.get_timeout(SHORT), $queue.get_timeout(SHORT));
        let _ = ($queue.len(), $queue.is_full(), $queue.is_closed(), $queue.stats());
    }};
}

#[test]
fn queue() {
    under_fire(&Queue::<Vec<u8>>::new().unwrap(), "multiproc-queue", |queue| act!(queue));
    under_fire(&Queue::<Vec<u8>>::bounded(3).unwrap(), "multiproc-queue", |queue| act!(queue));
}

#[test]
fn joinable_queue() {
    let jobs = JoinableQueue::<Vec<u8>>::new().unwrap();
    under_fire(&jobs, "multiproc-joinable-queue", |jobs| {
        act!(jobs);
        let _ = (jobs.task_done(), jobs.join_timeout(SHORT), jobs.unfinished());
    });
}

#[test]
fn priority_queue() {
    let queue = PriorityQueue::<Vec<u8>>::new().unwrap();
    under_fire(&queue, "multiproc-priority-queue", |queue| act!(queue));
}

#[test]
fn lifo_queue() {
    let queue = LifoQueue::<Vec<u8>>::bounded(20).unwrap();
    under_fire(&queue, "multiproc-lifo-queue", |queue| act!(queue));
}
