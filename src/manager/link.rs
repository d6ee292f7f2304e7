//! A process's way to a server: one link for each manager that the process knows, and one channel
//! for each of its threads that calls.

use super::channel::{Channel, Packet, broken};
use super::control::Control;
use super::life::PATIENCE;
use super::message::{self, Knock, Reply};
use super::proxy;
use super::remote::{Remote, Share, Way};
use super::server::{MANAGER, Server};
use crate::codec::{NotEncoded, naming};
use crate::entry;
use crate::error::Kind;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::{exit, fork, socket, stream};
use crate::wire::control;
use crate::wire::handles::{Carried, Received};
use crate::wire::travel::Handle;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::thread::LocalKey;
use std::time::Duration;
use std::{fmt, io};

/// The name of a manager, which no other one has.
pub(super) type Id = u128;

/// How a channel is opened.
enum Route {
    /// Through the door, of which this is the outer side.
    Door(Arc<Object>),
    /// The server is this process.
    Own(Weak<Server>),
    /// Over connections.
    Remote(Remote),
}

/// The way to one manager.
pub(super) struct Link {
    id: Id,
    route: Route,
    /// The tokens of objects of which this process has proxies, by number: one descriptor for each.
    lives: Mutex<HashMap<u64, Weak<Object>>>,
    /// The same for objects of a remote manager.
    shares: Mutex<HashMap<u64, Weak<Share>>>,
}

/// Every manager of which this process has a handle.
static LINKS: Mutex<Option<HashMap<Id, Weak<Link>>>> = Mutex::new(None);

/// A channel that a thread has open. It says farewell when it is dropped, which is when its thread
/// ends; one that fails, or dies with its process, does not.
struct Open {
    id: Id,
    link: Weak<Link>,
    /// In a forked child the channels of the parent's thread are not its own.
    generation: u32,
    channel: Option<Channel>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(channel) = &self.channel
            && self.generation == fork::generation()
        {
            // If the server is gone it does not matter.
            let _ = channel.send(message::FAREWELL, &Carried::new());
        }
    }
}

thread_local! {
    static CHANNELS: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    /// The manager for which this thread is encoding arguments.
    static TALKING_TO: Cell<Option<Id>> = const { Cell::new(None) };
    /// The manager whose reply this thread is decoding.
    static HEARING_FROM: Cell<Option<Id>> = const { Cell::new(None) };
}

/// The channels of a thread, on their way to another one that goes on with its work: to the servers
/// it is the same.
#[derive(Default)]
pub(super) struct Channels(Vec<Open>);

impl Channels {
    /// Takes all that this thread has.
    pub(super) fn of_this_thread() -> Self {
        Self(CHANNELS.try_with(|channels| channels.take()).unwrap_or_default())
    }

    /// This thread has them from now on; it has none of its own.
    pub(super) fn give_to_this_thread(self) {
        // At the end of a thread, when its variables are gone, they go, too.
        let _ = CHANNELS.try_with(|channels| channels.borrow_mut().extend(self.0));
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channels").field(&self.0.len()).finish()
    }
}

/// This thread, and its process, end in an orderly way.
fn say_farewell() {
    let open = CHANNELS.try_with(|channels| channels.take());
    drop(open);
}

