use super::frame::{Frame, Kind as FrameKind};
use super::framed::{Framed, Outgoing};
use super::{Address, Messages};
use crate::Given;
use crate::codec::{self, NotDecoded, NotEncoded, Reader, decode_value, encode_value, may_carry};
use crate::error::Kind;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::stream::{self, Family};
use crate::wire::handles::{self, Carried};
use crate::wire::travel::Handle;
use crate::{Data, Error, Execution, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// One end of a connection between two programs: messages of type `S` go out, messages of type `R`
/// come in. (Python: `multiprocessing.connection.Connection`.)
///
/// A [`Listener`](super::Listener) accepts connections and a [`Client`](super::Client) makes them.
/// Each message arrives whole, and in the order in which it was sent; it is typed
/// ([`send`](Self::send), [`recv`](Self::recv)) or bytes as they are
/// ([`send_bytes`](Self::send_bytes), [`recv_bytes`](Self::recv_bytes)). Which types go where is
/// for the two programs to agree on: a message that is no `R` is an error of that one receive.
///
/// # What ends it
/// When the peer has closed its end, or died, whatever it had sent can still be received; then
/// comes [`is_end_of_file`](Error::is_end_of_file), or [`is_disconnected`](Error::is_disconnected)
/// if it went in the middle of a message. Sending is [`is_closed`](Error::is_closed) then. Over TCP
/// the peer's system may tell that the connection was reset, which is
/// [`is_disconnected`](Error::is_disconnected): messages may be lost. When a host vanishes, who
/// waits to receive notices it after a minute or two, and who sends when the system gives up, which
/// may take a quarter of an hour.
///
/// # Sending to a peer that does not read
/// A message that does not fit into the kernel's buffer (some hundred KiB) waits until the peer
/// reads. Two programs that send large messages to each other and do not read meanwhile wait for
/// ever; [`send_timeout`](Self::send_timeout) does not.
///
/// # Shared objects and descriptors
/// Over a Unix socket a message may name locks, shared vectors, and other handles of this crate,
/// and [`send_fd`](Self::send_fd) passes open files. TCP cannot carry either.
///
/// # Threads and processes
/// Any number of threads may use it at once: a send is whole, and so is a receive. A clone is the
/// same end; the end is closed when its last clone goes. It can be sent to another process, as an
/// argument or in a message, and forked children have it. Only *one* process should go on using it,
/// and as long as another one has it the peer sees no end: drop it there.
///
/// ```
/// use multiproc::connection::{Address, Client, Connection, Listener};
///
/// let listener = Listener::bind(Address::unique()?)?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || -> multiproc::Result<u64> {
///     let connection: Connection<(u64, u64), u64> = Client::connect(address)?;
///     connection.send((2, 3))?;
///     connection.recv()
/// });
/// let connection: Connection<u64, (u64, u64)> = listener.accept()?;
/// let (a, b) = connection.recv()?;
/// connection.send(a + b)?;
/// assert_eq!(client.join().unwrap()?, 5);
/// assert!(connection.recv().unwrap_err().is_end_of_file());
/// # Ok::<(), multiproc::Error>(())
/// ```
pub struct Connection<S, R = S> {
    framed: Arc<Framed>,
    peer: Option<Address>,
    types: PhantomData<fn(S) -> R>,
}

/// Who made the other end of a Unix connection, as the kernel tells.
///
/// It is who connected, or who listened, at that time: the end may have been passed on since, and
/// the number of a process that has ended may be given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process, or 0 if it is in a pid namespace that is not visible from here.
    pub pid: u32,
    /// The user as whom it acted.
    pub uid: u32,
    /// The group as which it acted.
    pub gid: u32,
}

impl Credentials {
    pub(super) fn of(fd: impl AsFd) -> Result<Self> {
        let (pid, uid, gid) = stream::credentials(fd)
            .map_err(|error| Error::os("the peer's credentials could not be read", error))?;
        Ok(Self { pid: u32::try_from(pid).unwrap_or(0), uid, gid })
    }
}

impl<S, R> Connection<S, R> {
    pub(super) fn new(
        socket: OwnedFd,
        family: Family,
        largest: u64,
        peer: Option<Address>,
    ) -> Self {
        let object = Arc::new(Object::received(socket));
        Self::of(Framed::new(object, family, largest), peer)
    }

