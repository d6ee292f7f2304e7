//! Deadlines on the monotonic clock.

use std::time::{Duration, Instant};

/// A clock that costs a third of [`Instant`], for asking whether a moment has passed: it counts about
/// a nanosecond or less at a time, never stands still, and may differ a little between processors.
#[inline]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: reading the counter has no preconditions but that the processor has it, which all
        // of this architecture do.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        // One ahead: zero is long ago.
        START.elapsed().as_nanos() as u64 + (1 << 32)
    }
}

/// A point in time to give up at, or never.
///
/// A duration that the clock cannot represent (centuries) means never; zero means "now", so a
/// wait with it is a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits for ever.
    pub(crate) const NEVER: Self = Self(None);

    /// The deadline of who only tries: it has passed.
    pub(crate) fn now() -> Self {
        Self(Some(Instant::now()))
    }

    /// The deadline `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// The deadline `timeout` from now, or never.
    pub(crate) fn after_opt(timeout: Option<Duration>) -> Self {
        timeout.map_or(Self::NEVER, Self::after)
    }

    /// The deadline at a point in time.
    pub(crate) fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// Whether the deadline has been reached.
    pub(crate) fn passed(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// The time left, or `None` for never.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The time left in whole milliseconds, rounded up, as `poll` and `epoll_wait` take it:
    /// -1 for never. A long wait is cut to about 24 days; callers loop.
    pub(crate) fn poll_millis(self) -> i32 {
        match self.remaining() {
            None => -1,
            Some(left) => left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32,
        }
    }

    /// The later of two deadlines.
    pub(crate) fn max(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.max(b))),
            _ => Self::NEVER,
        }
    }

    /// The earlier of two deadlines.
    pub(crate) fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centuries_mean_never_and_zero_means_now() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert!(Deadline::after(Duration::ZERO).passed() && Deadline::now().passed());
        assert_eq!(Deadline::now().poll_millis(), 0);
        assert_eq!(Deadline::NEVER.poll_millis(), -1);
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(9));
        assert_eq!(soon.min(late), soon);
        assert_eq!(Deadline::NEVER.min(late), late);
    }
}
