//! What a new child does first, whatever it will be.

use super::children;
use super::context::{self, Context};
use super::forkserver;
use super::launch::Closure;
use super::worker;
use crate::entry;
use crate::error::PanicInfo;
use crate::sys::child::{Settings, apply_settings, replace_environment, replace_stdio};
use crate::sys::clock::Deadline;
use crate::sys::exit;
use crate::sys::fd::neutralise_after_fork;
use crate::sys::image;
use crate::sys::lifeline::Lifeline;
use crate::sys::signal;
use crate::wire::control::{
    self, Body, Call, Failure, Incoming, Message, Role, Setup, ToChild, ToParent,
};
use crate::wire::handles::{self, Carried};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a child waits for its setup, which the parent sends before it starts the child.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);

/// How this process ends: with or without the exit handlers of its image.
type Leave = fn(i32) -> !;

/// The whole life of a child that was executed. Nothing of the program's `main` runs.
pub(crate) fn main(control: OwnedFd) -> ! {
    signal::prepare_image();
    signal::unblock_all();
    live(control, None, exit::exit)
}

/// The whole life of a child that was forked.
pub(crate) fn main_forked(
    control: OwnedFd,
    environment: Option<Vec<CString>>,
    settings: &Settings,
    stdio: [Option<BorrowedFd<'_>>; 3],
    closure: Option<Closure>,
) -> ! {
    neutralise_after_fork();
    signal::stop_shrugging();
    entry::set_depth(entry::depth() + 1);
    if let Err(error) = adapt(environment, settings, stdio) {
        let failure = Failure::Other(error.to_string());
        let _ = control::send(&control, &ToParent::StartFailed(failure), &[], true);
        exit::exit_now(1);
    }
    live(control, closure, exit::exit_forked)
}

fn adapt(
    environment: Option<Vec<CString>>,
    settings: &Settings,
    stdio: [Option<BorrowedFd<'_>>; 3],
) -> io::Result<()> {
    for (target, fd) in stdio.into_iter().enumerate() {
        if let Some(fd) = fd {
            replace_stdio(fd, target as i32)?;
        }
    }
    if let Some(environment) = environment {
        replace_environment(&environment);
    }
    apply_settings(settings)
}

fn live(control: OwnedFd, closure: Option<Closure>, leave: Leave) -> ! {
    let control = Arc::new(control);
    match begin(&control) {
        Ok((setup, fds)) => {
            let code = play(setup, fds, control, closure);
            leave(code)
        }
        Err(error) => {
            eprintln!("multiproc: this process was started as a child, but: {error}");
            exit::exit_now(1)
        }
    }
}

/// Takes the setup, hangs on to the lifeline, and says hello.
fn begin(control: &Arc<OwnedFd>) -> io::Result<(Setup, std::vec::IntoIter<OwnedFd>)> {
    // As a rule the setup is there, and then there is no need to ask for the time.
    let incoming = match control::try_recv(control, &mut Vec::new())? {
        Incoming::Nothing => control::recv(control, Deadline::after(SETUP_TIMEOUT))?,
        incoming => incoming,
    };
    let Message { body, fds, .. } = match incoming {
        Incoming::Message(message) => message,
        Incoming::Closed => exit::exit_now(1), // the parent is gone; nobody wants to know
        Incoming::Nothing => return Err(io::Error::other("no setup came")),
    };
    let ToChild::Setup(setup) = body else {
        return Err(io::Error::other("no setup came"));
    };
    let mut fds = fds.into_iter();
    let read_end = fds.next().ok_or_else(|| io::Error::other("no lifeline came"))?;
    let lifeline = Lifeline::watch(read_end, setup.parent_death_signal)?;
    let identity = image::current().identity().to_vec();
    let same = identity == setup.identity;
    control::send(control, &ToParent::Hello { identity }, &[], true)?;
    if !same {
        return Err(io::Error::other("the parent runs another build of the program"));
    }
    signal::set_thread_name(&setup.name);
    install_panic_hook(control, &setup);
    let name = setup.name.clone();
    context::enter(Context::child(name, setup.daemon, setup.parent_pid, lifeline));
    Ok((setup, fds))
}

fn install_panic_hook(control: &Arc<OwnedFd>, setup: &Setup) {
    let loud = matches!(setup.role, Role::Process(_));
    let control = control.clone();
    entry::install_hook(loud, move |info: &PanicInfo| {
        let _ = control::send(&control, &ToParent::LastWords(info.clone()), &[], false);
    });
}

fn play(
    setup: Setup,
    mut fds: std::vec::IntoIter<OwnedFd>,
    control: Arc<OwnedFd>,
    closure: Option<Closure>,
) -> i32 {
    if !setup.objects.is_empty() {
        let mut all: Vec<OwnedFd> = fds.collect();
        let received = all.split_off(all.len().saturating_sub(setup.objects.len()));
        handles::install(handles::receive(&setup.objects, received.into_iter()).collect());
        fds = all.into_iter();
    }
    match setup.role {
        Role::Worker(role) => worker::serve(role, fds, control),
        Role::Process(call) => run_process(call, fds, &control, closure),
        Role::ForkServer(preload) => forkserver::serve(preload, &control),
    }
}

/// Calls the function of a process and sends what it returns.
fn run_process(
    call: Call,
    mut fds: std::vec::IntoIter<OwnedFd>,
    control: &OwnedFd,
    closure: Option<Closure>,
) -> i32 {
    let result = match closure {
        Some(closure) => entry::catch(closure).and_then(|result| result),
        None => match call.arguments.unpack(&mut fds) {
            Ok(arguments) => entry::call_value(call.entry, &arguments),
            Err(error) => Err(Failure::Other(error.to_string())),
        },
    };
    exit::flush_output();
    let mut bodies = Vec::new();
    let mut carried = Carried::new();
    let result = result.and_then(|(bytes, objects)| {
        carried = objects;
        let len = bytes.len();
        Body::pack(bytes, &mut bodies).map_err(|error| {
            Failure::Encode(format!("no shared memory for a result of {len} bytes: {error}"))
        })
    });
    let code = i32::from(result.is_err());
    let fds: Vec<_> =
        bodies.iter().map(AsFd::as_fd).chain(handles::descriptors(&carried)).collect();
    let message = ToParent::Returned { result, objects: handles::numbers(&carried) };
    // If the parent is gone there is nobody to tell.
    let _ = control::send(control, &message, &fds, true);
    children::finish();
    code
}
