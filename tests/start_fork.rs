//! `StartMethod::Fork`. Each case is a program of its own, with one thread to begin with.

mod common;

use common::isolated::{self, start_helper};
use common::processes::{descendants, own_children, signal, wait_until_gone};
use common::{temp::TempDir, wait_until};
use multiproc::{
    AtomicValue, Error, ExitStatus, ForkRisk, Pool, Process, SharedVec, StartMethod, Stdio, Value,
    current_process, parent_process,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

fn main() -> ExitCode {
    let cases = cases![
        a_closure_with_captures_runs_in_the_copy,
        a_function_item_is_forked_too,
        settings_are_there_in_a_forked_child,
        a_forked_child_sees_the_end_of_its_own_stdin,
        a_failed_setting_of_a_forked_child_says_which,
        a_forked_panic_and_exit_and_signal_arrive,
        a_large_result_of_a_closure_arrives,
        a_closure_cannot_be_spawned,
        buffered_output_is_written_once,
        a_second_thread_makes_fork_an_error_with_the_number,
        threads_that_have_ended_do_not_count,
        the_risk_can_be_taken,
        a_fork_pool_has_the_memory_of_its_builder,
        a_fork_pool_heals_from_the_same_memory,
        a_fork_pool_whose_template_died_ends_with_an_error,
        a_pool_in_a_forked_child_is_not_its_own,
        a_forked_child_starts_its_own_pools_and_processes,
        forks_of_forks_end_at_the_nesting_limit,
        forked_children_see_the_death_of_their_parent,
        an_interrupt_reaches_a_child_forked_by_a_worker,
        handles_reach_a_forked_child_as_captures_and_as_arguments,
        handles_reach_the_workers_of_a_fork_pool,
        a_vector_stays_with_its_owner_and_a_frozen_one_does_not,
        a_reference_that_was_leaked_leads_nowhere_in_a_forked_child,
        a_reference_that_was_leaked_leads_nowhere_after_growing_and_in_grandchildren,
        a_reference_into_a_sealed_vector_is_good_in_a_forked_child,
    ];
    isolated::main(cases, cases![forks_two_and_waits])
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("tasks").count()
}

fn a_closure_with_captures_runs_in_the_copy() {
    let mut numbers: Vec<u64> = (1..=100).collect();
    let shared = std::rc::Rc::new(5u64); // not even `Send`
    let copy = shared.clone();
    let table = numbers.clone();
    let builder = Process::fork(move || table.iter().sum::<u64>() + *copy).name("summer");
    let mut process = builder.spawn().expect("fork");
    numbers.clear();
    assert_eq!(process.name(), "summer");
    assert_eq!(process.join().expect("join"), 5055);
    assert_eq!(process.exit_status(), Some(ExitStatus::Code(0)));
    assert_eq!(*shared, 5);
}

static SET_AT_RUN_TIME: AtomicU64 = AtomicU64::new(0);

fn a_function_item_is_forked_too() {
    SET_AT_RUN_TIME.store(42, Ordering::Relaxed);
    let look = |plus: u64| SET_AT_RUN_TIME.load(Ordering::Relaxed) + plus;
    let run = |method| {
        let builder = Process::builder(look, (1,)).start_method(method);
        builder.spawn().expect("start").join().expect("join")
    };
    assert_eq!(run(StartMethod::Fork), 43, "a fork has the memory of its parent");
    assert_eq!(run(StartMethod::Spawn), 1, "a spawned process has fresh memory");
}

fn settings_are_there_in_a_forked_child() {
    let directory = TempDir::new();
    let look = || {
        let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
        let here = std::env::current_dir().expect("a directory");
        let parent = parent_process().expect("a parent");
        // SAFETY: getpriority takes plain numbers.
        let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `files` is a live rlimit.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files) };
        let variables: Vec<_> = std::env::vars().collect();
        let names = (current_process().name().to_owned(), comm.trim_end().to_owned());
        (names, here, (parent.pid(), parent.is_alive()), nice, files.rlim_cur, variables)
    };
    let builder = Process::fork(look).name("forked").current_dir(&*directory).nice(19);
    let builder = builder.open_files_limit(77).env("A", "1").env_clear().env("B", "2");
    let seen = builder.spawn().expect("fork").join().expect("join");
    assert_eq!(seen.0, ("forked".to_owned(), "forked".to_owned()));
    assert_eq!(seen.1, *directory);
    assert_eq!(seen.2, (std::process::id(), true));
    assert_eq!((seen.3, seen.4), (19, 77));
    assert_eq!(seen.5, [("B".to_owned(), "2".to_owned())]);
    assert!(std::env::var_os("PATH").is_some(), "the parent's environment is untouched");
}

