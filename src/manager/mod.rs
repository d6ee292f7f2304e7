//! Objects that a server process holds, and proxies of them.
//!
//! `README.md` in this folder has the protocol.

mod channel;
mod control;
mod life;
mod link;
mod list;
mod message;
mod proxy;
mod server;
mod session;

pub use life::{Manager, ManagerBuilder};
pub use list::List;
pub use proxy::Proxy;
