//! Queues between processes.

use anyhow::{Result, anyhow};
use multiproc::{Barrier, Data, Process, Queue};
use serde::{Deserialize, Serialize};

use crate::systems::queued::{Item, Queues, Shape, Taken, consume, produce};

/// What the processes share: handles, which travel as an argument.
#[derive(Serialize, Deserialize)]
#[serde(bound = "T: Data")]
struct Shared<T> {
    /// The queue.
    queue: Queue<T>,
    /// Where they wait for each other.
    gate: Barrier,
}

/// Processes with a queue between them.
pub struct Processes;

impl Queues for Processes {
    const NAME: &'static str = "multiproc";

    const CONSUMERS: usize = usize::MAX;

    fn numbers(shape: Shape) -> Result<Taken> {
        run::<u64>(shape)
    }

    fn blocks(shape: Shape) -> Result<Taken> {
        run::<Vec<u8>>(shape)
    }
}

/// Starts the other processes, is a consumer itself, and waits for them.
fn run<T: Item + Data>(shape: Shape) -> Result<Taken> {
    let shared = Shared::<T> {
        queue: Queue::bounded(T::ROOM)?,
        gate: Barrier::new(shape.parties().try_into()?)?,
    };
    let mut others = Vec::new();
    for _ in 0..shape.pairs {
        let life = |shape, shared: Shared<T>| told(shared.put_all(shape).map(|()| 0));
        others.push(Process::spawn(life, (shape, shared.clone()))?);
    }
    for _ in 1..shape.pairs {
        let life = |shape, shared: Shared<T>| told(shared.take_all(shape).map(|taken| taken.sum));
        others.push(Process::spawn(life, (shape, shared.clone()))?);
    }
    let mut taken = shared.take_all(shape)?;
    for mut other in others {
        let sum = other.join()?.map_err(|error| anyhow!(error))?;
        taken.sum = taken.sum.wrapping_add(sum);
    }
    Ok(taken)
}

/// A result that can travel.
fn told<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error:#}"))
}

impl<T: Item + Data> Shared<T> {
    /// The life of a producer.
    fn put_all(&self, shape: Shape) -> Result<()> {
        produce(shape, T::first(), |item| Ok(self.queue.put(item)?), || self.meet())
    }

    /// The life of a consumer.
    fn take_all(&self, shape: Shape) -> Result<Taken> {
        consume(shape, || self.queue.get()?.number(), || self.meet())
    }

    /// Waits for all other parties.
    fn meet(&self) -> Result<()> {
        self.gate.wait()?;
        Ok(())
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared { queue: self.queue.clone(), gate: self.gate.clone() }
    }
}
