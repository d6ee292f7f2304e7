//! `SharedVec`: a vector for its owner, memory without a copy for those it is sent to.

mod common;

use bytemuck::{Pod, Zeroable};
use common::{wait_until, watchdog};
use multiproc::{HugePages, Pool, Process, SharedVec, StartMethod};
use std::os::unix::fs::FileExt;

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Particle {
    position: [f32; 3],
    charge: i32,
}

fn shared<T: Pod, const N: usize>(elements: [T; N]) -> SharedVec<T> {
    SharedVec::try_from(elements).expect("memory")
}

/// How many mappings of this process have this in their description.
fn mappings_of(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.lines().filter(|line| line.contains(name)).count()
}

// --- A vector -----------------------------------------------------------------------------------

#[test]
fn it_grows_and_shrinks_as_a_vec_does() {
    watchdog();
    let mut vec = SharedVec::new().expect("memory");
    let mut model = Vec::new();
    for number in 0..10_000u64 {
        vec.push(number * 3).expect("push");
        model.push(number * 3);
        if number % 7 == 0 {
            assert_eq!(vec.pop(), model.pop());
        }
    }
    assert_eq!(vec, model);
    vec.extend_from_slice(&[1, 2, 3]).expect("extend");
    vec.extend((0..5000).map(|n| n + 1)).expect("extend");
    model.extend([1, 2, 3].into_iter().chain((0..5000).map(|n| n + 1)));
    assert_eq!(vec, model);
    vec.resize(4, 9).expect("resize");
    vec.resize(6, 8).expect("resize");
    assert_eq!((&vec[..4], &vec[4..]), (&model[..4], &[8, 8][..]));
    vec.truncate(100);
    assert_eq!(vec.len(), 6);
    vec.truncate(1);
    assert_eq!((vec.len(), vec.pop(), vec.pop()), (1, Some(model[0]), None));
    assert!(vec.is_empty() && vec.capacity() >= 10_000);
    vec.clear();
    assert_eq!(format!("{vec:?}"), "[]");
}

#[test]
fn what_was_truncated_does_not_come_back() {
    watchdog();
    let mut vec = shared([7u8; 100]);
    vec.truncate(10);
    vec.resize(20, 1).expect("resize");
    assert_eq!(vec[9..12], [7, 1, 1]);
}

#[test]
fn elements_of_every_shape_keep_their_bytes() {
    watchdog();
    let mut particles = SharedVec::<Particle>::zeroed(3).expect("memory");
    assert_eq!(particles[2], Particle { position: [0.0; 3], charge: 0 });
    particles[1].charge = -4;
    let odd = shared([[1u8, 2, 3], [4, 5, 6]]);
    let wide = shared([u128::MAX, 1]);
    let sum = |particles: SharedVec<Particle>, odd: SharedVec<[u8; 3]>, wide: SharedVec<u128>| {
        let charge: i32 = particles.iter().map(|particle| particle.charge).sum();
        (charge, odd[1][2], wide[0])
    };
    let seen = Process::spawn(sum, (particles, odd, wide)).expect("spawn").join().expect("join");
    assert_eq!(seen, (-4, 6, u128::MAX));
}

#[test]
fn reserved_room_is_used_without_moving() {
    watchdog();
    let mut vec = SharedVec::with_capacity(1000).expect("memory");
    let before = vec.as_ptr();
    assert!(vec.capacity() >= 1000);
    vec.extend(0..1000u32).expect("room");
    assert_eq!(vec.as_ptr(), before);
    vec.reserve(1 << 20).expect("memory");
    assert!(vec.capacity() >= 1000 + (1 << 20));
    assert_eq!(vec[999], 999);
}

#[test]
fn memory_is_given_back_when_the_vector_goes() {
    watchdog();
    let count = || {
        let vec = SharedVec::<u8>::zeroed(3 << 20).expect("memory");
        let address = format!("{:x}-", vec.as_ptr().addr());
        let before = mappings_of(&address);
        drop(vec);
        (before, mappings_of(&address))
    };
    // In a process of its own: what other tests map may come to lie there.
    let mut process = Process::spawn(count, ()).expect("spawn");
    assert_eq!(process.join().expect("join"), (1, 0));
}

// --- In other processes -------------------------------------------------------------------------

