//! What goes wrong in the middle of something: calls that cannot be sent, functions that call back,
//! drops that do not return, servers that die while somebody comes.

mod common;

use common::processes::{signal, wait_until_gone};
use common::sync::{finish, in_time, kill, start};
use common::temp::TempDir;
use common::{PATIENCE, wait_until, watchdog};
use multiproc::connection::Address;
use multiproc::manager::{List, Lock, Pool, Proxy};
use multiproc::{Data, Manager, Process};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const KEY: &str = "a key for a test";

fn bound(address: impl Into<Address>) -> (Manager, Address) {
    watchdog();
    let manager = Manager::bind(address, KEY).expect("a manager");
    let address = manager.address().expect("it is bound").clone();
    (manager, address)
}

fn manager() -> Manager {
    watchdog();
    Manager::start().expect("a manager")
}

/// A remote client's thread has a lock, and makes a call that cannot be sent.
fn call_in_vain(address: Address, has_failed: multiproc::Event, go_on: multiproc::Event) -> bool {
    let manager = Manager::connect(address, KEY).expect("a connection");
    let lock: Lock = manager.find("lock").expect("a call").expect("it is published");
    let guard = lock.lock().expect("nobody dies");
    let locks = manager.list::<multiproc::Lock>().expect("a list");
    let error = locks.push(multiproc::Lock::new().expect("a lock")).expect_err("it cannot travel");
    assert!(error.is_encode(), "{error}");
    has_failed.set();
    go_on.wait();
    drop(guard);
    lock.try_lock().expect("nobody died").is_some()
}

#[test]
fn a_call_that_cannot_be_sent_leaves_its_thread_the_lock_that_it_has() {
    let (manager, address) = bound(Address::unique().unwrap());
    let lock = manager.lock().unwrap();
    manager.publish("lock", &lock).unwrap();
    let has_failed = multiproc::Event::new().unwrap();
    let go_on = multiproc::Event::new().unwrap();
    let client = start(call_in_vain, (address, has_failed.clone(), go_on.clone()));
    has_failed.wait();
    assert!(lock.lock_timeout(Duration::from_millis(300)).unwrap().is_none());
    go_on.set();
    assert!(finish(client));
}

#[test]
fn a_function_that_calls_its_own_object_is_told_so_and_others_may_be_called() {
    let manager = manager();
    let (lists, other) = (manager.list::<List<u64>>().unwrap(), manager.list_of([5u64]).unwrap());
    lists.push(other).unwrap();
    let me: List<List<u64>> = lists.clone();
    let own = |lists: &mut Vec<List<u64>>, me: List<List<u64>>| {
        let wrote = me.push(lists[0].clone()).unwrap_err();
        let read = me.len().unwrap_err();
        let made = me.with(|_, ()| (), ()).unwrap_err();
        assert!(wrote.is_invalid_input() && read.is_invalid_input() && made.is_invalid_input());
        lists[0].push(6).unwrap();
        lists[0].len().unwrap()
    };
    assert_eq!(in_time(|| lists.with_mut(own, me.clone())).unwrap(), 2);
    let own = |_: &Vec<List<u64>>, me: List<List<u64>>| me.len().unwrap_err().is_invalid_input();
    assert!(in_time(|| lists.with(own, me)).unwrap());
    // It was an error of those calls only.
    assert_eq!(lists.get(0).unwrap().unwrap().snapshot().unwrap(), [5, 6]);
    assert_eq!(lists.len().unwrap(), 1);
}

#[test]
fn a_result_that_somebody_waits_for_can_be_looked_at_and_cancelled() {
    let manager = manager();
    let pool = manager.pool(1).unwrap();
    let (begun, go_on) = (multiproc::Event::new().unwrap(), multiproc::Event::new().unwrap());
    let block = |begun: multiproc::Event, go_on: multiproc::Event| {
        begun.set();
        go_on.wait();
    };
    let first = pool.apply_async(block, (begun.clone(), go_on.clone())).unwrap();
    begun.wait();
    // It has not begun as long as the first one runs.
    let second = pool.apply_async(|| 7u32, ()).unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let second = second.clone();
            std::thread::spawn(move || second.wait_timeout(PATIENCE))
        })
        .collect();
    for _ in 0..50 {
        assert!(!in_time(|| second.ready()).unwrap());
    }
    assert!(in_time(|| second.cancel()).unwrap());
    for waiter in waiters {
        assert!(waiter.join().unwrap().unwrap());
    }
    assert!(second.get().unwrap_err().is_cancelled());
    go_on.set();
    first.get().unwrap();
}

