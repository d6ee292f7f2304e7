//! Memory shared with another process.
//!
//! `README.md` in this folder explains the protocols. This layer decides who may touch which
//! byte, and when; nothing above it needs `unsafe` to use shared memory.

pub(crate) mod atomic;
pub(crate) mod block;
pub(crate) mod board;
pub(crate) mod bytes;
pub(crate) mod claim;
pub(crate) mod lock;
pub(crate) mod locked;
pub(crate) mod memory;
pub(crate) mod nap;
pub(crate) mod object;
pub(crate) mod owner;
pub(crate) mod park;
pub(crate) mod results;
pub(crate) mod rwlock;
pub(crate) mod rwlocked;
pub(crate) mod seats;
pub(crate) mod segment;
pub(crate) mod tasks;
