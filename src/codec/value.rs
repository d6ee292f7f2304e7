//! One value.

use super::bulk;
use super::sink::{Counter, Into, Reader, Sink, SliceSink};
use crate::error::Kind;
use crate::shm::bytes::CopyOut;
use crate::wire::control::Failure;
use crate::wire::handles::{self, Carried};
use crate::wire::ipc::{self, Parcel};
use crate::wire::worker_link::{Emit, Fill};
use crate::{Error, Execution};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::cell::OnceCell;

/// A value that can travel to another process: an argument, a result, or a part of one.
///
/// Every type that serde can serialise and deserialise, and that borrows nothing, is `Data`; there
/// is nothing to implement. The encoding is compact and not self-describing, so types that need
/// to be told what they are by the format (`#[serde(untagged)]`, `#[serde(flatten)]`,
/// `serde_json::Value`) cannot be decoded; that is an error of the task, not a panic.
///
/// Vectors of numbers and bytes are copied as they are. A `Vec<u8>` inside another type goes byte
/// by byte unless it is marked with the `serde_bytes` crate.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "needs `Serialize`, `DeserializeOwned` and `'static`",
    note = "derive it: `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "a borrowed value cannot travel: pass an owned one (`String` instead of `&str`)"
)]
pub trait Data: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Data for T {}

/// Why a value could not be encoded.
#[derive(Debug)]
pub(crate) enum NotEncoded {
    /// The sink is full.
    Full,
    /// The value's own serialisation failed; the text names the type.
    Refused(String),
}

/// Why bytes could not be decoded; the text names the type.
#[derive(Debug)]
pub(crate) struct NotDecoded(pub(crate) String);

impl Error {
    /// The error for arguments that could not be encoded.
    pub(crate) fn arguments(error: NotEncoded) -> Self {
        let what = match error {
            NotEncoded::Refused(what) => what,
            NotEncoded::Full => "they are too large".to_owned(),
        };
        let kind = Kind::Encode(Execution::NotStarted);
        Self::new(kind, format!("the arguments could not be encoded: {what}"))
    }

    /// The error for a result that could not be decoded.
    pub(crate) fn result(NotDecoded(what): NotDecoded) -> Self {
        let kind = Kind::Decode(Execution::Failed);
        Self::new(
            kind,
            format!("the function returned, but its value could not be decoded: {what}"),
        )
    }
}

impl From<NotDecoded> for Failure {
    fn from(NotDecoded(what): NotDecoded) -> Self {
        Self::Decode(what)
    }
}

/// Encodes a value.
#[inline]
pub(crate) fn encode_value<T: Data>(value: &T, sink: &mut impl Sink) -> Result<(), NotEncoded> {
    match bulk::put(value, sink) {
        Some(true) => Ok(()),
        Some(false) => Err(NotEncoded::Full),
        None if ipc::is_part::<T>() => encode_general::<T>(&packed(value)?, sink),
        None => encode_serde(value, sink),
    }
}

/// Encodes something borrowed as an owned value of the same shape, which is no number or vector of
/// numbers, would be.
pub(crate) fn encode_serde<T: Serialize>(
    value: &T,
    sink: &mut impl Sink,
) -> Result<(), NotEncoded> {
    match ipc::names_bare_part::<T>() {
        true => Err(bare::<T>()),
        false => encode_general::<T>(value, sink),
    }
}

/// Encodes what stands for a `T`.
#[inline]
fn encode_general<T>(value: &impl Serialize, sink: &mut impl Sink) -> Result<(), NotEncoded> {
    match postcard::serialize_with_flavor(value, Into(sink)) {
        Ok(()) => Ok(()),
        Err(postcard::Error::SerializeBufferFull) => Err(NotEncoded::Full),
        Err(error) => Err(NotEncoded::Refused(reason::<T>(&error))),
    }
}

#[cold]
fn bare<T>() -> NotEncoded {
    NotEncoded::Refused(format!("a {}: {}", type_name::<T>(), ipc::BARE))
}

/// A part of a channel of the crate `ipc-channel`, taken apart: that can be done once.
#[cold]
fn packed<T: Data>(part: &T) -> Result<Parcel, NotEncoded> {
    ipc::pack(part).map_err(|error| NotEncoded::Refused(format!("a {}: {error}", type_name::<T>())))
}

