//! `StartMethod::ForkServer`. The server is one a program, so each case is a program of its own.

mod common;

use common::isolated;
use common::processes::{is_alive, own_children, signal};
use common::wait_until;
use multiproc::{
    Error, Pool, Process, StartMethod, Stdio, current_process, set_forkserver_preload,
};
use std::io::Read;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

fn main() -> ExitCode {
    let cases = cases![
        the_preload_runs_once_and_is_shared_by_all,
        no_preload_is_needed,
        a_killed_server_is_restarted_by_the_next_start,
        children_of_a_killed_server_live_on_and_are_waited_for,
        a_pool_heals_although_the_server_was_killed,
        a_stopped_server_is_replaced,
        a_preload_that_panics_is_an_error_with_its_message,
        a_preload_that_starts_threads_is_an_error_with_the_number,
        a_preload_that_exits_is_an_error,
        a_preload_after_the_start_is_an_error,
        many_threads_start_through_one_server,
        a_child_starts_a_server_of_its_own,
        the_servers_children_are_the_programs,
        a_large_environment_reaches_the_child,
    ];
    isolated::main(cases, &[])
}

static LOADED: OnceLock<(u32, Vec<u64>)> = OnceLock::new();

fn preload() {
    let squares = (0..1000).map(|x| x * x).collect();
    LOADED.set((std::process::id(), squares)).expect("it runs once a server");
}

fn look(index: usize) -> (u32, u64) {
    let (pid, squares) = LOADED.get().expect("preloaded");
    (*pid, squares[index])
}

fn process() -> Result<Process<(u32, u64)>, Error> {
    Process::builder(look, (30,)).start_method(StartMethod::ForkServer).spawn()
}

fn pool(workers: usize) -> Pool {
    let builder = Pool::builder().workers(workers).start_method(StartMethod::ForkServer);
    builder.build().expect("a pool")
}

/// The pid of the server, which the preload has left in memory.
fn server() -> u32 {
    process().expect("start").join().expect("join").0
}

fn the_preload_runs_once_and_is_shared_by_all() {
    set_forkserver_preload(preload).expect("before the first start");
    let server = server();
    assert_ne!(server, std::process::id());
    assert!(is_alive(server));
    assert!(LOADED.get().is_none(), "it does not run in the program");
    for workers in [1, 2] {
        let seen = pool(workers).map(look, 0..100).expect("map");
        assert!(seen.iter().zip(0u64..).all(|(seen, x)| *seen == (server, x * x)));
    }
    assert_eq!(process().expect("start").join().expect("join"), (server, 900));
    let spawned = Process::spawn(|| LOADED.get().is_some(), ()).expect("spawn").join();
    assert!(!spawned.expect("join"), "a spawned process has fresh memory");
}

fn no_preload_is_needed() {
    let seen = pool(2).map(|x: u64| x * 2, 0..10).expect("map");
    assert_eq!(seen, (0..10).map(|x| x * 2).collect::<Vec<_>>());
    let builder = Process::builder(|| current_process().name().to_owned(), ());
    let mut process =
        builder.name("unloaded").start_method(StartMethod::ForkServer).spawn().expect("start");
    assert_eq!(process.join().expect("join"), "unloaded");
}

fn a_killed_server_is_restarted_by_the_next_start() {
    set_forkserver_preload(preload).expect("before the first start");
    let mut last = server();
    for _ in 0..5 {
        signal(last, libc::SIGKILL);
        // No wait: the next start may find the server dead or dying.
        let next = server();
        assert_ne!(next, last);
        assert!(!is_alive(last));
        last = next;
    }
    let server_of_pool = pool(1).apply(look, (1,)).expect("apply").0;
    assert_eq!(server_of_pool, last, "a live server is not replaced");
}

fn children_of_a_killed_server_live_on_and_are_waited_for() {
    set_forkserver_preload(preload).expect("before the first start");
    let read = || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).expect("stdin");
        LOADED.get().expect("preloaded").0
    };
    let builder = Process::builder(read, ()).start_method(StartMethod::ForkServer);
    let mut process = builder.stdin(Stdio::Piped).spawn().expect("start");
    let pool = pool(2);
    let server = pool.apply(look, (1,)).expect("apply").0;
    signal(server, libc::SIGKILL);
    wait_until("the server is gone", || !is_alive(server));
    assert!(process.is_alive());
    assert_eq!(pool.map(look, 0..50).expect("map").len(), 50);
    assert_eq!(process.join().expect("join"), server);
    assert!(process.exit_status().expect("it has ended").success());
}

