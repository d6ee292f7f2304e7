use super::layout::MAX_INLINE;
use super::line::{Content, Line};
use super::*;
use crate::shm::bytes::Bytes;
use crate::shm::bytes::CopyOut;
use crate::shm::owner;
use crate::sys::clock::Deadline;
use crate::sys::memfd;
use std::collections::HashMap;
use std::thread;

/// Nothing beside the items.
struct Plain;

impl Sending for Plain {
    fn has_mail(&self) -> bool {
        false
    }
    fn mail(&mut self, _: u64) -> io::Result<bool> {
        Ok(true)
    }
}

/// The item, and nothing beside it.
struct Item(Option<Bytes>);

impl Receiving for Item {
    fn copy(&mut self, bytes: &impl CopyOut) -> io::Result<()> {
        self.0 = Some(Bytes::of(bytes)?);
        Ok(())
    }
    fn mail(&mut self, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

const KIND: Kind = Kind::new("multiproc-test-ring");

fn ring(room: Room) -> Ring {
    Ring::create(KIND, 0, room).expect("ring")
}

fn put(ring: &Ring, bytes: &[u8], deadline: Deadline) -> Put {
    let half = bytes.len() / 3;
    ring.put([&bytes[..half], &bytes[half..]], &mut Plain, deadline).expect("put")
}

fn get(ring: &Ring, deadline: Deadline) -> Option<Vec<u8>> {
    let mut item = Item(None);
    match ring.get(&mut item, deadline).expect("get") {
        Got::Item => item.0.map(Bytes::into_vec),
        Got::Empty | Got::Closed | Got::Over => None,
    }
}

fn now() -> Deadline {
    Deadline::now()
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 7 + (at >> 8)) as u8).collect()
}

const SIZES: [usize; 14] =
    [0, 1, 8, 31, 32, 33, 100, 4000, 40_000, 49_152, 100_000, MAX_INLINE, MAX_INLINE + 1, 3 << 20];

#[test]
fn items_of_every_size_come_back_whole_and_in_order() {
    for room in [Room::Unlimited, Room::Items(5), Room::Bytes] {
        let ring = ring(room);
        for round in 0..40 {
            let lens: Vec<usize> = (0..3).map(|at| SIZES[(round * 5 + at * 3) % 14]).collect();
            for (at, &len) in lens.iter().enumerate() {
                assert_eq!(
                    put(&ring, &pattern(round + at, len), now()),
                    Put::Done { rings: false }
                );
            }
            for (at, &len) in lens.iter().enumerate() {
                assert!(get(&ring, now()).expect("an item") == pattern(round + at, len));
            }
            assert_eq!(get(&ring, now()), None);
        }
    }
}

#[test]
fn a_full_ring_refuses_and_has_room_after_a_get() {
    let ring = ring(Room::Items(3));
    for item in 0..3 {
        assert_eq!(put(&ring, &[item], now()), Put::Done { rings: false });
    }
    assert_eq!(put(&ring, &[9], now()), Put::Full);
    assert_eq!(get(&ring, now()), Some(vec![0]));
    assert_eq!(put(&ring, &[3], now()), Put::Done { rings: false });
    assert_eq!(ring.len(), 3);
}

#[test]
fn a_ring_of_bytes_fills_at_a_mebibyte_or_two() {
    let ring = ring(Room::Bytes);
    let item = pattern(1, 1000);
    let mut count = 0;
    while put(&ring, &item, now()) != Put::Full {
        count += 1;
    }
    assert!((700..2000).contains(&count), "{count}");
    for _ in 0..count {
        assert!(get(&ring, now()).expect("an item") == item);
    }
    assert_eq!(get(&ring, now()), None);
}

/// The bytes of memory that a ring has.
fn memory_of(ring: &Ring) -> i64 {
    nix::sys::stat::fstat(ring.object().fd()).expect("stat").st_blocks * 512
}

#[test]
fn an_unlimited_ring_grows_and_gives_its_memory_back() {
    let ring = ring(Room::Unlimited);
    let item = |number: u32| pattern(number as usize, 500 + number as usize % 1000);
    for round in 0..3 {
        let count = 40_000;
        for number in 0..count {
            assert_eq!(put(&ring, &item(number), now()), Put::Done { rings: false });
        }
        assert!(memory_of(&ring) > 40 << 20);
        for number in 0..count {
            assert!(get(&ring, now()).expect("an item") == item(number), "{number} of {round}");
        }
        // The producers find it empty, the consumers follow them.
        for _ in 0..3 {
            put(&ring, &[1], now());
            assert_eq!(get(&ring, now()), Some(vec![1]));
        }
        assert!(memory_of(&ring) < 6 << 20, "{}", memory_of(&ring));
    }
}

