//! A program that calls `multiproc::init()` first in `main`: it works with the hook and without.

mod common;

use common::processes::own_children;
use multiproc::{Pool, Process, StartMethod, current_process, set_forkserver_preload};
use std::sync::atomic::{AtomicU32, Ordering};

static STATE: AtomicU32 = AtomicU32::new(0);

fn square(x: u64) -> u64 {
    x * x
}

fn main() {
    multiproc::init();
    // A child that came this far would run the program again.
    assert_eq!(current_process().name(), "MainProcess");
    assert!(std::env::var_os("MULTIPROC_CHILD").is_none());
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(120) };
    multiproc::init(); // twice is harmless
    set_forkserver_preload(|| STATE.store(5, Ordering::Relaxed)).expect("no server yet");
    let captured = 20;
    let mut forked = Process::fork(move || square(captured)).spawn().expect("fork");
    assert_eq!(forked.join().expect("join"), 400);
    println!("test a_fork_works_after_init ... ok");
    for method in [StartMethod::Fork, StartMethod::ForkServer, StartMethod::Spawn] {
        let pool = Pool::builder().workers(2).start_method(method).build().expect("a pool");
        assert_eq!(pool.map(square, 0..5).expect("map"), [0, 1, 4, 9, 16]);
        assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3)).expect("apply"), 5);
        let error = pool.apply(|| -> () { panic!("no luck") }, ()).expect_err("it panicked");
        assert_eq!(error.panic().expect("a panic").message, "no luck");
        let nested = || Process::spawn(square, (9,)).and_then(|mut process| process.join()).ok();
        assert_eq!(pool.apply(nested, ()).expect("apply"), Some(81));
        println!("test pools_and_nested_processes_work_with_{method:?} ... ok");
        drop(pool);
        let builder = Process::builder(|| STATE.load(Ordering::Relaxed), ());
        let seen = builder.start_method(method).spawn().expect("start").join().expect("join");
        assert_eq!(seen, if method == StartMethod::ForkServer { 5 } else { 0 });
        println!("test processes_work_with_{method:?} ... ok");
    }
    let left = own_children();
    assert!(left.iter().all(|child| child.name == "forkserver"), "{left:?}");
}
