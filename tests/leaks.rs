//! Nothing is left behind: descriptors, shared memory files and child processes are counted
//! before and after all kinds of work.

#[path = "common/events.rs"]
mod common;

use common::{WATCH, append, descendants, wait_until};
use multiproc::{Pool, StartMethod};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;

fn main() {
    // A watchdog without a thread: `Fork` needs a process that has only one.
    // SAFETY: alarm has no preconditions; its signal ends this process.
    unsafe { libc::alarm(WATCH.as_secs() as libc::c_uint) };
    run("nothing_is_left_after_forked_pools", forked_pools);
    warm_up();
    run("children_inherit_no_descriptors", children_inherit_no_descriptors);
    run("nothing_is_left_after_ten_thousand_tasks", || leaves_nothing(ten_thousand_tasks));
    run("nothing_is_left_after_large_blocks", || leaves_nothing(large_blocks));
    run("nothing_is_left_after_deaths", || leaves_nothing(deaths));
    run("nothing_is_left_after_many_pools", || leaves_nothing(many_pools));
    run("nothing_is_left_after_failed_starts", || leaves_nothing(failed_starts));
    run("nothing_is_left_after_unfinished_work", || leaves_nothing(unfinished_work));
    run("descriptors_do_not_grow_while_workers_are_replaced", || {
        leaves_nothing(replaced_workers);
    });
}

fn run(name: &str, test: impl FnOnce()) {
    test();
    println!("test {name} ... ok");
}

/// Makes what stays for the life of the process: the lifeline pipe and the fork server.
fn warm_up() {
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let pool = Pool::builder().workers(1).start_method(method).build().expect("pool");
        assert_eq!(pool.apply(|| 1_u8, ()).expect("apply"), 1);
    }
}

fn forked_pools() {
    let fork = |text: &str| {
        let pool = Pool::builder().workers(2).start_method(StartMethod::Fork).build();
        let pool = pool.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(pool.map(|x: u64| x, 0..100).expect("map").len(), 100);
        let large = pool.apply(|bytes: Vec<u8>| bytes, (vec![1; 1 << 20],));
        assert_eq!(large.expect("echo").len(), 1 << 20);
    };
    fork("warm-up");
    leaves_nothing(|| {
        for _ in 0..4 {
            fork("again");
        }
    });
}

#[derive(Debug, PartialEq, Eq)]
struct Inventory {
    descriptors: usize,
    shared_memory: BTreeSet<String>,
    children: usize,
    mappings: usize,
}

fn names_in(path: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return BTreeSet::new();
    };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn descriptors() -> usize {
    names_in("/proc/self/fd").len()
}

fn inventory() -> Inventory {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    Inventory {
        descriptors: descriptors(),
        // Other programs use the directory, too; ours would carry our name.
        shared_memory: names_in("/dev/shm")
            .into_iter()
            .filter(|name| name.contains("multiproc"))
            .collect(),
        children: descendants().len(),
        mappings: maps.lines().filter(|line| line.contains("memfd:multiproc")).count(),
    }
}

fn leaves_nothing(work: impl FnOnce()) {
    let before = inventory();
    work();
    let after = inventory();
    assert_eq!(before, after);
}

fn ten_thousand_tasks() {
    let pool = Pool::builder().workers(2).build().expect("pool");
    for _ in 0..10 {
        assert_eq!(pool.map(|x: u64| x, 0..500).expect("map").len(), 500);
        let results: Vec<_> =
            (0..500_u64).map(|x| pool.apply_async(|x: u64| x, (x,)).expect("submit")).collect();
        for result in results {
            result.get().expect("value");
        }
    }
}

fn large_blocks() {
    let pool = Pool::builder().workers(2).build().expect("pool");
    let echo = |bytes: Vec<u8>| bytes;
    for len in [70_000, 200_000, 1 << 20, 16 << 20, 65 << 20] {
        let results: Vec<_> = (0..6)
            .map(|round| pool.apply_async(echo, (vec![round; len],)).expect("submit"))
            .collect();
        for (round, result) in results.into_iter().enumerate() {
            let bytes = result.get().expect("value");
            assert_eq!((bytes.len(), bytes[len - 1]), (len, round as u8));
        }
    }
    let table = vec![3_u64; 100_000];
    let looked_up = pool.map_with(&table, |table, x: usize| table[x], 0..100);
    assert_eq!(looked_up.expect("map").len(), 100);
}

