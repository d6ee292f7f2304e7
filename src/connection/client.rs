use super::auth::{Asking, HELLO, Key, Terms, VERDICT};
use super::users::Users;
use super::{Address, Connection, Credentials, DEFAULT_LARGEST};
use crate::error::Kind;
use crate::sys::clock::Deadline;
use crate::sys::socket::wait_readable;
use crate::sys::stream::{self, Came, Family, Place};
use crate::{Error, Execution, Result};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Connects to a [`Listener`](super::Listener) of another program. (Python:
/// `multiprocessing.connection.Client`.)
///
/// ```
/// use multiproc::connection::{Address, Client};
///
/// // Nobody listens there:
/// let error = Client::connect::<u32, u32>(Address::unique()?).unwrap_err();
/// assert!(error.is_os());
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Client;

/// Settings of a connection to be made; made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "a client connects with `connect`"]
pub struct ClientBuilder {
    key: Result<Option<Key>>,
    service: Vec<u8>,
    remedy: &'static str,
    users: Users,
    allow_anyone: bool,
    timeout: Duration,
    largest: u64,
}

impl Client {
    /// Connects without a key: over a Unix socket, to a process of this user.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`]; for TCP, invalid input, because there a key is needed.
    pub fn connect<S, R>(address: impl Into<Address>) -> Result<Connection<S, R>> {
        Self::builder().connect(address)
    }

    /// Settings to begin with: no key, 30 seconds, messages of at most 1 GiB.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            key: Ok(None),
            service: Vec::new(),
            remedy: "",
            users: Users::default(),
            allow_anyone: false,
            timeout: Duration::from_secs(30),
            largest: DEFAULT_LARGEST,
        }
    }
}

impl ClientBuilder {
    /// Proves to have this key, and demands that the listener proves the same.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Key::new(key.as_ref()).map(Some);
        self
    }

    /// Names what the listener should serve; see
    /// [`ListenerBuilder::service`](super::ListenerBuilder::service).
    pub fn service(mut self, name: impl AsRef<[u8]>) -> Self {
        self.service = name.as_ref().to_vec();
        self
    }

    /// What the error says besides, if the listener serves something else.
    pub(crate) fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }

    /// Connects to listeners of these users only, instead of those of this user, or, if there is a
    /// key, those of any user. Unix sockets only.
    pub fn allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.users.name(uids);
        self
    }

    /// Connects to whoever listens: over TCP without a key, and to Unix sockets of all users
    /// (unless [`allow_uids`](Self::allow_uids) names them).
    pub fn allow_anyone(mut self, allow: bool) -> Self {
        self.allow_anyone = allow;
        self
    }

    /// How long connecting may take, with the whole handshake.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most bytes that a message may have, in either direction.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// Connects, and waits until the listener has accepted.
    ///
    /// # Errors
    /// - [`is_authentication`](Error::is_authentication): the listener refused the key, did not
    ///   prove that it has the same, is of another user, serves something else, or is no listener
    ///   of this crate.
    /// - [`is_timeout`](Error::is_timeout): it took too long.
    /// - [`is_disconnected`](Error::is_disconnected): the listener ended the handshake. It may have
    ///   too many clients; trying again is safe.
    /// - [`is_os`](Error::is_os): nobody listens there (`ECONNREFUSED`, `ENOENT`), or the network
    ///   says no; with the address.
    /// - Invalid input: TCP without a key, unless that was asked for; users named for TCP; an
    ///   address, key or service name of a wrong length.
    pub fn connect<S, R>(&self, address: impl Into<Address>) -> Result<Connection<S, R>> {
        let address = address.into();
        let (socket, family) = self.connect_socket(&address)?;
        Ok(Connection::new(socket, family, self.largest, Some(address)))
    }

    fn connect_socket(&self, address: &Address) -> Result<(OwnedFd, Family)> {
        let key = self.key.clone()?;
        let is_keyed = key.is_some();
        self.check_sense(address, is_keyed)?;
        let terms = Terms::new(key, &self.service)?.with_remedy(self.remedy);
        let asking = Asking::new(terms)?;
        let place = address.place()?;
        let talk = Talk { address, deadline: Deadline::after(self.timeout) };
        let socket =
            stream::connect_to(&place, talk.deadline).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => talk.late(),
                _ => Error::os(format!("{address} cannot be connected to"), error),
            })?;
        let family = match place {
            Place::Unix(_) => {
                self.check_user(address, &socket, is_keyed)?;
                Family::Unix
            }
            Place::Tcp(_) => Family::Tcp,
        };
        talk.shake_hands(&socket, asking)?;
        Ok((socket, family))
    }

    fn check_sense(&self, address: &Address, is_keyed: bool) -> Result<()> {
        let is_tcp = matches!(address, Address::Tcp(_));
        let what = if is_tcp && !is_keyed && !self.allow_anyone {
            "without a key anyone could listen there: give one with `key`, or say \
             `allow_anyone(true)`"
        } else if is_tcp && !self.users.is_default() {
            "TCP does not tell users: `allow_uids` is for Unix sockets"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("{address} cannot be connected to: {what}")))
    }

    /// Anybody can take an abstract name first: so the client looks who listens there, too.
    fn check_user(&self, address: &Address, socket: &OwnedFd, is_keyed: bool) -> Result<()> {
        let peer = Credentials::of(socket)?;
        if self.users.admit(is_keyed || self.allow_anyone, &peer) {
            return Ok(());
        }
        let Credentials { pid, uid, .. } = peer;
        let what = format!("a process of another user listens at {address}: {pid} of user {uid}");
        Err(Error::new(Kind::Authentication, what))
    }
}

