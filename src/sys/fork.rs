//! Fork, and what must be mended after one.

use super::pidfd::Child;
use super::procfs::thread_count;
use super::{holes, identity};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static GENERATION: AtomicU32 = AtomicU32::new(0);
static HANDLER: Once = Once::new();

extern "C" fn bump() {
    // Relaxed: the forked child has one thread, and nobody else shares its copy of the word.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    identity::forget();
    holes::close();
}

/// A number that differs between a process and its forked children, also those that user code
/// forks. Objects that belong to one process remember it.
pub(crate) fn generation() -> u32 {
    HANDLER.call_once(|| {
        // SAFETY: `bump` touches atomics and a thread-local word that needs no set-up, and calls
        // mmap, which is async-signal-safe; the others touch an atomic. None is ever unloaded.
        unsafe { libc::pthread_atfork(Some(holes::lock), Some(holes::unlock), Some(bump)) };
    });
    known_generation()
}

/// As [`generation`], once somebody has called that.
#[inline]
pub(crate) fn known_generation() -> u32 {
    // Relaxed: see `bump`.
    GENERATION.load(Ordering::Relaxed)
}

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The caller, with its new child.
    Parent(Child),
    /// The new child.
    Child,
}

/// The caller's word that forking a process with several threads is all right this time.
///
/// A forked child has only the thread that forked. A lock that another thread held at that moment
/// (in the allocator, in std, in a C library) stays locked in the child for ever.
#[derive(Clone, Copy, Debug)]
pub struct ForkRisk(());

impl ForkRisk {
    /// Takes the responsibility.
    ///
    /// ```no_run
    /// use multiproc::{ForkRisk, Process};
    ///
    /// let greeting = String::from("hello");
    /// // SAFETY: the other threads of this program sleep in a system call and hold no lock.
    /// let risk = unsafe { ForkRisk::accept() };
    /// let mut process = Process::fork(move || greeting.len()).fork_with_threads(risk).spawn()?;
    /// assert_eq!(process.join()?, 5);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Safety
    /// When the fork happens, no other thread of this process holds a lock, or is in the middle of
    /// a change of memory, that the code which will run in the child needs; or that code calls
    /// only functions that are async-signal-safe (signal-safety(7)).
    #[must_use]
    pub unsafe fn accept() -> Self {
        Self(())
    }
}

/// Forks this process; the C library's fork handlers run.
///
/// # Errors
/// `Unsupported`, naming the number of threads, if there are several and nobody took the risk.
pub(crate) fn fork(risk: Option<ForkRisk>) -> io::Result<Forked> {
    generation(); // registers the handler that tells the child apart
    if risk.is_none() {
        require_one_thread()?;
    }
    // SAFETY: there is one thread, so no lock is held by another and no memory is half changed;
    // or the caller of `ForkRisk::accept` vouched for that.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Child::open(pid).map(Forked::Parent).inspect_err(|_| {
            // No descriptor is left for it: nobody could wait for it later.
            // SAFETY: the child has not been waited for, so the pid is still its own; a null
            // status pointer is allowed.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }),
    }
}

fn require_one_thread() -> io::Result<()> {
    /// A thread that was joined is listed until the kernel has let go of it, a moment later.
    const LETTING_GO: Duration = Duration::from_millis(20);
    let start = Instant::now();
    let mut threads = thread_count();
    while threads > 1 && start.elapsed() < LETTING_GO {
        std::thread::sleep(Duration::from_millis(1));
        threads = thread_count();
    }
    match threads {
        1 => Ok(()),
        threads => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "this process has {threads} threads, so it cannot be forked safely: a lock that \
                 another thread holds would stay locked in the child for ever. Use Spawn or \
                 ForkServer, or fork before threads are started (a pool has one)"
            ),
        )),
    }
}

/// Forks a *sibling*: the new process is a child of this process's parent, which can wait for it.
///
/// Returns the pid and a pidfd here, and `None` in the sibling. The C library's fork handlers do
/// not run (its `fork` cannot pass `CLONE_PARENT`); what its own `fork` mends in the child, the
/// cached thread id and the robust-mutex list, is mended here.
///
/// # Errors
/// `Unsupported` if this process has several threads.
pub(crate) fn fork_sibling() -> io::Result<Option<(i32, OwnedFd)>> {
    generation();
    require_one_thread()?;
    let tid_address = tid_address();
    let robust = robust_list();
    let mut pidfd: libc::c_int = -1;
    let mut flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    if tid_address != 0 {
        flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: tid_address,
        parent_tid: 0,
        exit_signal: 0, // inherited with CLONE_PARENT
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    holes::lock();
    // SAFETY: without CLONE_VM this is fork(2): the child runs on its own copy of this stack.
    // `pidfd` is a live int; `tid_address` is the C library's own thread-id word, in the child's
    // copy. There is one thread (checked above), so no lock can be stuck in the child.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match pid {
        -1 => {
            let error = io::Error::last_os_error();
            holes::unlock();
            Err(error)
        }
        0 => {
            bump();
            if let Some((head, len)) = robust {
                // SAFETY: `head` is this thread's list head as the C library registered it before
                // the fork; the memory is in our copy at the same address.
                unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) };
            }
            Ok(None)
        }
        pid => {
            holes::unlock();
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor of ours.
            Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })))
        }
    }
}

/// The address of the C library's copy of this thread's id, or 0 if the kernel does not tell.
fn tid_address() -> u64 {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    let mut address: u64 = 0;
    // SAFETY: the kernel writes one pointer-sized word into `address`.
    match unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut address) } {
        0 => address,
        _ => 0,
    }
}

fn robust_list() -> Option<(usize, usize)> {
    let (mut head, mut len) = (0usize, 0usize);
    // SAFETY: pid 0 is this thread; the kernel writes one word to each of the two.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    (result == 0 && head != 0).then_some((head, len))
}
