use super::end::{End, What};
use super::messages::Messages;
use super::verbs::{ends, receives};
use crate::channel::line;
use crate::{Data, Result};
use std::marker::PhantomData;
use std::sync::Arc;

/// The reading end of a [`Pipe`](super::Pipe) in one direction.
///
/// Clones are the same end, as are handles in other processes: each message goes to one of them.
pub struct PipeReceiver<T>(Arc<End>, PhantomData<fn() -> T>);

ends!(PipeReceiver<T>, None, Some(line::shape::<T>()));
receives!(PipeReceiver<T>, T);
