//! How long a manager's objects and its server live, whoever dies.

mod common;

use common::processes::{is_alive, wait_until_gone};
use common::sync::{finish, in_time, kill, start, wait_until_asleep};
use common::{PATIENCE, wait_until, watchdog};
use multiproc::manager::{Dict, Event, List, Queue};
use multiproc::{Manager, Process};
use std::time::Duration;

fn manager() -> Manager {
    watchdog();
    Manager::start().expect("a manager")
}

#[track_caller]
fn wait_for_objects(manager: &Manager, count: usize) {
    wait_until(&format!("there are {count} objects"), || manager.objects().unwrap() == count);
}

/// Holds what it was sent until it is killed.
fn hold<T>(held: T, ready: &Event) {
    ready.set().expect("the server lives");
    std::thread::sleep(PATIENCE);
    drop(held);
}

#[test]
fn an_object_goes_with_its_last_proxy() {
    let manager = manager();
    let list = manager.list::<u64>().unwrap();
    let other = list.clone();
    drop(list);
    other.push(1).unwrap();
    assert_eq!(manager.objects().unwrap(), 1);
    drop(other);
    wait_for_objects(&manager, 0);
}

#[test]
fn an_object_goes_when_the_process_with_its_last_proxy_is_killed() {
    let manager = manager();
    let (list, ready) = (manager.list::<u64>().unwrap(), manager.event().unwrap());
    let holder = start(|list: List<u64>, ready: Event| hold(list, &ready), (list, ready.clone()));
    ready.wait().unwrap();
    assert_eq!(manager.objects().unwrap(), 2);
    kill(holder);
    wait_for_objects(&manager, 1);
}

#[test]
fn an_object_stays_while_its_proxy_is_on_its_way() {
    let manager = manager();
    let list = manager.list_of([5u64]).unwrap();
    // In an argument: nobody else has one when the process starts to run.
    let look = |list: List<u64>| list.get(0).expect("it lives");
    assert_eq!(finish(start(look, (list,))), Some(5));
    wait_for_objects(&manager, 0);
    // In a queue, and in a result.
    let queue = manager.queue::<List<u64>>().unwrap();
    queue.put(manager.list_of([6u64]).unwrap()).unwrap();
    assert_eq!(manager.objects().unwrap(), 2);
    let back = finish(start(|queue: Queue<List<u64>>| queue.get().unwrap(), (queue.clone(),)));
    assert_eq!(back.get(0).unwrap(), Some(6));
    drop(back);
    wait_for_objects(&manager, 1);
}

#[test]
fn what_an_object_holds_goes_with_it() {
    let manager = manager();
    let dict = manager.dict::<u32, List<u64>>().unwrap();
    for key in 0..5 {
        dict.insert(key, manager.list().unwrap()).unwrap();
    }
    assert_eq!(manager.objects().unwrap(), 6);
    dict.remove(&0).unwrap();
    wait_for_objects(&manager, 5);
    drop(dict);
    wait_for_objects(&manager, 0);
}

struct Tells(List<String>);

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.push("dropped".to_owned());
    }
}

#[test]
fn the_drop_of_an_object_runs_in_the_server_and_may_panic() {
    let manager = manager();
    let list = manager.list().unwrap();
    let tells = manager.create(Tells, list.clone()).unwrap();
    assert!(list.is_empty().unwrap());
    drop(tells);
    wait_until("it was dropped", || list.len().unwrap() == 1);
    struct Fails;
    impl Drop for Fails {
        fn drop(&mut self) {
            panic!("expected");
        }
    }
    drop(manager.create(|()| Fails, ()).unwrap());
    wait_for_objects(&manager, 1);
    drop(manager.create(Tells, list.clone()).unwrap());
    wait_until("the next one was dropped all the same", || list.len().unwrap() == 2);
}

#[test]
fn a_process_with_a_handle_of_the_manager_makes_objects_that_outlive_it() {
    let manager = manager();
    let make = |manager: Manager| manager.list_of([1u64, 2]).expect("the server lives");
    let list = finish(start(make, (manager.clone(),)));
    assert_eq!(list.snapshot().unwrap(), [1, 2]);
    // The child's handle has gone with it, and the server is still there.
    drop(list);
    wait_for_objects(&manager, 0);
}

#[test]
fn the_server_ends_with_the_last_handle_of_its_creator() {
    let manager = manager();
    let (pid, list) = (manager.pid().unwrap(), manager.list::<u64>().unwrap());
    let other = manager.clone();
    drop(manager);
    list.push(1).unwrap();
    drop(other);
    wait_until_gone(&[pid]);
    let error = list.push(1).unwrap_err();
    assert!(error.is_disconnected(), "{error}");
    let elsewhere = start(|list: List<u64>| list.len().unwrap_err().is_disconnected(), (list,));
    assert!(finish(elsewhere));
}

