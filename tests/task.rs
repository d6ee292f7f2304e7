//! `#[multiproc::task]`: names, signatures, and calls by name; and functions of every arity.

mod common;

use common::watchdog;
use multiproc::{Error, Pool, Process, TaskInfo, tasks};
use std::collections::HashMap;

#[multiproc::task]
fn nothing() {}

#[multiproc::task]
fn square(x: u64) -> u64 {
    x * x
}

#[multiproc::task(name = "texts/join")]
fn join(parts: Vec<String>, with: Option<String>) -> Result<String, String> {
    with.map(|with| parts.join(&with)).ok_or_else(|| "nothing to join with".to_owned())
}

#[multiproc::task]
pub(crate) fn nested_types(map: HashMap<String, Vec<(u8, Option<f64>)>>, pair: [u8; 2]) -> usize {
    map.len() + pair.len()
}

mod inner {
    /// The same name in another module is another task.
    #[multiproc::task]
    pub fn square(x: f64) -> f64 {
        x * x
    }
}

fn task(name: &str) -> &'static TaskInfo {
    let found = tasks().iter().find(|task| task.name() == name);
    found.unwrap_or_else(|| panic!("no task {name} among {:?}", tasks()))
}

fn pool() -> Pool {
    watchdog();
    Pool::builder().workers(1).build().expect("a pool")
}

#[test]
fn names_are_module_path_and_function_or_what_the_attribute_says() {
    watchdog();
    let mut names: Vec<_> = tasks().iter().map(TaskInfo::name).collect();
    names.sort_unstable();
    let expected = [
        "task::inner::square",
        "task::nested_types",
        "task::nothing",
        "task::square",
        "texts/join",
    ];
    assert_eq!(names, expected);
}

#[test]
fn signatures_read_as_they_were_written() {
    watchdog();
    assert_eq!(task("task::nothing").signature(), "fn() -> ()");
    assert_eq!(task("task::square").signature(), "fn(u64) -> u64");
    assert_eq!(task("task::inner::square").signature(), "fn(f64) -> f64");
    let expected = "fn(Vec<String>, Option<String>) -> Result<String, String>";
    assert_eq!(task("texts/join").signature(), expected);
    let expected = "fn(HashMap<String, Vec<(u8, Option<f64>)>>, [u8; 2]) -> usize";
    assert_eq!(task("task::nested_types").signature(), expected);
}

#[test]
fn signature_hashes_differ_where_signatures_do() {
    watchdog();
    let mut hashes: Vec<_> = tasks().iter().map(TaskInfo::signature_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), tasks().len());
    // FNV-1a, so that other builds and other machines agree: this value may never change.
    let fnv = |text: &str| {
        text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    assert_eq!(task("task::square").signature_hash(), fnv("fn(u64) -> u64"));
}

#[test]
fn a_task_knows_where_it_is_defined() {
    watchdog();
    let places = tasks().iter().map(TaskInfo::place);
    let lines: Vec<u32> = places
        .map(|place| {
            let (file, line) = place.rsplit_once(':').expect("file:line");
            assert!(file.ends_with("task.rs"), "{place}");
            line.parse().expect("a line")
        })
        .collect();
    assert!(lines.iter().all(|line| (5..40).contains(line)), "{lines:?}");
}

#[test]
fn the_function_itself_is_unchanged() {
    watchdog();
    nothing();
    assert_eq!(square(3), 9);
    assert_eq!(inner::square(1.5), 2.25);
    assert_eq!(nested_types(HashMap::new(), [1, 2]), 2);
    let pool = pool();
    assert_eq!(pool.map(square, 0..4).expect("map"), [0, 1, 4, 9]);
}

#[test]
fn tasks_are_called_by_name() {
    watchdog();
    let pool = pool();
    assert_eq!(pool.apply_named::<_, u64>("task::square", (7u64,)).expect("apply"), 49);
    assert_eq!(pool.apply_named::<_, f64>("task::inner::square", (0.5f64,)).expect("apply"), 0.25);
    pool.apply_named::<_, ()>("task::nothing", ()).expect("apply");
    let parts = vec!["a".to_owned(), "b".to_owned()];
    let joined = pool
        .apply_named::<_, Result<String, String>>("texts/join", (parts, Some("-".to_owned())))
        .expect("apply");
    assert_eq!(joined.as_deref(), Ok("a-b"));
}

#[test]
fn an_unknown_name_is_an_error_that_names_it() {
    watchdog();
    let error = pool().apply_named::<_, ()>("task::missing", ()).expect_err("unknown");
    assert!(error.is_invalid_input() && error.to_string().contains("task::missing"), "{error}");
}

