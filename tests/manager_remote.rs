//! A manager that is bound to an address, and clients that connect to it.

mod common;

use common::sync::{finish, kill, start};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::connection::{Address, Client, Connection};
use multiproc::manager::{Dict, List};
use multiproc::{Manager, Process};

const KEY: &str = "correct horse battery staple";

fn loopback() -> Address {
    Address::tcp("127.0.0.1:0").expect("an address")
}

fn bound(address: Address) -> (Manager, Address) {
    watchdog();
    let manager = Manager::bind(address, KEY).expect("a manager");
    let address = manager.address().expect("it is bound").clone();
    (manager, address)
}

#[track_caller]
fn wait_for_objects(manager: &Manager, count: usize) {
    wait_until(&format!("there are {count} objects"), || manager.objects().unwrap() == count);
}

fn connect(address: Address) -> Manager {
    Manager::connect(address, KEY).expect("a connection")
}

#[test]
fn a_client_makes_objects_over_every_kind_of_socket() {
    for address in [loopback(), Address::unique().unwrap()] {
        let (manager, address) = bound(address);
        let use_it = |address: Address| {
            let manager = connect(address);
            let list = manager.list::<String>().unwrap();
            list.push("one".to_owned()).unwrap();
            let dict = manager.dict::<u64, List<String>>().unwrap();
            dict.insert(1, list.clone()).unwrap();
            dict.get(&1).unwrap().unwrap().push("two".to_owned()).unwrap();
            let lock = manager.lock().unwrap();
            let guard = lock.lock().unwrap();
            assert!(lock.is_locked().unwrap() && manager.objects().unwrap() == 3);
            drop(guard);
            list.snapshot().unwrap()
        };
        assert_eq!(finish(start(use_it, (address,))), ["one", "two"]);
        wait_for_objects(&manager, 0);
    }
}

#[test]
fn what_remote_and_local_clients_put_is_in_the_same_objects() {
    let (manager, address) = bound(loopback());
    let dict = manager.dict::<String, u64>().unwrap();
    manager.publish("counts", &dict).unwrap();
    let count = |address: Address| {
        let there = connect(address);
        assert!(there.is_alive() && there.find::<Dict<String, u64>>("other").unwrap().is_none());
        assert!(there.find::<List<u64>>("counts").unwrap_err().is_invalid_input());
        let dict: Dict<String, u64> = there.find("counts").unwrap().expect("it is published");
        for _ in 0..100 {
            dict.modify_or_insert("n", 0, |count, ()| *count += 1, ()).unwrap();
        }
    };
    let other = start(count, (address,));
    for _ in 0..100 {
        dict.modify_or_insert("n", 0, |count, ()| *count += 1, ()).unwrap();
    }
    finish(other);
    assert_eq!(dict.get("n").unwrap(), Some(200));
    drop(dict);
    assert_eq!(manager.objects().unwrap(), 1, "its name keeps it");
    assert!(manager.unpublish("counts").unwrap() && !manager.unpublish("counts").unwrap());
    wait_for_objects(&manager, 0);
}

#[test]
fn a_wrong_key_and_another_build_are_refused() {
    let (_manager, address) = bound(loopback());
    let error = finish(start(
        |address: Address| Manager::connect(address, "wrong key").unwrap_err(),
        (address.clone(),),
    ));
    assert!(error.is_authentication(), "{error}");
    let other = "manager of multiproc 0.0.1, build 00";
    let builder = Client::builder().key(KEY).service(other);
    let error = builder.connect::<(), ()>(address).map(|_: Connection<(), ()>| ()).unwrap_err();
    assert!(error.is_authentication() && error.to_string().contains("build"), "{error}");
}

#[test]
fn an_address_that_others_can_reach_must_be_allowed() {
    watchdog();
    let error = Manager::bind(Address::tcp("0.0.0.0:0").unwrap(), KEY).unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("allow_remote"), "{error}");
    let open = Manager::builder().allow_remote(true).bind(Address::tcp("0.0.0.0:0").unwrap(), KEY);
    assert!(open.is_ok());
}

/// Holds an object of a remote manager, says so, and waits to be killed.
fn hold(address: Address, ready: multiproc::Event) {
    let manager = connect(address);
    let list = manager.list_of([1u64]).unwrap();
    let lists = manager.list_of([list]).unwrap();
    let lock = manager.lock().unwrap();
    let _guard = lock.lock().unwrap();
    ready.set();
    std::thread::sleep(PATIENCE);
    drop(lists);
}

