use super::control::Control;
use super::link::{Id, Link, LinkHandle};
use super::proxy::{self, Lent, Proxy};
use super::remote::Way;
use super::server::{self, MANAGER};
use crate::codec::{Data, Encode};
use crate::connection::{self, Address};
use crate::entry;
use crate::shm::object::Object;
use crate::sys::clock::Deadline;
use crate::sys::{fork, socket};
use crate::wire::travel::Handle;
use crate::{Error, Process, Result, StartMethod};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How long a server may take to drop its objects before it is killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A server process that holds objects, which any number of processes use through *proxies*:
/// Python's `multiprocessing.Manager`.
///
/// A method of a proxy sends its arguments to the server and waits for what the method of the
/// object returns. So objects can be of any type and grow as they like, and functions that change
/// them run one after another without a lock in sight; but a call costs microseconds, where shared
/// memory costs nanoseconds. Each thread that calls has a channel of its own, and the server a
/// thread for it, as long as it calls now and then: calls of one client do not wait for those of
/// another, unless they want the same object.
///
/// Handles of a manager, and proxies, are arguments and results like any others; a process that has
/// one can call, make objects, and send it on. The server ends when the last handle *of the process
/// that started it* is dropped, or that process dies, or somebody calls
/// [`shutdown`](Manager::shutdown). From then on every call is an error,
/// [`is_disconnected`](Error::is_disconnected), also those that are waiting in the server. A
/// [detached](ManagerBuilder::detached) server lives until it is shut down, or nobody has a handle
/// or a proxy any more.
///
/// ```
/// use multiproc::{Manager, Process};
/// use multiproc::manager::Dict;
///
/// fn count(words: Dict<String, u32>, text: &str) -> multiproc::Result<()> {
///     for word in text.split(' ') {
///         words.modify_or_insert(word, 0, |count, ()| *count += 1, ())?;
///     }
///     Ok(())
/// }
///
/// let manager = Manager::start()?;
/// let words = manager.dict()?;
/// let mut child = Process::spawn(|words| count(words, "to be or not").is_ok(), (words.clone(),))?;
/// count(words.clone(), "to be")?;
/// assert!(child.join()?);
/// assert_eq!(words.get("to")?, Some(2));
/// assert_eq!(words.len()?, 4);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct Manager {
    pub(super) link: Arc<Link>,
    owner: Option<Arc<Owner>>,
    address: Option<Address>,
}

/// The process that has started the server.
struct Owner {
    link: Arc<Link>,
    process: Mutex<Process<()>>,
    is_detached: bool,
    /// A forked child has a copy, and is not the owner.
    generation: u32,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.is_detached {
            self.end();
        }
    }
}

impl Owner {
    /// Tells the server to end, and sees that it does.
    fn end(&self) {
        if self.generation != fork::generation() {
            return;
        }
        self.link.shut_down();
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        // It never returns a value: that it has ended is all there is to know.
        if process.join_timeout(PATIENCE).is_err_and(|error| error.is_timeout()) {
            let _ = process.kill();
            let _ = process.join();
        }
    }
}

/// Settings of a new [`Manager`]; made by [`Manager::builder`].
#[derive(Clone, Debug)]
#[must_use = "a manager starts with `start`"]
pub struct ManagerBuilder {
    name: String,
    is_detached: bool,
    allow_remote: bool,
}

impl ManagerBuilder {
    /// Names the server process: for `ps` and for logs. `Manager` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Lets the server live on when its manager is dropped, or the process that started it ends. It
    /// ends when it is shut down, or when no process has a handle or a proxy any more.
    pub fn detached(mut self) -> Self {
        self.is_detached = true;
        self
    }

    /// Whether [`bind`](ManagerBuilder::bind) takes an address that other machines can reach.
    /// Nothing is encrypted: send it through a tunnel.
    pub fn allow_remote(mut self, allow: bool) -> Self {
        self.allow_remote = allow;
        self
    }

    /// Starts the server, and lets clients with this key come over connections, too.
    ///
    /// # Errors
    /// As [`Manager::bind`].
    pub fn bind(self, address: impl Into<Address>, key: impl AsRef<[u8]>) -> Result<Manager> {
        let allow_remote = self.allow_remote;
        let mut manager = self.start()?;
        let way = Way { address: address.into(), key: key.as_ref().to_vec() };
        let listen =
            |control: &Arc<Control>, _: &dyn entry::Caller, all: ((u64, u64), Way, bool)| {
                let (id, way, allow_remote) = all;
                control.server.listen(super::remote::join(id), way, allow_remote)
            };
        let (id, entry) = (manager.link.id(), entry::raw_entry(listen)?);
        let id = ((id >> 64) as u64, id as u64);
        let bound = proxy::call(&manager.link, MANAGER, entry, (&id, &way, &allow_remote));
        manager.address = Some(bound.inspect_err(|_| manager.shutdown())?);
        Ok(manager)
    }

