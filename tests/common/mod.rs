//! What the tests that start processes have in common.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod isolated;
pub mod package;
pub mod processes;
pub mod scribble;
pub mod sockets;
pub mod sync;
pub mod temp;
pub mod traced;
pub mod wire;

use std::time::{Duration, Instant};

/// How long any wait may take before the test fails instead of hanging. No test asserts a speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often [`wait_until`] looks at least: a machine that stood still has not waited.
const LOOKS: u32 = 10_000;

/// Waits until `ready` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let (start, mut looks) = (Instant::now(), 0);
    while !ready() {
        looks += 1;
        let has_patience = start.elapsed() < PATIENCE || looks < LOOKS;
        assert!(has_patience, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this machine has so many gibibytes of memory to spare.
pub fn has_memory(gibibytes: u64) -> bool {
    let info = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = available.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    kibibytes.is_some_and(|kibibytes: u64| kibibytes >= gibibytes << 20)
}

/// How long a test may take, in seconds: longer than any does on a machine that is slow and has
/// much else to do.
pub const WATCH: u32 = 900;

/// Ends this test binary with `SIGALRM` if it takes longer than all of its tests could: a hang
/// becomes a failure. An alarm needs no thread, so it does not stand in the way of a fork.
pub fn watchdog() {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(WATCH) };
}
