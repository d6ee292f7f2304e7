//! The fork server: a small process that forks children on request.
//!
//! It is a fresh image of the program with one thread, so its forks are safe and cheap. The
//! children are created with `CLONE_PARENT`: they are children of the program itself, which waits
//! for them by pidfd like for any other, and they do not care when the server dies.

use super::child;
use super::launch::{Launch, Origin, launch};
use crate::entry::{self, Function, PlainEntry};
use crate::sys::clock::Deadline;
use crate::sys::fd::{self, InternalFd};
use crate::sys::fork::{self, fork_sibling};
use crate::sys::pidfd::Child;
use crate::sys::procfs::thread_count;
use crate::sys::signal;
use crate::wire::control::{self, Body, Failure, Incoming, Message, Role, ToChild, ToParent};
use crate::wire::handles::Carried;
use crate::{Error, Result};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// A running fork server.
#[derive(Debug)]
pub(crate) struct ForkServer {
    child: Arc<Child>,
    /// Locked for one request and its answer.
    socket: Mutex<InternalFd>,
}

/// Why a request was not served.
enum Refusal {
    /// The server is gone: another one may serve it.
    Gone,
    /// No server would serve it.
    Final(Error),
}

impl ForkServer {
    /// Starts a server from a fresh image, or (for a pool) as a copy of this process.
    pub(crate) fn start_from(
        origin: Origin<'_>,
        template: &Launch,
        preload: Option<PlainEntry>,
    ) -> Result<Self> {
        let plan = Launch { name: "forkserver".to_owned(), ..template.clone() };
        let role = Role::ForkServer(preload.map(|entry| entry.0));
        let mut starting = launch(&plan, origin, role, &[], &Carried::new())?;
        starting.hello()?;
        starting.ready()?;
        let (child, socket) = starting.finish()?;
        Ok(Self { child, socket: Mutex::new(socket) })
    }

    /// Has the server fork a child around `control`.
    pub(crate) fn start(
        &self,
        launch: &Launch,
        control: &OwnedFd,
        deadline: Deadline,
    ) -> Result<Child> {
        self.request(launch, control, deadline).map_err(|refusal| match refusal {
            Refusal::Gone => Error::start("the fork server of this pool has died"),
            Refusal::Final(error) => error,
        })
    }

    fn request(
        &self,
        launch: &Launch,
        control: &OwnedFd,
        deadline: Deadline,
    ) -> std::result::Result<Child, Refusal> {
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => Refusal::Gone,
            _ => Refusal::Final(Error::os("the fork server could not be asked", error)),
        };
        let mut bodies = Vec::new();
        let environment = match launch.environment.changed_strings().map_err(Refusal::Final)? {
            None => None,
            Some(strings) => {
                let bytes =
                    postcard::to_stdvec(&strings).map_err(io::Error::other).map_err(fail)?;
                Some(Body::pack(bytes, &mut bodies).map_err(fail)?)
            }
        };
        let request = ToChild::Fork {
            environment,
            settings: launch.settings.clone(),
            stdio: launch.stdio.each_ref().map(Option::is_some),
        };
        let mut fds: Vec<BorrowedFd<'_>> = vec![control.as_fd()];
        fds.extend(launch.stdio.iter().flatten().map(|fd| fd.as_fd()));
        fds.extend(bodies.iter().map(AsFd::as_fd));
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        control::send(&*socket, &request, &fds, true).map_err(fail)?;
        match control::recv(&*socket, deadline).map_err(fail)? {
            Incoming::Message(Message { body: ToParent::Forked(Ok(pid)), mut fds, .. }) => {
                let pidfd = fds.pop().ok_or(Refusal::Gone)?;
                Ok(Child::from_parts(pid, pidfd))
            }
            Incoming::Message(Message { body: ToParent::Forked(Err(what)), .. }) => {
                let message = format!("the fork server could not start a process: {what}");
                Err(Refusal::Final(Error::start(message)))
            }
            // No answer in time: a late one would be taken for the answer to the next request.
            Incoming::Nothing | Incoming::Closed | Incoming::Message(_) => {
                let _ = self.child.signal(libc::SIGKILL);
                Err(Refusal::Gone)
            }
        }
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        self.child.kill_and_wait();
    }
}

#[derive(Debug)]
struct Global {
    generation: u32,
    preload: Option<PlainEntry>,
    server: Option<Arc<ForkServer>>,
}

static GLOBAL: Mutex<Global> = Mutex::new(Global { generation: 0, preload: None, server: None });

