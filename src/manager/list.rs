//! `List`.

use super::lookup::Lookup;
use super::proxy::proxy_type;
use super::slice::out_of_range;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};
use std::cmp::Ordering;
use std::ops::Range;

proxy_type! {
    /// A vector that a [`Manager`]'s server holds: Python's `Manager().list()`, with the methods of
    /// [`Vec`].
    ///
    /// Items travel by value: what [`get`](List::get) returns is a copy, and changing it changes
    /// nothing in the server. To change an item where it is, use [`update`](List::update), which is
    /// one call that nobody comes between; an item may itself be a proxy.
    ///
    /// ```
    /// use multiproc::Manager;
    ///
    /// let manager = Manager::start()?;
    /// let list = manager.list()?;
    /// list.extend([3, 1, 2])?;
    /// list.sort()?;
    /// list.update(0, |item, by| *item += by, 10)?;
    /// assert_eq!(list.snapshot()?, [11, 2, 3]);
    /// assert_eq!(list.get(7)?, None);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does; beyond that, as it
    /// says.
    List [T] of Vec<T>
}

impl Manager {
    /// Makes an empty list.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn list<T: Data + Send + Sync>(&self) -> Result<List<T>> {
        self.hold(|()| Ok(Vec::<T>::new()), ()).map(List)
    }

    /// Makes a list of these items.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn list_of<T: Data + Send + Sync>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<List<T>> {
        let items: Vec<T> = items.into_iter().collect();
        self.hold(|(items,): (Vec<T>,)| Ok(items), (&items,)).map(List)
    }
}

impl<T: Data + Send + Sync> List<T> {
    /// Appends an item.
    pub fn push(&self, item: T) -> Result<()> {
        self.0.write(|list, (item,): (T,)| list.push(item), (&item,))
    }

    /// Removes the last item and returns it; `None` if there is none.
    pub fn pop(&self) -> Result<Option<T>> {
        self.0.write(|list, ()| list.pop(), ())
    }

