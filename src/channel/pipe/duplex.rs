use super::end::{End, What};
use super::messages::Messages;
use super::verbs::{ends, receives, sends};
use crate::channel::line;
use crate::{Data, Result};
use std::marker::PhantomData;
use std::sync::Arc;

/// An end of a [`Pipe`](super::Pipe) in both directions: it sends `S` and receives `R`.
///
/// Clones are the same end, as are handles in other processes. Each message of any of them arrives
/// whole; one that comes goes to one of them.
pub struct PipeEnd<S, R = S>(Arc<End>, PhantomData<fn(S) -> R>);

ends!(PipeEnd<S, R>, Some(line::shape::<S>()), Some(line::shape::<R>()));
sends!(PipeEnd<S, R>, S);
receives!(PipeEnd<S, R>, R);
