//! Sizes and times, which depend on `--quick` alone.

use std::time::Duration;

use crate::workload::{BLOCKS_ROOM, NUMBERS_ROOM, Workload};

/// Workers of a pool wherever the workload does not say otherwise.
pub const WORKERS: usize = 2;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether `--quick` was given.
    pub quick: bool,
}

impl Settings {
    /// How often each system is sampled for a workload.
    pub fn runs(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// Once the samples of one system for one workload took this long
    /// together, no more are taken.
    pub fn budget(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 20 })
    }

    /// Once everything together took this long, each system is sampled only once
    /// for a workload, so that `--quick` ends in time on a busy machine too.
    pub fn patience(&self) -> Duration {
        if self.quick { Duration::from_secs(50) } else { Duration::MAX }
    }

    /// A sample that takes longer than this has failed.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(if self.quick { 10 } else { 400 })
    }

    /// A growth workload that would, going by the next smaller one, take
    /// longer than this is skipped.
    pub fn growth_limit(&self) -> Duration {
        Duration::from_secs(240)
    }

    /// How long a sample repeats an operation to average over.
    pub fn loop_time(&self) -> Duration {
        Duration::from_millis(if self.quick { 60 } else { 250 })
    }

    /// Tasks in one round of `tiny_tasks`.
    pub fn tiny_tasks(&self) -> u64 {
        if self.quick { 5_000 } else { 50_000 }
    }

    /// Bytes of the array of a workload which has one.
    ///
    /// A quarter of a GiB is far more than the caches hold and than is mapped by
    /// chance; what is measured per byte, or does not depend on the size, is the
    /// same with it.
    pub fn array_bytes(&self, workload: Workload) -> usize {
        match workload {
            Workload::ArraySum | Workload::FreezeSend if !self.quick => 1 << 30,
            _ => 256 << 20,
        }
    }

    /// As [`Settings::array_bytes`] for Python, which takes its time over each
    /// number.
    pub fn python_array_bytes(&self, workload: Workload) -> usize {
        match workload {
            Workload::ArraySum | Workload::ChunksMut if self.quick => 32 << 20,
            _ => self.array_bytes(workload),
        }
    }

    /// What has to be known of a workload besides its name.
    pub fn note(&self, workload: Workload) -> Option<String> {
        let size = self.array_bytes(workload) >> 20;
        let pythons = self.python_array_bytes(workload) >> 20;
        Some(match workload {
            Workload::Queue(1) => format!("room for {NUMBERS_ROOM}, std_channel has no bound"),
            Workload::Queue(_) => format!("room for {NUMBERS_ROOM}"),
            Workload::QueueBlocks => format!(
                "room for {BLOCKS_ROOM}, std_channel has no bound; \
                 processes copy twice, threads once"
            ),
            _ if !workload.has_array() => return None,
            Workload::FreezeSend => format!("{size} MiB, the same again and again"),
            _ if size == pythons => format!("{size} MiB"),
            _ => format!("{size} MiB, cpython {pythons} MiB"),
        })
    }

    /// Over how long `idle_cpu` watches.
    pub fn idle_window(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 5 })
    }

    /// Workers of `cpu_bound`: the cores of the machine.
    pub fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(WORKERS, usize::from)
    }
}
