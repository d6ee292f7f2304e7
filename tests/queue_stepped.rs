//! A process is killed in the middle of a call on a queue, at one instruction after the other: it
//! is traced, goes step by step, and gets no further. Others go on as if it had made its call or
//! had not.

mod common;

use common::traced::at_many_instructions;
use common::{PATIENCE, isolated};
use multiproc::{JoinableQueue, LifoQueue, PriorityQueue, Queue, QueueStats};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_queue_outlives_who_puts,
            a_queue_outlives_who_takes,
            a_joinable_queue_outlives_who_takes,
            a_priority_queue_outlives_who_puts,
            a_priority_queue_outlives_who_takes,
            a_lifo_queue_outlives_who_puts_and_who_takes,
        ],
        &[],
    )
}

fn balanced(stats: QueueStats) {
    assert_eq!(stats.put, stats.taken + stats.lost + stats.len, "{stats:?}");
}

/// The lengths of items: in a line of a ring, in its bytes, and outside of it.
const LENS: [usize; 3] = [5, 300, 150_000];

/// Whether what is in the queue are whole items of these lengths; takes them.
macro_rules! drain {
    ($queue:expr, $len:expr) => {{
        let mut count = 0;
        while $queue.len() > 0 {
            let item = $queue.get_timeout(PATIENCE).expect("nobody has it");
            assert!(item == vec![7; $len], "a torn item");
            count += 1;
        }
        balanced($queue.stats());
        count
    }};
}

fn a_queue_outlives_who_puts() {
    for len in LENS {
        let item = vec![7; len];
        for queue in [Queue::<Vec<u8>>::new().unwrap(), Queue::bounded(2).unwrap()] {
            at_many_instructions(&|| queue.put(&item).expect("it is open"), || {
                queue.put_timeout(vec![7; len], PATIENCE).expect("there is room");
                let count = drain!(queue, len);
                assert!(count == 1 || count == 2, "{count} items");
            });
        }
    }
}

fn a_queue_outlives_who_takes() {
    for len in LENS {
        let queue = Queue::<Vec<u8>>::new().unwrap();
        queue.put(vec![7; len]).unwrap();
        let take = || drop(queue.get_timeout(PATIENCE));
        at_many_instructions(&take, || {
            let count = drain!(queue, len);
            assert!(count <= 1, "it came twice");
            queue.put_timeout(vec![7; len], PATIENCE).expect("there is room");
        });
    }
}

fn a_joinable_queue_outlives_who_takes() {
    for len in [5, 150_000] {
        let queue = JoinableQueue::<Vec<u8>>::new().unwrap();
        queue.put(vec![7; len]).unwrap();
        let mut rounds = 0;
        let act = || {
            let _ = queue.get_timeout(PATIENCE).expect("an item");
            queue.task_done().expect("it was taken");
        };
        at_many_instructions(&act, || {
            rounds += 1;
            while queue.try_get().expect("whole").is_some() {
                queue.task_done().expect("it was taken");
            }
            queue.join_timeout(PATIENCE).expect("nobody has any");
            let stats = queue.stats();
            balanced(stats);
            assert_eq!((stats.put, stats.len), (rounds, 0));
            queue.put_timeout(vec![7; len], PATIENCE).expect("there is room");
        });
    }
}

fn a_priority_queue_outlives_who_puts() {
    for len in [5, 300] {
        let item = vec![7; len];
        let queue = PriorityQueue::<Vec<u8>>::new().unwrap();
        let put = || queue.put(&item).expect("it is open");
        at_many_instructions(&put, || {
            // Before anybody else has made a call that changes something.
            balanced(queue.stats());
            queue.put_timeout(vec![7; len], PATIENCE).expect("there is room");
            queue.put_timeout(vec![7; len], Duration::ZERO).expect("there is room");
            let count = drain!(queue, len);
            assert!(count == 2 || count == 3, "{count} items");
            queue.put(vec![7; len]).expect("there is room");
            assert_eq!(drain!(queue, len), 1);
        });
    }
}

fn a_priority_queue_outlives_who_takes() {
    let queue = PriorityQueue::<(u32, Vec<u8>)>::new().unwrap();
    (0..10).for_each(|number| queue.put((number, vec![7; 100])).unwrap());
    let mut next = 0;
    let mut last = 10;
    at_many_instructions(&|| drop(queue.get_timeout(PATIENCE)), || {
        balanced(queue.stats());
        let first = queue.get_timeout(PATIENCE).expect("many are left");
        // The one that died took the one before, or did not.
        assert!((first.0 == next || first.0 == next + 1) && first.1 == vec![7; 100]);
        next = first.0 + 1;
        while last < next + 10 {
            queue.put((last, vec![7; 100])).expect("there is room");
            last += 1;
        }
        let stats = queue.stats();
        balanced(stats);
        assert_eq!((stats.len, stats.lost), (u64::from(last - next), 0));
    });
}

fn a_lifo_queue_outlives_who_puts_and_who_takes() {
    let queue = LifoQueue::<Vec<u8>>::bounded(5).unwrap();
    let act = || {
        queue.put(vec![7; 50]).expect("it is open");
        drop(queue.get_timeout(PATIENCE));
    };
    at_many_instructions(&act, || {
        balanced(queue.stats());
        queue.put_timeout(vec![7; 50], PATIENCE).expect("there is room");
        let count = drain!(queue, 50);
        assert!(count == 1 || count == 2, "{count} items");
        assert_eq!(queue.stats().lost, 0);
    });
}
