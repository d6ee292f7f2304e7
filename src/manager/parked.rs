//! Sessions of clients that are silent: none of them has a thread of the server's.

use super::session::Session;
use crate::sys::epoll::Poller;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the main thread looks at all of them: nobody relies on being told.
const LOOK: Duration = Duration::from_secs(1);
/// How often it tries to start a thread for one that has something to do, when there can be none.
const TRY: Duration = Duration::from_millis(64);

/// The sessions that are parked.
#[derive(Debug, Default)]
pub(super) struct Parked(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// By their numbers, in the poller.
    silent: HashMap<u64, Box<Session>>,
    /// Those that have something to do, and no thread to do it.
    late: HashMap<u64, Box<Session>>,
}

impl Parked {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a session, which the poller watches under its number from now on; whether it is the
    /// only one. It comes back if it has something to do, or the poller can watch no more.
    pub(super) fn park(
        &self,
        session: Box<Session>,
        poller: &Poller,
    ) -> Result<bool, Box<Session>> {
        if !session.channel().arm() {
            return Err(session);
        }
        let number = session.number();
        // Under the lock: whoever takes it out again finds it in the poller.
        let mut places = self.lock();
        match session.channel().watched().map(|fd| poller.add(fd, number)) {
            Some(Ok(())) => {
                places.silent.insert(number, session);
                Ok(places.silent.len() == 1)
            }
            _ => Err(session),
        }
    }

    /// Keeps a session that has something to do, and no thread to do it.
    pub(super) fn keep(&self, session: Box<Session>) {
        self.lock().late.insert(session.number(), session);
    }

    /// Takes a session out, if it is parked.
    pub(super) fn take(&self, number: u64, poller: &Poller) -> Option<Box<Session>> {
        let mut places = self.lock();
        if let Some(session) = places.late.remove(&number) {
            return Some(session);
        }
        let session = places.silent.remove(&number)?;
        if let Some(fd) = session.channel().watched() {
            poller.remove(fd);
        }
        Some(session)
    }

    /// Those that have something to do, whatever the poller has said.
    pub(super) fn ready(&self) -> Vec<u64> {
        let places = self.lock();
        let ready = places.silent.iter().filter(|(_, session)| session.channel().is_readable());
        ready.map(|(number, _)| *number).chain(places.late.keys().copied()).collect()
    }

    /// How long the next look can wait; `None` if there is nobody to look at.
    pub(super) fn patience(&self) -> Option<Duration> {
        let places = self.lock();
        match (places.late.is_empty(), places.silent.is_empty()) {
            (false, _) => Some(TRY),
            (true, false) => Some(LOOK),
            (true, true) => None,
        }
    }
}
