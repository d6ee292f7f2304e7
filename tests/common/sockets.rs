//! The sockets of this process, for tests that send garbage through those of others.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sockets are told by their numbers, which belong to the process: one test at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets of this process.
pub fn sockets() -> BTreeSet<i32> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_socket = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    let number = |entry: std::fs::DirEntry| {
        is_socket(&entry.path()).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    listed.filter_map(number).collect()
}

/// Sends a message if there is room; whether there was.
pub fn send(socket: i32, bytes: &[u8]) -> bool {
    // SAFETY: the kernel reads the bytes, which live.
    let sent =
        unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    sent >= 0
}

/// Whether something waits in a socket.
pub fn has_something(socket: i32) -> bool {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes one byte at most, to one that lives.
    unsafe { libc::recv(socket, (&raw mut byte).cast(), 1, flags) >= 0 }
}