/// Sets a thread's cell for the time of `run`.
fn set<R>(cell: &'static LocalKey<Cell<Option<Id>>>, id: Id, run: impl FnOnce() -> R) -> R {
    struct Restore(&'static LocalKey<Cell<Option<Id>>>, Option<Id>);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(cell, cell.replace(Some(id)));
    run()
}

/// Says something through a door, when there is room.
fn tell_within(door: &Object, what: &Knock, deadline: Deadline) -> io::Result<()> {
    loop {
        match control::send(door.fd(), what, &[], false) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !stream::wait_writable(door.fd(), deadline)? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            told => return told,
        }
    }
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
        Self::known_or(id, Route::Door(door))
    }

    /// The link to a manager that was connected to.
    pub(super) fn remotely(id: Id, remote: Remote) -> Arc<Self> {
        Self::known_or(id, Route::Remote(remote))
    }

    /// The link to the server that this process is.
    pub(super) fn own(id: Id, server: &Arc<Server>) -> Arc<Self> {
        Self::known_or(id, Route::Own(Arc::downgrade(server)))
    }

    /// The link that this process has.
    fn known(id: Id) -> Option<Arc<Self>> {
        let links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
        links.as_ref()?.get(&id)?.upgrade()
    }

    /// The link that this process has, or a new one.
    fn known_or(id: Id, route: Route) -> Arc<Self> {
        let mut links = LINKS.lock().unwrap_or_else(PoisonError::into_inner);
        let links = links.get_or_insert_default();
        if let Some(known) = links.get(&id).and_then(Weak::upgrade) {
            return known;
        }
        links.retain(|_, link| link.strong_count() > 0);
        let (lives, shares) = (Mutex::default(), Mutex::default());
        let link = Arc::new(Self { id, route, lives, shares });
        links.insert(id, Arc::downgrade(&link));
        link
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
        self.refuse_own_call(object)?;
        let mut bytes = message::begin_request(entry.0, object);
        let encoded = set(&TALKING_TO, self.id, || naming(|| encode(&mut bytes)));
        let ((), carried) = encoded.map_err(Error::arguments)?;
        // No code of the user's runs until the reply is there: the channel is this call's alone.
        let (channel, is_new) = self.take_channel()?;
        if let Some(burden) = channel.burden() {
            burden.take_on();
        }
        if let Err(error) = channel.send(&bytes, &carried) {
            // Nothing was sent then, and to the server the channel is this thread: what that has,
            // a lock or a permit, it would lose with it.
            if error.is_encode() || error.is_too_large() || error.is_out_of_memory() {
                self.keep(channel);
                return Err(error);
            }
            return Err(self.explain(error, is_new));
        }
        let Packet { bytes, received } =
            channel.recv().map_err(|error| self.explain(error, is_new))?;
        self.keep(channel);
        drop(carried);
        Ok((message::parse_reply(bytes)?, received))
    }

    /// In the server: a function that runs on an object cannot call that one, because it has its
    /// lock.
    fn refuse_own_call(&self, object: u64) -> Result<()> {
        let Route::Own(server) = &self.route else { return Ok(()) };
        if !entry::holds_any() {
            return Ok(());
        }
        let target = server.upgrade().and_then(|server| server.object(object));
        match target.is_some_and(|target| entry::holds(&target)) {
            true => Err(Error::invalid(
                "a function that runs on an object of the manager called the same object through a \
                 proxy, or through another object, and would wait for itself: use what the \
                 function is given",
            )),
            false => Ok(()),
        }
    }

    /// A new channel may have been refused by a server that is there: it has reached its limits.
    fn explain(&self, error: Error, is_new: bool) -> Error {
        /// How long a server may take to end, of which a channel has ended.
        const PATIENCE: Duration = Duration::from_secs(1);
        let may_be_refused = is_new && error.is_disconnected() && !self.is_own();
        if !may_be_refused || self.wait_for_the_end(Deadline::after(PATIENCE)) {
            return error;
        }
        let limit = io::Error::from_raw_os_error(libc::EMFILE);
        Error::os("the manager's server has no room for another thread of a client", limit)
    }

    /// The channel of this thread, or a new one; whether it is new.
    fn take_channel(&self) -> Result<(Channel, bool)> {
        let generation = fork::generation();
        let (kept, stale) = CHANNELS
            .try_with(|channels| {
                let mut channels = channels.borrow_mut();
                let is_stale = |open: &mut Open| {
                    open.generation != generation || open.link.strong_count() == 0
                };
                let stale: Vec<Open> = channels.extract_if(.., is_stale).collect();
                let at = channels.iter().position(|open| open.id == self.id);
                (at.and_then(|at| channels.swap_remove(at).channel.take()), stale)
            })
            .unwrap_or_default();
        drop(stale);
        match kept {
            Some(channel) => Ok((channel, false)),
            None => self.open().map(|channel| (channel, true)),
        }
    }

    /// Keeps a channel for this thread's next call.
    fn keep(self: &Arc<Self>, channel: Channel) {
        static LAST: Once = Once::new();
        LAST.call_once(|| exit::before_forked_exit(say_farewell));
        let (id, link, generation) = (self.id, Arc::downgrade(self), fork::generation());
        let open = Open { id, link, generation, channel: Some(channel) };
        // At the end of a thread, when its variables are gone, each call has a channel of its own.
        let _ = CHANNELS.try_with(|channels| channels.borrow_mut().push(open));
    }

    fn open(&self) -> Result<Channel> {
        if let Route::Remote(remote) = &self.route {
            return remote.channel(self.id);
        }
        let (here, there) = Channel::pair()
            .map_err(|error| Error::memory("no channel to the manager can be made", error))?;
        match &self.route {
            Route::Door(door) => {
                let fds: Vec<_> = there.iter().map(|object| object.fd()).collect();
                control::send(door.fd(), &Knock::Channel, &fds, true).map_err(broken)?;
            }
            Route::Own(server) => {
                let server = server.upgrade().ok_or_else(disconnected)?;
                let there = Channel::from_objects(there).map_err(broken)?;
                let burden = Arc::new(entry::Burden::default());
                server.welcome(there.with_burden(burden.clone()), None);
                return Ok(here.with_burden(burden));
            }
            Route::Remote(_) => {}
        }
        Ok(here)
    }

    /// Tells the server to end.
    pub(super) fn shut_down(self: &Arc<Self>) {
        match &self.route {
            Route::Door(door) => {
                // If there is nobody, it has ended.
                let _ = tell_within(door, &Knock::Shutdown, Deadline::after(PATIENCE));
            }
            Route::Own(server) => {
                if let Some(server) = server.upgrade() {
                    server.close();
                }
            }
            Route::Remote(_) => {
                let close = |control: &Arc<Control>, _: &dyn entry::Caller, ()| {
                    control.server.close();
                    Ok(())
                };
                let told = entry::raw_entry(close)
                    .and_then(|entry| proxy::call::<_, ()>(self, MANAGER, entry, ()));
                // If it ends before it has answered, that is what was wanted.
                let _ = told;
            }
        }
    }

    /// Asks a remote server to keep an object for this process, too.
    pub(super) fn adopt(self: &Arc<Self>, number: u64) -> Result<()> {
        let adopt = |control: &Arc<Control>, _: &dyn entry::Caller, (number,): (u64,)| {
            control.adopt(number)
        };
        proxy::call(self, MANAGER, entry::raw_entry(adopt)?, (&number,))
    }

    /// The remote end, if it is remote.
    pub(super) fn remote(&self) -> Option<&Remote> {
        match &self.route {
            Route::Remote(remote) => Some(remote),
            _ => None,
        }
    }

    /// The share of a remote object that this process has; `came` if the server has just sent it.
    pub(super) fn share(self: &Arc<Self>, number: u64) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        let known = shares.get(&number).and_then(Weak::upgrade);
        let share = known.unwrap_or_else(|| {
            let share = Arc::new(Share::new(self.clone(), number));
            shares.insert(number, Arc::downgrade(&share));
            share
        });
        drop(shares);
        if HEARING_FROM.get() == Some(self.id) {
            share.came();
        }
        share
    }

    /// Whether the server is this process.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.route, Route::Own(_))
    }

    /// Runs `decode` on a reply of this manager.
    pub(super) fn hearing<R>(&self, decode: impl FnOnce() -> R) -> R {
        set(&HEARING_FROM, self.id, decode)
    }

    /// Waits until the server has ended; false if the deadline passes first.
    pub(super) fn wait_for_the_end(&self, deadline: Deadline) -> bool {
        match &self.route {
            // Nothing ever comes out of the door: it is readable when its inner side is gone.
            Route::Door(door) => socket::wait_readable(door.fd(), deadline).unwrap_or(true),
            Route::Own(_) => false,
            Route::Remote(remote) => {
                remote.is_down_within(deadline.remaining().unwrap_or(Duration::MAX))
            }
        }
    }

    /// The outer side of the door.
    #[cfg(all(test, feature = "hook"))]
    pub(super) fn door(&self) -> &Arc<Object> {
        match &self.route {
            Route::Door(door) => door,
            _ => panic!("there is no door"),
        }
    }

    /// Whether the server has ended.
    pub(super) fn is_down(&self) -> bool {
        self.wait_for_the_end(Deadline::now())
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
    route: Option<SentRoute>,
}

