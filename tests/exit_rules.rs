//! What becomes of children when their program ends, however it ends. Helper programs are watched
//! from outside.

mod common;

use common::isolated::{self, helper, start_helper};
use common::processes::{Entry, descendants, is_alive, is_asleep, wait_until_gone};
use common::temp::TempDir;
use common::wait_until;
use multiproc::{ParentDeath, Pool, Process, ProcessBuilder, StartMethod, parent_process};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

fn main() -> ExitCode {
    let cases = cases![
        children_are_waited_for_when_main_returns,
        children_are_waited_for_on_exit,
        children_are_waited_for_when_main_panics,
        children_whose_handle_was_dropped_are_waited_for,
        children_of_a_process_child_are_waited_for_too,
        daemons_are_terminated_when_main_returns,
        a_daemon_that_ignores_the_signal_is_killed,
        pools_that_are_never_dropped_end_with_the_program,
        nothing_survives_a_killed_program,
        nothing_survives_an_aborted_program,
        nothing_survives_a_program_killed_while_it_starts_children,
        a_chosen_signal_tells_of_the_death_of_the_parent,
        a_child_that_ignores_the_death_of_its_parent_goes_on,
        a_child_outlives_the_thread_that_started_it,
    ];
    let helpers = cases![
        returns_from_main,
        exits,
        panics,
        drops_its_handle,
        has_a_grandchild,
        has_a_daemon,
        has_a_stubborn_daemon,
        keeps_a_pool,
        starts_everything,
        starts_everything_and_aborts,
        starts_and_starts,
        has_children_with_a_signal,
        has_children_that_ignore_its_death,
    ];
    isolated::main(cases, helpers)
}

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

/// The file that a child writes, in the directory that the case has named.
fn note(name: &str, text: &str) {
    let directory = std::env::var("NOTES").expect("a directory for notes");
    let path = Path::new(&directory).join(name);
    fs::write(path.with_extension("new"), text).expect("write");
    fs::rename(path.with_extension("new"), path).expect("rename");
}

/// Starts a helper program that takes notes, and reads its first line.
fn start(name: &str, notes: &TempDir) -> (Child, String) {
    let mut command = helper(name);
    command.env("NOTES", &**notes).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = command.spawn().expect("the helper starts");
    let mut line = String::new();
    // Unbuffered enough: the helper says nothing more until it is told to.
    BufReader::new(program.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    (program, line.trim_end().to_owned())
}

fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().expect("flush");
}

// --- Waiting at the end -------------------------------------------------------------------------

/// Ends when the program's stdin ends, and then leaves a note.
fn note_at_end_of_input(name: String) {
    std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin");
    note(&name, "done");
}

fn start_slow_children() -> Vec<Process<()>> {
    let start = |method| {
        let builder = Process::builder(note_at_end_of_input, (format!("{method:?}"),));
        builder.start_method(method).spawn().expect("start")
    };
    METHODS.into_iter().map(start).collect()
}

fn returns_from_main() {
    let children = start_slow_children();
    say("main returns");
    drop(children);
}

fn exits() {
    let _children = start_slow_children();
    say("main exits");
    std::process::exit(17);
}

fn panics() {
    let _children = start_slow_children();
    say("main panics");
    panic!("as it should");
}

fn drops_its_handle() {
    drop(start_slow_children());
    say("main returns");
}

fn has_a_grandchild() {
    let child = || drop(start_slow_children());
    Process::builder(child, ()).spawn().expect("spawn");
    say("main returns");
}

#[track_caller]
fn waits_for_its_children(name: &str, code: i32) {
    let notes = TempDir::new();
    let (mut program, _) = start(name, &notes);
    // It waits while its children run: they end only when its stdin does.
    let pid = program.id();
    wait_until("it waits, or has ended", || is_asleep(pid) || !is_alive(pid));
    assert!(program.try_wait().expect("wait").is_none(), "it does not wait for its children");
    drop(program.stdin.take());
    assert_eq!(program.wait().expect("wait").code(), Some(code));
    for method in METHODS {
        assert!(notes.join(format!("{method:?}")).exists(), "{method:?}: the child was cut short");
    }
}

fn children_are_waited_for_when_main_returns() {
    waits_for_its_children("returns_from_main", 0);
}

fn children_are_waited_for_on_exit() {
    waits_for_its_children("exits", 17);
}

fn children_are_waited_for_when_main_panics() {
    waits_for_its_children("panics", 101);
}

fn children_whose_handle_was_dropped_are_waited_for() {
    waits_for_its_children("drops_its_handle", 0);
}

fn children_of_a_process_child_are_waited_for_too() {
    waits_for_its_children("has_a_grandchild", 0);
}

// --- Daemons ------------------------------------------------------------------------------------

/// Leaves a note on `SIGTERM` and exits.
fn wait_for_terminate(name: String) {
    let signals = block(libc::SIGTERM);
    note(&format!("{name}.ready"), "");
    wait_for(&signals);
    note(&name, "terminated");
}

