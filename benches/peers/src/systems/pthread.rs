//! `pthread`: what pthread and semaphores of POSIX offer two processes, in a page
//! that a forked process shares.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};

use super::forked::{self, fork, wait};
use super::paired::{Job, Primitives, Way};
use crate::reaper;

/// What two processes share.
pub struct Pthread(forked::Shared);

/// All of it, as it lies in shared memory.
#[repr(C)]
struct Page {
    /// The lock, and what is counted under it.
    counter: Locked<u64>,
    /// A number.
    value: Locked<u64>,
    /// An event each way.
    events: [Event; 2],
    /// A semaphore each way.
    semaphores: [Semaphore; 2],
    /// The result of the other process; [`FAILED`] if it has none.
    result: AtomicU64,
}

/// The result of a process that failed.
const FAILED: u64 = u64::MAX;

/// A robust mutex and what it protects, in cache lines of their own.
#[repr(C, align(128))]
struct Locked<T> {
    /// The mutex.
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// Only used while holding it.
    data: UnsafeCell<T>,
}

/// A condition variable with a flag.
#[repr(C, align(128))]
struct Event {
    /// Whether it is set.
    set: Locked<bool>,
    /// Signalled when it has been set.
    changed: UnsafeCell<libc::pthread_cond_t>,
}

/// A semaphore of POSIX.
#[repr(C, align(128))]
struct Semaphore(UnsafeCell<libc::sem_t>);

/// Turns an error number into an error.
fn check(number: libc::c_int, call: &'static str) -> Result<()> {
    match number {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)).context(call),
    }
}

/// Turns the -1 of a call that sets `errno` into an error.
fn check_errno(result: libc::c_int, call: &'static str) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context(call) }
}

impl<T> Locked<T> {
    /// Makes the mutex. To be called once, before anybody uses it.
    fn init(&self) -> Result<()> {
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are made by the first call and live throughout;
        // the mutex lies in memory which nobody uses yet and which is never moved.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes), "pthread_mutexattr_init")?;
            let shared = libc::PTHREAD_PROCESS_SHARED;
            check(libc::pthread_mutexattr_setpshared(attributes, shared), "setpshared")?;
            let robust = libc::PTHREAD_MUTEX_ROBUST;
            check(libc::pthread_mutexattr_setrobust(attributes, robust), "setrobust")?;
            check(libc::pthread_mutex_init(self.mutex.get(), attributes), "pthread_mutex_init")?;
            check(libc::pthread_mutexattr_destroy(attributes), "pthread_mutexattr_destroy")
        }
    }

    /// Takes the mutex. That an owner died is an error here: none does.
    fn lock(&self) -> Result<()> {
        // SAFETY: `init` made the mutex, which lives as long as `self`.
        check(unsafe { libc::pthread_mutex_lock(self.mutex.get()) }, "pthread_mutex_lock")
    }

    /// Gives it back; an error if this thread does not have it.
    fn unlock(&self) -> Result<()> {
        // SAFETY: as in `lock`.
        check(unsafe { libc::pthread_mutex_unlock(self.mutex.get()) }, "pthread_mutex_unlock")
    }

    /// Runs `work` with the mutex held.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Result<R> {
        self.lock()?;
        // SAFETY: nobody else uses the data while this thread holds the mutex.
        let result = work(unsafe { &mut *self.data.get() });
        self.unlock()?;
        Ok(result)
    }
}

impl Event {
    /// Makes it. To be called once, before anybody uses it.
    fn init(&self) -> Result<()> {
        self.set.init()?;
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: as in `Locked::init`.
        unsafe {
            check(libc::pthread_condattr_init(attributes), "pthread_condattr_init")?;
            let shared = libc::PTHREAD_PROCESS_SHARED;
            check(libc::pthread_condattr_setpshared(attributes, shared), "setpshared")?;
            check(libc::pthread_cond_init(self.changed.get(), attributes), "pthread_cond_init")?;
            check(libc::pthread_condattr_destroy(attributes), "pthread_condattr_destroy")
        }
    }

