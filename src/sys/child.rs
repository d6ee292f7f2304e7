//! Starting this executable again, and the settings that a child puts on itself.

use super::pidfd::Child;
use super::signal::BlockAll;
use super::stack::Stack;
use serde::{Deserialize, Serialize};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// The descriptor at which a child finds its control socket after exec.
pub(crate) const CONTROL_FD: RawFd = 3;

/// What a child changes of itself before it runs anything of the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The directory to change to.
    pub(crate) directory: Option<CString>,
    /// The CPUs to run on; empty for no change.
    pub(crate) affinity: Vec<usize>,
    /// The absolute nice value.
    pub(crate) nice: Option<i32>,
    /// Resource limits: `RLIMIT_…` and the value for both the soft and the hard limit.
    pub(crate) limits: Vec<(u32, u64)>,
}

/// The settings in the form in which system calls take them: made before the fork, because the
/// child must not allocate.
struct RawSettings<'a> {
    directory: *const c_char,
    cpus: Option<libc::cpu_set_t>,
    nice: Option<i32>,
    limits: &'a [(u32, u64)],
}

impl<'a> RawSettings<'a> {
    fn new(settings: &'a Settings) -> io::Result<Self> {
        let cpus = match settings.affinity.as_slice() {
            [] => None,
            cpus => Some(cpu_set(cpus)?),
        };
        Ok(Self {
            directory: settings.directory.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            cpus,
            nice: settings.nice,
            limits: &settings.limits,
        })
    }

    /// Applies the settings to the calling process; on failure says which one and why.
    /// Async-signal-safe.
    fn apply(&self) -> Result<(), Failure> {
        // SAFETY: every pointer leads to memory that `self` keeps alive; the calls are plain
        // system calls, safe between vfork and exec.
        unsafe {
            if !self.directory.is_null() && libc::chdir(self.directory) != 0 {
                return Err(Failure::here(Stage::Directory));
            }
            if let Some(cpus) = &self.cpus
                && libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus) != 0
            {
                return Err(Failure::here(Stage::Affinity));
            }
            if let Some(nice) = self.nice
                && libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0
            {
                return Err(Failure::here(Stage::Nice));
            }
            for &(resource, value) in self.limits {
                let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
                if libc::setrlimit(resource, &raw const limit) != 0 {
                    return Err(Failure::here(Stage::Limit));
                }
            }
        }
        Ok(())
    }
}

fn cpu_set(cpus: &[usize]) -> io::Result<libc::cpu_set_t> {
    // SAFETY: cpu_set_t is a bit array for which all zeros is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            let message =
                format!("CPU {cpu} is beyond the {} that a mask holds", libc::CPU_SETSIZE);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // SAFETY: `cpu` is below CPU_SETSIZE, checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    Ok(set)
}

/// Puts the settings on this process (in a forked child, where allocation is allowed).
pub(crate) fn apply_settings(settings: &Settings) -> io::Result<()> {
    RawSettings::new(settings)?.apply().map_err(Failure::into_error)
}

/// Replaces a standard descriptor of this process.
pub(crate) fn replace_stdio(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches only the descriptor table; targets are 0 to 2, which std never owns.
    match unsafe { libc::dup2(fd.as_raw_fd(), target) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Changes this process's environment (in a child, before anything of the user's runs).
pub(crate) fn replace_environment(variables: &[CString]) {
    // SAFETY: the caller is a child that has one thread so far, so nobody reads the environment
    // meanwhile; clearenv and putenv get C strings, leaked because putenv keeps the pointer.
    unsafe {
        libc::clearenv();
        for variable in variables {
            libc::putenv(variable.clone().into_raw());
        }
    }
}

/// Removes a variable from this process's environment before `main`.
pub(crate) fn remove_variable(name: &std::ffi::CStr) {
    // SAFETY: called before `main`, when this process has one thread.
    unsafe { libc::unsetenv(name.as_ptr()) };
}

#[derive(Clone, Copy, Debug)]
#[repr(i32)]
enum Stage {
    Descriptors,
    Directory,
    Affinity,
    Nice,
    Limit,
    Exec,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    stage: Stage,
    errno: i32,
}

impl Failure {
    fn here(stage: Stage) -> Self {
        // SAFETY: errno is a thread-local int of the C library.
        Self { stage, errno: unsafe { *libc::__errno_location() } }
    }

    fn into_error(self) -> io::Error {
        let cause = io::Error::from_raw_os_error(self.errno);
        let what = match self.stage {
            Stage::Descriptors => "the descriptors could not be set up",
            Stage::Directory => "the current directory could not be changed",
            Stage::Affinity => "the CPU affinity could not be set",
            Stage::Nice => "the nice value could not be set",
            Stage::Limit => "a resource limit could not be set",
            Stage::Exec => "/proc/self/exe could not be executed (is /proc mounted?)",
        };
        io::Error::new(cause.kind(), format!("{what}: {cause}"))
    }
}

/// The arguments and the environment of a new process image.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// `argv`.
    pub(crate) arguments: &'a [CString],
    /// `NAME=value` strings.
    pub(crate) environment: &'a [CString],
    /// The control socket, which becomes [`CONTROL_FD`].
    pub(crate) control: BorrowedFd<'a>,
    /// Replacements for stdin, stdout and stderr.
    pub(crate) stdio: [Option<BorrowedFd<'a>>; 3],
}

/// Everything the child needs between clone and exec, reachable without allocating.
struct Plan<'a> {
    argv: *const *const c_char,
    envp: *const *const c_char,
    fds: [(RawFd, RawFd); 4],
    settings: RawSettings<'a>,
    failure: Option<Failure>,
}

