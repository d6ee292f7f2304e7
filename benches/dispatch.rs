//! What it costs to hand work over: one call and its answer, and many tiny tasks.
//!
//! `cargo bench --bench dispatch`

use criterion::{Criterion, Throughput};
use multiproc::{AsyncResult, Pool};
use std::time::Duration;

const TASKS: u64 = 10_000;

fn increment(x: u64) -> u64 {
    x + 1
}

/// One call on a hot pool, its value waited for.
fn apply(criterion: &mut Criterion, pool: &Pool) {
    criterion.bench_function("dispatch/apply", |bencher| {
        let mut x = 0;
        bencher.iter(|| x = pool.apply(increment, (x,)).expect("a value"));
    });
}

/// Many tasks, each submitted by itself and each with a result of its own.
fn apply_async(criterion: &mut Criterion, pool: &Pool) {
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(TASKS)).bench_function("apply_async", |bencher| {
        bencher.iter(|| {
            let submit = |x| pool.apply_async(increment, (x,)).expect("an open pool");
            let results: Vec<AsyncResult<u64>> = (0..TASKS).map(submit).collect();
            results.into_iter().map(|result| result.get().expect("a value")).sum::<u64>()
        });
    });
}

/// Many tasks, each a message of its own, submitted together.
fn tiny_tasks(criterion: &mut Criterion, pool: &Pool) {
    let pool = pool.chunks_of(1).expect("a chunk size");
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(TASKS)).bench_function("tiny_tasks", |bencher| {
        bencher.iter(|| pool.map(increment, 0..TASKS).expect("values"));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let pool = Pool::builder().workers(2).build().expect("a pool");
    apply(&mut criterion, &pool);
    apply_async(&mut criterion, &pool);
    tiny_tasks(&mut criterion, &pool);
    criterion.final_summary();
}
