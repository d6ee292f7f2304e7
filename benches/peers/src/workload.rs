//! The workloads: their names, units and which direction is better.

/// Items of `map_1m`.
pub const MAP_ITEMS: u64 = 1_000_000;

/// One thing that is measured for every system that takes part in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// One call `f(a, b) = a + b` on a hot worker, the result waited for.
    Apply,
    /// Many tasks of `x + 1`, one message each, on two workers, all results
    /// collected.
    TinyTasks,
    /// Squares of [`MAP_ITEMS`] integers with the system's default chunking.
    Map,
    /// A vector of this many bytes goes to a worker and comes back with its
    /// first byte changed.
    Echo(usize),
    /// Start a pool of two, map over four items, stop it.
    PoolStart,
    /// Start one process that runs a trivial function, and join it.
    ProcessStart,
    /// Count primes over uneven spans on all cores (see [`crate::primes`]).
    CpuBound,
    /// CPU time that an idle pool of two uses, its parent included.
    IdleCpu,
    /// Private memory of a pool worker which has run a few tasks.
    WorkerMemory,
    /// Take and give back a lock that could be shared with a process, but is not.
    LockUncontended,
    /// Two parties take a lock in turn, as fast as they can: from one turn to the
    /// next, whoever has it.
    LockContended,
    /// Add one to a shared number which has a lock of its own, and which nobody
    /// else wants.
    ValueUpdate,
    /// Set an event that another party waits for, and wait for one that it sets.
    EventPingpong,
    /// Release a semaphore which another party acquires, and acquire one that it
    /// releases.
    SemaphoreHandoff,
    /// Add up an array of `f64` in place, on two workers that have seen it before.
    ArraySum,
    /// Change every number of an array of `f64` in place, likewise.
    ChunksMut,
    /// Hand an immutable array to a task, which reads both ends of it; the same array
    /// again and again, so that a worker may know it.
    FreezeSend,
    /// This many tiny tasks on a hot pool, once.
    GrowthTasks(u64),
    /// The peak resident memory of the parent in [`Workload::GrowthTasks`],
    /// from the same sample.
    GrowthPeak(u64),
    /// Start a pool of this many workers, map once, stop it.
    GrowthWorkers(usize),
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The smaller one.
    Lower,
    /// The larger one.
    Higher,
}

/// What `multiproc` is to reach in a workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reach {
    /// This value or a better one.
    Value(f64),
    /// So many times the value of this system in the same run, or better.
    Times(f64, &'static str),
}

use Workload::{
    Apply, ArraySum, ChunksMut, CpuBound, Echo, EventPingpong, FreezeSend, GrowthPeak, GrowthTasks,
    GrowthWorkers, IdleCpu, LockContended, LockUncontended, Map, PoolStart, ProcessStart,
    SemaphoreHandoff, TinyTasks, ValueUpdate, WorkerMemory,
};

impl Workload {
    /// All workloads and their names, in the order they run.
    const ALL: [(Workload, &str); 27] = [
        (Apply, "apply_roundtrip"),
        (TinyTasks, "tiny_tasks"),
        (Map, "map_1m"),
        (Echo(1 << 10), "echo_1k"),
        (Echo(1 << 20), "echo_1m"),
        (Echo(16 << 20), "echo_16m"),
        (PoolStart, "pool_start"),
        (ProcessStart, "process_start"),
        (CpuBound, "cpu_bound"),
        (IdleCpu, "idle_cpu"),
        (WorkerMemory, "worker_memory"),
        (LockUncontended, "lock_uncontended"),
        (LockContended, "lock_contended"),
        (ValueUpdate, "value_update"),
        (EventPingpong, "event_pingpong"),
        (SemaphoreHandoff, "semaphore_handoff"),
        (ArraySum, "array_sum"),
        (ChunksMut, "chunks_mut"),
        (FreezeSend, "freeze_send"),
        (GrowthTasks(100_000), "growth_tasks_1e5"),
        (GrowthTasks(1_000_000), "growth_tasks_1e6"),
        (GrowthTasks(10_000_000), "growth_tasks_1e7"),
        (GrowthPeak(10_000_000), "growth_tasks_1e7_peak"),
        (GrowthWorkers(1), "growth_workers_1"),
        (GrowthWorkers(10), "growth_workers_10"),
        (GrowthWorkers(100), "growth_workers_100"),
        (GrowthWorkers(1000), "growth_workers_1000"),
    ];

    /// All workloads in the order they run.
    pub fn all() -> impl Iterator<Item = Workload> {
        Self::ALL.iter().map(|&(workload, _)| workload)
    }