#[test]
fn the_memory_of_large_items_is_given_back() {
    let ring = ring(Room::Unlimited);
    for _ in 0..3 {
        for _ in 0..4 {
            put(&ring, &pattern(1, 8 << 20), now());
        }
        assert!(memory_of(&ring) >= 32 << 20);
        for _ in 0..4 {
            assert_eq!(get(&ring, now()).expect("an item").len(), 8 << 20);
        }
        assert!(memory_of(&ring) < 1 << 20);
    }
}

#[test]
fn threads_lose_nothing_and_double_nothing() {
    for room in [Room::Unlimited, Room::Items(7), Room::Bytes] {
        let ring = ring(room);
        let item = |putter: u64, number: u64| {
            let len = SIZES[((putter * 3 + number) % 11) as usize];
            let mut bytes = [putter, number].map(u64::to_ne_bytes).concat();
            bytes.extend(pattern(number as usize, len));
            bytes
        };
        let taken: Vec<Vec<(u64, u64)>> = thread::scope(|scope| {
            let putters: Vec<_> = (0..3)
                .map(|putter| {
                    let ring = ring.clone();
                    scope.spawn(move || {
                        for number in 0..800 {
                            let put = put(&ring, &item(putter, number), Deadline::NEVER);
                            assert_eq!(put, Put::Done { rings: false });
                        }
                    })
                })
                .collect();
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    let ring = ring.clone();
                    scope.spawn(move || {
                        let mut taken = Vec::new();
                        while let Some(bytes) = get(&ring, Deadline::NEVER) {
                            let word = |at: usize| {
                                u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
                            };
                            assert!(bytes == item(word(0), word(8)));
                            taken.push((word(0), word(8)));
                        }
                        taken
                    })
                })
                .collect();
            for putter in putters {
                putter.join().expect("putter");
            }
            ring.close();
            takers.into_iter().map(|taker| taker.join().expect("taker")).collect()
        });
        for taken in &taken {
            let mut last = HashMap::new();
            for &(putter, number) in taken {
                assert!(last.insert(putter, number).is_none_or(|before| before < number));
            }
        }
        let mut all = taken.concat();
        all.sort_unstable();
        let put: Vec<_> = (0..3).flat_map(|putter| (0..800).map(move |n| (putter, n))).collect();
        assert_eq!(all, put);
        assert_eq!(
            ring.counts(),
            Counts { put: 2400, taken: 2400, lost: 0, lost_in_copy: 0, deaths: 0 }
        );
    }
}

#[test]
fn a_closed_ring_takes_nothing_and_gives_what_it_has() {
    let ring = ring(Room::Unlimited);
    put(&ring, &[1], now());
    ring.close();
    assert_eq!(put(&ring, &[2], Deadline::NEVER), Put::Closed);
    assert_eq!(get(&ring, Deadline::NEVER), Some(vec![1]));
    assert!(matches!(ring.get(&mut Item(None), Deadline::NEVER), Ok(Got::Closed)));
}

#[test]
fn a_ring_that_was_closed_at_once_gives_nothing() {
    let ring = ring(Room::Items(1));
    put(&ring, &[1], now());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| put(&ring, &[2], Deadline::NEVER));
        ring.close_now();
        assert_eq!(waiting.join().expect("join"), Put::Closed);
    });
    assert!(matches!(ring.get(&mut Item(None), Deadline::NEVER), Ok(Got::Closed)));
}

#[test]
fn who_dies_with_a_lock_blocks_nobody() {
    let ring = ring(Room::Unlimited);
    for at in [layout::PUT_LOCK, layout::GET_LOCK] {
        let dead = owner::dead::thread();
        ring.memory.word(at).store(dead, Ordering::Relaxed);
        assert_eq!(put(&ring, &[1], now()), Put::Done { rings: false });
        assert_eq!(get(&ring, now()), Some(vec![1]));
    }
    assert_eq!(ring.counts().deaths, 2);
}

/// Whether the item that was taken last came after a death.
struct AfterDeath(Option<bool>);

