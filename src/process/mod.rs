//! One function in one process of its own.

mod builder;
mod current;
mod handle;

pub use builder::{ParentDeath, ProcessBuilder, Stdio};
pub use current::{
    ActiveChild, CurrentProcess, ParentProcess, active_children, available_parallelism,
    current_process, parent_process,
};
pub use handle::Process;
