//! A vector in shared memory, lent to a pool of processes.

use anyhow::Result;
use multiproc::{FrozenVec, Pool, SharedVec};

use crate::settings::WORKERS;
use crate::systems::arrays::{Arrays, CHUNK, Frozen, element, ends, mirror, sum};

/// A vector and a pool.
pub struct Array {
    /// The vector.
    values: SharedVec<f64>,
    /// The processes.
    pool: Pool,
}

/// A frozen vector and a pool.
pub struct FrozenArray {
    /// The vector.
    values: FrozenVec<f64>,
    /// The processes.
    pool: Pool,
}

impl Arrays for Array {
    type Frozen = FrozenArray;

    const NAME: &'static str = "multiproc";

    fn create(len: usize) -> Result<Array> {
        let pool = Pool::builder().workers(WORKERS).build()?;
        let mut values = SharedVec::zeroed(len)?;
        for (index, value) in values.iter_mut().enumerate() {
            *value = element(index);
        }
        Ok(Array { values, pool })
    }

    fn sum(&mut self) -> Result<f64> {
        Ok(self.pool.map_chunks(&self.values, CHUNK, sum)?.into_iter().sum())
    }

    fn mirror(&mut self) -> Result<()> {
        Ok(self.pool.for_each_chunk_mut(&mut self.values, CHUNK, mirror)?)
    }

    fn values(&self) -> &[f64] {
        &self.values
    }

    fn freeze(self) -> Result<FrozenArray> {
        Ok(FrozenArray { values: self.values.freeze()?, pool: self.pool })
    }
}

impl Frozen for FrozenArray {
    fn send(&mut self) -> Result<f64> {
        let read = |values: FrozenVec<f64>| ends(&values);
        Ok(self.pool.apply(read, (self.values.clone(),))?)
    }
}
