//! Locks and signals between processes.

use anyhow::{Result, anyhow};
use multiproc::{Event, Lock, Mutex, Process, Semaphore, Value};
use serde::{Deserialize, Serialize};

use crate::systems::paired::{Job, Primitives, Way};

/// What two processes share: handles, which travel as an argument.
#[derive(Clone, Serialize, Deserialize)]
pub struct Shared {
    /// The lock.
    lock: Lock,
    /// A lock, and what is counted under it.
    counter: Mutex<u64>,
    /// A number.
    value: Value<u64>,
    /// An event each way.
    events: [Event; 2],
    /// A semaphore each way.
    semaphores: [Semaphore; 2],
}

impl Primitives for Shared {
    const NAME: &'static str = "multiproc";

    fn create() -> Result<Shared> {
        Ok(Shared {
            lock: Lock::new()?,
            counter: Mutex::new(0)?,
            value: Value::new(0)?,
            events: [Event::new()?, Event::new()?],
            semaphores: [Semaphore::new(0)?, Semaphore::new(0)?],
        })
    }

    fn lock(&self) -> Result<()> {
        drop(self.lock.lock().map_err(multiproc::Error::from)?);
        Ok(())
    }

    fn count(&self, more: u64) -> Result<u64> {
        let mut counter = self.counter.lock().map_err(multiproc::Error::from)?;
        *counter += more;
        Ok(*counter)
    }

    fn update(&self) -> Result<()> {
        Ok(self.value.update(|value| *value += 1)?)
    }

    fn value(&self) -> Result<u64> {
        Ok(self.value.get()?)
    }

    fn set(&self, event: Way) -> Result<()> {
        self.events[event as usize].set();
        Ok(())
    }

    fn take(&self, event: Way) -> Result<()> {
        let event = &self.events[event as usize];
        event.wait();
        event.clear();
        Ok(())
    }

    fn release(&self, semaphore: Way) -> Result<()> {
        Ok(self.semaphores[semaphore as usize].release(1)?)
    }

    /// Without a guard: the permit is not given back by the process that took it.
    fn acquire(&self, semaphore: Way) -> Result<()> {
        Ok(self.semaphores[semaphore as usize].acquire_raw()?)
    }

    fn beside<T>(&self, job: Job, own: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let run = |job: Job, shared: Shared| job.run(&shared).map_err(|error| error.to_string());
        let mut other = Process::spawn(run, (job, self.clone()))?;
        let own = own()?;
        Ok((own, other.join()?.map_err(|error| anyhow!(error))?))
    }
}