fn block(signal: i32) -> libc::sigset_t {
    // SAFETY: zeros are a valid set for sigemptyset to fill, and the set lives through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

fn wait_for(signals: &libc::sigset_t) -> i32 {
    let mut signal = 0;
    // SAFETY: both pointers are to live values.
    unsafe { libc::sigwait(signals, &raw mut signal) };
    signal
}

fn ignore_terminate() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    note("ready", "");
    loop {
        std::thread::park();
    }
}

fn wait_for_note(name: &str) {
    let directory = std::env::var("NOTES").expect("a directory for notes");
    let path = Path::new(&directory).join(name);
    wait_until(&format!("there is a note {name}"), || path.exists());
}

fn has_a_daemon() {
    let start = |method| {
        let builder = Process::builder(wait_for_terminate, (format!("{method:?}"),));
        builder.start_method(method).daemon(true).spawn().expect("start")
    };
    let _daemons: Vec<_> = METHODS.into_iter().map(start).collect();
    METHODS.into_iter().for_each(|method| wait_for_note(&format!("{method:?}.ready")));
    say("main returns");
}

fn has_a_stubborn_daemon() {
    let builder = Process::builder(ignore_terminate, ());
    let daemon = builder.daemon(true).spawn().expect("start");
    wait_for_note("ready");
    say(&daemon.pid().to_string());
}

fn daemons_are_terminated_when_main_returns() {
    let notes = TempDir::new();
    let (mut program, _) = start("has_a_daemon", &notes);
    assert_eq!(program.wait().expect("wait").code(), Some(0));
    for method in METHODS {
        let note = fs::read_to_string(notes.join(format!("{method:?}")));
        assert_eq!(note.ok().as_deref(), Some("terminated"), "{method:?}");
    }
}

fn a_daemon_that_ignores_the_signal_is_killed() {
    let notes = TempDir::new();
    let (mut program, pid) = start("has_a_stubborn_daemon", &notes);
    let pid = pid.parse().expect("a pid");
    assert_eq!(program.wait().expect("wait").code(), Some(0));
    assert!(!is_alive(pid), "it was killed and reaped before the program ended");
}

// --- Nothing is left ----------------------------------------------------------------------------

fn keeps_a_pool() {
    let pool = Pool::builder().workers(2).build().expect("a pool");
    assert_eq!(pool.apply(|| 1, ()).expect("apply"), 1);
    std::mem::forget(pool);
    say("main returns once it is told to");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin");
}

