use super::ProcessBuilder;
use crate::codec::{Reader, decode_value};
use crate::error::Kind;
use crate::start::children::{self, Record};
use crate::sys::clock::Deadline;
use crate::sys::fd::InternalFd;
use crate::sys::pidfd::Exit;
use crate::wire::control::{self, Failure, Incoming, ToParent};
use crate::wire::handles;
use crate::{Arguments, Data, Error, Execution, ExitStatus, Function, Result};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::time::Duration;

/// Our ends of a child's standard streams.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

/// A function that runs in a process of its own.
///
/// `R` is what the function returns; [`join`](Process::join) brings it back. The API follows
/// Python's `multiprocessing.Process`.
///
/// Dropping the handle of a running process lets it run: it is reaped in the background when it
/// ends, and it is waited for when the program ends (or terminated, if it is a
/// [`daemon`](ProcessBuilder::daemon)). It never outlives this process, unless
/// [`on_parent_death`](ProcessBuilder::on_parent_death) says so, and never stays a zombie.
///
/// ```
/// use multiproc::Process;
///
/// fn greet(name: String) -> String {
///     format!("hello {name} from process {}", std::process::id())
/// }
///
/// let mut process = Process::spawn(greet, ("Ada".to_owned(),))?;
/// let pid = process.pid();
/// assert_eq!(process.join()?, format!("hello Ada from process {pid}"));
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Process<R> {
    record: Arc<Record>,
    socket: Option<InternalFd>,
    /// The child's stdin, if it is [`Piped`](crate::Stdio::Piped).
    pub stdin: Option<ChildStdin>,
    /// The child's stdout, if it is [`Piped`](crate::Stdio::Piped).
    pub stdout: Option<ChildStdout>,
    /// The child's stderr, if it is [`Piped`](crate::Stdio::Piped).
    pub stderr: Option<ChildStderr>,
    result: PhantomData<fn() -> R>,
}

impl<R: Data> Process<R> {
    /// Starts a process that calls `function` with `arguments` (a tuple), with default settings.
    ///
    /// # Errors
    /// As [`ProcessBuilder::spawn`].
    pub fn spawn<F, A>(function: F, arguments: A) -> Result<Self>
    where
        F: Function<A, Output = R>,
        A: Arguments,
    {
        Self::builder(function, arguments).spawn()
    }

    /// The settings of a process that will call `function` with `arguments` (a tuple).
    pub fn builder<F, A>(function: F, arguments: A) -> ProcessBuilder<R>
    where
        F: Function<A, Output = R>,
        A: Arguments,
    {
        ProcessBuilder::new(function, &arguments)
    }

    /// The settings of a process that will be forked from this one and call `closure`, which may
    /// capture anything; only its result travels.
    ///
    /// ```no_run
    /// use multiproc::Process;
    ///
    /// let table: Vec<u64> = (0..1_000_000).collect();
    /// let mut sum = Process::fork(move || table.iter().sum::<u64>()).spawn()?;
    /// assert_eq!(sum.join()?, 499_999_500_000);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// The start is an error while this process has more than one thread; see
    /// [`StartMethod::Fork`](crate::StartMethod::Fork).
    pub fn fork(closure: impl FnOnce() -> R + 'static) -> ProcessBuilder<R> {
        ProcessBuilder::from_closure(closure)
    }

    pub(super) fn new(record: Arc<Record>, socket: InternalFd, pipes: Pipes) -> Self {
        Self {
            record,
            socket: Some(socket),
            stdin: pipes.stdin,
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            result: PhantomData,
        }
    }

    /// Waits for the end of the process and returns what its function returned.
    ///
    /// The child's stdin, if it is piped, is closed first, as std's `Child::wait` does.
    ///
    /// # Errors
    /// [`is_panic`](Error::is_panic) if the function panicked; [`is_exited`](Error::is_exited) if
    /// the process exited or was killed before the function returned, with the
    /// [`exit_status`](Error::exit_status); [`is_encode`](Error::is_encode) or
    /// [`is_decode`](Error::is_decode) if the value could not travel;
    /// [`is_invalid_input`](Error::is_invalid_input) if the value was taken by an earlier join.
    pub fn join(&mut self) -> Result<R> {
        drop(self.stdin.take());
        self.join_until(Deadline::NEVER)
    }

    /// Like [`join`](Process::join), but waits at most `timeout`: zero looks once, centuries are
    /// for ever. Leaves a piped stdin open.
    ///
    /// # Errors
    /// As for `join`, and [`is_timeout`](Error::is_timeout) if the process still runs.
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<R> {
        self.join_until(Deadline::after(timeout))
    }

