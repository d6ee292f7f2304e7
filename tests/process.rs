//! `Process`: what a builder sets is there in the child, results are typed, and every way to end
//! reaches the parent as itself.

mod common;

use common::processes::is_alive;
use common::temp::TempDir;
use common::{wait_until, watchdog};
use multiproc::{
    Error, Execution, ExitStatus, ParentDeath, Process, StartMethod, Stdio, active_children,
    available_parallelism, current_process, parent_process,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::exit;
use std::time::Duration;

/// `Fork` needs a process with one thread; `start_fork.rs` has it.
const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

const CENTURIES: Duration = Duration::from_secs(100 * 365 * 24 * 3600 * 100);

/// Runs until it is killed.
fn for_ever() {
    loop {
        std::thread::park();
    }
}

/// Runs until its stdin is closed, and returns what came.
fn read_all() -> String {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).expect("stdin is readable");
    text
}

/// Says that it runs, then waits for a signal.
fn say_ready_and_wait() {
    println!("ready");
    for_ever();
}

/// A process that has run into its function, so that signals find the dispositions of a child.
fn started() -> Process<()> {
    watchdog();
    let builder = Process::builder(say_ready_and_wait, ());
    let mut process = builder.stdout(Stdio::Piped).spawn().expect("spawn");
    let mut line = [0; 6];
    process.stdout.as_mut().expect("piped").read_exact(&mut line).expect("a line");
    process
}

// --- Settings -----------------------------------------------------------------------------------

fn names() -> (String, String, bool) {
    let comm = fs::read_to_string("/proc/self/comm").expect("comm");
    let current = current_process();
    assert_eq!(current.pid(), std::process::id());
    (current.name().to_owned(), comm.trim_end().to_owned(), current.is_daemon())
}

#[test]
fn the_name_and_daemon_flag_are_seen_by_the_child_and_by_ps() {
    watchdog();
    for method in METHODS {
        let builder = Process::builder(names, ()).start_method(method).daemon(true);
        let mut process = builder.name("a name longer than 15").spawn().expect("spawn");
        assert_eq!((process.name(), process.is_daemon()), ("a name longer than 15", true));
        let seen = process.join().expect("join");
        let expected = ("a name longer than 15".to_owned(), "a name longer t".to_owned(), true);
        assert_eq!(seen, expected, "{method:?}");
    }
}

#[test]
fn processes_without_a_name_get_different_ones_and_are_no_daemons() {
    watchdog();
    let spawn = || Process::spawn(names, ()).expect("spawn");
    let (mut one, mut two) = (spawn(), spawn());
    assert!(one.name().starts_with("Process-"), "{}", one.name());
    assert_ne!(one.name(), two.name());
    assert_eq!(one.join().expect("join").0, one.name());
    assert!(!two.join().expect("join").2);
}

fn variables() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

#[test]
fn environment_variables_are_set_and_removed() {
    watchdog();
    assert!(std::env::var_os("PATH").is_some(), "the test needs a variable to remove");
    for method in METHODS {
        let builder = Process::builder(variables, ()).start_method(method);
        let builder = builder.env("MULTIPROC_TEST_A", "first").env("MULTIPROC_TEST_A", "second");
        let builder = builder.env("MULTIPROC_TEST_B", "").env_remove("PATH");
        let seen = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(seen.get("MULTIPROC_TEST_A").map(String::as_str), Some("second"), "{method:?}");
        assert_eq!(seen.get("MULTIPROC_TEST_B").map(String::as_str), Some(""), "{method:?}");
        assert_eq!(seen.get("PATH"), None, "{method:?}");
        let mut expected = variables();
        expected.remove("PATH");
        let others = seen.into_iter().filter(|(name, _)| !name.starts_with("MULTIPROC_TEST"));
        assert_eq!(others.collect::<BTreeMap<_, _>>(), expected, "{method:?}");
    }
}

