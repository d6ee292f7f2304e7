use crate::ExitStatus;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::{error, fmt, io};

/// A [`Result`](std::result::Result) with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong.
///
/// What kind it is, the predicates ([`is_timeout`](Error::is_timeout),
/// [`is_worker_died`](Error::is_worker_died), …) tell; whether the work may have run,
/// [`execution`](Error::execution) tells, so that a caller knows whether trying again is safe.
///
/// ```
/// use multiproc::{Execution, Pool};
///
/// fn crash() -> u32 {
///     std::process::abort()
/// }
///
/// let pool = Pool::builder().workers(1).build()?;
/// let error = pool.apply(crash, ()).unwrap_err();
/// assert!(error.is_worker_died());
/// assert_eq!(error.exit_status().and_then(|status| status.signal()), Some(6));
/// assert_eq!(error.execution(), Execution::Unknown);
/// # Ok::<(), multiproc::Error>(())
/// ```
///
/// A function that runs in another process may return a [`Result`]: an error travels as it is,
/// except that a [`source`](error::Error::source) which is not an error number of the system
/// arrives as its text.
#[derive(Clone)]
pub struct Error(Box<Repr>);

#[derive(Clone)]
struct Repr {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

/// Errors are clonable (one failed start fails every waiting task), `io::Error` is not.
type Source = std::sync::Arc<dyn error::Error + Send + Sync>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    InvalidInput,
    Closed,
    Cancelled(Execution),
    Timeout(Execution),
    WorkerDied(ExitStatus, i32),
    Exited(ExitStatus),
    Panicked(PanicInfo),
    Encode(Execution),
    Decode(Execution),
    Start,
    OutOfMemory,
    Os,
    OwnerDied,
    Broken,
    EndOfFile,
    Disconnected,
    Authentication,
    TooLarge,
}

/// Whether the work behind an error may have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Execution {
    /// It did not begin: trying again is safe.
    NotStarted,
    /// It ran, and failed in a way that it told.
    Failed,
    /// It began, and nobody knows how far it came.
    Unknown,
}

/// What a panic in another process said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PanicInfo {
    /// The panic message; `<non-string payload>` if the payload was no string.
    pub message: String,
    /// `file:line:column`, if known.
    pub location: Option<String>,
    /// The backtrace, if `RUST_BACKTRACE` asked for one in the child.
    pub backtrace: Option<String>,
}