#[test]
fn anybody_can_shut_a_server_down_and_who_waits_in_it_is_told() {
    let manager = manager();
    let (pid, queue) = (manager.pid().unwrap(), manager.queue::<u64>().unwrap());
    // In shared memory: the server would have to live until it has answered who sets it.
    let ready = multiproc::Event::new().unwrap();
    let wait = |queue: Queue<u64>, ready: multiproc::Event| {
        ready.set();
        queue.get().unwrap_err().is_disconnected()
    };
    let waiter = start(wait, (queue.clone(), ready.clone()));
    assert!(ready.wait_timeout(PATIENCE));
    wait_until_asleep(&waiter);
    finish(start(|manager: Manager| manager.shutdown(), (manager.clone(),)));
    assert!(finish(waiter));
    wait_until_gone(&[pid]);
    assert!(queue.get().unwrap_err().is_disconnected());
    assert!(manager.list::<u8>().unwrap_err().is_disconnected() && !manager.is_alive());
}

#[test]
fn the_death_of_the_server_ends_every_call() {
    let manager = manager();
    let (pid, lock, queue) =
        (manager.pid().unwrap(), manager.lock().unwrap(), manager.queue::<u64>().unwrap());
    let _guard = lock.lock().unwrap();
    let ends = std::thread::scope(|scope| {
        let calls = [
            scope.spawn(|| lock.lock().map(drop).unwrap_err()),
            scope.spawn(|| queue.get().map(drop).unwrap_err()),
            scope.spawn(|| {
                loop {
                    if let Err(error) = queue.len() {
                        break error;
                    }
                }
            }),
        ];
        common::processes::signal(pid, libc::SIGKILL);
        calls.map(|call| call.join().expect("no panic"))
    });
    for error in ends {
        assert!(error.is_disconnected(), "{error}");
    }
    in_time(|| drop(manager));
}

#[test]
fn the_server_dies_with_the_process_that_started_it() {
    watchdog();
    let lead = |list: multiproc::Value<u32>| {
        let manager = Manager::start().expect("a manager");
        *list.lock().expect("nobody dies") = manager.pid().expect("it lives");
        std::thread::sleep(PATIENCE);
    };
    let pid = multiproc::Value::new(0u32).unwrap();
    let leader = start(lead, (pid.clone(),));
    wait_until("there is a server", || *pid.lock().unwrap() != 0);
    let server = *pid.lock().unwrap();
    assert!(is_alive(server));
    kill(leader);
    wait_until_gone(&[server]);
}

#[test]
fn a_detached_server_outlives_its_creator_and_ends_with_the_last_proxy() {
    watchdog();
    let make = || {
        let manager = Manager::builder().detached().name("keeper").start().expect("a manager");
        let list = manager.list_of([7u64]).expect("it lives");
        (manager.pid().expect("it lives"), list)
    };
    let (pid, list) = finish(start(make, ()));
    assert_eq!(list.get(0).unwrap(), Some(7));
    let other = start(|list: List<u64>| list.push(8).is_ok(), (list.clone(),));
    assert!(finish(other) && is_alive(pid));
    assert_eq!(list.len().unwrap(), 2);
    drop(list);
    wait_until_gone(&[pid]);
}

#[test]
fn a_detached_server_is_shut_down_by_hand() {
    watchdog();
    let manager = Manager::builder().detached().start().unwrap();
    let (pid, list) = (manager.pid().unwrap(), manager.list::<u64>().unwrap());
    drop(manager.clone());
    list.push(1).unwrap();
    manager.shutdown();
    wait_until_gone(&[pid]);
    assert!(list.push(1).unwrap_err().is_disconnected());
}

#[test]
fn a_proxy_in_the_server_itself_keeps_no_detached_server_alive() {
    watchdog();
    let manager = Manager::builder().detached().start().unwrap();
    let pid = manager.pid().unwrap();
    let dict = manager.dict::<u32, List<u64>>().unwrap();
    dict.insert(1, manager.list().unwrap()).unwrap();
    drop((dict, manager));
    wait_until_gone(&[pid]);
}

/// In a process with one thread: forks in the middle of its calls; whether the lock stayed locked.
fn fork_and_push(list: List<u32>, lock: multiproc::manager::Lock) -> bool {
    let guard = lock.lock().expect("nobody dies");
    let forked = list.clone();
    let child = Process::fork(move || {
        for number in 0..50 {
            forked.push(number).expect("it lives");
        }
    });
    let mut child = child.spawn().expect("a fork");
    for number in 50..100 {
        list.push(number).expect("it lives");
    }
    child.join().expect("the child returns");
    let is_locked = lock.is_locked().expect("it lives");
    drop(guard);
    is_locked
}