#[test]
fn a_cleared_environment_is_empty_but_for_what_is_set_afterwards() {
    watchdog();
    for method in METHODS {
        let builder = Process::builder(variables, ()).start_method(method);
        let builder = builder.env("GONE", "1").env_clear().env("KEPT", "2");
        let seen = builder.spawn().expect("spawn").join().expect("join");
        let expected = BTreeMap::from([("KEPT".to_owned(), "2".to_owned())]);
        assert_eq!(seen, expected, "{method:?}");
    }
}

#[test]
fn the_child_starts_in_its_directory() {
    watchdog();
    let directory = TempDir::new();
    for method in METHODS {
        let here = || std::env::current_dir().expect("a directory");
        let builder = Process::builder(here, ()).start_method(method).current_dir(&*directory);
        assert_eq!(builder.spawn().expect("spawn").join().expect("join"), *directory);
        let elsewhere = Process::builder(here, ()).start_method(method).spawn();
        assert_eq!(elsewhere.expect("spawn").join().expect("join"), here());
    }
}

fn copy_input() -> usize {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).expect("stdin");
    std::io::stdout().write_all(&bytes).expect("stdout");
    eprint!("{} bytes", bytes.len());
    bytes.len()
}

#[test]
fn piped_streams_lead_to_the_handle() {
    watchdog();
    for method in METHODS {
        let builder = Process::builder(copy_input, ()).start_method(method);
        let builder = builder.stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
        let mut process = builder.spawn().expect("spawn");
        process.stdin.take().expect("stdin").write_all(b"hello").expect("write");
        let (mut out, mut err) = (String::new(), String::new());
        process.stdout.take().expect("stdout").read_to_string(&mut out).expect("read");
        process.stderr.take().expect("stderr").read_to_string(&mut err).expect("read");
        assert_eq!((out.as_str(), err.as_str()), ("hello", "5 bytes"), "{method:?}");
        assert_eq!(process.join().expect("join"), 5);
    }
}

fn stream_targets() -> Vec<String> {
    let target = |fd| fs::read_link(format!("/proc/self/fd/{fd}")).expect("an open stream");
    (0..3).map(|fd| target(fd).to_string_lossy().into_owned()).collect()
}

#[test]
fn null_streams_lead_to_dev_null() {
    watchdog();
    for method in METHODS {
        let builder = Process::builder(stream_targets, ()).start_method(method);
        let builder = builder.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
        let mut process = builder.spawn().expect("spawn");
        assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
        assert_eq!(process.join().expect("join"), ["/dev/null"; 3], "{method:?}");
    }
}

#[test]
fn inherited_streams_lead_to_where_the_parents_lead() {
    watchdog();
    for method in METHODS {
        let builder = Process::builder(stream_targets, ()).start_method(method);
        let builder = builder.stdin(Stdio::Inherit);
        let mut process = builder.spawn().expect("spawn");
        assert_eq!(process.join().expect("join"), stream_targets(), "{method:?}");
    }
}

#[test]
fn join_closes_a_piped_stdin_so_that_the_child_can_end() {
    watchdog();
    let builder = Process::builder(read_all, ()).stdin(Stdio::Piped);
    let mut process = builder.spawn().expect("spawn");
    process.stdin.as_mut().expect("stdin").write_all(b"words").expect("write");
    assert!(process.join_timeout(Duration::ZERO).expect_err("it reads on").is_timeout());
    assert_eq!(process.join().expect("join"), "words");
}

fn allowed_cpus() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("a list of CPUs").trim().to_owned()
}

#[test]
fn affinity_restricts_the_child_and_its_parallelism() {
    watchdog();
    let list = allowed_cpus();
    let last = list.rsplit([',', '-']).next().expect("a CPU").parse::<usize>().expect("a number");
    for method in METHODS {
        let look = || (allowed_cpus(), available_parallelism().get());
        let builder = Process::builder(look, ()).start_method(method).affinity([last]);
        let seen = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(seen, (last.to_string(), 1), "{method:?}");
    }
    assert_eq!(allowed_cpus(), list, "the parent's own is as it was");
}

