//! The process that holds the objects: its doors, its objects, and its end.

use super::channel::Channel;
use super::life::PATIENCE;
use super::link::{Id, Link};
use super::message::Knock;
use super::names::Names;
use super::parked::Parked;
use super::remote::{self, Hello, Line, Release, Tokens, Way};
use super::session::Session;
use crate::connection::{Address, Listener};
use crate::entry::{self, Target};
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::epoll::{Kick, Poller};
use crate::sys::fd::InternalFd;
use crate::sys::{exit, limits, signal, socket};
use crate::wire::control::{self, Incoming};
use crate::wire::travel::Handle;
use crate::{Error, Result};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

/// The number of the manager itself, as an object.
pub(super) const MANAGER: u64 = 0;
/// The token of the kick.
const KICK: u64 = 0;

/// What a server is, for all of its threads.
#[derive(Debug)]
pub(super) struct Server {
    poller: Poller,
    kick: Kick,
    /// The next number of an object, door or caller.
    next: AtomicU64,
    objects: RwLock<HashMap<u64, Slot>>,
    /// The inner sides of the doors.
    doors: Mutex<HashMap<u64, InternalFd>>,
    is_closing: AtomicBool,
    /// Whether clients can come over connections, too.
    is_bound: AtomicBool,
    /// Where they come in; their paths go with the server.
    listeners: Mutex<Vec<Arc<Listener>>>,
    /// What is kept for remote processes, by their names.
    remotes: Mutex<HashMap<u128, Weak<Tokens>>>,
    names: Names,
    /// The clients that are silent.
    parked: Parked,
    /// To the thread that drops what nobody needs any more.
    graves: Mutex<mpsc::Sender<Target>>,
}

/// An object that is held.
struct Slot {
    target: Target,
    /// The writing end of a pipe that nothing is ever written to. The reading end is in every proxy
    /// of the object, in whatever process or message: when all are gone, this one fails.
    life: OwnedFd,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("life", &self.life).finish_non_exhaustive()
    }
}

/// The whole life of a server process.
pub(super) fn serve(id: (u64, u64), door: Handle) {
    signal::shrug_off_interrupt();
    limits::raise_open_files();
    // What panics is told to the caller.
    entry::install_hook(false, |_| ());
    let id = u128::from(id.0) << 64 | u128::from(id.1);
    match Server::new(door) {
        Ok(server) => {
            let _link = Link::own(id, &server);
            server.run();
            end_in_time();
            server.close_listeners();
            server.drop_objects();
        }
        Err(error) => eprintln!("multiproc: a manager's server could not start: {error}"),
    }
    exit::flush_output();
    // Threads that are in the middle of a call end with the process: their callers see that.
    exit::exit_now(0);
}

/// Sees that the process ends, whatever the user's drops do, and whoever does not take what it
/// prints: nobody else may be there to kill it.
fn end_in_time() {
    let thread = std::thread::Builder::new().name("multiproc-end".to_owned());
    let _ = thread.spawn(|| {
        std::thread::sleep(PATIENCE);
        exit::exit_now(0);
    });
}

impl Server {
    fn new(door: Handle) -> io::Result<Arc<Self>> {
        let (graves, dead) = mpsc::channel::<Target>();
        let thread = std::thread::Builder::new().name("multiproc-drop".to_owned());
        thread.spawn(move || {
            for target in dead {
                // The user's code: whatever it does, it does here.
                let _ = entry::catch(|| drop(target));
            }
        })?;
        let server = Arc::new(Self {
            poller: Poller::new()?,
            kick: Kick::new()?,
            next: AtomicU64::new(MANAGER + 1),
            objects: RwLock::default(),
            doors: Mutex::default(),
            is_closing: AtomicBool::new(false),
            is_bound: AtomicBool::new(false),
            listeners: Mutex::default(),
            remotes: Mutex::default(),
            names: Names::default(),
            parked: Parked::default(),
            graves: Mutex::new(graves),
        });
        server.poller.add(&server.kick, KICK)?;
        server.hang(door.0.fd().try_clone_to_owned()?)?;
        Ok(server)
    }

