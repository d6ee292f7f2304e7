//! What all handles have in common: they travel, and are shown, in the same way.

use crate::Error;
use std::io;

/// The error of a constructor.
pub(super) fn not_made(what: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidInput => Error::invalid(format!("no {what} can be made: {error}")),
        _ => Error::memory(format!("there is no shared memory for a {what}"), error),
    }
}

/// The refusal of an object that is something else.
pub(super) const OTHER: &str = "a shared object of another type than the handle that names it";

/// A handle travels as the name of its object. `travels!([generics] Type, this => object, received
/// => open)`: where the object of a handle is, and how the handle of an object that came is made.
macro_rules! travels {
    ([$($generics:tt)*] $type:ty, $this:ident => $object:expr, $received:ident => $open:expr) => {
        impl<$($generics)*> serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $this = self;
                crate::wire::handles::serialize($object, serializer)
            }
        }

        impl<'de, $($generics)*> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let $received = crate::wire::handles::deserialize(from)?;
                let opened: std::io::Result<Self> = $open;
                opened.map_err(|_| {
                    crate::wire::handles::refuse_decoding(crate::sync::handle::OTHER)
                })
            }
        }
    };
}
pub(super) use travels;

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
