//! `std_sync_channel` and `std_channel`: the channels of the standard library, with and
//! without a bound. They have one receiver, which cannot be shared.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::systems::threaded::Channel;

/// A bounded channel.
pub struct Bounded;

/// A channel without a bound.
pub struct Unbounded;

impl Channel for Bounded {
    const NAME: &'static str = "std_sync_channel";

    const CONSUMERS: usize = 1;

    type Sender<T: Send + 'static> = SyncSender<T>;

    type Receiver<T: Send + 'static> = Receiver<T>;

    fn create<T: Send>(room: usize) -> (SyncSender<T>, Receiver<T>) {
        sync_channel(room)
    }

    fn another<T: Send>(_: &Receiver<T>) -> Option<Receiver<T>> {
        None
    }

    fn send<T: Send>(sender: &SyncSender<T>, item: T) -> Option<()> {
        sender.send(item).ok()
    }

    fn receive<T: Send>(receiver: &Receiver<T>) -> Option<T> {
        receiver.recv().ok()
    }
}

impl Channel for Unbounded {
    const NAME: &'static str = "std_channel";

    const CONSUMERS: usize = 1;

    type Sender<T: Send + 'static> = Sender<T>;

    type Receiver<T: Send + 'static> = Receiver<T>;

    fn create<T: Send>(_: usize) -> (Sender<T>, Receiver<T>) {
        channel()
    }

    fn another<T: Send>(_: &Receiver<T>) -> Option<Receiver<T>> {
        None
    }

    fn send<T: Send>(sender: &Sender<T>, item: T) -> Option<()> {
        sender.send(item).ok()
    }

    fn receive<T: Send>(receiver: &Receiver<T>) -> Option<T> {
        receiver.recv().ok()
    }
}
