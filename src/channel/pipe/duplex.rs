use super::end::{End, What};
use super::messages::Messages;
use super::verbs::{ends, receives, sends};
use crate::Given;
use crate::channel::item;
use crate::channel::item::Arrived;
use crate::channel::line;
use crate::shm::bytes::Bytes;
use crate::shm::ring::Ring;
use crate::sys::clock::Deadline;
use crate::wire::handles::Carried;
use crate::wire::post::Post;
use crate::{Data, Result};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// An end of a [`Pipe`](super::Pipe) in both directions: it sends `S` and receives `R`.
///
/// Clones are the same end, as are handles in other processes. Each message of any of them arrives
/// whole; one that comes goes to one of them.
pub struct PipeEnd<S, R = S>(Arc<End>, PhantomData<fn(S) -> R>);

ends!(PipeEnd<S, R>, Some(line::shape::<S>()), Some(line::shape::<R>()));
sends!(PipeEnd<S, R>, S);
receives!(PipeEnd<S, R>, R);