    /// The workload of this name.
    pub fn by_name(name: &str) -> Option<Workload> {
        Self::ALL.iter().find(|&&(_, its)| its == name).map(|&(workload, _)| workload)
    }

    /// The name on the command line, in the table and in the JSON rows.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|&&(workload, _)| workload == self)
            .map_or("unnamed", |&(_, name)| name)
    }

    /// A name that stands for several workloads; the own name if there is none.
    pub fn group(self) -> &'static str {
        match self {
            Echo(_) => "echo",
            GrowthTasks(_) | GrowthPeak(_) => "growth_tasks",
            GrowthWorkers(_) => "growth_workers",
            _ if self.synchronises() => "sync",
            _ if self.has_array() => "memory",
            _ => self.name(),
        }
    }

    /// The unit of a sample.
    pub fn unit(self) -> &'static str {
        match self {
            Apply | ProcessStart | FreezeSend => "us/op",
            LockUncontended | LockContended | ValueUpdate => "ns/op",
            EventPingpong | SemaphoreHandoff => "us/round",
            ArraySum | ChunksMut => "GB/s",
            TinyTasks | Map => "items/s",
            Echo(_) => "MB/s",
            PoolStart | CpuBound | IdleCpu | GrowthTasks(_) | GrowthWorkers(_) => "s",
            WorkerMemory | GrowthPeak(_) => "bytes",
        }
    }

    /// Which direction is better.
    pub fn better(self) -> Better {
        match self {
            TinyTasks | Map | Echo(_) | ArraySum | ChunksMut => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// What `multiproc` is to reach with its default start method.
    pub fn reach(self) -> &'static [Reach] {
        match self {
            Apply => &[Reach::Value(1.0), Reach::Times(0.1, "rayon")],
            TinyTasks => &[Reach::Value(3e6)],
            Map => &[Reach::Value(100e6)],
            Echo(size) if size < 1 << 20 => &[Reach::Value(1000.0)],
            Echo(_) => &[Reach::Value(4000.0)],
            PoolStart => &[Reach::Value(2.5e-3)],
            ProcessStart => &[Reach::Times(1.2, "limit_exec")],
            CpuBound => &[Reach::Times(1.0 / 0.97, "rayon")],
            IdleCpu => &[Reach::Value(0.0)],
            WorkerMemory => &[Reach::Value(1048576.0)],
            LockUncontended => &[Reach::Value(12.0)],
            LockContended => &[Reach::Value(30.0)],
            EventPingpong => &[Reach::Value(1.0)],
            ArraySum | ChunksMut => &[Reach::Times(0.97, "rayon")],
            FreezeSend => &[Reach::Value(20.0)],
            ValueUpdate | SemaphoreHandoff | GrowthTasks(_) | GrowthPeak(_) | GrowthWorkers(_) => {
                &[]
            }
        }
    }

    /// Whether it matters how worker processes are started: for what a pool does
    /// once it runs, it does not.
    pub fn depends_on_start_method(self) -> bool {
        matches!(self, PoolStart | ProcessStart | WorkerMemory | GrowthWorkers(_))
    }

    /// Whether there is an array, whose size depends on the settings.
    pub fn has_array(self) -> bool {
        matches!(self, ArraySum | ChunksMut | FreezeSend)
    }

    /// Whether the workload is about what two parties synchronise by.
    pub fn synchronises(self) -> bool {
        matches!(
            self,
            LockUncontended | LockContended | ValueUpdate | EventPingpong | SemaphoreHandoff
        )
    }

    /// Whether the workload runs only without `--quick`.
    pub fn beyond_quick(self) -> bool {
        matches!(self, GrowthTasks(_) | GrowthPeak(_) | GrowthWorkers(_))
    }

    /// The next smaller workload of the same kind and how many times smaller it
    /// is, for a workload whose duration is foreseen from that one.
    pub fn smaller(self) -> Option<(Workload, u32)> {
        match self {
            GrowthTasks(tasks) if tasks > 100_000 => Some((GrowthTasks(tasks / 10), 10)),
            GrowthWorkers(workers) if workers > 1 => Some((GrowthWorkers(workers / 10), 10)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for workload in Workload::all() {
            assert_eq!(Workload::by_name(workload.name()), Some(workload));
        }
    }

    #[test]
    fn what_foresees_a_workload_exists() {
        for (smaller, _) in Workload::all().filter_map(Workload::smaller) {
            assert_ne!(smaller.name(), "unnamed");
        }
    }
}