/// Decodes a value from the start of the bytes.
#[inline]
pub(crate) fn decode_value<T: Data>(reader: &mut Reader<'_>) -> Result<T, NotDecoded> {
    match bulk::take(reader) {
        Some(Some(value)) => Ok(value),
        Some(None) => Err(NotDecoded(format!("a {}: the bytes end early", type_name::<T>()))),
        None if ipc::is_part::<T>() => {
            let parcel: Parcel = decode_general::<T, _>(reader)?;
            ipc::unpack(&parcel)
                .map_err(|error| NotDecoded(format!("a {}: {error}", type_name::<T>())))
        }
        None => decode_general::<T, T>(reader),
    }
}

/// Decodes what stands for a `T`.
#[inline]
fn decode_general<T, W: DeserializeOwned>(reader: &mut Reader<'_>) -> Result<W, NotDecoded> {
    match postcard::take_from_bytes(reader.0) {
        Ok((value, rest)) => {
            reader.0 = rest;
            Ok(value)
        }
        Err(error) => Err(NotDecoded(reason::<T>(&error))),
    }
}

/// What went wrong with a value. The text of a serde error is lost in postcard, so handles leave
/// theirs elsewhere.
fn reason<T>(error: &postcard::Error) -> String {
    match handles::take_refusal() {
        Some(refusal) => format!("a {}: {refusal}", type_name::<T>()),
        None => format!("a {}: {error}", type_name::<T>()),
    }
}

/// Runs an encoding and returns the shared objects that what it encodes names.
#[inline]
pub(crate) fn naming<R>(
    encode: impl FnOnce() -> Result<R, NotEncoded>,
) -> Result<(R, Carried), NotEncoded> {
    let (encoded, carried) = handles::collecting(encode);
    Ok((encoded?, carried))
}

/// Whether values of this type can name shared objects.
#[inline]
pub(crate) fn may_carry<T: Data>() -> bool {
    !bulk::is_bulk::<T>()
}

/// The bytes of the length in front of an entry.
const PREFIX: usize = 4;

/// Decodes a value that others follow; if that fails, the reader stands at the next one all the
/// same.
#[inline]
pub(crate) fn decode_entry<T: Data>(reader: &mut Reader<'_>) -> Result<T, NotDecoded> {
    if bulk::is_bulk::<T>() {
        return decode_value(reader);
    }
    let mut entry = || {
        let len: u32 = reader.take(PREFIX).map(bytemuck::pod_read_unaligned)?;
        reader.take(len as usize)
    };
    match entry() {
        Some(bytes) => decode_value(&mut Reader(bytes)),
        None => Err(NotDecoded(format!("a {}: the bytes end early", type_name::<T>()))),
    }
}

/// Decodes a value from hostile bytes, which are only ever copied out. A vector of numbers is
/// copied once, straight to where it will be.
pub(crate) fn decode_block<T: Data>(source: &impl CopyOut) -> Result<T, NotDecoded> {
    let not_copied = |error| NotDecoded(format!("a {}: {error}", type_name::<T>()));
    match bulk::take_copied(source) {
        Some(copied) => copied.map_err(not_copied)?.ok_or_else(wrong_length::<T>),
        None => {
            let bytes = source.copy_out_vec::<u8>(0, source.len()).map_err(not_copied)?;
            decode_value(&mut Reader(&bytes))
        }
    }
}

/// The bytes are not those of a bulk value of this type.
#[cold]
pub(crate) fn wrong_length<T>() -> NotDecoded {
    NotDecoded(format!("a {}: a wrong length", type_name::<T>()))
}

/// A value on its way into a result ring or block. It is encoded once more where the first place
/// was too small, or when its objects have gone ahead.
#[derive(Debug)]
pub(crate) struct Emitted<'a, T> {
    value: &'a T,
    /// What stands for it, if it can be encoded only once.
    parcel: OnceCell<Parcel>,
}

impl<'a, T: Data> Emitted<'a, T> {
    #[inline]
    pub(crate) fn new(value: &'a T) -> Self {
        Self { value, parcel: OnceCell::new() }
    }

    #[inline]
    fn encode(&self, sink: &mut impl Sink) -> Result<(), NotEncoded> {
        if ipc::is_part::<T>() {
            return self.encode_part(sink);
        }
        encode_value(self.value, sink)
    }

    #[cold]
    fn encode_part(&self, sink: &mut impl Sink) -> Result<(), NotEncoded> {
        let parcel = match self.parcel.get() {
            Some(parcel) => parcel,
            None => {
                let parcel = packed(self.value)?;
                self.parcel.get_or_init(|| parcel)
            }
        };
        encode_general::<T>(parcel, sink)
    }
}

