//! The program's default start method.

mod common;

use common::isolated;
use multiproc::{
    Pool, Process, StartMethod, set_forkserver_preload, set_start_method, start_method,
};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    isolated::main(
        cases![
            spawn_is_the_default,
            processes_and_pools_follow_the_default,
            a_builders_own_choice_stands
        ],
        &[],
    )
}

static PRELOADED: AtomicBool = AtomicBool::new(false);
static SET_IN_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Which memory the process has: that of the fork server, or that of the program.
fn memory() -> (bool, bool) {
    (PRELOADED.load(Ordering::Relaxed), SET_IN_PROGRAM.load(Ordering::Relaxed))
}

const FRESH: (bool, bool) = (false, false);
const SERVER: (bool, bool) = (true, false);
const PROGRAM: (bool, bool) = (false, true);

fn prepare() {
    SET_IN_PROGRAM.store(true, Ordering::Relaxed);
    set_forkserver_preload(|| PRELOADED.store(true, Ordering::Relaxed)).expect("no server yet");
}

fn in_process() -> (bool, bool) {
    Process::spawn(memory, ()).expect("start").join().expect("join")
}

fn in_pool() -> (bool, bool) {
    let pool = Pool::builder().workers(1).build().expect("a pool");
    pool.apply(memory, ()).expect("apply")
}

fn spawn_is_the_default() {
    prepare();
    assert_eq!(start_method(), StartMethod::Spawn);
    assert_eq!((in_process(), in_pool()), (FRESH, FRESH));
}

fn processes_and_pools_follow_the_default() {
    prepare();
    let expected = [
        (StartMethod::Fork, PROGRAM),
        (StartMethod::ForkServer, SERVER),
        (StartMethod::Spawn, FRESH),
        (StartMethod::Fork, PROGRAM),
    ];
    for (method, memory) in expected {
        set_start_method(method);
        assert_eq!(start_method(), method);
        assert_eq!((in_process(), in_pool()), (memory, memory), "{method:?}");
    }
}

fn a_builders_own_choice_stands() {
    prepare();
    set_start_method(StartMethod::Fork);
    let builder = Process::builder(memory, ()).start_method(StartMethod::Spawn);
    assert_eq!(builder.spawn().expect("start").join().expect("join"), FRESH);
    let builder = Pool::builder().workers(1).start_method(StartMethod::ForkServer);
    let pool = builder.build().expect("a pool");
    assert_eq!(pool.apply(memory, ()).expect("apply"), SERVER);
}
