//! Counts the words of many files: with one worker process, with one a CPU, and with threads.
//!
//! `cargo run --release --example wordcount [-- FOLDER]`
//!
//! Without a folder it counts the source files that cargo has fetched. The three ways call the
//! same function with the same batches of files, and each starts its own workers.

mod counts;
mod files;

use counts::Counts;
use indicatif::ProgressBar;
use multiproc::{Pool, available_parallelism};
use rayon::prelude::*;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Batch = Vec<OsString>;

const BATCHES_PER_CPU: usize = 16;

/// Each batch goes to a worker as a list of paths, and its counts come back.
fn with_processes(workers: usize, batches: Vec<Batch>, bar: &ProgressBar) -> Result<Counts> {
    let pool = Pool::builder().workers(workers).build()?;
    let count = |batch: Batch| Counts::default().and(batch);
    let mut total = Counts::default();
    for counts in pool.imap_unordered(count, batches)? {
        total = total.plus(counts?);
        bar.inc(1);
    }
    Ok(total)
}

/// Threads share memory, so that each adds batch after batch to the same counts.
fn with_threads(threads: usize, batches: Vec<Batch>, bar: &ProgressBar) -> Result<Counts> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let count = |counts: Counts, batch| {
        bar.inc(1);
        counts.and(batch)
    };
    let batches = batches.into_par_iter();
    Ok(pool.install(|| batches.fold(Counts::default, count).reduce(Counts::default, Counts::plus)))
}

fn main() -> Result<()> {
    let folder = files::folder();
    let paths = files::below(&folder)?;
    let cpus = available_parallelism().get();
    let batches: Vec<Batch> = paths
        .chunks(paths.len().div_ceil(BATCHES_PER_CPU * cpus).max(1))
        .map(<[_]>::to_vec)
        .collect();
    println!("{} files in {}", paths.len(), folder.display());
    files::read_once(&paths); // so that all three find them in memory

    let timed =
        |what: &str, way: fn(usize, Vec<Batch>, &ProgressBar) -> Result<Counts>, workers| {
            let bar = match std::io::stdout().is_terminal() {
                true => ProgressBar::new(batches.len() as u64),
                false => ProgressBar::hidden(),
            };
            let start = Instant::now();
            let counts = way(workers, batches.clone(), &bar)?;
            let time = start.elapsed();
            bar.finish_and_clear();
            println!("{:7.3} s with {workers} {what}", time.as_secs_f64());
            Result::Ok(counts)
        };
    let one = timed("process", with_processes, 1)?;
    let all = timed("processes", with_processes, cpus)?;
    let threads = timed("threads (rayon)", with_threads, cpus)?;
    assert!(one == all && all == threads, "the three ways must count the same");

    println!("{one}");
    Ok(())
}
