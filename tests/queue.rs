//! `Queue` and `SimpleQueue`: every item once, in the order of its producer, whole.

mod common;

use common::sync::{finish, finish_all, in_time, start};
use common::{PATIENCE, watchdog};
use multiproc::{Event, Pool, Queue, Shutdown, SimpleQueue};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

/// An item that tells who put it, in which order, and whether it is whole.
type Item = (u32, u32, Vec<u8>);

fn item(producer: u32, number: u32, len: usize) -> Item {
    let byte = |at: usize| (at as u32).wrapping_mul(31).wrapping_add(producer * 7 + number) as u8;
    (producer, number, (0..len).map(byte).collect())
}

/// Puts items of these lengths, again and again, until it has put `count`.
fn produce(queue: Queue<Item>, producer: u32, count: u32, lens: Vec<usize>) {
    for number in 0..count {
        let len = lens[number as usize % lens.len()];
        queue.put(item(producer, number, len)).expect("it is open");
    }
}

/// Takes items until the queue is closed: who put them, in the order in which they were taken.
fn consume(queue: Queue<Item>) -> Vec<(u32, u32)> {
    let check = |taken: Item| {
        assert_eq!(taken, item(taken.0, taken.1, taken.2.len()), "a torn item");
        (taken.0, taken.1)
    };
    queue.iter().map(|taken| check(taken.expect("an item"))).collect()
}

/// Whether these are all items of all producers, each once, in order in each list.
fn check_all(lists: &[Vec<(u32, u32)>], producers: u32, count: u32) {
    for list in lists {
        let mut last = HashMap::new();
        for &(producer, number) in list {
            let before = last.insert(producer, number);
            assert!(before.is_none_or(|before| before < number), "out of order");
        }
    }
    let mut all: Vec<_> = lists.concat();
    all.sort_unstable();
    let expected: Vec<_> = (0..producers)
        .flat_map(|producer| (0..count).map(move |number| (producer, number)))
        .collect();
    assert_eq!(all, expected);
}

fn many_to_many(queue: Queue<Item>, producers: u32, consumers: u32, count: u32, lens: Vec<usize>) {
    let takers: Vec<_> = (0..consumers).map(|_| start(consume, (queue.clone(),))).collect();
    let put = |producer| start(produce, (queue.clone(), producer, count, lens.clone()));
    finish_all((0..producers).map(put));
    queue.close();
    let lists = finish_all(takers);
    check_all(&lists, producers, count);
    let (stats, all) = (queue.stats(), u64::from(producers * count));
    assert_eq!((stats.put, stats.taken, stats.lost, stats.len), (all, all, 0, 0));
}

#[test]
fn what_many_put_many_take_each_item_once_and_in_order() {
    watchdog();
    many_to_many(Queue::new().unwrap(), 3, 3, 2000, vec![0, 1, 20, 300, 5000]);
    many_to_many(Queue::bounded(4).unwrap(), 3, 3, 1000, vec![3, 40, 70_000]);
}

