//! `PriorityQueue` and `LifoQueue`: the order in which items are taken, across processes.

mod common;

use common::sync::{finish, finish_all, in_time, start};
use common::{PATIENCE, watchdog};
use multiproc::{Event, LifoQueue, PriorityQueue, Shutdown};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn the_smallest_is_taken_first_and_the_eldest_of_equal_ones() {
    watchdog();
    /// Compares by its first field only.
    #[derive(Serialize, Deserialize, Debug)]
    struct Job(u32, String);
    impl Ord for Job {
        fn cmp(&self, other: &Self) -> Ordering {
            self.0.cmp(&other.0)
        }
    }
    impl PartialOrd for Job {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl PartialEq for Job {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }
    impl Eq for Job {}
    let jobs = PriorityQueue::new().unwrap();
    let put = |jobs: PriorityQueue<Job>| {
        for (urgency, name) in [(2, "c"), (1, "a"), (2, "d"), (9, "f"), (1, "b"), (2, "e")] {
            jobs.put(Job(urgency, name.to_owned())).expect("there is room");
        }
        jobs.close();
    };
    finish(start(put, (jobs.clone(),)));
    let order: Vec<String> = jobs.iter().map(|job| job.expect("a job").1).collect();
    assert_eq!(order, ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn the_latest_is_taken_first() {
    watchdog();
    let plates = LifoQueue::new().unwrap();
    let put = |plates: LifoQueue<u32>| (0..100).try_for_each(|plate| plates.put(plate)).is_ok();
    assert!(finish(start(put, (plates.clone(),))));
    plates.close();
    let taken: Vec<u32> = plates.into_iter().map(Result::unwrap).collect();
    assert_eq!(taken, (0..100).rev().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    /// Against a sorted map and a vector: any sequence of puts and gets, items of any size.
    #[test]
    fn any_sequence_of_calls_gives_what_a_sorted_map_and_a_stack_give(
        steps in prop::collection::vec(prop::option::weighted(0.6, (0..9_u8, 0..200_usize)), 1..120),
    ) {
        let (sorted, stack) = (PriorityQueue::new().unwrap(), LifoQueue::new().unwrap());
        let (mut map, mut vector) = (BTreeMap::new(), Vec::new());
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Some((value, len)) => {
                    let item = (value, number, vec![value; len * len]);
                    sorted.put(&item).unwrap();
                    stack.put(&item).unwrap();
                    map.insert((value, number), item.clone());
                    vector.push(item);
                }
                None => {
                    prop_assert_eq!(sorted.try_get().unwrap(), map.pop_first().map(|(_, item)| item));
                    prop_assert_eq!(stack.try_get().unwrap(), vector.pop());
                }
            }
            prop_assert_eq!((sorted.len(), stack.len()), (map.len(), vector.len()));
        }
    }
}

#[test]
fn what_several_processes_put_at_the_same_time_comes_out_sorted() {
    watchdog();
    const EACH: u64 = 300;
    let queue = PriorityQueue::<(u64, u64)>::new().unwrap();
    let put = |queue: PriorityQueue<(u64, u64)>, which: u64| {
        let mut random = which + 1;
        for _ in 0..EACH {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            queue.put((random >> 40, which)).expect("there is room");
        }
    };
    finish_all((0..3).map(|which| start(put, (queue.clone(), which))));
    queue.close();
    let all: Vec<_> = queue.iter().map(Result::unwrap).collect();
    assert_eq!(all.len() as u64, 3 * EACH);
    assert!(all.is_sorted());
    let stats = queue.stats();
    assert_eq!((stats.put, stats.taken, stats.lost, stats.len), (3 * EACH, 3 * EACH, 0, 0));
}

#[test]
fn a_full_queue_makes_who_puts_wait_and_an_empty_one_who_gets() {
    watchdog();
    let queue = PriorityQueue::bounded(2).unwrap();
    assert!(queue.try_put(2_u32).unwrap() && queue.try_put(1).unwrap());
    assert!(queue.is_full() && !queue.try_put(0).unwrap());
    assert!(queue.put_timeout(0, SHORT).expect_err("it is full").is_timeout());
    let putter = start(|queue: PriorityQueue<u32>| queue.put(0).is_ok(), (queue.clone(),));
    assert_eq!(in_time(|| queue.get()).unwrap(), 1);
    assert!(finish(putter));
    assert_eq!([queue.get().unwrap(), queue.get().unwrap()], [0, 2]);
    assert_eq!(queue.try_get().unwrap(), None);
    assert!(queue.get_timeout(SHORT).expect_err("it is empty").is_timeout());
    let getter = start(|queue: PriorityQueue<u32>| queue.get(), (queue.clone(),));
    queue.put(7).unwrap();
    assert_eq!(finish(getter).unwrap(), 7);
    assert_eq!((queue.capacity(), LifoQueue::<u8>::new().unwrap().capacity()), (Some(2), None));
    assert!(LifoQueue::<u8>::bounded(0).expect_err("no room ever").is_invalid_input());
}

#[test]
fn closing_and_shutting_down_wake_everybody() {
    watchdog();
    for how in [Shutdown::Draining, Shutdown::Immediate] {
        let (full, empty) = (LifoQueue::bounded(1).unwrap(), LifoQueue::<u8>::new().unwrap());
        full.put(1_u8).unwrap();
        let put = |queue: LifoQueue<u8>, started: Event| {
            started.set();
            queue.put(2).is_err_and(|error| error.is_closed())
        };
        let get = |queue: LifoQueue<u8>, started: Event| {
            started.set();
            queue.get().is_err_and(|error| error.is_closed())
        };
        let events = [0; 2].map(|_| Event::new().unwrap());
        let putter = start(put, (full.clone(), events[0].clone()));
        let getter = start(get, (empty.clone(), events[1].clone()));
        assert!(events.iter().all(|event| event.wait_timeout(PATIENCE)));
        full.shutdown(how);
        empty.shutdown(how);
        assert!(finish(putter) && finish(getter));
        assert!(full.is_closed() && full.try_put(3).expect_err("closed").is_closed());
        let rest: Vec<u8> = full.iter().map(Result::unwrap).collect();
        let stats = full.stats();
        match how {
            Shutdown::Draining => assert_eq!((rest, stats.taken, stats.lost), (vec![1], 1, 0)),
            Shutdown::Immediate => assert_eq!((rest, stats.taken, stats.lost), (vec![], 0, 1)),
        }
        assert!(full.get_timeout(SHORT).expect_err("closed").is_closed());
        assert_eq!((full.len(), stats.len), (0, 0));
    }
}

#[test]
fn comparisons_may_use_the_queue_itself_and_may_panic() {
    watchdog();
    thread_local! {
        static QUEUE: std::cell::RefCell<Option<PriorityQueue<Odd>>> = const { std::cell::RefCell::new(None) };
    }
    /// Compares by its number, and looks into the queue meanwhile; 13 panics.
    #[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
    struct Odd(u32);
    impl Ord for Odd {
        fn cmp(&self, other: &Self) -> Ordering {
            assert!(self.0 != 13, "on purpose");
            let len = QUEUE.with_borrow(|queue| {
                queue.as_ref().map(|queue| {
                    assert!(queue.put_timeout(Self(u32::MAX - 1), Duration::ZERO).is_err());
                    queue.len()
                })
            });
            assert_ne!(len, Some(0));
            self.0.cmp(&other.0)
        }
    }
    impl PartialOrd for Odd {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    let queue = PriorityQueue::bounded(3).unwrap();
    queue.put(Odd(5)).unwrap();
    let full = PriorityQueue::bounded(1).unwrap();
    full.put(Odd(1)).unwrap();
    QUEUE.set(Some(full));
    queue.put(Odd(3)).unwrap();
    let panicked = std::panic::catch_unwind(|| queue.put(Odd(13)));
    assert!(panicked.is_err());
    assert_eq!(queue.len(), 2);
    queue.put(Odd(4)).unwrap();
    QUEUE.set(None);
    let taken: Vec<u32> = (0..3).map(|_| queue.get().unwrap().0).collect();
    assert_eq!(taken, [3, 4, 5]);
}

#[test]
fn an_item_that_cannot_be_decoded_is_an_error_of_who_takes_it() {
    watchdog();
    #[derive(Serialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Picky(u32);
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u32::deserialize(from)? {
                7 => Err(serde::de::Error::custom("no sevens")),
                other => Ok(Self(other)),
            }
        }
    }
    let queue = PriorityQueue::new().unwrap();
    for number in [9, 7, 3] {
        queue.put(Picky(number)).unwrap();
    }
    let mut taken: Vec<_> = (0..3).map(|_| queue.get()).collect();
    let bad = taken.iter().position(|item| item.is_err()).expect("the seven");
    assert!(taken.remove(bad).is_err_and(|error| error.is_decode()));
    assert_eq!(taken.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Picky(3), Picky(9)]);
    assert!(queue.is_empty());
}

#[test]
fn an_item_that_cannot_be_encoded_is_an_error_at_once_and_nothing_is_put() {
    watchdog();
    #[derive(Deserialize, Debug)]
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let queue = LifoQueue::new().unwrap();
    assert!(queue.put(Stubborn).expect_err("it refuses").is_encode());
    assert!(queue.is_empty());
}

#[test]
fn large_items_arrive_whole() {
    watchdog();
    let queue = LifoQueue::<Vec<u8>>::new().unwrap();
    let echo = |queue: LifoQueue<Vec<u8>>, back: LifoQueue<Vec<u8>>| {
        for mut item in queue.iter().map(|item| item.expect("an item")) {
            item.reverse();
            back.put(item).expect("there is room");
        }
    };
    let back = LifoQueue::new().unwrap();
    let echo = start(echo, (queue.clone(), back.clone()));
    for len in [0, 1, 4096, 1 << 16, (1 << 20) - 48, 1 << 20, 16 << 20] {
        let mut item: Vec<u8> = (0..len).map(|at: usize| (at * 7 % 251) as u8).collect();
        queue.put(&item).unwrap();
        item.reverse();
        assert!(in_time(|| back.get()).unwrap() == item, "{len} bytes");
    }
    queue.close();
    finish(echo);
}