    /// A number that nothing else of this server has.
    pub(super) fn number(&self) -> u64 {
        // Relaxed: only the numbers must differ.
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<u64, InternalFd>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens at a door.
    fn hang(&self, inner: OwnedFd) -> io::Result<()> {
        let (number, inner) = (self.number(), InternalFd::new(inner));
        let mut doors = self.doors();
        self.poller.add(&inner, number)?;
        doors.insert(number, inner);
        Ok(())
    }

    /// A door more: its outer side, for a process that may not have one.
    pub(super) fn new_door(&self) -> io::Result<Arc<Object>> {
        let (outer, inner) = socket::pair()?;
        self.hang(inner)?;
        Ok(Arc::new(Object::received(outer)))
    }

    /// Waits at the doors, and for objects to be left, until the end.
    fn run(self: &Arc<Self>) {
        let mut ready = Vec::new();
        let mut look = Deadline::NEVER;
        // When the last outer side of a door is closed, nobody can ever come again.
        while !self.is_closing.load(Ordering::Acquire) && self.can_be_reached() {
            ready.clear();
            let patience = Deadline::after_opt(self.parked.patience());
            look = look.min(patience);
            if self.poller.wait(&mut ready, look).is_err() {
                return;
            }
            if look.passed() {
                ready.extend(self.parked.ready());
                look = Deadline::NEVER;
            }
            for &token in &ready {
                match token {
                    KICK => self.kick.clear(),
                    door if self.doors().contains_key(&door) => self.answer_door(door),
                    number => match self.parked.take(number, &self.poller) {
                        Some(session) => self.resume(session),
                        None => self.forget(number),
                    },
                }
            }
        }
    }

    fn can_be_reached(&self) -> bool {
        // Acquire: with the release in `listen`.
        self.is_bound.load(Ordering::Acquire) || !self.doors().is_empty()
    }

    /// Takes one message from a door. Whatever it is, it costs nobody else anything.
    fn answer_door(self: &Arc<Self>, number: u64) {
        let mut doors = self.doors();
        let Some(door) = doors.get(&number) else { return };
        match control::try_recv::<Knock>(door, &mut Vec::new()) {
            Ok(Incoming::Message(message)) => {
                drop(doors);
                match message.body {
                    Knock::Channel => {
                        if let Ok(channel) = Channel::from_descriptors(message.fds) {
                            self.welcome(channel, None);
                        }
                    }
                    Knock::Shutdown => self.close(),
                }
            }
            Ok(Incoming::Closed) => {
                if let Some(door) = doors.remove(&number) {
                    self.poller.remove(&door);
                }
            }
            // Nothing there, or something that is no message.
            Ok(Incoming::Nothing) | Err(_) => {}
        }
    }

    /// Serves a client's thread on a thread of its own.
    pub(super) fn welcome(self: &Arc<Self>, channel: Channel, tokens: Option<Arc<Tokens>>) {
        // If there can be no thread the channel is closed, which the client sees.
        drop(self.start(Session::new(self, channel, tokens)));
    }

    /// Serves a session on a thread of its own; it comes back if there can be none.
    fn start(self: &Arc<Self>, session: Box<Session>) -> std::result::Result<(), Box<Session>> {
        let server = self.clone();
        let place = Arc::new(Mutex::new(Some(session)));
        let taken = place.clone();
        let take = |place: &Mutex<Option<Box<Session>>>| {
            place.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let thread = std::thread::Builder::new().name("multiproc-serve".to_owned());
        let started = thread.spawn(move || {
            if let Some(session) = take(&taken) {
                session.serve(&server);
            }
        });
        match (started, take) {
            (Ok(_), _) => Ok(()),
            (Err(_), take) => take(&place).map_or(Ok(()), Err),
        }
    }

    /// A client is silent: its thread here is not needed until it calls again, or goes. The session
    /// comes back if it does so just now.
    pub(super) fn park(&self, session: Box<Session>) -> std::result::Result<(), Box<Session>> {
        if self.parked.park(session, &self.poller)? {
            // From now on there is somebody to look at.
            self.kick.kick();
        }
        Ok(())
    }

    /// A parked session has something to do.
    fn resume(self: &Arc<Self>, session: Box<Session>) {
        if let Err(session) = self.start(session) {
            self.parked.keep(session);
        }
    }

    /// Lets clients come over connections, too; the address at which they can.
    pub(super) fn listen(self: &Arc<Self>, id: Id, way: Way, remotely: bool) -> Result<Address> {
        let builder = Listener::builder().key(&way.key).service(remote::service());
        let listener = builder.allow_remote(remotely).replace_stale(true).bind(way.address)?;
        let listener = Arc::new(listener);
        let address = listener.address().clone();
        let server = self.clone();
        let thread = std::thread::Builder::new().name("multiproc-accept".to_owned());
        let door = listener.clone();
        let accepting = thread.spawn(move || server.accept_all(id, &door));
        accepting.map_err(|error| Error::os("there can be no thread to accept clients", error))?;
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
        // Release: see `can_be_reached`.
        self.is_bound.store(true, Ordering::Release);
        Ok(address)
    }

    fn accept_all(self: &Arc<Self>, id: Id, listener: &Listener) {
        loop {
            match listener.accept::<(), ()>() {
                Ok(line) => {
                    let server = self.clone();
                    let thread = std::thread::Builder::new().name("multiproc-serve".to_owned());
                    let _ = thread.spawn(move || server.greet(id, line));
                }
                Err(error) if error.is_closed() => return,
                // Too many open files, as a rule: some will be closed.
                Err(_) => std::thread::sleep(Duration::from_millis(64)),
            }
        }
    }

    /// Learns what a connection is for, and serves it.
    fn greet(self: &Arc<Self>, id: Id, line: Line) {
        const PATIENCE: Duration = Duration::from_secs(30);
        let Ok(hello) = line.recv_bytes_timeout(remote::SMALL, PATIENCE) else { return };
        match postcard::from_bytes(&hello) {
            Ok(Hello::Base { client }) => self.keep_tokens(id, remote::join(client), &line),
            Ok(Hello::Channel { client }) => {
                let tokens = self.remotes().get(&remote::join(client)).and_then(Weak::upgrade);
                if tokens.is_some() {
                    Session::new(self, Channel::of(line), tokens).serve(self);
                }
            }
            Err(_) => {}
        }
    }

    fn remotes(&self) -> MutexGuard<'_, HashMap<u128, Weak<Tokens>>> {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps objects for a remote process until its base connection ends.
    fn keep_tokens(&self, id: Id, client: u128, line: &Line) {
        let tokens = Arc::new(Tokens::default());
        {
            let mut remotes = self.remotes();
            remotes.retain(|_, tokens| tokens.strong_count() > 0);
            if remotes.contains_key(&client) {
                return;
            }
            remotes.insert(client, Arc::downgrade(&tokens));
        }
        if line.send_bytes(id.to_ne_bytes()).is_err() {
            return;
        }
        while let Ok(bytes) = line.recv_bytes(remote::SMALL) {
            match postcard::from_bytes::<Release>(&bytes) {
                Ok(release) => tokens.release(release),
                Err(_) => return,
            }
        }
    }

    /// The server is to end.
    pub(super) fn close(&self) {
        // Release: with the acquire in `run`, though nothing but the flag is told.
        self.is_closing.store(true, Ordering::Release);
        self.kick.kick();
    }

    /// Holds a new object for as long as there are proxies of it; what makes the first.
    pub(super) fn admit(&self, target: Target) -> Result<(u64, Arc<Object>)> {
        let failed = |error| Error::os("the manager can hold no more objects", error);
        let (read, write) = io::pipe().map_err(failed)?;
        let (number, life) = (self.number(), OwnedFd::from(write));
        let token = Arc::new(Object::received(read.into()));
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        // An error is what is waited for; that is always told.
        self.poller.add(&life, number).map_err(failed)?;
        objects.insert(number, Slot { target, life });
        drop(objects);
        Ok((number, token))
    }

    /// The object with this number.
    pub(super) fn object(&self, number: u64) -> Option<Target> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&number).map(|slot| slot.target.clone())
    }

