//! The server's thread for one thread of a client.

use super::channel::{Channel, Packet};
use super::control::Control;
use super::message::{self, Made};
use super::remote::{self, Tokens};
use super::server::{MANAGER, Server};
use crate::entry::{self, Answer, Caller, Departure, Target, call_managed};
use crate::wire::handles::{self, Carried};
use crate::wire::travel::Handle;
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
            // Relaxed: written by this thread.
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

/// Serves requests until the client's thread, or its process, is gone.
pub(super) fn serve(server: &Arc<Server>, channel: Channel, tokens: Option<Arc<Tokens>>) {
    let manager: Target = Arc::new(Control { server: server.clone(), tokens: tokens.clone() });
    let (holders, teller, said_so) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
    let client = Client { id: server.number(), channel, tokens, holders, teller, said_so };
    // A message that cannot be read is the end, too: who sends one does not keep the protocol.
    while let Ok(packet) = client.channel.recv() {
        if packet.bytes.is_empty() {
            // Relaxed: for this thread alone.
            client.said_so.store(true, Ordering::Relaxed);
            break;
        }
        *client.told() = None;
        let (bytes, carried) = reply(server, &manager, &client, packet);
        match client.channel.send(&bytes, &carried) {
            Ok(()) => {}
            Err(error) if error.is_disconnected() => break,
            // The client is told what its value was too large for.
            Err(error) => {
                if client.channel.send(&message::failed(&error), &Carried::new()).is_err() {
                    break;
                }
            }
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