#[test]
fn it_travels_as_an_argument_and_as_a_result_and_can_be_changed_on_both_sides() {
    watchdog();
    let double = |mut vec: SharedVec<u64>| {
        vec.iter_mut().for_each(|number| *number *= 2);
        vec.push(1).expect("push");
        vec
    };
    for method in METHODS {
        let mut vec = shared([1u64, 2, 3]);
        let builder = Process::builder(double, (shared([4u64, 5]),)).start_method(method);
        let mut theirs = builder.spawn().expect("spawn").join().expect("join");
        assert_eq!(theirs, [8, 10, 1], "{method:?}");
        theirs.push(9).expect("push");
        vec.extend_from_slice(&theirs).expect("extend");
        assert_eq!(vec, [1, 2, 3, 8, 10, 1, 9]);
    }
}

#[test]
fn sending_leaves_the_owner_its_vector_and_its_open_slices() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let at = |vec: &SharedVec<u64>, index: usize| vec[index];
    let mut vec = SharedVec::try_from_iter(0..100_000u64).expect("memory");
    let address = vec.as_ptr();
    let slice = &vec[..];
    // A context is only borrowed: it is sealed under the eyes of whoever reads it.
    assert_eq!(pool.map_with(&vec, at, [0, 99_999]).expect("map"), [0, 99_999]);
    assert_eq!((slice[99_999], slice.as_ptr()), (99_999, address));
    vec[5] = 50;
    assert_ne!(vec.as_ptr(), address, "others read it, so it was copied");
    assert_eq!(pool.map_with(&vec, at, [4, 5]).expect("map"), [4, 50]);
}

#[test]
fn several_threads_send_and_read_one_vector_at_once() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let at = |vec: &SharedVec<u64>, index: usize| vec[index];
    for _ in 0..20 {
        let vec = SharedVec::try_from_iter(0..20_000u64).expect("memory");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    assert_eq!(pool.map_with(&vec, at, [7, 19_999]).expect("map"), [7, 19_999]);
                });
                scope.spawn(|| assert_eq!(vec.iter().sum::<u64>(), 19_999 * 10_000));
            }
        });
    }
}

#[test]
fn a_result_of_many_megabytes_comes_without_a_copy_and_is_sealed() {
    watchdog();
    const LEN: usize = 32 << 20;
    let build = || {
        let mut vec = SharedVec::<u8>::zeroed(LEN).expect("memory");
        vec[LEN - 1] = 1;
        vec
    };
    let pool = Pool::builder().workers(1).build().expect("pool");
    let mut vec = pool.apply(build, ()).expect("apply");
    assert_eq!((vec.len(), vec[LEN - 1]), (LEN, 1));
    let received = vec.as_ptr();
    // It is the memory of the worker that is mapped here, for reading only.
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", received.addr())));
    let line = line.expect("the vector is a mapping of its own");
    assert!(line.contains(" r--p ") && line.contains("multiproc"), "{line}");
    vec[0] = 9;
    assert_ne!(vec.as_ptr(), received, "the change copied it");
    assert_eq!((vec[0], vec[LEN - 1]), (9, 1));
}

#[test]
fn empty_vectors_travel() {
    watchdog();
    let grow = |mut vec: SharedVec<i16>| {
        let before = vec.len();
        vec.push(-1).expect("push");
        (before, vec)
    };
    let empty = SharedVec::new().expect("memory");
    let (before, vec) = Process::spawn(grow, (empty,)).expect("spawn").join().expect("join");
    assert_eq!((before, vec), (0, shared([-1])));
}

#[test]
fn a_vector_that_was_truncated_after_it_was_sent_arrives_truncated() {
    watchdog();
    let back = |vec: SharedVec<u8>| vec;
    let pool = Pool::builder().workers(1).build().expect("pool");
    let mut vec = pool.apply(back, (shared([1u8, 2, 3]),)).expect("apply");
    vec.truncate(2);
    let mut vec = pool.apply(back, (vec,)).expect("apply");
    assert_eq!(vec, [1, 2]);
    vec.push(4).expect("push");
    assert_eq!(pool.apply(back, (vec,)).expect("apply"), [1, 2, 4]);
}

#[test]
fn outside_a_message_it_cannot_be_serialised() {
    watchdog();
    let vec = shared([1, 2]);
    let error = postcard::to_allocvec(&vec).expect_err("no message");
    assert!(matches!(error, postcard::Error::SerdeSerCustom), "{error}");
    assert!(postcard::from_bytes::<SharedVec<i32>>(&[1, 2, 3]).is_err());
    assert_eq!(vec, [1, 2], "the vector is as good as before");
}

