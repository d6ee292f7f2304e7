//! `Event`.

use super::proxy::proxy_type;
use super::waiting::Room;
use crate::Result;
use crate::entry::Caller;
use crate::manager::Manager;
use std::sync::Arc;
use std::time::Duration;

/// An event in the server.
#[derive(Debug, Default)]
pub(super) struct Flag(Room<Flagged>);

#[derive(Debug, Default)]
struct Flagged {
    is_set: bool,
    /// How often it was set.
    times: u64,
}

proxy_type! {
    /// A flag that a [`Manager`]'s server holds, and for which any number can wait: Python's
    /// `Manager().Event()`. [`multiproc::Event`](crate::Event) is in shared memory.
    ///
    /// A set that is followed by a clear lets all go who waited.
    ///
    /// ```
    /// use multiproc::{Manager, Process};
    /// use multiproc::manager::Event;
    ///
    /// let manager = Manager::start()?;
    /// let go = manager.event()?;
    /// let mut waiter = Process::spawn(|go: Event| go.wait().is_ok(), (go.clone(),))?;
    /// go.set()?;
    /// assert!(waiter.join()?);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails with [`is_disconnected`](crate::Error::is_disconnected) if the server has
    /// ended, also while it waits.
    Event [] of Flag
}

impl Manager {
    /// Makes an event that is not set.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn event(&self) -> Result<Event> {
        self.hold_raw(|()| Ok(Flag::default()), ()).map(Event)
    }
}

impl Event {
    /// Sets the event: all who wait go on.
    pub fn set(&self) -> Result<()> {
        let set = |flag: &Arc<Flag>, _: &dyn Caller, ()| {
            flag.0.change(|flag| {
                flag.is_set = true;
                flag.times += 1;
            });
            Ok(())
        };
        self.0.raw(set, ())
    }

    /// Clears the event: who waits from now on, waits for the next time that it is set.
    pub fn clear(&self) -> Result<()> {
        let clear = |flag: &Arc<Flag>, _: &dyn Caller, ()| {
            flag.0.change(|flag| flag.is_set = false);
            Ok(())
        };
        self.0.raw(clear, ())
    }

    /// Whether the event is set.
    pub fn is_set(&self) -> Result<bool> {
        let is_set = |flag: &Arc<Flag>, _: &dyn Caller, ()| Ok(flag.0.look(|flag| flag.is_set));
        self.0.raw(is_set, ())
    }

    /// Waits until the event is set; at once if it is.
    pub fn wait(&self) -> Result<()> {
        self.wait_timeout(Duration::MAX).map(drop)
    }

    /// Waits until the event is set, for `timeout` at most; whether it was.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        let wait = |flag: &Arc<Flag>, caller: &dyn Caller, (timeout,): (Duration,)| {
            let before = flag.0.look(|flag| flag.times);
            let is_set = |flag: &mut Flagged| (flag.is_set || flag.times != before).then_some(());
            Ok(flag.0.wait(caller, timeout, is_set).is_some())
        };
        self.0.raw(wait, (&timeout,))
    }
}
