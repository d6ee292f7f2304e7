use super::address::absolute;
use super::auth::{Admission, Key, Outcome, Terms};
use super::baton::Baton;
use super::path::{self, BoundPath};
use super::pending::Pending;
use super::users::Users;
use super::{Address, Connection, Credentials, DEFAULT_LARGEST};
use crate::error::Kind;
use crate::sys::clock::Deadline;
use crate::sys::stream::{self, Family, Interest, Listening, Place};
use crate::{Error, Execution, Result};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Waits at an address for other programs to connect. (Python:
/// `multiprocessing.connection.Listener`.)
///
/// Both sides prove that they have the same key before the first message is read, or, on a Unix
/// socket without a key, the kernel tells that the same user is at both ends. How, and what that is
/// worth, [the module](super) has.
///
/// # Peers that do not behave
/// A peer with a wrong key, one that sends garbage, one that sends a byte a second, and one that
/// sends nothing at all are turned away, each by itself: [`accept`](Self::accept) deals with all
/// who knock at the same time, and returns the first that is all right. Those that fail are not
/// reported but counted: [`stats`](Self::stats). If more than
/// [`max_pending`](ListenerBuilder::max_pending) are in the middle of their handshake, those that
/// have not begun it go first, then those that began it first, but none before 200 ms.
///
/// # Life
/// It listens until it is dropped, or [`close`](Self::close)d; then the path of its Unix socket is
/// removed, if that is still the one that it made. A listener that is killed, or whose process
/// exits without dropping it, leaves the path behind, and
/// [`replace_stale`](ListenerBuilder::replace_stale) removes what dead ones have left; an abstract
/// name goes with its listener. Handshakes go on only while somebody is in `accept`. Several
/// threads may accept, one at a time. A forked child has it, too.
///
/// ```
/// use multiproc::connection::{Address, Client, Connection, Listener};
///
/// let anywhere = Address::tcp("127.0.0.1:0")?;
/// let listener = Listener::builder().key("a secret").bind(anywhere)?;
/// let address = listener.address().clone(); // with the port that the kernel chose
/// let client = std::thread::spawn(move || -> multiproc::Result<()> {
///     let wrong = Client::builder().key("another").connect::<String, String>(&address);
///     assert!(wrong.unwrap_err().is_authentication());
///     let right: Connection<String> = Client::builder().key("a secret").connect(&address)?;
///     right.send("hello".to_owned())
/// });
/// let connection: Connection<String> = listener.accept()?;
/// assert_eq!(connection.recv()?, "hello");
/// assert_eq!((listener.stats().accepted, listener.stats().refused), (1, 1));
/// client.join().unwrap()?;
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    address: Address,
    terms: Terms,
    users: Users,
    /// Whether a user that nobody has named is welcome.
    is_open: bool,
    patience: Duration,
    max_pending: usize,
    largest: u64,
    /// Who is in a handshake. One thread at a time deals with them, and waits for them.
    pending: Baton<Vec<Pending>>,
    counts: Counts,
    last: Mutex<Option<Address>>,
    is_closed: AtomicBool,
    path: Option<BoundPath>,
}

/// Settings of a new [`Listener`]; made by [`Listener::builder`].
#[derive(Debug)]
#[must_use = "a listener listens with `bind`"]
pub struct ListenerBuilder {
    key: Result<Option<Key>>,
    service: Vec<u8>,
    users: Users,
    allow_remote: bool,
    allow_anyone: bool,
    replace_stale: bool,
    backlog: u32,
    max_pending: usize,
    patience: Duration,
    largest: u64,
}

/// What a [`Listener`] has done; see [`Listener::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were turned away: a wrong key, another user, another service, or garbage;
    /// and those that ended in the middle of their handshake.
    pub refused: u64,
    /// Connections whose handshake took too long.
    pub timed_out: u64,
    /// Connections that had to go in the middle of their handshake because too many came.
    pub crowded_out: u64,
    /// Connections that are in the middle of their handshake.
    pub pending: u64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    crowded_out: AtomicU64,
    pending: AtomicU64,
}

