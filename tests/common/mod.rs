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

/// Waits until `ready` holds; panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends this test binary with `SIGALRM` if it takes longer than all of its tests could: a hang
/// becomes a failure. An alarm needs no thread, so it does not stand in the way of a fork.
pub fn watchdog() {
    // SAFETY: alarm has no preconditions.
    unsafe { libc::alarm(300) };
}
