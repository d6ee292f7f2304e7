//! Senders, receivers and shared memory of the crate `ipc-channel` as arguments, results and items.
//!
//! A value of one of that crate's types is an argument of a call, a result, an item of a queue or a
//! message of a pipe like any other value, by itself:
//!
//! ```
//! use ipc_channel::ipc::{self, IpcReceiver, IpcSender};
//! use multiproc::Process;
//!
//! fn answer(questions: IpcReceiver<u32>, answers: IpcSender<u32>) {
//!     while let Ok(question) = questions.recv() {
//!         answers.send(question * 2).expect("somebody listens");
//!     }
//! }
//!
//! let (ask, questions) = ipc::channel()?;
//! let (answers, answer_of) = ipc::channel()?;
//! let mut process = Process::spawn(answer, (questions, answers))?;
//! ask.send(21)?;
//! assert_eq!(answer_of.recv()?, 42);
//! drop(ask);
//! process.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! As a *part* of another value (of a struct, a tuple, an `Option`, a `Vec`) it goes in an [`Ipc`]:
//!
//! ```
//! use ipc_channel::ipc::{self, IpcSender};
//! use multiproc::{Process, Queue, ipc::Ipc};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Job {
//!     number: u64,
//!     answer: Ipc<IpcSender<u64>>,
//! }
//!
//! fn work(jobs: Queue<Job>) -> multiproc::Result<()> {
//!     for job in &jobs {
//!         let job = job?;
//!         job.answer.into_inner()?.send(job.number + 1).expect("somebody listens");
//!     }
//!     Ok(())
//! }
//!
//! let jobs = Queue::new()?;
//! let mut worker = Process::spawn(work, (jobs.clone(),))?;
//! let (sender, receiver) = ipc::channel()?;
//! jobs.put(Job { number: 41, answer: Ipc::new(sender) })?;
//! assert_eq!(receiver.recv()?, 42);
//! jobs.close();
//! worker.join()??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What travels
//!
//! The descriptor of the channel's end, or of the memory, beside the message. So whoever is killed
//! before or while it takes the message leaves nothing behind, a context that many workers decode
//! gives each of them its own, and a message that nobody took is gone with its queue.
//!
//! - A sender and shared memory are shared: what was sent stays usable here.
//! - A receiver *moves* when it is encoded, as it does in that crate: what is left behind is empty,
//!   and its calls are errors, also if the message was then not taken (a `try_put` into a full
//!   queue, a call on a closed pool). An [`Ipc`] keeps it: it can be sent again, or opened. Several
//!   processes can have the same receiver after that; each message goes to one of them.
//! - A receiver learns that all senders are gone when the messages that carry one are gone, too: a
//!   task's are when the task has ended, an [`Ipc`]'s when it is dropped.
//!
//! # What it costs
//!
//! Some tens of microseconds on each side, for each: that crate tells its descriptors to nobody but
//! the kernel, so they are taken from a message that it sends, and given to it by one that it
//! receives. `src/wire/ipc/README.md` tells how. Other values cost what they cost without the
//! feature.
//!
//! # What cannot be done
//!
//! - A part of another value without an [`Ipc`] around it. That crate keeps what it has encoded in
//!   a list of its own, which cannot be read or matched with the value from outside; a list of
//!   places that comes from another process cannot be checked either. With tuples, `Option`,
//!   `Result`, `Vec` and other types of the standard library it is an error that
//!   [`is_encode`](crate::Error::is_encode). With types of your own it is not noticed, since no
//!   type tells what is in it: that crate then panics where the value is decoded.
//! - `IpcOneShotServer` and `IpcReceiverSet`: they cannot travel in that crate either.
//! - Types of a version of that crate other than 0.23: an error, if it is noticed as above.
//! - Memory that cannot shrink: that crate does not seal its memory, so a process that has some can
//!   cut it off under the others, which get `SIGBUS` then. Use [`FrozenVec`](crate::FrozenVec) or
//!   [`SharedVec`](crate::SharedVec) with processes that are not trusted.

use crate::error::Kind;
use crate::wire::handles::refuse_encoding;
use crate::wire::ipc::{self, Parcel};
use crate::{Data, Error, Execution, Result};
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory, OpaqueIpcReceiver,
    OpaqueIpcSender,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

