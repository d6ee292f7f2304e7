//! What the tests of locks and signals have in common.

use super::processes::is_asleep;
use super::{PATIENCE, wait_until};
use multiproc::{Data, Function, Process, StartMethod};
use std::time::Instant;

/// Starts a process by the quickest way that leaves the test its threads.
#[track_caller]
pub fn start<F, A, R>(function: F, arguments: A) -> Process<R>
where
    F: Function<A, Output = R>,
    A: multiproc::Arguments,
    R: Data,
{
    let builder = Process::builder(function, arguments).start_method(StartMethod::ForkServer);
    builder.spawn().expect("a process")
}

/// The result of a process; fails instead of hanging.
#[track_caller]
pub fn finish<R: Data>(mut process: Process<R>) -> R {
    process.join_timeout(PATIENCE).expect("the process returns")
}

/// Kills a process and waits until it is gone.
#[track_caller]
pub fn kill<R: Data>(mut process: Process<R>) {
    process.kill().expect("kill");
    let error = process.join_timeout(PATIENCE).err().expect("it was killed");
    assert!(error.is_exited(), "{error}");
}

/// Runs `wait`, and fails if it took so long that the watchdog of the tests has to be feared.
#[track_caller]
pub fn in_time<R>(wait: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = wait();
    assert!(start.elapsed() < PATIENCE, "it hung");
    result
}

/// The results of processes.
#[track_caller]
pub fn finish_all<R: Data>(processes: impl IntoIterator<Item = Process<R>>) -> Vec<R> {
    processes.into_iter().map(finish).collect()
}

/// Waits until a process with one thread sleeps.
#[track_caller]
pub fn wait_until_asleep<R: Data>(process: &Process<R>) {
    let pid = process.pid();
    wait_until("it sleeps", || is_asleep(pid));
}

/// How often this thread has gone to sleep.
pub fn switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("a line").trim().parse().expect("a number")
}