/// A connection that is all right, before its messages have types.
pub(super) struct Accepted {
    socket: OwnedFd,
    family: Family,
    peer: Option<Address>,
}

/// How many connections are taken from the kernel before others are looked at again.
const AT_ONCE: usize = 32;

impl Listener {
    /// Listens at an address, without a key: on a Unix socket, for processes of this user.
    ///
    /// # Errors
    /// As [`ListenerBuilder::bind`]; for TCP, invalid input, because there a key is needed.
    pub fn bind(address: impl Into<Address>) -> Result<Self> {
        Self::builder().bind(address)
    }

    /// Settings to begin with: no key, handshakes of at most 10 seconds, 256 at a time, messages of
    /// at most 1 GiB.
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder {
            key: Ok(None),
            service: Vec::new(),
            users: Users::default(),
            allow_remote: false,
            allow_anyone: false,
            replace_stale: false,
            backlog: 1024,
            max_pending: 256,
            patience: Duration::from_secs(10),
            largest: DEFAULT_LARGEST,
        }
    }

    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address of the peer that was accepted last; `None` before the first one, and if that
    /// has none: Unix clients have no address, but [credentials](Connection::credentials). (Python:
    /// `Listener.last_accepted`.)
    #[must_use]
    pub fn last_accepted(&self) -> Option<Address> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        // Relaxed: each number stands for itself.
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ListenerStats {
            accepted: get(&self.counts.accepted),
            refused: get(&self.counts.refused),
            timed_out: get(&self.counts.timed_out),
            crowded_out: get(&self.counts.crowded_out),
            pending: get(&self.counts.pending),
        }
    }

    /// Waits for the next connection whose handshake succeeds.
    ///
    /// # Errors
    /// [`is_closed`](Error::is_closed) after [`close`](Self::close); an OS error if the kernel
    /// gives no more connections: too many open files. What a peer does is no error here.
    pub fn accept<S, R>(&self) -> Result<Connection<S, R>> {
        self.typed(Deadline::NEVER)?.ok_or_else(late)
    }

    /// As [`accept`](Self::accept), waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); [`is_timeout`](Error::is_timeout).
    pub fn accept_timeout<S, R>(&self, timeout: Duration) -> Result<Connection<S, R>> {
        self.typed(Deadline::after(timeout))?.ok_or_else(late)
    }

    /// Deals with all that has come, and returns a connection if one is ready by that. A handshake
    /// takes a client's answer, so the first call after a client has knocked does not return it.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn try_accept<S, R>(&self) -> Result<Option<Connection<S, R>>> {
        self.typed(Deadline::now())
    }

    /// Stops listening, also for forked children that have the listener: who is in
    /// [`accept`](Self::accept) returns, and nobody can connect any more. Connections stay.
    pub fn close(&self) {
        // Relaxed: whoever is woken by the end of the socket looks here; the system call orders.
        self.is_closed.store(true, Ordering::Relaxed);
        stream::end(&self.socket, false);
        if let Some(path) = &self.path {
            path.remove();
        }
        // Whoever accepts at this moment does it.
        if let Some(mut pending) = self.pending.take(Deadline::now()) {
            self.forget(&mut pending);
        }
    }

    /// Nobody will go on with these.
    fn forget(&self, pending: &mut Vec<Pending>) {
        pending.clear();
        // Relaxed: a number that stands for itself.
        self.counts.pending.store(0, Ordering::Relaxed);
    }

    fn typed<S, R>(&self, deadline: Deadline) -> Result<Option<Connection<S, R>>> {
        let Some(Accepted { socket, family, peer }) = self.accept_socket(deadline)? else {
            return Ok(None);
        };
        Ok(Some(Connection::new(socket, family, self.largest, peer)))
    }

    /// The next socket whose peer is all right; `None` if the deadline passed.
    fn accept_socket(&self, deadline: Deadline) -> Result<Option<Accepted>> {
        let Some(mut pending) = self.pending.take(deadline) else { return Ok(None) };
        // Fewer than that if there are descriptors for fewer only.
        let mut room = self.max_pending;
        loop {
            // Relaxed: see `close`.
            if self.is_closed.load(Ordering::Relaxed) {
                self.forget(&mut pending);
                return Err(Error::new(Kind::Closed, format!("{} was closed", self.address)));
            }
            if pending.is_empty() {
                room = self.max_pending;
            }
            let is_room =
                pending.len() < room || pending.iter().any(|pending| pending.grace().passed());
            let ready = self.wait(&pending, is_room, deadline)?;
            let is_knocking = is_room && ready.last() == Some(&true);
            let mut found = self.go_on(&mut pending, &ready);
            if found.is_none() && is_knocking {
                found = self.let_in(&mut pending, &mut room)?;
            }
            // Relaxed: a number that stands for itself.
            self.counts.pending.store(pending.len() as u64, Ordering::Relaxed);
            if let Some(accepted) = found {
                self.note(&accepted);
                return Ok(Some(accepted));
            }
            if deadline.passed() {
                return Ok(None);
            }
        }
    }

    /// Waits until something can be done, and tells for whom: those in a handshake, in their order,
    /// then, if there is room for another one, who knocks.
    fn wait(&self, pending: &[Pending], is_room: bool, until: Deadline) -> Result<Vec<bool>> {
        let mut fds: Vec<_> = pending.iter().map(Pending::interest).collect();
        let mut until = pending.iter().map(Pending::deadline).fold(until, Deadline::min);
        if is_room {
            fds.push((self.socket.as_fd(), Interest::Read));
        } else {
            until = pending.iter().map(Pending::grace).fold(until, Deadline::min);
        }
        stream::wait(&fds, until).map_err(|error| self.failure("could not be waited at", error))
    }

    /// Goes on with those who are ready, and sends away those whose time is over. Returns one that
    /// is accepted; who else is ready is so the next time.
    fn go_on(&self, pending: &mut Vec<Pending>, ready: &[bool]) -> Option<Accepted> {
        let mut found = None;
        // From the end, so that what is removed moves only those that were looked at already.
        for index in (0..pending.len()).rev() {
            if ready.get(index) != Some(&true) {
                if pending[index].deadline().passed() {
                    pending.swap_remove(index);
                    count(&self.counts.timed_out);
                }
                continue;
            }
            if found.is_some() {
                continue;
            }
            match pending[index].advance(&self.terms) {
                // With bytes that keep coming, too, its time is over some day.
                Outcome::Open if pending[index].deadline().passed() => {
                    pending.swap_remove(index);
                    count(&self.counts.timed_out);
                }
                Outcome::Open => {}
                Outcome::Accepted => found = Some(self.accepted(pending.swap_remove(index))),
                Outcome::Refused => {
                    pending.swap_remove(index);
                    count(&self.counts.refused);
                }
            }
        }
        found
    }

    /// Takes those who knock, and hears at once what they have to say. Returns one that is
    /// accepted: a client may be so quick that it has answered by then.
    fn let_in(&self, pending: &mut Vec<Pending>, room: &mut usize) -> Result<Option<Accepted>> {
        for _ in 0..AT_ONCE {
            if pending.len() >= *room && !self.crowd_out(pending) {
                return Ok(None);
            }
            match self.socket.accept() {
                Ok(None) => return Ok(None),
                Ok(Some((socket, from))) => {
                    let found = self.greet(pending, socket, &from);
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                // One of those who are here has to go first, as when there are too many.
                Err(error) if is_exhausted(&error) && !pending.is_empty() => {
                    *room = pending.len();
                    return Ok(None);
                }
                Err(error) if is_of_peer(&error) => count(&self.counts.refused),
                // Closed, by this process or another one that has it.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    let what = format!("{} was closed", self.address);
                    return Err(Error::new(Kind::Closed, what));
                }
                Err(error) => return Err(self.failure("gives no more connections", error)),
            }
        }
        Ok(None)
    }

    fn greet(&self, pending: &mut Vec<Pending>, socket: OwnedFd, from: &Place) -> Option<Accepted> {
        let admission = match from {
            Place::Tcp(_) => Admission::Open,
            Place::Unix(_) => match Credentials::of(&socket) {
                Ok(peer) if self.users.admit(self.is_open, &peer) => Admission::Open,
                _ => Admission::WrongUser,
            },
        };
        let mut new = Pending::new(socket, Address::of(from), admission, self.patience);
        match new.advance(&self.terms) {
            Outcome::Open => pending.push(new),
            Outcome::Accepted => return Some(self.accepted(new)),
            Outcome::Refused => count(&self.counts.refused),
        }
        None
    }

    /// Sends one away, because there are too many; false if all have a right to stay.
    fn crowd_out(&self, pending: &mut Vec<Pending>) -> bool {
        let may_go = |one: &&Pending| one.grace().passed();
        let first = pending.iter().filter(may_go).map(Pending::rank).min();
        let index = pending.iter().position(|one| Some(one.rank()) == first);
        let Some(index) = index else { return false };
        pending.swap_remove(index);
        count(&self.counts.crowded_out);
        true
    }

    fn accepted(&self, pending: Pending) -> Accepted {
        let family = match self.socket {
            Listening::Unix(_) => Family::Unix,
            Listening::Tcp(_) => Family::Tcp,
        };
        let (socket, peer) = pending.into_parts();
        if family == Family::Tcp {
            stream::prepare_tcp(&socket);
        }
        Accepted { socket, family, peer }
    }

    fn note(&self, accepted: &Accepted) {
        count(&self.counts.accepted);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone_from(&accepted.peer);
    }

    fn failure(&self, what: &str, error: io::Error) -> Error {
        Error::os(format!("the listener at {} {what}", self.address), error)
    }
}

