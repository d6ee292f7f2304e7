//! Talking between processes: what a user names.
//!
//! `README.md` in this folder tells what each type promises, and how.

mod item;
mod lifo_queue;
mod line;
mod priority_queue;
mod stored;

pub use lifo_queue::LifoQueue;
pub use line::{Items, QueueStats, Shutdown};
pub use priority_queue::PriorityQueue;
