//! What is said through the door and through channels.

use crate::codec::naming;
use crate::wire::handles::Carried;
use crate::wire::travel::Handle;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Said through the door of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Knock {
    /// A new channel, whose other end comes with this.
    Channel,
    /// The server is to end.
    Shutdown,
}

/// What a client says instead of a request when it will send no more.
pub(super) const FAREWELL: &[u8] = &[];

/// Begins a request.
pub(super) fn begin_request(entry: u64, object: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&entry.to_ne_bytes());
    bytes.extend_from_slice(&object.to_ne_bytes());
    bytes
}

/// The entry, the object and the arguments of a request.
pub(super) fn parse_request(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (entry, rest) = bytes.split_first_chunk::<8>()?;
    let (object, arguments) = rest.split_first_chunk::<8>()?;
    Some((u64::from_ne_bytes(*entry), u64::from_ne_bytes(*object), arguments))
}

// The last byte of a reply says what it is.
const VALUE: u8 = 0;
const FAILED: u8 = 1;
const MADE: u8 = 2;

/// A new object, as the client learns of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) number: u64,
    /// None for a remote client.
    pub(super) life: Option<Handle>,
}

/// The reply to a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// An encoded value.
    Value(Vec<u8>),
    /// An encoded [`Made`].
    Made(Vec<u8>),
}

/// The bytes of a reply with a value.
pub(super) fn value(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(VALUE);
    bytes
}

/// The bytes of a reply with an error.
pub(super) fn failed(error: &Error) -> Vec<u8> {
    // An error is made of texts and numbers, which can always be encoded.
    let mut bytes = postcard::to_stdvec(error).unwrap_or_default();
    bytes.push(FAILED);
    bytes
}

/// The bytes of a reply with a new object, and what it carries.
pub(super) fn made(made: &Made) -> Result<(Vec<u8>, Carried)> {
    let encode = || Ok(postcard::to_stdvec(made).unwrap_or_default());
    let (mut bytes, carried) = naming(encode).map_err(Error::arguments)?;
    bytes.push(MADE);
    Ok((bytes, carried))
}

/// What a reply says.
pub(super) fn parse_reply(mut bytes: Vec<u8>) -> Result<Reply> {
    match bytes.pop() {
        Some(VALUE) => Ok(Reply::Value(bytes)),
        Some(MADE) => Ok(Reply::Made(bytes)),
        Some(FAILED) => Err(postcard::from_bytes(&bytes).unwrap_or_else(|_| garbled())),
        _ => Err(garbled()),
    }
}

/// The error for a reply that makes no sense.
pub(super) fn garbled() -> Error {
    Error::result(crate::codec::NotDecoded("the reply of the manager is garbled".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_too_short_is_none() {
        assert_eq!(parse_request(&[0; 15]), None);
        let request = begin_request(7, 9);
        assert_eq!(parse_request(&request), Some((7, 9, &[][..])));
    }

    #[test]
    fn an_error_comes_back_as_it_went() {
        let error = parse_reply(failed(&Error::invalid("no"))).expect_err("an error");
        assert!(error.is_invalid_input() && error.to_string() == "no");
        assert!(parse_reply(vec![]).is_err() && parse_reply(vec![9]).is_err());
        assert!(parse_reply(vec![3, FAILED]).expect_err("garbage").is_decode());
    }
}