#[test]
fn the_path_of_a_bound_manager_goes_with_it() {
    let scratch = TempDir::new();
    let path = scratch.join("manager.sock");
    let (manager, address) = bound(path.as_path());
    assert!(path.exists());
    let remote = start(
        |address: Address| Manager::connect(address, KEY).unwrap().list::<u8>().is_ok(),
        (address,),
    );
    assert!(finish(remote));
    manager.shutdown();
    assert!(!path.exists(), "it was left behind");
}

struct Stuck;

impl Drop for Stuck {
    fn drop(&mut self) {
        std::thread::sleep(PATIENCE * 10);
    }
}

#[test]
fn a_drop_that_does_not_return_does_not_keep_a_detached_server() {
    watchdog();
    let make = || {
        let manager = Manager::builder().detached().start().expect("a manager");
        let stuck: Proxy<Stuck> = manager.create(|()| Stuck, ()).expect("it lives");
        (manager.pid().expect("it lives"), manager, stuck)
    };
    let (pid, manager, stuck) = finish(start(make, ()));
    // Nobody here could kill it: its creator is gone.
    manager.shutdown();
    wait_until_gone(&[pid]);
    drop(stuck);
}

/// Its clone asks the manager that it is published in.
#[derive(Serialize, Deserialize)]
struct Curious(Manager);

impl Clone for Curious {
    fn clone(&self) -> Self {
        assert!(self.0.find::<List<u8>>("nothing").expect("a call").is_none());
        Self(self.0.clone())
    }
}

#[test]
fn what_is_published_is_cloned_when_the_names_are_free() {
    let manager = manager();
    manager.publish("curious", &Curious(manager.clone())).unwrap();
    assert!(in_time(|| manager.find::<Curious>("curious")).unwrap().is_some());
}

/// Sends a thing through a queue, keeps it there for a while, and takes it out again.
fn through_a_queue<T: Data>(thing: T, manager: &Manager, objects: usize) -> T {
    let queue = multiproc::Queue::<T>::new().unwrap();
    queue.put(thing).unwrap();
    assert_eq!(manager.objects().unwrap(), objects, "it is on its way");
    queue.get().unwrap()
}

#[test]
fn an_object_goes_though_workers_that_had_its_proxy_live_on() {
    let manager = manager();
    let pool = multiproc::Pool::builder().workers(2).build().unwrap();
    let push = |list: List<u64>, item: u64| list.push(item).is_ok();
    for round in 0..5 {
        let list = manager.list::<u64>().unwrap();
        let list = through_a_queue(list, &manager, 1);
        let sent = (0..4).map(|item| (list.clone(), item));
        assert_eq!(pool.starmap(push, sent).unwrap(), [true; 4], "{round}");
        assert_eq!(list.len().unwrap(), 4);
        // And one that a worker has made.
        let made =
            pool.apply(|manager: Manager| manager.list::<u64>().unwrap(), (manager.clone(),));
        made.unwrap().push(1).unwrap();
        drop(list);
        wait_until("it has gone", || manager.objects().unwrap() == 0);
    }
    // Nor does an item that nobody takes keep one.
    let queue = multiproc::Queue::<List<u64>>::new().unwrap();
    queue.put(manager.list::<u64>().unwrap()).unwrap();
    assert_eq!(manager.objects().unwrap(), 1);
    drop(queue);
    wait_until("it has gone", || manager.objects().unwrap() == 0);
}

