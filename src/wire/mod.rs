//! What travels between a parent and one child: control messages on a socket, and the link of
//! rings, blocks and socket that a pool worker has. `README.md` explains hello and shutdown.

pub(crate) mod control;
pub(crate) mod handles;
pub(crate) mod ipc;
pub(crate) mod lockers;
pub(crate) mod parent_link;
pub(crate) mod post;
mod sharing;
pub(crate) mod travel;
pub(crate) mod worker_link;