fn a_forked_child_sees_the_end_of_its_own_stdin() {
    let echo = || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).expect("stdin");
        print!("{}", text.to_uppercase());
        text.len()
    };
    let builder = Process::fork(echo).stdin(Stdio::Piped).stdout(Stdio::Piped);
    let mut process = builder.spawn().expect("fork");
    process.stdin.take().expect("piped").write_all(b"hello").expect("write");
    let mut text = String::new();
    process.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
    assert_eq!(text, "HELLO");
    assert_eq!(process.join().expect("join"), 5);
}

fn a_failed_setting_of_a_forked_child_says_which() {
    let error = Process::fork(|| ()).current_dir("/no/such/directory").spawn();
    let error = error.expect_err("no directory");
    assert!(error.is_start() && error.to_string().contains("directory"), "{error}");
    assert!(own_children().is_empty(), "{:?}", own_children());
    let error = Pool::builder().start_method(StartMethod::Fork).affinity([1023]).build();
    let error = error.expect_err("no such CPU");
    assert!(error.is_start() && error.to_string().contains("affinity"), "{error}");
    assert!(own_children().is_empty(), "{:?}", own_children());
}

fn a_forked_panic_and_exit_and_signal_arrive() {
    let name = "kettle".to_owned();
    let builder = Process::fork(move || panic!("no {name}")).stderr(Stdio::Piped);
    let mut process: Process<()> = builder.spawn().expect("fork");
    let mut stderr = String::new();
    process.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
    let error = process.join().expect_err("it panicked");
    assert_eq!(error.panic().expect("a panic").message, "no kettle");
    let place = error.panic().and_then(|info| info.location.clone()).expect("a place");
    assert!(place.starts_with("tests/start_fork.rs:"), "{place}");
    assert!(stderr.contains("no kettle"), "{stderr}");
    let mut exits: Process<()> = Process::fork(|| std::process::exit(9)).spawn().expect("fork");
    let status = exits.join().expect_err("it exited").exit_status();
    assert_eq!(status, Some(ExitStatus::Code(9)));
    let park = || -> () {
        loop {
            std::thread::park()
        }
    };
    let mut killed = Process::fork(park).spawn().expect("fork");
    killed.kill().expect("kill");
    let status = killed.join().expect_err("killed").exit_status().expect("a status");
    assert_eq!(status.exitcode(), Some(-9));
}

fn a_large_result_of_a_closure_arrives() {
    let block = vec![7u8; 32 << 20];
    let mut process = Process::fork(move || block).spawn().expect("fork");
    let returned = process.join().expect("join");
    assert!(returned.len() == 32 << 20 && returned.iter().all(|byte| *byte == 7));
}

fn a_closure_cannot_be_spawned() {
    let captured = 5;
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let error = Process::fork(move || captured).start_method(method).spawn();
        let error = error.expect_err("only a fork has the closure");
        let names_it = error.to_string().contains(&format!("{method:?}"));
        assert!(error.is_invalid_input() && names_it, "{error}");
    }
    assert!(own_children().is_empty(), "{:?}", own_children());
}

fn buffered_output_is_written_once() {
    let directory = TempDir::new();
    let path = directory.join("output");
    let file = std::fs::File::create(&path).expect("a file");
    // SAFETY: dup2 makes this process's stdout lead to the file; std never owns the number.
    unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&file), 1) };
    print!("parent ");
    Process::fork(|| print!("child ")).spawn().expect("fork").join().expect("join");
    print!("parent again");
    std::io::stdout().flush().expect("flush");
    let text = std::fs::read_to_string(&path).expect("the output");
    assert_eq!(text, "parent child parent again");
}

fn a_second_thread_makes_fork_an_error_with_the_number() {
    let (stop, stopped) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || stopped.recv().is_ok());
    let refused = |error: Error| {
        assert!(error.is_start() && error.to_string().contains("2 threads"), "{error}");
    };
    refused(Process::fork(|| ()).spawn().expect_err("two threads"));
    let forked = Process::builder(|| (), ()).start_method(StartMethod::Fork);
    refused(forked.spawn().expect_err("two threads"));
    refused(Pool::builder().start_method(StartMethod::Fork).build().expect_err("two threads"));
    assert!(own_children().is_empty(), "{:?}", own_children());
    drop(stop);
    other.join().expect("the thread");
    assert_eq!(Process::fork(|| 1).spawn().expect("one thread").join().expect("join"), 1);
}