    /// The result if the process has ended, or `None` if it still runs.
    ///
    /// # Errors
    /// As for [`join`](Process::join).
    pub fn try_join(&mut self) -> Result<Option<R>> {
        if self.is_alive() { Ok(None) } else { self.join_until(Deadline::NEVER).map(Some) }
    }

    fn join_until(&mut self, deadline: Deadline) -> Result<R> {
        let exit = self
            .record
            .child
            .wait(deadline)
            .map_err(|error| Error::os("the process could not be waited for", error))?;
        let Some(exit) = exit else {
            return Err(Error::new(
                Kind::Timeout(Execution::Unknown),
                format!("the process `{}` still runs", self.name()),
            ));
        };
        let Some(socket) = self.socket.take() else {
            let message = format!("the result of the process `{}` was taken before", self.name());
            return Err(Error::invalid(message));
        };
        self.result_from(&socket, exit)
    }

    /// Reads what the child left in its socket when it ended.
    fn result_from(&self, socket: &InternalFd, exit: Exit) -> Result<R> {
        let mut buffer = Vec::new();
        let mut last_words = None;
        while let Ok(Incoming::Message(message)) = control::try_recv(socket, &mut buffer) {
            match message.body {
                ToParent::Returned { result: Ok(body), objects } => {
                    let mut fds = message.fds.into_iter();
                    let bytes = body
                        .unpack(&mut fds)
                        .map_err(|error| Error::os("the result could not be read", error))?;
                    let received = handles::receive(&objects, fds).collect();
                    let decode = || decode_value(&mut Reader(&bytes));
                    return handles::providing(received, decode).map_err(Error::result);
                }
                ToParent::Returned { result: Err(failure), .. } => {
                    return Err(Error::failed(failure));
                }
                ToParent::StartFailed(failure) => {
                    return Err(crate::start::launch::start_failure(failure));
                }
                ToParent::LastWords(info) => last_words = Some(info),
                _ => {}
            }
        }
        match (last_words, exit) {
            (Some(info), Exit::Signal(libc::SIGABRT, _)) => Err(Error::panicked(info)),
            _ => Err(Error::new(
                Kind::Exited(exit.into()),
                format!("the process `{}` ended before its function returned", self.name()),
            )),
        }
    }
}

impl<R> Process<R> {
    /// Whether the process has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.record.is_alive()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.record.child.pid() as u32
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Whether it is terminated, not waited for, when the program ends.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.record.daemon
    }

    /// How the process ended, or `None` while it runs.
    ///
    /// [`ExitStatus::exitcode`] is Python's `Process.exitcode`: -N for signal N.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.record.child.try_wait().ok().flatten().map(ExitStatus::from)
    }

    /// Sends `SIGINT`, as Ctrl-C does. A process that has ended is no error.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(libc::SIGINT)
    }

    /// Sends `SIGTERM`. A process that has ended is no error.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn terminate(&self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Sends `SIGKILL`. A process that has ended is no error.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&self) -> Result<()> {
        self.signal(libc::SIGKILL)
    }

    fn signal(&self, signal: i32) -> Result<()> {
        let refused = |error| Error::os(format!("signal {signal} could not be sent"), error);
        self.record.child.signal(signal).map_err(refused)
    }

    /// Gives the handle back, with its descriptors, once the process has ended.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if the process still runs; it is then left
    /// running, as by a drop. (Python's `close` raises `ValueError`.)
    pub fn close(self) -> Result<()> {
        if self.is_alive() {
            let message = format!("the process `{}` still runs: join it first", self.name());
            return Err(Error::invalid(message));
        }
        Ok(())
    }
}

/// The pidfd: readable when the process has ended, for `poll` and its kin.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.child.as_fd()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        children::detach(self.record.clone());
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .field("exit_status", &self.exit_status())
            .finish_non_exhaustive()
    }
}

impl Error {
    /// The error for what a child said about its function.
    pub(crate) fn failed(failure: Failure) -> Self {
        match failure {
            Failure::Panicked(info) => Self::panicked(info),
            Failure::Decode(what) => Self::new(
                Kind::Decode(Execution::NotStarted),
                format!("the arguments could not be decoded in the other process: {what}"),
            ),
            Failure::Encode(what) => Self::new(
                Kind::Encode(Execution::Failed),
                format!("the function returned, but its value could not be encoded: {what}"),
            ),
            Failure::Other(what) => {
                Self::start(format!("the other process could not run the function: {what}"))
            }
        }
    }
}
