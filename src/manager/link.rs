//! A process's way to a server: one link for each manager that the process knows, and one channel
//! for each of its threads that calls.

use super::channel::{Channel, Packet};
use super::message::{self, Knock, Reply};
use super::server::Server;
use crate::codec::{NotEncoded, naming};
use crate::entry;
use crate::error::Kind;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::{fork, socket};
use crate::wire::control;
use crate::wire::handles::Received;
use crate::wire::travel::Handle;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{fmt, io};

/// The name of a manager, which no other one has.
pub(super) type Id = u128;

/// How a channel is opened.
enum Route {
    /// Through the door, of which this is the outer side.
    Door(Arc<Object>),
    /// The server is this process.
    Own(Weak<Server>),
}

/// The way to one manager.
pub(super) struct Link {
    id: Id,
    route: Route,
    /// The tokens of objects of which this process has proxies, by number: one descriptor for each.
    lives: Mutex<HashMap<u64, Weak<Object>>>,
}

/// Every manager of which this process has a handle.
static LINKS: Mutex<Option<HashMap<Id, Weak<Link>>>> = Mutex::new(None);

/// A channel that a thread has open.
struct Open {
    id: Id,
    link: Weak<Link>,
    /// In a forked child the channels of the parent's thread are not its own.
    generation: u32,
    channel: Channel,
}

thread_local! {
    static CHANNELS: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    /// The manager for which this thread is encoding arguments.
    static TALKING_TO: Cell<Option<Id>> = const { Cell::new(None) };
}

/// Runs `encode`, in which proxies of this manager need not say how it is reached.
fn talking_to<R>(id: Id, encode: impl FnOnce() -> R) -> R {
    struct Restore(Option<Id>);
    impl Drop for Restore {
        fn drop(&mut self) {
            TALKING_TO.set(self.0);
        }
    }
    let _restore = Restore(TALKING_TO.replace(Some(id)));
    encode()
}

/// The error for a server that is no more.
pub(super) fn disconnected() -> Error {
    Error::new(
        Kind::Disconnected,
        "the manager's server has ended: it was shut down, its manager was dropped, or it was \
         killed; its objects are gone",
    )
}

impl Link {
    /// The link to a manager that is reached through this door.
    pub(super) fn through(id: Id, door: Arc<Object>) -> Arc<Self> {
        Self::known_or(id, Some(Route::Door(door))).expect("a route is given")
    }

    /// The link to the server that this process is.
    pub(super) fn own(id: Id, server: &Arc<Server>) -> Arc<Self> {
        Self::known_or(id, Some(Route::Own(Arc::downgrade(server)))).expect("a route is given")
    }

    fn known_or(id: Id, route: Option<Route>) -> Option<Arc<Self>> {
        let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let links = links.get_or_insert_default();
        if let Some(known) = links.get(&id).and_then(Weak::upgrade) {
            return Some(known);
        }
        links.retain(|_, link| link.strong_count() > 0);
        let link = Arc::new(Self { id, route: route?, lives: Mutex::default() });
        links.insert(id, Arc::downgrade(&link));
        Some(link)
    }

    /// The name of the manager.
    pub(super) fn id(&self) -> Id {
        self.id
    }

    /// The token of an object: the one that this process has, or else the one that came.
    pub(super) fn life(&self, number: u64, came: Arc<Object>) -> Arc<Object> {
        let mut lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lives.get(&number).and_then(Weak::upgrade) {
            return known;
        }
        if lives.len() >= 2 * lives.values().filter(|life| life.strong_count() > 0).count() + 16 {
            lives.retain(|_, life| life.strong_count() > 0);
        }
        lives.insert(number, Arc::downgrade(&came));
        came
    }

