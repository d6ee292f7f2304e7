//! `map` over a million numbers with the chunks that the pool chooses, and its relatives.
//!
//! `cargo bench --bench map`

use criterion::{Criterion, Throughput};
use multiproc::Pool;
use std::time::Duration;

const ITEMS: u64 = 1_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let pool = Pool::builder().workers(2).build().expect("a pool");
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(ITEMS));

    group.bench_function("map", |bencher| {
        bencher.iter(|| pool.map(|x: u64| x.wrapping_mul(x), 0..ITEMS).expect("values"));
    });
    group.bench_function("starmap", |bencher| {
        let pairs = || (0..ITEMS).map(|x| (x, x + 1));
        bencher.iter(|| pool.starmap(u64::wrapping_mul, pairs()).expect("values"));
    });
    group.bench_function("map_with", |bencher| {
        let scale = |factor: &u64, x: u64| x.wrapping_mul(*factor);
        bencher.iter(|| pool.map_with(&3, scale, 0..ITEMS).expect("values"));
    });
    group.bench_function("imap_unordered", |bencher| {
        let pool = pool.chunks_of(10_000).expect("a chunk size");
        bencher.iter(|| {
            let squares = pool.imap_unordered(|x: u64| x.wrapping_mul(x), 0..ITEMS);
            squares.expect("an open pool").fold(0, |sum: u64, x| sum ^ x.expect("a value"))
        });
    });
    group.finish();
    criterion.final_summary();
}
