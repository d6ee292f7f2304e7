//! Waiting in tests for what the kernel tells a moment later.
//!
//! When a test closes the last descriptor of a socket, the other end hears of it at once, unless
//! another test starts a process in this moment: that has all descriptors until it executes.

use std::time::{Duration, Instant};

/// Waits until `ready` holds; panics with `what` after a minute.
#[track_caller]
pub(crate) fn eventually(what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::yield_now();
    }
}
