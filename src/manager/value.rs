//! `Value`.

use super::proxy::proxy_type;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};

proxy_type! {
    /// One value of any type that a [`Manager`]'s server holds: Python's `Manager().Value()`.
    ///
    /// For numbers that are changed often, [`multiproc::AtomicValue`](crate::AtomicValue) and
    /// [`multiproc::Value`](crate::Value) are a hundred times quicker; this one can be of any type
    /// that travels.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let leader = manager.value(None::<String>)?;
    /// assert!(leader.compare_and_set(&None, Some("me".to_owned()))?);
    /// assert!(!leader.compare_and_set(&None, Some("you".to_owned()))?);
    /// assert_eq!(leader.get()?.as_deref(), Some("me"));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does.
    Value [T] of T
}

impl Manager {
    /// Makes a value.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn value<T: Data + Send + Sync>(&self, value: T) -> Result<Value<T>> {
        self.hold(|(value,): (T,)| Ok(value), (&value,)).map(Value)
    }
}

impl<T: Data + Send + Sync> Value<T> {
    /// A copy of the value.
    pub fn get(&self) -> Result<T> {
        self.0.show(|value: &T, (), look: &mut Look<'_>| look.value(value), ())
    }

    /// Puts another value in its place.
    pub fn set(&self, value: T) -> Result<()> {
        self.0.write(|place: &mut T, (value,): (T,)| *place = value, (&value,))
    }

    /// Puts another value in its place, and returns the one that was there.
    pub fn replace(&self, value: T) -> Result<T> {
        let replace = |place: &mut T, (value,): (T,)| std::mem::replace(place, value);
        self.0.write(replace, (&value,))
    }

    /// Takes the value, and leaves the type's default.
    pub fn take(&self) -> Result<T>
    where
        T: Default,
    {
        self.0.write(|place: &mut T, ()| std::mem::take(place), ())
    }

    /// Puts `new` in the place of a value that is equal to `current`; whether it was.
    pub fn compare_and_set(&self, current: &T, new: T) -> Result<bool>
    where
        T: PartialEq,
    {
        let exchange = |place: &mut T, (current, new): (T, T)| {
            let is_equal = *place == current;
            if is_equal {
                *place = new;
            }
            is_equal
        };
        self.0.write(exchange, (current, &new))
    }

    /// Changes the value where it is, by a function that captures nothing, and returns what that
    /// returns.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let text = manager.value("a".to_owned())?;
    /// let append = |text: &mut String, more: String| {
    ///     text.push_str(&more);
    ///     text.len()
    /// };
    /// assert_eq!(text.update(append, "bc".to_owned())?, 3);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn update<A: Data, R: Data>(
        &self,
        change: impl Fn(&mut T, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with_mut(change, argument)
    }

    /// Calls a function that captures nothing and looks at the value.
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&T, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with(function, argument)
    }
}