/// Executes this process's own executable again.
///
/// `/proc/self/exe` is the running file itself, also when its path was replaced or deleted.
/// The parent's memory is not copied: the child borrows it until exec (`CLONE_VM` and
/// `CLONE_VFORK`), on a stack of its own and with every signal blocked. The new image starts
/// with signals blocked; its entry unblocks them.
pub(crate) fn exec_self(image: &Image<'_>, settings: &Settings) -> io::Result<Child> {
    let argv = pointers(image.arguments);
    let envp = pointers(image.environment);
    let stdio = |index: usize| image.stdio[index].map_or(-1, |fd| fd.as_raw_fd());
    let mut plan = Plan {
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        fds: [(stdio(0), 0), (stdio(1), 1), (stdio(2), 2), (image.control.as_raw_fd(), CONTROL_FD)],
        settings: RawSettings::new(settings)?,
        failure: None,
    };
    let stack = Stack::new()?;
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let blocked = BlockAll::new();
    // SAFETY: the child runs `run_child` on `stack`, which is unused otherwise and outlives it,
    // because CLONE_VFORK suspends this thread until the child has executed or exited. `plan`
    // and all that it points to live on this frame meanwhile. `pidfd` is where CLONE_PIDFD
    // stores the descriptor (the parent_tid argument).
    let pid = unsafe {
        libc::clone(run_child, stack.top(), flags, (&raw mut plan).cast(), &raw mut pidfd)
    };
    let error = io::Error::last_os_error();
    drop(blocked);
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: clone succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor of ours.
    let child = Child::from_parts(pid, unsafe { OwnedFd::from_raw_fd(pidfd) });
    match plan.failure {
        None => Ok(child),
        Some(failure) => {
            child.kill_and_wait();
            Err(failure.into_error())
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

extern "C" fn run_child(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `exec_self` passes its plan and is suspended while this runs.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    plan.failure = Some(run_plan(plan));
    127
}

/// Sets the child up and executes; returns only if that failed. Async-signal-safe.
fn run_plan(plan: &Plan<'_>) -> Failure {
    if let Err(failure) = place_descriptors(plan.fds).and_then(|()| plan.settings.apply()) {
        return failure;
    }
    // SAFETY: argv and envp are null-terminated arrays of C strings kept by the parent.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), plan.argv, plan.envp) };
    Failure::here(Stage::Exec)
}

/// Moves the descriptors to their places and marks all others close-on-exec.
fn place_descriptors(mut fds: [(RawFd, RawFd); 4]) -> Result<(), Failure> {
    /// Above every target, so that placing one does not overwrite the source of another.
    const ABOVE: libc::c_int = 16;
    // SAFETY: these calls touch only the child's own descriptor table (no CLONE_FILES).
    unsafe {
        for (source, _) in fds.iter_mut().filter(|(source, _)| *source >= 0) {
            *source = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, ABOVE);
            if *source < 0 {
                return Err(Failure::here(Stage::Descriptors));
            }
        }
        for (source, target) in fds.into_iter().filter(|(source, _)| *source >= 0) {
            if libc::dup2(source, target) < 0 {
                return Err(Failure::here(Stage::Descriptors));
            }
        }
        let first = (CONTROL_FD + 1) as libc::c_uint;
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) != 0 {
            // Before Linux 5.11: mark one by one those that can exist in practice.
            for fd in CONTROL_FD + 1..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    Ok(())
}
