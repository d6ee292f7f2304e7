//! Shared vectors lent to a pool, in place.

mod common;

use common::processes::is_alive;
use common::{wait_until, watchdog};
use multiproc::{AtomicValue, FrozenVec, Pool, SharedVec};

fn pool() -> Pool {
    Pool::builder().workers(2).build().expect("pool")
}

fn counted(len: usize) -> SharedVec<u64> {
    SharedVec::try_from_iter(0..len as u64).expect("memory")
}

#[test]
fn each_element_is_changed_once_whatever_the_chunk_length() {
    watchdog();
    let pool = pool();
    for len in [1, 2, 999, 1000, 1001] {
        for chunk_len in [1, 7, 500, 1000, usize::MAX] {
            let mut v = counted(len);
            pool.for_each_chunk_mut(&mut v, chunk_len, |chunk| {
                chunk.iter_mut().for_each(|x| *x += 1);
            })
            .expect("lend");
            assert!(v.iter().copied().eq(1..=len as u64), "{len} in chunks of {chunk_len}");
        }
    }
}

#[test]
fn chunks_know_their_number_and_come_back_in_order() {
    watchdog();
    let (pool, v) = (pool(), counted(10));
    let firsts = pool.map_chunks_indexed(&v, 4, |number, chunk| (number, chunk[0], chunk.len()));
    assert_eq!(firsts.expect("lend"), [(0, 0, 4), (1, 4, 4), (2, 8, 2)]);
}

#[test]
fn a_context_goes_along() {
    watchdog();
    let (pool, mut v) = (pool(), counted(6));
    let names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    pool.for_each_chunk_mut_with(&10, &mut v, 2, |scale, number, chunk| {
        chunk.fill(scale * number as u64);
    })
    .expect("lend");
    let seen = pool.map_chunks_with(&names, &v, 2, |names, number, chunk| {
        format!("{}{}", names[number], chunk[1])
    });
    assert_eq!(seen.expect("lend"), ["a0", "b10", "c20"]);
}

#[test]
fn vectors_are_zipped() {
    watchdog();
    let (pool, mut sums) = (pool(), counted(100));
    let (a, b) = (counted(100), counted(100).freeze().expect("freeze"));
    pool.for_each_chunk_mut((&mut sums, &a, &b), 9, |(sums, a, b)| {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a + b;
        }
    })
    .expect("lend");
    assert!(sums.iter().copied().eq((0..100).map(|x| 3 * x)));
    let (mut left, mut right) = (counted(10), counted(10));
    pool.for_each_chunk_mut((&mut left, &mut right), 3, |(left, right)| {
        left.swap_with_slice(right)
    })
    .expect("lend");
}

#[test]
fn vectors_of_different_lengths_and_chunks_of_nothing_are_errors() {
    watchdog();
    let (pool, mut v) = (pool(), counted(10));
    let error = pool.for_each_chunk_mut((&mut v, &counted(11)), 2, |_| ()).expect_err("lengths");
    assert!(error.is_invalid_input() && error.to_string().contains("11"), "{error}");
    let error = pool.for_each_chunk_mut(&mut v, 0, |_| ()).expect_err("no length");
    assert!(error.is_invalid_input(), "{error}");
    let none = pool.map_chunks(&counted(0), 3, |chunk| chunk.len()).expect("nothing");
    assert!(none.is_empty());
}

#[test]
fn a_slice_of_a_frozen_vector_is_lent() {
    watchdog();
    let (pool, v) = (pool(), counted(1000).freeze().expect("freeze"));
    let middle: FrozenVec<u64> = v.slice(500..510).expect("slice");
    let sums = pool.map_chunks(&middle, 5, |chunk| chunk.iter().sum::<u64>()).expect("lend");
    assert_eq!(sums, [(500..505).sum::<u64>(), (505..510).sum()]);
}

#[test]
fn a_vector_is_frozen_after_it_was_lent_and_grows_between_loans() {
    watchdog();
    let (pool, mut v) = (pool(), counted(1000));
    for round in 0..5u64 {
        pool.for_each_chunk_mut(&mut v, 100, |chunk| chunk.iter_mut().for_each(|x| *x += 1))
            .expect("lend");
        v.extend((0..5000).map(|_| round)).expect("grow");
    }
    assert_eq!((v.len(), v[999], v[1000]), (26_000, 1004, 4));
    let frozen = v.freeze().expect("freeze");
    let total: u64 = frozen.iter().sum();
    let sums = pool.map_chunks(&frozen, 1024, |chunk| chunk.iter().sum::<u64>()).expect("lend");
    assert_eq!(sums.iter().sum::<u64>(), total);
}

