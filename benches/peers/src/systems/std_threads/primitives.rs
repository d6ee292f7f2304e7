//! Locks and signals between threads, of the standard library.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};

use crate::systems::paired::{Job, Primitives, Way};

/// What two threads share.
#[derive(Default)]
pub struct Shared {
    /// The lock, and what is counted under it.
    counter: Apart<Mutex<u64>>,
    /// A number.
    value: Apart<Mutex<u64>>,
    /// An event each way.
    events: [Apart<Signal<bool>>; 2],
    /// A semaphore each way.
    semaphores: [Apart<Signal<u64>>; 2],
}

/// In cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// What the standard library has instead of events and semaphores.
#[derive(Default)]
struct Signal<T> {
    /// Whether the event is set, or how often the semaphore can be acquired.
    state: Mutex<T>,
    /// Notified when that has become more.
    changed: Condvar,
}

/// Takes a lock. No thread panics while it has one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Signal<T> {
    /// Changes the state and wakes who waits for that.
    fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut lock(&self.state));
        self.changed.notify_one();
    }

    /// Waits while the state does not allow it, and changes the state.
    fn wait(&self, refuses: impl Fn(&T) -> bool, change: impl FnOnce(&mut T)) {
        let guard = lock(&self.state);
        let guard = self.changed.wait_while(guard, |state| refuses(state));
        change(&mut guard.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Primitives for Shared {
    const NAME: &'static str = "std_threads";

    fn create() -> Result<Shared> {
        Ok(Shared::default())
    }

    fn lock(&self) -> Result<()> {
        drop(lock(&self.counter.0));
        Ok(())
    }

    fn count(&self, more: u64) -> Result<u64> {
        let mut counter = lock(&self.counter.0);
        *counter += more;
        Ok(*counter)
    }

    fn update(&self) -> Result<()> {
        *lock(&self.value.0) += 1;
        Ok(())
    }

    fn value(&self) -> Result<u64> {
        Ok(*lock(&self.value.0))
    }

    fn set(&self, event: Way) -> Result<()> {
        self.events[event as usize].0.change(|set| *set = true);
        Ok(())
    }

    fn take(&self, event: Way) -> Result<()> {
        self.events[event as usize].0.wait(|set| !*set, |set| *set = false);
        Ok(())
    }

    fn release(&self, semaphore: Way) -> Result<()> {
        self.semaphores[semaphore as usize].0.change(|permits| *permits += 1);
        Ok(())
    }

    fn acquire(&self, semaphore: Way) -> Result<()> {
        let semaphore = &self.semaphores[semaphore as usize].0;
        semaphore.wait(|permits| *permits == 0, |permits| *permits -= 1);
        Ok(())
    }

    fn beside<T>(&self, job: Job, own: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        thread::scope(|scope| {
            let other = scope.spawn(|| job.run(self));
            let own = own()?;
            let others = other.join().map_err(|_| anyhow!("the other thread panicked"))?;
            Ok((own, others?))
        })
    }
}
