//! Handles as parts of serialised values.

use super::handles;
use crate::shm::object::Object;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// An object, which travels as the number that stands for it; see [`handles`].
#[derive(Debug)]
pub(crate) struct Handle(pub(crate) Arc<Object>);

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handles::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        handles::deserialize(deserializer).map(Self)
    }
}

/// Implements `Serialize` and `Deserialize` for a type that is a handle of one object and nothing
/// else. `travels!([generics] Type, this => object, received => open)`: where the object of a
/// handle is, and how the handle of an object that came is made, which checks it.
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
                    crate::wire::handles::refuse_decoding(concat!(
                        "what came is no ",
                        stringify!($type),
                        ", or one of another type"
                    ))
                })
            }
        }
    };
}
pub(crate) use travels;