fn niceness() -> i32 {
    // SAFETY: getpriority takes plain numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

#[test]
fn nice_is_the_childs_own() {
    watchdog();
    let before = niceness();
    for method in METHODS {
        let builder = Process::builder(niceness, ()).start_method(method).nice(19);
        assert_eq!(builder.spawn().expect("spawn").join().expect("join"), 19, "{method:?}");
    }
    assert_eq!(niceness(), before);
}

fn limit(resource: u32) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit for the kernel to fill.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    (limit.rlim_cur, limit.rlim_max)
}

fn limits() -> Vec<(u64, u64)> {
    let all = [libc::RLIMIT_AS, libc::RLIMIT_CPU, libc::RLIMIT_NOFILE, libc::RLIMIT_CORE];
    all.into_iter().map(limit).collect()
}

#[test]
fn every_limit_is_the_childs_own() {
    watchdog();
    let before = limits();
    for method in METHODS {
        let builder = Process::builder(limits, ()).start_method(method);
        let builder = builder.memory_limit(1 << 34).cpu_time_limit(Duration::from_millis(70_500));
        let seen = builder.open_files_limit(99).core_limit(0).spawn().expect("spawn").join();
        let expected = [(1 << 34, 1 << 34), (71, 71), (99, 99), (0, 0)];
        assert_eq!(seen.expect("join"), expected, "{method:?}");
    }
    assert_eq!(limits(), before);
}

#[test]
fn a_memory_limit_makes_a_large_allocation_fail() {
    watchdog();
    let reserve = |bytes: usize| Vec::<u8>::new().try_reserve_exact(bytes).is_ok();
    for method in METHODS {
        let run = |bytes: usize| {
            let builder = Process::builder(reserve, (bytes,)).start_method(method);
            builder.memory_limit(1 << 30).spawn().expect("spawn").join().expect("join")
        };
        assert!(run(1 << 20), "{method:?}");
        assert!(!run(2 << 30), "{method:?}");
    }
}

#[test]
fn a_limit_of_open_files_makes_an_open_fail() {
    watchdog();
    let open_many = || {
        let files = (0..64).map_while(|_| fs::File::open("/dev/null").ok());
        files.collect::<Vec<_>>().len()
    };
    let builder = Process::builder(open_many, ()).open_files_limit(32);
    let opened = builder.spawn().expect("spawn").join().expect("join");
    assert!((8..32).contains(&opened), "{opened}");
    let unlimited = Process::spawn(open_many, ()).expect("spawn").join();
    assert_eq!(unlimited.expect("join"), 64);
}

