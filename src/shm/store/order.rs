//! The items of a store in the order in which they are to be taken: a treap.
//!
//! A binary search tree by the order of the items, and a heap by their *ranks*, which are
//! numbers as good as random, made from the items' numbers; so it is as deep as a tree into which
//! the items were put in a random order, whatever the real one. Two things make it the tree for
//! this place:
//! the first item is taken without comparing any, and an insertion changes the words of one path
//! only, so that it fits into a journal.
//!
//! Comparisons run the user's code, which must not run under the lock. So the tree asks for what
//! it does not know: [`insert`] goes down as far as the answers lead, and says with which item to
//! compare next. The caller gives the lock back, compares, and tries again from the root with one
//! answer more. What others change meanwhile does no harm: the answers are about pairs of items,
//! which do not change, and the path is another one each time.
//!
//! A stack is the same without comparisons: each new item goes before all others.

use super::blocks::Place;
use super::journal::{Change, Space, damaged};
use std::cmp::Ordering;
use std::io;

/// The number of the item, which no other one of the store has.
pub(super) const NUMBER: u64 = 0;
/// How many bytes it has.
pub(super) const LEN: u64 = 8;
/// The items before it, in its part of the tree.
const BEFORE: u64 = 16;
/// The items after it.
const AFTER: u64 = 24;
/// One more than the number of its locker, or 0 if it has none.
pub(super) const LOCKER: u64 = 32;
/// Where the words of an item end, in the body of its block.
pub(super) const WORDS: u64 = 40;

/// Deeper than any tree of random ranks with fewer items than there are bytes of memory.
const DEEPEST: usize = 256;

/// Where a new item goes.
#[derive(Debug)]
pub(crate) enum Spot {
    /// The items that it is compared with on the way: each with the word that names it, and
    /// whether the new item goes after it.
    Path(Vec<(Place, bool)>),
    /// It must be compared with this item first.
    Unknown(Place),
}