#[test]
fn large_items_arrive_whole_among_small_ones() {
    watchdog();
    many_to_many(
        Queue::bounded(8).unwrap(),
        2,
        2,
        40,
        vec![1, 131_072, 131_073, 1 << 20, 7, 5 << 20],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Any number of processes, any bound, any sizes: a permutation, in order for each producer.
    #[test]
    fn any_interleaving_of_processes_gives_a_permutation(
        producers in 1..4_u32,
        consumers in 1..4_u32,
        count in 1..120_u32,
        bound in prop::option::of(1..20_usize),
        lens in prop::collection::vec(prop_oneof![0..100_usize, 0..200_000_usize], 1..6),
    ) {
        watchdog();
        let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
        many_to_many(queue, producers, consumers, count, lens);
    }
}

#[test]
fn items_are_put_by_value_and_by_reference() {
    watchdog();
    let queue = Queue::<String>::bounded(10).unwrap();
    let text = "b".to_owned();
    queue.put("a".to_owned()).unwrap();
    queue.put(&text).unwrap();
    assert!(queue.try_put(&text).unwrap());
    queue.put_timeout(text, Duration::MAX).unwrap();
    assert_eq!([(); 4].map(|()| queue.get().unwrap()).concat(), "abbb");
    assert_eq!((queue.capacity(), queue.is_full(), queue.is_empty()), (Some(10), false, true));
}

#[test]
fn a_full_queue_makes_who_puts_wait_and_an_empty_one_who_gets() {
    watchdog();
    let queue = Queue::bounded(2).unwrap();
    assert!(queue.try_put(1_u32).unwrap() && queue.try_put(2).unwrap());
    assert!(queue.is_full() && queue.len() == 2 && !queue.try_put(3).unwrap());
    assert!(queue.put_timeout(3, SHORT).expect_err("it is full").is_timeout());
    assert!(queue.put_timeout(3, Duration::ZERO).expect_err("it is full").is_timeout());
    let putter = start(|queue: Queue<u32>| queue.put(3).is_ok(), (queue.clone(),));
    assert_eq!(in_time(|| queue.get()).unwrap(), 1);
    assert!(finish(putter));
    assert_eq!([queue.get().unwrap(), queue.get().unwrap()], [2, 3]);
    assert_eq!(queue.try_get().unwrap(), None);
    assert!(queue.get_timeout(SHORT).expect_err("it is empty").is_timeout());
    let getter = start(|queue: Queue<u32>| queue.get(), (queue.clone(),));
    queue.put(7).unwrap();
    assert_eq!(finish(getter).unwrap(), 7);
    assert!(Queue::<u8>::bounded(0).expect_err("no room ever").is_invalid_input());
}

#[test]
fn closing_and_shutting_down_wake_everybody() {
    watchdog();
    for how in [Shutdown::Draining, Shutdown::Immediate] {
        let (full, empty) = (Queue::bounded(1).unwrap(), Queue::<u8>::new().unwrap());
        full.put(1_u8).unwrap();
        let put = |queue: Queue<u8>, started: Event| {
            started.set();
            queue.put(2).is_err_and(|error| error.is_closed())
        };
        let get = |queue: Queue<u8>, started: Event| {
            started.set();
            queue.get().is_err_and(|error| error.is_closed())
        };
        let events: Vec<_> = (0..4).map(|_| Event::new().unwrap()).collect();
        let puts = events[..2].iter().map(|event| start(put, (full.clone(), event.clone())));
        let gets = events[2..].iter().map(|event| start(get, (empty.clone(), event.clone())));
        let all: Vec<_> = puts.chain(gets).collect();
        assert!(events.iter().all(|event| event.wait_timeout(PATIENCE)));
        full.shutdown(how);
        empty.shutdown(how);
        assert!(finish_all(all).into_iter().all(|woken| woken));
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
fn a_process_that_exits_has_put_its_items() {
    watchdog();
    let queue = Queue::new().unwrap();
    let put = |queue: Queue<String>| {
        for number in 0..500 {
            queue.put(number.to_string()).expect("it is open");
        }
        if !queue.is_empty() {
            std::process::exit(0);
        }
    };
    let mut process = start(put, (queue.clone(),));
    assert!(process.join_timeout(PATIENCE).is_err_and(|error| error.is_exited()));
    assert_eq!(queue.len(), 500);
    queue.close();
    let all: Vec<String> = queue.iter().collect::<Result<_, _>>().unwrap();
    assert!(all.iter().enumerate().all(|(number, text)| *text == number.to_string()));
}

#[test]
fn an_item_that_cannot_be_encoded_is_an_error_at_once() {
    watchdog();
    #[derive(Deserialize, Debug)]
    struct Stubborn;
    impl Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let queue = Queue::new().unwrap();
    let error = queue.put(Stubborn).expect_err("it refuses");
    assert!(error.is_encode() && error.to_string().contains("Stubborn"), "{error}");
    assert!(queue.is_empty());
    assert_eq!(queue.stats().put, 0);
}

#[test]
fn an_item_that_cannot_be_decoded_is_taken_and_is_an_error() {
    watchdog();
    #[derive(Serialize, Debug, PartialEq)]
    struct Picky(u32);
    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u32::deserialize(from)? {
                7 => Err(serde::de::Error::custom("no sevens")),
                other => Ok(Self(other)),
            }
        }
    }
    let queue = Queue::new().unwrap();
    (6..9).for_each(|number| queue.put(Picky(number)).unwrap());
    assert_eq!(queue.get().unwrap(), Picky(6));
    assert!(queue.get().expect_err("a seven").is_decode());
    assert_eq!(queue.get().unwrap(), Picky(8));
}

#[test]
fn encoding_and_decoding_may_use_the_queue_itself() {
    watchdog();
    thread_local! {
        static QUEUE: std::cell::RefCell<Option<Queue<Nosy>>> = const { std::cell::RefCell::new(None) };
    }
    /// Looks into the queue while it is encoded.
    #[derive(Deserialize, Debug, PartialEq)]
    struct Nosy(u32);
    impl Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
            let queue = QUEUE.take();
            if let Some(queue) = queue {
                queue.put(Self(self.0 + 1)).map_err(serde::ser::Error::custom)?;
            }
            self.0.serialize(into)
        }
    }
    let queue = Queue::new().unwrap();
    QUEUE.set(Some(queue.clone()));
    queue.put(Nosy(1)).unwrap();
    assert_eq!([queue.get().unwrap(), queue.get().unwrap()], [Nosy(2), Nosy(1)]);
}