fn deaths() {
    let pool = Pool::builder().workers(2).build().expect("pool");
    let echo = |bytes: Vec<u8>| -> Vec<u8> {
        if bytes[0] == 1 {
            std::process::exit(1);
        }
        bytes
    };
    for len in [1, 1 << 20] {
        for round in 0..40_u8 {
            let result = pool.apply(echo, (vec![u8::from(round % 4 == 1); len],));
            assert_eq!(result.is_err(), round % 4 == 1);
        }
    }
}

fn many_pools() {
    for round in 0..12 {
        let method = [StartMethod::Spawn, StartMethod::ForkServer][round % 2];
        let pool = Pool::builder().workers(3).start_method(method).build().expect("pool");
        assert_eq!(pool.map(|x: u64| x, 0..10).expect("map").len(), 10);
        match round % 3 {
            0 => pool.terminate(),
            1 => {
                pool.close();
                pool.join().expect("join");
            }
            _ => {}
        }
    }
}

fn failed_starts() {
    for _ in 0..5 {
        let failed = Pool::builder().workers(3).initializer(|| Err("no"), ()).build();
        assert!(failed.expect_err("it fails").is_start());
        let failed = Pool::builder().workers(3).pin_to([0, 0, 1000]).build();
        failed.expect_err("there is no CPU 1000");
    }
}

fn unfinished_work() {
    let pool = Pool::builder().workers(2).build().expect("pool");
    let forever = |bytes: Vec<u8>| {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
            std::hint::black_box(&bytes);
        }
    };
    let results: Vec<multiproc::AsyncResult<()>> =
        (0..6).map(|_| pool.apply_async(forever, (vec![1; 1 << 20],)).expect("submit")).collect();
    let mut lazy = pool.imap(|x: u64| x, 0..).expect("imap");
    drop(pool);
    for result in results {
        let error = result.get().expect_err("the pool has ended");
        assert!(error.is_closed() || error.is_cancelled(), "{error}");
    }
    assert!(lazy.next().expect("a result").expect_err("the pool has ended").is_closed());
}

fn replaced_workers() {
    let pool = Pool::builder().workers(2).max_tasks_per_worker(5).build().expect("pool");
    // The pool keeps idle argument blocks, at most as many as there ever were items at once.
    let most = descriptors() + 20;
    let echo = |bytes: Vec<u8>| bytes.len();
    for _ in 0..20 {
        let items = (0..20).map(|_| vec![0; 100_000]);
        assert_eq!(pool.map(echo, items).expect("map").len(), 20);
    }
    assert!(pool.stats().restarts >= 50, "{:?}", pool.stats());
    wait_until("no more descriptors than before", || {
        pool.worker_pids().len() == 2 && descriptors() <= most
    });
}

fn own_descriptors() -> Vec<(i32, String)> {
    let listing = fs::read_dir("/proc/self/fd").expect("fds");
    let mut all: Vec<(i32, String)> = listing
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        // The listing itself is open while it is read.
        .filter(|(_, target)| !(target.starts_with("/proc/") && target.ends_with("/fd")))
        .collect();
    all.sort();
    all
}

fn children_inherit_no_descriptors() {
    let scratch = common::Scratch::new();
    let path = scratch.file("held open");
    append(&path, "x");
    let files: Vec<File> = (0..20).map(|_| File::open(&path).expect("open")).collect();
    for file in &files {
        // SAFETY: this clears the close-on-exec flag of a descriptor of ours.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    }
    let pool = Pool::builder().workers(2).build().expect("pool");
    for round in 0..4 {
        let seen = pool.apply(own_descriptors, ()).expect("list");
        let foreign = seen.iter().filter(|(_, target)| target.ends_with("held open")).count();
        assert_eq!(foreign, 0, "round {round}: {seen:?}");
        for (number, target) in seen.iter().filter(|(number, _)| *number > 2) {
            // The control socket, the lifeline, and nothing else: the rings are mapped and closed.
            let ours = target.starts_with("socket:") && *number == 3 || target.starts_with("pipe:");
            assert!(ours, "descriptor {number} is {target}: {seen:?}");
        }
        let sockets = seen.iter().filter(|(_, target)| target.starts_with("socket:")).count();
        assert!(sockets <= 1 + 3, "{seen:?}");
    }
}
