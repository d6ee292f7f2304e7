//! Pools and processes inside workers, and where that ends.

mod common;

use common::processes::{descendants, wait_until_gone};
use common::watchdog;
use multiproc::{Pool, Process, StartMethod, current_process, parent_process};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

fn pool(workers: usize, method: StartMethod) -> multiproc::Result<Pool> {
    Pool::builder().workers(workers).start_method(method).build()
}

fn sum_inside(rows: u64, fork_server: bool) -> Result<u64, String> {
    let method = METHODS[usize::from(fork_server)];
    let inner = pool(2, method).map_err(|error| error.to_string())?;
    let squares = inner.map(|x: u64| x * x, 0..rows).map_err(|error| error.to_string())?;
    let parent = parent_process().ok_or("a worker has a parent")?;
    let worker = std::process::id();
    let builder = Process::builder(|| parent_process().map(|parent| parent.pid()), ());
    let mut process = builder.start_method(method).spawn().map_err(|error| error.to_string())?;
    let seen = process.join().map_err(|error| error.to_string())?;
    if seen != Some(worker) || parent.pid() == worker {
        return Err(format!("the parent of a child of {worker} is {seen:?}"));
    }
    Ok(squares.iter().sum())
}

#[test]
fn nested_pools_and_processes_work_with_every_pair_of_methods() {
    watchdog();
    for outer in METHODS {
        for inner in [false, true] {
            let pool = pool(2, outer).expect("a pool");
            let sums = pool.starmap(sum_inside, [(3, inner), (4, inner), (5, inner)]);
            assert_eq!(sums.expect("map"), [Ok(5), Ok(14), Ok(30)], "{outer:?} {inner}");
        }
    }
}

#[test]
fn a_worker_forks_pools_and_closures() {
    watchdog();
    let fork_inside = |base: u64| -> u64 {
        let captured: Box<[u64]> = Box::from([base; 3]);
        let forked = Process::fork(move || captured.iter().sum::<u64>()).spawn();
        let first = forked.expect("fork").join().expect("join");
        let inner = pool(2, StartMethod::Fork).expect("a fork pool");
        first + inner.map(|x: u64| x, 0..4).expect("map").iter().sum::<u64>()
    };
    for method in METHODS {
        assert_eq!(pool(1, method).expect("a pool").apply(fork_inside, (10,)).expect("apply"), 36);
    }
}

/// Each level builds a pool that runs the next.
fn dig(level: u32, fork_server: bool) -> (u32, String) {
    match pool(1, METHODS[usize::from(fork_server)]) {
        Ok(pool) => pool.apply(dig, (level + 1, fork_server)).expect("the level below answers"),
        Err(error) => {
            assert!(error.is_start(), "{error}");
            (level, error.to_string())
        }
    }
}

#[test]
fn recursive_pools_end_at_the_nesting_limit() {
    watchdog();
    for fork_server in [false, true] {
        let (levels, message) = dig(0, fork_server);
        assert!((4..=16).contains(&levels), "{levels} levels");
        assert!(message.contains("nested 16 deep"), "{message}");
    }
}

#[test]
fn recursive_processes_end_at_the_nesting_limit() {
    watchdog();
    fn dig(level: u32) -> (u32, String) {
        match Process::spawn(dig, (level + 1,)) {
            Ok(mut process) => process.join().expect("the level below answers"),
            Err(error) => (level, error.to_string()),
        }
    }
    let (levels, message) = dig(0);
    assert_eq!(levels, 16);
    assert!(message.contains("nested 16 deep"), "{message}");
}

#[test]
fn nested_workers_end_with_the_worker_that_started_them() {
    watchdog();
    let nest_and_stay = || {
        let inner = pool(2, StartMethod::Spawn).expect("a pool");
        std::mem::forget(inner);
        (std::process::id(), current_process().name().to_owned())
    };
    let outer = Pool::builder().workers(1).name("outer").build().expect("a pool");
    let (worker, name) = outer.apply(nest_and_stay, ()).expect("apply");
    assert_eq!(name, "outer-1");
    let inner: Vec<u32> = descendants(worker).iter().map(|entry| entry.pid).collect();
    assert_eq!(inner.len(), 2);
    // Killed, it cannot clean up; its children must see to it themselves.
    common::processes::signal(worker, libc::SIGKILL);
    wait_until_gone(&inner);
}
