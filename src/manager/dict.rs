//! `Dict`.

use super::lookup::Lookup;
use super::proxy::proxy_type;
use crate::entry::Look;
use crate::manager::Manager;
use crate::{Data, Result};
use std::collections::HashMap;
use std::hash::Hash;

proxy_type! {
    /// A hash map that a [`Manager`]'s server holds: Python's `Manager().dict()`, with the methods
    /// of [`HashMap`].
    ///
    /// Keys are looked up by what is borrowed from them, too ([`Lookup`]):
    /// `dict.get("key")` for a `Dict<String, _>`. What is inserted is owned, as in a `HashMap`. (A
    /// dictionary of `&str`s cannot be: the compiler says that `&str` must implement `Deserialize`.
    /// Insert `"key".to_owned()`.) What [`get`](Dict::get) returns is a copy, and changing it
    /// changes nothing in the server. Reading, changing and writing back in two calls would lose
    /// what others do between them; [`update`](Dict::update) and
    /// [`modify_or_insert`](Dict::modify_or_insert) are one call each. A value may itself be a
    /// proxy.
    ///
    /// ```
    /// use multiproc::Manager;
    /// use multiproc::manager::List;
    ///
    /// let manager = Manager::start()?;
    /// let ages = manager.dict()?;
    /// ages.insert("Ada".to_owned(), 36)?;
    /// assert_eq!(ages.update("Ada", |age, years| { *age += years; *age }, 1)?, Some(37));
    /// assert_eq!(ages.get("Bob")?, None);
    ///
    /// let lists = manager.dict::<u32, List<String>>()?; // a dictionary of lists
    /// lists.insert(1, manager.list()?)?;
    /// lists.get(&1)?.expect("it is there").push("one".to_owned())?;
    /// assert_eq!(lists.get(&1)?.expect("it is there").snapshot()?, ["one"]);
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Every method fails as [`Proxy::with_mut`](super::Proxy::with_mut) does.
    Dict [K, V] of HashMap<K, V>
}

impl Manager {
    /// Makes an empty dictionary.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn dict<K, V>(&self) -> Result<Dict<K, V>>
    where
        K: Data + Eq + Hash + Send + Sync,
        V: Data + Send + Sync,
    {
        self.hold(|()| Ok(HashMap::<K, V>::new()), ()).map(Dict)
    }

    /// Makes a dictionary of these entries.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn dict_of<K, V>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<Dict<K, V>>
    where
        K: Data + Eq + Hash + Send + Sync,
        V: Data + Send + Sync,
    {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        self.hold(|(all,): (Vec<(K, V)>,)| Ok(HashMap::from_iter(all)), (&entries,)).map(Dict)
    }
}