#[test]
fn a_child_that_uses_up_its_processor_time_is_killed() {
    watchdog();
    let spin = || {
        let mut x = 0u64;
        loop {
            x = std::hint::black_box(x.wrapping_add(1));
        }
    };
    let builder = Process::builder::<_, ()>(move || -> () { spin() }, ());
    let mut process = builder.cpu_time_limit(Duration::from_secs(1)).spawn().expect("spawn");
    let error = process.join().expect_err("killed");
    let signal = error.exit_status().and_then(|status| status.signal());
    assert!(matches!(signal, Some(libc::SIGKILL | libc::SIGXCPU)), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_errors_that_name_the_value() {
    watchdog();
    let refused = |error: Error, value: &str| {
        assert!(error.is_invalid_input() && error.to_string().contains(value), "{error}");
        assert_eq!(error.execution(), Execution::NotStarted);
    };
    for method in METHODS {
        let builder = || Process::builder(names, ()).start_method(method);
        refused(builder().name("a\0b").spawn().expect_err("NUL"), r"a\0b");
        refused(builder().current_dir("/a\0b").spawn().expect_err("NUL"), r"a\0b");
        refused(builder().env("NUL", "a\0b").spawn().expect_err("NUL"), "NUL");
        refused(builder().env("A=B", "c").spawn().expect_err("a name with ="), "A=B");
        let signal = ParentDeath::Signal(9999);
        refused(builder().on_parent_death(signal).spawn().expect_err("no signal"), "9999");
    }
}

#[test]
fn settings_that_the_system_refuses_are_start_errors_that_say_which() {
    watchdog();
    for method in METHODS {
        let builder = || Process::builder(names, ()).start_method(method);
        let refused = |error: Error, what: &str| {
            let text = error.to_string();
            assert!(error.is_start() && text.contains(what), "{method:?}: {text}");
        };
        let nowhere = builder().current_dir("/no/such/directory").spawn();
        refused(nowhere.expect_err("no directory"), "directory");
        refused(builder().affinity([5000]).spawn().expect_err("no CPU"), "CPU 5000");
        refused(builder().affinity([1023]).spawn().expect_err("no CPU"), "CPU affinity");
        // The next one starts: a failed start harms nothing, the fork server least of all.
        assert!(!builder().spawn().expect("spawn").join().expect("join").2);
    }
}

// --- Results ------------------------------------------------------------------------------------

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Circle { radius: f64 },
    Named(String, Option<Box<Shape>>),
}

#[test]
fn results_are_typed_by_the_function() {
    watchdog();
    fn nest(radius: f64, name: String) -> Shape {
        Shape::Named(name, Some(Box::new(Shape::Circle { radius })))
    }
    let mut shape = Process::spawn(nest, (1.5, "outer".to_owned())).expect("spawn");
    let expected = Shape::Named("outer".to_owned(), Some(Box::new(Shape::Circle { radius: 1.5 })));
    assert_eq!(shape.join().expect("join"), expected);
    let mut nothing: Process<()> = Process::spawn(|| (), ()).expect("spawn");
    nothing.join().expect("join");
    let parse = |text: String| text.parse::<u8>().map_err(|error| error.to_string());
    let mut failed: Process<Result<u8, String>> =
        Process::spawn(parse, ("x".to_owned(),)).expect("spawn");
    assert_eq!(failed.join().expect("join"), Err("invalid digit found in string".to_owned()));
    assert_eq!(failed.exit_status(), Some(ExitStatus::Code(0)), "an Err is a value like another");
}

#[test]
fn many_megabytes_travel_both_ways() {
    watchdog();
    fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }
    let bytes: Vec<u8> = (0..48 << 20).map(|n: u32| (n % 251) as u8).collect();
    for method in METHODS {
        let builder = Process::builder(reverse, (bytes.clone(),)).start_method(method);
        let mut returned = builder.spawn().expect("spawn").join().expect("join");
        returned.reverse();
        assert!(returned == bytes, "{method:?}");
    }
}

#[test]
fn a_result_is_taken_once() {
    watchdog();
    let mut process = Process::spawn(|| 1, ()).expect("spawn");
    assert_eq!(process.join().expect("join"), 1);
    let error = process.join().expect_err("taken");
    assert!(error.is_invalid_input() && error.to_string().contains(process.name()), "{error}");
    assert!(process.try_join().expect_err("taken").is_invalid_input());
    assert!(process.join_timeout(Duration::ZERO).expect_err("taken").is_invalid_input());
}

#[test]
fn a_join_with_a_timeout_waits_no_longer_and_loses_nothing() {
    watchdog();
    let builder = Process::builder(read_all, ()).stdin(Stdio::Piped);
    let mut process = builder.spawn().expect("spawn");
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        let error = process.join_timeout(timeout).expect_err("it runs");
        assert!(error.is_timeout() && error.to_string().contains(process.name()), "{error}");
    }
    assert!(process.try_join().expect("no error").is_none());
    assert!(process.is_alive());
    assert_eq!(process.exit_status(), None);
    drop(process.stdin.take());
    assert_eq!(process.join_timeout(CENTURIES).expect("join"), "");
    assert!(!process.is_alive());
}

