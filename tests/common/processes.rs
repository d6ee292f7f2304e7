//! The process table, as `/proc` shows it.

use super::wait_until;
use std::fs;

/// A line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pid: u32,
    pub parent: u32,
    pub name: String,
    /// `R`, `S`, `Z`, … as in proc(5).
    pub state: char,
}

impl Entry {
    /// Whether it has not ended. An orphan that nobody reaps stays in the table as `Z`.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The line of one process.
pub fn entry(pid: u32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let name = head.split_once(" (")?.1.to_owned();
    Some(Entry { pid, parent, name, state })
}

/// Every process.
pub fn table() -> Vec<Entry> {
    let listed = fs::read_dir("/proc").expect("/proc").flatten();
    listed.filter_map(|item| entry(item.file_name().to_str()?.parse().ok()?)).collect()
}

/// The children of a process, zombies among them.
pub fn children(parent: u32) -> Vec<Entry> {
    table().into_iter().filter(|entry| entry.parent == parent).collect()
}

/// The children, their children, and so on; zombies among them.
pub fn descendants(ancestor: u32) -> Vec<Entry> {
    let table = table();
    let mut found: Vec<Entry> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let young = table.iter().filter(|entry| entry.parent == parent);
        parents.extend(young.clone().map(|entry| entry.pid));
        found.extend(young.cloned());
    }
    found
}

/// Whether a process runs.
pub fn is_alive(pid: u32) -> bool {
    entry(pid).is_some_and(|entry| entry.is_alive())
}

/// Whether a thread sleeps until something happens; the id of a process is that of its first one.
pub fn is_asleep(thread: u32) -> bool {
    entry(thread).is_some_and(|entry| entry.state == 'S')
}

/// Waits until none of these processes runs.
#[track_caller]
pub fn wait_until_gone(pids: &[u32]) {
    let alive = || pids.iter().filter(|pid| is_alive(**pid)).count();
    wait_until(&format!("all of the processes {pids:?} are gone"), || alive() == 0);
}

/// The children of this process; what it started and did not reap.
pub fn own_children() -> Vec<Entry> {
    children(std::process::id())
}

/// Sends a signal to a process by its number.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: kill has no preconditions; the pid is of a process that this test started.
    unsafe { libc::kill(i32::try_from(pid).expect("a pid"), signal) };
}
