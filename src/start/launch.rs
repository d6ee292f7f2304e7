//! Launching a child and waiting for its hello.

use super::child;
use super::{Environment, ForkServer, StartMethod, forkserver};
use crate::entry::{self, Returned};
use crate::error::Kind;
use crate::sys::child::{Image, Settings, exec_self};
use crate::sys::clock::Deadline;
use crate::sys::exit::flush_output;
use crate::sys::fd::InternalFd;
use crate::sys::fork::{ForkRisk, Forked, fork};
use crate::sys::image;
use crate::sys::lifeline;
use crate::sys::pidfd::{Child, Exit};
use crate::sys::socket;
use crate::wire::control::{self, Failure, Incoming, Role, Setup, ToChild, ToParent};
use crate::wire::handles::{self, Carried};
use crate::{Error, ExitStatus, Result};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

/// How long a child may take from its start to its hello, unless the builder says otherwise.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What runs in a forked process instead of a function named by an entry.
pub(crate) type Closure = Box<dyn FnOnce() -> Returned>;

/// Everything about a child that does not depend on its role.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) environment: Environment,
    pub(crate) settings: Settings,
    pub(crate) stdio: [Option<Arc<OwnedFd>>; 3],
    pub(crate) daemon: bool,
    pub(crate) parent_death_signal: i32,
    pub(crate) start_timeout: Duration,
    /// The caller's word that forking with other threads alive is all right.
    pub(crate) fork_risk: Option<ForkRisk>,
}

impl Launch {
    pub(crate) fn named(name: String) -> Self {
        Self {
            name,
            environment: Environment::default(),
            settings: Settings::default(),
            stdio: [None, None, None],
            daemon: false,
            parent_death_signal: libc::SIGKILL,
            start_timeout: START_TIMEOUT,
            fork_risk: None,
        }
    }
}

/// Where the new process comes from.
pub(crate) enum Origin<'a> {
    /// The executable.
    Spawn,
    /// The program's fork server.
    ForkServer,
    /// A pool's own fork server.
    Template(&'a ForkServer),
    /// A copy of this process, with a closure to call if it is to be a process.
    Fork(Option<Closure>),
}

impl Origin<'_> {
    /// The origin for a method, where nothing of this process is to be called.
    pub(crate) fn of(method: StartMethod) -> Self {
        match method {
            StartMethod::Spawn => Self::Spawn,
            StartMethod::ForkServer => Self::ForkServer,
            StartMethod::Fork => Self::Fork(None),
        }
    }
}

/// A child that has not said hello. Dropping it kills and reaps the child.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Option<Arc<Child>>,
    socket: Option<InternalFd>,
    deadline: Deadline,
    timeout: Duration,
}

/// Starts a child for a role; `fds` are the role's descriptors, `objects` those that its arguments
/// name.
pub(crate) fn launch(
    launch: &Launch,
    origin: Origin<'_>,
    role: Role,
    fds: &[OwnedFd],
    objects: &Carried,
) -> Result<Starting> {
    entry::require_init()?;
    entry::registry::check()?;
    if launch.start_timeout.is_zero() {
        return Err(Error::invalid("a start timeout of 0: no process could ever start"));
    }
    let deadline = Deadline::after(launch.start_timeout);
    let (ours, theirs) = socket::pair().map_err(os("no control socket for a new process"))?;
    let ours = InternalFd::new(ours);
    send_setup(&ours, launch, role, fds, objects)?;
    let child = match origin {
        Origin::Spawn => spawn(launch, &theirs)?,
        Origin::ForkServer => forkserver::global_start(launch, &theirs, deadline)?,
        Origin::Template(server) => server.start(launch, &theirs, deadline)?,
        Origin::Fork(closure) => fork_here(launch, &theirs, closure)?,
    };
    let timeout = launch.start_timeout;
    Ok(Starting { child: Some(Arc::new(child)), socket: Some(ours), deadline, timeout })
}

fn os(doing: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::os(doing, error)
}

fn send_setup(
    socket: &InternalFd,
    launch: &Launch,
    role: Role,
    fds: &[OwnedFd],
    objects: &Carried,
) -> Result<()> {
    let lifeline = lifeline::read_end().map_err(os("no lifeline for a new process"))?;
    let setup = Setup {
        identity: image::current().identity().to_vec(),
        name: launch.name.clone(),
        parent_pid: std::process::id() as i32,
        parent_death_signal: launch.parent_death_signal,
        daemon: launch.daemon,
        role,
        objects: handles::numbers(objects),
    };
    let fds = [&lifeline].into_iter().chain(fds).map(AsFd::as_fd);
    let all: Vec<BorrowedFd<'_>> = fds.chain(handles::descriptors(objects)).collect();
    control::send(socket, &ToChild::Setup(setup), &all, false)
        .map_err(os("the setup of a new process could not be sent"))
}

fn spawn(launch: &Launch, control: &OwnedFd) -> Result<Child> {
    let arguments: Vec<CString> =
        std::env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok()).collect();
    let environment = launch.environment.strings_for_exec()?;
    let image = Image {
        arguments: &arguments,
        environment: &environment,
        control: control.as_fd(),
        stdio: launch.stdio.each_ref().map(|fd| fd.as_ref().map(|fd| fd.as_fd())),
    };
    exec_self(&image, &launch.settings)
        .map_err(|error| Error::start("a process could not be started").with_source(error))
}