#[test]
fn workers_of_a_pool_use_queues_of_their_context_and_of_their_items() {
    watchdog();
    let pool = Pool::builder().workers(2).build().unwrap();
    let queue = Queue::new().unwrap();
    let put = |queue: &Queue<u32>, number: u32| queue.put(number * 2);
    pool.map_with(&queue, put, 0..100_u32).unwrap().into_iter().collect::<Result<(), _>>().unwrap();
    queue.close();
    let mut all: Vec<u32> = queue.iter().collect::<Result<_, _>>().unwrap();
    all.sort_unstable();
    assert_eq!(all, (0..100).map(|number| number * 2).collect::<Vec<_>>());
}

#[test]
fn threads_of_one_process_share_a_queue_with_those_of_another() {
    watchdog();
    let (there, back) = (Queue::bounded(3).unwrap(), Queue::<u32>::bounded(3).unwrap());
    let echo = |there: Queue<u32>, back: Queue<u32>| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| there.iter().for_each(|item| back.put(item.unwrap()).unwrap()));
            }
        });
        back.close();
    };
    let echo = start(echo, (there.clone(), back.clone()));
    let sum: u64 = std::thread::scope(|scope| {
        let putters = [0, 1, 2].map(|which| {
            let there = &there;
            scope.spawn(move || (0..500).for_each(|number| there.put(number * 3 + which).unwrap()))
        });
        let adders = [0; 2]
            .map(|_| scope.spawn(|| back.iter().map(|item| u64::from(item.unwrap())).sum::<u64>()));
        putters.into_iter().for_each(|putter| putter.join().unwrap());
        there.close();
        adders.map(|adder| adder.join().unwrap()).iter().sum()
    });
    finish(echo);
    assert_eq!(sum, (0..1500).sum::<u64>());
}

#[test]
fn a_simple_queue_has_four_verbs() {
    watchdog();
    let queue = SimpleQueue::new().unwrap();
    let put = |queue: SimpleQueue<(u8, String)>| {
        queue.put((1, "one".to_owned())).expect("it is open");
        queue.put(&(2, "two".to_owned())).expect("it is open");
        queue.close();
    };
    finish(start(put, (queue.clone(),)));
    assert!(!queue.is_empty());
    assert_eq!([queue.get().unwrap().0, queue.get().unwrap().0], [1, 2]);
    assert!(queue.is_empty() && queue.empty());
    assert!(queue.get().expect_err("closed").is_closed());
}

#[test]
fn a_queue_outside_of_a_message_is_an_error() {
    watchdog();
    /// Serialised into text, which can leave no descriptor beside it.
    struct Shown(Queue<u32>);
    impl std::fmt::Display for Shown {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.serialize(f)
        }
    }
    use std::fmt::Write;
    let queue = Queue::new().unwrap();
    assert!(write!(String::new(), "{}", Shown(queue.clone())).is_err());
    assert!(format!("{queue:?}").contains("len"));
}
