//! A handle as a part of a serialised value.

use crate::shm::object::Object;
use crate::wire::handles;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// What a handle that is serialised points to.
#[derive(Debug)]
pub(super) struct Sent<'a>(pub(super) &'a Arc<Object>);

impl Serialize for Sent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handles::serialize(self.0, serializer)
    }
}

/// What a handle that was deserialised points to.
#[derive(Debug)]
pub(super) struct Got(pub(super) Arc<Object>);

impl<'de> Deserialize<'de> for Got {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        handles::deserialize(deserializer).map(Self)
    }
}

/// A length that came in a message.
pub(super) fn length<E: serde::de::Error>(number: u64) -> Result<usize, E> {
    usize::try_from(number)
        .map_err(|_| handles::refuse_decoding("a shared object with a length beyond all memory"))
}

/// Implements `Serialize` and `Deserialize` for a handle that is one object: the type has a method
/// `object` and a function `open`, which checks what came.
macro_rules! travels {
    ($type:ident, $bound:path, $wrong:literal) => {
        impl<T: $bound> serde::Serialize for $type<T> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                crate::wire::handles::serialize(self.object(), serializer)
            }
        }

        impl<'de, T: $bound> serde::Deserialize<'de> for $type<T> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let object = crate::wire::handles::deserialize(deserializer)?;
                Self::open(object).map_err(|_| crate::wire::handles::refuse_decoding($wrong))
            }
        }
    };
}
pub(super) use travels;
