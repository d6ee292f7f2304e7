//! Stream sockets between programs: Unix sockets that have a name, and TCP.
//!
//! Semantics: unix(7), tcp(7), and cmsg(3) for descriptors. No send or receive here waits; whoever
//! has to wait does so with a deadline, and holds no lock meanwhile.

use super::clock::Deadline;
use super::rights;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike,
    SockaddrStorage, UnixAddr, bind, connect, getsockname, getsockopt, listen, sendmsg, setsockopt,
    shutdown, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, IoSlice};
use std::net::{self, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::time::Duration;

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// As many bytes, at least one.
    Bytes(usize),
    /// The peer has closed its end, or is dead, and nothing is left.
    End,
    /// Nothing is there now.
    Nothing,
}

/// The two sorts of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Unix,
    Tcp,
}

/// An address of either sort, as the standard library has them.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Unix(unix::SocketAddr),
    Tcp(net::SocketAddr),
}

/// A socket that listens; accepting does not wait.
#[derive(Debug)]
pub(crate) enum Listening {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listening {
    /// Binds and listens; a Unix path is made with these permissions, from the first moment on.
    pub(crate) fn bind(place: &Place, mode: u32, backlog: u32) -> io::Result<Self> {
        let queue = Backlog::new(i32::try_from(backlog).unwrap_or(i32::MAX).min(libc::SOMAXCONN))
            .unwrap_or(Backlog::MAXCONN);
        match place {
            Place::Unix(address) => {
                let fd = unix_socket()?;
                // The kernel gives the path the mode that the socket has when it is bound.
                fchmod(&fd, Mode::from_bits_truncate(mode))?;
                bind(fd.as_raw_fd(), &unix_address(address)?)?;
                listen(&fd, queue)?;
                let listener = UnixListener::from(fd);
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
            Place::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                // It listens already; this sets the length of the queue.
                listen(&listener, queue)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
        }
    }

    /// The address, with the port that the kernel chose.
    pub(crate) fn place(&self) -> io::Result<Place> {
        match self {
            Self::Unix(listener) => listener.local_addr().map(Place::Unix),
            Self::Tcp(listener) => listener.local_addr().map(Place::Tcp),
        }
    }

    /// Takes the next connection, if one is there.
    pub(crate) fn accept(&self) -> io::Result<Option<(OwnedFd, Place)>> {
        let accepted = match self {
            Self::Unix(listener) => {
                listener.accept().map(|(stream, from)| (OwnedFd::from(stream), Place::Unix(from)))
            }
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, from)| (OwnedFd::from(stream), Place::Tcp(from)))
            }
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

fn unix_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

fn unix_address(address: &unix::SocketAddr) -> io::Result<UnixAddr> {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => Ok(UnixAddr::new(path)?),
        (None, Some(name)) => Ok(UnixAddr::new_abstract(name)?),
        (None, None) => Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty name")),
    }
}

/// Small messages go at once, and a host that has vanished is noticed within a minute or so.
pub(crate) fn prepare_tcp(fd: &OwnedFd) {
    // A socket that refuses this is broken already, which its first use tells.
    let _ = setsockopt(fd, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(fd, sockopt::KeepAlive, &true);
    let _ = setsockopt(fd, sockopt::TcpKeepIdle, &30);
    let _ = setsockopt(fd, sockopt::TcpKeepInterval, &10);
    let _ = setsockopt(fd, sockopt::TcpKeepCount, &4);
}

/// Connects, waiting until the deadline.
///
/// # Errors
/// `TimedOut` if the deadline passed; otherwise what the kernel says.
pub(crate) fn connect_to(place: &Place, deadline: Deadline) -> io::Result<OwnedFd> {
    match place {
        Place::Unix(address) => connect_unix(&unix_address(address)?, deadline),
        Place::Tcp(address) => {
            let stream = match deadline.remaining() {
                None => TcpStream::connect(address)?,
                Some(Duration::ZERO) => return Err(io::ErrorKind::TimedOut.into()),
                Some(left) => TcpStream::connect_timeout(address, left)?,
            };
            let fd = OwnedFd::from(stream);
            prepare_tcp(&fd);
            Ok(fd)
        }
    }
}

/// A Unix socket is connected at once, or when there is room in the listener's queue. Nothing can
/// be polled for that, but the kernel waits as long as the timeout for sending is.
fn connect_unix(address: &UnixAddr, deadline: Deadline) -> io::Result<OwnedFd> {
    // Looked at again from time to time: a timeout of zero would mean for ever.
    const SLICE: Duration = Duration::from_millis(100);
    let fd = unix_socket()?;
    loop {
        let wait = deadline.remaining().unwrap_or(SLICE).min(SLICE);
        let micros = i64::try_from(wait.as_micros()).unwrap_or(1).max(1);
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(micros))?;
        match connect(fd.as_raw_fd(), address) {
            Ok(()) => break,
            Err(Errno::EAGAIN | Errno::EINTR) if !deadline.passed() => {}
            Err(Errno::EAGAIN | Errno::EINTR) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(0))?;
    Ok(fd)
}

/// Which sort of socket this is.
///
/// # Errors
/// `InvalidData` if it is no connected stream socket of a sort that is known here.
pub(crate) fn family(fd: impl AsFd) -> io::Result<Family> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "no connected stream socket");
    let is_stream = getsockopt(&fd, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream);
    let is_listening = getsockopt(&fd, sockopt::AcceptConn).unwrap_or(true);
    if !is_stream || is_listening {
        return Err(invalid());
    }
    // The address of this end tells the family; that of the other one may be gone.
    let raw = fd.as_fd().as_raw_fd();
    let local: SockaddrStorage = getsockname(raw)?;
    match local.family() {
        Some(AddressFamily::Unix) => Ok(Family::Unix),
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Family::Tcp),
        _ => Err(invalid()),
    }
}

