//! `FrozenVec`: the kernel refuses every write, so a slice is good everywhere.

mod common;

use common::watchdog;
use multiproc::{FrozenVec, Pool, Process, SharedVec, StartMethod};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

fn numbers(len: u64) -> FrozenVec<u64> {
    SharedVec::try_from_iter(0..len).expect("memory").freeze().expect("freeze")
}

#[test]
fn freezing_copies_nothing() {
    watchdog();
    let vec = SharedVec::<u64>::zeroed(1 << 20).expect("memory");
    let before = vec.as_ptr();
    let frozen = vec.freeze().expect("freeze");
    assert_eq!((frozen.as_ptr(), frozen.len()), (before, 1 << 20));
    assert_eq!(frozen.clone().as_ptr(), before);
}

#[test]
fn every_process_reads_the_same_memory() {
    watchdog();
    let frozen = numbers(100_000);
    let sum = |part: FrozenVec<u64>| part.iter().sum::<u64>();
    for method in METHODS {
        let builder = Process::builder(sum, (frozen.clone(),)).start_method(method);
        let seen = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(seen, (0..100_000).sum(), "{method:?}");
    }
    let pool = Pool::builder().workers(2).build().expect("pool");
    let parts: Vec<_> =
        (0..10).map(|n| frozen.slice(n * 10_000..(n + 1) * 10_000).expect("a part")).collect();
    let sums = pool.map(sum, parts).expect("map");
    assert_eq!(sums.iter().sum::<u64>(), (0..100_000).sum());
    let at = |all: &FrozenVec<u64>, index: usize| all[index];
    assert_eq!(pool.map_with(&frozen, at, [5, 99_999]).expect("map"), [5, 99_999]);
}

#[test]
fn it_comes_back_as_a_result_and_outlives_its_maker() {
    watchdog();
    let make = || FrozenVec::try_from([1.5f32, 2.5]).expect("memory");
    let mut process = Process::spawn(make, ()).expect("spawn");
    let frozen = process.join().expect("join");
    drop(process);
    assert_eq!(frozen, [1.5, 2.5]);
    let part = |frozen: FrozenVec<f32>| frozen.slice(1..).expect("a part");
    let part = Process::spawn(part, (frozen,)).expect("spawn").join().expect("join");
    assert_eq!(part, [2.5]);
}

#[test]
fn a_forked_child_inherits_it() {
    watchdog();
    let child = || {
        let frozen = numbers(1000);
        let forked = Process::fork(move || frozen.iter().sum::<u64>());
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        forked.fork_with_threads(risk).spawn().expect("fork").join().expect("join")
    };
    let sum = Process::spawn(child, ()).expect("spawn").join().expect("join");
    assert_eq!(sum, 999 * 500);
}

#[test]
fn slices_and_copies() {
    watchdog();
    let frozen = numbers(10);
    assert_eq!(frozen.slice(2..=4).expect("inside"), [2, 3, 4]);
    assert_eq!(frozen.slice(..).expect("inside"), frozen);
    assert!(frozen.slice(10..).expect("empty").is_empty());
    for (start, end) in [(0, 11), (11, 11), (5, 4), (usize::MAX, usize::MAX)] {
        let error = frozen.slice(start..end).expect_err("outside");
        assert!(error.is_invalid_input() && error.to_string().contains("10 elements"), "{error}");
    }
    assert!(frozen.slice(0..=usize::MAX).is_err());
    let mut thawed = frozen.thaw().expect("memory");
    thawed[0] = 100;
    assert_eq!((thawed[0], frozen[0]), (100, 0));
    assert!(FrozenVec::<u32>::try_from(Vec::new()).expect("memory").is_empty());
    assert_eq!(format!("{:?}", frozen.slice(..2).expect("inside")), "[0, 1]");
}

/// The kernel refuses to write to the memory in every way that there is.
#[test]
fn every_way_to_write_is_refused_in_every_process() {
    watchdog();
    let attack = |frozen: FrozenVec<u8>| {
        let mut tried = 0;
        for entry in std::fs::read_dir("/proc/self/fd").expect("fds").flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            if !target.contains("multiproc-vec") && !target.contains("multiproc-frozen") {
                continue;
            }
            tried += 1;
            let again = std::fs::OpenOptions::new().read(true).write(true).open(entry.path());
            let file = match again {
                Ok(file) => file,
                Err(_) => std::fs::File::open(entry.path()).expect("readable"),
            };
            assert!(file.write_at(b"!", 0).is_err(), "write(2)");
            assert!(file.set_len(1 << 20).is_err() && file.set_len(0).is_err(), "ftruncate(2)");
            // SAFETY: a new mapping at an address of the kernel's choice, which is never accessed.
            let mapped = unsafe {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let flags = libc::MAP_SHARED;
                libc::mmap(std::ptr::null_mut(), 4096, access, flags, file.as_raw_fd(), 0)
            };
            assert_eq!(mapped, libc::MAP_FAILED, "mmap(2)");
            // SAFETY: a hole in a file harms nobody's memory if it is refused, as it must be.
            let punched = unsafe {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                libc::fallocate(file.as_raw_fd(), mode, 0, 4096)
            };
            assert_eq!(punched, -1, "fallocate(2)");
        }
        // The mapping itself cannot be made writable.
        // SAFETY: the range is one page of the mapping; the call must be refused or be private.
        let writable = unsafe {
            let page = frozen.as_ptr().cast_mut().cast();
            libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) == 0
        };
        if writable {
            // A private mapping: what is written there nobody else sees.
            // SAFETY: the page is writable now, and this function returns no reference into it.
            unsafe { frozen.as_ptr().cast_mut().write_volatile(b'!') };
        }
        tried
    };
    let frozen = SharedVec::try_from([7u8; 9000]).expect("memory").freeze().expect("freeze");
    let copied = FrozenVec::try_from([8u8; 9000]).expect("memory");
    for frozen in [frozen, copied] {
        let mut process = Process::spawn(attack, (frozen.clone(),)).expect("spawn");
        assert!(process.join().expect("join") >= 1);
        assert!(frozen.iter().all(|byte| *byte == frozen[8999]));
    }
}

#[test]
fn a_frozen_vector_outside_a_message_cannot_be_serialised() {
    watchdog();
    assert!(postcard::to_allocvec(&numbers(3)).is_err());
    assert!(postcard::from_bytes::<FrozenVec<u8>>(&[0, 0, 0, 0]).is_err());
}

#[test]
fn handing_over_a_large_one_copies_nothing() {
    watchdog();
    const LEN: usize = 64 << 20;
    let frozen = SharedVec::<u8>::zeroed(LEN).expect("memory").freeze().expect("freeze");
    let pool = Pool::builder().workers(1).build().expect("pool");
    let resident = |_: FrozenVec<u8>| {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    };
    for _ in 0..3 {
        assert!(pool.apply(resident, (frozen.clone(),)).expect("apply") < LEN / 2);
    }
}
