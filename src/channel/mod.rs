//! Talking between processes: what a user names.
//!
//! `README.md` in this folder tells what each type promises, and how.

mod item;
mod joinable_queue;
mod lifo_queue;
mod line;
mod pipe;
mod priority_queue;
mod queue;
mod ringed;
mod simple_queue;
mod stored;
mod unfinished;
mod wait;

pub use joinable_queue::JoinableQueue;
pub use lifo_queue::LifoQueue;
pub use line::{Items, QueueStats, Shutdown};
pub(crate) use pipe::RawEnd;
pub use pipe::{Messages, Pipe, PipeEnd, PipeReceiver, PipeSender};
pub use priority_queue::PriorityQueue;
pub use queue::Queue;
pub use simple_queue::SimpleQueue;
pub use wait::{Source, Wait, wait};
