//! How work on an array in place, and handing an array over, are measured, once
//! for all systems.

use std::marker::PhantomData;

use anyhow::{Result, bail, ensure};

use super::{Part, System};
use crate::measure::per_op;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::Workload;

/// Numbers in a part of an array which is given to a worker: 1 MiB of them.
///
/// The systems which hand out parts by themselves are told to make them so large.
pub const CHUNK: usize = 1 << 17;

/// How often an array is worked on before it is measured.
///
/// With the first time, each worker maps the pages of the parts that it is given.
/// It is given others the next time; after this often it has seen nearly all.
const WARM_UP: usize = 4;

/// The numbers repeat after so many.
const PERIOD: usize = 1000;

/// An array, and workers for it.
///
/// It has [`element`] at every index when it is made. The operations are written
/// as a user of the system would.
pub trait Arrays: Sized {
    /// An array which cannot change any more, and workers.
    type Frozen: Frozen;

    /// The name of the system, see [`System::name`].
    const NAME: &'static str;

    /// Starts [`crate::settings::WORKERS`] workers, and makes an array of so many.
    fn create(len: usize) -> Result<Self>;

    /// Adds up the whole array, by [`sum`] of its chunks on the workers.
    fn sum(&mut self) -> Result<f64>;

    /// Changes the whole array, by [`mirror`] of its chunks on the workers.
    fn mirror(&mut self) -> Result<()>;

    /// The array.
    fn values(&self) -> &[f64];

    /// Makes it immutable, without a copy.
    fn freeze(self) -> Result<Self::Frozen>;
}

/// An array which cannot change any more, and workers.
pub trait Frozen {
    /// Hands the array to a task on a worker, which returns [`ends`] of it.
    fn send(&mut self) -> Result<f64>;
}

/// The number at this index.
pub fn element(index: usize) -> f64 {
    (index % PERIOD) as f64
}

/// The sum of a part of an array; the numbers are such that no order of adding
/// rounds.
///
/// In eight lanes, because one after the other the additions would take more time
/// than the memory does.
pub fn sum(chunk: &[f64]) -> f64 {
    let (eights, rest) = chunk.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value;
        }
    }
    lanes.iter().chain(rest).sum()
}

/// Changes a part of an array; done twice it is what it was.
pub fn mirror(chunk: &mut [f64]) {
    for value in chunk {
        *value = PERIOD as f64 - *value;
    }
}

/// What a task reads of an array that it was handed: both ends.
pub fn ends(values: &[f64]) -> f64 {
    match (values.first(), values.last()) {
        (Some(first), Some(last)) => first + last,
        _ => f64::NAN,
    }
}

/// [`Arrays`] as a [`System`].
pub struct InPlace<A>(PhantomData<A>);

impl<A> InPlace<A> {
    /// The only one there is.
    pub fn new() -> InPlace<A> {
        InPlace(PhantomData)
    }
}

impl<A: Arrays> System for InPlace<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        if workload.has_array() { Part::Takes } else { Part::None }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let bytes = settings.array_bytes(workload);
        let len = bytes / size_of::<f64>();
        let array = A::create(len)?;
        Sample::here(match workload {
            Workload::ArraySum => bytes as f64 / 1e9 / sums(array, settings)?,
            Workload::ChunksMut => bytes as f64 / 1e9 / mirrors(array, settings)?,
            Workload::FreezeSend => sends(array.freeze()?, len, settings)? * 1e6,
            _ => bail!("{} does no such thing to an array", A::NAME),
        })
    }
}

/// Seconds per sum.
fn sums(mut array: impl Arrays, settings: &Settings) -> Result<f64> {
    let expected = sum(array.values());
    let mut check = || {
        let sum = array.sum()?;
        ensure!(sum == expected, "the sum is {sum}, not {expected}");
        Ok(())
    };
    (0..WARM_UP).try_for_each(|_| check())?;
    per_op(settings.loop_time(), check)
}

/// Seconds per change of the whole array.
fn mirrors(mut array: impl Arrays, settings: &Settings) -> Result<f64> {
    let mut times = 0;
    let mut mirror = || {
        times += 1;
        array.mirror()
    };
    (0..WARM_UP).try_for_each(|_| mirror())?;
    let each = per_op(settings.loop_time(), mirror)?;
    let expected = |index| match times % 2 {
        0 => element(index),
        _ => PERIOD as f64 - element(index),
    };
    let right = array.values().iter().enumerate().all(|(index, value)| *value == expected(index));
    ensure!(right, "the array is wrong after {times} changes");
    Ok(each)
}

/// Seconds per array that is handed over.
fn sends(mut frozen: impl Frozen, len: usize, settings: &Settings) -> Result<f64> {
    let expected = element(0) + element(len - 1);
    per_op(settings.loop_time(), || {
        let ends = frozen.send()?;
        ensure!(ends == expected, "the task read {ends}, not {expected}");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_exact() {
        let values: Vec<f64> = (0..10_003).map(element).collect();
        assert_eq!(sum(&values), 10.0 * 499_500.0 + 3.0);
    }

    #[test]
    fn mirrored_twice_is_as_before() {
        let mut values = [0.0, 1.0, 999.0];
        mirror(&mut values);
        assert_eq!(values, [1000.0, 999.0, 1.0]);
        mirror(&mut values);
        assert_eq!(values, [0.0, 1.0, 999.0]);
    }

    #[test]
    fn both_ends_are_read() {
        assert_eq!(ends(&[1.0, 7.0, 2.0]), 3.0);
    }
}
