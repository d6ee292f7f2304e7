//! The first minute: a pool, a map, a call.
//!
//! `cargo run --example quickstart`

use multiproc::Pool;

fn square(x: u64) -> u64 {
    x * x
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?; // one worker process per available CPU
    assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]); // no init(), no main guard, no macro
    assert_eq!(pool.apply(|a: u64, b: u64| a + b, (2, 3))?, 5); // non-capturing closures too
    println!("{} workers, five squares, one sum", pool.worker_pids().len());
    Ok(())
}
