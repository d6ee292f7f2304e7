//! The job of `cpu_bound`: primes below [`LIMIT`], counted by trial division.

/// The job counts the primes below this.
const LIMIT: u64 = 5_000_000;

/// How many there are.
pub const COUNT: u64 = 348_513;

/// Into how many spans the job is cut.
const SPANS: u64 = 128;

/// The spans `[from, to)` of the job.
///
/// They are uneven twice over: each is longer than the one before, and a larger
/// number takes more divisions. The last takes some two hundred times as long as
/// the tenth.
pub fn spans() -> Vec<(u64, u64)> {
    let bound = |i: u64| LIMIT * i * i / (SPANS * SPANS);
    (0..SPANS).map(|i| (bound(i), bound(i + 1))).collect()
}

/// Counts the primes of a span.
pub fn count((from, to): (u64, u64)) -> u64 {
    (from..to).filter(|&n| is_prime(n)).count() as u64
}

/// Divides by everything up to the square root; deliberately not clever.
fn is_prime(n: u64) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= n {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    n >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_below_a_hundred() {
        assert_eq!(count((0, 100)), 25);
        assert_eq!(count((97, 98)), 1);
    }

    #[test]
    fn spans_cover_everything_once() {
        let spans = spans();
        assert_eq!(spans.first().unwrap().0, 0);
        assert_eq!(spans.last().unwrap().1, LIMIT);
        assert!(spans.windows(2).all(|pair| pair[0].1 == pair[1].0));
    }
}