    fn of(framed: Framed, peer: Option<Address>) -> Self {
        Self { framed: Arc::new(framed), peer, types: PhantomData }
    }

    /// The address of the other end: of the listener, or of a TCP client. A Unix client has none.
    #[must_use]
    pub fn peer(&self) -> Option<&Address> {
        self.peer.as_ref()
    }

    /// Who the peer is: process, user and group. (unix(7), `SO_PEERCRED`.)
    ///
    /// # Errors
    /// Invalid input, for a TCP connection: that tells an address, and not who is there.
    pub fn credentials(&self) -> Result<Credentials> {
        match self.framed.family() {
            Family::Unix => Credentials::of(self),
            Family::Tcp => Err(Error::invalid(
                "a TCP connection does not tell the user or process of its peer; use a Unix socket",
            )),
        }
    }

    /// Ends the connection for all who have it, in this process and in others: receives find the
    /// end, sends are refused, and the peer sees that it is over. Threads that wait are woken.
    ///
    /// Dropping the last clone in the last process does the same.
    pub fn close(&self) {
        stream::end(self, false);
    }

    /// Waits until there is something to receive: a message, a part of one, or the end. Returns
    /// whether there is. (Python: `Connection.poll`.)
    ///
    /// It looks at the socket only, as [`AsFd`] does: of a message that comes slowly the rest may
    /// be missing, and then a receive waits for that. Who must not wait uses
    /// [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Errors
    /// An OS error if the kernel refuses to wait.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        self.framed.wait_readable(Deadline::after(timeout))
    }

    /// Sends bytes as they are, as one message, for [`recv_bytes`](Self::recv_bytes). Nothing is
    /// copied but into the kernel.
    ///
    /// # Errors
    /// As [`send`](Self::send), but that nothing has to be encoded.
    pub fn send_bytes(&self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.framed.send(&Outgoing::plain(FrameKind::Bytes, bytes.as_ref()), Deadline::NEVER)
    }

    /// As [`send_bytes`](Self::send_bytes), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    pub fn send_bytes_timeout(&self, bytes: impl AsRef<[u8]>, timeout: Duration) -> Result<()> {
        self.framed
            .send(&Outgoing::plain(FrameKind::Bytes, bytes.as_ref()), Deadline::after(timeout))
    }

    /// Receives a message of bytes, of at most `max` bytes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`is_too_large`](Error::is_too_large) if it has more than `max`
    /// bytes, [`is_decode`](Error::is_decode) if it is a typed one. Either way that message is
    /// lost, and the next call receives the next one.
    pub fn recv_bytes(&self, max: usize) -> Result<Vec<u8>> {
        self.frame(max as u64, Deadline::NEVER).and_then(bytes_of)
    }

    /// As [`recv_bytes`](Self::recv_bytes), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv_bytes`](Self::recv_bytes) and [`recv_timeout`](Self::recv_timeout).
    pub fn recv_bytes_timeout(&self, max: usize, timeout: Duration) -> Result<Vec<u8>> {
        self.frame(max as u64, Deadline::after(timeout)).and_then(bytes_of)
    }

    /// Receives a message of bytes into `target` and returns how many they are.
    ///
    /// # Errors
    /// As [`recv_bytes`](Self::recv_bytes), with the length of `target` as the most.
    pub fn recv_bytes_into(&self, target: &mut [u8]) -> Result<usize> {
        let bytes = self.recv_bytes(target.len())?;
        target[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Sends an open descriptor, for [`recv_fd`](Self::recv_fd). The receiver gets one of its own
    /// for the same open file.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`is_encode`](Error::is_encode) over TCP.
    pub fn send_fd(&self, fd: impl AsFd) -> Result<()> {
        self.may_carry("a descriptor")?;
        let (numbers, fds) = (vec![0], vec![fd.as_fd()]);
        let message = Outgoing { kind: FrameKind::Descriptor, body: &[], numbers, fds };
        self.framed.send(&message, Deadline::NEVER)
    }

    /// Receives a descriptor; it is close-on-exec.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`is_decode`](Error::is_decode) if another message comes, and an OS
    /// error if this process has too many open files. That message is lost then.
    pub fn recv_fd(&self) -> Result<OwnedFd> {
        self.frame(u64::MAX, Deadline::NEVER).and_then(fd_of)
    }

    /// As [`recv_fd`](Self::recv_fd), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`recv_fd`](Self::recv_fd) and [`recv_timeout`](Self::recv_timeout).
    pub fn recv_fd_timeout(&self, timeout: Duration) -> Result<OwnedFd> {
        self.frame(u64::MAX, Deadline::after(timeout)).and_then(fd_of)
    }

    fn may_carry(&self, what: &str) -> Result<()> {
        match self.framed.family() {
            Family::Unix => Ok(()),
            Family::Tcp => Err(Error::new(
                Kind::Encode(Execution::NotStarted),
                format!("{what} cannot go over TCP: only Unix sockets carry descriptors"),
            )),
        }
    }

    fn frame(&self, limit: u64, deadline: Deadline) -> Result<Frame> {
        self.framed.recv(limit, deadline)?.ok_or_else(|| {
            let what = "no whole message came until the timeout passed";
            Error::new(Kind::Timeout(Execution::NotStarted), what)
        })
    }
}

impl<S: Data, R> Connection<S, R> {
    /// Sends a value, or what a reference leads to; waits while the peer does not read.
    ///
    /// # Errors
    /// - [`is_encode`](Error::is_encode): the value cannot be encoded, or names shared objects and
    ///   this is TCP.
    /// - [`is_too_large`](Error::is_too_large): it has more bytes than the largest message.
    /// - [`is_closed`](Error::is_closed): the peer has closed its end, or is dead.
    /// - [`is_disconnected`](Error::is_disconnected): it did so in the middle of this message, or
    ///   an earlier one was cut off.
    /// - [`is_os`](Error::is_os): the kernel refuses; with shared objects, too many descriptors may
    ///   be on their way already (`ETOOMANYREFS`).
    ///
    /// Unless it is disconnected nothing was sent, and other messages can be.
    pub fn send(&self, message: impl Given<S>) -> Result<()> {
        self.send_until(message.given(), Deadline::NEVER)
    }

    /// As [`send`](Self::send), waiting no longer than `timeout`. Zero sends only what fits into
    /// the kernel's buffer now.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`is_timeout`](Error::is_timeout), whose
    /// [`execution`](Error::execution) is `NotStarted` if nothing was sent. Otherwise a part of the
    /// message is gone and cannot be called back: the connection can receive, but send no more,
    /// and the peer is told that it ends in the middle of a message.
    pub fn send_timeout(&self, message: impl Given<S>, timeout: Duration) -> Result<()> {
        self.send_until(message.given(), Deadline::after(timeout))
    }

    fn send_until(&self, message: &S, deadline: Deadline) -> Result<()> {
        let mut body = Vec::new();
        // Before any lock: this is the user's code.
        let encoded = if may_carry::<S>() {
            codec::naming(|| encode_value(message, &mut body)).map(|((), carried)| carried)
        } else {
            encode_value(message, &mut body).map(|()| Carried::new())
        };
        let carried = encoded.map_err(not_encoded::<S>)?;
        if !carried.is_empty() {
            self.may_carry("a shared object")?;
        }
        let numbers = handles::numbers(&carried);
        let fds = handles::descriptors(&carried).collect();
        let message = Outgoing { kind: FrameKind::Value, body: &body, numbers, fds };
        self.framed.send(&message, deadline)
    }
}

impl<S, R: Data> Connection<S, R> {
    /// Receives the next message, waiting for it.
    ///
    /// # Errors
    /// - [`is_end_of_file`](Error::is_end_of_file): the peer has closed its end, or is dead, and
    ///   all that it sent has been received.
    /// - [`is_disconnected`](Error::is_disconnected): it went in the middle of a message, the
    ///   connection broke, or what came is no message at all.
    /// - [`is_decode`](Error::is_decode): this message is no `R`, or one of bytes.
    /// - [`is_too_large`](Error::is_too_large), [`is_out_of_memory`](Error::is_out_of_memory): it
    ///   cannot be held here.
    /// - [`is_os`](Error::is_os): it came with descriptors, and this process has too many open
    ///   files.
    ///
    /// In the last three cases that message is lost, and the next call receives the next one.
    pub fn recv(&self) -> Result<R> {
        self.frame(u64::MAX, Deadline::NEVER).and_then(value_of)
    }

    /// Receives the next message if it is there, whole; `None` if it is not.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn try_recv(&self) -> Result<Option<R>> {
        let frame = self.framed.recv(u64::MAX, Deadline::now())?;
        frame.map(value_of).transpose()
    }

    /// As [`recv`](Self::recv), waiting no longer than `timeout`. What has come of a message stays
    /// for the next call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); [`is_timeout`](Error::is_timeout).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<R> {
        self.frame(u64::MAX, Deadline::after(timeout)).and_then(value_of)
    }

    /// The messages, one after the other, until the end of file; a disconnection is the last item.
    pub fn iter(&self) -> Messages<'_, S, R> {
        Messages::of(self)
    }
}

