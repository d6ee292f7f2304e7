//! Run ordinary functions in other *processes* with the ease of a thread pool, and lose nothing
//! when one of them dies.
#![doc = include_str!("../docs/facade.md")]
#![deny(unsafe_code)]

mod channel;
mod codec;
pub mod connection;
#[allow(unsafe_code)]
mod entry;
mod error;
mod exit_status;
#[cfg(feature = "ipc-channel")]
pub mod ipc;
pub mod manager;
mod memory;
mod owner_died;
mod pool;
mod process;
#[allow(unsafe_code)]
mod shm;
mod start;
pub mod sync;
#[allow(unsafe_code)]
mod sys;
mod wire;

pub use channel::{
    Items, JoinableQueue, LifoQueue, Messages, Pipe, PipeEnd, PipeReceiver, PipeSender,
    PriorityQueue, Queue, QueueStats, Shutdown, SimpleQueue, Source, Wait, wait,
};
pub use codec::{Arguments, Data, Given};
pub use entry::{Fallible, Function, TaskInfo, init, tasks};
pub use error::{Error, Execution, PanicInfo, Result};
pub use exit_status::ExitStatus;
pub use manager::{Manager, ManagerBuilder};
pub use memory::{
    Array, ArrayGuard, AtomicValue, Bitwise, FrozenVec, HugePages, ListValue, Number, RawArray,
    RawValue, Scalar, ShareableList, SharedMemory, SharedVec, Value, ValueGuard, VecOptions,
};
pub use multiproc_macros::{managed, task};
pub use owner_died::OwnerDied;
pub use pool::{
    AsyncResult, ChunkOf, Chunks, Imap, Lend, Pool, PoolBuilder, PoolStats, WorkerStats,
};
pub use process::{
    ActiveChild, CurrentProcess, ParentDeath, ParentProcess, Process, ProcessBuilder, Stdio, Timer,
    active_children, available_parallelism, current_process, parent_process,
};
pub use start::{StartMethod, set_forkserver_preload, set_start_method, start_method};
pub use sync::{
    Barrier, BoundedSemaphore, Condition, Event, Latch, Lock, Mutex, Once, RLock, RwLock, Semaphore,
};
pub use sys::fork::ForkRisk;

/// What the code that `#[multiproc::task]` writes needs to name.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::{TASKS, TaskInfo};
    pub use crate::manager::MaybeMade;
    pub use linkme;
    pub use serde;
}

#[cfg(fuzzing)]
mod fuzz;

/// What the fuzz targets need to reach.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::fuzz::{control, frames, handshake, results};
}

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
