//! The manager itself, as the object with the number 0.

use super::remote::Tokens;
use super::server::Server;
use crate::{Error, Result};
use std::sync::Arc;

/// What can be asked of the server.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) server: Arc<Server>,
    /// What is kept for the process that asks, if it is remote.
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl Control {
    /// Keeps an object for a remote process that got a proxy of it from another one.
    pub(super) fn adopt(&self, number: u64) -> Result<()> {
        let gone = || {
            Error::invalid(format!(
                "the manager has no object with the number {number} any more: keep a remote proxy \
                 until its receiver has used it"
            ))
        };
        let life = self.server.life(number).ok_or_else(gone)?;
        match &self.tokens {
            Some(tokens) => tokens.add(number, life),
            None => return Err(Error::invalid("only remote clients adopt objects")),
        }
        Ok(())
    }
}
