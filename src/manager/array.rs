//! `Array`.

use super::proxy::proxy_type;
use super::slice::out_of_range;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};

/// Values whose number does not change.
type Fixed<T> = Box<[T]>;

proxy_type! {
    /// A fixed number of values that a [`Manager`]'s server holds: Python's `Manager().Array()`.
    ///
    /// For numbers, [`multiproc::Array`](crate::Array) is in shared memory and a hundred times
    /// quicker; this one can be of any type that travels.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let names = manager.array(vec![String::new(); 3])?;
    /// names.set(1, "Ada".to_owned())?;
    /// assert_eq!(names.get(1)?.as_deref(), Some("Ada"));
    /// assert!(names.set(3, "Bob".to_owned()).unwrap_err().is_invalid_input());
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does; beyond that, as it
    /// says.
    Array [T] of Fixed<T>
}

impl Manager {
    /// Makes an array of these values.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn array<T: Data + Send + Sync>(&self, values: Vec<T>) -> Result<Array<T>> {
        self.hold(|(values,): (Vec<T>,)| Ok(values.into_boxed_slice()), (&values,)).map(Array)
    }
}

impl<T: Data + Send + Sync> Array<T> {
    /// Puts these values from `start` on, at one moment: all, or none if the array is shorter.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if it is.
    pub fn set_slice(&self, start: usize, values: Vec<T>) -> Result<()> {
        let set = |array: &mut Fixed<T>, (start, values): (usize, Vec<T>)| {
            let (len, end) = (array.len(), start.saturating_add(values.len()));
            let places = array.get_mut(start..end).ok_or_else(|| out_of_range(end, len))?;
            places.iter_mut().zip(values).for_each(|(place, value)| *place = value);
            Ok(())
        };
        self.0.write(set, (&start, &values))?
    }

    /// Copies of all values, at one moment.
    pub fn snapshot(&self) -> Result<Vec<T>> {
        let show = |array: &Fixed<T>, (), look: &mut Look<'_>| look.show(&(array,));
        self.0.show(show, ()).map(|(values,)| values)
    }

    /// Calls a function that captures nothing on the values; nobody else sees them meanwhile.
    pub fn with_mut<A: Data, R: Data>(
        &self,
        function: impl Fn(&mut [T], A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with_mut(move |array: &mut Fixed<T>, argument| function(array, argument), argument)
    }

    /// Calls a function that captures nothing and looks at the values.
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&[T], A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with(move |array: &Fixed<T>, argument| function(array, argument), argument)
    }
}