#[test]
fn objects_of_a_remote_client_that_is_killed_go() {
    let (manager, address) = bound(loopback());
    let ready = multiproc::Event::new().unwrap();
    let client = start(hold, (address, ready.clone()));
    ready.wait();
    assert_eq!(manager.objects().unwrap(), 3);
    kill(client);
    wait_for_objects(&manager, 0);
}

#[test]
fn a_remote_client_gives_back_what_it_drops_one_by_one() {
    let (_manager, address) = bound(loopback());
    let use_it = |address: Address| {
        let manager = connect(address);
        let (a, b) = (manager.list_of([1u64]).unwrap(), manager.list::<List<u64>>().unwrap());
        for _ in 0..5 {
            b.push(a.clone()).unwrap();
        }
        drop(b.snapshot().unwrap());
        drop(a);
        assert_eq!(b.get(3).unwrap().unwrap().get(0).unwrap(), Some(1), "the list has it");
        let kept = b.get(0).unwrap().unwrap();
        b.clear().unwrap();
        kept.push(2).unwrap();
        assert_eq!(kept.snapshot().unwrap(), [1, 2], "this process has it");
        drop(kept);
        wait_for_objects(&manager, 1);
        b.len().unwrap()
    };
    assert_eq!(finish(start(use_it, (address,))), 0);
}

#[test]
fn a_remote_proxy_travels_on_to_other_processes() {
    let (manager, address) = bound(loopback());
    let lead = |address: Address| {
        let manager = connect(address);
        let list = manager.list_of([1u64]).unwrap();
        let push = |list: List<u64>| list.push(2).is_ok();
        let mut child = Process::spawn(push, (list.clone(),)).unwrap();
        assert!(child.join().unwrap());
        let through = |manager: Manager| manager.value(5u64).unwrap().get().unwrap();
        let mut child = Process::spawn(through, (manager.clone(),)).unwrap();
        assert_eq!(child.join().unwrap(), 5);
        list.snapshot().unwrap()
    };
    assert_eq!(finish(start(lead, (address,))), [1, 2]);
    wait_for_objects(&manager, 0);
}

#[test]
fn a_fork_of_a_remote_client_is_a_client_of_its_own() {
    let (manager, address) = bound(loopback());
    let lead = |address: Address| {
        let manager = connect(address);
        let list = manager.list::<u32>().unwrap();
        list.push(0).unwrap();
        let copy = list.clone();
        let mut child = Process::fork(move || copy.push(1).is_ok()).spawn().unwrap();
        assert!(child.join().unwrap());
        list.push(2).unwrap();
        list.snapshot().unwrap()
    };
    assert_eq!(finish(start(lead, (address,))), [0, 1, 2]);
    wait_for_objects(&manager, 0);
}

#[test]
fn shared_memory_does_not_travel_over_a_connection() {
    let (_manager, address) = bound(loopback());
    let use_it = |address: Address| {
        let manager = connect(address);
        let locks = manager.list::<multiproc::Lock>().unwrap();
        let error = locks.push(multiproc::Lock::new().unwrap()).unwrap_err();
        assert!(error.is_encode(), "{error}");
        // Nor does one that a function in the server makes.
        let make = |_: &mut Vec<multiproc::Lock>, ()| multiproc::Lock::new().unwrap();
        let error = locks.with_mut(make, ()).map(drop).unwrap_err();
        assert!(error.is_encode(), "{error}");
        locks.len().unwrap()
    };
    assert_eq!(finish(start(use_it, (address,))), 0);
}

#[test]
fn a_remote_client_shuts_the_server_down_and_is_told_of_its_end() {
    let (manager, address) = bound(loopback());
    let pid = manager.pid().unwrap();
    let use_it = |address: Address| {
        let manager = connect(address);
        let list = manager.list::<u8>().unwrap();
        manager.shutdown();
        let error = list.push(1).unwrap_err();
        (!manager.is_alive(), error)
    };
    let (is_down, error) = finish(start(use_it, (address,)));
    assert!(is_down && error.is_disconnected(), "{error}");
    common::processes::wait_until_gone(&[pid]);
}

#[test]
fn the_death_of_the_server_ends_the_calls_of_remote_clients() {
    let (manager, address) = bound(loopback());
    let ready = multiproc::Event::new().unwrap();
    let wait = |address: Address, ready: multiproc::Event| {
        let queue = connect(address).queue::<u8>().unwrap();
        queue.put(1).unwrap();
        ready.set();
        queue.get().and_then(|_| queue.get()).unwrap_err()
    };
    let client = start(wait, (address, ready.clone()));
    ready.wait();
    common::processes::signal(manager.pid().unwrap(), libc::SIGKILL);
    let error = finish(client);
    assert!(error.is_disconnected(), "{error}");
}
