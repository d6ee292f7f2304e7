//! Connections between programs that did not start each other: a [`Listener`] waits at an
//! [`Address`], a [`Client`] connects to it, and each gets a [`Connection`] for messages in both
//! directions. (Modelled on Python's `multiprocessing.connection`; the bytes on the wire are other
//! ones, so the two cannot talk to each other.)
//!
//! Processes that this program starts need none of this: pass them a channel as an argument.
//!
//! # Which address
//! A Unix socket is quicker, carries shared objects and open files, and the kernel tells who is at
//! the other end. TCP reaches other machines. Both programs must be of the same architecture (byte
//! order and word length), which the handshake checks, and mean the same types, which it does not:
//! name a version in [`service`](ListenerBuilder::service).
//!
//! # Who is at the other end
//! *With a key*, both sides prove that they have it before the first message is read: by
//! HMAC-SHA-256 over fresh random numbers of both. The key itself is never sent, what somebody has
//! recorded is of no use later, and a listener that does not have the key learns nothing from a
//! client but one proof. A proof lets whoever got it try keys at leisure: a word out of a
//! dictionary is no key.
//!
//! *Without a key* there are Unix sockets only, and only processes of the same user are let in, or
//! those that [`allow_uids`](ListenerBuilder::allow_uids) and [`check`](ListenerBuilder::check)
//! name. TCP without a key has to be asked for: [`allow_anyone`](ListenerBuilder::allow_anyone).
//!
//! # What this does not give
//! **Nothing is encrypted, and messages are not signed.** On a network, whoever can listen reads
//! everything, and whoever can change packets can go on in the place of a peer that has proved who
//! it is. So TCP listens on loopback only, unless
//! [`allow_remote`](ListenerBuilder::allow_remote) says otherwise: send it through a tunnel then
//! (`ssh -L`, WireGuard, stunnel). The [peer](Connection::peer)'s address proves nothing either.
//!
//! A peer with the key is trusted not to send a thousand messages that nobody wants, but not more:
//! whatever bytes it sends, a receive returns a value or an error, and allocates no more than has
//! come, up to [`max_message`](ListenerBuilder::max_message).

mod address;
mod auth;
mod baton;
mod client;
#[allow(clippy::module_inception, reason = "a file is named after what it has")]
mod connection;
pub(crate) mod frame;
pub(crate) mod framed;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod listener;
mod messages;
mod path;
mod pending;
mod users;

pub use address::Address;
pub(crate) use auth::random;
pub use client::{Client, ClientBuilder};
pub use connection::{Connection, Credentials};
pub use listener::{Listener, ListenerBuilder, ListenerStats};
pub use messages::Messages;

/// The largest message, unless one is set.
const DEFAULT_LARGEST: u64 = 1 << 30;
