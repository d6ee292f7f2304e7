//! Compares `multiproc` with its peers, workload by workload.
//!
//! Every sample runs in a fresh process of this program (see [`sample`]), the
//! systems take turns within a run, and the runs are repeated, so that noise on
//! the machine hits all of them alike.

mod cli;
mod harness;
mod measure;
mod primes;
mod procfs;
mod reaper;
mod report;
mod sample;
mod settings;
mod systems;
mod workload;

use std::process::ExitCode;

use anyhow::Result;

/// Names what a process that this program started from itself is to do.
///
/// The variable decides before anything else happens in `main`, so that a
/// child never parses arguments or runs a comparison of its own.
pub const CHILD_ENV: &str = "PEERS_CHILD";

/// Value of [`CHILD_ENV`]: return from `main` at once (for `limit_exec`).
pub const CHILD_EXIT: &str = "exit";

/// Value of [`CHILD_ENV`]: be a worker of the `ipc_channel` system.
pub const CHILD_IPC: &str = "ipc";

/// Value of [`CHILD_ENV`]: be the other party of the `ipc_channel` system.
pub const CHILD_IPC_PARTY: &str = "ipc_party";

/// Value of [`CHILD_ENV`]: take one sample and print it.
pub const CHILD_SAMPLE: &str = "sample";

fn main() -> Result<ExitCode> {
    let child = std::env::var_os(CHILD_ENV);
    if child.as_deref().is_some_and(|value| value == CHILD_EXIT) {
        return Ok(ExitCode::SUCCESS);
    }
    // Workers of procspawn inherit `CHILD_ENV` and never return from here.
    procspawn::init();
    // Does nothing with the default feature `hook`, by which workers are entered
    // before `main`, whatever else they inherit.
    multiproc::init();

    match child.as_deref().and_then(|value| value.to_str()) {
        Some(CHILD_IPC) => systems::ipc_channel::serve().map(|()| ExitCode::SUCCESS),
        Some(CHILD_IPC_PARTY) => {
            systems::ipc_channel::channels::serve().map(|()| ExitCode::SUCCESS)
        }
        Some(CHILD_SAMPLE) => sample::take_and_print().map(|()| ExitCode::SUCCESS),
        _ => harness::run(&cli::parse()),
    }
}
