//! Two processes which sleep by a futex whenever they wait, without spinning first.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::Result;

use crate::reaper;
use crate::systems::answered::Partner;
use crate::systems::forked::{Shared, fork, wait};
use crate::workload::Workload;

/// A process that answers by memory which both share.
pub struct Sleeping {
    /// Where the [`Mailbox`] lies.
    memory: Shared,
    /// The process; `None` when it has been waited for, or before it is forked.
    pid: Option<libc::pid_t>,
}

/// What the two processes share.
#[repr(C)]
struct Mailbox {
    /// Whose turn it is: [`HERE`] or [`THERE`].
    turn: AtomicU32,
    /// The number, or the answer.
    number: AtomicU64,
}

/// The asking process waits for nothing, or has been answered.
const HERE: u32 = 0;

/// The answering process has a number to answer.
const THERE: u32 = 1;

/// Tells the process to end.
const END: u64 = u64::MAX;

impl Mailbox {
    /// Passes a number on to the other process.
    fn pass(&self, turn: u32, number: u64) {
        self.number.store(number, Ordering::Relaxed);
        self.turn.store(turn, Ordering::Release);
        // SAFETY: the word lives as long as `self`; a wake-up does not change it.
        unsafe { libc::syscall(libc::SYS_futex, self.turn.as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    /// Sleeps until it is this one's turn; returns the number.
    fn await_turn(&self, turn: u32) -> u64 {
        while self.turn.load(Ordering::Acquire) != turn {
            let others = HERE + THERE - turn;
            let no_timeout = ptr::null::<libc::timespec>();
            // SAFETY: as in `pass`; it sleeps only if the word is still that of the
            // other process, and the loop looks again whatever it returns.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.turn.as_ptr(),
                    libc::FUTEX_WAIT,
                    others,
                    no_timeout,
                )
            };
        }
        self.number.load(Ordering::Relaxed)
    }

    /// The life of the process.
    fn serve(&self) {
        reaper::end_with_parent();
        loop {
            match self.await_turn(THERE) {
                END => return,
                number => self.pass(HERE, number + 1),
            }
        }
    }
}

impl Partner for Sleeping {
    const NAME: &'static str = "limit_futex";

    const FAMILY: &'static str = "limit";

    const WORKLOADS: &'static [Workload] = &[Workload::PipePingpong];

    fn start(_: Workload) -> Result<Sleeping> {
        let mut sleeping = Sleeping { memory: Shared::new(size_of::<Mailbox>())?, pid: None };
        sleeping.pid = Some(fork(|| sleeping.mailbox().serve())?);
        Ok(sleeping)
    }

    fn ask(&mut self, number: u64) -> Result<u64> {
        let mailbox = self.mailbox();
        mailbox.pass(THERE, number);
        Ok(mailbox.await_turn(HERE))
    }

    fn stop(mut self) -> Result<()> {
        self.end()
    }
}

impl Sleeping {
    /// The shared memory as what it is.
    fn mailbox(&self) -> &Mailbox {
        // SAFETY: the mapping is as large as a mailbox, aligned to a page, and lives
        // as long as `self`; zeroes are valid atomics, which both processes may use at
        // any time.
        unsafe { &*self.memory.start() }
    }

    /// Ends the process, if it has not been ended yet.
    fn end(&mut self) -> Result<()> {
        let Some(pid) = self.pid.take() else { return Ok(()) };
        self.mailbox().pass(THERE, END);
        wait(pid)
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        // Nothing more can be done about an error.
        let _ = self.end();
    }
}
