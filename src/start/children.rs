//! The `Process` children of this process: who is alive, and what becomes of them at the end.
//!
//! The rules are Python's: when a process ends, its daemon children are terminated and the others
//! are waited for. A child whose handle was dropped is reaped by a thread of its own kind, so it
//! never stays a zombie.

use crate::sys::clock::Deadline;
use crate::sys::epoll::Poller;
use crate::sys::exit::at_exit;
use crate::sys::fork;
use crate::sys::pidfd::Child;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A child process that user code named.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) child: Arc<Child>,
    pub(crate) name: String,
    pub(crate) daemon: bool,
}

impl Record {
    /// Whether the child has not ended; reaps it if it has.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

#[derive(Default)]
struct Table {
    generation: u32,
    exit_handler: bool,
    records: Vec<Arc<Record>>,
    reaper: Option<Arc<Reaper>>,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

fn with_table<R>(action: impl FnOnce(&mut Table) -> R) -> R {
    let mut table: MutexGuard<'_, _> = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = fork::generation();
    let table = table.get_or_insert_default();
    if table.generation != generation {
        // A fork has the parent's children in its table; they are not its own.
        *table = Table { generation, exit_handler: table.exit_handler, ..Table::default() };
    }
    action(table)
}

/// Adds a child.
pub(crate) fn add(record: Arc<Record>) {
    with_table(|table| {
        if !table.exit_handler {
            table.exit_handler = true;
            at_exit(finish_at_exit);
        }
        table.records.retain(|record| record.is_alive());
        table.records.push(record);
    });
}

/// The children that are alive; those that have ended are reaped.
pub(crate) fn active() -> Vec<Arc<Record>> {
    with_table(|table| {
        table.records.retain(|record| record.is_alive());
        table.records.clone()
    })
}

extern "C" fn finish_at_exit() {
    finish();
}

/// The end of this process: daemon children are terminated, the others waited for.
pub(crate) fn finish() {
    let records = with_table(|table| std::mem::take(&mut table.records));
    for record in records.iter().filter(|record| record.daemon) {
        let _ = record.child.signal(libc::SIGTERM);
    }
    for record in &records {
        if record.daemon {
            end_daemon(record);
        } else {
            let _ = record.child.wait(Deadline::NEVER);
        }
    }
}

/// A daemon that does not end on `SIGTERM` within a second is killed.
fn end_daemon(record: &Record) {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    if !matches!(record.child.wait(Deadline::after(PATIENCE)), Ok(Some(_))) {
        record.child.kill_and_wait();
    }
}

/// The handle of a child was dropped: whoever reaps it, it is not the handle.
pub(crate) fn detach(record: Arc<Record>) {
    if !record.is_alive() {
        return;
    }
    let reaper = with_table(|table| {
        if table.reaper.is_none() {
            table.reaper = Reaper::start().ok();
        }
        table.reaper.clone()
    });
    if let Some(reaper) = reaper {
        reaper.watch(record);
    }
}

/// A thread that waits for children without a handle.
struct Reaper {
    poller: Poller,
    watched: Mutex<HashMap<u64, Arc<Record>>>,
}

impl Reaper {
    fn start() -> std::io::Result<Arc<Self>> {
        let reaper = Arc::new(Self { poller: Poller::new()?, watched: Mutex::default() });
        let on_thread = reaper.clone();
        let thread = std::thread::Builder::new().name("multiproc-reap".to_owned());
        thread.spawn(move || on_thread.run())?;
        Ok(reaper)
    }

    fn watch(&self, record: Arc<Record>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let token = record.child.pid() as u64;
        if self.poller.add(&*record.child, token).is_ok() {
            watched.insert(token, record);
        }
    }

    fn run(&self) {
        let mut ready = Vec::new();
        while self.poller.wait(&mut ready, Deadline::NEVER).is_ok() {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            for token in ready.drain(..) {
                if let Some(record) = watched.get(&token)
                    && !record.is_alive()
                {
                    self.poller.remove(&*record.child);
                    watched.remove(&token);
                }
            }
        }
    }
}
