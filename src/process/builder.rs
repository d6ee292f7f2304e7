use super::Process;
use super::handle::Pipes;
use crate::codec;
use crate::entry::{self, ValueEntry};
use crate::start::builder::launch_settings;
use crate::start::launch::{Closure, Launch, Origin, launch};
use crate::start::{StartMethod, children, start_method};
use crate::sys::fd::InternalFd;
use crate::wire::control::{Body, Call, Role};
use crate::wire::handles::Carried;
use crate::{Arguments, Data, Error, Function, Result};
use std::ffi::CString;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a standard stream of a child leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdio {
    /// To where the parent's leads.
    #[default]
    Inherit,
    /// To `/dev/null`.
    Null,
    /// Through a pipe to the [`Process`].
    Piped,
}

/// What becomes of a child when its parent dies, however it dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentDeath {
    /// The child is killed (`SIGKILL`).
    #[default]
    Kill,
    /// The child gets this signal.
    Signal(i32),
    /// The child goes on.
    Ignore,
}

/// What the new process runs.
enum Target {
    /// A function of the executable, with encoded arguments.
    Call(Result<(ValueEntry, Vec<u8>, Carried)>),
    /// A closure in the memory that a fork copies.
    Closure(Closure),
}

/// Settings of a new [`Process`]; made by [`Process::builder`] and [`Process::fork`].
#[must_use = "a process starts with `spawn`"]
pub struct ProcessBuilder<R> {
    target: Target,
    launch: Launch,
    method: Option<StartMethod>,
    stdio: [Stdio; 3],
    /// Whether the end of the program leaves it alone.
    detached: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> std::fmt::Debug for ProcessBuilder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessBuilder").field("launch", &self.launch).finish_non_exhaustive()
    }
}

fn next_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the numbers must differ.
    format!("Process-{}", COUNT.fetch_add(1, Ordering::Relaxed) + 1)
}

impl<R: Data> ProcessBuilder<R> {
    pub(super) fn new<F, A>(_function: F, arguments: &A) -> Self
    where
        F: Function<A, Output = R>,
        A: Arguments,
    {
        let target = entry::value_entry::<F, A>().and_then(|entry| {
            let (bytes, carried) = codec::encode_arguments(arguments)?;
            Ok((entry, bytes, carried))
        });
        Self::with(Target::Call(target), None)
    }

    pub(super) fn from_closure(closure: impl FnOnce() -> R + 'static) -> Self {
        let closure = Box::new(move || entry::encode_all(&closure()));
        Self::with(Target::Closure(closure), Some(StartMethod::Fork))
    }

    fn with(target: Target, method: Option<StartMethod>) -> Self {
        Self {
            target,
            launch: Launch::named(next_name()),
            method,
            stdio: [Stdio::Inherit; 3],
            detached: false,
            result: PhantomData,
        }
    }

