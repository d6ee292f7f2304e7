//! Every setting of a pool, seen where it takes effect: in the workers.

#[path = "common/events.rs"]
mod common;

use common::{
    Scratch, Watchdog, append, is_gone, is_raised, kill, lines, raise, wait_for, wait_until,
};
use multiproc::{AsyncResult, Execution, Pool, PoolBuilder, StartMethod, current_process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn build(builder: PoolBuilder) -> Pool {
    builder.build().expect("pool")
}

/// Has every worker run the function once: each call waits until all have begun.
fn in_each<R: multiproc::Data + Send>(
    pool: &Pool,
    function: impl Fn(String, usize) -> R + Copy + Send + Sync + 'static,
) -> Vec<R> {
    let workers = pool.worker_pids().len();
    let scratch = Scratch::new();
    let log = scratch.file("here");
    let results: Vec<AsyncResult<R>> = (0..workers)
        .map(|_| pool.apply_async(function, (log.clone(), workers)).expect("submit"))
        .collect();
    results.into_iter().map(|result| result.get().expect("value")).collect()
}

/// Waits until as many workers are here.
fn meet(log: &str, workers: usize) {
    append(log, std::process::id());
    while lines(log).len() < workers {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_pool_has_as_many_workers_as_asked_and_each_works() {
    let _dog = Watchdog::new("workers");
    let pool = build(Pool::builder().workers(5));
    let seen: BTreeSet<u32> = in_each(&pool, |log, workers| {
        meet(&log, workers);
        std::process::id()
    })
    .into_iter()
    .collect();
    assert_eq!(seen, pool.worker_pids().into_iter().collect());
    assert_eq!(seen.len(), 5);
    assert_eq!(pool.stats().workers.len(), 5);
}

#[test]
fn a_pool_has_a_worker_for_each_cpu_unless_told() {
    let _dog = Watchdog::new("default");
    let pool = Pool::new().expect("pool");
    assert_eq!(pool.worker_pids().len(), multiproc::available_parallelism().get());
}

/// Random bytes that the kernel gives to each executed image, and that its forks inherit.
fn image() -> [u8; 16] {
    // SAFETY: AT_RANDOM is the address of 16 bytes that live as long as the process.
    unsafe { *(libc::getauxval(libc::AT_RANDOM) as *const [u8; 16]) }
}

#[test]
fn spawned_workers_are_executed_each_and_those_of_the_fork_server_are_forks_of_one_image() {
    let _dog = Watchdog::new("methods");
    let two_images = |method| {
        let pool = build(Pool::builder().workers(2).start_method(method));
        let images = in_each(&pool, |log, workers| {
            meet(&log, workers);
            image()
        });
        (pool, images)
    };
    let (_spawned, images) = two_images(StartMethod::Spawn);
    assert!(images[0] != images[1] && images[0] != image() && images[1] != image());
    let (forked, images) = two_images(StartMethod::ForkServer);
    assert!(images[0] == images[1] && images[0] != image());
    assert_eq!(forked.map(|x: u64| x * x, 0..100).expect("map")[99], 9801);
    let victim = forked.worker_pids()[0];
    kill(victim);
    wait_until("it is replaced", || {
        let pids = forked.worker_pids();
        pids.len() == 2 && !pids.contains(&victim)
    });
    assert_eq!(forked.map(|_: u64| image(), 0..20).expect("map"), vec![images[0]; 20]);
}

#[test]
fn workers_are_named_and_numbered() {
    let _dog = Watchdog::new("name");
    let pool = build(Pool::builder().workers(2).name("resize"));
    let mut names = in_each(&pool, |log, workers| {
        meet(&log, workers);
        let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
        (current_process().name().to_owned(), comm.trim().to_owned())
    });
    names.sort();
    let expected = |name: &str| (name.to_owned(), name.to_owned());
    assert_eq!(names, [expected("resize-1"), expected("resize-2")]);
}

static SETTING: OnceLock<(String, u64)> = OnceLock::new();

#[test]
fn the_initializer_runs_once_in_each_worker_with_its_arguments() {
    let _dog = Watchdog::new("initializer");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let set_up = |text: String, number: u64, log: String| {
        append(&log, std::process::id());
        SETTING.set((text, number)).map_err(|_| "set before")
    };
    let pool = build(
        Pool::builder().workers(3).initializer(set_up, ("hello".to_owned(), 7_u64, log.clone())),
    );
    let seen = in_each(&pool, |log, workers| {
        meet(&log, workers);
        SETTING.get().cloned()
    });
    assert_eq!(seen, vec![Some(("hello".to_owned(), 7)); 3]);
    assert_eq!(lines(&log).len(), 3);
    assert_eq!(SETTING.get(), None, "not in this process");
}

fn assert_failed_once_each(error: &multiproc::Error, cause: &str, log: &str, workers: usize) {
    assert!(error.is_start(), "{error:?}");
    assert!(error.to_string().contains(cause), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
    let tries = lines(log);
    assert!((1..=workers).contains(&tries.len()), "{} tries", tries.len());
    for pid in tries {
        wait_until("no worker is left", || is_gone(pid.parse().expect("pid")));
    }
}

#[test]
fn an_initializer_that_panics_fails_the_pool_with_the_cause_and_is_not_tried_again() {
    let _dog = Watchdog::new("initializer panics");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let fails = |log: String| -> () {
        append(&log, std::process::id());
        panic!("the licence is missing");
    };
    let failed = Pool::builder().workers(3).initializer(fails, (log.clone(),)).build();
    assert_failed_once_each(&failed.expect_err("it fails"), "the licence is missing", &log, 3);
}

#[test]
fn an_initializer_that_returns_an_error_fails_the_pool_with_the_cause() {
    let _dog = Watchdog::new("initializer fails");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let fails = |log: String| -> Result<(), String> {
        append(&log, std::process::id());
        Err("no port is free".to_owned())
    };
    let failed = Pool::builder().workers(3).initializer(fails, (log.clone(),)).build();
    assert_failed_once_each(&failed.expect_err("it fails"), "no port is free", &log, 3);
}

#[test]
fn an_initializer_that_kills_its_worker_fails_the_pool() {
    let _dog = Watchdog::new("initializer dies");
    let failed =
        Pool::builder().workers(3).initializer(|| -> () { std::process::exit(9) }, ()).build();
    let error = failed.expect_err("it fails");
    assert!(error.is_start(), "{error:?}");
    assert!(error.to_string().contains("exit code 9"), "{error}");
}

#[test]
fn an_initializer_that_fails_in_a_replacement_ends_the_pool_with_the_cause() {
    let _dog = Watchdog::new("replacement fails");
    let scratch = Scratch::new();
    let (log, flag) = (scratch.file("log"), scratch.file("flag"));
    let set_up = |log: String, flag: String| {
        append(&log, std::process::id());
        if is_raised(&flag) { Err("the disk is full") } else { Ok(()) }
    };
    let pool = build(Pool::builder().workers(2).initializer(set_up, (log.clone(), flag.clone())));
    raise(&flag);
    kill(pool.worker_pids()[0]);
    wait_until("the pool has ended", || {
        let result = pool.apply(|| (), ());
        result
            .is_err_and(|error| error.is_start() && error.to_string().contains("the disk is full"))
    });
    wait_until("no worker is left", || pool.worker_pids().is_empty());
    assert_eq!(lines(&log).len(), 3, "one replacement was tried");
    let error = pool.apply_async(|| (), ()).expect_err("over");
    assert!(error.to_string().contains("the disk is full"), "{error}");
    pool.close();
    pool.join().expect("join");
}

fn slow_in_replacements(flag: String, go: String) {
    if is_raised(&flag) {
        wait_for(&go);
    }
}

#[test]
fn a_slow_initializer_of_a_replacement_holds_up_neither_the_others_nor_the_end() {
    let _dog = Watchdog::new("slow replacement");
    let scratch = Scratch::new();
    let (flag, go) = (scratch.file("flag"), scratch.file("never"));
    let pool = build(
        Pool::builder()
            .workers(2)
            .task_timeout(Duration::from_secs(5))
            .initializer(slow_in_replacements, (flag.clone(), go)),
    );
    raise(&flag);
    let victim = pool.worker_pids()[0];
    kill(victim);
    wait_until("it is buried", || !pool.worker_pids().contains(&victim));
    for x in 0..20 {
        let late = |x: u64| {
            std::thread::sleep(Duration::from_millis(3));
            x
        };
        assert_eq!(pool.apply(late, (x,)).expect("value"), x);
    }
    // The time limit is kept meanwhile, too.
    let forever = || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let error: multiproc::Error = pool.apply(forever, ()).map(|(): ()| ()).expect_err("too long");
    assert!(error.is_timeout(), "{error:?}");
    drop(pool);
}

#[test]
fn the_finalizer_runs_in_workers_that_end_in_good_order_and_only_there() {
    let _dog = Watchdog::new("finalizer");
    static LOG: OnceLock<String> = OnceLock::new();
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let set_up = |log: String| LOG.set(log);
    let finish = || append(LOG.get().expect("set up"), std::process::id());
    let builder = || Pool::builder().initializer(set_up, (log.clone(),)).finalizer(finish);
    let finished = || lines(&log);

    let pool = build(builder().workers(3));
    let before = pool.worker_pids();
    pool.resize(1).expect("resize");
    wait_until("two have finished", || finished().len() == 2 && pool.worker_pids().len() == 1);
    kill(pool.worker_pids()[0]);
    wait_until("it is replaced", || {
        pool.worker_pids().first().is_some_and(|pid| !before.contains(pid))
    });
    assert_eq!(finished().len(), 2, "not in a worker that was killed");
    pool.close();
    pool.join().expect("join");
    assert_eq!(finished().len(), 3);

    let pool = build(builder().workers(1).max_tasks_per_worker(1));
    let pids = pool.map(|_: u64| std::process::id().to_string(), 0..3).expect("map");
    wait_until("those that reached the limit have finished", || {
        pids.iter().all(|pid| finished().contains(pid))
    });
    let count = finished().len();
    pool.terminate();
    assert!(finished().len() <= count + 1);
}

#[test]
fn a_worker_runs_exactly_as_many_items_as_it_may_whatever_the_chunks() {
    let _dog = Watchdog::new("max tasks");
    for chunk in [1, 2, 10, 100] {
        let pool = build(Pool::builder().workers(1).max_tasks_per_worker(3));
        let pids = pool.chunks_of(chunk).expect("size").map(|_: u64| std::process::id(), 0..30);
        let mut runs: BTreeMap<u32, u32> = BTreeMap::new();
        for pid in pids.expect("map") {
            *runs.entry(pid).or_default() += 1;
        }
        assert_eq!(runs.len(), 10, "chunks of {chunk}: {runs:?}");
        assert!(runs.values().all(|count| *count == 3), "chunks of {chunk}: {runs:?}");
        wait_until("all replacements are counted", || pool.stats().restarts == 10);
        assert_eq!(pool.stats().failed, 0);
    }
}

#[test]
fn a_worker_with_too_much_memory_is_replaced_after_its_item() {
    let _dog = Watchdog::new("max memory");
    let pool = build(Pool::builder().workers(1).max_memory_per_worker(100 << 20));
    let small = pool.apply(std::process::id, ()).expect("pid");
    let grow = || {
        let leaked: &'static [u8] = vec![1; 200 << 20].leak();
        std::hint::black_box(leaked);
        std::process::id()
    };
    assert_eq!(pool.apply(grow, ()).expect("pid"), small, "nothing was too much before");
    wait_until("it is replaced", || pool.worker_pids().first().is_some_and(|pid| *pid != small));
    assert_ne!(pool.apply(std::process::id, ()).expect("pid"), small);
    let stats = pool.stats();
    assert_eq!((stats.restarts, stats.failed), (1, 0));
}

#[test]
fn an_item_that_takes_too_long_fails_alone_and_its_worker_is_replaced() {
    let _dog = Watchdog::new("task timeout");
    let pool = build(Pool::builder().workers(2).task_timeout(Duration::from_secs(4)));
    let victims: Vec<u32> = pool.worker_pids();
    let hangs_at_3 = |x: u64| {
        if x == 3 {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        x
    };
    for (x, result) in pool.imap(hangs_at_3, 0..20_u64).expect("imap").enumerate() {
        match x {
            3 => {
                let error = result.expect_err("too long");
                assert!(error.is_timeout(), "{error:?}");
                assert!(error.to_string().contains("4s"), "{error}");
                assert_eq!(error.execution(), Execution::Unknown);
            }
            _ => assert_eq!(result.expect("value"), x as u64),
        }
    }
    wait_until("the worker is replaced", || {
        let pids = pool.worker_pids();
        pids.len() == 2 && pids.iter().any(|pid| !victims.contains(pid))
    });
    assert_eq!(pool.stats().restarts, 1);
    // A busy loop that makes no system call ends, too.
    let spins = |x: u64| {
        if x == 1 {
            loop {
                std::hint::spin_loop();
            }
        }
    };
    assert!(pool.apply(spins, (1,)).expect_err("too long").is_timeout());
    // A value that comes in time is not touched by the clock of the item before.
    assert_eq!(pool.map(|x: u64| x, 0..100).expect("map").len(), 100);
}

#[test]
fn a_timeout_is_not_retried() {
    let _dog = Watchdog::new("timeout and retries");
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let pool = build(Pool::builder().workers(1).task_timeout(Duration::from_secs(3)).retries(5));
    let hangs = |log: String| {
        append(&log, "run");
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let result: multiproc::Result<()> = pool.apply(hangs, (log.clone(),));
    assert!(result.expect_err("too long").is_timeout());
    assert_eq!(lines(&log).len(), 1);
}

#[test]
fn environment_variables_are_set_removed_and_cleared() {
    let _dog = Watchdog::new("env");
    let look = |name: String| std::env::var(name).ok();
    let all = || std::env::vars().map(|(name, _)| name).collect::<Vec<_>>();
    let pool = build(Pool::builder().workers(1).env("POOL_COLOUR", "green").env_remove("PATH"));
    let ask = |name: &str| pool.apply(look, (name.to_owned(),)).expect("env");
    assert_eq!(ask("POOL_COLOUR").as_deref(), Some("green"));
    assert_eq!(ask("PATH"), None);
    assert!(std::env::var("PATH").is_ok());
    let bare = build(Pool::builder().workers(1).env("LOST", "1").env_clear().env("KEPT", "2"));
    assert_eq!(bare.apply(all, ()).expect("env"), ["KEPT"]);
}

fn own_cpus() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("affinity");
    (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

#[test]
fn workers_are_restricted_to_the_cpus_that_were_named() {
    let _dog = Watchdog::new("affinity");
    let cpus = own_cpus();
    let last = *cpus.last().expect("a CPU");
    let pool = build(Pool::builder().workers(2).affinity([last]));
    assert_eq!(pool.apply(own_cpus, ()).expect("cpus"), [last]);
    let free = build(Pool::builder().workers(1).affinity([]));
    assert_eq!(free.apply(own_cpus, ()).expect("cpus"), cpus);
}

#[test]
fn workers_are_pinned_in_turn() {
    let _dog = Watchdog::new("pin_to");
    let cpus = own_cpus();
    let pool = build(Pool::builder().workers(cpus.len() + 1).pin_to(cpus.clone()));
    let mut pinned: Vec<usize> = in_each(&pool, |log, workers| {
        meet(&log, workers);
        let own = own_cpus();
        assert_eq!(own.len(), 1);
        own[0]
    });
    pinned.sort_unstable();
    let mut expected = cpus.clone();
    expected.push(cpus[0]);
    expected.sort_unstable();
    assert_eq!(pinned, expected);
}

#[test]
fn workers_are_nice() {
    let _dog = Watchdog::new("nice");
    let niceness = || {
        // SAFETY: asks for the priority of the calling process.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    };
    let pool = build(Pool::builder().workers(1).nice(7));
    assert_eq!(pool.apply(niceness, ()).expect("nice"), 7);
}

#[test]
fn resource_limits_hold_in_workers() {
    let _dog = Watchdog::new("limits");
    let limits = || {
        use nix::sys::resource::{Resource, getrlimit};
        let all = [
            Resource::RLIMIT_AS,
            Resource::RLIMIT_CPU,
            Resource::RLIMIT_NOFILE,
            Resource::RLIMIT_CORE,
        ];
        all.map(|resource| getrlimit(resource).expect("limit").0).to_vec()
    };
    let before = limits();
    let pool = build(
        Pool::builder()
            .workers(1)
            .memory_limit(4 << 30)
            .cpu_time_limit(Duration::from_millis(99_500))
            .open_files_limit(123)
            .core_limit(0),
    );
    assert_eq!(pool.apply(limits, ()).expect("limits"), [4 << 30, 100, 123, 0]);
    assert_eq!(limits(), before);
}

#[test]
fn a_worker_that_uses_up_its_processor_time_is_killed_and_replaced() {
    let _dog = Watchdog::new("cpu time");
    let pool =
        build(Pool::builder().workers(1).cpu_time_limit(Duration::from_secs(1)).core_limit(0));
    let spin = || {
        loop {
            std::hint::spin_loop();
        }
    };
    let result: multiproc::Result<()> = pool.apply(spin, ());
    let error = result.expect_err("killed");
    let signal = error.exit_status().and_then(|status| status.signal());
    assert!(matches!(signal, Some(libc::SIGXCPU | libc::SIGKILL)), "{error:?}");
    assert_eq!(pool.apply(|| 1_u8, ()).expect("healed"), 1);
}

/// The state letter of a thread of this process.
fn thread_state(tid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn submitting_waits_while_too_much_is_in_flight() {
    let _dog = Watchdog::new("max in flight");
    let scratch = Scratch::new();
    let go = scratch.file("go");
    let pool = build(Pool::builder().workers(1).max_in_flight(4));
    let submitted = AtomicU64::new(0);
    let tid = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            // SAFETY: gettid has no preconditions.
            tid.store(unsafe { libc::gettid() } as u64, Ordering::SeqCst);
            let results: Vec<_> = (0..10_u64)
                .map(|x| {
                    let wait = |go: String, x: u64| {
                        wait_for(&go);
                        x
                    };
                    let result = pool.apply_async(wait, (go.clone(), x)).expect("submit");
                    submitted.fetch_add(1, Ordering::SeqCst);
                    result
                })
                .collect();
            results.into_iter().map(|result| result.get().expect("value")).collect::<Vec<_>>()
        });
        wait_until("four are in flight", || submitted.load(Ordering::SeqCst) == 4);
        let sleeps = || thread_state(tid.load(Ordering::SeqCst) as i32) == Some('S');
        wait_until("the submitter sleeps", sleeps);
        for _ in 0..50 {
            std::thread::yield_now();
            assert_eq!(submitted.load(Ordering::SeqCst), 4);
            let stats = pool.stats();
            assert_eq!(stats.queued + stats.running, 4);
        }
        raise(&go);
        assert_eq!(submitter.join().expect("join"), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_submitter_that_waits_for_room_hears_of_the_end_of_the_pool() {
    let _dog = Watchdog::new("room and end");
    let pool = build(Pool::builder().workers(1).max_in_flight(1));
    let forever = || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let running: AsyncResult<()> = pool.apply_async(forever, ()).expect("submit");
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| pool.apply_async(|| (), ()).map(drop))).collect();
        wait_until("it runs", || pool.stats().running == 1);
        pool.terminate();
        for thread in waiting {
            assert!(thread.join().expect("join").expect_err("ended").is_closed());
        }
    });
    let error = running.get().expect_err("ended");
    assert!(error.is_closed() || error.is_cancelled(), "{error:?}");
}
