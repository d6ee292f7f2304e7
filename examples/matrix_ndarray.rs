//! A product of matrices, each band of rows computed in place by a process of a pool.
//!
//! The elements lie in shared memory; `ndarray` gives them a shape, here and in the workers.
//!
//! `cargo run --release --features ndarray --example matrix_ndarray`

use multiproc::{FrozenVec, Pool, SharedVec};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Rows and columns of each matrix, and rows of a band.
const SIZE: usize = 600;
const ROWS: usize = 25;

/// Makes the band of rows of the product from the same rows of the left factor.
fn multiply(right: &FrozenVec<f64>, _: usize, (product, left): (&mut [f64], &[f64])) {
    let right = right.view((SIZE, SIZE)).expect("a square");
    let left = ArrayView2::from_shape((ROWS, SIZE), left).expect("a band");
    let mut product = ArrayViewMut2::from_shape((ROWS, SIZE), product).expect("a band");
    general_mat_mul(1.0, &left, &right, 0.0, &mut product);
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::new()?;
    let elements = |factor: usize| (0..SIZE * SIZE).map(move |i| (i * factor % 17) as f64);
    let left = SharedVec::try_from_iter(elements(3))?;
    let right = SharedVec::try_from_iter(elements(5))?.freeze()?; // all workers read all of it
    let mut product = SharedVec::zeroed(SIZE * SIZE)?;
    pool.for_each_chunk_mut_with(&right, (&mut product, &left), ROWS * SIZE, multiply)?;

    let square = (SIZE, SIZE);
    let product = product.view(square)?;
    println!("{} bands; their trace is {}", SIZE / ROWS, product.diag().sum());
    let expected = left.view(square)?.dot(&right.view(square)?);
    assert_eq!(product, expected, "as one process computes it alone");
    Ok(())
}
