//! A pool in a manager's server, which several processes share.

mod common;

use common::processes::signal;
use common::sync::{finish, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::connection::Address;
use multiproc::manager::Pool;
use multiproc::{Event, Manager};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

fn manager() -> Manager {
    watchdog();
    Manager::start().expect("a manager")
}

/// 13 cannot be sent, and 14 not be received.
#[derive(Debug, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            13 => Err(serde::ser::Error::custom("an unlucky number")),
            number => number.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u32::deserialize(from)? {
            14 => Err(serde::de::Error::custom("another one")),
            number => Ok(Self(number)),
        }
    }
}

#[test]
fn a_lazy_map_gives_results_in_order_and_an_error_is_that_of_its_item() {
    let manager = manager();
    let pool = manager.pool(2).unwrap();
    let work = |pool: Pool| {
        let items = [1, 13, 2, 14, 0, 3].map(Picky);
        let map = pool.imap(|item: Picky| 6 / item.0, items).expect("the server lives");
        let said = |error: multiproc::Error| {
            (error.is_encode(), error.is_decode(), error.is_panic(), error.to_string())
        };
        map.map(|result| result.map_err(said)).collect::<Vec<_>>()
    };
    let results = finish(start(work, (pool.clone(),)));
    assert_eq!(results.len(), 6);
    let right = [0, 2, 5].map(|at| results[at].clone().unwrap());
    assert_eq!(right, [6, 3, 2]);
    let wrong = [1, 3, 4].map(|at| results[at].clone().unwrap_err());
    assert!(wrong[0].0 && wrong[1].1 && wrong[2].2, "{wrong:?}");
    // Nothing is left but the pool.
    wait_until("the map has gone", || manager.objects().unwrap() == 1);
}

/// A result whose decoding panics, if it is odd.
#[derive(Debug, Serialize)]
struct Fragile(u32);

impl<'de> Deserialize<'de> for Fragile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(from)?;
        assert!(number.is_multiple_of(2), "an odd number");
        Ok(Self(number))
    }
}

#[test]
fn a_result_whose_decoding_panics_is_an_error_of_a_lazy_map_and_no_other_one_is_lost() {
    let manager = manager();
    let pool = manager.pool(2).unwrap();
    for is_ordered in [true, false] {
        let map = match is_ordered {
            true => pool.imap(Fragile, 0..100).unwrap().window(40),
            false => pool.imap_unordered(Fragile, 0..100).unwrap().window(40),
        };
        let results: Vec<_> = in_time(|| map.collect());
        let mut numbers: Vec<u32> = results.iter().flatten().map(|fragile| fragile.0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).step_by(2).collect::<Vec<_>>());
        let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(errors.len() == 50 && errors.iter().all(|error| error.is_panic()), "{errors:?}");
    }
}

#[test]
fn the_input_of_a_lazy_map_is_read_no_further_than_its_window() {
    let manager = manager();
    let pool = manager.pool(2).unwrap();
    let read = Cell::new(0u64);
    let input = (0u64..).inspect(|_| read.set(read.get() + 1));
    let mut map = pool.imap(|x: u64| x * 2, input).unwrap().window(3);
    for taken in 0..20 {
        assert_eq!(map.next().unwrap().unwrap(), 2 * taken);
        assert!(read.get() <= taken + 3, "{} of {taken}", read.get());
    }
    drop(map);
    let read = Cell::new(0u64);
    let input = (0u64..).inspect(|_| read.set(read.get() + 1));
    let mut map = pool.imap_unordered(|x: u64| x * 2, input).unwrap();
    map.next().unwrap().unwrap();
    assert!(read.get() <= 8, "four for each worker");
}

#[test]
fn an_unordered_map_gives_first_what_is_done_first() {
    let manager = manager();
    let pool = manager.pool(2).unwrap();
    let go_on = Event::new().unwrap();
    let work = |(item, go_on): (u32, Event)| {
        if item == 0 {
            go_on.wait();
        }
        item
    };
    let items: Vec<_> = (0..8u32).map(|item| (item, go_on.clone())).collect();
    let mut map = pool.imap_unordered(work, items).unwrap();
    let mut first: Vec<u32> = (0..7).map(|_| in_time(|| map.next()).unwrap().unwrap()).collect();
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4, 5, 6, 7]);
    go_on.set();
    assert_eq!(map.next().unwrap().unwrap(), 0);
    assert!(map.next().is_none() && map.next().is_none());
}

#[test]
fn a_lazy_map_that_is_dropped_cancels_what_has_not_begun() {
    let manager = manager();
    let pool = manager.pool(1).unwrap();
    let (begun, go_on) = (Event::new().unwrap(), Event::new().unwrap());
    let done = multiproc::AtomicValue::new(0u64).unwrap();
    type Item = (u32, Event, Event, multiproc::AtomicValue<u64>);
    let work = |(item, begun, go_on, done): Item| {
        if item == 1 {
            begun.set();
            go_on.wait();
        }
        done.fetch_add(1);
    };
    let items: Vec<Item> =
        (0..4).map(|item| (item, begun.clone(), go_on.clone(), done.clone())).collect();
    let mut map = pool.imap(work, items).unwrap();
    map.next().unwrap().unwrap();
    begun.wait();
    drop(map);
    wait_until("the map has gone", || manager.objects().unwrap() == 1);
    wait_until("one item is left", || {
        let stats = pool.stats().unwrap();
        (stats.queued, stats.running) == (0, 1)
    });
    go_on.set();
    assert_eq!(in_time(|| pool.apply(|| 5u32, ())).unwrap(), 5);
    assert_eq!(done.load(), 2);
}

