//! Functions that run on objects of a manager, and call each other's.

mod common;

use common::sync::{finish, in_time, start};
use common::watchdog;
use multiproc::manager::Proxy;
use multiproc::{Error, Event, Manager};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Counts, and may call another one.
#[derive(Default)]
struct Node {
    calls: u64,
    next: Option<Proxy<Node>>,
}

fn nodes(count: usize) -> (Manager, Vec<Proxy<Node>>) {
    watchdog();
    let manager = Manager::start().expect("a manager");
    let make = |_| manager.create(|()| Node::default(), ()).expect("it lives");
    let nodes: Vec<_> = (0..count).map(make).collect();
    (manager, nodes)
}

/// Has each node know the next one, and the last one the first.
fn tie(nodes: &[Proxy<Node>]) {
    for (at, node) in nodes.iter().enumerate() {
        let next = nodes[(at + 1) % nodes.len()].clone();
        node.with_mut(|node, next| node.next = Some(next), next).expect("it lives");
    }
}

fn touch(node: &mut Node, (): ()) -> u64 {
    node.calls += 1;
    node.calls
}

/// Calls the next node when all others run a function, too.
fn touch_next(node: &mut Node, (begun, go_on): (Event, Event)) -> Result<u64, Error> {
    begun.set();
    go_on.wait();
    node.next.as_ref().expect("it was tied").with_mut(touch, ())
}

/// As `touch_next`, but only looks.
fn look_at_next(node: &Node, (begun, go_on): (Event, Event)) -> Result<u64, Error> {
    begun.set();
    go_on.wait();
    node.next.as_ref().expect("it was tied").with(|node, ()| node.calls, ())
}

/// Starts a client for each node that runs a function on it, and lets them go on together.
fn all_at_once(nodes: &[Proxy<Node>], is_look: bool) -> Vec<Result<u64, Error>> {
    let go_on = Event::new().unwrap();
    let clients: Vec<_> = nodes
        .iter()
        .map(|node| {
            let begun = Event::new().unwrap();
            let (node, events) = (node.clone(), (begun.clone(), go_on.clone()));
            let client = thread::spawn(move || match is_look {
                true => node.with(look_at_next, events),
                false => node.with_mut(touch_next, events),
            });
            begun.wait();
            client
        })
        .collect();
    go_on.set();
    clients.into_iter().map(|client| in_time(|| client.join()).unwrap().unwrap()).collect()
}

#[test]
fn of_functions_that_would_wait_for_each_other_one_is_told_so_and_the_others_go_on() {
    for count in [2, 3, 5] {
        let (_manager, nodes) = nodes(count);
        tie(&nodes);
        for _ in 0..3 {
            let results = all_at_once(&nodes, false);
            let errors: Vec<_> =
                results.iter().filter_map(|result| result.as_ref().err()).collect();
            assert_eq!(errors.len(), 1, "{results:?}");
            assert!(errors[0].is_invalid_input(), "{}", errors[0]);
            assert!(errors[0].to_string().contains("wait for each other"), "{}", errors[0]);
        }
        // They are as good as before, and all calls but the refused ones were made.
        let calls: u64 = nodes.iter().map(|node| node.with_mut(touch, ()).unwrap()).sum();
        assert_eq!(calls, (3 * (count - 1) + count) as u64);
    }
}

#[test]
fn functions_that_only_look_do_not_wait_for_each_other() {
    let (_manager, nodes) = nodes(2);
    tie(&nodes);
    let results = all_at_once(&nodes, true);
    assert!(results.iter().all(|result| matches!(result, Ok(0))), "{results:?}");
}

/// Calls the next node, and so on, so many times; whether the last call was refused.
fn go_round(node: &mut Node, steps: u32) -> bool {
    let next = node.next.as_ref().expect("it was tied");
    match steps {
        0 => next.with_mut(touch, ()).is_err_and(|error| error.is_invalid_input()),
        _ => next.with_mut(go_round, steps - 1).expect("nobody is in the way"),
    }
}

#[test]
fn a_function_that_calls_its_own_object_through_others_is_told_so() {
    let (_manager, nodes) = nodes(3);
    tie(&nodes);
    let call = |node: Proxy<Node>, steps: u32| node.with_mut(go_round, steps).expect("it lives");
    assert!(finish(start(call, (nodes[0].clone(), 2))), "the third one calls the first");
    assert!(!finish(start(call, (nodes[1].clone(), 1))), "the second one calls the third");
    assert_eq!(nodes[0].with_mut(touch, ()).unwrap(), 2);
}

#[test]
fn who_waits_for_an_object_that_is_only_busy_gets_it() {
    let (_manager, nodes) = nodes(2);
    let next = nodes[1].clone();
    nodes[0].with_mut(|node, next| node.next = Some(next), next).unwrap();
    let (busy, free) = (Event::new().unwrap(), Event::new().unwrap());
    let hold = |_: &mut Node, (busy, free): (Event, Event)| {
        busy.set();
        free.wait();
    };
    let (there, events) = (nodes[1].clone(), (busy.clone(), free.clone()));
    let holder = thread::spawn(move || there.with_mut(hold, events));
    busy.wait();
    let (begun, go_on) = (Event::new().unwrap(), Event::new().unwrap());
    go_on.set();
    let (first, events) = (nodes[0].clone(), (begun.clone(), go_on));
    let waiter = thread::spawn(move || first.with_mut(touch_next, events));
    begun.wait();
    // Nor is anybody told so who waits for the one that waits.
    let last = nodes[0].clone();
    let other = thread::spawn(move || last.with_mut(touch, ()));
    free.set();
    holder.join().unwrap().unwrap();
    assert_eq!(in_time(|| waiter.join()).unwrap().unwrap().unwrap(), 1);
    assert_eq!(in_time(|| other.join()).unwrap().unwrap(), 1);
}

/// Is looked at without end: each look lasts until the next one has begun.
#[derive(Default)]
struct Sight {
    looks: Mutex<u64>,
    begun: Condvar,
    changes: u64,
}

fn look_until_the_next(sight: &Sight, (): ()) {
    let mut looks = sight.looks.lock().expect("no panic");
    *looks += 1;
    sight.begun.notify_all();
    let mine = *looks;
    // Or until none can begin any more.
    let patience = Duration::from_millis(200);
    drop(sight.begun.wait_timeout_while(looks, patience, |looks| *looks == mine));
}

fn change_sight(sight: &mut Sight, (): ()) -> u64 {
    sight.changes += 1;
    sight.changes
}

#[test]
fn a_function_that_calls_an_object_that_is_looked_at_all_the_time_comes_to_its_turn() {
    let (manager, nodes) = nodes(1);
    let sight = manager.create(|()| Sight::default(), ()).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let looking: Vec<_> = (0..4)
        .map(|_| {
            let (sight, is_over) = (sight.clone(), is_over.clone());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    sight.with(look_until_the_next, ()).unwrap();
                }
            })
        })
        .collect();
    let change = |_: &mut Node, sight: Proxy<Sight>| sight.with_mut(change_sight, ());
    for times in 1..=3 {
        assert_eq!(nodes[0].with_mut(change, sight.clone()).unwrap().unwrap(), times);
    }
    is_over.store(true, Ordering::Relaxed);
    looking.into_iter().for_each(|looking| in_time(|| looking.join()).unwrap());
}