#[test]
fn a_forked_child_has_a_channel_of_its_own() {
    let manager = manager();
    let (list, lock) = (manager.list::<u32>().unwrap(), manager.lock().unwrap());
    let was_locked = finish(start(fork_and_push, (list.clone(), lock.clone())));
    assert!(was_locked, "the lock is the parent's, whatever the child does");
    let mut all = list.snapshot().unwrap();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_function_in_the_server_hands_proxies_to_processes_of_its_own() {
    let manager = manager();
    let lists = manager.list_of([manager.list_of([1u64, 2]).unwrap()]).unwrap();
    let ask = |lists: &mut Vec<List<u64>>, ()| {
        // A child of the server, which has never heard of the manager.
        let push = |list: List<u64>| {
            list.push(3).expect("it lives");
            list.len().expect("it lives")
        };
        let mut child = Process::spawn(push, (lists[0].clone(),)).expect("a process");
        child.join().expect("it returns")
    };
    assert_eq!(lists.with_mut(ask, ()).unwrap(), 3);
    assert_eq!(lists.get(0).unwrap().unwrap().snapshot().unwrap(), [1, 2, 3]);
}

#[test]
fn threads_that_end_leave_no_descriptor_behind() {
    let manager = manager();
    let list = manager.list::<u64>().unwrap();
    let pid = manager.pid().unwrap();
    let open = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fds").count();
    let use_it = || {
        let list = list.clone();
        std::thread::spawn(move || list.push(1).expect("it lives")).join().expect("join");
    };
    use_it();
    let fewest = |pid: u32| (0..20).map(|_| open(pid)).min().unwrap_or(0);
    let before = fewest(pid);
    (0..100).for_each(|_| use_it());
    wait_until("the server has closed them", || fewest(pid) <= before + 2);
    assert_eq!(list.len().unwrap(), 101);
}

#[test]
fn interrupts_are_the_business_of_the_creator() {
    let manager = manager();
    let list = manager.list::<u64>().unwrap();
    common::processes::signal(manager.pid().unwrap(), libc::SIGINT);
    list.push(1).unwrap();
    assert_eq!(list.len().unwrap(), 1);
}

/// How much each of fifty clients does.
const STEPS: u64 = 150;

/// Pushes until it is killed or has done enough; its numbers are its own.
fn write(list: List<u64>, dict: Dict<u64, u64>, lock: multiproc::manager::Lock, who: u64) -> u64 {
    for step in 0..STEPS {
        list.push(who << 32 | step).expect("the server lives");
        dict.modify_or_insert(&who, 0, |count, ()| *count += 1, ()).expect("the server lives");
        // Others may have died with it.
        match lock.lock_timeout(Duration::from_secs(60)) {
            Ok(guard) => drop(guard.expect("in time")),
            Err(error) => assert!(error.is_owner_died(), "{error}"),
        }
    }
    who
}

#[test]
fn fifty_clients_of_which_ten_are_killed_leave_the_others_what_they_wrote() {
    let manager = manager();
    let (list, dict) = (manager.list().unwrap(), manager.dict().unwrap());
    let lock = manager.lock().unwrap();
    let mut alive: Vec<(u64, Process<u64>)> = (0..50)
        .map(|who| (who, start(write, (list.clone(), dict.clone(), lock.clone(), who))))
        .collect();
    let mut roll = 0x1234_5678_9abc_def1u64;
    for _ in 0..10 {
        roll ^= roll << 13;
        roll ^= roll >> 7;
        roll ^= roll << 17;
        let (_, mut victim) = alive.swap_remove(roll as usize % alive.len());
        let _ = victim.kill();
        let _ = victim.join_timeout(PATIENCE);
    }
    let finished: Vec<u64> = alive.into_iter().map(|(_, process)| finish(process)).collect();
    let (items, counts) = (list.snapshot().unwrap(), dict.snapshot().unwrap());
    for who in finished {
        let own: Vec<u64> = items.iter().filter(|item| *item >> 32 == who).copied().collect();
        assert_eq!(own, (0..STEPS).map(|step| who << 32 | step).collect::<Vec<_>>());
        assert_eq!(counts[&who], STEPS);
    }
    let _ = lock.lock();
    assert!(lock.try_lock().is_ok());
    drop((list, dict, lock));
    wait_for_objects(&manager, 0);
}
