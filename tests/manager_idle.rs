//! Clients of a manager that are silent for a while.

mod common;

use common::processes::{signal, wait_until_gone};
use common::sync::{finish, in_time, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::connection::Address;
use multiproc::manager::{Barrier, List, Lock};
use multiproc::{Event, Manager};
use std::fs;
use std::sync::mpsc;
use std::thread;

/// A manager, and the process id of its server.
fn manager() -> (Manager, u32) {
    watchdog();
    let manager = Manager::start().expect("a manager");
    let pid = manager.pid().expect("it lives");
    (manager, pid)
}

/// How many threads the server has for its clients.
fn serving(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the server lives");
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("multiproc-serve")).count()
}

/// Waits until all clients are silent, and the server has no thread for any of them.
#[track_caller]
fn wait_until_silent(pid: u32) {
    wait_until("no client has a thread", || serving(pid) == 0);
}

#[test]
fn clients_that_are_silent_cost_the_server_no_thread_and_are_served_when_they_call() {
    let (manager, pid) = manager();
    let list = manager.list::<u32>().unwrap();
    let clients: Vec<_> = (0..40u32)
        .map(|number| {
            let (list, manager) = (list.clone(), manager.clone());
            let (go_on, wait) = mpsc::channel::<()>();
            let work = move || {
                list.push(number).unwrap();
                let mut served = 0;
                while wait.recv().is_ok() {
                    // One that brings descriptors with it, and one that fetches some.
                    let lists = manager.list::<List<u32>>().unwrap();
                    lists.push(list.clone()).unwrap();
                    lists.get(0).unwrap().unwrap().push(number).unwrap();
                    served += 1;
                }
                served
            };
            (thread::spawn(work), go_on)
        })
        .collect();
    for round in 1..=2 {
        wait_until("all have called", || list.len().unwrap() == round * 40);
        wait_until_silent(pid);
        clients.iter().for_each(|(_, go_on)| go_on.send(()).unwrap());
    }
    for (client, go_on) in clients {
        drop(go_on);
        assert_eq!(in_time(|| client.join()).unwrap(), 2);
    }
    assert_eq!(list.len().unwrap(), 120);
    wait_until("their objects have gone", || manager.objects().unwrap() == 1);
}

/// Takes a lock, says so, and is silent for ever.
fn lock_and_wait(lock: Lock, ready: Event) {
    let _guard = lock.lock().expect("nobody died");
    ready.set();
    thread::sleep(PATIENCE * 10);
}

#[test]
fn what_a_silent_client_has_is_taken_from_it_when_it_dies() {
    let (manager, pid) = manager();
    let lock = manager.lock().unwrap();
    let ready = Event::new().unwrap();
    let client = start(lock_and_wait, (lock.clone(), ready.clone()));
    ready.wait();
    wait_until_silent(pid);
    assert!(lock.is_locked().unwrap() && lock.try_lock().unwrap().is_none());
    wait_until_silent(pid);
    kill(client);
    assert!(in_time(|| lock.lock()).is_err(), "the one who had it died");
    assert!(in_time(|| lock.lock()).is_ok());
}

#[test]
fn a_silent_client_that_leaves_is_not_taken_for_a_dead_one() {
    let (manager, pid) = manager();
    let barrier = manager.barrier(2).unwrap();
    let pass = |barrier: &Barrier| barrier.wait().map(|_| ());
    let (go_on, wait) = mpsc::channel::<()>();
    let there = barrier.clone();
    let client = thread::spawn(move || {
        pass(&there).unwrap();
        wait.recv().unwrap_err();
    });
    pass(&barrier).unwrap();
    wait_until_silent(pid);
    drop(go_on);
    client.join().unwrap();
    wait_until_silent(pid);
    assert!(!barrier.is_broken().unwrap());
}

#[test]
fn a_silent_client_is_told_that_the_server_has_ended() {
    for is_killed in [false, true] {
        let (manager, pid) = manager();
        let list = manager.list::<u32>().unwrap();
        wait_until_silent(pid);
        match is_killed {
            true => signal(pid, libc::SIGKILL),
            false => manager.shutdown(),
        }
        let error = in_time(|| list.push(1)).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        wait_until_gone(&[pid]);
    }
}

#[test]
fn what_a_function_in_the_server_has_is_kept_while_its_client_is_silent() {
    let (manager, pid) = manager();
    let lock = manager.lock().unwrap();
    // It is locked by the server's thread for this one, which is a client of its own.
    let take = |lock: &mut Lock, ()| lock.lock().map(std::mem::forget).is_ok();
    let holder = manager.create(|lock: Lock| lock, lock.clone()).unwrap();
    assert!(holder.with_mut(take, ()).unwrap());
    for _ in 0..2 {
        wait_until_silent(pid);
        assert!(lock.try_lock().unwrap().is_none(), "it is locked");
    }
}

#[test]
fn a_silent_remote_client_costs_no_thread_but_one_for_its_process() {
    watchdog();
    const KEY: &str = "a key for a test";
    let manager = Manager::bind(Address::unique().unwrap(), KEY).unwrap();
    let pid = manager.pid().unwrap();
    let lock = manager.lock().unwrap();
    manager.publish("lock", &lock).unwrap();
    let address = manager.address().unwrap().clone();
    let ready = Event::new().unwrap();
    let call = |address: Address, ready: Event, is_to_die: bool| {
        let manager = Manager::connect(address, KEY).expect("a connection");
        let lock: Lock = manager.find("lock").expect("a call").expect("it is published");
        if is_to_die {
            return lock_and_wait(lock, ready);
        }
        for _ in 0..2 {
            let _guard = lock.lock().expect("nobody died");
            ready.wait();
        }
    };
    let client = start(call, (address.clone(), ready.clone(), false));
    wait_until("it has the lock", || lock.is_locked().unwrap());
    wait_until("one for its base", || serving(pid) == 1);
    ready.set();
    finish(client);
    ready.clear();
    let client = start(call, (address, ready.clone(), true));
    ready.wait();
    wait_until("one for its base", || serving(pid) == 1);
    kill(client);
    assert!(in_time(|| lock.lock()).is_err(), "the one who had it died");
    wait_until("it has gone", || serving(pid) == 0);
}