fn not_encoded<S>(error: NotEncoded) -> Error {
    let what = match error {
        NotEncoded::Refused(what) => what,
        NotEncoded::Full => format!("a {} that is too large", type_name::<S>()),
    };
    let kind = Kind::Encode(Execution::NotStarted);
    Error::new(kind, format!("the message could not be encoded: {what}"))
}

fn not_decoded(what: impl fmt::Display) -> Error {
    let kind = Kind::Decode(Execution::Unknown);
    Error::new(kind, format!("the message could not be decoded: {what}"))
}

/// Checks that a message is of the sort that was asked for, and has all its descriptors.
fn expect(frame: &Frame, kind: FrameKind) -> Result<()> {
    if frame.kind != kind {
        let (came, call) = match frame.kind {
            FrameKind::Value => ("a typed message", "recv"),
            FrameKind::Bytes => ("a message of bytes", "recv_bytes"),
            FrameKind::Descriptor => ("a descriptor", "recv_fd"),
        };
        return Err(not_decoded(format_args!("it is {came}, which `{call}` receives")));
    }
    if frame.is_short {
        let what = "the descriptors of a message could not be taken: too many open files";
        return Err(Error::os(what, std::io::Error::from_raw_os_error(libc::EMFILE)));
    }
    if frame.fds.len() != frame.numbers.len() {
        let (fds, objects) = (frame.fds.len(), frame.numbers.len());
        return Err(not_decoded(format_args!("{fds} descriptors came with {objects} objects")));
    }
    Ok(())
}

