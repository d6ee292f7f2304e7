//! Data that several processes see: what a user names.
//!
//! `README.md` in this folder tells who owns what, and what happens when a process dies. There is
//! no `unsafe` here: `shm` decides who may touch which byte.

mod frozen_vec;
mod handle;
mod options;
mod shared_vec;

pub use frozen_vec::FrozenVec;
pub use options::{HugePages, VecOptions};
pub use shared_vec::SharedVec;
