use super::end::{End, What};
use super::verbs::{ends, sends};
use crate::Given;
use crate::channel::item;
use crate::channel::line;
use crate::sys::clock::Deadline;
use crate::wire::handles::Carried;
use crate::{Data, Result};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The writing end of a [`Pipe`](super::Pipe) in one direction.
///
/// Clones are the same end, as are handles in other processes; each message of any of them arrives
/// whole.
pub struct PipeSender<T>(Arc<End>, PhantomData<fn(T)>);

ends!(PipeSender<T>, Some(line::shape::<T>()), None);
sends!(PipeSender<T>, T);
