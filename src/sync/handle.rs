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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constructor_tells_no_memory_from_no_descriptor_and_from_no_sense() {
        let made = |kind: io::ErrorKind| not_made("lock", kind.into());
        assert!(made(io::ErrorKind::OutOfMemory).is_out_of_memory());
        assert!(made(io::ErrorKind::StorageFull).is_out_of_memory());
        assert!(not_made("lock", io::Error::from_raw_os_error(libc::EMFILE)).is_os());
        assert!(made(io::ErrorKind::InvalidInput).is_invalid_input());
    }
}