/// A type of the crate `ipc-channel` that travels.
///
/// It is implemented for `IpcSender`, `IpcReceiver`, `IpcBytesSender`, `IpcBytesReceiver`,
/// `OpaqueIpcSender`, `OpaqueIpcReceiver` and `IpcSharedMemory`, and for no other type.
pub trait Portable: Data + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! portable {
    ($([$($generics:tt)*] $type:ty),* $(,)?) => {$(
        impl<$($generics)*> sealed::Sealed for $type {}
        impl<$($generics)*> Portable for $type {}
    )*};
}

portable!(
    [T: 'static] IpcSender<T>,
    [T: 'static] IpcReceiver<T>,
    [] IpcBytesSender,
    [] IpcBytesReceiver,
    [] OpaqueIpcSender,
    [] OpaqueIpcReceiver,
    [] IpcSharedMemory,
);

/// A sender, a receiver or shared memory of the crate `ipc-channel`, as a part of a value that
/// travels.
///
/// It is packed when it is encoded for the first time, and stays packed: encoding it again gives
/// the same end. [`into_inner`](Self::into_inner) unpacks it, on either side.
///
/// ```
/// use ipc_channel::ipc::{self, IpcReceiver};
/// use multiproc::{Queue, ipc::Ipc};
///
/// let queue = Queue::<(u8, Ipc<IpcReceiver<String>>)>::bounded(1)?;
/// let (sender, receiver) = ipc::channel()?;
/// sender.send("still here".to_owned())?;
/// let item = (1, Ipc::new(receiver));
/// queue.close();
/// assert!(queue.put(&item).is_err());
/// let receiver = item.1.into_inner()?;
/// assert_eq!(receiver.recv()?, "still here");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Ipc<P> {
    content: Mutex<Content<P>>,
}

enum Content<P> {
    Open(P),
    Packed(Parcel),
}

impl<P: Portable> Ipc<P> {
    /// Wraps `part`.
    #[must_use]
    pub fn new(part: P) -> Self {
        Self { content: Mutex::new(Content::Open(part)) }
    }

    /// What was wrapped, here or in the process that sent it.
    ///
    /// # Errors
    /// [`is_os`](Error::is_os) or [`is_out_of_memory`](Error::is_out_of_memory) if this process has
    /// too many open files or too little memory, and [`is_decode`](Error::is_decode) if what came
    /// is not of this kind.
    pub fn into_inner(self) -> Result<P> {
        match self.content.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Content::Open(part) => Ok(part),
            Content::Packed(parcel) => ipc::unpack(&parcel).map_err(not_unpacked::<P>),
        }
    }
}

#[cold]
fn not_unpacked<P>(error: io::Error) -> Error {
    let what = format!("a {} could not be unpacked", std::any::type_name::<P>());
    match error.kind() {
        io::ErrorKind::InvalidData => {
            Error::new(Kind::Decode(Execution::Failed), what).with_source(error)
        }
        _ => Error::memory(what, error),
    }
}

impl<P: Portable> From<P> for Ipc<P> {
    fn from(part: P) -> Self {
        Self::new(part)
    }
}

impl<P> fmt::Debug for Ipc<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.content.try_lock().as_deref() {
            Ok(Content::Open(_)) => "open",
            Ok(Content::Packed(_)) => "packed",
            Err(_) => "in use",
        };
        f.debug_struct("Ipc").field("state", &state).finish()
    }
}

impl<P: Portable> Serialize for Ipc<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Nobody else's code runs under the lock, except for the serialiser's, which is that of the
        // message.
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if let Content::Open(part) = &*content {
            *content =
                Content::Packed(ipc::pack(part).map_err(|error| refuse_encoding(why(&error)))?);
        }
        match &*content {
            Content::Packed(parcel) => parcel.serialize(serializer),
            Content::Open(_) => Err(refuse_encoding("a part of a channel that was not packed")),
        }
    }
}

/// Why a part could not be packed.
fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            "a receiver of ipc-channel that is empty, because it was sent before"
        }
        io::ErrorKind::OutOfMemory => "there is no memory for a part of a channel of ipc-channel",
        _ => {
            "a part of a channel of ipc-channel could not be taken apart: this process has too \
              many open files"
        }
    }
}

impl<'de, P: Portable> Deserialize<'de> for Ipc<P> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let parcel = Parcel::deserialize(from)?;
        Ok(Self { content: Mutex::new(Content::Packed(parcel)) })
    }
}