#[test]
fn nobody_can_write_to_a_vector_that_was_sent() {
    watchdog();
    let attack = |vec: SharedVec<u8>| {
        // Every descriptor of such memory that this process has, or could open.
        let mut refused = 0;
        for entry in std::fs::read_dir("/proc/self/fd").expect("fds").flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            if target.to_string_lossy().contains("multiproc-vec") {
                let opened = std::fs::OpenOptions::new().write(true).open(entry.path());
                let result = opened.and_then(|file| file.write_at(b"!", 0));
                assert!(result.is_err(), "written");
                refused += 1;
            }
        }
        (refused, vec[0])
    };
    let pool = Pool::builder().workers(1).build().expect("pool");
    let (refused, first) = pool.apply(attack, (shared([7u8]),)).expect("apply");
    assert!(refused >= 1 && first == 7, "{refused} {first}");
}

#[test]
fn a_vector_that_was_lent_is_frozen_and_sent_without_a_copy() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let mut in_place = 0;
    for _ in 0..20 {
        let mut vec = SharedVec::<u32>::zeroed(16 << 20).expect("memory");
        let address = vec.as_ptr();
        let fill = |number: usize, chunk: &mut [u32]| chunk.fill(number as u32);
        pool.for_each_chunk_mut_indexed(&mut vec, 4 << 20, fill).expect("lend");
        let frozen = vec.freeze().expect("freeze");
        // A worker that gets no processor in time costs a copy.
        in_place += u32::from(frozen.as_ptr() == address);
        let last = |vec: multiproc::FrozenVec<u32>| vec[vec.len() - 1];
        assert_eq!(pool.apply(last, (frozen,)).expect("apply"), 3);
    }
    assert!(in_place > 0, "the workers let go of what is frozen");
}

#[test]
fn a_vector_that_is_lent_changed_and_sent_in_turns_is_always_the_latest() {
    watchdog();
    let pool = Pool::builder().workers(2).build().expect("pool");
    let mut vec = SharedVec::<u64>::zeroed(1000).expect("memory");
    let add = |chunk: &mut [u64]| chunk.iter_mut().for_each(|number| *number += 1);
    let sum = |vec: &SharedVec<u64>, _: u8| vec.iter().sum::<u64>();
    for round in 1..30u64 {
        pool.for_each_chunk_mut(&mut vec, 100, add).expect("lend");
        assert_eq!(pool.map_with(&vec, sum, [0]).expect("map"), [vec.iter().sum::<u64>()]);
        vec.push(round).expect("push");
        let sums = pool.map_chunks(&vec, 64, |chunk| chunk.iter().sum::<u64>()).expect("lend");
        assert_eq!(sums.iter().sum::<u64>(), vec.iter().sum::<u64>());
    }
    assert_eq!((vec[0], vec.len()), (29, 1029));
}

// --- Options ------------------------------------------------------------------------------------

#[test]
fn alignment_and_huge_pages_hold_while_it_grows() {
    watchdog();
    for align in [1, 4096, 1 << 16, 1 << 21, 1 << 30] {
        let options = SharedVec::<u64>::options().align(align).huge_pages(HugePages::Transparent);
        let mut vec: SharedVec<u64> = options.copied(&[1, 2, 3]).expect("memory");
        for _ in 0..3 {
            assert_eq!(vec.as_ptr().addr() % align, 0);
            vec.reserve(vec.capacity() + 1).expect("grow");
        }
        assert_eq!(vec, [1, 2, 3]);
    }
}

#[test]
fn wrong_options_are_errors_that_name_them() {
    watchdog();
    for (align, page) in [(3, 1 << 21), (1 << 31, 1 << 21), (1, 5), (1, 0)] {
        let options = SharedVec::<u8>::options().align(align).huge_pages(HugePages::Explicit(page));
        let error = options.zeroed::<u8>(1).expect_err("no power of two");
        let named =
            [align, page].iter().any(|number| error.to_string().contains(&number.to_string()));
        assert!(error.is_invalid_input() && named, "{error}");
    }
}

/// How many huge pages of 2 MiB there are: `nr` in all, `free` ones.
fn huge_pages(which: &str) -> usize {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{which}_hugepages");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn huge_pages_that_nobody_set_aside_are_an_error() {
    watchdog();
    let options = SharedVec::<u8>::options().huge_pages(HugePages::Explicit(1 << 21));
    let made = options.zeroed::<u8>((huge_pages("nr") + 1) << 21).map(|_| ());
    let error = made.expect_err("more than there are");
    assert!(error.to_string().contains("nr_hugepages"), "{error}");
}

