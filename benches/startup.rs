//! A pool of two from its start to its end, and one process from its start to its join, with each
//! start method.
//!
//! `cargo bench --bench startup`

use criterion::{BenchmarkId, Criterion};
use multiproc::{Pool, Process, StartMethod};
use std::time::Duration;

// `Fork` is refused while there are other threads. There are none: criterion is built without
// rayon, and a pool's thread ends with it.
const METHODS: [StartMethod; 3] = [StartMethod::Spawn, StartMethod::ForkServer, StartMethod::Fork];

fn increment(x: u64) -> u64 {
    x + 1
}

/// Starts a pool of two, maps over four items, and stops it in good order.
fn pool(method: StartMethod) -> multiproc::Result<Vec<u64>> {
    let pool = Pool::builder().workers(2).start_method(method).build()?;
    let values = pool.map(increment, 0..4)?;
    pool.close();
    pool.join()?;
    Ok(values)
}

/// Starts one process and joins it.
fn process(method: StartMethod) -> multiproc::Result<u64> {
    Process::builder(increment, (1,)).start_method(method).spawn()?.join()
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("startup");
    for method in METHODS {
        group.bench_function(BenchmarkId::new("pool", format!("{method:?}")), |bencher| {
            bencher.iter(|| pool(method).expect("values"));
        });
    }
    for method in METHODS {
        group.bench_function(BenchmarkId::new("process", format!("{method:?}")), |bencher| {
            bencher.iter(|| process(method).expect("a value"));
        });
    }
    group.finish();
    criterion.final_summary();
}
