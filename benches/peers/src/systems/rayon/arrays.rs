//! A `Vec` and the parallel iterators of rayon.

use std::sync::Arc;

use anyhow::Result;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::settings::WORKERS;
use crate::systems::arrays::{Arrays, CHUNK, Frozen, element, ends, mirror, sum};

/// A vector and a thread pool.
pub struct Array {
    /// The vector.
    values: Vec<f64>,
    /// The threads.
    pool: ThreadPool,
}

/// A vector that threads share, and a thread pool.
pub struct SharedArray {
    /// The vector.
    values: Arc<Vec<f64>>,
    /// The threads.
    pool: ThreadPool,
}

impl Arrays for Array {
    type Frozen = SharedArray;

    const NAME: &'static str = "rayon";

    fn create(len: usize) -> Result<Array> {
        Ok(Array {
            values: (0..len).map(element).collect(),
            pool: ThreadPoolBuilder::new().num_threads(WORKERS).build()?,
        })
    }

    fn sum(&mut self) -> Result<f64> {
        Ok(self.pool.install(|| self.values.par_chunks(CHUNK).map(sum).sum()))
    }

    fn mirror(&mut self) -> Result<()> {
        self.pool.install(|| self.values.par_chunks_mut(CHUNK).for_each(mirror));
        Ok(())
    }

    fn values(&self) -> &[f64] {
        &self.values
    }

    fn freeze(self) -> Result<SharedArray> {
        Ok(SharedArray { values: Arc::new(self.values), pool: self.pool })
    }
}

impl Frozen for SharedArray {
    fn send(&mut self) -> Result<f64> {
        let values = Arc::clone(&self.values);
        Ok(self.pool.install(move || ends(&values)))
    }
}