#[test]
fn a_lazy_map_keeps_its_pool_and_that_of_a_closed_one_ends_with_an_error() {
    let manager = manager();
    let map = manager.pool(1).unwrap().imap(|x: u64| x + 1, 0..3u64).unwrap();
    assert_eq!(map.collect::<Result<Vec<_>, _>>().unwrap(), [1, 2, 3]);
    let pool = manager.pool(1).unwrap();
    pool.close().unwrap();
    let mut map = pool.imap(|x: u64| x + 1, 0u64..).unwrap();
    let error = map.next().unwrap().unwrap_err();
    assert!(error.is_closed(), "{error}");
    assert!(map.next().is_none());
}

#[test]
fn a_lazy_map_ends_with_its_server() {
    let manager = manager();
    let pool = manager.pool(1).unwrap();
    let mut map = pool.imap_unordered(|x: u64| x, 0u64..).unwrap();
    map.next().unwrap().unwrap();
    signal(manager.pid().unwrap(), libc::SIGKILL);
    let error = in_time(|| map.find_map(Result::err)).unwrap();
    assert!(error.is_disconnected(), "{error}");
    assert!(map.next().is_none());
}

#[test]
fn the_lazy_map_of_a_client_that_is_killed_goes_and_the_pool_stays() {
    let manager = manager();
    let pool = manager.pool(1).unwrap();
    let begun = Event::new().unwrap();
    let work = |pool: Pool, begun: Event| {
        let items = (0..).map(|_| begun.clone());
        let block = |begun: Event| {
            begun.set();
            std::thread::sleep(PATIENCE * 10);
        };
        pool.imap(block, items).map(|map| map.count()).ok()
    };
    let client = start(work, (pool.clone(), begun.clone()));
    begun.wait();
    assert_eq!(manager.objects().unwrap(), 2);
    kill(client);
    wait_until("its map has gone", || manager.objects().unwrap() == 1);
    // What it had begun goes on: that is the pool's, until somebody makes an end of it.
    wait_until("one item is left", || pool.stats().unwrap().running == 1);
    pool.terminate().unwrap();
}

#[test]
fn a_remote_client_maps_lazily() {
    watchdog();
    let key = "a key for a test";
    let manager = Manager::bind(Address::unique().unwrap(), key).unwrap();
    let pool = manager.pool(1).unwrap();
    manager.publish("pool", &pool).unwrap();
    let work = |address: Address, key: String| {
        let manager = Manager::connect(address, key).expect("a connection");
        let pool: Pool = manager.find("pool").expect("a call").expect("it is published");
        let map = pool.imap(|x: f64| x / 2.0, [1.0, 2.0]).expect("a call");
        map.collect::<Result<Vec<f64>, _>>().expect("the server lives")
    };
    let address = manager.address().unwrap().clone();
    assert_eq!(finish(start(work, (address, key.to_owned()))), [0.5, 1.0]);
}

#[multiproc::task(name = "manager_pool/add")]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

static INITIALIZED: AtomicU32 = AtomicU32::new(0);

#[test]
fn a_pool_has_settings_of_its_own_and_the_calls_of_every_pool() {
    let manager = manager();
    let settings = |(workers, start): (usize, u32)| {
        let store = |start: u32| INITIALIZED.store(start, Ordering::Relaxed);
        multiproc::Pool::builder().workers(workers).initializer(store, (start,))
    };
    let pool = manager.pool_with(settings, (2, 40)).unwrap();
    let work = |pool: Pool| {
        let more = |by: u32| INITIALIZED.load(Ordering::Relaxed) + by;
        (
            pool.apply(more, (2,)).unwrap(),
            pool.apply_named("manager_pool/add", (1u64, 2u64)).unwrap(),
        )
    };
    let (sum, named): (u32, u64) = finish(start(work, (pool.clone(),)));
    assert_eq!((sum, named), (42, 3));
    let unknown = pool.apply_named::<_, u64>("manager_pool/subtract", (1u64,)).unwrap_err();
    assert!(unknown.is_invalid_input(), "{unknown}");

    let sums = pool.starmap_async(add, [(1, 2), (3, 4)]).unwrap();
    sums.wait().unwrap();
    assert_eq!(sums.successful().unwrap(), Some(true));
    assert_eq!(sums.get().unwrap(), [3, 7]);
    let failed = pool.apply_async(|| -> u32 { panic!("no") }, ()).unwrap();
    failed.wait().unwrap();
    assert_eq!(failed.successful().unwrap(), Some(false));

    pool.resize(1).unwrap();
    wait_until("one worker is left", || pool.stats().unwrap().workers.len() == 1);
    assert!(pool.resize(0).unwrap_err().is_invalid_input());
    let begun = Event::new().unwrap();
    let block = |begun: Event| {
        begun.set();
        std::thread::sleep(PATIENCE * 10);
    };
    let stuck = pool.apply_async(block, (begun.clone(),)).unwrap();
    begun.wait();
    assert_eq!(stuck.successful().unwrap(), None);
    assert!(!stuck.cancel().unwrap(), "it has begun");
    assert!(stuck.cancel_running().unwrap());
    assert!(in_time(|| stuck.get()).unwrap_err().is_cancelled());
    assert_eq!(in_time(|| pool.apply(|| 1u32, ())).unwrap(), 1);
}
