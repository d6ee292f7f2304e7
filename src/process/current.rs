use crate::start::{children, context};
use crate::sys::clock::Deadline;
use crate::{Error, ExitStatus, Result};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// A child of this process that was alive when [`active_children`] looked.
#[derive(Clone)]
pub struct ActiveChild(Arc<children::Record>);

impl ActiveChild {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.child.pid() as u32
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it is terminated, not waited for, when the program ends.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.is_alive()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If the system cannot wait for it.
    pub fn join(&self) -> Result<ExitStatus> {
        let failed = |error| Error::os("the process could not be waited for", error);
        let exit = self.0.child.wait(Deadline::NEVER).map_err(failed)?;
        Ok(exit.map_or(ExitStatus::Unknown, ExitStatus::from))
    }

    /// Sends `SIGTERM`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn terminate(&self) -> Result<()> {
        let refused = |error| Error::os("the process could not be terminated", error);
        self.0.child.signal(libc::SIGTERM).map_err(refused)
    }
}

impl fmt::Debug for ActiveChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ActiveChild");
        debug.field("name", &self.name()).field("pid", &self.pid()).finish()
    }
}

/// The [`Process`](crate::Process) children of this process that are alive. Pool workers are not
/// among them. As a side effect, children that have ended are reaped.
///
/// ```
/// use multiproc::{Process, active_children};
///
/// let mut process = Process::builder(std::thread::park, ()).name("waits").spawn()?;
/// assert!(active_children().iter().any(|child| child.name() == "waits"));
/// process.kill()?;
/// assert!(process.join().unwrap_err().is_exited());
/// assert!(!active_children().iter().any(|child| child.name() == "waits"));
/// # Ok::<(), multiproc::Error>(())
/// ```
#[must_use]
pub fn active_children() -> Vec<ActiveChild> {
    children::active().into_iter().map(ActiveChild).collect()
}

/// What this process is; see [`current_process`].
#[derive(Clone, Debug)]
pub struct CurrentProcess(Arc<context::Context>);

impl CurrentProcess {
    /// The name that the parent gave, or `MainProcess`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Whether the parent started it as a daemon.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }
}

/// This process: the program itself, or the child that the caller runs in.
///
/// ```
/// use multiproc::{Process, current_process};
///
/// assert_eq!(current_process().name(), "MainProcess");
/// let mut process =
///     Process::builder(|| current_process().name().to_owned(), ()).name("Ada").spawn()?;
/// assert_eq!(process.join()?, "Ada");
/// # Ok::<(), multiproc::Error>(())
/// ```
#[must_use]
pub fn current_process() -> CurrentProcess {
    CurrentProcess(context::current())
}

/// The process that started this one; see [`parent_process`].
#[derive(Clone, Debug)]
pub struct ParentProcess(Arc<context::Context>);

impl ParentProcess {
    /// The process id that the parent had when it started this process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.parent.as_ref().map_or(0, |parent| parent.pid as u32)
    }

    /// Whether the parent still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.0.parent.as_ref().is_some_and(|parent| parent.lifeline.parent_is_alive())
    }

    /// Waits until the parent has died, or `timeout` has passed; true if it has died. Only
    /// useful where its death does not end this process
    /// ([`ParentDeath::Ignore`](crate::ParentDeath::Ignore) or a signal that is handled).
    #[must_use]
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = Deadline::after_opt(timeout);
        self.0.parent.as_ref().is_none_or(|parent| parent.lifeline.wait(deadline))
    }
}

/// The process that started this one, or `None` in the program itself.
///
/// ```
/// use multiproc::{Process, parent_process};
///
/// assert!(parent_process().is_none());
/// let mut process = Process::spawn(|| parent_process().map(|parent| parent.pid()), ())?;
/// assert_eq!(process.join()?, Some(std::process::id()));
/// # Ok::<(), multiproc::Error>(())
/// ```
#[must_use]
pub fn parent_process() -> Option<ParentProcess> {
    let context = context::current();
    context.parent.is_some().then(|| ParentProcess(context))
}

/// How many processors this process may use: the CPU affinity and the cgroup's quota are
/// honoured. 1 if the system does not tell.
///
/// ```
/// assert!(multiproc::available_parallelism().get() >= 1);
/// ```
#[must_use]
pub fn available_parallelism() -> NonZeroUsize {
    // std looks at sched_getaffinity and at the quotas of cgroup v1 and v2.
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
