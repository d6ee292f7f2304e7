//! Two tasks of one name poison the whole program, so this test has one to itself.

mod common;

use common::processes::own_children;
use multiproc::{Error, Pool, Process};

#[multiproc::task(name = "resize")]
fn resize(width: u32) -> u32 {
    width
}

mod other {
    #[multiproc::task(name = "resize")]
    pub fn resize(width: u32, height: u32) -> u32 {
        width * height
    }
}

#[test]
fn tasks_of_one_name_are_refused_at_the_first_start_with_both_places() {
    common::watchdog();
    let refused = |error: Error| {
        let text = error.to_string();
        assert!(
            error.is_invalid_input() && text.contains("two tasks are named `resize`"),
            "{text}"
        );
        for task in multiproc::tasks() {
            assert!(text.contains(task.place()) && text.contains(task.signature()), "{text}");
        }
    };
    let places: Vec<_> = multiproc::tasks().iter().map(multiproc::TaskInfo::place).collect();
    assert!(places.len() == 2 && places[0] != places[1], "{places:?}");
    refused(Pool::new().expect_err("duplicates"));
    refused(Process::spawn(|| (), ()).expect_err("duplicates"));
    assert!(own_children().is_empty(), "{:?}", own_children());
    // The functions themselves are as they were.
    assert_eq!((resize(2), other::resize(2, 3)), (2, 6));
}
