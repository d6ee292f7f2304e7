//! Tuples of arguments.

use super::bulk;
use super::sink::{Reader, Sink};
use super::value::{Data, NotDecoded, NotEncoded, decode_value, encode_value, naming};
use crate::wire::handles::Carried;
use crate::{Error, Result};

/// The arguments of a call: a tuple of 0 to 12 values that are [`Data`].
///
/// A call with one argument takes a tuple of one, `(x,)`.
pub trait Arguments: sealed::Encode {}

impl<T: sealed::Encode> Arguments for T {}

pub(crate) mod sealed {
    use super::{NotDecoded, NotEncoded, Reader, Sink};

    /// Encoding of argument tuples, each value by its own path.
    #[allow(private_interfaces, reason = "sealed: nobody outside can call these")]
    pub trait Encode: Sized + 'static {
        fn encode(&self, sink: &mut impl Sink) -> std::result::Result<(), NotEncoded>;
        fn decode(reader: &mut Reader<'_>) -> std::result::Result<Self, NotDecoded>;
        /// The encoded length, if it is the same for every value of these types.
        fn fixed_len() -> Option<usize>;
        /// The encoded length of this value, if it is known without encoding.
        fn known_len(&self) -> Option<usize>;
    }
}

/// Encodes arguments that travel once, and returns the objects that they name.
pub(crate) fn encode_arguments<A: sealed::Encode>(arguments: &A) -> Result<(Vec<u8>, Carried)> {
    let mut bytes = Vec::new();
    let ((), carried) = naming(|| arguments.encode(&mut bytes)).map_err(Error::arguments)?;
    Ok((bytes, carried))
}

macro_rules! tuples {
    ($($name:ident)*) => {
        #[allow(private_interfaces, reason = "sealed: nobody outside can call these")]
        impl<$($name: Data),*> sealed::Encode for ($($name,)*) {
            #[inline]
            #[allow(non_snake_case, unused_variables, reason = "one name for type and value")]
            fn encode(&self, sink: &mut impl Sink) -> std::result::Result<(), NotEncoded> {
                let ($($name,)*) = self;
                $(encode_value($name, sink)?;)*
                Ok(())
            }

            #[inline]
            #[allow(unused_variables, clippy::unused_unit, reason = "the empty tuple")]
            fn decode(reader: &mut Reader<'_>) -> std::result::Result<Self, NotDecoded> {
                Ok(($(decode_value::<$name>(reader)?,)*))
            }

            #[inline]
            fn fixed_len() -> Option<usize> {
                Some(0 $(+ bulk::fixed_len::<$name>()?)*)
            }

            #[allow(non_snake_case, reason = "one name for type and value")]
            fn known_len(&self) -> Option<usize> {
                let ($($name,)*) = self;
                Some(0 $(+ bulk::len($name)?)*)
            }
        }
    };
}

tuples!();
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);