#[derive(Serialize, Deserialize)]
enum SentRoute {
    Door(Handle),
    Remote(Way),
}

/// A link as a part of a handle.
#[derive(Clone, Debug)]
pub(super) struct LinkHandle(pub(super) Arc<Link>);

impl Serialize for LinkHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link = &*self.0;
        let route = match &link.route {
            _ if TALKING_TO.get() == Some(link.id) => None,
            Route::Door(door) => Some(SentRoute::Door(Handle(door.clone()))),
            Route::Remote(remote) => Some(SentRoute::Remote(remote.way().clone())),
            Route::Own(_) if entry::is_answering() => None,
            Route::Own(server) => {
                let door = server.upgrade().and_then(|server| server.new_door().ok());
                let no_door = "the manager's server has ended, or has too many open files";
                let refused = || crate::wire::handles::refuse_encoding(no_door);
                Some(SentRoute::Door(Handle(door.ok_or_else(refused)?)))
            }
        };
        Sent { id: ((link.id >> 64) as u64, link.id as u64), route }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LinkHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { id, route } = Sent::deserialize(deserializer)?;
        let id = super::remote::join(id);
        let link = match route {
            Some(SentRoute::Door(Handle(door))) => Some(Link::through(id, door)),
            Some(SentRoute::Remote(way)) => Some(Link::remotely(id, Remote::of(way))),
            None => Link::known(id),
        };
        link.map(Self).ok_or_else(|| {
            crate::wire::handles::refuse_decoding(
                "a proxy whose manager this process does not know, and did not learn of",
            )
        })
    }
}
