//! Channels between threads, which all have two ends and the same methods.

use std::marker::PhantomData;
use std::sync::Barrier;
use std::thread::{self, JoinHandle, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow};

use super::answered::Partner;
use super::queued::{Item, Queues, Shape, Taken, consume, produce};
use crate::workload::Workload;

/// A kind of channel.
pub trait Channel: 'static {
    /// The name of the system, see [`super::System::name`].
    const NAME: &'static str;

    /// How many receivers there can be, see [`Queues::CONSUMERS`].
    const CONSUMERS: usize;

    /// The end for sending.
    type Sender<T: Send + 'static>: Clone + Send;

    /// The end for receiving.
    type Receiver<T: Send + 'static>: Send;

    /// Makes one with room for so many items, if it can be bounded.
    fn create<T: Send>(room: usize) -> (Self::Sender<T>, Self::Receiver<T>);

    /// Another receiver of the same items, if there can be one.
    fn another<T: Send>(receiver: &Self::Receiver<T>) -> Option<Self::Receiver<T>>;

    /// Sends an item, for which it waits for room; `None` without a receiver.
    fn send<T: Send>(sender: &Self::Sender<T>, item: T) -> Option<()>;

    /// Waits for an item; `None` without a sender.
    fn receive<T: Send>(receiver: &Self::Receiver<T>) -> Option<T>;
}

/// Threads with a channel as the queue between them.
pub struct Threads<C>(PhantomData<C>);

impl<C: Channel> Queues for Threads<C> {
    const NAME: &'static str = C::NAME;

    const CONSUMERS: usize = C::CONSUMERS;

    fn numbers(shape: Shape) -> Result<Taken> {
        run::<C, u64>(shape)
    }

    fn blocks(shape: Shape) -> Result<Taken> {
        run::<C, Vec<u8>>(shape)
    }
}

/// Starts the threads and waits for them.
fn run<C: Channel, T: Item>(shape: Shape) -> Result<Taken> {
    let barrier = Barrier::new(shape.parties());
    let meet = || {
        barrier.wait();
        Ok(())
    };
    let producer = |sender: C::Sender<T>| {
        // The copy is what a queue between processes makes, too.
        let put = |item: &T| C::send(&sender, item.clone()).context("there is no receiver");
        produce(shape, T::first(), put, meet)
    };
    let consumer = |receiver: C::Receiver<T>| {
        let take = || C::receive(&receiver).context("there is no sender")?.number();
        consume(shape, take, meet)
    };
    let (sender, receiver) = C::create::<T>(T::ROOM);
    let receivers: Option<Vec<_>> = (1..shape.pairs).map(|_| C::another(&receiver)).collect();
    let receivers = receivers.context("there can be one receiver only")?;
    let (producer, consumer) = (&producer, &consumer);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..shape.pairs)
            .map(|_| {
                let sender = sender.clone();
                scope.spawn(move || producer(sender))
            })
            .collect();
        let consumers: Vec<_> =
            receivers.into_iter().map(|receiver| scope.spawn(move || consumer(receiver))).collect();
        let mut taken = consumer(receiver)?;
        for thread in consumers {
            taken.sum = taken.sum.wrapping_add(join(thread)?.sum);
        }
        producers.into_iter().try_for_each(join)?;
        Ok(taken)
    })
}

/// Waits for a thread.
fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}

/// A thread with a channel each way.
pub struct Answering<C: Channel> {
    /// To the thread; `None` ends it.
    there: Option<C::Sender<u64>>,
    /// From the thread.
    back: C::Receiver<u64>,
    /// The thread.
    thread: Option<JoinHandle<()>>,
}

impl<C: Channel> Partner for Answering<C>
where
    C::Sender<u64>: 'static,
    C::Receiver<u64>: 'static,
{
    const NAME: &'static str = C::NAME;

    const WORKLOADS: &'static [Workload] = &[Workload::PipePingpong];

    fn start(_: Workload) -> Result<Answering<C>> {
        let (there, questions) = C::create(1);
        let (answers, back) = C::create(1);
        let thread = thread::Builder::new().spawn(move || {
            while let Some(number) = C::receive(&questions) {
                if C::send(&answers, number + 1).is_none() {
                    break;
                }
            }
        })?;
        Ok(Answering { there: Some(there), back, thread: Some(thread) })
    }

    fn ask(&mut self, number: u64) -> Result<u64> {
        let there = self.there.as_ref().context("the thread is being ended")?;
        C::send(there, number).context("the thread has ended")?;
        C::receive(&self.back).context("the thread has ended")
    }

    fn stop(mut self) -> Result<()> {
        self.end().map_err(|_| anyhow!("the thread panicked"))
    }
}

impl<C: Channel> Answering<C> {
    /// Ends the thread, if it has not been ended yet.
    fn end(&mut self) -> thread::Result<()> {
        self.there = None;
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl<C: Channel> Drop for Answering<C> {
    fn drop(&mut self) {
        // A panic has been reported by the thread itself.
        let _ = self.end();
    }
}