    /// Appends all items, with nobody's in between.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
        let items: Vec<T> = items.into_iter().collect();
        self.0.write(|list, (items,): (Vec<T>,)| list.extend(items), (&items,))
    }

    /// A copy of the first item.
    pub fn first(&self) -> Result<Option<T>> {
        self.0.show(|list: &Vec<T>, (), look: &mut Look<'_>| look.show(&list.first()), ())
    }

    /// A copy of the last item.
    pub fn last(&self) -> Result<Option<T>> {
        self.0.show(|list: &Vec<T>, (), look: &mut Look<'_>| look.show(&list.last()), ())
    }

    /// Replaces several items at one moment: all, or none if one of the indices is out of range.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if one is.
    pub fn set_many(&self, items: impl IntoIterator<Item = (usize, T)>) -> Result<()> {
        let items: Vec<(usize, T)> = items.into_iter().collect();
        let set = |list: &mut Vec<T>, (items,): (Vec<(usize, T)>,)| {
            if let Some((at, _)) = items.iter().find(|(at, _)| *at >= list.len()) {
                return Err(out_of_range(*at, list.len()));
            }
            for (at, item) in items {
                list[at] = item;
            }
            Ok(())
        };
        self.0.write(set, (&items,))?
    }

    /// Inserts an item before the one at `index`, or at the end.
    ///
    /// # Errors
    /// [`is_invalid_input`](crate::Error::is_invalid_input) if the list is shorter than `index`.
    pub fn insert(&self, index: usize, item: T) -> Result<()> {
        let insert = |list: &mut Vec<T>, (at, item): (usize, T)| match at <= list.len() {
            true => {
                list.insert(at, item);
                Ok(())
            }
            false => Err(out_of_range(at, list.len())),
        };
        self.0.write(insert, (&index, &item))?
    }

    /// Removes the item at `index` and returns it; `None` if there is none.
    pub fn remove(&self, index: usize) -> Result<Option<T>> {
        let remove =
            |list: &mut Vec<T>, (at,): (usize,)| (at < list.len()).then(|| list.remove(at));
        self.0.write(remove, (&index,))
    }

    /// Removes the item at `index` by putting the last one in its place; `None` if there is none.
    pub fn swap_remove(&self, index: usize) -> Result<Option<T>> {
        let remove =
            |list: &mut Vec<T>, (at,): (usize,)| (at < list.len()).then(|| list.swap_remove(at));
        self.0.write(remove, (&index,))
    }

    /// Removes the items in a range and returns them; `None`, and nothing is removed, if it is not
    /// a part of the list.
    pub fn drain(&self, range: Range<usize>) -> Result<Option<Vec<T>>> {
        let drain = |list: &mut Vec<T>, (start, end): (usize, usize)| {
            list.get(start..end)?;
            Some(list.drain(start..end).collect::<Vec<T>>())
        };
        self.0.write(drain, (&range.start, &range.end))
    }

    /// Keeps the items for which a function that captures nothing says so, and removes the others;
    /// how many were removed.
    pub fn retain<A: Data>(
        &self,
        keep: impl Fn(&T, &A) -> bool + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<usize> {
        let retain = move |list: &mut Vec<T>, (argument,): (A,)| {
            let before = list.len();
            list.retain(|item| keep(item, &argument));
            before - list.len()
        };
        self.0.write(retain, (&argument,))
    }

    /// Removes the first item that is equal to this one; whether there was one.
    pub fn remove_item<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<bool>
    where
        T: PartialEq,
    {
        let remove = |list: &mut Vec<T>, (item,): (T,)| {
            let found = list.iter().position(|known| *known == item);
            found.map(|at| list.remove(at)).is_some()
        };
        item.look_up(|item| self.0.write(remove, (item,)))
    }

    /// Whether an item is equal to this one.
    pub fn contains<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<bool>
    where
        T: PartialEq,
    {
        let contains = |list: &Vec<T>, (item,): (T,)| list.contains(&item);
        item.look_up(|item| self.0.read(contains, (item,)))
    }

    /// Where the first item is that is equal to this one.
    pub fn position<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<Option<usize>>
    where
        T: PartialEq,
    {
        let position = |list: &Vec<T>, (item,): (T,)| list.iter().position(|known| *known == item);
        item.look_up(|item| self.0.read(position, (item,)))
    }

    /// How many items are equal to this one.
    pub fn count<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<usize>
    where
        T: PartialEq,
    {
        let count =
            |list: &Vec<T>, (item,): (T,)| list.iter().filter(|known| **known == item).count();
        item.look_up(|item| self.0.read(count, (item,)))
    }

    /// Removes all items.
    pub fn clear(&self) -> Result<()> {
        self.0.write(|list: &mut Vec<T>, ()| list.clear(), ())
    }

    /// Removes all items after the first `len`.
    pub fn truncate(&self, len: usize) -> Result<()> {
        self.0.write(|list: &mut Vec<T>, (len,): (usize,)| list.truncate(len), (&len,))
    }

    /// Sorts the items; equal ones keep their order.
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        self.0.write(|list: &mut Vec<T>, ()| list.sort(), ())
    }

    /// Sorts the items by a function that captures nothing; equal ones keep their order.
    pub fn sort_by(
        &self,
        compare: impl Fn(&T, &T) -> Ordering + Copy + Send + Sync + 'static,
    ) -> Result<()> {
        self.0.write(move |list: &mut Vec<T>, ()| list.sort_by(compare), ())
    }

    /// Removes items that are equal to the one before.
    pub fn dedup(&self) -> Result<()>
    where
        T: PartialEq,
    {
        self.0.write(|list: &mut Vec<T>, ()| list.dedup(), ())
    }

    /// Turns the order around.
    pub fn reverse(&self) -> Result<()> {
        self.0.write(|list: &mut Vec<T>, ()| list.reverse(), ())
    }

    /// Copies of all items, at one moment.
    pub fn snapshot(&self) -> Result<Vec<T>> {
        self.0.show(|list: &Vec<T>, (), look: &mut Look<'_>| look.value(list), ())
    }

    /// Removes all items and returns them.
    pub fn take(&self) -> Result<Vec<T>> {
        self.0.write(|list: &mut Vec<T>, ()| std::mem::take(list), ())
    }

    /// Replaces all items at one moment.
    pub fn assign(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
        let items: Vec<T> = items.into_iter().collect();
        self.0.write(|list: &mut Vec<T>, (items,): (Vec<T>,)| *list = items, (&items,))
    }

    /// Calls a function that captures nothing on the list; nobody else sees it meanwhile.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let list = manager.list_of([1u64, 2, 3])?;
    /// let sum = list.with_mut(|list, next| { list.push(next); list.iter().sum::<u64>() }, 4)?;
    /// assert_eq!(sum, 10);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn with_mut<A: Data, R: Data>(
        &self,
        function: impl Fn(&mut Vec<T>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with_mut(function, argument)
    }

    /// Calls a function that captures nothing and looks at the list.
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&Vec<T>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with(function, argument)
    }
}
