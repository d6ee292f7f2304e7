//! On whom a barrier and a latch wait, when the workers of a pool have handles of them.

mod common;

use common::{PATIENCE, watchdog};
use multiproc::{Barrier, Latch, Pool};
use std::thread;

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(workers).build().unwrap()
}

/// Whether two threads of this process meet.
fn meet(barrier: &Barrier) -> multiproc::Result<()> {
    thread::scope(|scope| {
        let other = scope.spawn(|| barrier.wait_timeout(PATIENCE));
        barrier.wait_timeout(PATIENCE)?;
        other.join().unwrap().map(drop)
    })
}

#[test]
fn workers_whose_pool_is_over_break_nothing() {
    watchdog();
    for terminate in [false, true] {
        let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
        let pool = pool(2);
        let parties =
            |(barrier, latch): &(Barrier, Latch), _: u32| barrier.parties() + latch.count();
        let seen = pool.map_with(&(barrier.clone(), latch.clone()), parties, 0..50).unwrap();
        assert_eq!(seen, [3; 50]);
        if terminate {
            pool.terminate();
        }
        drop(pool);
        meet(&barrier).expect("nobody died on whom it waits");
        latch.count_down().unwrap();
        latch.wait().expect("nobody died on whom it waited");
    }
}

#[test]
fn workers_meet_at_a_barrier_in_their_context() {
    watchdog();
    let barrier = Barrier::new(2).unwrap();
    let meet = |barrier: &Barrier, _: u32| barrier.wait().map(|result| result.index());
    let pool = pool(2);
    for _ in 0..3 {
        let indices = pool.map_with(&barrier, meet, [0, 1]).unwrap();
        let mut indices = indices.into_iter().map(|index| index.unwrap()).collect::<Vec<_>>();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1]);
    }
}

#[test]
fn a_worker_that_dies_or_panics_in_a_task_breaks_what_is_in_its_context() {
    watchdog();
    for panics in [false, true] {
        let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
        let pool = pool(1);
        let end = |_: &(Barrier, Latch), panics: bool| {
            assert!(!panics, "on purpose");
            std::process::abort();
        };
        let lost: multiproc::Result<Vec<()>> =
            pool.map_with(&(barrier.clone(), latch.clone()), end, [panics]);
        lost.expect_err("the task did not end well");
        assert!(barrier.wait().unwrap_err().is_broken());
        assert!(latch.wait().unwrap_err().is_broken());
    }
}
