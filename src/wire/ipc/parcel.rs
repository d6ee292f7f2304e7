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
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
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
    let memory = match (is_memory::<T>(), fd) {
        (false, _) => None,
        (true, None) => Some(mirror.packet(&IpcSharedMemory::from_bytes(&[]))?.0),
        (true, Some(_)) => {
            let example = guarded(|| IpcSharedMemory::from_byte(0, 1))?;
            Some(mirror.packet(&example)?.0)
        }
    };
    let (sender, receiver) = ipc::channel::<T>()?;
    // The packet of the sender is two things: a way to send into the channel, and what that crate
    // says beside the descriptor of a part.
    let (channel, way) = mirror.packet(&sender)?;
    let way = way.first().ok_or_else(|| invalid(OF_ANOTHER_VERSION))?;
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    socket::send(way, &memory.unwrap_or(channel), &fds, false)?;
    // That crate panics when it cannot get the descriptor, so there must be a free number.
    drop((mirror, sender));
    let received = guarded(|| receiver.try_recv())?;
    received.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Runs code of that crate, which panics where it gets no descriptor or no memory.
fn guarded<R>(run: impl FnOnce() -> R) -> io::Result<R> {
    let what = "ipc-channel panicked: this process has too many open files, or too many mappings";
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| io::Error::other(what))
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
        let near = free_numbers()?;
        let (sender, receiver) = ipc::channel::<Mark>()?;
        // Nobody can have put the same bytes into another socket: nobody knows them.
        let random = || RandomState::new().hash_one(()).to_ne_bytes();
        let mut mark = Mark::default();
        mark[..8].copy_from_slice(&random());
        mark[8..].copy_from_slice(&random());
        // An encoding that failed, in the user's code, leaves its descriptors in the list of the
        // thread. They go with the mark, or, if one of them cannot be sent, when that has failed.
        let sent = guarded(|| sender.send(mark).or_else(|_| sender.send(mark)))?;
        sent.map_err(system)?;
        let socket = socket::find_marked(&mark, near)?;
        let mirror = Self { sender: sender.to_opaque(), socket, _receiver: receiver.to_opaque() };
        mirror.take()?;
        Ok(mirror)
    }

    /// What the crate sends for a part: the bytes, and the descriptors beside them.
    fn packet<T: Serialize>(&self, part: &T) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let sender = self.sender.clone().to::<Outgoing<'_, T>>();
        guarded(|| sender.send(Outgoing(part)))?.map_err(|_| {
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

/// Makes sure that there are as many free numbers for descriptors as that crate needs, most of the
/// time: it panics where there are not, and after its first message with none for ever. The first
/// of them, which is most likely one that the next channel gets.
fn free_numbers() -> io::Result<RawFd> {
    let taken = [socket::pair()?, socket::pair()?, socket::pair()?, socket::pair()?];
    Ok(taken[0].0.as_raw_fd())
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

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_channel::ipc::{IpcReceiver, IpcSender};
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    fn refuse<T: crate::Data>(fd: impl Into<OwnedFd>) {
        let error = unpack::<T>(Some(&Object::received(fd.into()))).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }

    #[test]
    fn descriptors_of_anything_else_are_refused() {
        let null = || File::open("/dev/null").expect("null");
        let memory = |len| memfd::create("test", len).expect("memfd");
        let (stream, _other) = UnixStream::pair().expect("sockets");
        refuse::<IpcSender<u32>>(null());
        refuse::<IpcReceiver<u32>>(memory(100));
        refuse::<IpcSender<u32>>(stream);
        refuse::<IpcSharedMemory>(socket::pair().expect("sockets").0);
        refuse::<IpcSharedMemory>(null());
        refuse::<IpcSharedMemory>(memory(0));
        let sealed = memory(100);
        memfd::seal_writes(&sealed).expect("seal");
        refuse::<IpcSharedMemory>(sealed);
        let writable = memory(100);
        let path = format!("/proc/self/fd/{}", writable.as_raw_fd());
        refuse::<IpcSharedMemory>(File::open(path).expect("read-only"));
        assert!(unpack::<IpcSender<u32>>(None).is_err());
    }

    #[test]
    fn a_part_that_was_packed_can_be_unpacked_as_often_as_one_likes() {
        let (sender, receiver) = ipc::channel::<u32>().expect("a channel");
        let packed = pack(&sender).expect("pack");
        for number in 0..3 {
            let sender = unpack::<IpcSender<u32>>(packed.as_deref()).expect("unpack");
            sender.send(number).expect("send");
            assert_eq!(receiver.recv().expect("a number"), number);
        }
        let nothing = pack(&IpcSharedMemory::from_bytes(&[])).expect("pack");
        assert!(nothing.is_none());
        assert!(unpack::<IpcSharedMemory>(None).expect("unpack").is_empty());
    }

    #[test]
    fn what_is_no_part_of_a_channel_is_not_packed() {
        assert_eq!(pack(&5_u32).expect_err("refused").kind(), io::ErrorKind::InvalidInput);
    }
}