fn a_pool_heals_although_the_server_was_killed() {
    set_forkserver_preload(preload).expect("before the first start");
    let pool = pool(2);
    let server = pool.apply(look, (1,)).expect("apply").0;
    signal(server, libc::SIGKILL);
    for pid in pool.worker_pids() {
        signal(pid, libc::SIGKILL);
    }
    wait_until("new workers have a new server", || {
        pool.apply(look, (2,)).is_ok_and(|(pid, _)| pid != server)
    });
}

fn a_stopped_server_is_replaced() {
    set_forkserver_preload(preload).expect("before the first start");
    let stopped = server();
    signal(stopped, libc::SIGSTOP);
    wait_until("it is stopped", || {
        common::processes::entry(stopped).is_some_and(|entry| entry.state == 'T')
    });
    let start = || {
        let builder = Process::builder(look, (3,)).start_method(StartMethod::ForkServer);
        builder.start_timeout(Duration::from_secs(2)).spawn()
    };
    // The first may give up with its time used up; the stopped server must not stay.
    let first = start().and_then(|mut process| process.join());
    assert!(first.as_ref().err().is_none_or(|error| error.is_start() || error.is_timeout()));
    wait_until("a new server serves", || match start().and_then(|mut process| process.join()) {
        Ok((server, _)) => server != stopped,
        Err(_) => false,
    });
    assert!(!is_alive(stopped));
}

fn refused(expected: &str) {
    for _ in 0..2 {
        let error = process().expect_err("no server, no process");
        assert!(error.is_start() && error.to_string().contains(expected), "{error}");
        let builder = Pool::builder().workers(2).start_method(StartMethod::ForkServer);
        let error = builder.build().expect_err("no server, no pool");
        assert!(error.is_start() && error.to_string().contains(expected), "{error}");
        assert!(own_children().is_empty(), "{:?}", own_children());
    }
}

fn a_preload_that_panics_is_an_error_with_its_message() {
    set_forkserver_preload(|| panic!("the model file is missing")).expect("set");
    refused("the model file is missing");
    // A preload that works may take its place: no server runs.
    set_forkserver_preload(preload).expect("no server runs");
    assert_eq!(process().expect("start").join().expect("join").1, 900);
}

fn a_preload_that_starts_threads_is_an_error_with_the_number() {
    let start_threads = || {
        for _ in 0..2 {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
    };
    set_forkserver_preload(start_threads).expect("set");
    refused("3 threads");
}

fn a_preload_that_exits_is_an_error() {
    set_forkserver_preload(|| std::process::exit(5)).expect("set");
    refused("exit code 5");
}

fn a_preload_after_the_start_is_an_error() {
    assert_eq!(pool(1).apply(|| 1, ()).expect("apply"), 1);
    let error = set_forkserver_preload(preload).expect_err("the server runs");
    assert!(error.is_invalid_input() && error.to_string().contains("runs already"), "{error}");
}

fn many_threads_start_through_one_server() {
    set_forkserver_preload(preload).expect("before the first start");
    let start = || {
        let (server, value) = process().expect("start").join().expect("join");
        assert_eq!(value, 900);
        server
    };
    let servers: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    assert!(servers.iter().all(|server| *server == servers[0]), "{servers:?}");
}

fn a_child_starts_a_server_of_its_own() {
    set_forkserver_preload(preload).expect("before the first start");
    let outer = server();
    let nested = || {
        set_forkserver_preload(|| {
            LOADED.get_or_init(|| (std::process::id(), vec![7; 100]));
        })
        .expect("this process has no server yet");
        (server(), std::process::id())
    };
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let mut process = Process::builder(nested, ()).start_method(method).spawn().expect("start");
        let (inner, pid) = process.join().expect("join");
        assert!(inner != outer && inner != pid, "{method:?}");
        wait_until("the inner server ends with its program", || !is_alive(inner));
    }
    assert!(is_alive(outer));
}

fn the_servers_children_are_the_programs() {
    let parent = || std::os::unix::process::parent_id();
    let builder = Process::builder(parent, ()).start_method(StartMethod::ForkServer);
    assert_eq!(builder.spawn().expect("start").join().expect("join"), std::process::id());
}

fn a_large_environment_reaches_the_child() {
    let value = "x".repeat(100_000);
    let length = || std::env::var("LARGE").map(|value| value.len()).ok();
    let builder = Process::builder(length, ()).start_method(StartMethod::ForkServer);
    let mut process = builder.env("LARGE", &value).spawn().expect("start");
    assert_eq!(process.join().expect("join"), Some(100_000));
}
