//! Starts that fail are typed errors and leave no process; starts that must not fail do not.

mod common;

use common::isolated;
use common::processes::own_children;
use common::temp::TempDir;
use common::wait_until;
use multiproc::{Error, Execution, Pool, Process, StartMethod, Stdio};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

fn main() -> ExitCode {
    let cases = cases![
        settings_that_are_refused_leave_no_process,
        a_worker_that_fails_to_start_takes_the_others_with_it,
        a_shortage_of_descriptors_leaves_no_process,
        a_child_that_ends_before_hello_is_a_start_error,
        a_child_without_memory_ends_before_hello,
        a_child_that_never_says_hello_is_killed_at_the_start_timeout,
        a_child_of_another_build_is_refused,
        a_failed_initializer_leaves_no_process,
        a_deleted_executable_starts_workers,
        a_replaced_executable_starts_workers,
        a_variable_set_by_hand_ends_the_program,
    ];
    isolated::main(cases, cases![delete_and_start, replace_and_start])
}

const METHODS: [StartMethod; 3] = [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork];

/// Children other than the fork server, which stays for the next start.
fn strangers() -> Vec<common::processes::Entry> {
    own_children().into_iter().filter(|child| child.name != "forkserver").collect()
}

#[track_caller]
fn nothing_is_left() {
    assert!(strangers().is_empty(), "{:?}", strangers());
}

fn square(x: u64) -> u64 {
    x * x
}

fn settings_that_are_refused_leave_no_process() {
    for method in METHODS {
        let process = || Process::builder(square, (3,)).start_method(method);
        let refused = |builder: multiproc::ProcessBuilder<u64>| {
            let error = builder.spawn().expect_err("refused");
            assert!(error.is_start() || error.is_invalid_input(), "{error}");
            assert_eq!(error.execution(), Execution::NotStarted);
            nothing_is_left();
        };
        refused(process().current_dir("/no/such/directory"));
        refused(process().current_dir("/dev/null"));
        refused(process().affinity([5000]));
        refused(process().affinity([1023]));
        refused(process().name("a\0b"));
        refused(process().env("A", "b\0c"));
        refused(process().env("", "c"));
        let pool = Pool::builder().workers(2).start_method(method);
        let error = pool.affinity([1023]).build().expect_err("refused");
        assert!(error.is_start(), "{error}");
        nothing_is_left();
        let pool = Pool::builder().workers(2).start_method(method);
        let error = pool.name("a\0b").build().expect_err("refused");
        assert!(error.is_invalid_input() && error.to_string().contains(r"a\0b"), "{error}");
        nothing_is_left();
    }
}

fn a_worker_that_fails_to_start_takes_the_others_with_it() {
    for method in METHODS {
        let builder = Pool::builder().workers(8).start_method(method);
        let error = builder.pin_to([0, 0, 0, 1023]).build().expect_err("no such CPU");
        assert!(error.is_start() && error.to_string().contains("affinity"), "{method:?}: {error}");
        nothing_is_left();
    }
}

fn set_open_files(soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit, and is filled before it is given back.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}

fn a_shortage_of_descriptors_leaves_no_process() {
    // A pool of 8 first fails at its first worker, then at its second, and so on, at each of the
    // descriptors that a worker needs.
    for method in [StartMethod::Spawn, StartMethod::Fork] {
        let mut failures = 0;
        for room in 10..200 {
            let before = set_open_files(room);
            let pool = Pool::builder().workers(8).start_method(method).build();
            set_open_files(before);
            match pool {
                Ok(pool) => {
                    assert_eq!(pool.map(square, 0..3).expect("map"), [0, 1, 4]);
                    break;
                }
                Err(error) => {
                    assert!(error.is_os() || error.is_start(), "{error}");
                    failures += 1;
                    nothing_is_left();
                }
            }
        }
        assert!((8..180).contains(&failures), "{method:?}: {failures}");
        nothing_is_left();
    }
}

/// A library for `LD_PRELOAD`, so that a child goes wrong where no Rust of ours runs.
fn library(code: &str) -> Option<(TempDir, PathBuf)> {
    let directory = TempDir::new();
    let (source, library) = (directory.join("wrong.c"), directory.join("wrong.so"));
    fs::write(&source, code).expect("the source");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    match compiler.status() {
        Ok(status) if status.success() => Some((directory, library)),
        _ => {
            println!("skipped: there is no C compiler");
            None
        }
    }
}

#[track_caller]
fn fails(code: &str, check: impl Fn(&Error)) {
    fails_within(common::PATIENCE, code, check);
}

#[track_caller]
fn fails_within(timeout: Duration, code: &str, check: impl Fn(&Error)) {
    let Some((_directory, library)) = library(code) else { return };
    let builder = Process::builder(square, (3,)).stderr(Stdio::Null);
    let builder = builder.env("LD_PRELOAD", &library).start_timeout(timeout);
    let error = builder.spawn().expect_err("the child goes wrong");
    check(&error);
    assert_eq!(error.execution(), Execution::NotStarted);
    nothing_is_left();
    let builder = Pool::builder().workers(3).env("LD_PRELOAD", &library);
    let error = builder.start_timeout(timeout).build();
    check(&error.expect_err("the workers go wrong"));
    nothing_is_left();
}

