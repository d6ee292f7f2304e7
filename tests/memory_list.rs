//! `ShareableList`: mixed values that unrelated programs read and write.

mod common;

use common::watchdog;
use multiproc::{AtomicValue, ListValue, Process, ShareableList, SharedMemory};

fn mixed() -> Vec<ListValue> {
    vec!["howdy".into(), 273.154.into(), 100.into(), ListValue::None, true.into(), b"\0\xff".into()]
}

fn all(list: &ShareableList) -> Vec<ListValue> {
    list.iter().map(|value| value.expect("whole")).collect()
}

#[test]
fn another_process_opens_it_by_its_name_and_changes_it() {
    watchdog();
    let list = ShareableList::create_unique(mixed()).expect("create");
    assert_eq!((list.len(), all(&list)), (6, mixed()));
    let change = |name: String| {
        let list = ShareableList::open(&name).expect("open");
        let before: Vec<_> = list.iter().map(|value| value.expect("whole")).collect();
        list.set(0, "bye").expect("it fits");
        list.set(3, -1i64).expect("another type that fits");
        list.set(2, b"12345678").expect("another type that fits");
        before
    };
    let arguments = (list.name().to_owned(),);
    let before = Process::spawn(change, arguments).expect("spawn").join().expect("join");
    assert_eq!(before, mixed());
    assert_eq!(list.get(0).expect("whole"), "bye".into());
    assert_eq!(list.get(2).expect("whole"), b"12345678".into());
    assert_eq!((list.count("bye").expect("whole"), list.count(5).expect("whole")), (1, 0));
    let found = (list.index(true).expect("whole"), list.index("howdy").expect("whole"));
    assert_eq!(found, (Some(4), None));
    assert_eq!(list.index(ListValue::Int(-1)).expect("whole"), Some(3));
}

#[test]
fn what_does_not_fit_is_an_error_and_the_neighbours_are_intact() {
    watchdog();
    let texts = ["12345678", "abcdefgh", "ABCDEFGH"];
    let list = ShareableList::create_unique(texts).expect("create");
    let error = list.set(1, "too long!").expect_err("nine bytes");
    let text = error.to_string();
    assert!(error.is_invalid_input() && text.contains("9 bytes") && text.contains("element 1"));
    let error = list.set(1, vec![0xffu8; 1 << 20]).expect_err("a megabyte");
    assert!(error.to_string().contains("room for 8"), "{error}");
    assert_eq!(all(&list), texts.map(ListValue::from));
    list.set(1, "ÄÖÜä").expect("eight bytes");
    list.set(1, "").expect("none");
    assert_eq!(all(&list), ["12345678", "", "ABCDEFGH"].map(ListValue::from));
    for index in [3, usize::MAX] {
        assert!(list.get(index).expect_err("outside").is_invalid_input());
        assert!(list.set(index, 0).expect_err("outside").is_invalid_input());
    }
    let empty = ShareableList::create_unique(Vec::<i64>::new()).expect("create");
    assert!(empty.is_empty() && ShareableList::open(empty.name()).expect("open").is_empty());
}

#[test]
fn nobody_reads_half_of_a_value() {
    watchdog();
    let texts = ["a".repeat(500), "b".repeat(400)];
    let list = ShareableList::create_unique([texts[0].as_str()]).expect("create");
    let stop = AtomicValue::new(false).expect("memory");
    let write = |list: ShareableList, texts: [String; 2], stop: AtomicValue<bool>| {
        while !stop.get() {
            for text in &texts {
                list.set(0, text.as_str()).expect("it fits");
            }
        }
    };
    let arguments = (list.clone(), texts.clone(), stop.clone());
    let mut process = Process::spawn(write, arguments).expect("spawn");
    let texts = texts.map(ListValue::from);
    for _ in 0..20_000 {
        assert!(texts.contains(&list.get(0).expect("whole")));
    }
    stop.set(true);
    process.join().expect("join");
}

#[test]
fn a_writer_that_is_killed_leaves_a_whole_value_and_the_list_in_order() {
    watchdog();
    let texts = ["x".repeat(3000), "y".repeat(3000)];
    let list = ShareableList::create_unique([texts[0].as_str(), "neighbour"]).expect("create");
    let rounds = AtomicValue::new(0u64).expect("memory");
    let write = |list: ShareableList, texts: [String; 2], rounds: AtomicValue<u64>| loop {
        for text in &texts {
            list.set(0, text.as_str()).expect("it fits");
            rounds.fetch_add(1);
        }
    };
    for _ in 0..30 {
        let before = rounds.get();
        let arguments = (list.clone(), texts.clone(), rounds.clone());
        let mut process: Process<()> = Process::spawn(write, arguments).expect("spawn");
        common::wait_until("it writes", || rounds.get() > before + 10);
        process.kill().expect("kill");
        process.join().expect_err("killed");
        let seen = list.get(0).expect("whole");
        assert!(texts.iter().any(|text| seen == text.as_str().into()));
        assert_eq!(list.get(1).expect("whole"), "neighbour".into());
        list.set(0, texts[0].as_str()).expect("nobody holds the lock");
    }
}

#[test]
fn it_is_an_argument_and_its_name_goes_with_the_creator() {
    watchdog();
    let list = ShareableList::create_unique([1, 2, 3]).expect("create");
    let add = |list: ShareableList| {
        list.set(0, 10).expect("it fits");
        list
    };
    let back = Process::spawn(add, (list.clone(),)).expect("spawn").join().expect("join");
    assert_eq!((back.name(), back.get(0).expect("whole")), (list.name(), 10.into()));
    let name = list.name().to_owned();
    drop(list);
    let error = ShareableList::open(&name).expect_err("gone");
    assert!(error.is_invalid_input() && error.to_string().contains(&name), "{error}");
    assert_eq!(back.get(0).expect("who has it, keeps it"), 10.into());
    assert!(!back.unlink().expect("gone already"));
}

#[test]
fn a_kept_list_stays_until_it_is_unlinked() {
    watchdog();
    let create = || {
        let list = ShareableList::create_unique(["kept"]).expect("create");
        list.keep();
        list.name().to_owned()
    };
    let name = Process::spawn(create, ()).expect("spawn").join().expect("join");
    let list = ShareableList::open(&name).expect("it is there");
    assert_eq!(list.get(0).expect("whole"), "kept".into());
    assert!(list.unlink().expect("unlink") && ShareableList::open(&name).is_err());
}

#[test]
fn lists_and_bytes_are_not_mixed_up() {
    watchdog();
    let list = ShareableList::create_unique([1]).expect("create");
    let bytes = SharedMemory::create_unique(100).expect("create");
    assert!(SharedMemory::open(list.name()).expect_err("a list").is_os());
    assert!(ShareableList::open(bytes.name()).expect_err("bytes").is_os());
    let error = ShareableList::create(list.name(), [2]).expect_err("taken");
    assert!(error.is_invalid_input() && error.to_string().contains("exists"), "{error}");
    assert!(ShareableList::create("a/b", [2]).expect_err("a wrong name").is_invalid_input());
}
