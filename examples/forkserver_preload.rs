//! State that is expensive to make and that all workers read: made once, in the fork server,
//! before any worker exists, and shared by all of them copy-on-write.
//!
//! `cargo run --example forkserver_preload`

use multiproc::{Pool, StartMethod, set_forkserver_preload};
use std::process;
use std::sync::OnceLock;

struct Sieve {
    is_prime: Vec<bool>,
    made_by: u32,
}

static SIEVE: OnceLock<Sieve> = OnceLock::new();

/// The sieve of Eratosthenes, which stands for a model, a dictionary or an index.
fn make_sieve() {
    let mut is_prime = vec![true; 1_000_000];
    is_prime[..2].fill(false);
    for n in 2..1000 {
        if is_prime[n] {
            (n * n..is_prime.len()).step_by(n).for_each(|multiple| is_prime[multiple] = false);
        }
    }
    let _ = SIEVE.set(Sieve { is_prime, made_by: process::id() });
}

/// How many primes there are below `n`, who made the sieve, and who read it.
fn primes_below(n: usize) -> (usize, u32, u32) {
    let sieve = SIEVE.get().expect("the server made it before this worker was forked");
    let count = sieve.is_prime[..n].iter().filter(|is_prime| **is_prime).count();
    (count, sieve.made_by, process::id())
}

fn main() -> multiproc::Result<()> {
    set_forkserver_preload(make_sieve)?; // before the first use of the server
    let pool = Pool::builder().workers(4).start_method(StartMethod::ForkServer).build()?;

    let limits = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let answers = pool.map(primes_below, limits)?;
    for (n, (count, made_by, read_by)) in limits.iter().zip(&answers) {
        println!("{count:5} primes below {n:7}: made by process {made_by}, read by {read_by}");
    }

    let counts: Vec<_> = answers.iter().map(|(count, ..)| *count).collect();
    assert_eq!(counts, [4, 25, 168, 1_229, 9_592, 78_498]);
    let server = answers[0].1;
    assert!(answers.iter().all(|(_, made_by, _)| *made_by == server), "it was made once");
    assert!(answers.iter().all(|(.., read_by)| *read_by != server), "by the server, for others");
    assert!(SIEVE.get().is_none(), "and not in this process");
    Ok(())
}
