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

use Workload::{
    Apply, CpuBound, Echo, GrowthPeak, GrowthTasks, GrowthWorkers, IdleCpu, Map, PoolStart,
    ProcessStart, TinyTasks, WorkerMemory,
};

impl Workload {
    /// All workloads and their names, in the order they run.
    const ALL: [(Workload, &str); 19] = [
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
            _ => self.name(),
        }
    }

    /// The unit of a sample.
    pub fn unit(self) -> &'static str {
        match self {
            Apply | ProcessStart => "us/op",
            TinyTasks | Map => "items/s",
            Echo(_) => "MB/s",
            PoolStart | CpuBound | IdleCpu | GrowthTasks(_) | GrowthWorkers(_) => "s",
            WorkerMemory | GrowthPeak(_) => "bytes",
        }
    }

    /// Which direction is better.
    pub fn better(self) -> Better {
        match self {
            TinyTasks | Map | Echo(_) => Better::Higher,
            _ => Better::Lower,
        }
    }

    /// Whether it matters how worker processes are started: for what a pool does
    /// once it runs, it does not.
    pub fn depends_on_start_method(self) -> bool {
        matches!(self, PoolStart | ProcessStart | WorkerMemory | GrowthWorkers(_))
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
