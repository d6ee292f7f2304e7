//! One argument of 2.2 GB, more than any 31-bit length holds.

#[path = "common/events.rs"]
mod common;

use common::Watchdog;
use multiproc::Pool;

const LEN: usize = 2_200_000_000;
const STEP: usize = 1_000_003;

fn byte_at(index: usize) -> u8 {
    (index / STEP % 251) as u8
}

/// The length, and a sum over marked bytes from the first to the last.
fn look(bytes: Vec<u8>) -> (usize, u64) {
    (bytes.len(), sum(&bytes))
}

fn sum(bytes: &[u8]) -> u64 {
    let marked = (0..bytes.len()).step_by(STEP).chain([bytes.len() - 1]);
    marked.fold(0, |sum: u64, index| sum.wrapping_mul(31) + u64::from(bytes[index]))
}

fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[test]
fn an_argument_of_more_than_two_gigabytes_arrives_whole() {
    let _dog = Watchdog::new("2.2 GB");
    if available_bytes() < 9 << 30 {
        println!("skipped: less than 9 GiB of memory are available");
        return;
    }
    let mut bytes = vec![0; LEN];
    for index in (0..LEN).step_by(STEP) {
        bytes[index] = byte_at(index);
    }
    bytes[LEN - 1] = 77;
    let expected = (LEN, sum(&bytes));
    let pool = Pool::builder().workers(1).build().expect("pool");
    assert_eq!(pool.apply(look, (bytes,)).expect("2.2 GB"), expected);
    assert_eq!(pool.apply(|| 1_u8, ()).expect("usable"), 1);
}
