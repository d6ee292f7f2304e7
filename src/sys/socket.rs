//! Message sockets that carry descriptors.
//!
//! Semantics: unix(7), `SOCK_SEQPACKET`: message boundaries are kept and a closed peer reads as an
//! empty message. Descriptors travel as `SCM_RIGHTS`.

use super::clock::Deadline;
use super::rights;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect,
    getsockname, recv as peek, sendmsg, socket, socketpair,
};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The most descriptors that one message carries.
pub(crate) const MAX_FDS: usize = 240;

/// The largest message in bytes; anything larger travels in a memfd beside it.
pub(crate) const MAX_MESSAGE: usize = 64 * 1024;

/// What one `recv` brought.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message of this many bytes and its descriptors.
    Message(usize, Vec<OwnedFd>),
    /// A message of this many bytes whose descriptors this process could not take: it has too
    /// many open files. Those that came are closed again.
    Short(usize),
    /// The peer has closed its end, or is dead.
    Closed,
    /// Nothing is there now (only for a receive that does not wait).
    Nothing,
}

/// A connected pair of close-on-exec message sockets.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A socket that is connected to itself: whoever has it can send, and whoever has it can receive.
///
/// For a moment before it is connected it has an address, chosen by the kernel, to which any
/// process in the network namespace could send; afterwards nobody else can.
pub(crate) fn to_self() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    connect(socket.as_raw_fd(), &getsockname::<UnixAddr>(socket.as_raw_fd())?)?;
    Ok(socket)
}

/// Copies the beginning of the next message out, and leaves it there; how many bytes that is.
/// `None` if there is no message.
pub(crate) fn look(socket: impl AsFd, target: &mut [u8]) -> Option<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    loop {
        match peek(socket.as_fd().as_raw_fd(), target, flags) {
            // Reset: see `try_recv`.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            result => return result.ok().filter(|len| *len > 0),
        }
    }
}

/// Whether this is a socket of the kind that [`pair`] makes.
#[cfg(feature = "ipc-channel")]
pub(crate) fn carries_messages(fd: impl AsFd) -> bool {
    is_seqpacket(fd.as_fd().as_raw_fd())
}

/// The socket of this process, whoever made it, in whose next message these bytes are; another
/// descriptor of it. The numbers from `near` on are looked at first.
///
/// The caller has sent the bytes there, keeps the socket open, and nobody else knows them.
///
/// # Errors
/// `NotFound` if no socket has them.
#[cfg(feature = "ipc-channel")]
pub(crate) fn find_marked(mark: &[u8], near: RawFd) -> io::Result<OwnedFd> {
    let listed = || {
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
    };
    let mut numbers = (near..near.saturating_add(16)).chain(std::iter::once_with(listed).flatten());
    let found = numbers.find(|fd| is_seqpacket(*fd) && is_marked(*fd, mark));
    let fd = found.ok_or(io::ErrorKind::NotFound)?;
    // SAFETY: the caller keeps the socket with this number open until we return.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned()
}

/// Whether a descriptor, which need not be open, is of a Unix socket that keeps the boundaries of
/// messages. Asking changes nothing.
#[cfg(feature = "ipc-channel")]
fn is_seqpacket(fd: RawFd) -> bool {
    let is = |option: libc::c_int, wanted: libc::c_int| {
        let mut value: libc::c_int = 0;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `value`; it refuses a number that is
        // not that of a socket.
        let result = unsafe {
            let target = (&raw mut value).cast();
            libc::getsockopt(fd, libc::SOL_SOCKET, option, target, &raw mut len)
        };
        result == 0 && value == wanted
    };
    is(libc::SO_DOMAIN, libc::AF_UNIX) && is(libc::SO_TYPE, libc::SOCK_SEQPACKET)
}

/// Whether the next message of a socket has these bytes near its start. It stays where it is.
#[cfg(feature = "ipc-channel")]
fn is_marked(fd: RawFd, mark: &[u8]) -> bool {
    let mut start = [0; 64];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let len = loop {
        match peek(fd, &mut start, flags) {
            Err(Errno::EINTR) => {}
            result => break result.unwrap_or(0),
        }
    };
    start[..len].windows(mark.len()).any(|bytes| bytes == mark)
}

