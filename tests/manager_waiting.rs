//! What clients of a manager wait for: queues, locks, permits, conditions, events, barriers, pools.

mod common;

use common::sync::{finish, finish_all, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::manager::{
    Barrier, Condition, Event, JoinableQueue, List, Lock, Pool, Queue, RLock, Semaphore,
};
use multiproc::{Manager, Process, Shutdown};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(20);

fn manager() -> Manager {
    watchdog();
    Manager::start().expect("a manager")
}

#[test]
fn a_queue_gives_each_item_to_one_consumer_in_the_order_of_each_producer() {
    let manager = manager();
    let queue = manager.bounded_queue::<(u32, u32)>(8).unwrap();
    let produce = |queue: Queue<(u32, u32)>, who: u32| {
        (0..100).for_each(|number| queue.put((who, number)).expect("it is open"));
    };
    let consume =
        |queue: Queue<(u32, u32)>| queue.iter().collect::<Result<Vec<_>, _>>().expect("it lives");
    let consumers = [0; 2].map(|_| start(consume, (queue.clone(),)));
    finish_all([0, 1, 2].map(|who| start(produce, (queue.clone(), who))));
    queue.close().unwrap();
    let got = finish_all(consumers);
    for items in &got {
        for who in 0..3 {
            let own: Vec<u32> =
                items.iter().filter(|item| item.0 == who).map(|item| item.1).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
    }
    let mut all: Vec<_> = got.concat();
    all.sort_unstable();
    assert_eq!(all, (0..3).flat_map(|who| (0..100).map(move |n| (who, n))).collect::<Vec<_>>());
}

#[test]
fn a_queue_is_tried_waited_for_closed_and_shut_down() {
    let manager = manager();
    let queue = manager.bounded_queue::<String>(1).unwrap();
    assert_eq!(queue.try_get().unwrap(), None);
    assert!(queue.get_timeout(SHORT).unwrap_err().is_timeout());
    queue.put("one".to_owned()).unwrap();
    let two = "two".to_owned();
    assert!(!queue.try_put(&two).unwrap());
    assert!(queue.put_timeout("two".to_owned(), SHORT).unwrap_err().is_timeout());
    assert_eq!((queue.len().unwrap(), queue.is_full().unwrap()), (1, true));
    assert_eq!(queue.capacity().unwrap(), Some(1));
    let put = start(|queue: Queue<String>| queue.put("two".to_owned()).is_ok(), (queue.clone(),));
    assert_eq!(queue.get().unwrap(), "one");
    assert!(finish(put));
    queue.close().unwrap();
    assert!(queue.is_closed().unwrap());
    assert!(queue.put("three".to_owned()).unwrap_err().is_closed());
    assert_eq!(queue.get().unwrap(), "two");
    assert!(queue.get().unwrap_err().is_closed() && queue.try_get().unwrap_err().is_closed());
    assert!(manager.bounded_queue::<u8>(0).unwrap_err().is_invalid_input());
    let queue = manager.queue::<u8>().unwrap();
    queue.put_many([1, 2]).unwrap();
    assert_eq!(queue.capacity().unwrap(), None);
    queue.shutdown(Shutdown::Draining).unwrap();
    assert!(queue.put(3).unwrap_err().is_closed());
    assert_eq!(queue.get().unwrap(), 1);
    queue.shutdown(Shutdown::Immediate).unwrap();
    assert!(queue.get().unwrap_err().is_closed() && queue.is_empty().unwrap());
    assert_eq!((&queue).into_iter().count(), 0);
}

#[test]
fn closing_a_queue_wakes_those_who_wait() {
    let manager = manager();
    let queue = manager.queue::<u8>().unwrap();
    let wait = |queue: Queue<u8>| queue.get().unwrap_err().is_closed();
    let waiters = [0; 2].map(|_| start(wait, (queue.clone(),)));
    queue.close().unwrap();
    assert_eq!(finish_all(waiters), [true; 2]);
}

/// A process that says that it is about to wait, and waits.
fn get_after_saying_so(queue: Queue<u32>, ready: Event) {
    ready.set().expect("the server lives");
    let _ = queue.get();
}

#[test]
fn a_consumer_that_is_killed_while_it_waits_takes_nothing() {
    let manager = manager();
    let (queue, ready) = (manager.queue::<u32>().unwrap(), manager.event().unwrap());
    let consumer = start(get_after_saying_so, (queue.clone(), ready.clone()));
    ready.wait().unwrap();
    common::sync::wait_until_asleep(&consumer);
    kill(consumer);
    for number in 0..10 {
        queue.put(number).unwrap();
    }
    let left: Vec<u32> = (0..10).map(|_| queue.get_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(left, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_client_that_waits_blocks_no_other_and_not_even_itself() {
    let manager = manager();
    let (queue, list) = (manager.queue::<u32>().unwrap(), manager.list_of([1u32]).unwrap());
    let waits = {
        let queue = queue.clone();
        std::thread::spawn(move || queue.get().expect("an item comes"))
    };
    let look = |list: List<u32>| list.len().expect("the server lives");
    assert_eq!(finish(start(look, (list.clone(),))), 1);
    assert_eq!(list.get(0).unwrap(), Some(1), "another thread of the process that waits");
    queue.put(5).unwrap();
    assert_eq!(waits.join().unwrap(), 5);
}

#[test]
fn join_waits_for_the_items_that_were_put() {
    let manager = manager();
    let jobs = manager.bounded_joinable_queue::<u32>(4).unwrap();
    let done = manager.list::<u32>().unwrap();
    let work = |jobs: JoinableQueue<u32>, done: List<u32>| {
        for job in jobs.iter() {
            done.push(job.expect("it lives")).expect("it lives");
            jobs.task_done().expect("it was got");
        }
    };
    let workers = [0; 2].map(|_| start(work, (jobs.clone(), done.clone())));
    jobs.put_many(0..20).unwrap();
    jobs.join().unwrap();
    assert_eq!((done.len().unwrap(), jobs.unfinished().unwrap()), (20, 0));
    assert!(jobs.task_done().unwrap_err().is_invalid_input());
    jobs.put(7).unwrap();
    jobs.close().unwrap();
    finish_all(workers);
    jobs.join_timeout(PATIENCE).unwrap();
}

#[test]
fn join_tells_once_of_items_that_died_with_their_consumer() {
    let manager = manager();
    let jobs = manager.joinable_queue::<u32>().unwrap();
    jobs.put_many([1, 2]).unwrap();
    let take = |jobs: JoinableQueue<u32>| {
        jobs.get().expect("one is there");
        std::process::abort();
    };
    let mut consumer: Process<()> = start(take, (jobs.clone(),));
    assert!(consumer.join_timeout(PATIENCE).is_err());
    jobs.get().unwrap();
    assert!(jobs.join_timeout(Duration::ZERO).unwrap_err().is_timeout());
    jobs.task_done().unwrap();
    assert!(in_time(|| jobs.join()).unwrap_err().is_owner_died());
    jobs.join().unwrap();
}

#[test]
fn one_process_at_a_time_has_a_lock() {
    let manager = manager();
    let (lock, value) = (manager.lock().unwrap(), manager.value(0u32).unwrap());
    let add = |lock: Lock, value: multiproc::manager::Value<u32>| {
        for _ in 0..50 {
            let _guard = lock.lock().expect("nobody dies");
            let now = value.get().expect("it lives");
            value.set(now + 1).expect("it lives");
        }
    };
    finish_all([0; 3].map(|_| start(add, (lock.clone(), value.clone()))));
    assert_eq!(value.get().unwrap(), 150);
    assert!(!lock.is_locked().unwrap());
}

#[test]
fn a_lock_is_tried_waited_for_and_released_by_hand() {
    let manager = manager();
    let lock = manager.lock().unwrap();
    assert!(lock.release().unwrap_err().is_invalid_input());
    let guard = lock.lock().unwrap();
    let fails = |lock: Lock| {
        let tried = lock.try_lock().unwrap().is_none() && !lock.try_acquire().unwrap();
        tried && lock.lock_timeout(SHORT).unwrap().is_none()
    };
    assert!(finish(start(fails, (lock.clone(),))));
    drop(guard);
    lock.acquire().unwrap();
    finish(start(|lock: Lock| lock.release().unwrap(), (lock.clone(),)));
    assert!(lock.acquire_timeout(SHORT).unwrap());
}

#[test]
fn a_lock_of_a_client_that_is_killed_is_free_and_the_next_one_is_told() {
    let manager = manager();
    let (lock, ready) = (manager.lock().unwrap(), manager.event().unwrap());
    let hold = |lock: Lock, ready: Event| {
        let _guard = lock.lock().expect("nobody died");
        ready.set().expect("it lives");
        std::thread::sleep(PATIENCE);
    };
    let owner = start(hold, (lock.clone(), ready.clone()));
    ready.wait().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    let waiter = {
        let lock = lock.clone();
        std::thread::spawn(move || lock.lock().map(drop))
    };
    kill(owner);
    assert!(waiter.join().unwrap().unwrap_err().is_owner_died());
    drop(in_time(|| lock.lock()).unwrap());
}

#[test]
fn a_guard_that_is_dropped_by_a_panic_tells_the_next() {
    let manager = manager();
    let lock = manager.lock().unwrap();
    let other = lock.clone();
    let panics = std::thread::spawn(move || {
        let _guard = other.lock().unwrap();
        panic!("expected");
    });
    assert!(panics.join().is_err());
    assert!(lock.lock().unwrap_err().is_owner_died());
    drop(lock.lock().unwrap());
}

#[test]
fn an_rlock_is_taken_again_by_its_thread_alone() {
    let manager = manager();
    let lock = manager.rlock().unwrap();
    let outer = lock.lock().unwrap();
    lock.acquire().unwrap();
    let fails = |lock: RLock| lock.try_lock().unwrap().is_none() && lock.release().is_err();
    assert!(finish(start(fails, (lock.clone(),))));
    drop(outer);
    assert!(lock.is_locked().unwrap());
    lock.release().unwrap();
    assert!(finish(start(|lock: RLock| lock.lock().is_ok(), (lock.clone(),))));
}

#[test]
fn no_more_have_a_permit_than_there_are() {
    let manager = manager();
    let places = manager.semaphore(2).unwrap();
    let (first, _second) = (places.acquire().unwrap(), places.acquire().unwrap());
    let fails = |places: Semaphore| {
        places.try_acquire().unwrap().is_none() && !places.acquire_raw_timeout(SHORT).unwrap()
    };
    assert!(finish(start(fails, (places.clone(),))));
    drop(first);
    assert!(!finish(start(fails, (places.clone(),))));
    places.release(3).unwrap();
    assert!(places.acquire_timeout(SHORT).unwrap().is_some());
    let bounded = manager.bounded_semaphore(1).unwrap();
    assert!(bounded.release(1).unwrap_err().is_invalid_input());
    bounded.acquire_raw().unwrap();
    bounded.release(1).unwrap();
    assert_eq!(bounded.available().unwrap(), 1);
}

#[test]
fn the_permit_of_a_client_that_is_killed_comes_back_with_the_news() {
    let manager = manager();
    let (places, ready) = (manager.bounded_semaphore(1).unwrap(), manager.event().unwrap());
    let hold = |places: multiproc::manager::BoundedSemaphore, ready: Event| {
        let _permit = places.acquire().expect("nobody died");
        ready.set().expect("it lives");
        std::thread::sleep(PATIENCE);
    };
    let owner = start(hold, (places.clone(), ready.clone()));
    ready.wait().unwrap();
    kill(owner);
    assert!(in_time(|| places.acquire()).unwrap_err().is_owner_died());
    assert!(places.acquire().is_ok());
}

/// Waits for a notification and adds a number.
fn wait_and_push(lock: Lock, changed: Condition, list: List<u32>, who: u32) {
    let guard = lock.lock().expect("nobody dies");
    list.push(who).expect("it lives");
    let guard = changed.wait(guard).expect("nobody dies");
    list.push(who + 100).expect("it lives");
    drop(guard);
}

#[test]
fn a_notification_wakes_one_who_waits_and_all_wakes_all() {
    let manager = manager();
    let (lock, changed) = (manager.lock().unwrap(), manager.condition().unwrap());
    let list = manager.list().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|who| start(wait_and_push, (lock.clone(), changed.clone(), list.clone(), who)))
        .collect();
    // With the lock, so that all who have pushed are waiting.
    wait_until("all wait", || {
        let _guard = lock.lock().expect("nobody dies");
        list.len().unwrap() == 3
    });
    changed.notify_one().unwrap();
    wait_until("one was woken", || list.len().unwrap() == 4);
    let first = list.get(0).unwrap().unwrap();
    assert_eq!(list.get(3).unwrap(), Some(first + 100), "the one that waited longest");
    changed.notify_all().unwrap();
    waiters.into_iter().for_each(finish);
    let guard = lock.lock().unwrap();
    let (guard, notified) = changed.wait_timeout(guard, SHORT).unwrap();
    assert!(!notified && lock.is_locked().unwrap());
    let (_guard, is_so) = changed.wait_timeout_while(guard, SHORT, || Ok(true)).unwrap();
    assert!(!is_so);
}

#[test]
fn a_notification_that_a_killed_waiter_did_not_hear_goes_to_the_next() {
    let manager = manager();
    let (lock, changed) = (manager.lock().unwrap(), manager.condition().unwrap());
    let list = manager.list().unwrap();
    let begin = |who: u32| {
        let process = start(wait_and_push, (lock.clone(), changed.clone(), list.clone(), who));
        wait_until("it waits", || {
            let _guard = lock.lock().expect("nobody dies");
            list.len().unwrap() == who as usize + 1
        });
        process
    };
    let (first, second) = (begin(0), begin(1));
    // Woken, the first one still needs the lock.
    let guard = lock.lock().unwrap();
    changed.notify_one().unwrap();
    kill(first);
    drop(guard);
    // Either it had not heard, and the second one does, or it had: then another one is for it.
    wait_until("the second one is woken", || {
        let woken = list.len().unwrap() == 3;
        if !woken {
            changed.notify_one().unwrap();
        }
        woken
    });
    finish(second);
}

#[test]
fn a_notification_for_a_waiter_that_has_just_been_killed_goes_to_the_next() {
    let manager = manager();
    for _ in 0..5 {
        let (lock, changed) = (manager.lock().unwrap(), manager.condition().unwrap());
        let list = manager.list().unwrap();
        let [first, second] = [0, 1].map(|who: u32| {
            let process = start(wait_and_push, (lock.clone(), changed.clone(), list.clone(), who));
            wait_until("it waits", || {
                let _guard = lock.lock().expect("nobody dies");
                list.len().unwrap() == who as usize + 1
            });
            process
        });
        // The server looks for the dead every now and then, and for this one perhaps not yet.
        kill(first);
        changed.notify_one().unwrap();
        finish(second);
        assert_eq!(list.snapshot().unwrap(), [0, 1, 101]);
    }
}

#[test]
fn a_condition_takes_an_rlock_again_as_often() {
    let manager = manager();
    let (lock, changed) = (manager.rlock().unwrap(), manager.condition().unwrap());
    lock.acquire().unwrap();
    let guard = lock.lock().unwrap();
    let (guard, _) = changed.wait_timeout(guard, SHORT).unwrap();
    drop(guard);
    assert!(lock.is_locked().unwrap(), "it was taken twice");
    lock.release().unwrap();
    assert!(!lock.is_locked().unwrap());
}

#[test]
fn an_event_lets_all_go_also_if_it_is_cleared_at_once() {
    let manager = manager();
    let (event, ready) = (manager.event().unwrap(), manager.semaphore(0).unwrap());
    assert!(!event.wait_timeout(SHORT).unwrap());
    let wait = |event: Event, ready: Semaphore| {
        ready.release(1).expect("it lives");
        event.wait().is_ok()
    };
    let waiters: Vec<_> = (0..2).map(|_| start(wait, (event.clone(), ready.clone()))).collect();
    (0..2).for_each(|_| ready.acquire_raw().unwrap());
    waiters.iter().for_each(common::sync::wait_until_asleep);
    // One of them may still be on its way to the server: the event stays set until all are through.
    event.set().unwrap();
    assert_eq!(finish_all(waiters), [true; 2]);
    assert!(event.is_set().unwrap() && event.wait_timeout(Duration::ZERO).unwrap());
    event.clear().unwrap();
    assert!(!event.is_set().unwrap());
}

#[test]
fn a_barrier_lets_all_go_when_all_have_come_again_and_again() {
    let manager = manager();
    let barrier = manager.barrier(3).unwrap();
    let meet = |barrier: Barrier| {
        (0..10).filter(|_| barrier.wait().expect("nobody dies").is_leader()).count()
    };
    let led = finish_all([0; 3].map(|_| start(meet, (barrier.clone(),))));
    assert_eq!(led.iter().sum::<usize>(), 10, "one led each round");
    assert_eq!((barrier.parties().unwrap(), barrier.n_waiting().unwrap()), (3, 0));
    assert!(manager.barrier(0).unwrap_err().is_invalid_input());
}

#[test]
fn a_party_that_gives_up_or_dies_while_it_waits_breaks_the_barrier() {
    let manager = manager();
    let barrier = manager.barrier(2).unwrap();
    assert!(barrier.wait_timeout(SHORT).unwrap_err().is_timeout());
    assert!(barrier.is_broken().unwrap() && barrier.wait().unwrap_err().is_broken());
    barrier.reset().unwrap();
    let party = start(|barrier: Barrier| barrier.wait().is_ok(), (barrier.clone(),));
    wait_until("it waits", || barrier.n_waiting().unwrap() == 1);
    kill(party);
    wait_until("it is broken", || barrier.is_broken().unwrap());
    barrier.reset().unwrap();
    let party =
        start(|barrier: Barrier| barrier.wait().unwrap_err().is_broken(), (barrier.clone(),));
    wait_until("it waits", || barrier.n_waiting().unwrap() == 1);
    barrier.abort().unwrap();
    assert!(finish(party));
}

/// Meets once, then says so and does something else.
fn meet_and_stay(barrier: Barrier, met: Event) {
    barrier.wait().expect("nobody dies");
    met.set().expect("it lives");
    std::thread::sleep(PATIENCE);
}

#[test]
fn a_party_that_dies_between_two_rounds_breaks_the_barrier_and_one_that_ends_does_not() {
    let manager = manager();
    let (barrier, met) = (manager.barrier(2).unwrap(), manager.event().unwrap());
    // A thread, and a process, that end.
    let meet = |barrier: Barrier| barrier.wait().is_ok();
    let other = barrier.clone();
    let thread = std::thread::spawn(move || meet(other));
    assert!(barrier.wait().is_ok() && thread.join().unwrap());
    let process = start(meet, (barrier.clone(),));
    assert!(barrier.wait().is_ok() && finish(process));
    let party = start(meet_and_stay, (barrier.clone(), met.clone()));
    assert!(barrier.wait().is_ok());
    met.wait().unwrap();
    assert!(!barrier.is_broken().unwrap());
    kill(party);
    assert!(in_time(|| barrier.wait()).unwrap_err().is_broken());
    barrier.reset().unwrap();
    assert!(barrier.wait_timeout(SHORT).unwrap_err().is_timeout());
}

#[test]
fn a_pool_in_the_server_works_for_all() {
    let manager = manager();
    let pool = manager.pool(2).unwrap();
    let square = |pool: Pool| pool.map(|x: u64| x * x, 0..5).unwrap();
    assert_eq!(finish(start(square, (pool.clone(),))), [0, 1, 4, 9, 16]);
    assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3)).unwrap(), 5);
    assert_eq!(pool.starmap(|a: u64, b: u64| a * b, [(2, 3), (4, 5)]).unwrap(), [6, 20]);
    assert_eq!(pool.map_with(&10u64, |by, x: u64| by * x, [1, 2]).unwrap(), [10, 20]);
    pool.for_each(|_: u64| (), 0..3).unwrap();
    assert_eq!(pool.worker_pids().unwrap().len(), 2);
    let later = pool.apply_async(|x: u64| x * 2, (21,)).unwrap();
    let get = |result: multiproc::manager::AsyncResult<u64>| result.get().unwrap();
    assert_eq!(finish(start(get, (later.clone(),))), 42);
    assert!(later.get().unwrap_err().is_invalid_input());
    let all = pool.map_async(|x: u64| x + 1, 0..3).unwrap();
    assert!(all.wait_timeout(PATIENCE).unwrap() && all.ready().unwrap());
    assert_eq!(all.get_timeout(PATIENCE).unwrap(), [1, 2, 3]);
    let error = pool.apply(|| -> u32 { panic!("no") }, ()).unwrap_err();
    assert!(error.is_panic(), "{error}");
    pool.close().unwrap();
    pool.join().unwrap();
    assert!(pool.apply(|| 1u32, ()).unwrap_err().is_closed());
    let pool = manager.pool(1).unwrap();
    pool.terminate().unwrap();
}
