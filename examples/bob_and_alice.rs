//! Bob and Alice talk: each has a queue for what is said to them, and answers through the other's.
//!
//! `cargo run --example bob_and_alice`

use multiproc::{Process, Queue, Result, current_process};

/// What one says to the other.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Line {
    /// A number to beat.
    Bid(u32),
    /// No more.
    Enough { bids: u32 },
}

/// Answers each bid with a higher one until the limit; how many bids there were.
fn haggle(heard: Queue<Line>, said: Queue<Line>, limit: u32) -> Result<u32> {
    let name = current_process().name().to_owned();
    let mut bids = 0;
    for line in &heard {
        bids += 1;
        match line? {
            Line::Bid(bid) if bid < limit => said.put(Line::Bid(bid + bid / 4 + 1))?,
            Line::Bid(bid) => {
                println!("{name}: {bid} is too much for me");
                said.put(Line::Enough { bids })?;
                break;
            }
            Line::Enough { bids: theirs } => {
                println!("{name}: then it is mine, after {theirs} of my bids");
                break;
            }
        }
    }
    Ok(bids)
}

fn main() -> Result<()> {
    let (to_bob, to_alice) = (Queue::new()?, Queue::new()?);
    let mut bob =
        Process::builder(haggle, (to_bob.clone(), to_alice.clone(), 500)).name("Bob").spawn()?;
    let mut alice =
        Process::builder(haggle, (to_alice, to_bob.clone(), 900)).name("Alice").spawn()?;
    to_bob.put(Line::Bid(10))?;
    let (bobs, alices) = (bob.join()??, alice.join()??);
    println!("Bob heard {bobs} lines, Alice {alices}");
    assert_eq!(bobs, alices, "the last word was heard, too");
    Ok(())
}