    /// Calls an entry of an object, or of the manager itself (number 0), and waits for the reply.
    ///
    /// # Errors
    /// [`Error::is_encode`], [`Error::is_disconnected`], and what the server says.
    pub(super) fn call(
        self: &Arc<Self>,
        object: u64,
        entry: entry::ManagedEntry,
        encode: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), NotEncoded>,
    ) -> Result<(Reply, Received)> {
        let mut bytes = message::begin_request(entry.0, object);
        let encoded = talking_to(self.id, || naming(|| encode(&mut bytes)));
        let ((), carried) = encoded.map_err(Error::arguments)?;
        // No code of the user's runs until the reply is there: the channel is this call's alone.
        let channel = self.take_channel()?;
        let Packet { bytes, received } = channel
            .send(bytes, &carried)
            .and_then(|()| channel.recv())
            .map_err(broken)?
            .ok_or_else(disconnected)?;
        self.keep(channel);
        drop(carried);
        Ok((message::parse_reply(bytes)?, received))
    }

    /// The channel of this thread, or a new one.
    fn take_channel(&self) -> Result<Channel> {
        let generation = fork::generation();
        let (kept, stale) = CHANNELS
            .try_with(|channels| {
                let mut channels = channels.borrow_mut();
                let is_stale = |open: &mut Open| {
                    open.generation != generation || open.link.strong_count() == 0
                };
                let stale: Vec<Open> = channels.extract_if(.., is_stale).collect();
                let at = channels.iter().position(|open| open.id == self.id);
                (at.map(|at| channels.swap_remove(at).channel), stale)
            })
            .unwrap_or_default();
        drop(stale);
        kept.map_or_else(|| self.open(), Ok)
    }

    /// Keeps a channel for this thread's next call.
    fn keep(self: &Arc<Self>, channel: Channel) {
        let (id, link, generation) = (self.id, Arc::downgrade(self), fork::generation());
        let open = Open { id, link, generation, channel };
        // At the end of a thread, when its variables are gone, each call has a channel of its own.
        let _ = CHANNELS.try_with(|channels| channels.borrow_mut().push(open));
    }

    fn open(&self) -> Result<Channel> {
        let (here, there) = Channel::pair()
            .map_err(|error| Error::os("no channel to the manager can be made", error))?;
        match &self.route {
            Route::Door(door) => {
                let fds: Vec<_> = there.iter().map(AsFd::as_fd).collect();
                control::send(door.fd(), &Knock::Channel, &fds, true).map_err(broken)?;
            }
            Route::Own(server) => {
                let server = server.upgrade().ok_or_else(disconnected)?;
                let there = Channel::from_descriptors(there).map_err(broken)?;
                server.welcome(there);
            }
        }
        Ok(here)
    }

    /// Tells the server to end.
    pub(super) fn shut_down(&self) {
        match &self.route {
            Route::Door(door) => {
                // If there is no room, or nobody, somebody else ends it.
                let _ = control::send(door.fd(), &Knock::Shutdown, &[], false);
            }
            Route::Own(server) => {
                if let Some(server) = server.upgrade() {
                    server.close();
                }
            }
        }
    }

    /// Waits until the server has ended; false if the deadline passes first.
    pub(super) fn wait_for_the_end(&self, deadline: Deadline) -> bool {
        match &self.route {
            // Nothing ever comes out of the door: it is readable when its inner side is gone.
            Route::Door(door) => socket::wait_readable(door.fd(), deadline).unwrap_or(true),
            Route::Own(_) => false,
        }
    }

    /// The outer side of the door.
    #[cfg(test)]
    pub(super) fn door(&self) -> &Arc<Object> {
        match &self.route {
            Route::Door(door) => door,
            Route::Own(_) => panic!("the server is this process"),
        }
    }

    /// Whether the server has ended.
    pub(super) fn is_down(&self) -> bool {
        self.wait_for_the_end(Deadline::after(std::time::Duration::ZERO))
    }
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => disconnected(),
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => {
            Error::memory("there is no memory for a message to or from the manager", error)
        }
        _ => Error::os("the manager could not be asked", error),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A link on its way.
#[derive(Serialize, Deserialize)]
struct Sent {
    id: (u64, u64),
    /// None to, or from, a process that talks with the same server anyway.
    door: Option<Handle>,
}

/// A link as a part of a handle.
#[derive(Clone, Debug)]
pub(super) struct LinkHandle(pub(super) Arc<Link>);

impl Serialize for LinkHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link = &*self.0;
        let door = match &link.route {
            _ if TALKING_TO.get() == Some(link.id) => None,
            Route::Door(door) => Some(Handle(door.clone())),
            Route::Own(_) if entry::is_answering() => None,
            Route::Own(server) => {
                let door = server.upgrade().and_then(|server| server.new_door().ok());
                let no_door = "the manager's server has ended, or has too many open files";
                let refused = || crate::wire::handles::refuse_encoding(no_door);
                Some(Handle(door.ok_or_else(refused)?))
            }
        };
        Sent { id: ((link.id >> 64) as u64, link.id as u64), door }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LinkHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { id: (high, low), door } = Sent::deserialize(deserializer)?;
        let id = u128::from(high) << 64 | u128::from(low);
        let link = Link::known_or(id, door.map(|Handle(door)| Route::Door(door)));
        link.map(Self).ok_or_else(|| {
            crate::wire::handles::refuse_decoding(
                "a proxy whose manager this process does not know, and did not learn of",
            )
        })
    }
}
