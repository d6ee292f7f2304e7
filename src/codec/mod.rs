//! Values to bytes and back.
//!
//! postcard does the general work. Its varints cost some nanoseconds a number, so numbers, and
//! vectors of numbers and bytes, take a path of their own: a plain copy at fixed width, in the
//! machine's byte order, because both sides run the same build on the same machine. Which path a
//! type takes is decided by its type alone, on both sides alike.

mod arguments;
mod bulk;
mod given;
pub(crate) mod items;
mod sink;
mod value;

pub use arguments::Arguments;
pub(crate) use arguments::encode_arguments;
pub(crate) use arguments::sealed::Encode;
pub(crate) use bulk::{parts as bulk_parts, take_copied as bulk_copied};
pub use given::Given;
pub use sink::Reader;
pub use value::Data;
pub(crate) use value::{
    Emitted, NotDecoded, NotEncoded, decode_block, decode_entry, decode_value, encode_serde,
    encode_value, may_carry, naming, wrong_length,
};
