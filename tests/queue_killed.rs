//! Producers and consumers are killed at random instructions: nobody hangs, nothing is torn or
//! comes twice, and the counters tell what became of each item.

mod common;

use common::sync::{in_time, start};
use common::{PATIENCE, watchdog};
use multiproc::{Event, LifoQueue, PriorityQueue, Process, Queue, QueueStats};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long each kind of queue is under fire; longer if by then too little has happened.
const FIRE: Duration = Duration::from_secs(6);
/// How many producers, and consumers, are killed at least.
const KILLS: u64 = 10;
/// How many items come through at least.
const ITEMS: usize = 100;

/// The first bytes are a number that comes once; the others are of one value: those of another
/// item, or none yet, would show.
type Item = Vec<u8>;

/// Lengths that fit a line, the ring, a place of their own; seldom some mebibytes.
fn item(number: u64) -> Item {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let len = match mixed % 64 {
        0..40 => mixed / 64 % 40,
        40..56 => mixed / 64 % 5000,
        56..63 => mixed / 64 % 200_000,
        _ => mixed / 64 % (3 << 20),
    };
    let mut item = vec![mixed as u8 | 1; len as usize + 8];
    item[..8].copy_from_slice(&number.to_be_bytes());
    item
}

fn number_of(item: &Item) -> u64 {
    let bytes = item.first_chunk().expect("a number");
    u64::from_be_bytes(*bytes)
}

/// The queues under fire behave alike.
trait Line: Clone + multiproc::Data + Send {
    fn put(&self, item: Item);
    fn get(&self) -> Option<Item>;
    fn close(&self);
    fn stats(&self) -> QueueStats;
}

macro_rules! line {
    ($($queue:ident)*) => {$(
        impl Line for $queue<Item> {
            fn put(&self, item: Item) {
                self.put(item).expect("it is open");
            }
            fn get(&self) -> Option<Item> {
                match self.get() {
                    Ok(item) => Some(item),
                    Err(error) if error.is_closed() => None,
                    Err(error) => panic!("{error}"),
                }
            }
            fn close(&self) {
                self.close();
            }
            fn stats(&self) -> QueueStats {
                self.stats()
            }
        }
    )*};
}

line!(Queue PriorityQueue LifoQueue);

/// Puts items with numbers of its own until it is killed or told to stop.
fn produce<Q: Line>(queue: Q, first: u64, stop: Event) {
    let mut number = first;
    while !stop.is_set() {
        queue.put(item(number));
        number += 1;
    }
}

/// Takes items until it is killed or the queue is closed, and passes the numbers on.
fn consume<Q: Line>(queue: Q, seen: Queue<u64>) {
    while let Some(item) = queue.get() {
        let number = number_of(&item);
        assert!(item == self::item(number), "a torn item: {number}");
        seen.put(number).expect("it is open");
    }
}

/// A process among others of its kind, one of which is killed at a time.
fn kill_one<R: multiproc::Data + std::fmt::Debug>(
    processes: &mut [Process<R>],
    which: usize,
    new: Process<R>,
) {
    let mut old = std::mem::replace(&mut processes[which], new);
    old.kill().expect("kill");
    let error = old.join_timeout(PATIENCE).expect_err("it was killed");
    assert_eq!(error.exit_status().and_then(|status| status.signal()), Some(9), "{error}");
}

fn under_fire<Q: Line>(queue: Q, may_lose: bool) {
    watchdog();
    let (seen, stop) = (Queue::<u64>::new().unwrap(), Event::new().unwrap());
    let mut producers_so_far = 0;
    let mut producer = || {
        producers_so_far += 1;
        start(produce::<Q>, (queue.clone(), producers_so_far << 32, stop.clone()))
    };
    let consumer = || start(consume::<Q>, (queue.clone(), seen.clone()));
    let mut producers = [producer(), producer()];
    let mut consumers = [consumer(), consumer()];
    let (begin, mut random, mut kills) = (Instant::now(), 7_u64, [0_u64; 2]);
    let is_enough = |kills: [u64; 2]| kills.iter().all(|&n| n > KILLS) && seen.len() > ITEMS;
    while begin.elapsed() < FIRE || !is_enough(kills) {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some time goes by, another one each time, by work and not by the clock.
        for _ in 0..random >> 48 {
            std::hint::spin_loop();
        }
        let which = (random >> 40) as usize % 2;
        if random >> 63 == 0 {
            kill_one(&mut producers, which, producer());
            kills[0] += 1;
        } else {
            kill_one(&mut consumers, which, consumer());
            kills[1] += 1;
        }
    }
    stop.set();
    for mut process in producers {
        process.join_timeout(PATIENCE).expect("it stops");
    }
    queue.close();
    for mut process in consumers {
        process.join_timeout(PATIENCE).expect("it takes what is left");
    }
    in_time(|| while queue.get().is_some() {});
    seen.close();
    let numbers: Vec<u64> = seen.iter().map(Result::unwrap).collect();
    let different: HashSet<u64> = numbers.iter().copied().collect();
    assert_eq!(different.len(), numbers.len(), "an item came twice");
    let stats = queue.stats();
    assert_eq!(stats.put, stats.taken + stats.lost + stats.len, "{stats:?}");
    // What a consumer had taken and could not pass on, since it was killed: one each time.
    let missing = stats.put - numbers.len() as u64;
    assert!(missing <= kills[1], "{missing} items are missing, {kills:?}, {stats:?}");
    assert!(stats.lost <= if may_lose { kills[1] } else { 0 }, "{stats:?}");
}

#[test]
fn a_queue() {
    under_fire(Queue::<Item>::new().unwrap(), true);
}

#[test]
fn a_bounded_queue() {
    under_fire(Queue::<Item>::bounded(5).unwrap(), true);
}

#[test]
fn a_priority_queue() {
    under_fire(PriorityQueue::<Item>::bounded(50).unwrap(), false);
}

#[test]
fn a_lifo_queue() {
    under_fire(LifoQueue::<Item>::bounded(50).unwrap(), false);
}