#[test]
fn a_vector_that_a_worker_made_is_lent_again() {
    watchdog();
    let pool = pool();
    let mut v: SharedVec<u64> = pool
        .apply(|len: u64| SharedVec::try_from_iter(0..len).expect("memory"), (100,))
        .expect("v");
    assert_eq!(v[99], 99);
    pool.for_each_chunk_mut(&mut v, 10, |chunk| chunk.reverse()).expect("lend");
    assert_eq!((v[0], v[99]), (9, 90));
}

#[test]
fn a_panic_in_one_chunk_leaves_the_others_done() {
    watchdog();
    let (pool, mut v) = (pool(), counted(100));
    let error = pool.for_each_chunk_mut_indexed(&mut v, 10, |number, chunk| {
        assert_ne!(number, 3, "not this one");
        chunk.fill(1000);
    });
    let error = error.expect_err("one panicked");
    assert!(error.is_panic() && error.to_string().contains("not this one"), "{error}");
    let done: Vec<u64> = v.chunks(10).map(|chunk| chunk[0]).collect();
    assert_eq!(done, [1000, 1000, 1000, 30, 1000, 1000, 1000, 1000, 1000, 1000]);
}

#[test]
fn a_worker_that_dies_in_its_chunk_costs_that_chunk() {
    watchdog();
    let (pool, mut v) = (pool(), counted(100));
    let error = pool.for_each_chunk_mut_indexed(&mut v, 10, |number, chunk| {
        chunk[0] = 1000;
        if number == 3 {
            std::process::abort();
        }
        chunk.fill(1000);
    });
    let error = error.expect_err("one died");
    assert!(error.is_worker_died(), "{error}");
    assert_eq!(v[30..33], [1000, 31, 32]);
    assert_eq!(v.iter().filter(|x| **x == 1000).count(), 91);
    // And the vector can be lent to the replacement.
    pool.for_each_chunk_mut(&mut v, 1, |chunk| chunk[0] = 5).expect("lend");
    assert!(v.iter().all(|x| *x == 5));
}

#[test]
fn a_chunk_that_killed_its_worker_is_not_run_again_unless_it_was_only_read() {
    watchdog();
    let pool = Pool::builder().workers(2).retries(3).build().expect("pool");
    let mut v = counted(100);
    let error = pool.for_each_chunk_mut_indexed(&mut v, 10, |number, chunk| {
        chunk.iter_mut().for_each(|x| *x += 1000);
        assert!(number != 3 || std::process::id() == 0 || die());
    });
    assert!(error.expect_err("one died").is_worker_died());
    assert!((1000..1100).eq(v.iter().copied()), "each was changed once");
    let tries = AtomicValue::new(0u32).expect("memory");
    let sums = pool.map_chunks_with(&tries, &v, 10, |tries, number, chunk| {
        assert!(number != 3 || tries.fetch_add(1) > 0 || die());
        chunk.len()
    });
    assert_eq!(sums.expect("tried again"), [10; 10]);
}

fn die() -> bool {
    std::process::abort()
}

#[test]
fn a_pool_that_is_terminated_meanwhile_has_let_go_when_the_call_returns() {
    watchdog();
    let (pool, mut v) = (pool(), counted(1 << 16));
    let pids = pool.worker_pids();
    let count = AtomicValue::new(0u32).expect("memory");
    std::thread::scope(|scope| {
        let (pool, v, counted) = (&pool, &mut v, count.clone());
        let lent = scope.spawn(move || {
            pool.for_each_chunk_mut_with(&counted, v, 1, |count, number, chunk| {
                // All of it is never done: it ends when the pool is terminated.
                if number >= 1000 {
                    loop {
                        std::thread::park();
                    }
                }
                chunk[0] += 1;
                count.fetch_add(1);
            })
        });
        wait_until("some chunks are done", || count.get() >= 10 || lent.is_finished());
        pool.terminate();
        let error = lent.join().expect("thread").expect_err("terminated");
        assert!(error.is_closed() || error.is_cancelled(), "{error}");
    });
    assert!(!pids.into_iter().any(is_alive));
    let done = (0..).zip(&v[..]).filter(|(index, x)| index + 1 == **x).count();
    assert!(done >= 10 && done < v.len(), "{done}");
}

#[test]
fn a_closed_pool_lends_nothing() {
    watchdog();
    let (pool, mut v) = (pool(), counted(10));
    pool.close();
    let error = pool.for_each_chunk_mut(&mut v, 2, |chunk| chunk.fill(0)).expect_err("closed");
    assert!(error.is_closed(), "{error}");
    assert_eq!(v[9], 9);
}
