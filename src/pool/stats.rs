use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A snapshot of what a pool does; see [`Pool::stats`](crate::Pool::stats).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Items that wait for a worker.
    pub queued: u64,
    /// Items that are with a worker: running, or next in line there.
    pub running: u64,
    /// Items that returned a value.
    pub done: u64,
    /// Items that ended with an error.
    pub failed: u64,
    /// Workers that were replaced, for whatever reason.
    pub restarts: u64,
    /// The workers that are alive.
    pub workers: Vec<WorkerStats>,
}

/// What one worker of a pool has done; see [`PoolStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its process id.
    pub pid: u32,
    /// How long it had work to do.
    pub busy: Duration,
    /// How many items it finished.
    pub items: u64,
}
