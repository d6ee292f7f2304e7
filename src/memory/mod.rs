//! Data that several processes see: what a user names.
//!
//! `README.md` in this folder tells who owns what, and what happens when a process dies. There is
//! no `unsafe` here: `shm` decides who may touch which byte.

mod array;
mod atomic_value;
mod frozen_vec;
mod handle;
mod options;
mod raw_array;
mod raw_value;
mod shareable_list;
mod shared_memory;
mod shared_vec;
mod value;
#[cfg(feature = "ndarray")]
mod views;

pub use array::{Array, ArrayGuard};
pub use atomic_value::{AtomicValue, Bitwise, Number, Scalar};
pub use frozen_vec::FrozenVec;
pub use options::{HugePages, VecOptions};
pub use raw_array::RawArray;
pub use raw_value::RawValue;
pub use shareable_list::{ListValue, ShareableList};
pub use shared_memory::SharedMemory;
pub use shared_vec::SharedVec;
pub use value::{Value, ValueGuard};
