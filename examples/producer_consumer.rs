//! Producers and consumers with a small buffer between them: a condition tells who waits that the
//! buffer has changed.
//!
//! (For sending values from process to process a queue is easier; this shows what is under one.)
//!
//! `cargo run --example producer_consumer`

use multiproc::{Condition, Mutex, Process};

const ITEMS: u64 = 10_000;
const PRODUCERS: u64 = 2;
const SIZE: usize = 8;

/// `[how many items are in it, the items]`
type Buffer = Mutex<[u64; 1 + SIZE]>;

fn produce(first: u64, buffer: Buffer, changed: Condition) -> multiproc::Result<()> {
    for item in (first..ITEMS).step_by(PRODUCERS as usize) {
        let buffer = buffer.lock()?;
        let is_full = |buffer: &mut [u64; 1 + SIZE]| buffer[0] == SIZE as u64;
        let mut buffer = changed.wait_while(buffer, is_full)?;
        buffer[0] += 1;
        let last = buffer[0] as usize;
        buffer[last] = item;
        changed.notify_all();
    }
    Ok(())
}

fn consume(items: u64, buffer: Buffer, changed: Condition) -> multiproc::Result<u64> {
    let mut sum = 0;
    for _ in 0..items {
        let buffer = buffer.lock()?;
        let is_empty = |buffer: &mut [u64; 1 + SIZE]| buffer[0] == 0;
        let mut buffer = changed.wait_while(buffer, is_empty)?;
        let last = buffer[0] as usize;
        sum += buffer[last];
        buffer[0] -= 1;
        changed.notify_all();
    }
    Ok(sum)
}

fn main() -> multiproc::Result<()> {
    let (buffer, changed) = (Buffer::new([0; 1 + SIZE])?, Condition::new()?);
    let (mut producers, mut consumers) = (Vec::new(), Vec::new());
    for share in [ITEMS / 4, ITEMS - ITEMS / 4] {
        consumers.push(Process::spawn(consume, (share, buffer.clone(), changed.clone()))?);
    }
    for first in 0..PRODUCERS {
        producers.push(Process::spawn(produce, (first, buffer.clone(), changed.clone()))?);
    }
    producers.iter_mut().try_for_each(|producer| producer.join()?)?;
    let sums = consumers.iter_mut().map(|consumer| consumer.join()?);
    let sums = sums.collect::<multiproc::Result<Vec<u64>>>()?;
    println!("{PRODUCERS} producers made {ITEMS} items; the sums of the consumers are {sums:?}");
    assert_eq!(sums.iter().sum::<u64>(), (0..ITEMS).sum());
    Ok(())
}
