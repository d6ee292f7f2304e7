//! The workloads: their names, units and which direction is better.

/// Items of `map_1m`.
pub const MAP_ITEMS: u64 = 1_000_000;

/// Numbers that a queue has room for: so many that nobody waits at every one.
pub const NUMBERS_ROOM: usize = 1024;

/// Bytes of an item of `queue_64k`.
pub const BLOCK: usize = 64 << 10;

/// Items of [`BLOCK`] bytes that a queue has room for: so few that they stay in a cache.
pub const BLOCKS_ROOM: usize = 64;

/// Clients of `manager_8_clients`.
pub const CLIENTS: usize = 8;

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
    /// Numbers through one bounded queue, from this many parties to as many others.
    Queue(usize),
    /// Items of [`BLOCK`] bytes through a bounded queue, from one party to another.
    QueueBlocks,
    /// A number through a pipe to another party, and the next one back.
    PipePingpong,
    /// Look up a number in a dictionary which a manager holds.
    ManagerGet,
    /// Set a number in such a dictionary.
    ManagerSet,
    /// As [`Workload::ManagerGet`], in [`CLIENTS`] processes at once, their calls
    /// added up.
    ManagerClients,
    /// A number through an authenticated connection to another party, and the next
    /// one back; over a Unix socket.
    ListenerUnix,
    /// The same over TCP on the loopback interface.
    ListenerTcp,
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
    GrowthWorkers, IdleCpu, ListenerTcp, ListenerUnix, LockContended, LockUncontended,
    ManagerClients, ManagerGet, ManagerSet, Map, PipePingpong, PoolStart, ProcessStart, Queue,
    QueueBlocks, SemaphoreHandoff, TinyTasks, ValueUpdate, WorkerMemory,
};

impl Workload {
    /// All workloads and their names, in the order they run.
    const ALL: [(Workload, &str); 36] = [
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
        (Queue(1), "queue_1p1c"),
        (Queue(4), "queue_4p4c"),
        (QueueBlocks, "queue_64k"),
        (PipePingpong, "pipe_pingpong"),
        (ManagerGet, "manager_get"),
        (ManagerSet, "manager_set"),
        (ManagerClients, "manager_8_clients"),
        (ListenerUnix, "listener_pingpong_unix"),
        (ListenerTcp, "listener_pingpong_tcp"),
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

    /// Names that stand for this and other workloads.
    pub fn groups(self) -> &'static [&'static str] {
        match self {
            Echo(_) => &["echo"],
            GrowthTasks(_) | GrowthPeak(_) => &["growth_tasks"],
            GrowthWorkers(_) => &["growth_workers"],
            ListenerUnix | ListenerTcp => &["channels", "listener_pingpong"],
            _ if self.synchronises() => &["sync"],
            _ if self.has_array() => &["memory"],
            _ if self.talks() => &["channels"],
            _ => &[],
        }
    }

    /// Whether this is its name, or that of one of its groups.
    pub fn is_called(self, name: &str) -> bool {
        self.name() == name || self.groups().contains(&name)
    }

    /// The unit of a sample.
    pub fn unit(self) -> &'static str {
        match self {
            Apply | ProcessStart | FreezeSend | ManagerGet | ManagerSet => "us/op",
            LockUncontended | LockContended | ValueUpdate => "ns/op",
            EventPingpong | SemaphoreHandoff | PipePingpong | ListenerUnix | ListenerTcp => {
                "us/round"
            }
            ArraySum | ChunksMut | QueueBlocks => "GB/s",
            TinyTasks | Map | Queue(_) => "items/s",
            ManagerClients => "calls/s",
            Echo(_) => "MB/s",
            PoolStart | CpuBound | IdleCpu | GrowthTasks(_) | GrowthWorkers(_) => "s",
            WorkerMemory | GrowthPeak(_) => "bytes",
        }
    }

    /// Which direction is better.
    pub fn better(self) -> Better {
        match self {
            TinyTasks | Map | Echo(_) | ArraySum | ChunksMut | Queue(_) | QueueBlocks
            | ManagerClients => Better::Higher,
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
            Queue(1) => &[Reach::Value(10e6)],
            Queue(_) => &[Reach::Value(4e6)],
            QueueBlocks => &[Reach::Value(4.0)],
            PipePingpong => &[Reach::Value(1.0)],
            ManagerGet => &[Reach::Value(2.0)],
            ValueUpdate | SemaphoreHandoff | ManagerSet | ManagerClients | ListenerUnix
            | ListenerTcp | GrowthTasks(_) | GrowthPeak(_) | GrowthWorkers(_) => &[],
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

    /// Whether the workload is about what parties send each other.
    pub fn talks(self) -> bool {
        matches!(
            self,
            Queue(_)
                | QueueBlocks
                | PipePingpong
                | ManagerGet
                | ManagerSet
                | ManagerClients
                | ListenerUnix
                | ListenerTcp
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
    fn groups_are_not_names() {
        for group in Workload::all().flat_map(Workload::groups) {
            assert_eq!(Workload::by_name(group), None);
        }
    }

    #[test]
    fn what_foresees_a_workload_exists() {
        for (smaller, _) in Workload::all().filter_map(Workload::smaller) {
            assert_ne!(smaller.name(), "unnamed");
        }
    }
}