fn value_of<R: Data>(frame: Frame) -> Result<R> {
    expect(&frame, FrameKind::Value)?;
    let mut reader = Reader(&frame.body);
    let decoded = if may_carry::<R>() {
        let received = handles::receive(&frame.numbers, frame.fds.into_iter()).collect();
        handles::providing(received, || decode_value(&mut reader))
    } else {
        decode_value(&mut reader)
    };
    match decoded {
        Ok(value) if reader.0.is_empty() => Ok(value),
        Ok(_) => {
            let (left, name) = (reader.0.len(), type_name::<R>());
            Err(not_decoded(format_args!("a {name}: {left} bytes are left over")))
        }
        Err(NotDecoded(what)) => Err(not_decoded(what)),
    }
}

fn bytes_of(frame: Frame) -> Result<Vec<u8>> {
    expect(&frame, FrameKind::Bytes)?;
    Ok(frame.body)
}

fn fd_of(mut frame: Frame) -> Result<OwnedFd> {
    expect(&frame, FrameKind::Descriptor)?;
    frame.fds.pop().ok_or_else(|| not_decoded("it has no descriptor"))
}

impl<S, R> Clone for Connection<S, R> {
    fn clone(&self) -> Self {
        Self { framed: self.framed.clone(), peer: self.peer.clone(), types: PhantomData }
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Connection");
        debug.field("family", &self.framed.family()).field("peer", &self.peer);
        debug.finish_non_exhaustive()
    }
}

/// The socket itself, for [`poll`](Connection::poll) on many at once: it is readable when there is
/// something to receive. Nothing that was read is kept back, but for parts of messages.
impl<S, R> AsFd for Connection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.framed.object().fd()
    }
}

/// A connection as it travels: its socket, the largest message, and the peer's address.
#[derive(Serialize, Deserialize)]
struct Sent(Handle, u64, Option<Address>);

impl<S, R> Serialize for Connection<S, R> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        if !self.framed.is_between() {
            return Err(handles::refuse_encoding(
                "a connection cannot be sent while a part of a message has been received",
            ));
        }
        let handle = Handle(self.framed.object().clone());
        Sent(handle, self.framed.largest(), self.peer.clone()).serialize(serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Sent(Handle(object), largest, peer) = Deserialize::deserialize(from)?;
        let family = stream::family(object.fd())
            .map_err(|_| handles::refuse_decoding("what came is no connection"))?;
        Ok(Self::of(Framed::new(object, family, largest), peer))
    }
}