#[test]
fn a_wrong_signature_is_an_error_that_names_both_places() {
    watchdog();
    let pool = pool();
    let refused = |error: Error, line: u32, called_with: &str| {
        let text = error.to_string();
        assert!(error.is_invalid_input(), "{text}");
        assert!(text.contains("fn(u64) -> u64"), "{text}");
        assert!(text.contains(task("task::square").place()), "where it is defined: {text}");
        assert!(text.contains(&format!("tests/task.rs:{line}")), "where it is called: {text}");
        assert!(text.contains(called_with), "{text}");
    };
    let wrong = pool.apply_named::<_, u64>("task::square", (7i32,)).expect_err("an i32");
    refused(wrong, line!() - 1, "(i32,)");
    let wrong = pool.apply_named::<_, u64>("task::square", (7u64, 8u64)).expect_err("two");
    refused(wrong, line!() - 1, "(u64, u64)");
    let wrong = pool.apply_named::<_, String>("task::square", (7u64,)).expect_err("a String");
    refused(wrong, line!() - 1, "String");
}

// --- Every function -----------------------------------------------------------------------------

fn largest<T: PartialOrd + Default>(values: Vec<T>) -> T {
    values.into_iter().fold(T::default(), |a, b| if b > a { b } else { a })
}

struct Shifted<const BY: u64>;

impl<const BY: u64> Shifted<BY> {
    fn shift(x: u64) -> u64 {
        x + BY
    }
}

#[test]
fn generic_functions_work_where_they_are_monomorphised() {
    watchdog();
    let pool = pool();
    assert_eq!(pool.apply(largest::<u32>, (vec![3, 9, 2],)).expect("apply"), 9);
    let texts = vec!["pear".to_owned(), "apple".to_owned()];
    assert_eq!(pool.apply(largest::<String>, (texts,)).expect("apply"), "pear");
    // Equal machine code may be merged; each instance still does what its type says.
    assert_eq!(pool.map(Shifted::<1>::shift, [10]).expect("map"), [11]);
    assert_eq!(pool.map(Shifted::<2>::shift, [10]).expect("map"), [12]);
    let through_a_generic = call_generic::<i16>(&pool, vec![5, -5]);
    assert_eq!(through_a_generic, 5);
    let mut process = Process::spawn(largest::<f64>, (vec![0.5, 2.5],)).expect("spawn");
    assert_eq!(process.join().expect("join"), 2.5);
}

fn call_generic<T: PartialOrd + Default + multiproc::Data>(pool: &Pool, values: Vec<T>) -> T {
    pool.apply(largest::<T>, (values,)).expect("apply")
}

#[test]
fn closures_methods_constructors_and_foreign_functions_are_functions_too() {
    watchdog();
    let pool = pool();
    assert_eq!(pool.apply(|x: u64| x + 1, (1,)).expect("a closure"), 2);
    assert_eq!(pool.apply(str::len_of, ("four".to_owned(),)).expect("a method"), 4);
    assert_eq!(pool.map(Some, 0..2u8).expect("a constructor"), [Some(0), Some(1)]);
    // The function lives in the C library, but what calls it is in the program.
    extern "C" fn add(a: i32, b: i32) -> i32 {
        a + b
    }
    let in_c = |a: i32, b: i32| add(a, b);
    assert_eq!(pool.apply(in_c, (1, 2)).expect("in C"), 3);
    assert_eq!(pool.apply(u64::pow, (2, 10)).expect("a function of the standard library"), 1024);
}

trait LenOf {
    fn len_of(text: String) -> usize;
}

impl LenOf for str {
    fn len_of(text: String) -> usize {
        text.len()
    }
}

macro_rules! arities {
    ($($name:ident($($argument:ident)*) = $sum:expr;)*) => {$(
        #[allow(clippy::too_many_arguments, reason = "that is what it tests")]
        fn $name($($argument: u64),*) -> u64 {
            0 $(+ $argument)*
        }
    )*

    #[test]
    fn functions_of_0_to_12_arguments_are_called() {
        let pool = pool();
        $({
            let mut next = 0u64;
            let mut number = || {
                next += 1;
                next
            };
            let _ = &mut number;
            let arguments = ($({ let $argument = number(); $argument },)*);
            assert_eq!(pool.apply($name, arguments).expect("apply"), $sum);
            assert_eq!(pool.starmap($name, [arguments, arguments]).expect("map"), [$sum, $sum]);
            let mut process = Process::spawn($name, arguments).expect("spawn");
            assert_eq!(process.join().expect("join"), $sum);
        })*
    }};
}

arities! {
    sum_of_0() = 0;
    sum_of_1(a) = 1;
    sum_of_2(a b) = 3;
    sum_of_3(a b c) = 6;
    sum_of_4(a b c d) = 10;
    sum_of_5(a b c d e) = 15;
    sum_of_6(a b c d e f) = 21;
    sum_of_7(a b c d e f g) = 28;
    sum_of_8(a b c d e f g h) = 36;
    sum_of_9(a b c d e f g h i) = 45;
    sum_of_10(a b c d e f g h i j) = 55;
    sum_of_11(a b c d e f g h i j k) = 66;
    sum_of_12(a b c d e f g h i j k l) = 78;
}
