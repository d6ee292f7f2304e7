use crate::Error;
use crate::error::Kind;
use std::fmt;

/// The news that whoever held a lock died, or panicked, while holding it; with the guard.
///
/// The caller *has* the lock, as with std's poisoned mutex: what the lock protects may be half
/// changed, and only the caller knows how to mend it. The news is given once, to the next who
/// takes the lock; when that guard is dropped the lock is as good as new.
///
/// `?` turns it into an [`Error`] for which [`is_owner_died`](Error::is_owner_died) is true; the
/// guard is dropped then. In a function that returns a `Box<dyn Error>` that has to be said, or the
/// guard, which borrows the lock, would be what is returned:
/// `lock().map_err(multiproc::Error::from)?`.
///
/// ```
/// use multiproc::{Mutex, Process};
///
/// fn crash(total: Mutex<u64>) {
///     let mut total = total.lock().expect("nobody has died yet");
///     *total = 1;
///     std::process::abort(); // never unlocks
/// }
///
/// let total = Mutex::new(0u64)?;
/// let mut child = Process::spawn(crash, (total.clone(),))?;
/// let pid = child.pid();
/// assert!(child.join().is_err());
///
/// let news = total.lock().expect_err("the owner died");
/// assert_eq!(news.thread_id(), pid);
/// let mut guard = news.into_guard();
/// assert_eq!(*guard, 1);
/// *guard = 0; // mended
/// drop(guard);
/// assert_eq!(*total.lock()?, 0);
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct OwnerDied<G> {
    guard: G,
    dead: Dead,
}

/// Who died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) thread: u32,
    pub(crate) panicked: bool,
}

impl<G> OwnerDied<G> {
    pub(crate) fn new(guard: G, dead: Dead) -> Self {
        Self { guard, dead }
    }

    /// The guard, with the news of a death if there is any.
    #[inline]
    pub(crate) fn told(guard: G, news: Option<Dead>) -> Result<G, Self> {
        match news {
            None => Ok(guard),
            Some(dead) => Err(Self::new(guard, dead)),
        }
    }

    /// Takes the guard.
    #[must_use]
    pub fn into_guard(self) -> G {
        self.guard
    }

    /// Looks at the guard.
    #[must_use]
    pub fn get_ref(&self) -> &G {
        &self.guard
    }

    /// Changes something through the guard.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.guard
    }

    /// The id of the thread that held the lock; of a lock with data, the id of its process. Of the
    /// first thread of a process, which is the one that runs the function of a
    /// [`Process`](crate::Process) and the tasks of a [`Pool`](crate::Pool), it is the same.
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.dead.thread
    }

    /// Whether it panicked, and may live on; otherwise it has ended, or was killed.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.dead.panicked
    }

    pub(crate) fn map<H>(self, change: impl FnOnce(G) -> H) -> OwnerDied<H> {
        OwnerDied { guard: change(self.guard), dead: self.dead }
    }
}

impl<G> fmt::Display for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dead.fmt(f)
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.panicked { "panicked" } else { "died" };
        write!(f, "thread {} {how} while it held the lock", self.thread)
    }
}

impl<G> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl<G> std::error::Error for OwnerDied<G> {}

impl<G> From<OwnerDied<G>> for Error {
    fn from(died: OwnerDied<G>) -> Self {
        Self::new(
            Kind::OwnerDied,
            format!("{}: what it protects may be half changed; the next lock succeeds", died.dead),
        )
    }
}
