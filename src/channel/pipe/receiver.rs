use super::end::{End, What};
use super::messages::Messages;
use super::verbs::{ends, receives};
use crate::channel::item::Arrived;
use crate::channel::line;
use crate::shm::bytes::Bytes;
use crate::shm::ring::Ring;
use crate::sys::clock::Deadline;
use crate::wire::post::Post;
use crate::{Data, Result};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The reading end of a [`Pipe`](super::Pipe) in one direction.
///
/// Clones are the same end, as are handles in other processes: each message goes to one of them.
pub struct PipeReceiver<T>(Arc<End>, PhantomData<fn() -> T>);

ends!(PipeReceiver<T>, None, Some(line::shape::<T>()));
receives!(PipeReceiver<T>, T);
