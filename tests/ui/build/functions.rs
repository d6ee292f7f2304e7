//! Function items, methods, and closures that capture nothing.

use multiproc::{Pool, Process};

fn square(x: u64) -> u64 {
    x * x
}

#[multiproc::task]
fn cube(x: u64) -> u64 {
    x * x * x
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::builder().workers(1).build()?;
    assert_eq!(pool.map(square, [3])?, [9]);
    assert_eq!(pool.map(cube, [3])?, [27]);
    assert_eq!(pool.apply(|a: u64, b: u64| a * b, (3, 5))?, 15);
    assert_eq!(Process::spawn(u64::pow, (3, 2))?.join()?, 9);
    Ok(())
}
