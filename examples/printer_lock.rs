//! A lock keeps the lines of several processes whole.
//!
//! Each process prints its lines letter by letter. Whoever has the lock finishes its line before
//! the next one begins; `main` reads what they printed, and checks that.
//!
//! `cargo run --example printer_lock`

use multiproc::{Lock, Process, Stdio};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write, stdout};

const COPIES: usize = 200;
const TEXTS: [&str; 4] = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
    "how vexingly quick daft zebras jump",
    "sphinx of black quartz, judge my vow",
];

fn print(lock: Lock, text: String) -> std::io::Result<()> {
    for _ in 0..COPIES {
        let _line = lock.lock().expect("nobody dies while printing");
        for letter in text.chars() {
            print!("{letter}");
            stdout().flush()?; // so that each letter is written by itself
        }
        println!();
    }
    Ok(())
}

/// Starts the printing processes, which have its stdout.
fn office() {
    let lock = Lock::new().expect("a lock");
    let start = |text: &str| {
        let print = |lock, text| print(lock, text).expect("stdout is open");
        Process::spawn(print, (lock.clone(), text.to_owned())).expect("a process")
    };
    let mut printing = TEXTS.map(start);
    printing.iter_mut().for_each(|process| process.join().expect("all lines printed"));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut process = Process::builder(office, ()).stdout(Stdio::Piped).spawn()?;
    let output = BufReader::new(process.stdout.take().expect("a pipe"));
    let mut copies = BTreeMap::new();
    for line in output.lines() {
        *copies.entry(line?).or_insert(0) += 1;
    }
    process.join()?;
    for (line, times) in &copies {
        println!("{times} times: {line}");
    }
    assert!(TEXTS.iter().all(|text| copies[*text] == COPIES));
    assert_eq!(copies.len(), TEXTS.len(), "there is no other line");
    Ok(())
}