impl<T: Data> Emit for Emitted<'_, T> {
    #[inline]
    fn may_carry(&self) -> bool {
        may_carry::<T>()
    }

    fn known_len(&self) -> Option<usize> {
        bulk::len(self.value)
    }

    fn measure(&self) -> Result<usize, Failure> {
        let mut counter = Counter::default();
        match self.encode(&mut counter) {
            Ok(()) => Ok(counter.0),
            Err(NotEncoded::Refused(what)) => Err(Failure::Encode(what)),
            Err(NotEncoded::Full) => Err(Failure::Encode("a counter is never full".to_owned())),
        }
    }

    #[inline]
    fn fill(&self, space: &mut [u8]) -> Result<usize, Fill> {
        let mut sink = SliceSink::new(space);
        self.encode(&mut sink)?;
        Ok(sink.used())
    }

    /// Those that the user's code will decode have their length in front: where the next one starts
    /// does not depend on what that code makes of this one.
    #[inline]
    fn fill_entry(&self, space: &mut [u8]) -> Result<usize, Fill> {
        if bulk::is_bulk::<T>() {
            return self.fill(space);
        }
        let (prefix, body) = space.split_at_mut_checked(PREFIX).ok_or(Fill::Full)?;
        let used = self.fill(body)?;
        let len = u32::try_from(used).map_err(|_| Fill::Full)?;
        prefix.copy_from_slice(&len.to_ne_bytes());
        Ok(PREFIX + used)
    }
}

impl From<NotEncoded> for Fill {
    fn from(error: NotEncoded) -> Self {
        match error {
            NotEncoded::Full => Self::Full,
            NotEncoded::Refused(what) => Self::Failed(Failure::Encode(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io;

    struct Copied<'a>(&'a [u8]);

    impl CopyOut for Copied<'_> {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn copy_out(&self, at: usize, target: &mut [u8]) -> io::Result<()> {
            target.copy_from_slice(&self.0[at..at + target.len()]);
            Ok(())
        }
        fn copy_out_vec<N: bytemuck::Pod>(&self, at: usize, count: usize) -> io::Result<Vec<N>> {
            let bytes = &self.0[at..at + count * size_of::<N>()];
            Ok(bytemuck::pod_collect_to_vec(bytes))
        }
    }

    fn there_and_back<T: Data>(value: &T) -> T {
        let mut bytes = Vec::new();
        encode_value(value, &mut bytes).expect("encode");
        assert!(decode_block::<T>(&Copied(&bytes)).is_ok());
        let mut reader = Reader(&bytes);
        let value = decode_value(&mut reader).expect("decode");
        assert!(reader.0.is_empty(), "all bytes are used");
        value
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_went(
            a in any::<u64>(), b in any::<f32>(), c in any::<Vec<u8>>(), d in any::<Vec<i64>>(),
            e in any::<String>(), f in any::<BTreeMap<u32, Option<String>>>(), g in any::<u128>(),
        ) {
            prop_assert_eq!(there_and_back(&a), a);
            prop_assert_eq!(there_and_back(&b).to_bits(), b.to_bits());
            prop_assert_eq!(there_and_back(&c), c);
            prop_assert_eq!(there_and_back(&d), d);
            prop_assert_eq!(there_and_back(&e), e);
            prop_assert_eq!(there_and_back(&f), f);
            prop_assert_eq!(there_and_back(&g), g);
        }

        #[test]
        fn garbage_is_an_error_and_reserves_no_memory(bytes in any::<Vec<u8>>()) {
            let _ = decode_value::<Vec<f64>>(&mut Reader(&bytes));
            let _ = decode_value::<Vec<String>>(&mut Reader(&bytes));
            let _ = decode_value::<BTreeMap<u8, Vec<u16>>>(&mut Reader(&bytes));
        }
    }

    #[test]
    fn a_vector_length_that_lies_is_an_error() {
        let mut bytes = u64::MAX.to_ne_bytes().to_vec();
        bytes.extend([0; 16]);
        assert!(decode_value::<Vec<u64>>(&mut Reader(&bytes)).is_err());
        assert!(decode_block::<Vec<u64>>(&Copied(&bytes)).is_err());
    }

    #[test]
    fn a_value_that_refuses_to_be_encoded_is_named() {
        struct Stubborn;
        impl Serialize for Stubborn {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        impl<'de> serde::Deserialize<'de> for Stubborn {
            fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(serde::de::Error::custom("no"))
            }
        }
        let Err(NotEncoded::Refused(what)) = encode_value(&Stubborn, &mut Vec::new()) else {
            panic!("it was encoded");
        };
        assert!(what.contains("Stubborn"), "{what}");
    }
}