    /// A token more of an object that somebody else has a token of.
    pub(super) fn life(&self, number: u64) -> Option<Arc<Object>> {
        let remotes: Vec<_> = self.remotes().values().filter_map(Weak::upgrade).collect();
        remotes.iter().find_map(|tokens| tokens.get(number))
    }

    /// The number of objects that are held.
    pub(super) fn count(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The last proxy of an object has gone.
    fn forget(&self, number: u64) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = objects.remove(&number) else { return };
        drop(objects);
        self.poller.remove(&slot.life);
        let graves = self.graves.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = graves.send(slot.target);
    }

    /// What has a name.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Nobody comes over connections any more; what was made in the file system goes.
    fn close_listeners(&self) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().for_each(|listener| listener.close());
    }

    /// Drops all objects that are not in the middle of a call.
    fn drop_objects(&self) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *objects);
        drop(objects);
        let _ = entry::catch(|| self.names.clear());
        for slot in all.into_values() {
            let _ = entry::catch(|| drop(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::message;
    use crate::wire::handles::Carried;

    #[test]
    fn a_session_that_could_have_no_thread_gets_one_later() {
        let (outer, inner) = socket::pair().expect("a door");
        let door = Handle(Arc::new(Object::received(inner)));
        let server = Server::new(door).expect("a server");
        let (here, there) = Channel::pair().expect("a channel");
        let there = Channel::from_objects(there).expect("its other end");
        server.parked.keep(Session::new(&server, there, None));
        let running = std::thread::spawn({
            let server = server.clone();
            move || server.run()
        });
        here.send(&message::begin_request(0, 99), &Carried::new()).expect("send");
        let reply = here.recv().expect("a reply").bytes;
        let error = message::parse_reply(reply).expect_err("there is no such object");
        assert!(error.is_invalid_input(), "{error}");
        // The last outer side of the last door: nobody can come any more.
        drop(outer);
        running.join().expect("no panic");
    }
}
