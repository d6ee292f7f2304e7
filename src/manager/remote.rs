//! Clients at the other end of a connection, which carries bytes and no descriptors.
//!
//! The life of an object cannot be told by descriptors there. Instead the server keeps tokens for
//! each remote process: one for each object of which that process has proxies, counted as often as
//! one was sent to it, until the process gives them back or its *base* connection ends.

use super::channel::Channel;
use super::link::Id;
use crate::connection::{Address, Client, Connection};
use crate::error::Kind;
use crate::shm::object::Object;
use crate::sys::{fork, image};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A connection of a manager: bytes in both directions.
pub(super) type Line = Connection<(), ()>;

/// The first message on a connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Hello {
    /// The base connection of a process. The answer is the name of the manager.
    Base { client: (u64, u64) },
    /// The channel of one of its threads.
    Channel { client: (u64, u64) },
}

/// On the base connection: this many of the times that an object was sent are given back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) number: u64,
    pub(super) times: u64,
}

/// How long the connections of a server that ends may take to end, one after the other.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a server may take to answer a base connection that it has accepted.
const ANSWER: Duration = Duration::from_secs(30);

/// The largest hello, release or name.
pub(super) const SMALL: usize = 64;

/// What to do about a server of another build.
const REMEDY: &str = "a manager and its clients must be the same build of the same program, \
                      because methods are named by where they are in it; run copies of one \
                      executable file at both ends, and restart what still runs an old one";

/// What both sides must agree upon: methods are named by where they are in the executable.
pub(super) fn service() -> String {
    static BUILD: OnceLock<String> = OnceLock::new();
    let build = BUILD.get_or_init(|| match image::current().has_build_id() {
        true => hex(image::current().identity()),
        false => hex(&digest()),
    });
    format!("manager of multiproc {}, build {build}", env!("CARGO_PKG_VERSION"))
}

/// The name of a build to which the linker has given none.
fn digest() -> [u8; 32] {
    let digest = Sha256::new();
    image::current().fixed_bytes().fold(digest, Digest::chain_update).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

/// How a remote manager is reached; a part of handles that travel between processes of this
/// program.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Way {
    pub(super) address: Address,
    pub(super) key: Vec<u8>,
}

/// The key is never shown.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The remote end of a link.
pub(super) struct Remote {
    way: Way,
    base: Mutex<Option<Arc<Base>>>,
}

/// The connection that stands for this process.
pub(super) struct Base {
    client: u128,
    line: Line,
    /// A forked child is another client.
    generation: u32,
}

/// Of a manager that was there once: if nobody listens any more it has ended.
fn nobody_there(error: Error) -> Error {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    match source.map(io::Error::kind) {
        Some(ConnectionRefused | NotFound) => super::link::disconnected().with_source(error),
        _ => error,
    }
}

fn split(number: u128) -> (u64, u64) {
    ((number >> 64) as u64, number as u64)
}

/// The number that two halves make.
pub(super) fn join((high, low): (u64, u64)) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn small<T: Serialize>(message: &T) -> Vec<u8> {
    // Numbers only, which can always be encoded.
    postcard::to_stdvec(message).unwrap_or_default()
}

impl Way {
    fn connect(&self, hello: Hello) -> Result<Line> {
        let client = Client::builder().key(&self.key).service(service()).remedy(REMEDY);
        let line: Line = client.connect(self.address.clone())?;
        line.send_bytes(small(&hello))?;
        Ok(line)
    }

    /// Connects for the first time, and learns the manager's name.
    pub(super) fn open(self) -> Result<(Id, Remote)> {
        let (id, base) = self.base()?;
        Ok((id, Remote { way: self, base: Mutex::new(Some(Arc::new(base))) }))
    }

    fn base(&self) -> Result<(Id, Base)> {
        let client = u128::from_ne_bytes(crate::connection::random()?);
        let line = self.connect(Hello::Base { client: split(client) })?;
        // A server that is frozen, or behind a network that is gone, says nothing.
        let id = line.recv_bytes_timeout(SMALL, ANSWER)?;
        let id = <[u8; 16]>::try_from(id).map_err(|_| super::message::garbled())?;
        Ok((u128::from_ne_bytes(id), Base { client, line, generation: fork::generation() }))
    }
}

impl Remote {
    /// The remote end that a handle names, before anybody has connected to it.
    pub(super) fn of(way: Way) -> Self {
        Self { way, base: Mutex::default() }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    fn base(&self, id: Id) -> Result<Arc<Base>> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = fork::generation();
        if let Some(base) = base.as_ref().filter(|base| base.generation == generation) {
            return Ok(base.clone());
        }
        let (found, new) = self.way.base().map_err(nobody_there)?;
        if found != id {
            return Err(super::link::disconnected());
        }
        Ok(base.insert(Arc::new(new)).clone())
    }

    /// A channel for a thread.
    pub(super) fn channel(&self, id: Id) -> Result<Channel> {
        let base = self.base(id)?;
        let line = self.way.connect(Hello::Channel { client: split(base.client) });
        // Nobody listens any more: the server that was there is gone.
        line.map(Channel::of).map_err(|error| match self.is_down_within(PATIENCE) {
            true => super::link::disconnected().with_source(error),
            false => error,
        })
    }