#[test]
fn explicit_huge_pages_grow_are_sent_and_are_lent_as_others() {
    watchdog();
    if huge_pages("free") < 8 {
        println!("skipped: this machine has no huge pages set aside");
        return;
    }
    let options = SharedVec::<u64>::options().huge_pages(HugePages::Explicit(1 << 21));
    let mut vec: SharedVec<u64> = options.copied(&[1, 2, 3]).expect("one page");
    assert_eq!((vec.capacity(), vec.as_ptr().addr() % (1 << 21)), (1 << 18, 0));
    vec.reserve(1 << 18).expect("one more");
    assert_eq!((vec.capacity(), &vec[..]), (1 << 19, &[1, 2, 3][..]));
    let pool = Pool::builder().workers(1).build().expect("pool");
    let add = |chunk: &mut [u64]| chunk.iter_mut().for_each(|number| *number += 1);
    pool.for_each_chunk_mut(&mut vec, 2, add).expect("lend");
    let sum = |vec: &SharedVec<u64>, _: u8| vec.iter().sum::<u64>();
    assert_eq!(pool.map_with(&vec, sum, [0]).expect("map"), [9]);
    vec.push(7).expect("a copy");
    let frozen = vec.freeze().expect("freeze");
    let last = |vec: multiproc::FrozenVec<u64>| vec[3];
    assert_eq!(pool.apply(last, (frozen,)).expect("apply"), 7);
}

// --- Fork ---------------------------------------------------------------------------------------

#[test]
fn a_forked_child_does_not_have_it_and_is_told() {
    watchdog();
    let child = || {
        let vec = shared([1, 2, 3]);
        let mut inner = Process::builder(|| 5, ()).spawn().expect("spawn");
        inner.join().expect("join");
        let forked = Process::fork(move || {
            let mut vec = vec;
            let text = format!("{vec:?}");
            let error = vec.push(1).expect_err("not here").to_string();
            let read = std::panic::catch_unwind(|| vec[0]).is_err();
            let frozen = vec.freeze().expect_err("not here").to_string();
            (text, error, read, frozen)
        });
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        let forked = forked.fork_with_threads(risk).stderr(multiproc::Stdio::Null);
        forked.spawn().expect("fork").join().expect("join")
    };
    let seen = Process::spawn(child, ()).expect("spawn").join().expect("join");
    assert!(seen.0.contains("not in this forked child"), "{seen:?}");
    assert!(
        seen.1.contains("forked child") && seen.2 && seen.3.contains("forked child"),
        "{seen:?}"
    );
}

#[test]
fn a_forked_child_that_drops_it_leaves_its_own_memory_alone() {
    watchdog();
    let child = || {
        let vec = SharedVec::<u8>::zeroed(1 << 20).expect("memory");
        let at = vec.as_ptr().addr();
        let forked = Process::fork(move || {
            // The child maps something where the vector was; its drop must not unmap that.
            // SAFETY: nothing but the hole of the vector is in this range of this child.
            let mapped = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                let place = std::ptr::with_exposed_provenance_mut(at);
                libc::mmap(place, 1 << 20, libc::PROT_READ, flags, -1, 0)
            };
            assert_eq!(mapped.addr(), at, "it lies where the vector was");
            drop(vec);
            // SAFETY: msync with this flag only asks whether the range is mapped.
            unsafe { libc::msync(mapped, 1 << 20, libc::MS_ASYNC) == 0 }
        });
        // SAFETY: the other threads of a child wait in system calls.
        let risk = unsafe { multiproc::ForkRisk::accept() };
        forked.fork_with_threads(risk).spawn().expect("fork").join().expect("join")
    };
    assert!(Process::spawn(child, ()).expect("spawn").join().expect("join"));
}

#[test]
fn descriptors_are_given_back() {
    watchdog();
    let count = || {
        let pool = Pool::builder().workers(1).build().expect("pool");
        let back = |vec: SharedVec<u8>| vec;
        let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
        let run = || {
            let vec = pool.apply(back, (shared([1u8; 5000]),)).expect("apply");
            assert_eq!(vec.len(), 5000);
        };
        run();
        let before = open();
        (0..100).for_each(|_| run());
        wait_until("the descriptors are closed", || open() <= before);
    };
    // In a process of its own: the other tests open files, too.
    Process::spawn(count, ()).expect("spawn").join().expect("join");
}