/// Sets the function that the fork server calls once, before it forks anything: what it leaves in
/// memory is shared by all children, copy-on-write. It must not start threads.
///
/// Python's `set_forkserver_preload` takes module names; here it is a function.
///
/// ```
/// use multiproc::{Pool, StartMethod, set_forkserver_preload};
/// use std::sync::OnceLock;
///
/// static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
///
/// fn build_table() {
///     TABLE.get_or_init(|| (0..1000).map(|x| x * x).collect());
/// }
///
/// set_forkserver_preload(build_table)?;
/// let pool = Pool::builder().workers(1).start_method(StartMethod::ForkServer).build()?;
/// assert_eq!(pool.apply(|| TABLE.get().map(|table| table[30]), ())?, Some(900));
/// # Ok::<(), multiproc::Error>(())
/// ```
///
/// # Errors
/// If the fork server runs already, or the function lives in a shared library.
pub fn set_forkserver_preload<F: Function<(), Output = ()>>(function: F) -> Result<()> {
    let _ = function;
    let entry = entry::plain_entry::<F>()?;
    let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    if global.server.is_some() && global.generation == fork::generation() {
        return Err(Error::invalid(
            "the fork server runs already: set its preload function before the first start",
        ));
    }
    global.preload = Some(entry);
    Ok(())
}

/// Starts a child through the program's fork server, starting or restarting that as needed.
pub(crate) fn global_start(
    launch: &Launch,
    control: &OwnedFd,
    deadline: Deadline,
) -> Result<Child> {
    for _ in 0..2 {
        let server = global_server(launch)?;
        match server.request(launch, control, deadline) {
            Ok(child) => return Ok(child),
            Err(Refusal::Final(error)) => return Err(error),
            Err(Refusal::Gone) => {
                let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
                if global.server.as_ref().is_some_and(|now| Arc::ptr_eq(now, &server)) {
                    global.server = None;
                }
            }
        }
    }
    Err(Error::start("the fork server died twice while it was asked for a process"))
}

fn global_server(template: &Launch) -> Result<Arc<ForkServer>> {
    let mut global = GLOBAL.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = fork::generation();
    if global.generation != generation
        && let Some(inherited) = global.server.take()
    {
        // It belongs to the process that we were forked from.
        std::mem::forget(inherited);
    }
    global.generation = generation;
    if let Some(server) = &global.server {
        return Ok(server.clone());
    }
    let plain =
        Launch { start_timeout: template.start_timeout, ..Launch::named("forkserver".to_owned()) };
    let server = ForkServer::start_from(Origin::Spawn, &plain, global.preload)?;
    let server = Arc::new(server);
    global.server = Some(server.clone());
    Ok(server)
}

/// The server's own life: forks a child for each request until the program is gone.
pub(super) fn serve(preload: Option<u64>, control: &OwnedFd) -> i32 {
    signal::shrug_off_interrupt();
    if let Err(failure) = prepare(preload) {
        let _ = control::send(control, &ToParent::StartFailed(failure), &[], true);
        return 1;
    }
    if control::send(control, &ToParent::Ready, &[], true).is_err() {
        return 1;
    }
    loop {
        match control::recv(control, Deadline::NEVER) {
            Ok(Incoming::Message(message)) => fork_one(message, control),
            Ok(Incoming::Closed) => return 0,
            Ok(Incoming::Nothing) => {}
            Err(_) => return 1,
        }
    }
}

/// Serves one request; in the new child this does not return.
fn fork_one(message: Message<ToChild>, control: &OwnedFd) {
    let ToChild::Fork { environment, settings, stdio } = message.body else {
        return;
    };
    let mut fds = message.fds.into_iter();
    let Some(child_control) = fds.next() else {
        return;
    };
    let stdio = stdio.map(|replace| if replace { fds.next() } else { None });
    let environment = match environment.map(|body| unpack_environment(body, &mut fds)).transpose() {
        Ok(environment) => environment,
        Err(error) => {
            let answer = ToParent::Forked(Err(error.to_string()));
            let _ = control::send(control, &answer, &[], true);
            return;
        }
    };
    let answer = match fork_sibling() {
        Ok(None) => {
            fd::neutralise(control.as_fd());
            let stdio = stdio.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd));
            child::main_forked(child_control, environment, &settings, stdio, None)
        }
        Ok(Some((pid, pidfd))) => {
            control::send(control, &ToParent::Forked(Ok(pid)), &[pidfd.as_fd()], true)
        }
        Err(error) => control::send(control, &ToParent::Forked(Err(error.to_string())), &[], true),
    };
    // If the program is gone, the lifeline ends this process.
    drop(answer);
}

fn unpack_environment(
    body: Body,
    fds: &mut impl Iterator<Item = OwnedFd>,
) -> io::Result<Vec<CString>> {
    postcard::from_bytes(&body.unpack(fds)?).map_err(io::Error::other)
}

fn prepare(preload: Option<u64>) -> std::result::Result<(), Failure> {
    if let Some(entry) = preload {
        entry::call_plain(entry)?;
    }
    match thread_count() {
        1 => Ok(()),
        threads => Err(Failure::Other(format!(
            "the preload function left {threads} threads running; a fork server must have one"
        ))),
    }
}