/// The socket that listens, for [`wait`](crate::wait): it is readable when a client has knocked, or
/// the listener was closed. Then call [`accept_timeout`](Listener::accept_timeout) with as much time
/// as a handshake may take, because handshakes go on in that call only.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            path.remove();
        }
    }
}

fn count(count: &AtomicU64) {
    // Relaxed: a number that stands for itself.
    count.fetch_add(1, Ordering::Relaxed);
}

fn late() -> Error {
    let what = "nobody who may connect did so until the timeout passed";
    Error::new(Kind::Timeout(Execution::NotStarted), what)
}

/// Whether this process, or the machine, has no room for another connection.
fn is_exhausted(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].map(Some).contains(&number)
}

/// Whether an error of accept(2) is that of one connection, which has broken already.
fn is_of_peer(error: &io::Error) -> bool {
    let errors = [
        libc::ECONNABORTED,
        libc::ECONNRESET,
        libc::EPERM,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENONET,
        libc::EOPNOTSUPP,
        libc::ETIMEDOUT,
    ];
    errors.map(Some).contains(&error.raw_os_error())
}

impl ListenerBuilder {
    /// Demands that a client proves to have this key, and proves the same to it. A key is a secret
    /// of any length but zero; 16 random bytes or more cannot be guessed.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Key::new(key.as_ref()).map(Some);
        self
    }

    /// Names what is served here, with at most 208 bytes; a client that names something else is
    /// turned away, and told what differs. It is no secret. Nothing unless set.
    pub fn service(mut self, name: impl AsRef<[u8]>) -> Self {
        self.service = name.as_ref().to_vec();
        self
    }

    /// Takes connections from processes of these users only, instead of those of this user, or, if
    /// there is a key, those of any user. Unix sockets only.
    pub fn allow_uids(mut self, uids: impl IntoIterator<Item = u32>) -> Self {
        self.users.name(uids);
        self
    }

    /// Takes connections only from processes of which `check` says that they may. It is called on
    /// the thread that accepts, for each process that knocks and is of a user who may. Unix sockets
    /// only.
    pub fn check(mut self, check: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
        self.users.check(check);
        self
    }

    /// Lets other machines connect: TCP addresses that are not loopback can be bound. Whoever can
    /// listen on the network sees all messages; see [the module](super).
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// Takes connections of anyone who can reach the address: TCP without a key, and a Unix socket
    /// without one for all users (unless [`allow_uids`](Self::allow_uids) names them).
    pub fn allow_anyone(mut self, allow: bool) -> Self {
        self.allow_anyone = allow;
        self
    }

    /// If the path of a Unix socket is there already, but nobody listens at it, removes it: a
    /// listener was killed.
    pub fn replace_stale(mut self, replace: bool) -> Self {
        self.replace_stale = replace;
        self
    }

    /// How many clients the kernel lets wait until somebody accepts: 1,024 unless set, and never
    /// more than the system allows (`net.core.somaxconn`). Further Unix clients wait to connect;
    /// further TCP clients try again by themselves.
    pub fn backlog(mut self, clients: u32) -> Self {
        self.backlog = clients;
        self
    }

    /// How many clients may be in the middle of their handshake, 1 or more; each has a descriptor.
    pub fn max_pending(mut self, clients: usize) -> Self {
        self.max_pending = clients;
        self
    }

    /// How long a handshake may take, from the first byte to the last.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// The most bytes that a message may have, in either direction.
    pub fn max_message(mut self, bytes: u64) -> Self {
        self.largest = bytes;
        self
    }

    /// Listens at an address.
    ///
    /// # Errors
    /// - Invalid input: TCP without a key, or other than loopback, unless that was asked for;
    ///   users named for TCP; an address, key or service name of a wrong length; zero handshakes.
    /// - An OS error, with the address: it is in use, or may not be used.
    pub fn bind(self, address: impl Into<Address>) -> Result<Listener> {
        let address = absolute(address.into());
        let key = self.key.clone()?;
        self.check_sense(&address, key.is_some())?;
        let is_open = key.is_some() || self.allow_anyone;
        let mode = if self.users.are_others_welcome(is_open) { 0o777 } else { 0o700 };
        let terms = Terms::new(key, &self.service)?;
        let place = address.place()?;
        let listen = || Listening::bind(&place, mode, self.backlog);
        let socket = match listen() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && self.replace_stale
                    && path::remove_stale(&address) =>
            {
                listen()
            }
            other => other,
        };
        let socket =
            socket.map_err(|error| Error::os(format!("{address} cannot be bound"), error))?;
        let path = BoundPath::just_made(&address);
        let real = socket.place().ok().and_then(|place| Address::of(&place));
        Ok(Listener {
            socket,
            address: real.unwrap_or(address),
            terms,
            users: self.users,
            is_open,
            patience: self.patience,
            max_pending: self.max_pending,
            largest: self.largest,
            pending: Baton::new(Vec::new()),
            counts: Counts::default(),
            last: Mutex::default(),
            is_closed: AtomicBool::new(false),
            path,
        })
    }

    fn check_sense(&self, address: &Address, is_keyed: bool) -> Result<()> {
        let is_tcp = matches!(address, Address::Tcp(_));
        let what = if is_tcp && !is_keyed && !self.allow_anyone {
            "without a key anyone could connect: give one with `key`, or say `allow_anyone(true)`"
        } else if !address.is_local() && !self.allow_remote {
            "it can be reached from other machines: say `allow_remote(true)` if it shall be, or \
             bind to 127.0.0.1 or ::1"
        } else if is_tcp && !self.users.is_default() {
            "TCP does not tell users: `allow_uids` and `check` are for Unix sockets"
        } else if self.max_pending == 0 {
            "no client could connect with `max_pending(0)`"
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!("{address} cannot be bound: {what}")))
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}
