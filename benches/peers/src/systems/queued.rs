//! How queues are measured, once for all systems.
//!
//! A party is a thread or a process, whichever the system is about. Half of them put
//! items into one queue, the others take them out; the caller is one of these.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Part, System};
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{BLOCK, BLOCKS_ROOM, NUMBERS_ROOM, Workload};

/// Items of each producer in the first trial.
pub const TRIAL: u64 = 1000;

/// How many times as many are in the next trial, until one takes long enough.
const GROWTH: u64 = 8;

/// What goes through a queue.
pub trait Item: Clone + Send + 'static {
    /// How many of them the queue holds.
    const ROOM: usize;

    /// The first item of a producer.
    fn first() -> Self;

    /// Makes it the one of this number.
    fn renumber(&mut self, number: u64);

    /// Its number; an error if it is damaged.
    fn number(&self) -> Result<u64>;
}

impl Item for u64 {
    const ROOM: usize = NUMBERS_ROOM;

    fn first() -> u64 {
        0
    }

    fn renumber(&mut self, number: u64) {
        *self = number;
    }

    fn number(&self) -> Result<u64> {
        Ok(*self)
    }
}

/// A block of bytes, whose number is at both ends.
impl Item for Vec<u8> {
    const ROOM: usize = BLOCKS_ROOM;

    fn first() -> Vec<u8> {
        let mut block: Vec<u8> = (0..=u8::MAX).cycle().take(BLOCK).collect();
        block.renumber(0);
        block
    }

    fn renumber(&mut self, number: u64) {
        let number = number.to_ne_bytes();
        if let Some(first) = self.first_chunk_mut() {
            *first = number;
        }
        if let Some(last) = self.last_chunk_mut() {
            *last = number;
        }
    }

    fn number(&self) -> Result<u64> {
        number_of_block(self)
    }
}

/// The number of a block of bytes; an error if it is damaged.
pub fn number_of_block(block: &[u8]) -> Result<u64> {
    let first = block.first_chunk().context("a block is too short")?;
    ensure!(block.len() == BLOCK && block.last_chunk() == Some(first), "a block is damaged");
    Ok(u64::from_ne_bytes(*first))
}

/// Who puts how much.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// How many producers, and how many consumers.
    pub pairs: usize,
    /// The items that each of them puts or takes, after a warm-up of a quarter of that.
    pub items: u64,
}

impl Shape {
    /// All parties.
    pub fn parties(self) -> usize {
        2 * self.pairs
    }

    /// Of each producer or consumer, the items of the warm-up and those after it.
    fn phases(self) -> [u64; 2] {
        [self.items / 4, self.items]
    }

    /// What the numbers of all items add up to.
    fn sum(self) -> u64 {
        let sums = self.phases().map(|items| items * items.saturating_sub(1) / 2);
        self.pairs as u64 * sums.iter().sum::<u64>()
    }
}

/// What a consumer, or all of them, took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// The numbers of the items, added up.
    pub sum: u64,
    /// How long all parties took for what came after the warm-up.
    pub time: Duration,
}

/// A kind of queue.
///
/// Each method makes one with room for [`Item::ROOM`], starts the parties, which
/// [`produce`] and [`consume`], and waits for them. The items are put and taken as a
/// user of the system would. If a party fails the others may wait for ever, until the
/// sampling process is killed.
pub trait Queues {
    /// The name of the system, see [`System::name`].
    const NAME: &'static str;

    /// How many parties can take from one queue at most.
    const CONSUMERS: usize;

    /// Numbers.
    fn numbers(shape: Shape) -> Result<Taken>;

    /// Blocks of [`BLOCK`] bytes. A producer keeps its own, so that there is a copy between
    /// threads too; a consumer has what it took for itself, and looks only at both ends
    /// of it. Between threads these bytes never come to the consumer's core.
    fn blocks(shape: Shape) -> Result<Taken>;
}