fn a_child_that_ends_before_hello_is_a_start_error() {
    let exits = "#include <unistd.h>
        __attribute__((constructor)) static void wrong(void) { _exit(77); }";
    fails(exits, |error| {
        assert!(error.is_start() && error.to_string().contains("exit code 77"), "{error}");
    });
    let crashes = "#include <stdlib.h>
        __attribute__((constructor)) static void wrong(void) { abort(); }";
    fails(crashes, |error| {
        assert!(error.is_start() && error.to_string().contains("SIGABRT"), "{error}");
    });
}

fn a_child_without_memory_ends_before_hello() {
    let builder = Process::builder(square, (3,)).stderr(Stdio::Null).memory_limit(1 << 20);
    let error = builder.spawn().expect_err("not even the loader fits");
    assert!(error.is_start() && error.to_string().contains("hello"), "{error}");
    nothing_is_left();
}

fn a_child_that_never_says_hello_is_killed_at_the_start_timeout() {
    let sleeps = "#include <unistd.h>
        __attribute__((constructor)) static void wrong(void) { for (;;) pause(); }";
    fails_within(Duration::from_millis(300), sleeps, |error| {
        assert!(error.is_timeout() && error.to_string().contains("300ms"), "{error}");
    });
}

fn a_child_of_another_build_is_refused() {
    // The library hides the last program header, and so the build-id, or what stands in for it.
    let disguises = "#define _GNU_SOURCE
        #include <dlfcn.h>
        #include <link.h>
        typedef int (*callback)(struct dl_phdr_info *, size_t, void *);
        struct pair { callback call; void *data; };
        static int disguise(struct dl_phdr_info *info, size_t size, void *data) {
            struct pair *pair = data;
            struct dl_phdr_info copy = *info;
            ElfW(Phdr) headers[64];
            int kept = 0;
            for (int i = 0; i < info->dlpi_phnum && i < 64; i++)
                if (info->dlpi_phdr[i].p_type != PT_NOTE) headers[kept++] = info->dlpi_phdr[i];
            copy.dlpi_phdr = headers;
            copy.dlpi_phnum = kept;
            return pair->call(&copy, size, pair->data);
        }
        int dl_iterate_phdr(callback call, void *data) {
            int (*real)(callback, void *) = dlsym(RTLD_NEXT, \"dl_iterate_phdr\");
            struct pair pair = { call, data };
            return real(disguise, &pair);
        }";
    fails(disguises, |error| {
        assert!(error.is_start() && error.to_string().contains("another build"), "{error}");
    });
}

fn a_failed_initializer_leaves_no_process() {
    for method in METHODS {
        let fail = |text: String| -> Result<(), String> { Err(text) };
        let builder = Pool::builder().workers(3).start_method(method);
        let error = builder.initializer(fail, ("no licence".to_owned(),)).build();
        let error = error.expect_err("it failed");
        assert!(error.is_start() && error.to_string().contains("no licence"), "{error}");
        nothing_is_left();
    }
}

/// Runs a copy of this program that may delete or replace itself.
fn run_copy(helper: &str) {
    let directory = TempDir::new();
    let copy = directory.join("copy");
    fs::copy("/proc/self/exe", &copy).expect("a copy of this program");
    let mut command = Command::new(&copy);
    // A file that was just written may be busy for a moment: another thread's fork may hold it.
    let mut status = None;
    wait_until("the copy runs", || match command.args(["--run", helper]).status() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => false,
        result => {
            status = Some(result.expect("the copy starts"));
            true
        }
    });
    assert!(status.is_some_and(|status| status.success()), "{helper}: {status:?}");
}

fn start_all_ways() {
    for method in METHODS {
        let builder = Process::builder(square, (5,)).start_method(method);
        assert_eq!(builder.spawn().expect("start").join().expect("join"), 25, "{method:?}");
        let pool = Pool::builder().workers(2).start_method(method).build().expect("a pool");
        assert_eq!(pool.map(square, 0..4).expect("map"), [0, 1, 4, 9], "{method:?}");
    }
}

fn delete_and_start() {
    let path = std::env::current_exe().expect("a path");
    fs::remove_file(&path).expect("delete");
    assert!(!path.exists());
    start_all_ways();
}

fn replace_and_start() {
    let path = std::env::current_exe().expect("a path");
    let other = path.with_extension("new");
    fs::copy("/bin/false", &other).expect("another program");
    fs::rename(&other, &path).expect("replace");
    start_all_ways();
}

fn a_deleted_executable_starts_workers() {
    run_copy("delete_and_start");
}

fn a_replaced_executable_starts_workers() {
    run_copy("replace_and_start");
}

fn a_variable_set_by_hand_ends_the_program() {
    let mut command = isolated::helper("delete_and_start");
    let command = command.env("MULTIPROC_CHILD", "1").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("read");
    assert_eq!(child.wait().expect("wait").code(), Some(1));
    assert!(stderr.contains("multiproc"), "{stderr}");
}
