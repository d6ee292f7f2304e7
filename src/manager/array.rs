//! `Array`.

use super::list::out_of_range;
use super::proxy::proxy_type;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};
use std::ops::Range;

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
    /// A copy of the value at `index`; `None` if the array is shorter.
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        self.0.show(|array: &Fixed<T>, (at,): (usize,), look| look.show(&array.get(at)), (&index,))
    }

    /// Copies of several values at one moment; `None` where there is none.
    pub fn get_many(&self, indices: impl IntoIterator<Item = usize>) -> Result<Vec<Option<T>>> {
        let indices: Vec<usize> = indices.into_iter().collect();
        let show = |array: &Fixed<T>, (indices,): (Vec<usize>,), look: &mut Look<'_>| {
            look.show(&indices.into_iter().map(|at| array.get(at)).collect::<Vec<_>>());
        };
        self.0.show(show, (&indices,))
    }

    /// Copies of the values in a range; `None` if it is not a part of the array.
    pub fn slice(&self, range: Range<usize>) -> Result<Option<Vec<T>>> {
        self.0.show(
            |array: &Fixed<T>, (start, end): (usize, usize), look| {
                look.show(&array.get(start..end));
            },
            (&range.start, &range.end),
        )
    }

    /// Puts another value at `index`.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if the array is shorter.
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        self.replace(index, value).map(drop)
    }

    /// Puts another value at `index`, and returns the one that was there.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if the array is shorter.
    pub fn replace(&self, index: usize, value: T) -> Result<T> {
        let replace = |array: &mut Fixed<T>, (at, value): (usize, T)| {
            let len = array.len();
            let place = array.get_mut(at).ok_or_else(|| out_of_range(at, len))?;
            Ok(std::mem::replace(place, value))
        };
        self.0.write(replace, (&index, &value))?
    }

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

    /// Exchanges two values.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if one of them is not there.
    pub fn swap(&self, a: usize, b: usize) -> Result<()> {
        let swap = |array: &mut Fixed<T>, (a, b): (usize, usize)| match a.max(b) < array.len() {
            true => {
                array.swap(a, b);
                Ok(())
            }
            false => Err(out_of_range(a.max(b), array.len())),
        };
        self.0.write(swap, (&a, &b))?
    }

    /// Changes the value at `index` where it is, by a function that captures nothing, and returns
    /// what that returns; `None` if the array is shorter.
    pub fn update<A: Data, R: Data>(
        &self,
        index: usize,
        change: impl Fn(&mut T, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<Option<R>> {
        let update = move |array: &mut Fixed<T>, (at, argument): (usize, A)| {
            array.get_mut(at).map(|value| change(value, argument))
        };
        self.0.write(update, (&index, &argument))
    }

    /// Puts `new` in the place of the value at `index` if that is equal to `current`; whether it
    /// was.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if the array is shorter.
    pub fn compare_and_set(&self, index: usize, current: &T, new: T) -> Result<bool>
    where
        T: PartialEq,
    {
        let exchange = |array: &mut Fixed<T>, (at, current, new): (usize, T, T)| {
            let len = array.len();
            let place = array.get_mut(at).ok_or_else(|| out_of_range(at, len))?;
            let is_equal = *place == current;
            if is_equal {
                *place = new;
            }
            Ok(is_equal)
        };
        self.0.write(exchange, (&index, current, &new))?
    }

    /// The number of values.
    pub fn len(&self) -> Result<usize> {
        self.0.read(|array: &Fixed<T>, ()| array.len(), ())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        self.0.read(|array: &Fixed<T>, ()| array.is_empty(), ())
    }

    /// Copies of all values, at one moment.
    pub fn snapshot(&self) -> Result<Vec<T>> {
        let show = |array: &Fixed<T>, (), look: &mut Look<'_>| look.show(&(array,));
        self.0.show(show, ()).map(|(values,)| values)
    }

    /// An iterator over a [`snapshot`](Array::snapshot).
    pub fn iter(&self) -> Result<std::vec::IntoIter<T>> {
        self.snapshot().map(Vec::into_iter)
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
