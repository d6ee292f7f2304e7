//! Memory that cannot be had is an error when it is asked for: never a signal, and never the end of
//! somebody else.

mod common;

use common::watchdog;
use multiproc::{AtomicValue, Error, FrozenVec, Process, SharedVec};

/// All that the machine has: more than is ever available.
fn total() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Runs in a child: its limits are not those of the other tests.
fn limit(resource: i32, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the kernel reads the two numbers.
    let result = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    assert_eq!(result, 0, "setrlimit");
}

/// What a child thinks of a request.
fn told(error: &Error) -> (bool, String) {
    (error.is_out_of_memory(), error.to_string())
}

#[test]
fn more_than_any_machine_has_is_an_error_that_names_both_numbers() {
    watchdog();
    let error = SharedVec::<u8>::zeroed(1 << 50).expect_err("a petabyte");
    let text = error.to_string();
    assert!(error.is_out_of_memory(), "{text}");
    assert!(text.contains(&(1u64 << 50).to_string()) && text.contains("bytes of"), "{text}");
    for count in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
        let error = SharedVec::<u64>::with_capacity(count).expect_err("more than all addresses");
        assert!(error.is_out_of_memory(), "{error}");
    }
}

#[test]
fn all_that_the_machine_has_is_an_error_and_everybody_lives() {
    watchdog();
    let ask = |bytes: usize| told(&SharedVec::<u8>::zeroed(bytes).expect_err("too much"));
    let mut process = Process::spawn(ask, (total(),)).expect("spawn");
    let (out_of_memory, text) = process.join().expect("it was neither killed nor did it crash");
    assert!(out_of_memory && text.contains("available"), "{text}");
}

#[test]
fn a_vector_that_cannot_grow_is_as_it_was() {
    watchdog();
    let mut vec = SharedVec::try_from([1u64, 2, 3]).expect("memory");
    for additional in [1 << 47, usize::MAX] {
        let error = vec.reserve(additional).expect_err("too much");
        assert!(error.is_out_of_memory() && error.to_string().contains("vector of 3"), "{error}");
    }
    assert!(vec.resize(1 << 47, 0).is_err());
    vec.push(4).expect("this much there is");
    assert_eq!(vec, [1, 2, 3, 4]);
}

#[test]
fn a_limit_of_addresses_is_an_error_that_names_it() {
    watchdog();
    let ask = || {
        let used = std::fs::read_to_string("/proc/self/statm").expect("statm");
        let pages: u64 = used.split(' ').next().expect("a field").parse().expect("a number");
        limit(libc::RLIMIT_AS as i32, pages * 4096 + (64 << 20));
        let mut vec = SharedVec::<u8>::zeroed(8 << 20).expect("this much is left");
        let grown = told(&vec.reserve(1 << 30).expect_err("too much"));
        let made = told(&SharedVec::<u8>::zeroed(1 << 30).expect_err("too much"));
        vec.push(1).expect("the vector is as it was");
        (made, grown)
    };
    let (made, grown) = Process::spawn(ask, ()).expect("spawn").join().expect("join");
    for (out_of_memory, text) in [made, grown] {
        assert!(out_of_memory && text.contains("RLIMIT_AS"), "{text}");
        assert!(text.contains(&(1 << 30).to_string()) || text.contains("10737"), "{text}");
    }
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    watchdog();
    let ask = || {
        let mut vec = SharedVec::<u8>::zeroed(4096).expect("memory");
        limit(libc::RLIMIT_FSIZE as i32, 1 << 20);
        let grown = vec.reserve(2 << 20).expect_err("too large").to_string();
        let made = SharedVec::<u8>::zeroed(2 << 20).expect_err("too large").to_string();
        let copied = FrozenVec::from_slice(&vec![0u8; 2 << 20]).expect_err("too large").to_string();
        let small = FrozenVec::from_slice(&[1u8]).expect("small enough")[0];
        (vec![grown, made, copied], small)
    };
    let (errors, small) = Process::spawn(ask, ()).expect("spawn").join().expect("no SIGXFSZ");
    assert_eq!(small, 1);
    for error in errors {
        assert!(error.contains("RLIMIT_FSIZE") && error.contains("1048576"), "{error}");
    }
}

#[test]
fn too_many_open_files_are_an_error() {
    watchdog();
    let ask = || {
        limit(libc::RLIMIT_NOFILE as i32, 64);
        let mut vecs = Vec::new();
        let error = loop {
            match SharedVec::<u8>::new() {
                Ok(vec) => vecs.push(vec),
                Err(error) => break error,
            }
        };
        let can_grow = vecs[0].push(1).is_ok();
        vecs.pop();
        (told(&error), can_grow, SharedVec::<u8>::new().is_ok())
    };
    let ((out_of_memory, text), can_grow, again) =
        Process::spawn(ask, ()).expect("spawn").join().expect("join");
    assert!(!out_of_memory && text.contains("os error 24") && can_grow && again, "{text}");
}

#[test]
fn memory_is_there_when_it_is_created_and_not_when_it_is_touched() {
    watchdog();
    let vec = SharedVec::<u8>::zeroed(16 << 20).expect("memory");
    let name = vec.as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|line| line.starts_with(&format!("{name:x}-"))).expect("mapped");
    let range = line.split(' ').next().expect("a range");
    let file = std::fs::metadata(format!("/proc/self/map_files/{range}"));
    // Only the superuser may look there.
    if let Ok(file) = file {
        use std::os::unix::fs::MetadataExt;
        assert!(file.blocks() * 512 >= 16 << 20);
    }
}

#[test]
fn the_last_free_descriptor_is_enough_to_receive_an_object() {
    watchdog();
    let receive = || {
        let pool = multiproc::Pool::builder().workers(1).build().expect("pool");
        let make = |number: u32| AtomicValue::new(number).expect("memory");
        drop(pool.apply(make, (5,)).expect("apply"));
        limit(libc::RLIMIT_NOFILE as i32, 100);
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }
        files.pop();
        pool.apply(make, (7,)).expect("one is free").get()
    };
    assert_eq!(Process::spawn(receive, ()).expect("spawn").join().expect("join"), 7);
}
