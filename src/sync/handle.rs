//! What all handles have in common: how they travel, and the error if they cannot be made.

use crate::Error;
use std::io;

pub(super) use crate::wire::travel::travels;

/// The error of a constructor.
pub(super) fn not_made(what: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidInput => Error::invalid(format!("no {what} can be made: {error}")),
        _ => Error::memory(format!("there is no shared memory for a {what}"), error),
    }
}
