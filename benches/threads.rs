//! The same work in threads (rayon) and in processes: one call, a map of tiny items, and a job
//! that keeps all processors busy.
//!
//! `cargo bench --bench threads`

use criterion::{Criterion, Throughput};
use multiproc::{Pool, available_parallelism};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Duration;

const ITEMS: u64 = 1_000_000;
const SPANS: u64 = 64;
const SPAN: u64 = 2_000;

fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

/// Counts the primes of one span by trial division; later spans take longer.
fn primes(span: u64) -> usize {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (span * SPAN..(span + 1) * SPAN).filter(|n| is_prime(*n)).count()
}

/// One call on another thread or process, its value waited for.
fn call(criterion: &mut Criterion, threads: &ThreadPool, pool: &Pool) {
    let mut group = criterion.benchmark_group("call");
    let mut x = 0;
    group.bench_function("rayon", |bencher| {
        bencher.iter(|| x = threads.install(|| add(x, 7)));
    });
    group.bench_function("multiproc", |bencher| {
        bencher.iter(|| x = pool.apply(add, (x, 7)).expect("a value"));
    });
}

/// A million tiny items; processes have to send each of them there and back.
fn map(criterion: &mut Criterion, threads: &ThreadPool, pool: &Pool) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("rayon", |bencher| {
        let squares = || (0..ITEMS).into_par_iter().map(square).collect::<Vec<_>>();
        bencher.iter(|| threads.install(squares));
    });
    group.bench_function("multiproc", |bencher| {
        bencher.iter(|| pool.map(square, 0..ITEMS).expect("values"));
    });
}

/// Work that is worth distributing.
fn cpu_bound(criterion: &mut Criterion, threads: &ThreadPool, pool: &Pool) {
    let mut group = criterion.benchmark_group("cpu_bound");
    group.bench_function("rayon", |bencher| {
        let count = || (0..SPANS).into_par_iter().map(primes).sum::<usize>();
        bencher.iter(|| threads.install(count));
    });
    group.bench_function("multiproc", |bencher| {
        bencher.iter(|| pool.map(primes, 0..SPANS).expect("counts").iter().sum::<usize>());
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let workers = available_parallelism().get();
    let threads = ThreadPoolBuilder::new().num_threads(workers).build().expect("threads");
    let pool = Pool::builder().workers(workers).build().expect("a pool");
    call(&mut criterion, &threads, &pool);
    map(&mut criterion, &threads, &pool);
    cpu_bound(&mut criterion, &threads, &pool);
    criterion.final_summary();
}
