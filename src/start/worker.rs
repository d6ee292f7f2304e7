//! What a pool worker does: initialise, run frames, finalise.

use crate::entry;
use crate::sync::Members;
use crate::sys::{exit, signal};
use crate::wire::control::{self, Call, Failure, ToParent, WorkerRole};
use crate::wire::handles;
use crate::wire::worker_link::{Inbox, Limits, Outbox};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Serves a pool until it is told to exit; returns the exit code.
pub(super) fn serve(
    role: WorkerRole,
    mut fds: std::vec::IntoIter<OwnedFd>,
    control: Arc<OwnedFd>,
) -> i32 {
    signal::shrug_off_interrupt();
    let limits = Limits::new(role.max_tasks, role.max_memory);
    let (mut inbox, mut outbox) = match open(&mut fds, control.clone(), limits) {
        Ok(link) => link,
        Err(error) => return refuse(&control, Failure::Other(error.to_string())),
    };
    if let Some(initializer) = role.initializer
        && let Err(failure) = initialise(initializer, &mut fds)
    {
        return refuse(&control, failure);
    }
    handles::install(handles::Received::new());
    if control::send(&control, &ToParent::Ready, &[], true).is_err() {
        return 1;
    }
    while let Some(mut running) = inbox.wait(&outbox) {
        if outbox.claim(&mut running) {
            entry::run_frame(&mut inbox, &mut outbox, &mut running);
            inbox.forget_large(&running.descriptor);
        }
        if outbox.is_retiring() {
            break;
        }
        if let Err(error) = inbox.finish(&outbox) {
            eprintln!("multiproc: a worker ends: {error}");
            exit::exit_now(1);
        }
    }
    if let Some(finalizer) = role.finalizer {
        // There is nobody to tell: the results are all sent.
        let _ = entry::call_plain(finalizer);
    }
    super::children::finish();
    0
}

fn open(
    fds: &mut std::vec::IntoIter<OwnedFd>,
    control: Arc<OwnedFd>,
    limits: Limits,
) -> io::Result<(Inbox, Outbox)> {
    let missing = || io::Error::other("the rings of a worker did not come");
    let board = fds.next().ok_or_else(missing)?;
    let tasks = fds.next().ok_or_else(missing)?;
    Ok((Inbox::open(&tasks, entry::drop_contexts_with)?, Outbox::open(control, &board, limits)?))
}

fn initialise(call: Call, fds: &mut std::vec::IntoIter<OwnedFd>) -> Result<(), Failure> {
    let arguments =
        call.arguments.unpack(fds).map_err(|error| Failure::Other(error.to_string()))?;
    // Nobody waits for a worker because of what its initializer received.
    let (outcome, _members) = Members::noting(|| entry::call_value(call.entry, &arguments));
    outcome.map(drop)
}

fn refuse(control: &OwnedFd, failure: Failure) -> i32 {
    let _ = control::send(control, &ToParent::StartFailed(failure), &[], true);
    1
}