/// Who made the other end of a Unix socket, or listened there: process, user and group.
pub(crate) fn credentials(fd: impl AsFd) -> io::Result<(i32, u32, u32)> {
    let peer = getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok((peer.pid(), peer.uid(), peer.gid()))
}

/// The user as whom this process acts.
pub(crate) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Ends both directions for whoever has this socket, or only that of sending.
pub(crate) fn end(fd: impl AsFd, only_sending: bool) {
    let how = if only_sending { Shutdown::Write } else { Shutdown::Both };
    // It fails if the peer has done so before.
    let _ = shutdown(fd.as_fd().as_raw_fd(), how);
}

/// Sends what there is room for, without waiting; descriptors go with the first byte. `None` if
/// there is no room.
///
/// # Errors
/// `BrokenPipe` if the peer is gone; if descriptors are refused, nothing was sent.
pub(crate) fn send_some(
    fd: impl AsFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<Option<usize>> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(fd.as_fd().as_raw_fd(), parts, control, flags, None) {
            Ok(sent) => return Ok(Some(sent)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::ECONNRESET) => return Err(Errno::EPIPE.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives what is there, into `target`, with the descriptors that came with its first byte; the
/// second value tells whether this process could not take all of them.
///
/// # Errors
/// `ConnectionReset` if the peer has gone without reading everything; what it sent is still there.
pub(crate) fn recv_with_fds(
    fd: impl AsFd,
    target: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<(Came, bool)> {
    loop {
        let (len, flags) = match rights::receive(fd.as_fd(), target, MsgFlags::empty(), fds) {
            Ok(received) => received,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Ok((Came::Nothing, false)),
            Err(error) => return Err(error.into()),
        };
        let came = if len == 0 { Came::End } else { Came::Bytes(len) };
        return Ok((came, flags.contains(MsgFlags::MSG_CTRUNC)));
    }
}

/// Receives what is there, at most `most` bytes, behind what `target` has; it has room for them.
/// Descriptors that come along are closed by the kernel.
///
/// # Errors
/// As [`recv_with_fds`].
pub(crate) fn recv_more(fd: impl AsFd, target: &mut Vec<u8>, most: usize) -> io::Result<Came> {
    let room = target.spare_capacity_mut();
    let len = room.len().min(most);
    if len == 0 {
        return Ok(Came::Nothing);
    }
    let (raw, start) = (fd.as_fd().as_raw_fd(), room.as_mut_ptr());
    loop {
        // SAFETY: `start` leads to `len` bytes of spare capacity, which the vector lends for the
        // call; the kernel only writes to them.
        let received = unsafe { libc::recv(raw, start.cast(), len, libc::MSG_DONTWAIT) };
        match Errno::result(received) {
            Ok(0) => return Ok(Came::End),
            Ok(received) => {
                let received = received.unsigned_abs().min(len);
                // SAFETY: the kernel has written `received` bytes from the end of the vector on,
                // and they are inside its capacity, as `len` is.
                unsafe { target.set_len(target.len() + received) };
                return Ok(Came::Bytes(received));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(Came::Nothing),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// Waits until one of these is ready, or broken, or the deadline passes, and tells which ones are.
pub(crate) fn wait(
    fds: &[(BorrowedFd<'_>, Interest)],
    deadline: Deadline,
) -> io::Result<Vec<bool>> {
    let flags = |interest| match interest {
        Interest::Read => PollFlags::POLLIN,
        Interest::Write => PollFlags::POLLOUT,
    };
    let mut polls: Vec<_> = fds.iter().map(|(fd, what)| PollFd::new(*fd, flags(*what))).collect();
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

/// Waits until `fd` takes bytes, or is broken; false if the deadline passed first.
pub(crate) fn wait_writable(fd: impl AsFd, deadline: Deadline) -> io::Result<bool> {
    Ok(wait(&[(fd.as_fd(), Interest::Write)], deadline)?.contains(&true))
}

#[cfg(test)]
mod tests {
    use super::super::socket::wait_readable;
    use super::*;
    use std::os::unix::net::UnixStream;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    #[test]
    fn descriptors_come_with_the_first_byte_and_not_with_later_ones() {
        let (a, b) = UnixStream::pair().expect("pair");
        let (read, write) = nix::unistd::pipe().expect("pipe");
        send_some(&a, &[IoSlice::new(b"one")], &[]).expect("send");
        send_some(&a, &[IoSlice::new(b"two")], &[write.as_fd()]).expect("send");
        let (mut fds, mut target) = (Vec::new(), [0; 3]);
        let came = recv_with_fds(&b, &mut target, &mut fds).expect("receive");
        assert_eq!((came, fds.len()), ((Came::Bytes(3), false), 0));
        let came = recv_with_fds(&b, &mut target[..1], &mut fds).expect("receive");
        assert_eq!((came, fds.len()), ((Came::Bytes(1), false), 1));
        let mut more = Vec::with_capacity(8);
        assert_eq!(recv_more(&b, &mut more, 8).expect("receive"), Came::Bytes(2));
        assert_eq!(more, b"wo");
        assert_eq!(recv_more(&b, &mut more, 8).expect("receive"), Came::Nothing);
        // Nobody asks for these: the kernel closes them.
        send_some(&a, &[IoSlice::new(b"x")], &[write.as_fd()]).expect("send");
        assert_eq!(recv_more(&b, &mut more, 8).expect("receive"), Came::Bytes(1));
        drop((fds, write));
        assert!(wait_readable(&read, soon()).expect("poll"), "a copy of the write end is open");
    }

    #[test]
    fn a_vector_without_room_is_not_written_to() {
        let (a, b) = UnixStream::pair().expect("pair");
        send_some(&a, &[IoSlice::new(b"bytes")], &[]).expect("send");
        let mut target = Vec::new();
        assert_eq!(recv_more(&b, &mut target, 5).expect("receive"), Came::Nothing);
        target.reserve_exact(3);
        let room = target.capacity();
        assert_eq!(recv_more(&b, &mut target, 5).expect("receive"), Came::Bytes(room.min(5)));
        assert_eq!(target, b"bytes"[..room.min(5)]);
    }

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        let (a, _b) = UnixStream::pair().expect("pair");
        assert_eq!(family(&a).expect("a socket"), Family::Unix);
        assert!(family(std::fs::File::open("/dev/null").expect("null")).is_err());
        let here = Place::Tcp("127.0.0.1:0".parse().expect("an address"));
        let listening = Listening::bind(&here, 0, 5).expect("bind");
        assert!(family(&listening).is_err(), "one that listens");
        let place = listening.place().expect("the port");
        let tcp = connect_to(&place, soon()).expect("connect");
        assert_eq!(family(&tcp).expect("a socket"), Family::Tcp);
    }

    #[test]
    fn a_queue_that_is_full_is_a_timeout_for_who_connects() {
        let name = format!("multiproc-test-{}-full", std::process::id());
        let place = Place::Unix(unix::SocketAddr::from_abstract_name(name).expect("a name"));
        let _listening = Listening::bind(&place, 0o600, 0).expect("bind");
        let mut waiting = Vec::new();
        let error = loop {
            match connect_to(&place, Deadline::after(Duration::from_millis(1))) {
                Ok(fd) => waiting.push(fd),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
