//! Starting processes: `Spawn`, `ForkServer` and `Fork`, and what a child does first.
//!
//! `README.md` in this folder has the handshake and the shutdown.

pub(crate) mod builder;
pub(crate) mod child;
pub(crate) mod children;
pub(crate) mod context;
mod environment;
mod forkserver;
pub(crate) mod launch;
mod method;
mod worker;

pub(crate) use environment::Environment;
pub(crate) use forkserver::ForkServer;
pub use forkserver::set_forkserver_preload;
pub use method::{StartMethod, set_start_method, start_method};
