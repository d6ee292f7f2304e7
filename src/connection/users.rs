//! Whom a Unix socket connects to.

use super::Credentials;
use crate::sys::stream::own_uid;
use std::fmt;
use std::sync::Arc;

/// Which users' processes may be at the other end.
#[derive(Clone, Default)]
pub(super) struct Users {
    /// Those named; by default this one, or all if a key decides.
    named: Option<Vec<u32>>,
    check: Option<Check>,
}

type Check = Arc<dyn Fn(&Credentials) -> bool + Send + Sync>;

impl Users {
    pub(super) fn name(&mut self, uids: impl IntoIterator<Item = u32>) {
        self.named.get_or_insert_default().extend(uids);
    }

    pub(super) fn check(&mut self, check: impl Fn(&Credentials) -> bool + Send + Sync + 'static) {
        self.check = Some(Arc::new(check));
    }

    /// Whether anything was said about users at all.
    pub(super) fn is_default(&self) -> bool {
        self.named.is_none() && self.check.is_none()
    }

    /// Whether processes of other users may be there; `is_open` if something else decides.
    pub(super) fn are_others_welcome(&self, is_open: bool) -> bool {
        match &self.named {
            Some(named) => named.iter().any(|&uid| uid != own_uid()),
            None => is_open,
        }
    }

    /// Whether this peer is welcome.
    pub(super) fn admit(&self, is_open: bool, peer: &Credentials) -> bool {
        let by_name = match &self.named {
            Some(named) => named.contains(&peer.uid),
            None => is_open || peer.uid == own_uid(),
        };
        by_name && self.check.as_ref().is_none_or(|check| check(peer))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Users");
        debug.field("named", &self.named).field("is_checked", &self.check.is_some()).finish()
    }
}
