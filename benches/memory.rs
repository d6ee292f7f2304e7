//! Vectors in shared memory: what it costs to make, lend, grow and send them, beside a `Vec` and
//! rayon where these can do the same.
//!
//! `cargo bench --bench memory`

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use multiproc::{FrozenVec, HugePages, Pool, SharedVec, VecOptions};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Duration;

/// Numbers in a vector: 64 MiB of them.
const LEN: usize = 1 << 23;
/// Numbers in a chunk: 1 MiB of them.
const CHUNK: usize = 1 << 17;
/// Chunks that are so small that only handing them out matters.
const TINY_CHUNKS: usize = 10_000;

fn change(chunk: &mut [f64]) {
    for value in chunk {
        *value = 1.0 - *value;
    }
}

fn ends(values: FrozenVec<f64>) -> f64 {
    values[0] + values[values.len() - 1]
}

fn huge() -> VecOptions {
    VecOptions::new().huge_pages(HugePages::Transparent)
}

/// From nothing to memory that has been written to.
fn create(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.bench_function("create/vec", |bencher| {
        bencher.iter_with_large_drop(|| std::hint::black_box(vec![1.0; LEN]));
    });
    group.bench_function("create/multiproc", |bencher| {
        let create = || {
            let mut values = SharedVec::<f64>::zeroed(LEN).expect("memory");
            values.fill(1.0);
            values
        };
        bencher.iter_with_large_drop(create);
    });
    group.bench_function("create/multiproc_huge", |bencher| {
        let create = || {
            let mut values = huge().zeroed::<f64>(LEN).expect("memory");
            values.fill(1.0);
            values
        };
        bencher.iter_with_large_drop(create);
    });
}

/// Work in place on a vector that the workers see for the first time.
fn first(group: &mut BenchmarkGroup<'_, WallTime>, threads: &ThreadPool, pool: &Pool) {
    group.bench_function("first/rayon", |bencher| {
        let work = |mut values: Vec<f64>| {
            threads.install(|| values.par_chunks_mut(CHUNK).for_each(change));
            values
        };
        bencher.iter_batched(|| vec![1.0; LEN], work, BatchSize::PerIteration);
    });
    for (name, options) in
        [("first/multiproc", VecOptions::new()), ("first/multiproc_huge", huge())]
    {
        group.bench_function(name, |bencher| {
            let create = || {
                let mut values = options.zeroed::<f64>(LEN).expect("memory");
                values.fill(1.0);
                values
            };
            let work = |mut values: SharedVec<f64>| {
                pool.for_each_chunk_mut(&mut values, CHUNK, change).expect("changes");
                values
            };
            bencher.iter_batched(create, work, BatchSize::PerIteration);
        });
    }
}

/// Work in place on a vector that the workers have seen before.
fn again(group: &mut BenchmarkGroup<'_, WallTime>, threads: &ThreadPool, pool: &Pool) {
    group.bench_function("again/rayon", |bencher| {
        let mut values = vec![1.0; LEN];
        let mut work = || values.par_chunks_mut(CHUNK).for_each(change);
        bencher.iter(|| threads.install(&mut work));
    });
    for (name, options) in
        [("again/multiproc", VecOptions::new()), ("again/multiproc_huge", huge())]
    {
        group.bench_function(name, |bencher| {
            let mut values = options.zeroed::<f64>(LEN).expect("memory");
            bencher.iter(|| pool.for_each_chunk_mut(&mut values, CHUNK, change).expect("changes"));
        });
    }
}

/// Chunks with next to nothing in them.
fn tiny_chunks(criterion: &mut Criterion, threads: &ThreadPool, pool: &Pool) {
    let mut group = criterion.benchmark_group("tiny_chunks");
    group.throughput(Throughput::Elements(TINY_CHUNKS as u64));
    group.bench_function("rayon", |bencher| {
        let mut values = vec![1.0; TINY_CHUNKS * 8];
        let mut work = || values.par_chunks_mut(8).for_each(change);
        bencher.iter(|| threads.install(&mut work));
    });
    group.bench_function("multiproc", |bencher| {
        let mut values = SharedVec::<f64>::zeroed(TINY_CHUNKS * 8).expect("memory");
        bencher.iter(|| pool.for_each_chunk_mut(&mut values, 8, change).expect("changes"));
    });
    group.bench_function("multiproc_map", |bencher| {
        let values = SharedVec::<f64>::zeroed(TINY_CHUNKS * 8).expect("memory");
        bencher.iter(|| pool.map_chunks(&values, 8, |chunk| chunk[0]).expect("values"));
    });
}

/// One number after the other.
fn grow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grow");
    group.throughput(Throughput::Elements(CHUNK as u64));
    group.bench_function("vec", |bencher| {
        bencher.iter(|| {
            let mut values = Vec::new();
            (0..CHUNK as u64).for_each(|value| values.push(value));
            values
        });
    });
    group.bench_function("multiproc", |bencher| {
        bencher.iter(|| {
            let mut values = SharedVec::new().expect("memory");
            (0..CHUNK as u64).for_each(|value| values.push(value).expect("memory"));
            values
        });
    });
}

/// Frozen vectors, to a task that reads both ends.
fn freeze(criterion: &mut Criterion, pool: &Pool) {
    let mut group = criterion.benchmark_group("frozen_64MiB");
    let create = || SharedVec::<f64>::zeroed(LEN).expect("memory");
    group.bench_function("freeze", |bencher| {
        let freeze = |values: SharedVec<f64>| values.freeze().expect("a frozen vector");
        bencher.iter_batched(create, freeze, BatchSize::PerIteration);
    });
    group.bench_function("send_first", |bencher| {
        let create = || {
            let values = create().freeze().expect("a frozen vector");
            // Whoever forgets the previous vector last frees its pages, which is not to be measured
            // with this one; and the worker is to be awake.
            pool.chunks_of(1).expect("a size").map(|x: u64| x, 0..1000).expect("answers");
            values
        };
        let send = |values: FrozenVec<f64>| {
            pool.apply(ends, (values.clone(),)).expect("a sum");
            values
        };
        bencher.iter_batched(create, send, BatchSize::PerIteration);
    });
    group.bench_function("send_again", |bencher| {
        let values = create().freeze().expect("a frozen vector");
        bencher.iter(|| pool.apply(ends, (values.clone(),)).expect("a sum"));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let threads = ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let pool = Pool::builder().workers(2).build().expect("a pool");
    let mut group = criterion.benchmark_group("64MiB");
    group.throughput(Throughput::Bytes((LEN * size_of::<f64>()) as u64));
    create(&mut group);
    first(&mut group, &threads, &pool);
    again(&mut group, &threads, &pool);
    group.finish();
    tiny_chunks(&mut criterion, &threads, &pool);
    grow(&mut criterion);
    freeze(&mut criterion, &pool);
    criterion.final_summary();
}