    /// Names the process: for `ps`, for logs, and for [`Process::name`]. `Process-N` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.launch.name = name.into();
        self
    }

    /// Whether the process is terminated when the program ends, instead of being waited for.
    ///
    /// As in Python: when `main` returns (or `exit` is called), daemon children get `SIGTERM`,
    /// and `SIGKILL` a second later; then the program waits for the others.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.launch.daemon = daemon;
        self
    }

    /// Chooses the start method; the program's default unless set.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// Sets the directory that the process starts in.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        // A NUL in the path is found when the process is spawned.
        let bytes = directory.as_ref().as_os_str().as_bytes();
        match CString::new(bytes) {
            Ok(path) => self.launch.settings.directory = Some(path),
            Err(_) => {
                let what = format!("the directory {:?} contains a NUL byte", directory.as_ref());
                self.target = Target::Call(Err(Error::invalid(what)));
            }
        }
        self
    }

    /// Chooses where the child's stdin comes from.
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdio[0] = stdio;
        self
    }

    /// Chooses where the child's stdout goes.
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdio[1] = stdio;
        self
    }

    /// Chooses where the child's stderr goes.
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stdio[2] = stdio;
        self
    }

    /// Restricts the process to these CPUs, counted from 0.
    pub fn affinity(mut self, cpus: impl IntoIterator<Item = usize>) -> Self {
        self.launch.settings.affinity = cpus.into_iter().collect();
        self
    }

    /// Chooses what becomes of the process when this one dies; killed unless set.
    pub fn on_parent_death(mut self, action: ParentDeath) -> Self {
        self.launch.parent_death_signal = match action {
            ParentDeath::Kill => libc::SIGKILL,
            ParentDeath::Signal(signal) => signal,
            ParentDeath::Ignore => 0,
        };
        self
    }

    /// Nobody waits for the process, or terminates it, when the program ends.
    pub(crate) fn detached(mut self) -> Self {
        self.detached = true;
        self.on_parent_death(ParentDeath::Ignore)
    }

    launch_settings!();

    /// Starts the process and waits for its hello.
    ///
    /// ```
    /// use multiproc::Process;
    ///
    /// fn cube(x: u64) -> u64 {
    ///     x * x * x
    /// }
    ///
    /// let mut process = Process::builder(cube, (3,)).name("cube").spawn()?;
    /// assert_eq!(process.name(), "cube");
    /// assert_eq!(process.join()?, 27);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_start`](Error::is_start) if the process could not be started or ended before hello,
    /// [`is_timeout`](Error::is_timeout) if hello did not come in time,
    /// [`is_encode`](Error::is_encode) if an argument could not be encoded, and
    /// [`is_invalid_input`](Error::is_invalid_input) for a setting that makes no sense. No process
    /// is left behind.
    pub fn spawn(mut self) -> Result<Process<R>> {
        self.check()?;
        let pipes = self.open_stdio()?;
        let method = self.method.unwrap_or_else(start_method);
        let mut bodies = Vec::new();
        let mut carried = Carried::new();
        let (origin, call) = match (self.target, method) {
            (Target::Closure(closure), StartMethod::Fork) => {
                let arguments = Body::Inline(Vec::new());
                (Origin::Fork(Some(closure)), Call { entry: 0, arguments })
            }
            (Target::Closure(_), method) => {
                return Err(Error::invalid(format!(
                    "a closure with captures exists only in this process's memory: it can be \
                     started with Fork, not with {method:?}"
                )));
            }
            (Target::Call(target), method) => {
                let (entry, bytes, objects) = target?;
                carried = objects;
                let arguments = Body::pack(bytes, &mut bodies)
                    .map_err(|error| Error::os("no shared memory for the arguments", error))?;
                (Origin::of(method), Call { entry: entry.0, arguments })
            }
        };
        let starting = launch(&self.launch, origin, Role::Process(call), &bodies, &carried)?;
        starting.hello()?;
        let (child, socket) = starting.finish()?;
        let Launch { name, daemon, .. } = self.launch;
        let record = Arc::new(children::Record { child, name, daemon });
        if !self.detached {
            children::add(record.clone());
        }
        let [stdin, stdout, stderr] = pipes.map(|pipe| pipe.and_then(InternalFd::into_owned));
        let pipes = Pipes {
            stdin: stdin.map(Into::into),
            stdout: stdout.map(Into::into),
            stderr: stderr.map(Into::into),
        };
        Ok(Process::new(record, socket, pipes))
    }

    fn check(&self) -> Result<()> {
        if self.launch.name.contains('\0') {
            let message = format!("the process name {:?} contains a NUL byte", self.launch.name);
            return Err(Error::invalid(message));
        }
        let signal = self.launch.parent_death_signal;
        if !(0..=libc::SIGRTMAX()).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is not the number of a signal")));
        }
        Ok(())
    }

    /// Opens the child's ends of its standard streams and returns ours. A forked child must not
    /// have ours: it would wait for the end of its own stdin for ever.
    fn open_stdio(&mut self) -> Result<[Option<InternalFd>; 3]> {
        let failed = |error| Error::os("a standard stream of the process could not be made", error);
        let mut ours = [None, None, None];
        for (index, stdio) in self.stdio.iter().enumerate() {
            self.launch.stdio[index] = match stdio {
                Stdio::Inherit => None,
                Stdio::Null => {
                    let null = File::options().read(true).write(true).open("/dev/null");
                    Some(Arc::new(OwnedFd::from(null.map_err(failed)?)))
                }
                Stdio::Piped => {
                    let (read, write) = std::io::pipe().map_err(failed)?;
                    let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
                    let (mine, theirs) = if index == 0 { (write, read) } else { (read, write) };
                    ours[index] = Some(InternalFd::new(mine));
                    Some(Arc::new(theirs))
                }
            };
        }
        Ok(ours)
    }
}
