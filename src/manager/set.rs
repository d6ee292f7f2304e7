//! `Set`.

use super::lookup::Lookup;
use super::proxy::proxy_type;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};
use std::collections::HashSet;
use std::hash::Hash;

proxy_type! {
    /// A hash set that a [`Manager`]'s server holds, with the methods of [`HashSet`].
    ///
    /// Items are looked up by what is borrowed from them, too ([`Lookup`]):
    /// `set.contains("item")` for a `Set<String>`. What is inserted is owned, as in a `HashSet`.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let seen = manager.set()?;
    /// assert!(seen.insert("page".to_owned())?); // one process alone gets `true`
    /// assert!(!seen.insert("page".to_owned())?);
    /// assert!(seen.contains("page")?);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does.
    Set [T] of HashSet<T>
}

impl Manager {
    /// Makes an empty set.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn set<T: Data + Eq + Hash + Send + Sync>(&self) -> Result<Set<T>> {
        self.hold(|()| Ok(HashSet::<T>::new()), ()).map(Set)
    }

    /// Makes a set of these items.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn set_of<T: Data + Eq + Hash + Send + Sync>(
        &self,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Set<T>> {
        let items: Vec<T> = items.into_iter().collect();
        self.hold(|(items,): (Vec<T>,)| Ok(HashSet::from_iter(items)), (&items,)).map(Set)
    }
}

impl<T: Data + Eq + Hash + Send + Sync> Set<T> {
    /// Inserts an item; whether it was not there.
    pub fn insert(&self, item: T) -> Result<bool> {
        self.0.write(|set: &mut HashSet<T>, (item,): (T,)| set.insert(item), (&item,))
    }

    /// Inserts all items at one moment; how many were not there.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<usize> {
        let items: Vec<T> = items.into_iter().collect();
        let extend = |set: &mut HashSet<T>, (items,): (Vec<T>,)| {
            let before = set.len();
            set.extend(items);
            set.len() - before
        };
        self.0.write(extend, (&items,))
    }

    /// Removes an item; whether it was there.
    pub fn remove<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<bool> {
        let remove = |set: &mut HashSet<T>, (item,): (T,)| set.remove(&item);
        item.look_up(|item| self.0.write(remove, (item,)))
    }

    /// Removes all of these items at one moment; how many were there.
    pub fn remove_many(&self, items: impl IntoIterator<Item = T>) -> Result<usize> {
        let items: Vec<T> = items.into_iter().collect();
        let remove = |set: &mut HashSet<T>, (items,): (Vec<T>,)| {
            items.iter().filter(|item| set.remove(*item)).count()
        };
        self.0.write(remove, (&items,))
    }

    /// Removes any one item and returns it.
    pub fn pop(&self) -> Result<Option<T>>
    where
        T: Clone,
    {
        let pop = |set: &mut HashSet<T>, ()| {
            let item = set.iter().next().cloned()?;
            set.take(&item)
        };
        self.0.write(pop, ())
    }

    /// Whether an item is there.
    pub fn contains<Q: Lookup<T> + ?Sized>(&self, item: &Q) -> Result<bool> {
        let contains = |set: &HashSet<T>, (item,): (T,)| set.contains(&item);
        item.look_up(|item| self.0.read(contains, (item,)))
    }

    /// Which of these items are there, at one moment.
    pub fn contains_many(&self, items: impl IntoIterator<Item = T>) -> Result<Vec<bool>> {
        let items: Vec<T> = items.into_iter().collect();
        let contains = |set: &HashSet<T>, (items,): (Vec<T>,)| {
            items.iter().map(|item| set.contains(item)).collect::<Vec<_>>()
        };
        self.0.read(contains, (&items,))
    }

    /// The items that are there and among these.
    pub fn intersection(&self, items: impl IntoIterator<Item = T>) -> Result<HashSet<T>>
    where
        T: Clone,
    {
        let items: Vec<T> = items.into_iter().collect();
        let there = self.contains_many(items.iter().cloned())?;
        Ok(items.into_iter().zip(there).filter_map(|(item, is)| is.then_some(item)).collect())
    }

    /// The items that are there and not among these.
    pub fn difference(&self, items: impl IntoIterator<Item = T>) -> Result<HashSet<T>> {
        let items: HashSet<T> = items.into_iter().collect();
        let mut all = self.snapshot()?;
        all.retain(|item| !items.contains(item));
        Ok(all)
    }

    /// The items that are there or among these.
    pub fn union(&self, items: impl IntoIterator<Item = T>) -> Result<HashSet<T>> {
        let mut all = self.snapshot()?;
        all.extend(items);
        Ok(all)
    }

    /// Whether all of these items are there, at one moment.
    pub fn contains_all(&self, items: impl IntoIterator<Item = T>) -> Result<bool> {
        self.contains_many(items).map(|there| there.into_iter().all(|is| is))
    }

    /// Keeps the items for which a function that captures nothing says so, and removes the others;
    /// how many were removed.
    pub fn retain<A: Data>(
        &self,
        keep: impl Fn(&T, &A) -> bool + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<usize> {
        let retain = move |set: &mut HashSet<T>, (argument,): (A,)| {
            let before = set.len();
            set.retain(|item| keep(item, &argument));
            before - set.len()
        };
        self.0.write(retain, (&argument,))
    }

    /// The number of items.
    pub fn len(&self) -> Result<usize> {
        self.0.read(|set: &HashSet<T>, ()| set.len(), ())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        self.0.read(|set: &HashSet<T>, ()| set.is_empty(), ())
    }

    /// Removes all items.
    pub fn clear(&self) -> Result<()> {
        self.0.write(|set: &mut HashSet<T>, ()| set.clear(), ())
    }

    /// Copies of all items, at one moment.
    pub fn snapshot(&self) -> Result<HashSet<T>> {
        self.items().map(HashSet::from_iter)
    }

    /// An iterator over copies of all items, in no order.
    pub fn iter(&self) -> Result<std::vec::IntoIter<T>> {
        self.items().map(Vec::into_iter)
    }

    fn items(&self) -> Result<Vec<T>> {
        let show = |set: &HashSet<T>, (), look: &mut Look<'_>| {
            look.show(&(set.iter().collect::<Vec<_>>(),));
        };
        self.0.show(show, ()).map(|(items,)| items)
    }

    /// Removes all items and returns them.
    pub fn take(&self) -> Result<HashSet<T>> {
        let take = |set: &mut HashSet<T>, ()| set.drain().collect::<Vec<T>>();
        self.0.write(take, ()).map(HashSet::from_iter)
    }

    /// Calls a function that captures nothing on the set; nobody else sees it meanwhile.
    pub fn with_mut<A: Data, R: Data>(
        &self,
        function: impl Fn(&mut HashSet<T>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with_mut(function, argument)
    }

    /// Calls a function that captures nothing and looks at the set.
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&HashSet<T>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with(function, argument)
    }
}