/// One handshake, on the client's side.
struct Talk<'a> {
    address: &'a Address,
    deadline: Deadline,
}

impl Talk<'_> {
    fn shake_hands(&self, socket: &OwnedFd, asking: Asking) -> Result<()> {
        self.send(socket, asking.hello())?;
        let hello: [u8; HELLO] = self.recv(socket)?;
        let (proof, proving) = asking.answer(Box::new(hello)).map_err(|why| self.stranger(&why))?;
        self.send(socket, &proof)?;
        let verdict: [u8; VERDICT] = self.recv(socket)?;
        proving.judge(&verdict).map_err(|why| self.stranger(why))
    }

    fn send(&self, socket: &OwnedFd, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = stream::send_some(socket, &[IoSlice::new(rest)], &[]);
            match sent.map_err(|error| self.broken(Some(error)))? {
                Some(sent) => rest = rest.get(sent..).unwrap_or_default(),
                None => {
                    let ready = stream::wait_writable(socket, self.deadline);
                    if !ready.map_err(|error| self.broken(Some(error)))? {
                        return Err(self.late());
                    }
                }
            }
        }
        Ok(())
    }

    fn recv<const N: usize>(&self, socket: &OwnedFd) -> Result<[u8; N]> {
        let mut bytes = Vec::with_capacity(N);
        loop {
            if let Ok(bytes) = <[u8; N]>::try_from(&bytes[..]) {
                return Ok(bytes);
            }
            let left = N - bytes.len();
            match stream::recv_more(socket.as_fd(), &mut bytes, left) {
                Ok(Came::Bytes(_)) => {}
                Ok(Came::End) => return Err(self.broken(None)),
                Err(error) => return Err(self.broken(Some(error))),
                Ok(Came::Nothing) => {
                    let ready = wait_readable(socket, self.deadline);
                    if !ready.map_err(|error| self.broken(Some(error)))? {
                        return Err(self.late());
                    }
                }
            }
        }
    }

    fn stranger(&self, why: &str) -> Error {
        let what = format!("no connection to {}: {why}", self.address);
        Error::new(Kind::Authentication, what)
    }

    fn late(&self) -> Error {
        let what = format!("{} did not accept until the timeout passed", self.address);
        Error::new(Kind::Timeout(Execution::NotStarted), what)
    }

    fn broken(&self, error: Option<io::Error>) -> Error {
        let what = format!("{} ended the handshake", self.address);
        let broken = Error::new(Kind::Disconnected, what);
        match error {
            Some(error) => broken.with_source(error),
            None => broken,
        }
    }
}
