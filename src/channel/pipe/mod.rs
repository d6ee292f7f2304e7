//! Pipes: two sides, messages in order. `README.md` in this folder has the protocol.

mod duplex;
mod end;
mod messages;
mod raw;
mod receiver;
mod sender;
mod verbs;

pub use duplex::PipeEnd;
pub use messages::Messages;
pub(crate) use raw::RawEnd;
pub use receiver::PipeReceiver;
pub use sender::PipeSender;

use super::line;
use crate::wire::post::Post;
use crate::{Data, Result};
use end::End;
use std::io;
use std::marker::PhantomData;

/// Makes pipes: two ends, between which messages travel in order. Python's `multiprocessing.Pipe`.
///
/// `S` is what the first end sends, and `R` what it receives: the same type unless said otherwise.
/// The ends are handles: pass one to another process as an argument, as a part of a message, or by
/// fork, and keep the other.
///
/// | | |
/// |---|---|
/// | [`duplex`](Pipe::duplex) | two [`PipeEnd`]s that both send and receive |
/// | [`one_way`](Pipe::one_way) | a [`PipeSender`] and a [`PipeReceiver`] |
///
/// Messages go through shared memory: a hot round trip makes no system call. A direction holds a
/// mebibyte or two, beside messages of more than 128 KiB, which have memory of their own: 64 MiB of
/// them, or four; then who sends waits. A message has 8 GiB at most, and is received whole or not
/// at all, whoever is killed.
///
/// When nobody has an end any more, in any process, the other side hears of it: its reader
/// gets what was sent and then [`is_end_of_file`](crate::Error::is_end_of_file), its writer
/// [`is_closed`](crate::Error::is_closed). As always with pipes, this wants every process to drop
/// the ends that it does not use; an argument is moved to the other process, unless it was cloned,
/// and a forked child has to [`close`](PipeEnd::close) what its parent keeps.
///
/// ```
/// use multiproc::{Pipe, PipeEnd, Process};
///
/// fn shout(end: PipeEnd<String>) -> multiproc::Result<()> {
///     while let Ok(text) = end.recv() {
///         end.send(text.to_uppercase())?;
///     }
///     Ok(())
/// }
///
/// let (here, there) = Pipe::<String>::duplex()?;
/// let mut process = Process::spawn(shout, (there,))?;
/// here.send("hello".to_owned())?;
/// assert_eq!(here.recv()?, "HELLO");
/// drop(here);
/// process.join()??;
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipe<S, R = S>(PhantomData<fn(S) -> R>);

impl<S: Data, R: Data> Pipe<S, R> {
    /// A pipe in both directions.
    ///
    /// # Errors
    /// [`is_out_of_memory`](crate::Error::is_out_of_memory) if there is no memory for it,
    /// [`is_os`](crate::Error::is_os) if there are no file descriptors: each end has three.
    pub fn duplex() -> Result<(PipeEnd<S, R>, PipeEnd<R, S>)> {
        let make = || {
            let (there, back) = (end::ring(line::shape::<S>())?, end::ring(line::shape::<R>())?);
            let (ours, theirs) = Post::pair()?;
            let one = End::new(Some(there.clone()), Some(back.clone()), ours);
            Ok((PipeEnd::of(one), PipeEnd::of(End::new(Some(back), Some(there), theirs))))
        };
        make().map_err(|error: io::Error| line::not_made("pipe", error))
    }
}

impl<T: Data> Pipe<T> {
    /// A pipe in one direction.
    ///
    /// ```
    /// use multiproc::{Pipe, PipeSender, Process};
    ///
    /// fn count(numbers: PipeSender<u32>) -> multiproc::Result<()> {
    ///     (1..=3).try_for_each(|number: u32| numbers.send(number))
    /// }
    ///
    /// let (sender, receiver) = Pipe::one_way()?;
    /// let mut process = Process::spawn(count, (sender,))?;
    /// let numbers: Vec<u32> = receiver.iter().collect::<Result<_, _>>()?;
    /// assert_eq!(numbers, [1, 2, 3]);
    /// process.join()??;
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`duplex`](Pipe::duplex); each end has two descriptors.
    pub fn one_way() -> Result<(PipeSender<T>, PipeReceiver<T>)> {
        let make = || {
            let ring = end::ring(line::shape::<T>())?;
            let (ours, theirs) = Post::pair()?;
            let sender = PipeSender::of(End::new(Some(ring.clone()), None, ours));
            Ok((sender, PipeReceiver::of(End::new(None, Some(ring), theirs))))
        };
        make().map_err(|error: io::Error| line::not_made("pipe", error))
    }
}
