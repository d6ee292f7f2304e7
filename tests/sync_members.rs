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

/// What tasks and initializers have stored.
static KEPT: std::sync::Mutex<Vec<(Barrier, Latch)>> = std::sync::Mutex::new(Vec::new());

fn keep(barrier: Barrier, latch: Latch) {
    KEPT.lock().unwrap().push((barrier, latch));
}

#[test]
fn workers_that_kept_what_a_task_or_the_initializer_received_break_nothing() {
    watchdog();
    for in_initializer in [false, true] {
        let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
        let handles = (barrier.clone(), latch.clone());
        let builder = Pool::builder().workers(1);
        let pool = if in_initializer {
            builder.initializer(keep, handles).build().unwrap()
        } else {
            let pool = builder.build().unwrap();
            pool.apply(keep, handles).unwrap();
            pool
        };
        // It can use them: here while it waits, it is missed if it dies.
        let theirs = pool.apply_async(|| KEPT.lock().unwrap()[0].0.wait().is_ok(), ()).unwrap();
        barrier.wait_timeout(PATIENCE).unwrap();
        assert!(theirs.get().unwrap());
        drop(pool);
        meet(&barrier).expect("nobody died on whom it waits");
        latch.count_down().unwrap();
        latch.wait().expect("nobody died on whom it waited");
    }
}

#[test]
fn a_worker_that_dies_in_a_task_that_received_it_breaks_it_and_later_in_another_task_not() {
    watchdog();
    for at_once in [true, false] {
        let (barrier, latch) = (Barrier::new(2).unwrap(), Latch::new(1).unwrap());
        let pool = pool(1);
        let keep_and_die = |barrier: Barrier, latch: Latch, at_once: bool| {
            keep(barrier, latch);
            if at_once {
                std::process::abort();
            }
        };
        let outcome = pool.apply(keep_and_die, (barrier.clone(), latch.clone(), at_once));
        assert_eq!(outcome.is_err(), at_once);
        if at_once {
            assert!(barrier.wait().unwrap_err().is_broken());
            assert!(latch.wait().unwrap_err().is_broken());
        } else {
            let die = || -> () { std::process::abort() };
            pool.apply(die, ()).expect_err("it died");
            meet(&barrier).expect("nobody died on whom it waits");
            assert!(!latch.wait_timeout(std::time::Duration::from_millis(100)).unwrap());
        }
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
