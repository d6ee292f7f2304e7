//! Bytes to a worker and back: the throughput is that of one direction.
//!
//! `cargo bench --bench payload`

use criterion::{BenchmarkId, Criterion, Throughput};
use multiproc::Pool;
use std::time::Duration;

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let pool = Pool::builder().workers(1).build().expect("a pool");
    let mut group = criterion.benchmark_group("echo");
    for (name, len) in [("1KiB", 1 << 10), ("1MiB", 1 << 20), ("16MiB", 16 << 20)] {
        group.throughput(Throughput::Bytes(len));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            // What comes back is what goes out next, so that no copy is made for the benchmark.
            let mut bytes = vec![7; len as usize];
            bencher.iter(|| {
                bytes = pool.apply(echo, (std::mem::take(&mut bytes),)).expect("the bytes");
            });
            assert!(bytes.len() as u64 == len && bytes.iter().all(|byte| *byte == 7));
        });
    }
    group.finish();
    criterion.final_summary();
}