impl Receiving for AfterDeath {
    fn copy(&mut self, _: &impl CopyOut) -> io::Result<()> {
        Ok(())
    }
    fn mail(&mut self, _: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn taking(&mut self, item: Next) -> io::Result<()> {
        self.0 = Some(item.is_after_death);
        Ok(())
    }
}

#[test]
fn who_takes_the_turn_of_a_dead_consumer_is_told_and_the_next_one_is_not() {
    let ring = ring(Room::Unlimited);
    (0..3).for_each(|number| assert_eq!(put(&ring, &[number], now()), Put::Done { rings: false }));
    let told = || {
        let mut receiving = AfterDeath(None);
        assert_eq!(ring.get(&mut receiving, now()).expect("get"), Got::Item);
        receiving.0
    };
    assert_eq!(told(), Some(false));
    ring.memory.word(layout::GET_LOCK).store(owner::dead::thread(), Ordering::Relaxed);
    assert_eq!((told(), told()), (Some(true), Some(false)));
}

/// Leaves a ring as a thread does that ends between two steps with a large item.
fn with_dead_seat(ring: &Ring, owner: u64, number: Option<u64>) {
    let large = pattern(1, MAX_INLINE + 1);
    let place = ring.places().fill([&large, &[]], ring.room).expect("memory").expect("a seat");
    let seats = super::super::seats::Seats::new(&ring.memory, layout::SEATS_AT);
    use super::super::seats::Table;
    if let Some(number) = number {
        place.number(number);
    }
    seats.owner(place.seat()).store(owner, Ordering::Relaxed);
    place.leave();
}

#[test]
fn the_place_of_a_dead_producer_or_consumer_is_used_again() {
    let ring = ring(Room::Unlimited);
    let dead = owner::dead::thread();
    // One died while it filled a place, one while it copied out of one.
    with_dead_seat(&ring, dead, None);
    with_dead_seat(&ring, dead, Some(77));
    assert_eq!(ring.counts(), Counts { put: 0, taken: 0, lost: 1, lost_in_copy: 1, deaths: 0 });
    assert!(memory_of(&ring) < 1 << 20);
    // One died after it gave the place to the ring, and before the tail moved on.
    with_dead_seat(&ring, u64::MAX >> 32, Some(0));
    ring.memory.word(layout::PUT_LOCK).store(dead, Ordering::Relaxed);
    put(&ring, &[1], now());
    assert_eq!(ring.counts().lost, 1);
    assert!(memory_of(&ring) < 1 << 20);
}

#[test]
fn an_item_whose_consumer_died_before_the_head_moved_is_taken_by_the_next() {
    let ring = ring(Room::Unlimited);
    let large = pattern(1, MAX_INLINE + 1);
    put(&ring, &large, now());
    let dead = owner::dead::thread();
    let seats = super::super::seats::Seats::new(&ring.memory, layout::SEATS_AT);
    use super::super::seats::Table;
    seats.owner(0).store(dead, Ordering::Relaxed);
    assert_eq!(ring.counts().lost, 0);
    assert!(get(&ring, now()).expect("the item") == large);
}

#[test]
fn whatever_is_written_over_a_ring_is_an_error_and_no_panic() {
    let mut seed = 12345u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 11
    };
    for round in 0..600 {
        let ring = ring([Room::Unlimited, Room::Items(10), Room::Bytes][round % 3]);
        for at in 0..20 {
            put(&ring, &pattern(at, at * 37 % 5000), now());
        }
        get(&ring, now());
        let words = [layout::TAIL, layout::HEAD];
        let segment = ring.segment(0).expect("there");
        for _ in 0..2 {
            let value = [random(), random() << 40 | random(), u64::MAX, 0, 1 << 63][round % 5];
            match random() % 3 {
                0 => {
                    ring.memory.word(words[(random() % 2) as usize]).store(value, Ordering::Relaxed)
                }
                _ => {
                    let at = (random() % 200) as usize * 8;
                    segment.word64(at).store(value, Ordering::Relaxed);
                }
            }
        }
        // What comes is not to be asserted; that it comes is.
        for _ in 0..50 {
            let _ = ring.put([&[1; 100], &[]], &mut Plain, now());
            let _ = ring.get(&mut Item(None), now());
        }
        let _ = (ring.len(), ring.is_readable(), ring.counts());
        ring.close_now();
    }
}

