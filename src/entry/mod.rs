//! Naming a function to another process, and entering a process that was started for one.
//!
//! A function item and a closure that captures nothing have no data: their type alone says which
//! code to run. So the parent monomorphises a small function for the type, the *entry*, and sends
//! its offset in the executable; the child runs the same executable and calls it there.

mod call;
mod function;
mod held;
mod hook;
mod lend;
mod managed;
mod panics;
pub(crate) mod registry;

pub(crate) use call::{
    ContextHeader, FrameEntry, PlainEntry, Returned, ValueEntry, call_plain, call_value,
    context_entry, drop_contexts_with, encode_all, fallible_entry, frame_entry, plain_entry,
    run_frame, value_entry,
};
pub use function::{Fallible, Function};
pub(crate) use held::{Burden, holds, holds_any};
pub use hook::init;
pub(crate) use hook::{VARIABLE, depth, require_init, set_depth};
pub use lend::Lent;
pub(crate) use lend::{Cut, Elements, Exclusive, Shared, chunk_entry};
pub(crate) use managed::{
    Answer, Caller, Departure, Look, ManagedEntry, Target, call_managed, is_answering, make_entry,
    raw_entry, read_entry, show_entry, spawn_entry, try_make_entry, write_entry,
};
pub(crate) use panics::{catch, install_hook};
pub use registry::{TASKS, TaskInfo, tasks};