/// Whether all other ends are closed.
pub(crate) fn is_hung_up(socket: impl AsFd) -> bool {
    let mut polls = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    loop {
        match poll(&mut polls, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            Err(_) => return false,
            Ok(_) => break,
        }
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    polls[0].revents().is_some_and(|events| events.intersects(gone))
}

/// Sends one message with descriptors; `wait` says whether to wait for room.
///
/// # Errors
/// `BrokenPipe` if the peer is gone, `WouldBlock` if there is no room and `wait` is false.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let mut flags = MsgFlags::MSG_NOSIGNAL;
    if !wait {
        flags |= MsgFlags::MSG_DONTWAIT;
    }
    loop {
        let sent =
            sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None);
        match sent {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(Errno::EPIPE.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends one message with descriptors, if the kernel has room for both now; whether it had.
///
/// # Errors
/// `BrokenPipe` if the peer is gone.
pub(crate) fn try_send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<bool> {
    match send(socket, bytes, fds, false) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // The kernel allows a user only so many descriptors on their way.
        Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Throws away the next message, whatever it is; false if there is none, or no more will come.
pub(crate) fn discard(socket: impl AsFd) -> bool {
    match try_recv(socket, &mut Vec::new()) {
        Ok(Received::Message(..) | Received::Short(_)) => true,
        Ok(Received::Closed | Received::Nothing) => false,
        // What no sender that keeps the protocol sends has been taken all the same.
        Err(error) => error.kind() == io::ErrorKind::InvalidData,
    }
}

/// Receives one message without waiting; `buffer` then holds its bytes.
///
/// The buffer is made as long as the message, not as long as one may be: in a process that has
/// just forked or been forked, each page that is written to is a page fault.
///
/// # Errors
/// `InvalidData` for a message larger than [`MAX_MESSAGE`] or with too many descriptors: the
/// sender does not keep the protocol.
pub(crate) fn try_recv(socket: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<Received> {
    next_message(socket.as_fd(), buffer, MsgFlags::empty())
}

/// As [`try_recv`], and leaves the message there; its descriptors are copies.
pub(crate) fn try_peek(socket: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<Received> {
    next_message(socket.as_fd(), buffer, MsgFlags::MSG_PEEK)
}

/// As [`try_peek`], of the message that begins at byte `at` of all that are there. From then on the
/// socket is for this only: where to look is a property of the socket itself, which all who have it
/// share, so one of them may do this at a time.
pub(crate) fn try_peek_at(
    socket: impl AsFd,
    at: usize,
    buffer: &mut Vec<u8>,
) -> io::Result<Received> {
    let raw = socket.as_fd().as_raw_fd();
    let at = libc::c_int::try_from(at).map_err(|_| Errno::EINVAL)?;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live integer of that length.
    let set = unsafe {
        libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const at).cast(), len)
    };
    Errno::result(set)?;
    next_message(socket.as_fd(), buffer, MsgFlags::MSG_PEEK)
}

fn next_message(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    how: MsgFlags,
) -> io::Result<Received> {
    let (len, flags, fds) = loop {
        match receive(socket, buffer, how) {
            Ok(received) => break received,
            // Reset: the peer closed its end before it had read everything. The kernel tells so
            // once, even before what the peer has sent; that and the end come next.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Err(Errno::EAGAIN) => return Ok(Received::Nothing),
            Err(error) => return Err(error.into()),
        }
    };
    if flags.contains(MsgFlags::MSG_TRUNC) || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an oversized control message"));
    }
    // There was room for all that can be sent, so it is this process that could not take them.
    if flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok(Received::Short(len));
    }
    match len {
        0 if fds.is_empty() => Ok(Received::Closed),
        len => Ok(Received::Message(len, fds)),
    }
}

/// Finds out how long the next message is and takes it, or leaves it there if `how` says so.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    how: MsgFlags,
) -> nix::Result<(usize, MsgFlags, Vec<OwnedFd>)> {
    let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let len = peek(socket.as_raw_fd(), &mut [], look)?;
    buffer.clear();
    buffer.resize(len.min(MAX_MESSAGE), 0);
    let mut fds = Vec::new();
    let (len, flags) = rights::receive(socket, buffer, how, &mut fds)?;
    Ok((len, flags, fds))
}

/// Receives one message, waiting until the deadline; `Nothing` means that it passed.
pub(crate) fn recv(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    deadline: Deadline,
) -> io::Result<Received> {
    loop {
        match try_recv(&socket, buffer)? {
            Received::Nothing if wait_readable(&socket, deadline)? => {}
            other => return Ok(other),
        }
    }
}

/// Waits until `fd` is readable (or hung up); false if the deadline passed first.
pub(crate) fn wait_readable(fd: impl AsFd, deadline: Deadline) -> io::Result<bool> {
    Ok(wait_any(&[fd.as_fd()], deadline)?.is_some())
}

/// Whether `fd` is readable (or hung up) now.
pub(crate) fn is_readable(fd: impl AsFd) -> io::Result<bool> {
    let mut polls = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut polls, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(ready) => return Ok(ready > 0),
        }
    }
}