#[test]
fn a_look_at_the_head_is_of_no_use_after_the_ring_has_been_elsewhere() {
    let ring = ring(Room::Unlimited);
    let (idle, busy) = (ring.clone(), ring.clone());
    let put = |ring: &Ring, number, len| {
        assert_eq!(put(ring, &pattern(number, len), now()), Put::Done { rings: false });
    };
    let get = |number, len| assert!(get(&ring, now()).expect("an item") == pattern(number, len));
    // The ring grows, is empty, and comes back.
    let be_elsewhere = || {
        (0..60).for_each(|number| put(&busy, number, MAX_INLINE));
        (0..60).for_each(|number| get(number, MAX_INLINE));
        put(&busy, 1, 1);
        get(1, 1);
        assert_eq!(Position::of(ring.head().load(Ordering::Relaxed)).generation, layout::SETTLED);
    };
    be_elsewhere();
    // One producer has to look at the head when it is some way behind the tail ...
    let count = Generation(layout::SETTLED).bytes() as usize / 1000;
    (0..200).for_each(|number| put(&idle, number, 1000));
    for number in 200..count + 10 {
        get(number - 200, 1000);
        put(&idle, number, 1000);
    }
    (count - 190..count + 10).for_each(|number| get(number, 1000));
    // ... and sees nothing of what comes next, until it finds the place almost full.
    be_elsewhere();
    (0..count - 1).for_each(|number| put(&busy, number, 1000));
    (count - 1..count + 50).for_each(|number| put(&idle, number, 1000));
    (0..count + 50).for_each(|number| get(number, 1000));
}

#[test]
fn a_ring_of_bytes_fills_with_some_large_items() {
    for (len, most) in [(16 << 20, 4), (8 << 20, 8), (1 << 20, 64)] {
        let ring = ring(Room::Bytes);
        let item = vec![7; len];
        let count = (0..1000).find(|_| put(&ring, &item, now()) == Put::Full);
        assert_eq!(count, Some(most));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| put(&ring, &item, Deadline::NEVER));
            assert_eq!(get(&ring, now()).expect("an item").len(), len);
            assert_eq!(waiting.join().expect("join"), Put::Done { rings: false });
        });
        (0..most).for_each(|_| assert_eq!(get(&ring, now()).expect("an item").len(), len));
    }
}

#[test]
fn marks_that_lead_in_a_circle_are_an_error() {
    let ring = ring(Room::Unlimited);
    memfd::reserve(ring.object().fd(), Generation(1).at(), Generation(1).len()).expect("memory");
    for (here, there) in [(0, 1), (1, 0)] {
        let content = Content::Moved(there);
        let mark = Line { number: 0, tag: 0, len: 0, end: 0, mail: 0, content };
        mark.write(ring.segment(here).expect("there"), Generation(here).line(0));
    }
    ring.tail().store(5 << 8, Ordering::Relaxed);
    let error = ring.get(&mut Item(None), now()).expect_err("no item ever comes");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn places_that_the_dead_have_left_are_found_by_who_only_tries() {
    let ring = ring(Room::Unlimited);
    let seats = super::super::seats::Seats::new(&ring.memory, layout::SEATS_AT);
    use super::super::seats::{SEATS, Table};
    let dead = owner::dead::thread();
    while seats.claim(dead, 0).is_some() {}
    let large = pattern(1, MAX_INLINE + 1);
    let tries = (0..SEATS).find(|_| put(&ring, &large, now()) != Put::Full);
    assert!(tries.is_some(), "it is full for ever");
    assert!(get(&ring, now()).expect("the item") == large);
}

#[test]
fn an_item_that_is_larger_than_any_may_be_is_refused_and_the_next_one_goes() {
    // As much as that has no memory, and is never read.
    let len = MAX_ITEM / 2 + 1;
    let hole = memfd::create("test", len).expect("a hole");
    let segment = Segment::open(&hole, len, false).expect("mapped");
    // SAFETY: nobody else has the hole.
    let half = unsafe { segment.bytes(0, len) };
    let ring = ring(Room::Unlimited);
    let put_all = |parts| ring.put(parts, &mut Plain, now()).expect("put");
    assert_eq!(put_all([half, half]), Put::TooLarge);
    assert_eq!(ring.len(), 0);
    assert_eq!(put_all([&[1], &[]]), Put::Done { rings: false });
}
