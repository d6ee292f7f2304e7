//! The manager itself, as the object with the number 0.

use super::server::Server;
use std::sync::Arc;

/// What can be asked of the server.
#[derive(Debug)]
pub(super) struct Control(pub(super) Arc<Server>);