impl<K, V> Dict<K, V>
where
    K: Data + Eq + Hash + Send + Sync,
    V: Data + Send + Sync,
{
    /// Inserts a value, and returns the one that was there.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        let insert = |map: &mut HashMap<K, V>, (key, value): (K, V)| map.insert(key, value);
        self.0.write(insert, (&key, &value))
    }

    /// Puts a value in its place, whatever was there: as [`insert`](Dict::insert), without the old
    /// value's way back.
    pub fn set(&self, key: K, value: V) -> Result<()> {
        let set = |map: &mut HashMap<K, V>, (key, value): (K, V)| drop(map.insert(key, value));
        self.0.write(set, (&key, &value))
    }

    /// Inserts a value if there is none; whether there was none.
    pub fn insert_if_absent(&self, key: K, value: V) -> Result<bool> {
        let insert = |map: &mut HashMap<K, V>, (key, value): (K, V)| {
            let is_absent = !map.contains_key(&key);
            if is_absent {
                map.insert(key, value);
            }
            is_absent
        };
        self.0.write(insert, (&key, &value))
    }

    /// Inserts all entries at one moment.
    pub fn insert_many(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        self.0.write(|map, (all,): (Vec<(K, V)>,)| map.extend(all), (&entries,))
    }

    /// As [`insert_many`](Dict::insert_many).
    pub fn extend(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        self.insert_many(entries)
    }

    /// A copy of a value; `None` if there is none.
    pub fn get<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Result<Option<V>> {
        let show = |map: &HashMap<K, V>, (key,): (K,), look: &mut Look<'_>| {
            look.show(&map.get(&key));
        };
        key.look_up(|key| self.0.show(show, (key,)))
    }

    /// Copies of several values at one moment; `None` where there is none.
    pub fn get_many(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<V>>> {
        let keys: Vec<K> = keys.into_iter().collect();
        let show = |map: &HashMap<K, V>, (keys,): (Vec<K>,), look: &mut Look<'_>| {
            look.show(&keys.iter().map(|key| map.get(key)).collect::<Vec<_>>());
        };
        self.0.show(show, (&keys,))
    }

    /// A copy of a value, which is inserted first if there is none: Python's `setdefault`.
    pub fn get_or_insert(&self, key: K, value: V) -> Result<V>
    where
        V: Clone,
    {
        let get =
            |map: &mut HashMap<K, V>, (key, value): (K, V)| map.entry(key).or_insert(value).clone();
        self.0.write(get, (&key, &value))
    }

    /// Whether there is a value.
    pub fn contains_key<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Result<bool> {
        let contains = |map: &HashMap<K, V>, (key,): (K,)| map.contains_key(&key);
        key.look_up(|key| self.0.read(contains, (key,)))
    }

    /// Removes a value and returns it: Python's `pop`.
    pub fn remove<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Result<Option<V>> {
        let remove = |map: &mut HashMap<K, V>, (key,): (K,)| map.remove(&key);
        key.look_up(|key| self.0.write(remove, (key,)))
    }

    /// Removes several values at one moment, and returns them; `None` where there was none.
    pub fn remove_many(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<V>>> {
        let keys: Vec<K> = keys.into_iter().collect();
        let remove = |map: &mut HashMap<K, V>, (keys,): (Vec<K>,)| {
            keys.iter().map(|key| map.remove(key)).collect::<Vec<_>>()
        };
        self.0.write(remove, (&keys,))
    }

    /// Removes any one entry and returns it: Python's `popitem`.
    pub fn pop(&self) -> Result<Option<(K, V)>>
    where
        K: Clone,
    {
        let pop = |map: &mut HashMap<K, V>, ()| {
            let key = map.keys().next().cloned()?;
            map.remove_entry(&key)
        };
        self.0.write(pop, ())
    }

    /// Changes a value where it is, by a function that captures nothing, and returns what that
    /// returns; `None` if there is no value.
    pub fn update<Q: Lookup<K> + ?Sized, A: Data, R: Data>(
        &self,
        key: &Q,
        change: impl Fn(&mut V, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<Option<R>> {
        let update = move |map: &mut HashMap<K, V>, (key, argument): (K, A)| {
            map.get_mut(&key).map(|value| change(value, argument))
        };
        key.look_up(|key| self.0.write(update, (key, &argument)))
    }

    /// Changes a value where it is, by a function that captures nothing, and returns what that
    /// returns; if there is no value, `default` is inserted first.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let counts = manager.dict::<String, u64>()?;
    /// for word in ["a", "b", "a"] {
    ///     counts.modify_or_insert(word, 0, |count, ()| *count += 1, ())?;
    /// }
    /// assert_eq!(counts.get("a")?, Some(2));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn modify_or_insert<Q: Lookup<K> + ?Sized, A: Data, R: Data>(
        &self,
        key: &Q,
        default: V,
        change: impl Fn(&mut V, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        let modify = move |map: &mut HashMap<K, V>, (key, default, argument): (K, V, A)| {
            change(map.entry(key).or_insert(default), argument)
        };
        key.look_up(|key| self.0.write(modify, (key, &default, &argument)))
    }

    /// Puts `new` in the place of a value that is equal to `current`; whether there was one.
    pub fn compare_and_set<Q: Lookup<K> + ?Sized>(
        &self,
        key: &Q,
        current: &V,
        new: V,
    ) -> Result<bool>
    where
        V: PartialEq,
    {
        let exchange = |map: &mut HashMap<K, V>, (key, current, new): (K, V, V)| {
            let found = map.get_mut(&key).filter(|value| **value == current);
            found.map(|value| *value = new).is_some()
        };
        key.look_up(|key| self.0.write(exchange, (key, current, &new)))
    }

    /// Removes a value that is equal to `current`; whether there was one.
    pub fn compare_and_remove<Q: Lookup<K> + ?Sized>(&self, key: &Q, current: &V) -> Result<bool>
    where
        V: PartialEq,
    {
        let remove = |map: &mut HashMap<K, V>, (key, current): (K, V)| {
            let is_equal = map.get(&key) == Some(&current);
            is_equal && map.remove(&key).is_some()
        };
        key.look_up(|key| self.0.write(remove, (key, current)))
    }

    /// Keeps the entries for which a function that captures nothing says so, and removes the
    /// others; how many were removed.
    pub fn retain<A: Data>(
        &self,
        keep: impl Fn(&K, &mut V, &A) -> bool + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<usize> {
        let retain = move |map: &mut HashMap<K, V>, (argument,): (A,)| {
            let before = map.len();
            map.retain(|key, value| keep(key, value, &argument));
            before - map.len()
        };
        self.0.write(retain, (&argument,))
    }

    /// The number of entries.
    pub fn len(&self) -> Result<usize> {
        self.0.read(|map: &HashMap<K, V>, ()| map.len(), ())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> Result<bool> {
        self.0.read(|map: &HashMap<K, V>, ()| map.is_empty(), ())
    }

    /// Removes all entries.
    pub fn clear(&self) -> Result<()> {
        self.0.write(|map: &mut HashMap<K, V>, ()| map.clear(), ())
    }

    /// Copies of all keys, in no order.
    pub fn keys(&self) -> Result<Vec<K>> {
        let show = |map: &HashMap<K, V>, (), look: &mut Look<'_>| {
            look.show(&(map.keys().collect::<Vec<_>>(),));
        };
        self.0.show(show, ()).map(|(keys,)| keys)
    }

    /// Copies of all values, in no order.
    pub fn values(&self) -> Result<Vec<V>> {
        let show = |map: &HashMap<K, V>, (), look: &mut Look<'_>| {
            look.show(&(map.values().collect::<Vec<_>>(),));
        };
        self.0.show(show, ()).map(|(values,)| values)
    }

    /// Copies of all entries, in no order.
    pub fn items(&self) -> Result<Vec<(K, V)>> {
        let show = |map: &HashMap<K, V>, (), look: &mut Look<'_>| {
            look.show(&map.iter().collect::<Vec<_>>());
        };
        self.0.show(show, ())
    }

    /// A copy of the whole dictionary, at one moment.
    pub fn snapshot(&self) -> Result<HashMap<K, V>> {
        self.items().map(HashMap::from_iter)
    }

    /// An iterator over [`items`](Dict::items), as they are now.
    pub fn iter(&self) -> Result<std::vec::IntoIter<(K, V)>> {
        self.items().map(Vec::into_iter)
    }

    /// Removes all entries and returns them.
    pub fn take(&self) -> Result<HashMap<K, V>> {
        let take = |map: &mut HashMap<K, V>, ()| map.drain().collect::<Vec<(K, V)>>();
        self.0.write(take, ()).map(HashMap::from_iter)
    }

    /// Calls a function that captures nothing on the map; nobody else sees it meanwhile.
    ///
    /// ```
    /// let manager = multiproc::Manager::start()?;
    /// let accounts = manager.dict_of([("a".to_owned(), 5), ("b".to_owned(), 0)])?;
    /// accounts.with_mut(
    ///     |accounts, amount: i64| {
    ///         *accounts.get_mut("a").unwrap() -= amount;
    ///         *accounts.get_mut("b").unwrap() += amount;
    ///     },
    ///     3,
    /// )?;
    /// assert_eq!(accounts.get("b")?, Some(3));
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    pub fn with_mut<A: Data, R: Data>(
        &self,
        function: impl Fn(&mut HashMap<K, V>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with_mut(function, argument)
    }

    /// Calls a function that captures nothing and looks at the map.
    pub fn with<A: Data, R: Data>(
        &self,
        function: impl Fn(&HashMap<K, V>, A) -> R + Copy + Send + Sync + 'static,
        argument: A,
    ) -> Result<R> {
        self.0.with(function, argument)
    }
}