#[test]
fn the_longest_timeout_of_all_is_for_ever() {
    watchdog();
    let mut process = Process::spawn(|| 2, ()).expect("spawn");
    assert_eq!(process.join_timeout(Duration::MAX).expect("join"), 2);
}

#[test]
fn try_join_has_the_result_when_the_process_has_ended() {
    watchdog();
    let mut process = Process::spawn(|| 3, ()).expect("spawn");
    wait_until("the process has ended", || !process.is_alive());
    assert_eq!(process.try_join().expect("no error"), Some(3));
}

/// Serialises to nothing and back, but for one of the two.
#[derive(Debug)]
struct Stubborn<const ENCODES: bool>;

impl<const ENCODES: bool> Serialize for Stubborn<ENCODES> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match ENCODES {
            true => serializer.serialize_unit(),
            false => Err(serde::ser::Error::custom("no letters today")),
        }
    }
}

impl<'de, const ENCODES: bool> Deserialize<'de> for Stubborn<ENCODES> {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("unreadable handwriting"))
    }
}

#[test]
fn a_result_that_cannot_be_encoded_is_an_error_that_names_the_type() {
    watchdog();
    let mut process = Process::spawn(|| Stubborn::<false>, ()).expect("spawn");
    let error = process.join().expect_err("not encodable");
    assert!(error.is_encode() && error.to_string().contains("Stubborn<false>"), "{error}");
    assert_eq!(error.execution(), Execution::Failed);
    assert_eq!(process.exit_status(), Some(ExitStatus::Code(1)));
}

#[test]
fn a_result_that_cannot_be_decoded_is_an_error_that_names_the_type() {
    watchdog();
    let mut process = Process::spawn(|| Stubborn::<true>, ()).expect("spawn");
    let error = process.join().expect_err("not decodable");
    assert!(error.is_decode() && error.to_string().contains("Stubborn<true>"), "{error}");
    assert_eq!(error.execution(), Execution::Failed);
    assert_eq!(process.exit_status(), Some(ExitStatus::Code(0)), "the child did its part");
}

