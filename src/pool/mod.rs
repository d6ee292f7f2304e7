//! A pool of worker processes.
//!
//! `README.md` in this folder explains who polls, who sleeps, and what happens when a worker dies.

mod arguments;
mod batch;
mod builder;
mod callbacks;
mod chunks;
mod engine;
mod imap;
mod lend;
mod life;
mod result;
mod roster;
mod state;
mod stats;
mod supervisor;
mod task;
mod worker;

pub use builder::PoolBuilder;
pub use chunks::Chunks;
pub use imap::Imap;
pub use lend::{ChunkOf, Lend};
pub use life::Pool;
pub use result::AsyncResult;
pub use stats::{PoolStats, WorkerStats};
