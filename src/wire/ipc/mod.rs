//! Senders, receivers and shared memory of the crate `ipc-channel`, on their way in a message of
//! ours. `README.md` tells how.

mod bare;
#[cfg(feature = "ipc-channel")]
mod parcel;

use super::travel::Handle;
use serde::{Deserialize, Serialize};
use std::any::type_name;
use std::io;

pub(crate) use bare::names_bare_part;

/// How the names of the types of that crate begin.
const PATH: &str = "ipc_channel::ipc::";

/// What a part of a channel is in a message: a handle of its descriptor. Shared memory of no bytes
/// has none.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parcel(Option<Handle>);

/// Whether `T` is one of the types of that crate that can be sent through its channels.
///
/// Their implementations of serde's traits mean nothing outside of that crate: they note the
/// descriptor in a list of the thread, for the message that the crate sends next, and encode its
/// place there. The name of the type says which path a value takes, on both sides alike, because
/// both are the same program; what comes out of [`pack`] is checked.
#[inline(always)]
pub(crate) fn is_part<T>() -> bool {
    // Both strings are constants of the program, so the comparison is made by the compiler.
    type_name::<T>().starts_with(PATH)
}

/// The error for a value with parts that have no wrapping.
pub(crate) const BARE: &str = if cfg!(feature = "ipc-channel") {
    "a sender, a receiver or shared memory of ipc-channel inside of another value does not travel \
     by itself: put it into a multiproc::ipc::Ipc"
} else {
    WITHOUT_THE_FEATURE
};

const WITHOUT_THE_FEATURE: &str = "types of the crate ipc-channel travel only with the feature \
                                   `ipc-channel` of multiproc";

/// Takes the descriptor out of a part. A receiver is empty afterwards: its descriptor has moved.
///
/// # Errors
/// `InvalidInput` if there is nothing in it (any more), `OutOfMemory` and errors of the system if
/// there are no descriptors left.
#[cfg(feature = "ipc-channel")]
pub(crate) fn pack<T: Serialize + 'static>(part: &T) -> io::Result<Parcel> {
    Ok(Parcel(parcel::pack(part)?.map(Handle)))
}

/// Makes a part of a descriptor. The parcel stays as it is, and can make another one.
///
/// # Errors
/// `InvalidData` if the descriptor is not of such a part, errors of the system if there are no
/// descriptors, or no memory, left.
#[cfg(feature = "ipc-channel")]
pub(crate) fn unpack<T: crate::Data>(parcel: &Parcel) -> io::Result<T> {
    parcel::unpack(parcel.0.as_ref().map(|handle| &*handle.0))
}

#[cfg(not(feature = "ipc-channel"))]
pub(crate) fn pack<T>(_: &T) -> io::Result<Parcel> {
    Err(without_the_feature())
}

#[cfg(not(feature = "ipc-channel"))]
pub(crate) fn unpack<T>(_: &Parcel) -> io::Result<T> {
    Err(without_the_feature())
}

#[cfg(not(feature = "ipc-channel"))]
fn without_the_feature() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, WITHOUT_THE_FEATURE)
}
