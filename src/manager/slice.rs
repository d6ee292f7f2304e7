//! What lists and arrays have in common: the methods of a slice.

use super::{Array, List};
use crate::entry::Look;
use crate::{Data, Error, Result};
use std::ops::Range;

/// The error for an index that is too large.
pub(super) fn out_of_range(index: usize, len: usize) -> Error {
    Error::invalid(format!("index {index} is out of range: there are {len} items"))
}

/// The methods that both have, for a proxy of this `state`.
macro_rules! slice_methods {
    ($name:ident of $state:ty) => {
        impl<T: Data + Send + Sync> $name<T> {
            /// A copy of the item at `index`; `None` if there is none.
            pub fn get(&self, index: usize) -> Result<Option<T>> {
                self.0.show(
                    |items: &$state, (at,): (usize,), look| look.show(&items.get(at)),
                    (&index,),
                )
            }

            /// Copies of several items at one moment; `None` where there is none.
            pub fn get_many(
                &self,
                indices: impl IntoIterator<Item = usize>,
            ) -> Result<Vec<Option<T>>> {
                let indices: Vec<usize> = indices.into_iter().collect();
                let show = |items: &$state, (indices,): (Vec<usize>,), look: &mut Look<'_>| {
                    look.show(&indices.into_iter().map(|at| items.get(at)).collect::<Vec<_>>());
                };
                self.0.show(show, (&indices,))
            }

            /// Copies of the items in a range; `None` if it is not a part of them.
            pub fn slice(&self, range: Range<usize>) -> Result<Option<Vec<T>>> {
                self.0.show(
                    |items: &$state, (start, end): (usize, usize), look| {
                        look.show(&items.get(start..end))
                    },
                    (&range.start, &range.end),
                )
            }

            /// Replaces the item at `index`.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if there is none.
            pub fn set(&self, index: usize, item: T) -> Result<()> {
                self.replace(index, item).map(drop)
            }

            /// Replaces the item at `index` and returns the one that was there.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if there is none.
            pub fn replace(&self, index: usize, item: T) -> Result<T> {
                let replace = |items: &mut $state, (at, item): (usize, T)| {
                    let len = items.len();
                    let place = items.get_mut(at).ok_or_else(|| out_of_range(at, len))?;
                    Ok(std::mem::replace(place, item))
                };
                self.0.write(replace, (&index, &item))?
            }

            /// Exchanges two items.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if one of them is not there.
            pub fn swap(&self, a: usize, b: usize) -> Result<()> {
                let swap = |items: &mut $state, (a, b): (usize, usize)| match a.max(b) < items.len()
                {
                    true => {
                        items.swap(a, b);
                        Ok(())
                    }
                    false => Err(out_of_range(a.max(b), items.len())),
                };
                self.0.write(swap, (&a, &b))?
            }

            /// Changes the item at `index` where it is, by a function that captures nothing, and
            /// returns what that returns; `None` if there is no such item.
            pub fn update<A: Data, R: Data>(
                &self,
                index: usize,
                change: impl Fn(&mut T, A) -> R + Copy + Send + Sync + 'static,
                argument: A,
            ) -> Result<Option<R>> {
                self.0.write(
                    move |items: &mut $state, (at, argument): (usize, A)| {
                        items.get_mut(at).map(|item| change(item, argument))
                    },
                    (&index, &argument),
                )
            }

            /// Puts `new` in the place of the item at `index` if that is equal to `current`;
            /// whether it was.
            ///
            /// # Errors
            /// [`is_invalid_input`](Error::is_invalid_input) if there is no such item.
            pub fn compare_and_set(&self, index: usize, current: &T, new: T) -> Result<bool>
            where
                T: PartialEq,
            {
                let exchange = |items: &mut $state, (at, current, new): (usize, T, T)| {
                    let len = items.len();
                    let place = items.get_mut(at).ok_or_else(|| out_of_range(at, len))?;
                    let is_equal = *place == current;
                    if is_equal {
                        *place = new;
                    }
                    Ok(is_equal)
                };
                self.0.write(exchange, (&index, current, &new))?
            }

            /// The number of items.
            pub fn len(&self) -> Result<usize> {
                self.0.read(|items: &$state, ()| items.len(), ())
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> Result<bool> {
                self.0.read(|items: &$state, ()| items.is_empty(), ())
            }

            /// An iterator over a [`snapshot`](Self::snapshot): what happens meanwhile does not
            /// show.
            pub fn iter(&self) -> Result<std::vec::IntoIter<T>> {
                self.snapshot().map(Vec::into_iter)
            }
        }
    };
}

slice_methods!(List of Vec<T>);
slice_methods!(Array of Box<[T]>);
