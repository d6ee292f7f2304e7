//! What handles with lengths have in common.

use crate::wire::handles;

pub(super) use crate::wire::travel::{Handle, travels};

/// A length that came in a message.
pub(super) fn length<E: serde::de::Error>(number: u64) -> Result<usize, E> {
    usize::try_from(number)
        .map_err(|_| handles::refuse_decoding("a shared object with a length beyond all memory"))
}
