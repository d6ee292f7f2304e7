//! What the server has for one thread of a client: a thread, as long as there is something to do.

use super::channel::{Channel, Packet};
use super::control::Control;
use super::link::Channels;
use super::message::{self, Made};
use super::remote::{self, Tokens};
use super::server::{MANAGER, Server};
use crate::entry::{self, Answer, Caller, Departure, Target, call_managed};
use crate::sys::clock::Deadline;
use crate::wire::handles::{self, Carried};
use crate::wire::travel::Handle;
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A thread of a client.
struct Client {
    id: u64,
    channel: Channel,
    /// What is kept for its process, if it is remote.
    tokens: Option<Arc<Tokens>>,
    /// Where it has something that is to be taken from it when it goes.
    holders: Mutex<Vec<Weak<dyn Departure>>>,
    /// Who sent news with the last answer. The next request shows that they were heard.
    teller: Mutex<Option<Weak<dyn Departure>>>,
    /// Whether it has said that it goes.
    said_so: AtomicBool,
}

/// However its thread here ends: nobody else takes from it what it had.
impl Drop for Client {
    fn drop(&mut self) {
        let holders =
            std::mem::take(self.holders.get_mut().unwrap_or_else(PoisonError::into_inner));
        for holder in holders.iter().filter_map(Weak::upgrade) {
            // Relaxed: whoever drops it is the only one that has it.
            holder.departed(self.id, self.said_so.load(Ordering::Relaxed));
        }
        if let Some(teller) = self.told().take().and_then(|teller| teller.upgrade()) {
            teller.unheard();
        }
    }
}

impl Client {
    fn told(&self) -> MutexGuard<'_, Option<Weak<dyn Departure>>> {
        self.teller.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Caller for Client {
    fn id(&self) -> u64 {
        self.id
    }

    fn is_alive(&self) -> bool {
        !self.channel.is_peer_gone()
    }

    fn holds(&self, holder: Weak<dyn Departure>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.iter().any(|known| known.ptr_eq(&holder)) {
            holders.retain(|known| known.strong_count() > 0);
            holders.push(holder);
        }
    }

    fn tells(&self, teller: Weak<dyn Departure>) {
        *self.told() = Some(teller);
    }
}

/// What a client's thread is to the server, on whatever thread of the server.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    manager: Target,
    /// Where functions that it called have called themselves, while it has no thread.
    channels: Channels,
}

/// How long a thread of the server waits for the next request, once or twice, before it parks the
/// session. One that comes now and then is worth a thread: to start one costs what fifty calls do.
const IDLE: Duration = Duration::from_millis(500);

impl Session {
    pub(super) fn new(
        server: &Arc<Server>,
        channel: Channel,
        tokens: Option<Arc<Tokens>>,
    ) -> Box<Self> {
        let manager = Arc::new(Control { server: server.clone(), tokens: tokens.clone() });
        let client = Client {
            id: server.number(),
            channel,
            tokens,
            holders: Mutex::default(),
            teller: Mutex::default(),
            said_so: AtomicBool::new(false),
        };
        Box::new(Self { client, manager, channels: Channels::default() })
    }

    /// A number that nothing else of this server has.
    pub(super) fn number(&self) -> u64 {
        self.client.id
    }

    /// The way to the client's thread.
    pub(super) fn channel(&self) -> &Channel {
        &self.client.channel
    }

    /// Serves requests until the client's thread, or its process, is gone, or has been silent for
    /// so long that the session could be parked.
    pub(super) fn serve(mut self: Box<Self>, server: &Arc<Server>) {
        std::mem::take(&mut self.channels).give_to_this_thread();
        while self.listen(server) {
            self.channels = Channels::of_this_thread();
            match server.park(self) {
                Ok(()) => return,
                Err(session) => self = session,
            }
            std::mem::take(&mut self.channels).give_to_this_thread();
        }
    }

    /// Serves requests until the client is silent; false if it is gone.
    fn listen(&self, server: &Server) -> bool {
        let mut until = Deadline::after(IDLE);
        // The clock is read once for many requests, so the silence lasts once or twice as long.
        let mut is_silent = false;
        loop {
            match self.client.channel.recv_until(until) {
                Ok(Some(packet)) => match self.answer(server, packet) {
                    true => is_silent = false,
                    false => return false,
                },
                // A message that cannot be read is the end, too: who sends one does not keep the
                // protocol.
                Err(_) => return false,
                Ok(None) if is_silent => return true,
                Ok(None) => {
                    is_silent = true;
                    until = Deadline::after(IDLE);
                }
            }
        }
    }

    /// Answers a request; false if there will be no other one.
    fn answer(&self, server: &Server, packet: Packet) -> bool {
        let client = &self.client;
        if packet.bytes.is_empty() {
            // Relaxed: only this thread has the session.
            client.said_so.store(true, Ordering::Relaxed);
            return false;
        }
        *client.told() = None;
        let (bytes, carried) = reply(server, &self.manager, client, packet);
        match client.channel.send(&bytes, &carried) {
            Ok(()) => true,
            Err(error) if error.is_disconnected() => false,
            // The client is told what its value was too large for.
            Err(error) => client.channel.send(&message::failed(&error), &Carried::new()).is_ok(),
        }
    }
}

fn reply(server: &Server, manager: &Target, client: &Client, packet: Packet) -> (Vec<u8>, Carried) {
    let answer = || {
        let (bytes, carried) = answer(server, manager, client, packet)?;
        if client.channel.is_remote() && !carried.is_empty() {
            return Err(remote::not_carried());
        }
        Ok((bytes, carried))
    };
    remote::serving(client.tokens.as_ref(), answer)
        .unwrap_or_else(|error| (message::failed(&error), Carried::new()))
}

fn answer(
    server: &Server,
    manager: &Target,
    client: &Client,
    packet: Packet,
) -> Result<(Vec<u8>, Carried)> {
    let Packet { bytes, received } = packet;
    let (entry, number, arguments) = message::parse_request(&bytes)
        .ok_or_else(|| Error::invalid("a request to the manager that is too short"))?;
    let object = if number == MANAGER { Some(manager.clone()) } else { server.object(number) };
    let target = object.ok_or_else(|| {
        Error::invalid(format!("the manager has no object with the number {number}"))
    })?;
    let call = || call_managed(entry, &target, client, arguments);
    let call = || match client.channel.burden() {
        Some(burden) => burden.carrying(call),
        None => call(),
    };
    let answer = handles::providing(received, call);
    // The last proxy may have gone meanwhile: then the user's drop runs here.
    let _ = entry::catch(|| drop(target));
    match answer? {
        Answer::Value(bytes, carried) => Ok((message::value(bytes), carried)),
        Answer::Made(target) => {
            let (number, life) = server.admit(target)?;
            let life = (!remote::note(number, &life)).then_some(Handle(life));
            message::made(&Made { number, life })
        }
    }
}