fn fork_here(launch: &Launch, theirs: &OwnedFd, closure: Option<Closure>) -> Result<Child> {
    let theirs_in_child = theirs.try_clone().map_err(os("no control socket"))?;
    // What is buffered now would be written by both.
    flush_output();
    let environment = launch.environment.changed_strings()?;
    let forked = fork(launch.fork_risk)
        .map_err(|error| Error::start("the process could not be forked").with_source(error))?;
    match forked {
        Forked::Parent(child) => Ok(child),
        Forked::Child => {
            let stdio = launch.stdio.each_ref().map(|fd| fd.as_ref().map(|fd| fd.as_fd()));
            child::main_forked(theirs_in_child, environment, &launch.settings, stdio, closure)
        }
    }
}

impl Starting {
    /// Waits for hello.
    pub(crate) fn hello(&self) -> Result<()> {
        match self.receive("its hello")? {
            ToParent::Hello { identity } if identity == image::current().identity() => Ok(()),
            ToParent::Hello { .. } => Err(Error::start(
                "the new process runs another build of this program (the build-ids differ)",
            )),
            ToParent::StartFailed(failure) => Err(refused(failure)),
            _ => Err(Error::start("the new process said something else than hello")),
        }
    }

    /// Waits until a worker or fork server is initialised; there is no time limit on the user's
    /// initializer.
    pub(crate) fn ready(&mut self) -> Result<()> {
        self.deadline = Deadline::NEVER;
        match self.receive("the end of its initializer")? {
            ToParent::Ready => Ok(()),
            ToParent::StartFailed(failure) => Err(start_failure(failure)),
            _ => Err(Error::start("the new process did not say whether it is ready")),
        }
    }

    /// The child, for somebody who may have to kill it.
    pub(crate) fn child(&self) -> Option<Arc<Child>> {
        self.child.clone()
    }

    /// The child, which is now somebody else's to wait for, and its control socket.
    pub(crate) fn finish(mut self) -> Result<(Arc<Child>, InternalFd)> {
        match (self.child.take(), self.socket.take()) {
            (Some(child), Some(socket)) => Ok((child, socket)),
            _ => Err(Error::start("the process was taken before")),
        }
    }

    fn receive(&self, what: &str) -> Result<ToParent> {
        let (Some(child), Some(socket)) = (&self.child, &self.socket) else {
            return Err(Error::start("the process was taken before"));
        };
        let waiting = os("waiting for a new process failed");
        let mut buffer = Vec::new();
        loop {
            match control::try_recv::<ToParent>(socket, &mut buffer) {
                Ok(Incoming::Message(message)) => return Ok(message.body),
                Ok(Incoming::Nothing) => {}
                Ok(Incoming::Closed) => return Err(self.ended(child, what)),
                Err(error) => {
                    let message = "the new process sent a message that makes no sense";
                    return Err(Error::start(message).with_source(error));
                }
            }
            // Also on the pidfd: a forked relative of the child may hold its socket open.
            match socket::wait_any(&[socket.as_fd(), child.as_fd()], self.deadline) {
                Ok(Some(0)) => {}
                Ok(Some(_)) if self.is_silent(socket) => return Err(self.ended(child, what)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Err(Error::new(
                        Kind::Timeout(crate::Execution::NotStarted),
                        format!(
                            "{what} did not come within the start timeout of {:?}",
                            self.timeout
                        ),
                    ));
                }
                Err(error) => return Err(waiting(error)),
            }
        }
    }

    fn is_silent(&self, socket: &InternalFd) -> bool {
        !socket::is_readable(socket).unwrap_or(false)
    }

    fn ended(&self, child: &Child, what: &str) -> Error {
        let _ = child.signal(libc::SIGKILL);
        let exit = child.wait(Deadline::NEVER).ok().flatten().unwrap_or(Exit::Unknown);
        let status = ExitStatus::from(exit);
        Error::start(format!(
            "the new process ended before {what}: {status}. If the program is built without the \
             feature `hook`, `multiproc::init()` must stand first in `main`"
        ))
    }
}

/// The error for what a child said that could not be set up: a forked one applies its settings
/// itself.
fn refused(failure: Failure) -> Error {
    let error = Error::start("the new process could not be set up");
    match failure {
        Failure::Panicked(info) => error.with_source(Error::panicked(info)),
        Failure::Decode(what) | Failure::Encode(what) | Failure::Other(what) => {
            error.with_source(what)
        }
    }
}

const INITIALIZER_FAILED: &str = "the initializer failed";

impl Error {
    /// Whether an initializer failed: starting again would fail again.
    pub(crate) fn is_initializer(&self) -> bool {
        self.is_start() && self.message() == INITIALIZER_FAILED
    }
}

/// The error for what a child said about its failed start.
pub(crate) fn start_failure(failure: Failure) -> Error {
    let message = INITIALIZER_FAILED;
    match failure {
        Failure::Panicked(info) => Error::start(message).with_source(Error::panicked(info)),
        Failure::Decode(what) | Failure::Encode(what) | Failure::Other(what) => {
            Error::start(message).with_source(what)
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            child.kill_and_wait();
        }
    }
}