impl PanicInfo {
    pub(crate) fn new(message: String, location: Option<String>, trace: Option<String>) -> Self {
        Self { message, location, backtrace: trace }
    }
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Repr { kind, message: message.into(), source: None }))
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidInput, message)
    }

    pub(crate) fn start(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Start, message)
    }

    pub(crate) fn os(doing: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Self::new(Kind::Os, doing).with_source(source)
    }

    /// The error for memory that could not be had.
    pub(crate) fn memory(doing: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => Kind::OutOfMemory,
            _ => Kind::Os,
        };
        Self::new(kind, doing).with_source(source)
    }

    pub(crate) fn closed() -> Self {
        Self::new(Kind::Closed, "the pool is closed: it takes no new work")
    }

    pub(crate) fn cancelled(message: &'static str) -> Self {
        Self::new(Kind::Cancelled(Execution::NotStarted), message)
    }

    pub(crate) fn panicked(info: PanicInfo) -> Self {
        Self::new(Kind::Panicked(info), "the function panicked")
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether a timeout passed: of a wait (the work goes on), or of a task (its worker was
    /// killed); [`execution`](Error::execution) tells them apart.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, Kind::Timeout(_))
    }

    /// Whether the worker that ran the task died: crashed, exited, or was killed.
    #[must_use]
    pub fn is_worker_died(&self) -> bool {
        matches!(self.0.kind, Kind::WorkerDied(..))
    }

    /// Whether a [`Process`](crate::Process) ended without returning a value from its function.
    #[must_use]
    pub fn is_exited(&self) -> bool {
        matches!(self.0.kind, Kind::Exited(_))
    }

    /// Whether the function panicked; [`panic`](Error::panic) has the details.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0.kind, Kind::Panicked(_))
    }

    /// Whether the pool was closed or terminated, the queue was closed or shut down, or nobody is
    /// left to read what was to be sent through a pipe or a connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.0.kind, Kind::Closed)
    }

    /// Whether the task was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.kind, Kind::Cancelled(_))
    }

    /// Whether an argument or a result could not be turned into bytes.
    #[must_use]
    pub fn is_encode(&self) -> bool {
        matches!(self.0.kind, Kind::Encode(_))
    }

    /// Whether bytes could not be turned into an argument or a result.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        matches!(self.0.kind, Kind::Decode(_))
    }

    /// Whether a process could not be started, or its initializer failed.
    #[must_use]
    pub fn is_start(&self) -> bool {
        matches!(self.0.kind, Kind::Start)
    }

    /// Whether an argument of the call itself was wrong.
    #[must_use]
    pub fn is_invalid_input(&self) -> bool {
        matches!(self.0.kind, Kind::InvalidInput)
    }

    /// Whether there is not enough memory for something that was to be reserved: on this machine,
    /// in the control group, or by a limit of this process.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self.0.kind, Kind::OutOfMemory)
    }

    /// Whether the operating system refused something; [`source`](error::Error::source) is its
    /// [`io::Error`].
    #[must_use]
    pub fn is_os(&self) -> bool {
        matches!(self.0.kind, Kind::Os)
    }

    /// Whether somebody died, or panicked, while holding a lock that was to be taken; see
    /// [`OwnerDied`](crate::OwnerDied).
    #[must_use]
    pub fn is_owner_died(&self) -> bool {
        matches!(self.0.kind, Kind::OwnerDied)
    }

    /// Whether a [`Barrier`](crate::sync::Barrier) or a [`Latch`](crate::sync::Latch) was broken:
    /// somebody on whom it waited died, gave up, or broke it on purpose.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.0.kind, Kind::Broken)
    }

    /// Whether the peer has closed its end, or died, and everything that it sent has been read:
    /// Python's `EOFError`.
    #[must_use]
    pub fn is_end_of_file(&self) -> bool {
        matches!(self.0.kind, Kind::EndOfFile)
    }

    /// Whether the process that was to answer is gone: the server of a manager, or the other side
    /// of a connection in the middle of a message.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0.kind, Kind::Disconnected)
    }

    /// Whether the peer of a connection did not prove that it has the same key, is not who it
    /// should be, or is of another program.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        matches!(self.0.kind, Kind::Authentication)
    }

    /// Whether a message was larger than the maximum that the call, or the transport, allows.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.0.kind, Kind::TooLarge)
    }

    /// What the panic said, if it was one.
    #[must_use]
    pub fn panic(&self) -> Option<&PanicInfo> {
        match &self.0.kind {
            Kind::Panicked(info) => Some(info),
            _ => None,
        }
    }

    /// How the worker or process ended, if that is what went wrong.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self.0.kind {
            Kind::WorkerDied(status, _) | Kind::Exited(status) => Some(status),
            _ => None,
        }
    }

    /// The process id of the worker that died, if one did.
    #[must_use]
    pub fn worker_pid(&self) -> Option<u32> {
        match self.0.kind {
            Kind::WorkerDied(_, pid) => u32::try_from(pid).ok(),
            _ => None,
        }
    }

    /// Whether the work may have run.
    #[must_use]
    pub fn execution(&self) -> Execution {
        match self.0.kind {
            Kind::InvalidInput
            | Kind::Closed
            | Kind::Start
            | Kind::OutOfMemory
            | Kind::Os
            | Kind::EndOfFile
            | Kind::Authentication
            | Kind::TooLarge => Execution::NotStarted,
            Kind::Cancelled(execution)
            | Kind::Timeout(execution)
            | Kind::Encode(execution)
            | Kind::Decode(execution) => execution,
            Kind::WorkerDied(..)
            | Kind::Exited(_)
            | Kind::OwnerDied
            | Kind::Broken
            | Kind::Disconnected => Execution::Unknown,
            Kind::Panicked(_) => Execution::Failed,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.kind {
            Kind::WorkerDied(status, pid) => write!(f, " (worker {pid}: {status})")?,
            Kind::Exited(status) => write!(f, ": {status}")?,
            Kind::Panicked(info) => {
                write!(f, ": {}", info.message)?;
                if let Some(location) = &info.location {
                    write!(f, " (at {location})")?;
                }
            }
            _ => {}
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

/// What `main` and `unwrap` show: the message; with `{:#?}` also the parts.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        debug.field("source", &self.0.source).finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

/// An error as it travels.
#[derive(Serialize, Deserialize)]
struct Sent<'a> {
    kind: Cow<'a, Kind>,
    message: Cow<'a, str>,
    source: Option<SentSource>,
}

#[derive(Serialize, Deserialize)]
enum SentSource {
    System(i32),
    Text(String),
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let source = self.0.source.as_ref().map(|source| {
            let number = source.downcast_ref().and_then(io::Error::raw_os_error);
            number.map_or_else(|| SentSource::Text(source.to_string()), SentSource::System)
        });
        let kind = Cow::Borrowed(&self.0.kind);
        Sent { kind, message: Cow::Borrowed(&self.0.message), source }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { kind, message, source } = Deserialize::deserialize(deserializer)?;
        let error = Self::new(kind.into_owned(), message.into_owned());
        Ok(match source {
            None => error,
            Some(SentSource::System(number)) => {
                error.with_source(io::Error::from_raw_os_error(number))
            }
            Some(SentSource::Text(text)) => error.with_source(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_and_can_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn an_error_travels() {
        let status = ExitStatus::Signal { signal: 9, core_dumped: false };
        let missing = io::Error::from_raw_os_error(libc::ENOENT);
        for error in [
            Error::os("it could not be opened", missing),
            Error::start("no start").with_source("because"),
            Error::new(Kind::WorkerDied(status, 42), "the worker died".to_owned()),
            Error::panicked(PanicInfo::new("oh".to_owned(), Some("here:1:2".to_owned()), None)),
            Error::new(Kind::Timeout(Execution::Unknown), "late"),
        ] {
            let bytes = postcard::to_stdvec(&error).expect("encode");
            let back: Error = postcard::from_bytes(&bytes).expect("decode");
            assert_eq!(
                (back.to_string(), back.execution()),
                (error.to_string(), error.execution())
            );
            assert_eq!(format!("{back:#?}"), format!("{error:#?}"));
        }
    }

    #[test]
    fn the_message_names_the_worker_and_its_end() {
        let status = ExitStatus::Signal { signal: 11, core_dumped: true };
        let error = Error::new(Kind::WorkerDied(status, 42), "the worker died");
        assert_eq!(
            error.to_string(),
            "the worker died (worker 42: signal 11 (SIGSEGV), core dumped)"
        );
    }
}