fn threads_that_have_ended_do_not_count() {
    for round in 0..300 {
        // Joined, a thread may still be listed for a moment.
        std::thread::spawn(|| ()).join().expect("the thread");
        let mut process = Process::fork(move || round).spawn().expect("one thread is left");
        assert_eq!(process.join().expect("join"), round);
    }
    for _ in 0..5 {
        let pool = Pool::builder().workers(1).build().expect("a pool");
        assert_eq!(pool.apply(|| 1, ()).expect("apply"), 1);
        drop(pool); // its supervisor thread ends with it
        Process::fork(|| ()).spawn().expect("one thread is left").join().expect("join");
    }
}

fn the_risk_can_be_taken() {
    let (stop, stopped) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || stopped.recv().is_ok());
    wait_until("the other thread runs", || threads() == 2);
    // SAFETY: the other thread sleeps in a receive (or is about to), and holds no lock that the
    // children need: they only add numbers.
    let risk = unsafe { ForkRisk::accept() };
    let captured = 20;
    let mut process =
        Process::fork(move || captured + 1).fork_with_threads(risk).spawn().expect("fork");
    assert_eq!(process.join().expect("join"), 21);
    let builder = Pool::builder().workers(2).start_method(StartMethod::Fork);
    let pool = builder.fork_with_threads(risk).build().expect("a pool");
    assert_eq!(pool.map(|x: u64| x + 1, 0..100).expect("map"), (1..=100).collect::<Vec<_>>());
    drop(pool);
    drop(stop);
    other.join().expect("the thread");
}

fn fork_pool(workers: usize) -> Pool {
    let builder = Pool::builder().workers(workers).start_method(StartMethod::Fork);
    builder.name("copy").build().expect("a fork pool")
}

fn a_fork_pool_has_the_memory_of_its_builder() {
    SET_AT_RUN_TIME.store(1000, Ordering::Relaxed);
    let pool = fork_pool(3);
    SET_AT_RUN_TIME.store(0, Ordering::Relaxed);
    let look = |x: u64| (SET_AT_RUN_TIME.load(Ordering::Relaxed) + x, std::process::id());
    let seen = pool.map(look, 0..300).expect("map");
    assert!(seen.iter().map(|(value, _)| *value).eq(1000..1300));
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 3);
    assert!(seen.iter().all(|(_, pid)| pids.contains(pid)));
    let name = pool.apply(|| current_process().name().to_owned(), ()).expect("apply");
    assert!(name.starts_with("copy-"), "{name}");
    pool.close();
    pool.join().expect("join");
    drop(pool);
    assert!(own_children().is_empty(), "{:?}", own_children());
}

fn a_fork_pool_heals_from_the_same_memory() {
    SET_AT_RUN_TIME.store(7, Ordering::Relaxed);
    let pool = fork_pool(2);
    SET_AT_RUN_TIME.store(0, Ordering::Relaxed);
    let old = pool.worker_pids();
    let error = pool.apply(|| -> () { std::process::abort() }, ()).expect_err("it died");
    assert!(error.is_worker_died(), "{error}");
    signal(old[0], libc::SIGKILL);
    signal(old[1], libc::SIGKILL);
    wait_until("both workers are replaced", || {
        let new = pool.worker_pids();
        new.len() == 2 && !new.iter().any(|pid| old.contains(pid))
    });
    let seen = pool.map(|_: u32| SET_AT_RUN_TIME.load(Ordering::Relaxed), 0..50).expect("map");
    assert_eq!(seen, [7; 50]);
}

fn a_fork_pool_whose_template_died_ends_with_an_error() {
    let pool = fork_pool(1);
    let workers = pool.worker_pids();
    let template = own_children().into_iter().find(|child| !workers.contains(&child.pid));
    let template = template.expect("the process that workers are forked from").pid;
    signal(template, libc::SIGKILL);
    assert_eq!(pool.apply(|| 5, ()).expect("the worker lives on"), 5);
    signal(workers[0], libc::SIGKILL);
    let mut last = None;
    wait_until("the pool says that it cannot heal", || match pool.apply(|| 5, ()) {
        Err(error) if error.is_start() => {
            last = Some(error);
            true
        }
        _ => false,
    });
    assert!(last.expect("an error").to_string().contains("fork server"));
}

