//! Lists, dictionaries, sets, values, arrays and namespaces of a manager, across processes.

mod common;

use common::sync::{finish, finish_all, start};
use common::watchdog;
use multiproc::Manager;
use multiproc::manager::{Array, Dict, List, Namespace, Set, Value};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

fn manager() -> Manager {
    watchdog();
    Manager::start().expect("a manager")
}

#[test]
fn what_processes_put_into_a_list_others_find_in_the_order_of_each() {
    let manager = manager();
    let list = manager.list::<String>().unwrap();
    let push = |list: List<String>, who: u32| {
        for number in 0..50 {
            list.push(format!("{who}:{number}")).expect("the server lives");
        }
    };
    finish_all([0, 1, 2].map(|who| start(push, (list.clone(), who))));
    assert_eq!(list.len().unwrap(), 150);
    for who in 0..3 {
        let own = format!("{who}:");
        let items = list.iter().unwrap().filter(|item| item.starts_with(&own));
        let numbers: Vec<String> = items.map(|item| item[own.len()..].to_owned()).collect();
        assert_eq!(numbers, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_proxy_that_comes_back_is_equal_to_the_one_that_went() {
    let manager = manager();
    let list = manager.list_of([1u64]).unwrap();
    let back = finish(start(|list: List<u64>| list, (list.clone(),)));
    assert_eq!(back, list);
    assert_ne!(back, manager.list().unwrap());
}

#[test]
fn a_list_has_the_methods_of_a_vector() {
    let manager = manager();
    let list = manager.list_of([5u64, 1, 4]).unwrap();
    finish(start(
        |list: List<u64>| {
            list.push(9).unwrap();
            list.extend([2, 2]).unwrap();
            list.insert(0, 7).unwrap();
        },
        (list.clone(),),
    ));
    assert_eq!(list.snapshot().unwrap(), [7, 5, 1, 4, 9, 2, 2]);
    assert_eq!((list.first().unwrap(), list.last().unwrap()), (Some(7), Some(2)));
    assert_eq!((list.get(1).unwrap(), list.get(7).unwrap()), (Some(5), None));
    assert_eq!(list.get_many([0, 9, 2]).unwrap(), [Some(7), None, Some(1)]);
    assert_eq!(list.slice(1..3).unwrap(), Some(vec![5, 1]));
    assert_eq!(list.slice(6..8).unwrap(), None);
    assert_eq!((list.contains(&4).unwrap(), list.contains(&8).unwrap()), (true, false));
    assert_eq!((list.position(&9).unwrap(), list.position(&8).unwrap()), (Some(4), None));
    assert_eq!(list.count(&2).unwrap(), 2);
    list.dedup().unwrap();
    list.set(0, 70).unwrap();
    assert_eq!(list.replace(1, 50).unwrap(), 5);
    list.set_many([(2, 10), (3, 40)]).unwrap();
    list.swap(0, 5).unwrap();
    assert_eq!(list.snapshot().unwrap(), [2, 50, 10, 40, 9, 70]);
    list.sort().unwrap();
    list.reverse().unwrap();
    assert_eq!(list.snapshot().unwrap(), [70, 50, 40, 10, 9, 2]);
    list.sort_by(|a, b| a.cmp(b)).unwrap();
    assert_eq!(list.pop().unwrap(), Some(70));
    assert_eq!((list.remove(0).unwrap(), list.remove(9).unwrap()), (Some(2), None));
    assert_eq!(list.swap_remove(0).unwrap(), Some(9));
    assert!(list.remove_item(&40).unwrap() && !list.remove_item(&40).unwrap());
    assert_eq!(list.snapshot().unwrap(), [50, 10]);
    assert_eq!((list.drain(0..1).unwrap(), list.drain(1..3).unwrap()), (Some(vec![50]), None));
    list.assign(0..10).unwrap();
    assert_eq!(list.retain(|item, by| item % by == 0, 3).unwrap(), 6);
    list.truncate(3).unwrap();
    assert_eq!(list.take().unwrap(), [0, 3, 6]);
    assert!(list.is_empty().unwrap());
    list.push(1).unwrap();
    list.clear().unwrap();
    assert_eq!((list.pop().unwrap(), list.len().unwrap()), (None, 0));
}

#[test]
fn an_index_out_of_range_is_an_error_and_changes_nothing() {
    let manager = manager();
    let list = manager.list_of([1u64]).unwrap();
    assert!(list.set(1, 2).unwrap_err().is_invalid_input());
    assert!(list.insert(2, 2).unwrap_err().is_invalid_input());
    assert!(list.swap(0, 1).unwrap_err().is_invalid_input());
    assert!(list.set_many([(0, 5), (1, 5)]).unwrap_err().is_invalid_input());
    assert!(list.compare_and_set(4, &1, 2).unwrap_err().is_invalid_input());
    assert_eq!(list.snapshot().unwrap(), [1]);
    let error = list.set(usize::MAX, 2).unwrap_err();
    assert!(error.to_string().contains(&usize::MAX.to_string()), "{error}");
}

#[test]
fn a_change_in_the_server_is_one_call_that_nobody_comes_between() {
    let manager = manager();
    let (list, dict) = (manager.list_of([0u64]).unwrap(), manager.dict().unwrap());
    let count = |list: List<u64>, dict: Dict<String, u64>| {
        for _ in 0..200 {
            list.update(0, |item, by| *item += by, 1).unwrap();
            dict.modify_or_insert("count", 0, |count, ()| *count += 1, ()).unwrap();
        }
    };
    finish_all([0; 3].map(|_| start(count, (list.clone(), dict.clone()))));
    assert_eq!(list.get(0).unwrap(), Some(600));
    assert_eq!(dict.get("count").unwrap(), Some(600));
}

#[test]
fn of_processes_that_compare_and_set_one_succeeds() {
    let manager = manager();
    let value = manager.value(0u32).unwrap();
    let claim = |value: Value<u32>, me: u32| value.compare_and_set(&0, me).unwrap();
    let claimed = finish_all([1, 2, 3].map(|me| start(claim, (value.clone(), me))));
    assert_eq!(claimed.iter().filter(|&&claimed| claimed).count(), 1);
    let winner = claimed.iter().position(|&claimed| claimed).unwrap() as u32 + 1;
    assert_eq!(value.get().unwrap(), winner);
}

#[test]
fn a_dictionary_has_the_methods_of_a_map() {
    let manager = manager();
    let dict = manager.dict_of([("a".to_owned(), 1u64)]).unwrap();
    finish(start(
        |dict: Dict<String, u64>| {
            assert_eq!(dict.insert("b".to_owned(), 2).unwrap(), None);
            assert_eq!(dict.insert("b".to_owned(), 3).unwrap(), Some(2));
            dict.set("c".to_owned(), 4).unwrap();
        },
        (dict.clone(),),
    ));
    assert_eq!((dict.get("b").unwrap(), dict.get("x").unwrap()), (Some(3), None));
    assert!(dict.contains_key("c").unwrap() && !dict.contains_key("x").unwrap());
    assert!(dict.insert_if_absent("d".to_owned(), 5).unwrap());
    assert!(!dict.insert_if_absent("d".to_owned(), 6).unwrap());
    assert_eq!(dict.get_or_insert("d".to_owned(), 7).unwrap(), 5);
    dict.insert_many([("e".to_owned(), 8), ("f".to_owned(), 9)]).unwrap();
    let many = ["e", "x", "f"].map(str::to_owned);
    assert_eq!(dict.get_many(many.clone()).unwrap(), [Some(8), None, Some(9)]);
    assert_eq!(dict.remove_many(many).unwrap(), [Some(8), None, Some(9)]);
    assert!(dict.compare_and_set("d", &5, 50).unwrap());
    assert!(
        !dict.compare_and_set("d", &5, 51).unwrap() && !dict.compare_and_set("x", &5, 1).unwrap()
    );
    assert!(
        !dict.compare_and_remove("d", &5).unwrap() && dict.compare_and_remove("d", &50).unwrap()
    );
    assert_eq!(
        dict.update(
            "a",
            |value, by| {
                *value *= by;
                *value
            },
            10
        )
        .unwrap(),
        Some(10)
    );
    assert_eq!(dict.update("x", |value, by| *value *= by, 10).unwrap(), None);
    let expected: HashMap<String, u64> =
        [("a", 10), ("b", 3), ("c", 4)].map(|(k, v)| (k.to_owned(), v)).into();
    assert_eq!(dict.snapshot().unwrap(), expected);
    let (mut keys, mut values) = (dict.keys().unwrap(), dict.values().unwrap());
    keys.sort();
    values.sort();
    assert_eq!(
        (keys, values),
        (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec![3, 4, 10])
    );
    assert_eq!(dict.iter().unwrap().count(), 3);
    assert_eq!(dict.retain(|_, value, least| *value > *least, 3).unwrap(), 1);
    assert_eq!(dict.remove("c").unwrap(), Some(4));
    assert_eq!(dict.pop().unwrap(), Some(("a".to_owned(), 10)));
    assert_eq!((dict.pop().unwrap(), dict.len().unwrap()), (None, 0));
    dict.extend([("z".to_owned(), 1)]).unwrap();
    assert_eq!(dict.with(|map, ()| map.len(), ()).unwrap(), 1);
    assert_eq!(dict.take().unwrap().len(), 1);
    assert!(dict.is_empty().unwrap());
    dict.clear().unwrap();
}

#[test]
fn keys_of_numbers_are_found_too() {
    let manager = manager();
    let dict = manager.dict::<u64, Vec<u64>>().unwrap();
    dict.insert(7, vec![1, 2]).unwrap();
    assert_eq!(dict.get(&7).unwrap(), Some(vec![1, 2]));
    assert_eq!((dict.keys().unwrap(), dict.values().unwrap()), (vec![7], vec![vec![1, 2]]));
    let set = manager.set_of([3u64, 4]).unwrap();
    assert_eq!(set.snapshot().unwrap(), HashSet::from([3, 4]));
}

/// A key that cannot be cloned.
#[derive(Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Unique(u32);

#[test]
fn what_is_borrowed_from_a_key_finds_it() {
    let manager = manager();
    let look = |words: Dict<String, u32>, sums: Dict<Vec<u8>, u32>, paths: Set<PathBuf>| {
        let words = (words.get("a").unwrap(), words.get(&"b".to_owned()).unwrap());
        let sums = (sums.get(b"xy").unwrap(), sums.get(&[1u8, 2, 3][..2]).unwrap());
        let paths = paths.contains(Path::new("/a")).unwrap();
        (words, sums, paths)
    };
    let words = manager.dict_of([("a".to_owned(), 1)]).unwrap();
    let sums = manager.dict_of([(b"xy".to_vec(), 2), (vec![1, 2], 3)]).unwrap();
    let paths = manager.set_of([PathBuf::from("/a")]).unwrap();
    let found = finish(start(look, (words.clone(), sums, paths)));
    assert_eq!(found, ((Some(1), None), (Some(2), Some(3)), true));
    assert!(words.compare_and_set("a", &1, 5).unwrap() && words.contains_key("a").unwrap());
    assert_eq!((words.remove("b").unwrap(), words.remove("a").unwrap()), (None, Some(5)));

    let lines = manager.list_of(["a", "b", "a"].map(str::to_owned)).unwrap();
    assert!(lines.contains("b").unwrap() && lines.remove_item("b").unwrap());
    assert_eq!((lines.count("a").unwrap(), lines.position("b").unwrap()), (2, None));

    let names = manager.dict_of([(Unique(1), 1u8)]).unwrap();
    assert_eq!((names.get(&Unique(1)).unwrap(), names.get(&Unique(2)).unwrap()), (Some(1), None));
    assert_eq!(names.update(&Unique(1), |name, ()| *name, ()).unwrap(), Some(1));
}

#[test]
fn a_set_has_the_methods_of_a_set() {
    let manager = manager();
    let set = manager.set::<String>().unwrap();
    let insert = |set: Set<String>| set.insert("one".to_owned()).unwrap();
    let inserted = finish_all([0; 3].map(|_| start(insert, (set.clone(),))));
    assert_eq!(inserted.iter().filter(|&&new| new).count(), 1, "it was new once");
    let owned = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    assert_eq!(set.extend(owned(&["two", "three", "one"])).unwrap(), 2);
    assert!(set.contains("two").unwrap() && !set.contains("four").unwrap());
    assert_eq!(set.contains_many(owned(&["two", "four"])).unwrap(), [true, false]);
    assert!(set.contains_all(owned(&["one", "two"])).unwrap());
    let of = |items: &[&str]| owned(items).into_iter().collect::<HashSet<_>>();
    assert_eq!(set.intersection(owned(&["two", "four"])).unwrap(), of(&["two"]));
    assert_eq!(set.difference(owned(&["two", "four"])).unwrap(), of(&["one", "three"]));
    assert_eq!(set.union(owned(&["four"])).unwrap(), of(&["one", "two", "three", "four"]));
    assert!(set.remove("two").unwrap() && !set.remove("two").unwrap());
    assert_eq!(set.retain(|item, ()| item.len() == 3, ()).unwrap(), 1);
    assert_eq!(set.pop().unwrap().as_deref(), Some("one"));
    assert_eq!((set.pop().unwrap(), set.len().unwrap()), (None, 0));
    set.extend(owned(&["a", "b", "c"])).unwrap();
    assert_eq!(set.remove_many(owned(&["a", "x"])).unwrap(), 1);
    assert_eq!(set.iter().unwrap().count(), 2);
    assert_eq!(set.take().unwrap(), of(&["b", "c"]));
    assert!(set.is_empty().unwrap());
}

#[test]
fn a_value_of_any_type_is_read_replaced_and_changed_in_place() {
    let manager = manager();
    let value = manager.value(Some("first".to_owned())).unwrap();
    finish(start(
        |value: Value<Option<String>>| {
            assert_eq!(value.replace(Some("second".to_owned())).unwrap().as_deref(), Some("first"));
        },
        (value.clone(),),
    ));
    assert_eq!(value.get().unwrap().as_deref(), Some("second"));
    assert_eq!(value.with(|value, ()| value.as_ref().map(String::len), ()).unwrap(), Some(6));
    assert_eq!(value.take().unwrap().as_deref(), Some("second"));
    value.set(Some("third".to_owned())).unwrap();
    value
        .update(|value, more: String| value.as_mut().unwrap().push_str(&more), "!".to_owned())
        .unwrap();
    assert_eq!(value.get().unwrap().as_deref(), Some("third!"));
}

#[test]
fn an_array_keeps_its_length() {
    let manager = manager();
    let array = manager.array(vec![0u64; 4]).unwrap();
    finish(start(|array: Array<u64>| array.set_slice(1, vec![5, 6]).unwrap(), (array.clone(),)));
    assert_eq!(array.snapshot().unwrap(), [0, 5, 6, 0]);
    assert!(array.set_slice(3, vec![1, 2]).unwrap_err().is_invalid_input());
    assert!(array.set(4, 1).unwrap_err().is_invalid_input());
    assert_eq!((array.get(2).unwrap(), array.get(4).unwrap()), (Some(6), None));
    assert_eq!(array.replace(0, 9).unwrap(), 0);
    array.swap(0, 3).unwrap();
    assert_eq!(
        array
            .update(
                1,
                |value, by| {
                    *value += by;
                    *value
                },
                1
            )
            .unwrap(),
        Some(6)
    );
    assert!(array.compare_and_set(1, &6, 7).unwrap() && !array.compare_and_set(1, &6, 8).unwrap());
    assert_eq!(array.slice(1..4).unwrap(), Some(vec![7, 6, 9]));
    assert_eq!(array.get_many([3, 9]).unwrap(), [Some(9), None]);
    assert_eq!(array.with(|array, ()| array.iter().sum::<u64>(), ()).unwrap(), 22);
    array.with_mut(|array, by| array.iter_mut().for_each(|value| *value *= by), 2).unwrap();
    assert_eq!((array.iter().unwrap().sum::<u64>(), array.len().unwrap()), (44, 4));
    assert!(manager.array::<u8>(vec![]).unwrap().is_empty().unwrap());
}

#[test]
fn a_namespace_holds_values_of_different_types_and_tells_them_apart() {
    let manager = manager();
    let names = manager.namespace().unwrap();
    finish(start(
        |names: Namespace| {
            names.set("depth", 3u32).unwrap();
            names.set("paths", vec!["a".to_owned()]).unwrap();
        },
        (names.clone(),),
    ));
    assert_eq!(names.get("depth").unwrap(), Some(3u32));
    assert_eq!(names.get("paths").unwrap(), Some(vec!["a".to_owned()]));
    assert_eq!(names.get::<u32>("width").unwrap(), None);
    let error = names.get::<u64>("depth").unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("u32"), "{error}");
    assert_eq!(
        names.update("depth", |depth: &mut u32, by: u32| *depth += by, 2).unwrap(),
        Some(())
    );
    assert!(names.update("paths", |_: &mut u32, ()| (), ()).unwrap_err().is_invalid_input());
    assert_eq!(names.update("width", |_: &mut u32, ()| (), ()).unwrap(), None);
    let listed: Vec<String> = names.names().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, ["depth", "paths"]);
    assert!(names.contains("depth").unwrap() && names.remove("depth").unwrap());
    assert!(!names.remove("depth").unwrap());
    names.clear().unwrap();
    assert!(names.names().unwrap().is_empty());
}

#[test]
fn large_items_travel_whole() {
    let manager = manager();
    let list = manager.list::<Vec<u8>>().unwrap();
    let large: Vec<u8> = (0..5_000_000u32).map(|number| number as u8).collect();
    list.push(large.clone()).unwrap();
    let sum = |list: List<Vec<u8>>| {
        list.get(0).unwrap().unwrap().iter().map(|&byte| u64::from(byte)).sum::<u64>()
    };
    let expected = large.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    assert_eq!(finish(start(sum, (list.clone(),))), expected);
    assert!(list.snapshot().unwrap() == [large]);
}

#[test]
fn proxies_are_values_of_other_proxies() {
    let manager = manager();
    let dict = manager.dict::<String, List<u64>>().unwrap();
    dict.insert("a".to_owned(), manager.list_of([1]).unwrap()).unwrap();
    finish(start(
        |dict: Dict<String, List<u64>>| {
            let list = dict.get("a").unwrap().expect("it was inserted");
            list.push(2).unwrap();
            dict.insert("b".to_owned(), list).unwrap();
        },
        (dict.clone(),),
    ));
    let (a, b) = (dict.get("a").unwrap().unwrap(), dict.get("b").unwrap().unwrap());
    assert_eq!((a.snapshot().unwrap(), a == b), (vec![1, 2], true));
    // A function in the server may call other objects than its own.
    let total = dict
        .with(
            |map, ()| {
                map.values().map(|list| list.len().expect("a call in the server")).sum::<usize>()
            },
            (),
        )
        .unwrap();
    assert_eq!(total, 4);
}

#[test]
fn handles_of_shared_memory_live_in_the_server_too() {
    let manager = manager();
    let list = manager.list::<multiproc::Lock>().unwrap();
    list.push(multiproc::Lock::new().unwrap()).unwrap();
    let lock =
        finish(start(|list: List<multiproc::Lock>| list.get(0).unwrap().unwrap(), (list.clone(),)));
    let _guard = lock.lock().unwrap();
    assert!(list.get(0).unwrap().unwrap().try_lock().unwrap().is_none());
}

#[test]
fn a_panic_in_a_function_reaches_the_caller_and_leaves_the_server_alive() {
    let manager = manager();
    let list = manager.list_of([1u64]).unwrap();
    let error = list
        .update(
            0,
            |item, ()| {
                *item = 2;
                panic!("no more than {item}")
            },
            (),
        )
        .map(|_: Option<()>| ())
        .unwrap_err();
    let panic = error.panic().expect("a panic");
    assert_eq!(panic.message, "no more than 2");
    assert!(panic.location.as_ref().unwrap().contains("manager_collections.rs"), "{panic:?}");
    assert_eq!(list.snapshot().unwrap(), [2], "it is as the function left it");
}