#[test]
fn a_handle_of_a_remote_manager_that_has_ended_says_so_where_it_never_connected() {
    let (manager, address) = bound(Address::tcp("127.0.0.1:0").unwrap());
    let lead = |address: Address, has_list: multiproc::Event, is_over: multiproc::Event| {
        let manager = Manager::connect(address, KEY).expect("a connection");
        let list = manager.list::<u8>().expect("a list");
        has_list.set();
        is_over.wait();
        let call = |list: List<u8>| list.len().unwrap_err();
        let mut child = Process::spawn(call, (list.clone(),)).expect("a process");
        (child.join().expect("it returns"), list.len().unwrap_err())
    };
    let [has_list, is_over] = [(); 2].map(|()| multiproc::Event::new().unwrap());
    let client = start(lead, (address, has_list.clone(), is_over.clone()));
    has_list.wait();
    manager.shutdown();
    is_over.set();
    let (there, here) = finish(client);
    assert!(there.is_disconnected(), "{there}");
    assert!(here.is_disconnected(), "{here}");
}

#[test]
fn the_death_of_the_server_at_any_moment_ends_who_comes_and_who_calls() {
    watchdog();
    for round in 0..15u64 {
        let manager = Manager::start().expect("a manager");
        let (list, pid) = (manager.list_of([0u64; 20_000]).unwrap(), manager.pid().unwrap());
        let callers: Vec<_> = (0..6)
            .map(|who| {
                let (manager, list) = (manager.clone(), list.clone());
                std::thread::spawn(move || {
                    loop {
                        let (manager, list) = (manager.clone(), list.clone());
                        // A thread, and so a channel, for each call.
                        let call = std::thread::spawn(move || match who % 3 {
                            0 => list.snapshot().map(drop),
                            1 => manager.list_of([list]).map(drop),
                            _ => manager.lock()?.lock().map(drop),
                        });
                        if let Err(error) = call.join().expect("no panic") {
                            return error;
                        }
                    }
                })
            })
            .collect();
        wait_until("they call", || manager.objects().is_ok_and(|count| count > 1));
        std::thread::sleep(Duration::from_micros(round * 700));
        signal(pid, libc::SIGKILL);
        for caller in callers {
            let error = caller.join().expect("no panic");
            assert!(error.is_disconnected(), "{error}");
        }
    }
}

#[test]
fn a_pool_is_of_use_to_a_client_after_another_was_killed_in_the_middle() {
    let manager = manager();
    let pool = manager.pool(1).unwrap();
    let begun = multiproc::Event::new().unwrap();
    let wait = |pool: Pool, begun: multiproc::Event| {
        let work = |begun: multiproc::Event| {
            begun.set();
            std::thread::sleep(Duration::from_millis(50));
        };
        let _ = pool.apply(work, (begun,));
    };
    let client = start(wait, (pool.clone(), begun.clone()));
    begun.wait();
    kill(client);
    assert_eq!(in_time(|| pool.apply(|| 3u32, ())).unwrap(), 3);
}

/// Lets a process have this many open files, and no more.
fn limit_files(pid: u32, count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: count };
    let pid = i32::try_from(pid).expect("a pid");
    // SAFETY: the limit is read during the call; nothing is written to a null pointer.
    let set =
        unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "the server is our own child");
}

#[test]
fn a_server_without_descriptors_says_so_and_goes_on_later() {
    let manager = manager();
    let list = manager.list_of([1u64]).unwrap();
    limit_files(manager.pid().unwrap(), 64);
    let mut many = Vec::new();
    let error = loop {
        match manager.list::<u64>() {
            Ok(list) => many.push(list),
            Err(error) => break error,
        }
        assert!(many.len() < 64);
    };
    assert!(error.is_os(), "{error}");
    // Who has a channel goes on, and who wants one is told.
    list.push(2).unwrap();
    let other = list.clone();
    let refused = std::thread::spawn(move || other.push(3).unwrap_err()).join().unwrap();
    assert!(refused.is_os() && refused.to_string().contains("room"), "{refused}");
    drop(many);
    wait_until("they have gone", || manager.objects().unwrap() == 1);
    let other = list.clone();
    std::thread::spawn(move || other.push(3).unwrap()).join().unwrap();
    assert_eq!(list.snapshot().unwrap(), [1, 2, 3]);
}
