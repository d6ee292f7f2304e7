//! `limit`: what bare system calls and memory copies cost, as a lower bound.

use std::ffi::CString;
use std::hint::{black_box, spin_loop};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};

use super::forked::{Shared, fork, wait};
use super::{Facets, Part, System, answered, queued};
use crate::measure::per_op;
use crate::reaper;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;
use crate::{CHILD_ENV, CHILD_EXIT};

pub mod futex;
pub mod ring;
pub mod socket;

/// The lower bounds of a workload or two each.
enum Limit {
    /// [`ROUND_TRIPS`]: two processes which spin on shared memory.
    /// `echo_*`: four copies of the bytes within one process.
    Memory,
    /// `process_start`: `posix_spawn` of this executable, and `waitpid`.
    Exec,
    /// `process_start`: `fork`, `_exit` and `waitpid`.
    Fork,
}

/// What is a number to another process, and its answer.
const ROUND_TRIPS: [Workload; 5] = [
    Workload::Apply,
    Workload::EventPingpong,
    Workload::PipePingpong,
    Workload::ManagerGet,
    Workload::ManagerSet,
];

/// The systems `limit`, `limit_exec`, `limit_fork`, `limit_futex` and `limit_socket`.
pub fn all() -> [Box<dyn System>; 5] {
    [
        Box::new(Facets {
            first: Box::new(Limit::Memory),
            others: vec![queued::<ring::Spinning>()],
        }),
        Box::new(Limit::Exec),
        Box::new(Limit::Fork),
        answered::<futex::Sleeping>(),
        answered::<socket::Socket>(),
    ]
}

impl System for Limit {
    fn name(&self) -> &'static str {
        match self {
            Limit::Memory => "limit",
            Limit::Exec => "limit_exec",
            Limit::Fork => "limit_fork",
        }
    }

    fn family(&self) -> &'static str {
        "limit"
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        match (self, workload) {
            (Limit::Memory, trip) if ROUND_TRIPS.contains(&trip) => Part::Takes,
            (Limit::Memory, Workload::Echo(_))
            | (Limit::Exec | Limit::Fork, Workload::ProcessStart) => Part::Takes,
            _ => Part::None,
        }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let time = settings.loop_time();
        Sample::here(match (self, workload) {
            (Limit::Memory, trip) if ROUND_TRIPS.contains(&trip) => {
                let mut partner = Partner::start()?;
                let mut a = 0;
                let per_call = per_op(time, || {
                    a += 1;
                    ensure!(partner.add(a, 7) == a + 7, "a wrong sum");
                    Ok(())
                })?;
                per_call * 1e6
            }
            (Limit::Memory, Workload::Echo(bytes)) => {
                let mut echo = Echo::new(bytes)?;
                let per_trip = per_op(time, || {
                    echo.trip();
                    Ok(())
                })?;
                bytes as f64 / 1e6 / per_trip
            }
            (Limit::Exec, Workload::ProcessStart) => per_op(time, exec)? * 1e6,
            (Limit::Fork, Workload::ProcessStart) => per_op(time, || wait(fork(|| {})?))? * 1e6,
            _ => bail!("{} has no such limit", self.name()),
        })
    }
}

/// Starts this executable, which returns from `main` at once, and waits for it.
fn exec() -> Result<()> {
    let path = c"/proc/self/exe";
    let variable = CString::new(format!("{CHILD_ENV}={CHILD_EXIT}"))?;
    let arguments = [path.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [variable.as_ptr().cast_mut(), ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: the path and both null-terminated arrays of C strings live
    // throughout, and are not written to; null means no file actions and no
    // attributes.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error)).context("posix_spawn");
    }
    wait(pid)
}

/// A forked process that adds numbers, and spins in between.
struct Partner {
    /// Where the [`Mailbox`] lies.
    memory: Shared,
    /// The process; -1 before it is forked.
    pid: libc::pid_t,
}

/// What the two processes share.
#[repr(C)]
#[derive(Default)]
struct Mailbox {
    /// Odd: a request waits. Even: it has been answered. [`END`]: no more.
    turn: AtomicU64,
    /// The first argument.
    a: AtomicU64,
    /// The second argument.
    b: AtomicU64,
    /// The answer.
    sum: AtomicU64,
}

/// Tells the partner to end.
const END: u64 = u64::MAX;

impl Partner {
    /// Forks the process.
    fn start() -> Result<Partner> {
        let memory = Shared::new(size_of::<Mailbox>())?;
        let mut partner = Partner { memory, pid: -1 };
        partner.pid = fork(|| partner.mailbox().serve())?;
        Ok(partner)
    }

    /// The shared memory as what it is.
    fn mailbox(&self) -> &Mailbox {
        // SAFETY: the mapping is as large as a mailbox, aligned to a page, and
        // lives as long as `self`; zeroes are valid atomics, which both
        // processes may use at any time.
        unsafe { &*self.memory.start() }
    }

    /// A call.
    fn add(&mut self, a: u64, b: u64) -> u64 {
        let mailbox = self.mailbox();
        mailbox.a.store(a, Ordering::Relaxed);
        mailbox.b.store(b, Ordering::Relaxed);
        let request = mailbox.turn.load(Ordering::Relaxed) + 1;
        mailbox.turn.store(request, Ordering::Release);
        while mailbox.turn.load(Ordering::Acquire) == request {
            spin_loop();
        }
        mailbox.sum.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    /// The life of the partner.
    fn serve(&self) {
        reaper::end_with_parent();
        loop {
            match self.turn.load(Ordering::Acquire) {
                END => return,
                turn if turn % 2 == 1 => {
                    let a = self.a.load(Ordering::Relaxed);
                    let b = self.b.load(Ordering::Relaxed);
                    self.sum.store(a + b, Ordering::Relaxed);
                    self.turn.store(turn + 1, Ordering::Release);
                }
                _ => spin_loop(),
            }
        }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        if self.pid > 0 {
            self.mailbox().turn.store(END, Ordering::Release);
            // It ends on its own; nothing more can be done about an error.
            let _ = wait(self.pid);
        }
    }
}

/// The copies that an echo through shared memory needs: from the parent to
/// shared memory, from there to the worker, and back likewise. All four happen
/// in one process, so that no waiting is included.
struct Echo {
    /// The memory of the parent.
    parent: Vec<u8>,
    /// The memory between the two.
    shared: Shared,
    /// What would be the memory of the worker.
    worker: Vec<u8>,
}

impl Echo {
    /// Allocates the three places.
    fn new(size: usize) -> Result<Echo> {
        Ok(Echo { parent: vec![1; size], shared: Shared::new(size)?, worker: vec![2; size] })
    }

    /// A round trip.
    fn trip(&mut self) {
        let shared = self.shared.bytes();
        shared.copy_from_slice(black_box(&self.parent));
        self.worker.copy_from_slice(black_box(shared));
        if let Some(first) = self.worker.first_mut() {
            *first = !*first;
        }
        shared.copy_from_slice(black_box(&self.worker));
        self.parent.copy_from_slice(black_box(shared));
        black_box(&mut self.parent);
    }
}
