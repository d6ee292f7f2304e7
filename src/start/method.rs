use std::sync::atomic::{AtomicU8, Ordering};

/// How a child process comes to be.
///
/// | method | what it does | start | when |
/// |---|---|---|---|
/// | `Spawn` | executes this program's file again | about an exec | always works, safe with threads; the default |
/// | `ForkServer` | a fresh, single-threaded copy of the program forks on request | about a fork | many starts; shared, preloaded state |
/// | `Fork` | copies this process as it is | about a fork | the child needs what is in memory now |
///
/// The names and the meaning follow Python's `multiprocessing`, "Contexts and start methods".
///
/// ```
/// use multiproc::{Pool, StartMethod};
///
/// let pool = Pool::builder().workers(1).start_method(StartMethod::ForkServer).build()?;
/// assert_eq!(pool.apply(|| 6 * 7, ())?, 42);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// Fork and exec of `/proc/self/exe`: the running file, also if it was replaced or deleted.
    /// The child starts with fresh memory.
    Spawn,
    /// The program is executed once more as a server, which forks a child on each request. The
    /// first start costs a `Spawn`, the others a small fork. State made by the function given to
    /// [`set_forkserver_preload`](crate::set_forkserver_preload) is shared copy-on-write.
    ForkServer,
    /// Fork of this process: the child has a copy of all memory. Refused with an error while this
    /// process has more than one thread, because locks held by other threads would never be
    /// released in the child. A pool with this method forks once, when it is built; its workers
    /// are copies of that moment. If that one copy, the template, is killed, the pool cannot
    /// replace workers any more and ends with an error that says so.
    Fork,
}

const METHODS: [StartMethod; 3] = [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork];

static DEFAULT: AtomicU8 = AtomicU8::new(0);

/// Sets the start method for everything that does not choose its own.
///
/// ```
/// use multiproc::{StartMethod, set_start_method, start_method};
///
/// assert_eq!(start_method(), StartMethod::Spawn);
/// set_start_method(StartMethod::ForkServer);
/// assert_eq!(start_method(), StartMethod::ForkServer);
/// ```
pub fn set_start_method(method: StartMethod) {
    // Relaxed: a setting that publishes nothing else.
    DEFAULT.store(method as u8, Ordering::Relaxed);
}

/// The start method of everything that does not choose its own.
#[must_use]
pub fn start_method() -> StartMethod {
    METHODS[usize::from(DEFAULT.load(Ordering::Relaxed)) % METHODS.len()]
}
