//! Three stages in processes of their own, joined by queues: read, square, add up. Bounded queues
//! keep a fast stage from running far ahead of a slow one; each stage closes its output when its
//! input has ended, so the end runs through the pipeline by itself.
//!
//! `cargo run --example pipeline`

use multiproc::{Process, Queue, Result};

const NUMBERS: u64 = 10_000;

fn read(numbers: Queue<u64>) -> Result<()> {
    for number in 0..NUMBERS {
        numbers.put(number)?;
    }
    numbers.close();
    Ok(())
}

/// One of two squarers: the last one to end closes the output.
fn square(numbers: Queue<u64>, squares: Queue<u64>, done: Queue<()>) -> Result<u64> {
    let mut count = 0;
    for number in &numbers {
        let number = number?;
        squares.put(number * number)?;
        count += 1;
    }
    // There is one token; who finds none is the last.
    if done.try_get()?.is_none() {
        squares.close();
    }
    Ok(count)
}

fn add(squares: Queue<u64>) -> Result<u64> {
    squares.iter().sum()
}

fn main() -> Result<()> {
    let (numbers, squares) = (Queue::bounded(64)?, Queue::bounded(64)?);
    let done = Queue::new()?;
    done.put(())?;
    let mut reader = Process::spawn(read, (numbers.clone(),))?;
    let mut squarers = Vec::new();
    for _ in 0..2 {
        let queues = (numbers.clone(), squares.clone(), done.clone());
        squarers.push(Process::spawn(square, queues)?);
    }
    let mut adder = Process::spawn(add, (squares.clone(),))?;
    reader.join()??;
    let counts = squarers.iter_mut().map(|squarer| squarer.join()?).collect::<Result<Vec<_>>>()?;
    let sum = adder.join()??;
    println!("{NUMBERS} numbers, {counts:?} squared by each, their sum is {sum}");
    assert_eq!(sum, (0..NUMBERS).map(|number| number * number).sum());
    assert!(numbers.is_empty() && squares.is_closed());
    Ok(())
}