    /// Starts the server.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub fn start(self) -> Result<Manager> {
        let failed = |error| Error::os("no manager can be made", error);
        let id: Id = u128::from_ne_bytes(connection::random()?);
        let (outer, inner) = socket::pair().map_err(failed)?;
        let inner = Handle(Arc::new(Object::received(inner)));
        let arguments = (((id >> 64) as u64, id as u64), inner);
        // A fresh image: a forked one would have what this process has, threads that are not there
        // and files that others wait to be closed.
        let process = Process::builder(server::serve, arguments).name(self.name).daemon(true);
        let process = process.start_method(StartMethod::Spawn);
        let process = if self.is_detached { process.detached() } else { process };
        let process = Mutex::new(process.spawn()?);
        let link = Link::through(id, Arc::new(Object::received(outer)));
        let generation = fork::generation();
        let owner =
            Owner { link: link.clone(), process, is_detached: self.is_detached, generation };
        Ok(Manager { link, owner: Some(Arc::new(owner)), address: None })
    }
}

impl Manager {
    /// Starts a server process with default settings.
    ///
    /// # Errors
    /// [`is_start`](Error::is_start), [`is_timeout`](Error::is_timeout) or
    /// [`is_os`](Error::is_os) if the process cannot be started.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// The settings of a new manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder { name: "Manager".to_owned(), is_detached: false, allow_remote: false }
    }

    /// Starts a server that clients with this key can also [`connect`](Manager::connect) to, over a
    /// Unix socket or TCP: Python's `BaseManager(address, authkey)`.
    ///
    /// See [`connection`] for what the key protects against, and what not. An
    /// address that other machines can reach must be allowed by
    /// [`ManagerBuilder::allow_remote`].
    ///
    /// ```
    /// use multiproc::connection::Address;
    /// use multiproc::{Manager, Process};
    ///
    /// let key = "a long secret out of a file";
    /// let manager = Manager::bind(Address::tcp("127.0.0.1:0")?, key)?;
    /// let address = manager.address().expect("it is bound").clone();
    ///
    /// // Another run of the same program, which need not be a child:
    /// let other = |address: Address, key: String| -> multiproc::Result<u64> {
    ///     let list = Manager::connect(address, key)?.list_of([1u64, 2])?;
    ///     list.push(3)?;
    ///     list.with(|list, ()| list.iter().sum(), ())
    /// };
    /// let mut process = Process::spawn(other, (address, key.to_owned()))?;
    /// assert_eq!(process.join()??, 6);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Manager::start`], and
    /// [`ListenerBuilder::bind`](crate::connection::ListenerBuilder::bind).
    pub fn bind(address: impl Into<Address>, key: impl AsRef<[u8]>) -> Result<Self> {
        Self::builder().bind(address, key)
    }

    /// Connects to a manager that another run of this program has [bound](Manager::bind): Python's
    /// `BaseManager.connect`.
    ///
    /// The objects that it makes, and proxies that it gets from the server, are like those of any
    /// other client, except that shared memory and proxies of other managers cannot travel over the
    /// connection. A proxy may be sent on to other processes on this machine, key and all, and has
    /// to be kept until its receiver has used it. Objects whose last proxy was here go when that is
    /// dropped, or this process ends or loses the connection.
    ///
    /// # Errors
    /// [`is_authentication`](Error::is_authentication) if the key is wrong, or the server is not of
    /// the same build of the same program, be it that it has the same types: methods are named by
    /// where they are in the executable, so both ends run copies of one file; otherwise as
    /// [`ClientBuilder::connect`](crate::connection::ClientBuilder::connect).
    pub fn connect(address: impl Into<Address>, key: impl AsRef<[u8]>) -> Result<Self> {
        let way = Way { address: address.into(), key: key.as_ref().to_vec() };
        let address = Some(way.address.clone());
        let (id, remote) = way.open()?;
        Ok(Self { link: Link::remotely(id, remote), owner: None, address })
    }

    /// Where the server was bound, or connected to.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Makes an object of any type: `constructor`, a function item or a closure that captures
    /// nothing, is called in the server with `argument`.
    ///
    /// The type need not be serialisable, because it never travels. For a proxy with methods, see
    /// [`#[multiproc::managed]`](macro@crate::managed).
    ///
    /// # Errors
    /// As [`Proxy::with_mut`], and [`is_os`](Error::is_os) if the server has no descriptor left.
    pub fn create<A: Data, S: Send + Sync + 'static>(
        &self,
        constructor: impl Fn(A) -> S + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<Proxy<S>> {
        self.hold(move |(argument,): (A,)| Ok(constructor(argument)), (&argument,))
    }

    /// As [`create`](Manager::create), with a constructor that may fail: its `Err` comes back as
    /// the inner one, and there is no object then.
    ///
    /// ```
    /// use multiproc::Manager;
    ///
    /// let parse = |text: String| text.parse::<u64>().map_err(|error| error.to_string());
    /// let manager = Manager::start()?;
    /// let number = manager.try_create(parse, "7".to_owned())?.expect("it is a number");
    /// assert_eq!(number.with(|number, ()| *number, ())?, 7);
    /// let why = manager.try_create(parse, "seven".to_owned())?.unwrap_err();
    /// assert_eq!(why, "invalid digit found in string");
    /// assert_eq!(manager.objects()?, 1);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// The outer one is as for [`create`](Manager::create).
    pub fn try_create<A: Data, S: Send + Sync + 'static, E: Data>(
        &self,
        constructor: impl Fn(A) -> std::result::Result<S, E> + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<std::result::Result<Proxy<S>, E>> {
        let make = move |(argument,): (A,)| constructor(argument).map(RwLock::new);
        proxy::try_make(&self.link, MANAGER, entry::try_make_entry(make)?, (&argument,))
    }

    /// Makes an object that a lock in the server protects.
    pub(super) fn hold<A: Encode, S: Send + Sync + 'static>(
        &self,
        constructor: impl Fn(A) -> Result<S> + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<Proxy<S>> {
        let entry = entry::make_entry(move |arguments: A| constructor(arguments).map(RwLock::new));
        self.make(entry?, arguments)
    }

    /// Makes an object that synchronises itself.
    pub(super) fn hold_raw<A: Encode, O: Send + Sync + 'static>(
        &self,
        constructor: impl Fn(A) -> Result<O> + Copy + Send + Sync + 'static,
        arguments: impl Lent<A>,
    ) -> Result<Proxy<O>> {
        self.make(entry::make_entry(constructor)?, arguments)
    }

    fn make<A, S>(&self, entry: entry::ManagedEntry, arguments: impl Lent<A>) -> Result<Proxy<S>> {
        proxy::make(&self.link, MANAGER, entry, arguments)
    }

    /// How many objects the server holds: those of which somebody has a proxy.
    ///
    /// What was just left goes a moment later.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let list = manager.list::<u64>()?;
    /// assert_eq!(manager.objects()?, 1);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn objects(&self) -> Result<usize> {
        let count = |control: &Arc<Control>, _: &dyn entry::Caller, ()| Ok(control.server.count());
        proxy::call(&self.link, MANAGER, entry::raw_entry(count)?, ())
    }

    /// The process id of the server.
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn pid(&self) -> Result<u32> {
        let pid = |_: &Arc<Control>, _: &dyn entry::Caller, ()| Ok(std::process::id());
        proxy::call(&self.link, MANAGER, entry::raw_entry(pid)?, ())
    }

    /// Whether the server is there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.link.is_down()
    }

    /// Ends the server, from whatever process, and waits until it has ended.
    ///
    /// Objects that are not in the middle of a call are dropped first, for 5 seconds at most. Calls
    /// that wait, for a lock or an item, end with [`is_disconnected`](Error::is_disconnected), as
    /// do all later ones. It is no error if it has ended before.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let list = manager.list::<u64>()?;
    /// manager.shutdown();
    /// assert!(list.push(1).unwrap_err().is_disconnected());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn shutdown(&self) {
        match &self.owner {
            Some(owner) => owner.end(),
            None => {
                self.link.shut_down();
                self.link.wait_for_the_end(Deadline::after(PATIENCE));
            }
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("id", &format_args!("{:032x}", self.link.id()))
            .field("is_owner", &self.owner.is_some())
            .finish_non_exhaustive()
    }
}

/// What arrives is a handle of the same server, which does not end with it.
impl Serialize for Manager {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (LinkHandle(self.link.clone()), &self.address).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Manager {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let (LinkHandle(link), address) = Deserialize::deserialize(from)?;
        Ok(Self { link, owner: None, address })
    }
}
