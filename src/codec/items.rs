//! Several argument tuples in a row.
//!
//! Tuples of numbers have one length and stand back to back. Any other tuple has its length in
//! front, so that one can be skipped without decoding it: decoding is the user's code, and may be
//! what killed the worker that tried it before.

use super::arguments::sealed::Encode;
use super::sink::{Reader, Sink, SliceSink};
use super::value::NotEncoded;

const PREFIX: usize = 8;

/// The bytes that an item takes, if that is known without encoding it.
pub(crate) fn known_len<A: Encode>(item: &A) -> Option<usize> {
    match A::fixed_len() {
        Some(len) => Some(len),
        None => Some(PREFIX + item.known_len()?),
    }
}

/// Appends an item to growing bytes; on failure they are as before.
#[inline]
pub(crate) fn push<A: Encode>(item: &A, bytes: &mut Vec<u8>) -> Result<(), NotEncoded> {
    if A::fixed_len().is_some() {
        return item.encode(bytes);
    }
    let start = bytes.len();
    bytes.extend_from_slice(&[0; PREFIX]);
    let result = item.encode(bytes);
    match result {
        Ok(()) => {
            let len = (bytes.len() - start - PREFIX) as u64;
            bytes[start..start + PREFIX].copy_from_slice(&len.to_ne_bytes());
        }
        Err(_) => bytes.truncate(start),
    }
    result
}

/// Writes an item of known length into exactly that much space.
pub(crate) fn fill<A: Encode>(item: &A, len: usize, space: &mut [u8]) -> Result<(), NotEncoded> {
    let mut sink = SliceSink::new(space);
    if A::fixed_len().is_none() && !sink.put(&((len - PREFIX) as u64).to_ne_bytes()) {
        return Err(NotEncoded::Full);
    }
    item.encode(&mut sink)
}

/// The bytes of the next item, or `None` if they end early.
#[inline]
pub(crate) fn next<'a, A: Encode>(reader: &mut Reader<'a>) -> Option<Reader<'a>> {
    let len = match A::fixed_len() {
        Some(len) => len,
        None => {
            let header: u64 = reader.take(PREFIX).map(bytemuck::pod_read_unaligned)?;
            usize::try_from(header).ok()?
        }
    };
    reader.take(len).map(Reader)
}

/// Skips items; what is left is empty if they end early.
pub(crate) fn skip<A: Encode>(reader: &mut Reader<'_>, count: u32) {
    if let Some(len) = A::fixed_len() {
        reader.0 = reader.0.get(len.saturating_mul(count as usize)..).unwrap_or_default();
        return;
    }
    for _ in 0..count {
        if next::<A>(reader).is_none() {
            reader.0 = &[];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<A: Encode>(reader: &mut Reader<'_>) -> Option<A> {
        next::<A>(reader).and_then(|mut item| A::decode(&mut item).ok())
    }

    #[test]
    fn items_can_be_skipped_without_being_decoded() {
        let mut bytes = Vec::new();
        for index in 0..10u32 {
            push(&("x".repeat(index as usize), index), &mut bytes).expect("push");
        }
        let mut reader = Reader(&bytes);
        skip::<(String, u32)>(&mut reader, 7);
        let (text, index) = decode::<(String, u32)>(&mut reader).expect("decode");
        assert_eq!((text.as_str(), index), ("xxxxxxx", 7));
        skip::<(String, u32)>(&mut reader, 99);
        assert!(decode::<(String, u32)>(&mut reader).is_none());
    }

    #[test]
    fn numbers_stand_back_to_back() {
        let mut bytes = Vec::new();
        for index in 0..10u64 {
            push(&(index, 1u8), &mut bytes).expect("push");
        }
        assert_eq!(bytes.len(), 90);
        let mut reader = Reader(&bytes);
        skip::<(u64, u8)>(&mut reader, 9);
        assert_eq!(decode::<(u64, u8)>(&mut reader).expect("decode"), (9, 1));
    }
}