    /// Whether the server was there and is not any more, or will not be within this time.
    pub(super) fn is_down_within(&self, time: Duration) -> bool {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The server says nothing more: what can be read is the end.
        base.is_some_and(|base| base.line.poll(time).unwrap_or(true))
    }

    /// Gives an object back.
    fn release(&self, release: Release) {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(base) = base.filter(|base| base.generation == fork::generation()) {
            // If the server is gone, or does not read, so is everything that it keeps for us when
            // the connection ends.
            let _ = base.line.send_bytes_timeout(small(&release), Duration::from_secs(10));
        }
    }
}

/// A remote object, as long as this process has proxies of it.
#[derive(Debug)]
pub(super) struct Share {
    number: u64,
    link: Arc<super::link::Link>,
    counted: Mutex<Counted>,
}

/// How often the server has counted it, and for which process: a forked child starts anew.
#[derive(Clone, Copy, Debug)]
struct Counted {
    times: u64,
    generation: u32,
}

impl Share {
    pub(super) fn new(link: Arc<super::link::Link>, number: u64) -> Self {
        let counted = Counted { times: 0, generation: fork::generation() };
        Self { number, link, counted: Mutex::new(counted) }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = fork::generation();
        if counted.generation != generation {
            *counted = Counted { times: 0, generation };
        }
        counted
    }

    /// The server has sent it once more.
    pub(super) fn came(&self) {
        self.counted().times += 1;
    }

    /// Makes sure that the server keeps the object for this process, which got the proxy from
    /// another client.
    pub(super) fn keep(&self) -> Result<()> {
        let mut counted = self.counted();
        if counted.times == 0 {
            self.link.adopt(self.number)?;
            counted.times = 1;
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Counted { times, .. } = *self.counted();
        if times > 0
            && let Some(remote) = self.link.remote()
        {
            remote.release(Release { number: self.number, times });
        }
    }
}

/// What a server keeps for one remote process.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<u64, (u64, Arc<Object>)>>);

impl Tokens {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (u64, Arc<Object>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object is sent once more.
    pub(super) fn add(&self, number: u64, life: Arc<Object>) {
        self.lock().entry(number).or_insert((0, life)).0 += 1;
    }

    /// The process gives an object back.
    pub(super) fn release(&self, Release { number, times }: Release) {
        let mut tokens = self.lock();
        let Some((count, _)) = tokens.get_mut(&number) else { return };
        *count = count.saturating_sub(times);
        if *count == 0 {
            let token = tokens.remove(&number);
            drop(tokens);
            drop(token);
        }
    }

    /// The token of an object that is kept.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Object>> {
        self.lock().get(&number).map(|(_, life)| life.clone())
    }
}

/// A call of a remote client, while it is served.
struct Serving {
    tokens: Arc<Tokens>,
    /// The objects in the reply.
    sent: Vec<(u64, Arc<Object>)>,
}

thread_local! {
    static SERVING: RefCell<Option<Serving>> = const { RefCell::new(None) };
}

/// Serves a call of a remote client, and keeps for it what the reply names.
pub(super) fn serving<R>(
    tokens: Option<&Arc<Tokens>>,
    call: impl FnOnce() -> Result<R>,
) -> Result<R> {
    let Some(tokens) = tokens else { return call() };
    let serving = Serving { tokens: tokens.clone(), sent: Vec::new() };
    let outer = SERVING.replace(Some(serving));
    let result = call();
    let serving = SERVING.replace(outer);
    let sent = serving.map(|serving| serving.sent).unwrap_or_default();
    if result.is_ok() {
        sent.into_iter().for_each(|(number, life)| tokens.add(number, life));
    }
    result
}

/// A proxy is encoded by the server: true if it is for a remote client.
pub(super) fn note(number: u64, life: &Arc<Object>) -> bool {
    SERVING.with_borrow_mut(|serving| {
        let noted = serving.as_mut().map(|serving| serving.sent.push((number, life.clone())));
        noted.is_some()
    })
}

/// The token of an object of which the remote client that is being served has a proxy.
pub(super) fn token(number: u64) -> Option<Arc<Object>> {
    SERVING.with_borrow(|serving| serving.as_ref()?.tokens.get(number))
}

/// The error for shared objects in a message over a connection.
pub(super) fn not_carried() -> Error {
    Error::new(
        Kind::Encode(crate::Execution::NotStarted),
        "a message to or from a remote manager cannot carry shared memory, or a proxy of another \
         manager: descriptors do not travel over a connection",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_a_name_has_one_of_its_code() {
        assert_eq!(digest(), digest());
        assert_ne!(digest(), <[u8; 32]>::from(Sha256::digest([])));
        assert!(service().len() <= 27 + 16 + 7 + 64, "{}", service());
    }

    #[test]
    fn the_key_of_a_way_is_not_shown() {
        let address = Address::unique().expect("an address");
        let text = format!("{:?}", Way { address, key: b"sesame".to_vec() });
        assert!(text.contains("address") && !text.contains("115"), "{text}");
    }
}
