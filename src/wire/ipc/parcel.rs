//! Descriptors out of parts of channels, and back.

use crate::shm::object::Object;
use crate::sys::{memfd, room, socket};
use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcSharedMemory, OpaqueIpcReceiver, OpaqueIpcSender};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::TypeId;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Takes the descriptor out of a part; `None` if it is shared memory of no bytes.
pub(super) fn pack<T: Serialize + 'static>(part: &T) -> io::Result<Option<Arc<Object>>> {
    let (_, fds) = Mirror::new()?.packet(part)?;
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next()) {
        (None, _) if is_memory::<T>() => Ok(None),
        (Some(fd), None) => {
            check::<T>(fd.as_fd())?;
            Ok(Some(Arc::new(Object::received(fd))))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, OF_ANOTHER_VERSION)),
    }
}

/// Makes a part of a descriptor.
pub(super) fn unpack<T>(object: Option<&Object>) -> io::Result<T>
where
    T: Serialize + DeserializeOwned + 'static,
{
    let fd = match object {
        Some(object) => Some(object.fd()),
        None if is_memory::<T>() => None,
        None => return Err(invalid("a part of a channel without a descriptor")),
    };
    fd.map_or(Ok(()), check::<T>)?;
    let mirror = Mirror::new()?;
    let (sender, receiver) = ipc::channel::<T>()?;
    // The packet of the sender is two things: a way to send into the channel, and what that crate
    // says beside the descriptor of a part.
    let (channel, way) = mirror.packet(&sender)?;
    let way = way.first().ok_or_else(|| invalid(OF_ANOTHER_VERSION))?;
    let bytes = match (is_memory::<T>(), fd) {
        (false, _) => channel,
        (true, None) => mirror.packet(&IpcSharedMemory::from_bytes(&[]))?.0,
        (true, Some(_)) => mirror.packet(&IpcSharedMemory::from_byte(0, 1))?.0,
    };
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    socket::send(way, &bytes, &fds, false)?;
    // That crate panics when it cannot get the descriptor, so there must be a free number.
    drop((mirror, sender));
    let received = catch_unwind(AssertUnwindSafe(|| receiver.try_recv()));
    match received {
        Ok(Ok(part)) => Ok(part),
        Ok(Err(error)) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(_) => Err(invalid("ipc-channel panicked: there are too many open files, or mappings")),
    }
}

const OF_ANOTHER_VERSION: &str = "ipc-channel did not say what its descriptor is: multiproc works \
                                  with version 0.23 of it";

fn is_memory<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<IpcSharedMemory>()
}

/// Whether a descriptor, which may come from anybody, is one that can be in a `T`.
fn check<T: 'static>(fd: BorrowedFd<'_>) -> io::Result<()> {
    if !is_memory::<T>() {
        return match socket::carries_messages(fd) {
            true => Ok(()),
            false => Err(invalid("what came is no part of a channel")),
        };
    }
    match memfd::writable_len(fd)? {
        0 => Err(invalid("what came is shared memory of no bytes")),
        len => room::check_addresses(len),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What is sent to find out which descriptor is whose.
type Mark = [u8; 16];

/// A channel of that crate whose receiving end is here as a descriptor, too: what the crate sends
/// can be read as it is, with the descriptors.
struct Mirror {
    sender: OpaqueIpcSender,
    socket: OwnedFd,
    /// Keeps the socket open for the crate.
    _receiver: OpaqueIpcReceiver,
}

impl Mirror {
    fn new() -> io::Result<Self> {
        // The numbers that are given back here are most likely those that the channel gets.
        let near = socket::pair().map(|(one, _)| std::os::fd::AsRawFd::as_raw_fd(&one))?;
        let (sender, receiver) = ipc::channel::<Mark>()?;
        // Nobody can have put the same bytes into another socket: nobody knows them.
        let random = || RandomState::new().hash_one(()).to_ne_bytes();
        let mut mark = Mark::default();
        mark[..8].copy_from_slice(&random());
        mark[8..].copy_from_slice(&random());
        // An encoding that failed, in the user's code, leaves its descriptors in the list of the
        // thread. They go with the mark, or, if one of them cannot be sent, when that has failed.
        sender.send(mark).or_else(|_| sender.send(mark)).map_err(system)?;
        let socket = socket::find_marked(&mark, near)?;
        let mirror = Self { sender: sender.to_opaque(), socket, _receiver: receiver.to_opaque() };
        mirror.take()?;
        Ok(mirror)
    }

    /// What the crate sends for a part: the bytes, and the descriptors beside them.
    fn packet<T: Serialize>(&self, part: &T) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.sender.clone().to::<Outgoing<'_, T>>().send(Outgoing(part)).map_err(|_| {
            let what = "a receiver can be sent once, unless it is in a multiproc::ipc::Ipc";
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })?;
        self.take()
    }

    fn take(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = Vec::new();
        match socket::try_recv(&self.socket, &mut bytes)? {
            socket::Received::Message(_, fds) => Ok((bytes, fds)),
            socket::Received::Short(_) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            _ => Err(invalid(OF_ANOTHER_VERSION)),
        }
    }
}

fn system(error: IpcError) -> io::Error {
    match error {
        IpcError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// A part, borrowed: that crate sends only what it is given.
struct Outgoing<'a, T>(&'a T);

impl<T: Serialize> Serialize for Outgoing<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Only because a channel is of a type that can be sent and received; this one is never received.
impl<'de, T> Deserialize<'de> for Outgoing<'_, T> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("what is borrowed cannot be received"))
    }
}