/// The life of a producer. `meet` waits for all other parties.
pub fn produce<T: Item>(
    shape: Shape,
    mut item: T,
    mut put: impl FnMut(&T) -> Result<()>,
    mut meet: impl FnMut() -> Result<()>,
) -> Result<()> {
    for items in shape.phases() {
        meet()?;
        for number in 0..items {
            item.renumber(number);
            put(&item)?;
        }
    }
    meet()
}

/// The life of a consumer; `take` takes an item and returns its number.
pub fn consume(
    shape: Shape,
    mut take: impl FnMut() -> Result<u64>,
    mut meet: impl FnMut() -> Result<()>,
) -> Result<Taken> {
    let mut sum = 0u64;
    let mut start = Instant::now();
    for items in shape.phases() {
        meet()?;
        start = Instant::now();
        for _ in 0..items {
            // A system that damages numbers must not end this by an overflow.
            sum = sum.wrapping_add(take()?);
        }
    }
    meet()?;
    Ok(Taken { sum, time: start.elapsed() })
}

/// [`Queues`] as a [`System`].
pub struct Queued<Q>(PhantomData<Q>);

impl<Q> Queued<Q> {
    /// The only one there is.
    pub fn new() -> Queued<Q> {
        Queued(PhantomData)
    }
}

impl<Q: Queues> System for Queued<Q> {
    fn name(&self) -> &'static str {
        Q::NAME
    }

    fn probe(&self) -> Result<()> {
        Ok(())
    }

    fn part(&self, workload: Workload, _: &Settings) -> Part {
        match workload {
            Workload::Queue(pairs) if pairs <= Q::CONSUMERS => Part::Takes,
            Workload::QueueBlocks => Part::Takes,
            _ => Part::None,
        }
    }

    fn sample(&self, workload: Workload, settings: &Settings) -> Result<Sample> {
        let time = settings.loop_time();
        Sample::here(match workload {
            Workload::Queue(pairs) => rate(time, pairs, Q::numbers)?,
            Workload::QueueBlocks => BLOCK as f64 / 1e9 * rate(time, 1, Q::blocks)?,
            _ => bail!("{} has no such queue", Q::NAME),
        })
    }
}

/// Items per second, all producers together, in so many of them that they take about
/// this time.
fn rate(time: Duration, pairs: usize, run: fn(Shape) -> Result<Taken>) -> Result<f64> {
    let timed = |items| {
        let shape = Shape { pairs, items };
        let taken = run(shape)?;
        let expected = shape.sum();
        ensure!(taken.sum == expected, "the items add up to {}, not {expected}", taken.sum);
        Ok::<f64, anyhow::Error>(taken.time.as_secs_f64())
    };
    let target = time.as_secs_f64();
    let mut items = TRIAL;
    let mut trial = timed(items)?;
    // The first items after the start are slower than the others.
    while trial < target / 4.0 {
        items *= GROWTH;
        trial = timed(items)?;
    }
    let items = (items as f64 * target / trial) as u64;
    Ok(pairs as f64 * items as f64 / timed(items)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_block_has_its_number_at_both_ends() {
        let mut block = Vec::<u8>::first();
        block.renumber(1 << 40);
        assert_eq!(block.number().unwrap(), 1 << 40);
        block[BLOCK - 1] += 1;
        assert!(block.number().is_err());
        assert!(number_of_block(&[0; 16]).is_err());
    }

    #[test]
    fn the_sum_counts_the_warm_up_of_every_pair() {
        let shape = Shape { pairs: 3, items: 8 };
        assert_eq!(shape.sum(), 3 * (1 + 28));
        let (items, meetings) = (Cell::new(0), Cell::new(0));
        let meet = || {
            meetings.set(meetings.get() + 1);
            Ok(())
        };
        let put = |item: &u64| {
            items.set(items.get() + *item);
            Ok(())
        };
        produce(shape, 0, put, meet).unwrap();
        assert_eq!((items.get(), meetings.get()), (29, 3));
        assert_eq!(consume(shape, || Ok(1), meet).unwrap().sum, 10);
        assert_eq!(meetings.get(), 6);
    }
}