#[test]
fn an_argument_that_cannot_be_encoded_starts_nothing() {
    watchdog();
    let builder = Process::builder(|_: Stubborn<false>| (), (Stubborn,)).name("unsent");
    let error = builder.spawn().expect_err("not encodable");
    assert!(error.is_encode() && error.to_string().contains("Stubborn<false>"), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
    assert!(!active_children().iter().any(|child| child.name() == "unsent"));
}

#[test]
fn an_argument_that_cannot_be_decoded_keeps_the_function_from_running() {
    watchdog();
    let mut process = Process::spawn(|_: Stubborn<true>| (), (Stubborn,)).expect("spawn");
    let error = process.join().expect_err("not decodable");
    assert!(error.is_decode() && error.to_string().contains("Stubborn<true>"), "{error}");
    assert_eq!(error.execution(), Execution::NotStarted);
}

// --- Ends ---------------------------------------------------------------------------------------

#[test]
fn exit_status_is_an_enum_with_pythons_number() {
    watchdog();
    let mut fine = Process::spawn(|| (), ()).expect("spawn");
    fine.join().expect("join");
    assert_eq!(fine.exit_status(), Some(ExitStatus::Code(0)));
    let mut exited: Process<()> = Process::spawn(|| exit(7), ()).expect("spawn");
    let error = exited.join().expect_err("it exited");
    assert!(error.is_exited() && error.to_string().contains("exit code 7"), "{error}");
    assert_eq!(error.exit_status(), Some(ExitStatus::Code(7)));
    assert_eq!(error.execution(), Execution::Unknown);
    assert_eq!(exited.exit_status().and_then(|status| status.exitcode()), Some(7));
    let mut killed = started();
    killed.kill().expect("kill");
    let error = killed.join().expect_err("killed");
    assert!(error.is_exited() && error.to_string().contains("SIGKILL"), "{error}");
    assert_eq!(killed.exit_status().and_then(|status| status.exitcode()), Some(-libc::SIGKILL));
}

#[test]
fn interrupt_terminate_and_kill_send_their_signals() {
    watchdog();
    // An ignored SIGINT is inherited, and a test that runs in the background has it ignored.
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    type Send = fn(&Process<()>) -> multiproc::Result<()>;
    let ways: [(Send, i32); 3] = [
        (|process| process.interrupt(), libc::SIGINT),
        (|process| process.terminate(), libc::SIGTERM),
        (|process| process.kill(), libc::SIGKILL),
    ];
    for (send, signal) in ways {
        let mut process = started();
        send(&process).expect("sent");
        let status = process.join().expect_err("it was killed").exit_status().expect("a status");
        assert_eq!(status.signal(), Some(signal));
        send(&process).expect("a signal to a process that has ended is no error");
    }
}

#[test]
fn the_pidfd_becomes_readable_when_the_process_ends() {
    watchdog();
    let process = started();
    let readable = |timeout: nix::poll::PollTimeout| {
        let flags = nix::poll::PollFlags::POLLIN;
        let mut polls = [nix::poll::PollFd::new(process.as_fd(), flags)];
        nix::poll::poll(&mut polls, timeout).expect("poll") == 1
    };
    assert!(!readable(nix::poll::PollTimeout::ZERO));
    process.kill().expect("kill");
    assert!(readable(nix::poll::PollTimeout::NONE));
    assert!(!process.is_alive());
}

#[test]
fn close_gives_back_an_ended_process_and_refuses_a_running_one() {
    watchdog();
    let mut ended = Process::spawn(|| (), ()).expect("spawn");
    ended.join().expect("join");
    ended.close().expect("it has ended");
    let running = Process::builder(for_ever, ()).name("not closed").spawn().expect("spawn");
    let error = running.close().expect_err("it runs");
    assert!(error.is_invalid_input() && error.to_string().contains("not closed"), "{error}");
    let child = active_children().into_iter().find(|child| child.name() == "not closed");
    let child = child.expect("it was left running");
    child.terminate().expect("terminate");
    assert_eq!(child.join().expect("join").signal(), Some(libc::SIGTERM));
}

#[test]
fn a_dropped_handle_leaves_no_zombie() {
    watchdog();
    let gone = |pid: u32| common::processes::entry(pid).is_none();
    // Ended before the drop.
    let process = Process::spawn(|| (), ()).expect("spawn");
    let pid = process.pid();
    wait_until("it has ended", || !is_alive(pid));
    drop(process);
    assert!(gone(pid), "reaped by the drop");
    // Ends after the drop, which closes its stdin.
    let builder = Process::builder(read_all, ()).stdin(Stdio::Piped);
    let process = builder.spawn().expect("spawn");
    let pid = process.pid();
    drop(process);
    wait_until("it is reaped in the background", || gone(pid));
}

#[test]
fn active_children_are_those_that_run() {
    watchdog();
    let listed = |name: &str| active_children().into_iter().find(|child| child.name() == name);
    let mut process = Process::builder(read_all, ()).name("listed").daemon(true);
    process = process.stdin(Stdio::Piped);
    let mut process = process.spawn().expect("spawn");
    let child = listed("listed").expect("it runs");
    assert_eq!((child.pid(), child.is_daemon()), (process.pid(), true));
    assert!(child.is_alive());
    drop(process.stdin.take());
    assert_eq!(child.join().expect("join"), ExitStatus::Code(0));
    assert!(!child.is_alive() && listed("listed").is_none());
    assert_eq!(process.join().expect("the result is still there"), "");
}

#[test]
fn a_child_knows_its_parent() {
    watchdog();
    assert!(parent_process().is_none());
    assert_eq!(current_process().name(), "MainProcess");
    let look = || {
        let parent = parent_process().expect("a child has a parent");
        (parent.pid(), parent.is_alive(), parent.wait(Some(Duration::ZERO)))
    };
    for method in METHODS {
        let builder = Process::builder(look, ()).start_method(method);
        let seen = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(seen, (std::process::id(), true, false), "{method:?}");
    }
}

#[test]
fn a_panic_arrives_with_message_and_place() {
    watchdog();
    let fail = |name: String| -> u32 { panic!("no {name} here") };
    for method in METHODS {
        let builder = Process::builder(fail, ("tea".to_owned(),)).start_method(method);
        let mut process = builder.stderr(Stdio::Piped).spawn().expect("spawn");
        let mut stderr = String::new();
        process.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
        let error = process.join().expect_err("it panicked");
        let info = error.panic().expect("a panic");
        assert_eq!(info.message, "no tea here", "{method:?}");
        let location = info.location.as_deref().expect("a place");
        assert!(location.starts_with("tests/process.rs:"), "{location}");
        assert!(stderr.contains("no tea here"), "a process panics aloud, as main does: {stderr}");
        assert!(error.is_panic() && error.to_string().contains("no tea here"), "{error}");
        assert_eq!(error.execution(), Execution::Failed);
        assert_eq!(process.exit_status(), Some(ExitStatus::Code(1)));
    }
}

#[test]
fn panics_without_a_text_and_with_a_very_long_one_arrive_too() {
    watchdog();
    fn run(function: impl multiproc::Function<(), Output = ()>) -> Error {
        let builder = Process::builder(function, ()).stderr(Stdio::Null);
        builder.spawn().expect("spawn").join().expect_err("it panicked")
    }
    let error = run(|| std::panic::panic_any(5u8));
    assert_eq!(error.panic().expect("a panic").message, "<non-string payload>");
    let error = run(|| panic!("{}", "long ".repeat(1 << 20)));
    let info = error.panic().expect("a panic, if shortened");
    assert!(info.message.starts_with("long long long"), "{}", info.message.len());
    assert!(info.location.is_some());
}

#[test]
fn a_backtrace_arrives_if_the_child_is_asked_for_one() {
    watchdog();
    let fail = || panic!("trace me");
    let builder = Process::builder(fail, ()).env("RUST_BACKTRACE", "1").stderr(Stdio::Null);
    let mut process: Process<()> = builder.spawn().expect("spawn");
    let error = process.join().expect_err("it panicked");
    let backtrace = error.panic().and_then(|info| info.backtrace.clone()).expect("a backtrace");
    assert!(backtrace.contains("process.rs"), "{backtrace}");
}

#[test]
fn a_crash_arrives_as_its_signal() {
    watchdog();
    fn run(function: impl multiproc::Function<(), Output = ()>) -> ExitStatus {
        let builder = Process::builder(function, ()).core_limit(0).stderr(Stdio::Null);
        let error = builder.spawn().expect("spawn").join().expect_err("it crashed");
        assert!(error.is_exited(), "{error}");
        error.exit_status().expect("a status")
    }
    let aborted = run(|| std::process::abort());
    assert_eq!(aborted, run(|| std::process::abort()));
    assert_eq!((aborted.signal(), aborted.core_dumped()), (Some(libc::SIGABRT), false));
    let segfault = run(|| {
        // SAFETY: raise has no preconditions; it ends this child.
        unsafe { libc::raise(libc::SIGSEGV) };
    });
    assert_eq!(segfault.signal(), Some(libc::SIGSEGV));
    // A stack overflow: std's own handler turns it into SIGABRT where it is installed.
    let overflow = run(|| {
        dive(1);
    });
    assert!(matches!(overflow.signal(), Some(libc::SIGSEGV | libc::SIGABRT)), "{overflow}");
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn dive(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    dive(page[511] + 1) + page[0]
}

#[test]
fn a_core_dump_is_told() {
    watchdog();
    let directory = TempDir::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited && kill -SEGV $$"]).current_dir(&*directory);
    let status = shell.stderr(std::process::Stdio::null()).status().expect("sh");
    if !std::os::unix::process::ExitStatusExt::core_dumped(&status) {
        println!("skipped: this system writes no cores");
        return;
    }
    let crash = || std::process::abort();
    let builder = Process::builder(crash, ()).core_limit(u64::MAX).current_dir(&*directory);
    let mut process: Process<()> = builder.spawn().expect("spawn");
    let error = process.join().expect_err("it crashed");
    let status = error.exit_status().expect("a status");
    assert!(status.core_dumped(), "{error}");
    assert!(error.to_string().contains("core dumped"), "{error}");
}

#[test]
fn what_a_child_printed_is_flushed_before_it_ends() {
    watchdog();
    fn output(function: impl multiproc::Function<(), Output = ()>, method: StartMethod) -> String {
        let builder = Process::builder(function, ()).start_method(method);
        let builder = builder.stdout(Stdio::Piped).stderr(Stdio::Null);
        let mut process = builder.spawn().expect("spawn");
        let mut text = String::new();
        process.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
        let _ = process.join();
        text
    }
    for method in METHODS {
        assert_eq!(output(|| print!("no newline"), method), "no newline", "{method:?}");
        let in_c = || {
            // SAFETY: the format is a C string without conversions.
            unsafe { libc::printf(c"C stdio".as_ptr()) };
        };
        assert_eq!(output(in_c, method), "C stdio", "{method:?}");
        let panics = || {
            print!("before the panic");
            panic!("and gone");
        };
        assert_eq!(output(panics, method), "before the panic", "{method:?}");
        let exits = || {
            print!("before the exit");
            exit(3)
        };
        assert_eq!(output(exits, method), "before the exit", "{method:?}");
    }
}

#[test]
fn a_child_does_not_wait_for_threads_that_it_left_running() {
    watchdog();
    let leave_a_thread = || {
        std::thread::spawn(for_ever);
        4
    };
    for method in METHODS {
        let builder = Process::builder(leave_a_thread, ()).start_method(method);
        assert_eq!(builder.spawn().expect("spawn").join().expect("join"), 4, "{method:?}");
    }
}

#[test]
fn many_threads_start_processes_at_once() {
    watchdog();
    for method in METHODS {
        std::thread::scope(|scope| {
            let start = |number: u64| {
                let builder = Process::builder(|n: u64| n * n, (number,)).start_method(method);
                assert_eq!(builder.spawn().expect("spawn").join().expect("join"), number * number);
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || start(n))).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
        });
    }
}

#[test]
fn a_handle_can_be_printed_and_sent_to_another_thread() {
    watchdog();
    let mut process = Process::builder(|| 6, ()).name("moved").spawn().expect("spawn");
    let text = format!("{process:?}");
    assert!(text.contains("moved") && text.contains(&process.pid().to_string()), "{text}");
    let joined = std::thread::spawn(move || process.join()).join().expect("a thread");
    assert_eq!(joined.expect("join"), 6);
}

#[test]
fn processes_and_pools_start_inside_a_process() {
    watchdog();
    fn inner(x: u64) -> u64 {
        x + 1
    }
    let outer = |x: u64| -> Result<u64, String> {
        let text = |error: Error| error.to_string();
        let process = Process::spawn(inner, (x,)).map_err(text)?.join().map_err(text)?;
        let pool = multiproc::Pool::builder().workers(2).build().map_err(text)?;
        Ok(process + pool.map(inner, 0..4).map_err(text)?.iter().sum::<u64>())
    };
    for method in METHODS {
        let builder = Process::builder(outer, (10,)).start_method(method);
        let seen = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(seen, Ok(11 + 10), "{method:?}");
    }
}
