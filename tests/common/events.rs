//! What the integration tests share: a watchdog, scratch files, and waiting for events.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long anything may take before the test counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a test may take: longer than any does on a machine that is slow and has much else to
/// do.
pub const WATCH: Duration = Duration::from_secs(900);

/// How often [`wait_until`] looks at least: a machine that stood still has not waited.
const LOOKS: u32 = 10_000;

/// Aborts the test binary if it is not dropped within [`WATCH`]: a hang becomes a failure.
#[derive(Debug)]
pub struct Watchdog(#[allow(dead_code, reason = "its drop ends the thread")] Sender<()>);

impl Watchdog {
    /// Watches over what `name` says.
    pub fn new(name: &'static str) -> Self {
        let (sender, receiver) = channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(WATCH) == Err(RecvTimeoutError::Timeout) {
                // Past the capture of libtest: this is the last that is heard of the process.
                let text = format!("WATCHDOG: `{name}` hangs\n");
                let _ = std::io::stderr().write_all(text.as_bytes());
                std::process::abort();
            }
        });
        Self(sender)
    }
}

/// A directory for one test, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty one.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("multiproc-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Whoever had this number before may have been killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    /// The path of a file in it, as a value that can travel.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a UTF-8 path").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Appends a line in one write, so that lines of several processes do not mix.
pub fn append(path: &str, line: impl std::fmt::Display) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("open the log");
    file.write_all(format!("{line}\n").as_bytes()).expect("append to the log");
}

/// The lines that were appended so far.
pub fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Makes a file appear: a flag that other processes wait for.
pub fn raise(path: &str) {
    fs::write(path, "").expect("raise a flag");
}

/// Whether a flag is up.
pub fn is_raised(path: &str) -> bool {
    fs::exists(path).unwrap_or(false)
}

/// In a worker or in the test: waits for a flag.
pub fn wait_for(path: &str) {
    while !is_raised(path) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until something is so; fails if it takes longer than [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, so: impl Fn() -> bool) {
    let (start, mut looks) = (Instant::now(), 0);
    while !so() {
        looks += 1;
        let has_patience = start.elapsed() < PATIENCE || looks < LOOKS;
        assert!(has_patience, "it never came to pass: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The state letter of a process, or `None` if it is gone.
pub fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process has ended. A zombie that is not ours to reap counts as gone.
pub fn is_gone(pid: u32) -> bool {
    matches!(process_state(pid), None | Some('Z' | 'X'))
}

/// The children of this process that have not ended, and their descendants.
pub fn descendants() -> Vec<u32> {
    let mut found = Vec::new();
    let mut parents = vec![std::process::id()];
    let all: Vec<(u32, u32, char)> = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut rest = stat.rsplit_once(") ")?.1.split(' ');
            let state = rest.next()?.chars().next()?;
            Some((pid, rest.next()?.parse().ok()?, state))
        })
        .collect();
    while let Some(parent) = parents.pop() {
        for &(pid, of, state) in &all {
            if of == parent && !matches!(state, 'Z' | 'X') {
                found.push(pid);
                parents.push(pid);
            }
        }
    }
    found
}

/// Sends a signal to a process.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a signal to another process has no memory effects here.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Sends `SIGKILL` to a process.
pub fn kill(pid: u32) {
    signal(pid, libc::SIGKILL);
}

/// A small generator of numbers that look random: the same ones for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 16) % limit.max(1)
    }
}
