//! A worker that crashes is reported as that: nothing else is made of the way its end is noticed.

mod common;

use common::watchdog;
use multiproc::Pool;
use std::fs::{self, File};
use std::path::PathBuf;

const CRASHES: usize = 40;

fn abort_at_seven(x: u64) -> u64 {
    if x % 8 == 7 { std::process::abort() } else { x }
}

#[test]
fn a_crash_is_called_a_death_with_its_signal() {
    watchdog();
    let pool = Pool::builder().workers(2).core_limit(0).build().unwrap();
    for _ in 0..CRASHES {
        let error = pool.apply(abort_at_seven, (7,)).unwrap_err();
        assert!(error.is_worker_died(), "{error}");
        assert!(error.to_string().starts_with("the worker died while it ran the task"), "{error}");
        assert_eq!(error.exit_status().and_then(|status| status.signal()), Some(6));
    }
}

#[test]
fn the_items_that_a_worker_finished_before_its_crash_come_back() {
    watchdog();
    let pool = Pool::builder().workers(2).core_limit(0).build().unwrap();
    let chunks = pool.chunks_of(8).unwrap();
    for (x, result) in chunks.imap(abort_at_seven, 0..8 * CRASHES as u64).unwrap().enumerate() {
        match result {
            Ok(value) => assert_eq!(value, x as u64),
            Err(error) => assert!(x % 8 == 7 && error.is_worker_died(), "{x}: {error}"),
        }
    }
}

/// Crashes the first time that it is called with this path.
fn crash_once(mark: PathBuf) -> bool {
    if File::create_new(&mark).is_ok() {
        std::process::abort()
    } else {
        fs::remove_file(mark).is_ok()
    }
}

#[test]
fn an_item_whose_worker_crashed_is_retried_if_asked() {
    watchdog();
    let pool = Pool::builder().workers(2).core_limit(0).retries(1).build().unwrap();
    let mark = |index| format!("multiproc-crash-once-{}-{index}", std::process::id());
    let marks = (0..CRASHES).map(|index| std::env::temp_dir().join(mark(index)));
    assert_eq!(pool.map(crash_once, marks).unwrap(), [true; CRASHES]);
}
