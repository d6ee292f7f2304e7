//! Control messages.
//!
//! They are few and small; anything large travels in a memfd beside them. What a child sends is
//! decoded from a private copy of bounded size and may be anything.

use crate::error::PanicInfo;
use crate::sys::child::Settings;
use crate::sys::clock::Deadline;
use crate::sys::memfd;
use crate::sys::socket::{self, MAX_MESSAGE, Received};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that travel with a message: inside it, or in a memfd beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    Inline(Vec<u8>),
    Memfd,
}

/// The largest inline body; it leaves room for the rest of the message.
const MAX_BODY: usize = MAX_MESSAGE / 4;

impl Body {
    /// Packs bytes, adding a descriptor to `fds` if they are many.
    pub(crate) fn pack(bytes: Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<Self> {
        if bytes.len() <= MAX_BODY {
            return Ok(Self::Inline(bytes));
        }
        let mut file = File::from(memfd::create("multiproc-body", bytes.len())?);
        file.write_all(&bytes)?;
        fds.push(file.into());
        Ok(Self::Memfd)
    }

    /// Unpacks the bytes, taking the next descriptor from `fds` if they are in one.
    pub(crate) fn unpack(self, fds: &mut impl Iterator<Item = OwnedFd>) -> io::Result<Vec<u8>> {
        match self {
            Self::Inline(bytes) => Ok(bytes),
            Self::Memfd => {
                let missing = || io::Error::new(io::ErrorKind::InvalidData, "a body is missing");
                let fd = fds.next().ok_or_else(missing)?;
                let len = memfd::checked_len(&fd)?;
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(len)?;
                let mut file = File::from(fd);
                io::Seek::rewind(&mut file)?;
                file.take(len as u64).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

/// A function to call: its offset in the image and its encoded arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) entry: u64,
    pub(crate) arguments: Body,
}

/// What a new child is to be. Descriptors: the lifeline, then the role's, then bodies, then
/// objects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The identity of the parent's build.
    pub(crate) identity: Vec<u8>,
    pub(crate) name: String,
    pub(crate) parent_pid: i32,
    /// The signal for the parent's death; 0 for none.
    pub(crate) parent_death_signal: i32,
    pub(crate) daemon: bool,
    pub(crate) role: Role,
    /// The numbers of the objects in the arguments.
    pub(crate) objects: Vec<u64>,
}

/// What a child does after hello.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Serve a pool. Descriptors: board, task ring.
    Worker(WorkerRole),
    /// Call one function and exit.
    Process(Call),
    /// Fork children on request, after calling the preload function.
    ForkServer(Option<u64>),
}

/// The settings of a pool worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerRole {
    pub(crate) initializer: Option<Call>,
    pub(crate) finalizer: Option<u64>,
    /// Retire after this many tasks.
    pub(crate) max_tasks: Option<u64>,
    /// Retire when this many bytes are resident after a task.
    pub(crate) max_memory: Option<u64>,
}

/// From the parent to a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToChild {
    Setup(Setup),
    /// An argument block, with its descriptor; the blocks to forget are not used again.
    Block {
        uid: u64,
        capacity: u64,
        forget: Vec<u64>,
    },
    /// Objects, with their descriptors, for the tasks to come.
    Objects {
        uids: Vec<u64>,
    },
    /// The parent has dropped these objects.
    Forget {
        uids: Vec<u64>,
    },
    /// To a fork server: start a child. Descriptors: its control socket, then stdio by the flags,
    /// then bodies. The environment is an encoded `Vec<CString>`.
    Fork {
        environment: Option<Body>,
        settings: Settings,
        stdio: [bool; 3],
    },
}

/// From a child to its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToParent {
    /// There is something in the result ring.
    Bell,
    /// The child runs, and this is its build.
    Hello { identity: Vec<u8> },
    /// The worker or fork server is initialised.
    Ready,
    /// The child ends because it could not start its work.
    StartFailed(Failure),
    /// A result block, with its descriptor.
    Block { id: u32 },
    /// The objects in a result, with their descriptors; its record names the number.
    Objects { number: u64, uids: Vec<u64> },
    /// The descriptors of these objects, or of this block, did not arrive: too many open files.
    Missing { uids: Vec<u64> },
    /// The function of a process has returned this, or failed. Descriptors: the body, if it is in
    /// one, then the objects in it.
    Returned { result: Result<Body, Failure>, objects: Vec<u64> },
    /// The function panicked, and the program is built so that this aborts it.
    LastWords(PanicInfo),
    /// From a fork server: the new child, with its pidfd; or why there is none.
    Forked(Result<i32, String>),
}

/// Why a function did not return a value, as the child tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Panicked(PanicInfo),
    /// The arguments could not be decoded.
    Decode(String),
    /// The result could not be encoded.
    Encode(String),
    /// Anything else that kept the child from running the function.
    Other(String),
}

/// One control message and its descriptors.
#[derive(Debug)]
pub(crate) struct Message<T> {
    pub(crate) body: T,
    pub(crate) fds: Vec<OwnedFd>,
    /// This process could not take the descriptors: too many open files.
    pub(crate) is_short: bool,
}

/// What a receive brought.
#[derive(Debug)]
pub(crate) enum Incoming<T> {
    Message(Message<T>),
    Closed,
    Nothing,
}

/// Sends a message; `wait` says whether to wait for room in the socket.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MAX_MESSAGE {
        let what = format!("a control message of {} bytes (at most {MAX_MESSAGE})", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    socket::send(socket, &bytes, fds, wait)
}

/// Receives a message, waiting until the deadline.
pub(crate) fn recv<T: DeserializeOwned>(
    socket: impl AsFd,
    deadline: Deadline,
) -> io::Result<Incoming<T>> {
    let mut buffer = Vec::new();
    decode(socket::recv(socket, &mut buffer, deadline)?, &buffer)
}

/// Receives a message if one is there, into `buffer`.
pub(crate) fn try_recv<T: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
) -> io::Result<Incoming<T>> {
    decode(socket::try_recv(socket, buffer)?, buffer)
}

fn decode<T: DeserializeOwned>(received: Received, buffer: &[u8]) -> io::Result<Incoming<T>> {
    let (len, fds, is_short) = match received {
        Received::Closed => return Ok(Incoming::Closed),
        Received::Nothing => return Ok(Incoming::Nothing),
        Received::Message(len, fds) => (len, fds, false),
        Received::Short(len) => (len, Vec::new(), true),
    };
    let body = postcard::from_bytes(&buffer[..len])
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a garbled message"))?;
    Ok(Incoming::Message(Message { body, fds, is_short }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_all_sizes_travel() {
        for len in [0, MAX_BODY, MAX_BODY + 1, 1 << 20] {
            let mut fds = Vec::new();
            let body = Body::pack(vec![5; len], &mut fds).expect("pack");
            assert_eq!(fds.is_empty(), len <= MAX_BODY);
            let bytes = body.unpack(&mut fds.into_iter()).expect("unpack");
            assert_eq!(bytes, vec![5; len]);
        }
    }

    proptest::proptest! {
        /// P4: whatever a child sends, the parent gets a message or an error.
        #[test]
        fn garbage_on_the_socket_is_an_error(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..512),
        ) {
            let (a, b) = socket::pair().expect("pair");
            socket::send(&a, &bytes, &[], true).expect("send");
            let _ = try_recv::<ToParent>(&b, &mut Vec::new());
        }
    }
}