fn a_pool_in_a_forked_child_is_not_its_own() {
    let pool = Pool::builder().workers(2).build().expect("a pool");
    assert_eq!(pool.apply(|| 1, ()).expect("apply"), 1);
    let before = pool.worker_pids();
    let pool = std::mem::ManuallyDrop::new(pool);
    let in_child = std::rc::Rc::new(pool);
    let copy = in_child.clone();
    // SAFETY: the pool is idle: its thread sleeps in epoll_wait and holds no lock.
    let risk = unsafe { ForkRisk::accept() };
    let use_it = move || {
        let refused = |error: Error| error.is_invalid_input() && error.to_string().contains("fork");
        let calls = [
            copy.apply(|| 1, ()).map(drop),
            copy.map(|x: u64| x, 0..3).map(drop),
            copy.apply_async(|| 1, ()).map(drop),
            copy.resize(5),
            copy.join(),
        ];
        let all = calls.into_iter().all(|call| call.is_err_and(refused));
        copy.terminate();
        // SAFETY: the child's copy is used no more; its process ends right after.
        drop(unsafe { std::ptr::read(&**copy) });
        all
    };
    let mut process = Process::fork(use_it).fork_with_threads(risk).spawn().expect("fork");
    assert!(process.join_timeout(common::PATIENCE).expect("join"), "each call is an error");
    assert_eq!(in_child.worker_pids(), before, "the pool of the parent is as it was");
    assert_eq!(in_child.map(|x: u64| x + 1, 0..3).expect("map"), [1, 2, 3]);
    drop(process);
    in_child.terminate();
}

fn a_forked_child_starts_its_own_pools_and_processes() {
    let base = 100;
    let work = move || {
        let mut inner = Process::fork(move || base + 1).spawn().expect("fork in a fork");
        let first = inner.join().expect("join");
        let spawned = Process::spawn(|x: u64| x + 2, (base,)).expect("spawn in a fork").join();
        let pool = fork_pool(2);
        let sum: u64 = pool.map(|x: u64| x, 0..10).expect("map").into_iter().sum();
        (first, spawned.expect("join"), sum)
    };
    let mut process = Process::fork(work).spawn().expect("fork");
    assert_eq!(process.join().expect("join"), (101, 102, 45));
}

fn dig(level: u32) -> (u32, String) {
    let forked = Process::fork(move || dig(level + 1)).spawn();
    match forked {
        Ok(mut process) => process.join().expect("join"),
        Err(error) => (level, error.to_string()),
    }
}

fn forks_of_forks_end_at_the_nesting_limit() {
    let (levels, message) = dig(0);
    assert!((2..100).contains(&levels), "{levels}");
    assert!(message.contains("nested"), "{message}");
}

/// A program with two forked children, the second of which inherited what the first was started
/// with, and a fork pool.
fn forks_two_and_waits() {
    let park = || -> () {
        loop {
            std::thread::park()
        }
    };
    let one = Process::fork(park).spawn().expect("fork");
    let two = Process::fork(park).spawn().expect("fork");
    let pool = fork_pool(2);
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("stdin");
    drop((one, two, pool));
}

fn forked_children_see_the_death_of_their_parent() {
    let mut program = start_helper("forks_two_and_waits");
    let mut line = String::new();
    let stdout = program.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let pids: Vec<u32> = descendants(program.id()).iter().map(|entry| entry.pid).collect();
    assert_eq!(pids.len(), 5, "two processes, a template and two workers");
    program.kill().expect("kill");
    program.wait().expect("wait");
    wait_until_gone(&pids);
}

fn an_interrupt_reaches_a_child_forked_by_a_worker() {
    // SAFETY: SIG_DFL is a valid disposition; a background job has SIGINT ignored.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    let in_worker = || {
        let park = || -> () {
            loop {
                std::thread::park()
            }
        };
        let mut process = Process::fork(park).spawn().expect("fork in a worker");
        process.interrupt().expect("interrupt");
        let ended = process.join_timeout(Duration::from_secs(30)).expect_err("interrupted");
        ended.exit_status().and_then(|status| status.signal())
    };
    let pool = Pool::builder().workers(1).build().expect("a pool");
    assert_eq!(pool.apply(in_worker, ()).expect("apply"), Some(libc::SIGINT));
}

