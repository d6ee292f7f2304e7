//! Names under which objects can be found.

use super::control::Control;
use super::proxy;
use super::server::MANAGER;
use crate::entry::{self, Caller};
use crate::manager::Manager;
use crate::{Data, Error, Result};
use std::any::{Any, type_name};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What has a name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    value: Arc<dyn Any + Send + Sync>,
    type_name: &'static str,
}

/// All that have names, in the server.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, Named>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Named>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes all names.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        // What they kept may go now.
        drop(all);
    }
}

impl Manager {
    /// Gives a proxy a name, under which every client can [find](Manager::find) it; whatever had
    /// that name before has it no more.
    ///
    /// Clients that connect to a [bound](Manager::bind) manager have no other way to the objects of
    /// others. The server itself keeps the object, until the name is
    /// [taken away](Manager::unpublish). (Python: the `callable` of `BaseManager.register`.)
    ///
    /// ```
    /// use multiproc::Manager;
    /// use multiproc::manager::List;
    ///
    /// let manager = Manager::start()?;
    /// manager.publish("results", &manager.list_of([1u64])?)?;
    /// let found: List<u64> = manager.find("results")?.expect("it is published");
    /// assert_eq!(found.snapshot()?, [1]);
    /// assert!(manager.find::<List<u32>>("results").unwrap_err().is_invalid_input());
    /// assert!(manager.unpublish("results")?);
    /// assert!(manager.find::<List<u64>>("results")?.is_none());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn publish<P: Data + Clone + Send + Sync>(&self, name: &str, proxy: &P) -> Result<()> {
        let publish = |control: &Arc<Control>, _: &dyn Caller, (name, value): (String, P)| {
            let named = Named { value: Arc::new(value), type_name: type_name::<P>() };
            let before = control.server.names().lock().insert(name, named);
            drop(before);
            Ok(())
        };
        let entry = entry::raw_entry(publish)?;
        proxy::call(&self.link, MANAGER, entry, (&name.to_owned(), proxy))
    }

    /// The proxy with this name; `None` if nothing has it.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if a proxy of another type has it,
    /// [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn find<P: Data + Clone + Send + Sync>(&self, name: &str) -> Result<Option<P>> {
        let find = |control: &Arc<Control>, _: &dyn Caller, (name,): (String,)| {
            // Cloned, by the user's code, when the names are free again: that may call us.
            let named = control.server.names().lock().get(&name).cloned();
            let Some(named) = named else { return Ok(None) };
            let found = named.value.downcast_ref::<P>().cloned();
            found.map(Some).ok_or_else(|| {
                let (wanted, is) = (type_name::<P>(), named.type_name);
                Error::invalid(format!("`{name}` was published as a {is}, and is no {wanted}"))
            })
        };
        proxy::call(&self.link, MANAGER, entry::raw_entry(find)?, (&name.to_owned(),))
    }

    /// Takes a name away; whether anything had it.
    ///
    /// # Errors
    /// [`is_disconnected`](Error::is_disconnected) if the server has ended.
    pub fn unpublish(&self, name: &str) -> Result<bool> {
        let remove = |control: &Arc<Control>, _: &dyn Caller, (name,): (String,)| {
            let removed = control.server.names().lock().remove(&name);
            Ok(removed.is_some())
        };
        proxy::call(&self.link, MANAGER, entry::raw_entry(remove)?, (&name.to_owned(),))
    }
}
