//! `crossbeam`: bounded channels of crossbeam-channel, between threads.

use crossbeam_channel::{Receiver, Sender, bounded};

use super::threaded::Channel;

/// A bounded channel.
pub struct Bounded;

impl Channel for Bounded {
    const NAME: &'static str = "crossbeam";

    const CONSUMERS: usize = usize::MAX;

    type Sender<T: Send + 'static> = Sender<T>;

    type Receiver<T: Send + 'static> = Receiver<T>;

    fn create<T: Send>(room: usize) -> (Sender<T>, Receiver<T>) {
        bounded(room)
    }

    fn another<T: Send>(receiver: &Receiver<T>) -> Option<Receiver<T>> {
        Some(receiver.clone())
    }

    fn send<T: Send>(sender: &Sender<T>, item: T) -> Option<()> {
        sender.send(item).ok()
    }

    fn receive<T: Send>(receiver: &Receiver<T>) -> Option<T> {
        receiver.recv().ok()
    }
}