/// A number as good as random for each number (the last steps of SplitMix64).
fn rank(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Finds where a new item goes, if it compares to others, by their numbers, as `known` says. What
/// is equal is before it.
pub(crate) fn find<S: Space>(
    change: &Change<'_, S>,
    root: u64,
    known: impl Fn(u64) -> Option<Ordering>,
) -> io::Result<Spot> {
    let (mut path, mut link) = (Vec::new(), root);
    while let Some(place) = Place::of(change.get(link)?)? {
        if path.len() >= DEEPEST {
            return Err(damaged());
        }
        let Some(order) = known(change.get(place.body(NUMBER))?) else {
            return Ok(Spot::Unknown(place));
        };
        let after = order != Ordering::Less;
        path.push((place, after));
        link = place.body(if after { AFTER } else { BEFORE });
    }
    Ok(Spot::Path(path))
}

/// Puts an item, whose number is written already, where the path leads.
pub(crate) fn insert<S: Space>(
    change: &mut Change<'_, S>,
    root: u64,
    path: &[(Place, bool)],
    new: Place,
) -> io::Result<()> {
    let mine = rank(change.get(new.body(NUMBER))?);
    let mut link = root;
    let mut path = path.iter().copied().peekable();
    while let Some(&(place, after)) = path.peek() {
        if rank(change.get(place.body(NUMBER))?) < mine {
            break;
        }
        link = place.body(if after { AFTER } else { BEFORE });
        path.next();
    }
    // It takes the place of what is there, which is split into what is before and after it.
    let (mut before, mut after) = (new.body(BEFORE), new.body(AFTER));
    for (place, is_after) in path {
        let side = if is_after { &mut before } else { &mut after };
        change.set(*side, place.word())?;
        *side = place.body(if is_after { AFTER } else { BEFORE });
    }
    change.set(before, 0)?;
    change.set(after, 0)?;
    change.set(link, new.word())
}

/// Puts an item before all others.
pub(crate) fn push<S: Space>(change: &mut Change<'_, S>, root: u64, new: Place) -> io::Result<()> {
    let rest = change.get(root)?;
    change.set(new.body(BEFORE), 0)?;
    change.set(new.body(AFTER), rest)?;
    change.set(root, new.word())
}

/// The word that names the first item, and the item; `None` if there is none.
pub(crate) fn first<S: Space>(
    change: &Change<'_, S>,
    root: u64,
) -> io::Result<Option<(u64, Place)>> {
    let Some(mut first) = Place::of(change.get(root)?)? else {
        return Ok(None);
    };
    let mut link = root;
    for _ in 0..DEEPEST {
        match Place::of(change.get(first.body(BEFORE))?)? {
            None => return Ok(Some((link, first))),
            Some(before) => (link, first) = (first.body(BEFORE), before),
        }
    }
    Err(damaged())
}

/// Takes the first item out, as [`first`] found it.
pub(crate) fn unlink<S: Space>(
    change: &mut Change<'_, S>,
    (link, first): (u64, Place),
) -> io::Result<()> {
    let rest = change.get(first.body(AFTER))?;
    change.set(link, rest)
}

#[cfg(test)]
mod tests {
    use super::super::journal::model::Mortal;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const JOURNAL_AT: u64 = 1 << 50;
    const ROOT: u64 = 8;

    /// The block of the item with this number.
    fn place(number: u64) -> Place {
        Place::of(((1 << 14) + 64 * number) | 6).expect("a place").expect("one")
    }

    /// A store of numbers, and the value of each item.
    #[derive(Default)]
    struct Model {
        space: Mortal,
        values: BTreeMap<u64, u8>,
    }

    impl Model {
        fn known(&self, value: u8) -> impl Fn(u64) -> Option<Ordering> {
            let values = self.values.clone();
            move |number| Some(value.cmp(&values[&number]))
        }

        fn insert(&self, number: u64, value: u8) {
            let mut change = Change::begin(&self.space, JOURNAL_AT).expect("begin");
            let found = find(&change, ROOT, self.known(value)).expect("find");
            let Spot::Path(path) = found else { panic!("all are known") };
            change.set(place(number).body(NUMBER), number).expect("set");
            insert(&mut change, ROOT, &path, place(number)).expect("insert");
            change.keep().expect("keep");
        }

        fn take(&self) -> Option<u64> {
            let mut change = Change::begin(&self.space, JOURNAL_AT).expect("begin");
            let found = first(&change, ROOT).expect("first")?;
            unlink(&mut change, found).expect("unlink");
            let number = change.get(found.1.body(NUMBER)).expect("get");
            change.keep().expect("keep");
            Some(number)
        }

        fn rest(&self) -> Vec<u64> {
            std::iter::from_fn(|| self.take()).collect()
        }
    }

    proptest! {
        #[test]
        fn the_smallest_comes_first_and_of_equal_ones_the_eldest(
            steps in prop::collection::vec(prop::option::weighted(0.7, 0..20_u8), 0..300),
        ) {
            let mut model = Model::default();
            let mut expected = BTreeMap::new();
            for (number, step) in (1..).zip(steps) {
                match step {
                    Some(value) => {
                        model.values.insert(number, value);
                        model.insert(number, value);
                        expected.insert((value, number), ());
                    }
                    None => {
                        let first = expected.pop_first().map(|((_, number), ())| number);
                        prop_assert_eq!(model.take(), first);
                    }
                }
            }
            let rest: Vec<u64> = expected.into_keys().map(|(_, number)| number).collect();
            prop_assert_eq!(model.rest(), rest);
        }
    }

    #[test]
    fn the_tree_is_not_deep_in_whatever_order_items_come() {
        for descending in [false, true] {
            let mut model = Model::default();
            for number in 1..=5000 {
                let value = if descending { 0 } else { 1 };
                model.values.insert(number, value);
                let mut change = Change::begin(&model.space, JOURNAL_AT).expect("begin");
                let order = if descending { Ordering::Less } else { Ordering::Greater };
                let found = find(&change, ROOT, |_| Some(order)).expect("find");
                let Spot::Path(path) = found else { panic!("all are known") };
                assert!(path.len() < 64, "{}", path.len());
                change.set(place(number).body(NUMBER), number).expect("set");
                insert(&mut change, ROOT, &path, place(number)).expect("insert");
                change.keep().expect("keep");
            }
        }
    }

    #[test]
    fn an_insertion_that_is_killed_at_any_store_is_made_or_not() {
        let values = [50, 20, 80, 10, 30, 70, 90, 60, 40];
        for life in 0.. {
            let mut model = Model::default();
            for (number, value) in (1..).zip(values) {
                model.values.insert(number, value);
                model.insert(number, value);
            }
            model.values.insert(10, 55);
            let through = model.space.live_for(life, || model.insert(10, 55));
            let rest = model.rest();
            let with_it = rest == [4, 2, 5, 9, 1, 10, 8, 6, 3, 7];
            assert!(with_it || rest == [4, 2, 5, 9, 1, 8, 6, 3, 7], "{rest:?}");
            assert!(with_it || !through);
            if through {
                break;
            }
        }
    }

    #[test]
    fn an_item_that_nothing_is_known_of_is_asked_for() {
        let mut model = Model::default();
        model.values.insert(1, 5);
        model.insert(1, 5);
        let change = Change::begin(&model.space, JOURNAL_AT).expect("begin");
        let found = find(&change, ROOT, |_| None).expect("find");
        assert!(matches!(found, Spot::Unknown(unknown) if unknown == place(1)));
    }

    #[test]
    fn a_circle_is_an_error() {
        let model = Model::default();
        let own = place(1);
        model.space.set(ROOT, own.word()).expect("set");
        model.space.set(own.body(BEFORE), own.word()).expect("set");
        let change = Change::begin(&model.space, JOURNAL_AT).expect("begin");
        assert!(first(&change, ROOT).is_err());
        assert!(find(&change, ROOT, |_| Some(Ordering::Less)).is_err());
    }
}