fn pools_that_are_never_dropped_end_with_the_program() {
    let mut program = start_helper("keeps_a_pool");
    let mut line = String::new();
    BufReader::new(program.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let pids = pids(&descendants(program.id()));
    assert_eq!(pids.len(), 2);
    drop(program.stdin.take());
    assert_eq!(program.wait().expect("wait").code(), Some(0));
    wait_until_gone(&pids);
}

fn pids(entries: &[Entry]) -> Vec<u32> {
    entries.iter().filter(|entry| entry.is_alive()).map(|entry| entry.pid).collect()
}

fn park() {
    loop {
        std::thread::park();
    }
}

/// Builds a pool of each method in a worker, and keeps them.
fn nest() -> usize {
    let methods = [StartMethod::Fork, StartMethod::ForkServer, StartMethod::Spawn];
    let nested = methods.map(|method| {
        let pool = Pool::builder().workers(1).start_method(method).build();
        let pool = pool.expect("a nested pool");
        assert_eq!(pool.apply(|| 1, ()).expect("apply"), 1);
        std::mem::forget(pool);
    });
    nested.len()
}

fn start_everything() {
    // Fork first: the other pools have threads.
    let forked = Process::fork(park).spawn().expect("fork");
    let copies = Pool::builder().workers(2).start_method(StartMethod::Fork).build().expect("fork");
    let served = Pool::builder().workers(2).start_method(StartMethod::ForkServer).build();
    let served = served.expect("a pool");
    let spawned = Pool::builder().workers(2).build().expect("a pool");
    let process = Process::builder(park, ()).spawn().expect("spawn");
    let daemon = Process::builder(park, ()).start_method(StartMethod::ForkServer);
    let daemon = daemon.daemon(true).spawn().expect("start");
    // A worker of the fork server or of a fork pool has one thread, as nest() needs.
    for pool in [&spawned, &served, &copies] {
        assert_eq!(pool.apply(nest, ()).expect("nest"), 3);
        drop(pool.apply_async(park, ()).expect("a task that is running at the end"));
    }
    std::mem::forget((forked, copies, served, spawned, process, daemon));
}

fn starts_everything() {
    start_everything();
    say("started");
    park();
}

fn starts_everything_and_aborts() {
    start_everything();
    say("started");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin");
    std::process::abort();
}

/// The pids of all that `starts_everything` starts: 1 + (1 + 2) + (1 + 2) + 2 + 1 + 1 by itself,
/// and in each of three workers (1 + 1) + (1 + 1) + 1.
fn started_everything(program: &Child) -> Vec<u32> {
    let pids = pids(&descendants(program.id()));
    assert_eq!(pids.len(), 11 + 3 * 5, "{:?}", descendants(program.id()));
    pids
}

fn nothing_survives_a_killed_program() {
    let notes = TempDir::new();
    let (mut program, _) = start("starts_everything", &notes);
    let pids = started_everything(&program);
    program.kill().expect("kill");
    program.wait().expect("wait");
    wait_until_gone(&pids);
}

fn nothing_survives_an_aborted_program() {
    let notes = TempDir::new();
    let (mut program, _) = start("starts_everything_and_aborts", &notes);
    let pids = started_everything(&program);
    drop(program.stdin.take());
    assert!(!program.wait().expect("wait").success());
    wait_until_gone(&pids);
}

/// Starts and ends processes and pools without a pause.
fn starts_and_starts() {
    say("starting");
    loop {
        for method in METHODS {
            let pool = Pool::builder().workers(3).start_method(method).build();
            let process = Process::builder(park, ()).start_method(method).daemon(true).spawn();
            drop((pool, process.map(|process| process.kill())));
        }
    }
}

fn nothing_survives_a_program_killed_while_it_starts_children() {
    for round in 0..30 {
        let notes = TempDir::new();
        let (mut program, _) = start("starts_and_starts", &notes);
        // A different moment of a start each time; whatever it is, nothing may be left.
        std::thread::sleep(Duration::from_micros(700 * round));
        program.kill().expect("kill");
        program.wait().expect("wait");
        // The orphans are adopted by the harness, which is this process's parent.
        let parent = std::os::unix::process::parent_id();
        let orphans = || {
            let mut table = common::processes::children(parent);
            table.retain(|entry| entry.pid != std::process::id() && entry.is_alive());
            table
        };
        wait_until("no orphan runs", || orphans().is_empty());
    }
}

// --- The death of the parent --------------------------------------------------------------------

const CHOSEN: i32 = libc::SIGUSR1;

fn note_the_signal(name: String) {
    let signals = block(CHOSEN);
    note(&format!("{name}.ready"), "");
    let signal = wait_for(&signals);
    let alive = parent_process().is_some_and(|parent| parent.is_alive());
    note(&name, &format!("signal {signal}, parent alive: {alive}"));
}

fn note_the_death(name: String) {
    let parent = parent_process().expect("a child has a parent");
    note(&format!("{name}.ready"), "");
    let died = parent.wait(None) && parent.wait(Some(Duration::ZERO));
    note(&name, &format!("died: {died}, alive: {}", parent.is_alive()));
}

fn start_with(build: fn(String) -> ProcessBuilder<()>, action: ParentDeath) {
    let start = |method| {
        let builder = build(format!("{method:?}")).start_method(method);
        builder.on_parent_death(action).spawn().expect("start")
    };
    // Fork first, while there is one thread.
    let methods = [StartMethod::Fork, StartMethod::Spawn, StartMethod::ForkServer];
    let children: Vec<_> = methods.into_iter().map(start).collect();
    methods.into_iter().for_each(|method| wait_for_note(&format!("{method:?}.ready")));
    say("ready");
    park();
    drop(children);
}

fn has_children_with_a_signal() {
    let build = |name| Process::builder(note_the_signal, (name,));
    start_with(build, ParentDeath::Signal(CHOSEN));
}

fn has_children_that_ignore_its_death() {
    start_with(|name| Process::builder(note_the_death, (name,)), ParentDeath::Ignore);
}

#[track_caller]
fn children_note(program: &str, expected: &str) {
    let notes = TempDir::new();
    let (mut program, _) = start(program, &notes);
    let pids = pids(&descendants(program.id()));
    program.kill().expect("kill");
    program.wait().expect("wait");
    for method in [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork] {
        let path = notes.join(format!("{method:?}"));
        wait_until(&format!("the child of {method:?} has heard of the death"), || path.exists());
        assert_eq!(fs::read_to_string(path).expect("a note"), expected, "{method:?}");
    }
    wait_until_gone(&pids);
}

fn a_chosen_signal_tells_of_the_death_of_the_parent() {
    children_note("has_children_with_a_signal", &format!("signal {CHOSEN}, parent alive: false"));
}

fn a_child_that_ignores_the_death_of_its_parent_goes_on() {
    children_note("has_children_that_ignore_its_death", "died: true, alive: false");
}

fn a_child_outlives_the_thread_that_started_it() {
    // PR_SET_PDEATHSIG would kill it with the thread.
    let read = || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).expect("stdin");
        text
    };
    for method in METHODS {
        let start = move || {
            let builder = Process::builder(read, ()).start_method(method);
            builder.stdin(multiproc::Stdio::Piped).spawn().expect("start")
        };
        let mut process = std::thread::spawn(start).join().expect("the thread");
        process.stdin.as_mut().expect("piped").write_all(b"still here").expect("write");
        assert_eq!(process.join().expect("join"), "still here", "{method:?}");
    }
}
