//! Items on their way into a queue, and out of it.

use crate::codec::{NotDecoded, NotEncoded, Reader, decode_value, encode_value, naming};
use crate::error::Kind;
use crate::wire::handles::{self, Carried, Received};
use crate::{Data, Error, Execution, Result};

/// The bytes of an item and the objects that it names. Runs on the caller's thread, before anything
/// is locked or taken.
pub(super) fn encode<T: Data>(item: &T) -> Result<(Vec<u8>, Carried)> {
    let mut bytes = Vec::new();
    match naming(|| encode_value(item, &mut bytes)) {
        Ok(((), carried)) => Ok((bytes, carried)),
        Err(NotEncoded::Refused(what)) => Err(not_encoded(&what)),
        Err(NotEncoded::Full) => Err(not_encoded("it is too large")),
    }
}

/// The error for an item that cannot be put.
pub(super) fn not_encoded(what: &str) -> Error {
    let kind = Kind::Encode(Execution::NotStarted);
    Error::new(kind, format!("the item could not be encoded, and was not put: {what}"))
}

/// The item that came as these bytes, with these objects.
pub(super) fn decode<T: Data>(bytes: &[u8], received: Received) -> Result<T> {
    handles::providing(received, || decode_value(&mut Reader(bytes))).map_err(|NotDecoded(what)| {
        let kind = Kind::Decode(Execution::Failed);
        Error::new(kind, format!("an item was taken that could not be decoded: {what}"))
    })
}