    /// Sets it.
    fn set(&self) -> Result<()> {
        self.set.with(|set| *set = true)?;
        // SAFETY: `init` made the condition variable, which lives as long as `self`.
        check(unsafe { libc::pthread_cond_signal(self.changed.get()) }, "pthread_cond_signal")
    }

    /// Waits until it is set, and clears it.
    fn take(&self) -> Result<()> {
        self.set.lock()?;
        let set = self.set.data.get();
        // SAFETY: `init` made the mutex and the condition variable, which live as
        // long as `self`. The flag is used only while the mutex is held, and not
        // through a reference, as it changes during the wait.
        unsafe {
            while !set.read() {
                let waited = libc::pthread_cond_wait(self.changed.get(), self.set.mutex.get());
                check(waited, "pthread_cond_wait")?;
            }
            set.write(false);
        }
        self.set.unlock()
    }
}

impl Semaphore {
    /// Makes it, for nobody to acquire. To be called once, before anybody uses it.
    fn init(&self) -> Result<()> {
        // SAFETY: the memory is not used by anybody yet and is never moved.
        check_errno(unsafe { libc::sem_init(self.0.get(), 1, 0) }, "sem_init")
    }

    /// Lets it be acquired once more.
    fn release(&self) -> Result<()> {
        // SAFETY: `init` made it, and it lives as long as `self`.
        check_errno(unsafe { libc::sem_post(self.0.get()) }, "sem_post")
    }

    /// Acquires it.
    fn acquire(&self) -> Result<()> {
        // SAFETY: as in `release`.
        check_errno(unsafe { libc::sem_wait(self.0.get()) }, "sem_wait")
    }
}

impl Pthread {
    /// The shared memory as what it is.
    fn page(&self) -> &Page {
        // SAFETY: the mapping is as large as a `Page`, aligned to a page of memory,
        // and lives as long as `self`. Zeroes are valid for all that is in it; it
        // is changed only through atomics and cells.
        unsafe { &*self.0.start() }
    }
}

impl Primitives for Pthread {
    const NAME: &'static str = "pthread";

    fn create() -> Result<Pthread> {
        let shared = Pthread(forked::Shared::new(size_of::<Page>())?);
        let page = shared.page();
        page.counter.init()?;
        page.value.init()?;
        page.events.iter().try_for_each(Event::init)?;
        page.semaphores.iter().try_for_each(Semaphore::init)?;
        Ok(shared)
    }

    fn lock(&self) -> Result<()> {
        self.page().counter.with(|_| ())
    }

    fn count(&self, more: u64) -> Result<u64> {
        self.page().counter.with(|counter| {
            *counter += more;
            *counter
        })
    }

    fn update(&self) -> Result<()> {
        self.page().value.with(|value| *value += 1)
    }

    fn value(&self) -> Result<u64> {
        self.page().value.with(|value| *value)
    }

    fn set(&self, event: Way) -> Result<()> {
        self.page().events[event as usize].set()
    }

    fn take(&self, event: Way) -> Result<()> {
        self.page().events[event as usize].take()
    }

    fn release(&self, semaphore: Way) -> Result<()> {
        self.page().semaphores[semaphore as usize].release()
    }

    fn acquire(&self, semaphore: Way) -> Result<()> {
        self.page().semaphores[semaphore as usize].acquire()
    }

    fn beside<T>(&self, job: Job, own: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let result = &self.page().result;
        let other = fork(|| {
            reaper::end_with_parent();
            // The end of the process, which is waited for, orders this.
            result.store(job.run(self).unwrap_or(FAILED), Ordering::Relaxed);
        })?;
        let own = own()?;
        wait(other)?;
        let others = result.load(Ordering::Relaxed);
        ensure!(others != FAILED, "the other process failed");
        Ok((own, others))
    }
}
