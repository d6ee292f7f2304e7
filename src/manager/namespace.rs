//! `Namespace`.

use super::proxy::proxy_type;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Error, Result};
use std::any::{Any, type_name};
use std::collections::BTreeMap;

/// A value of any type.
pub(super) struct Slot {
    value: Box<dyn Any + Send + Sync>,
    type_name: &'static str,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("type", &self.type_name).finish_non_exhaustive()
    }
}

type Slots = BTreeMap<String, Slot>;

proxy_type! {
    /// Values of different types under names, which a [`Manager`]'s server holds: Python's
    /// `Manager().Namespace()`.
    ///
    /// A value is read as the type that it was set as; anything else is an error that names both.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let settings = manager.namespace()?;
    /// settings.set("depth", 3u32)?;
    /// settings.set("name", "crawler".to_owned())?;
    /// assert_eq!(settings.get("depth")?, Some(3u32));
    /// assert!(settings.get::<u64>("name").unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does; beyond that, as it
    /// says.
    Namespace [] of Slots
}

impl Manager {
    /// Makes a namespace without names.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn namespace(&self) -> Result<Namespace> {
        self.hold(|()| Ok(Slots::new()), ()).map(Namespace)
    }
}

fn other_type<T>(name: &str, slot: &Slot) -> Error {
    let (wanted, is) = (type_name::<T>(), slot.type_name);
    Error::invalid(format!("`{name}` was set as a {is}, and cannot be used as a {wanted}"))
}

impl Namespace {
    /// Gives a name a value; one that was there, of whatever type, is dropped.
    pub fn set<T: Data + Send + Sync>(&self, name: &str, value: T) -> Result<()> {
        let set = |slots: &mut Slots, (name, value): (String, T)| {
            let slot = Slot { value: Box::new(value), type_name: type_name::<T>() };
            drop(slots.insert(name, slot));
        };
        self.0.write(set, (&name.to_owned(), &value))
    }

    /// A copy of a value; `None` if there is none.
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if it was set as another type.
    pub fn get<T: Data + Send + Sync>(&self, name: &str) -> Result<Option<T>> {
        let show = |slots: &Slots, (name,): (String,), look: &mut Look<'_>| {
            let found: std::result::Result<Option<&T>, Error> = match slots.get(&name) {
                None => Ok(None),
                Some(slot) => {
                    let value = slot.value.downcast_ref::<T>();
                    value.map(Some).ok_or_else(|| other_type::<T>(&name, slot))
                }
            };
            look.show(&found);
        };
        self.0.show::<_, std::result::Result<Option<T>, Error>>(show, (&name.to_owned(),))?
    }

    /// Changes a value where it is, by a function that captures nothing, and returns what that
    /// returns; `None` if there is no value.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let shared = manager.namespace()?;
    /// shared.set("hits", 0u64)?;
    /// shared.update("hits", |hits: &mut u64, more: u64| *hits += more, 2)?;
    /// assert_eq!(shared.get("hits")?, Some(2u64));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_invalid_input`](Error::is_invalid_input) if it was set as another type.
    pub fn update<T: Data + Send + Sync, A: Data, R: Data>(
        &self,
        name: &str,
        change: impl Fn(&mut T, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<Option<R>> {
        let update = move |slots: &mut Slots, (name, argument): (String, A)| {
            let Some(slot) = slots.get_mut(&name) else { return Ok(None) };
            match slot.value.downcast_mut::<T>() {
                Some(value) => Ok(Some(change(value, argument))),
                None => Err(other_type::<T>(&name, slot)),
            }
        };
        self.0.write(update, (&name.to_owned(), &argument))?
    }

    /// Removes a name; whether it had a value.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let remove = |slots: &mut Slots, (name,): (String,)| slots.remove(&name).is_some();
        self.0.write(remove, (&name.to_owned(),))
    }

    /// Whether a name has a value.
    pub fn contains(&self, name: &str) -> Result<bool> {
        let contains = |slots: &Slots, (name,): (String,)| slots.contains_key(&name);
        self.0.read(contains, (&name.to_owned(),))
    }

    /// All names that have values, and their types as the compiler calls them, in order.
    pub fn names(&self) -> Result<Vec<(String, String)>> {
        let show = |slots: &Slots, (), look: &mut Look<'_>| {
            look.show(&slots.iter().map(|(name, slot)| (name, slot.type_name)).collect::<Vec<_>>());
        };
        self.0.show(show, ())
    }

    /// Removes all names.
    pub fn clear(&self) -> Result<()> {
        self.0.write(|slots: &mut Slots, ()| slots.clear(), ())
    }
}