/// Waits until one of `fds` is readable (or hung up) and returns its index; `None` if the
/// deadline passed first.
pub(crate) fn wait_any(fds: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Option<usize>> {
    Ok(readable(fds, deadline)?.into_iter().position(|is_readable| is_readable))
}

/// Waits until some of `fds` are readable (or hung up), or the deadline; which of them are.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], deadline: Deadline) -> io::Result<Vec<bool>> {
    let mut polls: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        let timeout = PollTimeout::try_from(deadline.poll_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut polls, timeout) {
            Ok(0) if !deadline.passed() => {}
            Err(Errno::EINTR) => {}
            Ok(_) => return Ok(polls.iter().map(|poll| poll.any().unwrap_or(true)).collect()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rights::SCM_MAX_FD;
    use super::*;
    use crate::sys::eventually::eventually;

    /// Whether nothing comes any more, since all descriptors of the other end are closed.
    fn is_closed(fd: &OwnedFd) -> bool {
        let received = try_recv(fd, &mut Vec::new()).expect("received");
        assert!(matches!(received, Received::Closed | Received::Nothing), "{received:?}");
        matches!(received, Received::Closed)
    }

    #[test]
    fn messages_keep_their_boundaries_and_carry_descriptors() {
        let (a, b) = pair().expect("socketpair");
        let (extra, _other) = pair().expect("socketpair");
        send(&a, b"one", &[extra.as_fd()], true).expect("send");
        send(&a, b"two", &[], true).expect("send");
        let mut buffer = Vec::new();
        let Received::Message(3, fds) = try_recv(&b, &mut buffer).expect("recv") else {
            panic!("expected one message of 3 bytes");
        };
        assert_eq!((&buffer[..], fds.len()), (&b"one"[..], 1));
        drop(a);
        assert!(matches!(try_recv(&b, &mut buffer), Ok(Received::Message(3, _))));
        eventually("it is closed", || is_closed(&b));
    }

    #[test]
    fn the_last_message_of_a_peer_that_did_not_listen_arrives() {
        let (a, b) = pair().expect("socketpair");
        send(&a, b"unread", &[], true).expect("send");
        send(&b, b"last words", &[], true).expect("send");
        drop(b);
        let mut buffer = Vec::new();
        assert!(matches!(try_recv(&a, &mut buffer), Ok(Received::Message(10, _))));
        eventually("it is closed", || is_closed(&a));
    }

    #[test]
    fn a_message_larger_than_the_limit_is_an_error() {
        let (a, b) = pair().expect("socketpair");
        send(&a, &[7; MAX_MESSAGE + 1], &[], true).expect("send");
        let mut buffer = Vec::new();
        let error = try_recv(&b, &mut buffer).expect_err("truncated");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        send(&a, &[7; MAX_MESSAGE], &[], true).expect("send");
        let received = try_recv(&b, &mut buffer).expect("received");
        assert!(matches!(received, Received::Message(MAX_MESSAGE, _)));
        assert_eq!(buffer, [7; MAX_MESSAGE]);
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_hears_nobody_else() {
        let own = to_self().expect("socket");
        let address = getsockname::<UnixAddr>(own.as_raw_fd()).expect("address");
        let other = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .expect("socket");
        assert_eq!(connect(other.as_raw_fd(), &address), Err(Errno::EPERM));
        assert_eq!(look(&own, &mut [0; 4]), None);
        send(&own, b"to myself", &[own.as_fd()], false).expect("send");
        let mut start = [0; 4];
        assert_eq!((look(&own, &mut start), &start), (Some(4), b"to m"));
        let received = try_recv(&own, &mut Vec::new()).expect("recv");
        assert!(matches!(received, Received::Message(9, fds) if fds.len() == 1));
        assert!(!is_hung_up(&own));
    }

    #[test]
    fn who_is_left_alone_hears_of_it() {
        let (a, b) = pair().expect("socketpair");
        let again = b.try_clone().expect("dup");
        drop(b);
        assert!(!is_hung_up(&a));
        drop(again);
        eventually("it is hung up", || is_hung_up(&a));
    }

    #[test]
    fn descriptors_that_are_too_many_are_closed() {
        let (a, b) = pair().expect("socketpair");
        // A pipe tells when the last copy of its write end is closed.
        let (read, write) = nix::unistd::pipe().expect("pipe");
        for count in [MAX_FDS + 1, SCM_MAX_FD] {
            send(&a, b"x", &vec![write.as_fd(); count], true).expect("send");
            let error = try_recv(&b, &mut Vec::new()).expect_err("too many");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        drop(write);
        eventually("the write end is closed", || is_readable(&read).expect("poll"));
    }

    #[test]
    fn a_send_to_a_closed_peer_is_a_broken_pipe() {
        let (a, b) = pair().expect("socketpair");
        drop(b);
        eventually("it is hung up", || is_hung_up(&a));
        let error = send(&a, b"x", &[], true).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