fn handles_reach_a_forked_child_as_captures_and_as_arguments() {
    let (count, total) =
        (AtomicValue::new(0u64).expect("memory"), Value::new(0u64).expect("memory"));
    let captured = (count.clone(), total.clone());
    let process = Process::fork(move || {
        captured.0.fetch_add(1);
        captured.1.update(|total| *total += 10).expect("no owner died");
        captured.0
    });
    let returned = process.spawn().expect("fork").join().expect("join");
    let add = |count: AtomicValue<u64>, total: Value<u64>| {
        count.fetch_add(1);
        total.update(|total| *total += 10).expect("no owner died");
    };
    let arguments = (returned, total.clone());
    let process = Process::builder(add, arguments).start_method(StartMethod::Fork).spawn();
    process.expect("fork").join().expect("join");
    assert_eq!((count.get(), total.get().expect("no owner died")), (2, 20));
}

fn handles_reach_the_workers_of_a_fork_pool() {
    let count = AtomicValue::new(0u64).expect("memory");
    let mut v = SharedVec::<u64>::zeroed(100).expect("memory");
    let pool = Pool::builder().workers(2).start_method(StartMethod::Fork).build().expect("pool");
    let add = |count: &AtomicValue<u64>, x: u64| count.fetch_add(x);
    pool.map_with(&count, add, 0..100).expect("map");
    assert_eq!(count.get(), 4950);
    pool.for_each_chunk_mut(&mut v, 7, |chunk| chunk.fill(3)).expect("lend");
    assert!(v.iter().all(|x| *x == 3));
}

fn a_vector_stays_with_its_owner_and_a_frozen_one_does_not() {
    let mine = SharedVec::<u64>::zeroed(10_000).expect("memory");
    let frozen = SharedVec::from_slice(&[1u64, 2, 3]).and_then(SharedVec::freeze).expect("memory");
    let length = mine.len();
    let look = move || {
        assert_eq!(frozen.iter().sum::<u64>(), 6);
        mine.iter().sum::<u64>()
    };
    let error = Process::fork(look).spawn().expect("fork").join().expect_err("not there");
    assert!(error.is_panic() && error.to_string().contains("SharedVec"), "{error} {length}");
}

/// Leaks a vector; the references are good for ever, in this process.
fn leaked(vec: SharedVec<u64>) -> &'static [u64] {
    Box::leak(Box::new(vec))
}

/// Follows a reference when memory has been taken from the system, which looks for free addresses.
fn take_memory_and_look(at: &[u64]) -> u64 {
    let taken: Vec<_> = (0..100).map(|_| vec![7u64; at.len()]).collect();
    taken.iter().map(|taken| taken[3] / 7).sum::<u64>() + at[3]
}

fn segfaulted(error: &Error) -> bool {
    error.exit_status().and_then(|status| status.signal()) == Some(libc::SIGSEGV)
}

fn a_reference_that_was_leaked_leads_nowhere_in_a_forked_child() {
    let slices: Vec<_> =
        (0..100).map(|_| leaked(SharedVec::zeroed(100_000).expect("memory"))).collect();
    for slice in [slices[0], slices[50], slices[99]] {
        let process = Process::fork(move || take_memory_and_look(slice));
        let error = process.spawn().expect("fork").join().expect_err("nothing is there");
        assert!(segfaulted(&error), "{error}");
    }
    assert_eq!(take_memory_and_look(slices[50]), 100);
}

fn a_reference_that_was_leaked_leads_nowhere_after_growing_and_in_grandchildren() {
    let mut vec = SharedVec::zeroed(10).expect("memory");
    vec.resize(100_000, 1).expect("memory");
    let slice = leaked(vec);
    let child = move || {
        let own = leaked(SharedVec::zeroed(100_000).expect("memory"));
        [slice, own].map(|slice| {
            let process = Process::fork(move || take_memory_and_look(slice));
            let error = process.spawn().expect("fork").join().expect_err("nothing is there");
            segfaulted(&error)
        })
    };
    assert_eq!(Process::fork(child).spawn().expect("fork").join().expect("join"), [true, true]);
}

fn a_reference_into_a_sealed_vector_is_good_in_a_forked_child() {
    let vec: &'static SharedVec<u64> =
        Box::leak(Box::new(SharedVec::zeroed(100_000).expect("memory")));
    let slice: &'static [u64] = vec;
    let at = |vec: &SharedVec<u64>, index: usize| vec[index];
    let pool = Pool::builder().workers(1).build().expect("pool");
    assert_eq!(pool.map_with(vec, at, [3]).expect("sent, and so sealed"), [0]);
    drop(pool);
    assert_eq!(Process::fork(move || slice[3]).spawn().expect("fork").join().expect("join"), 0);
}
