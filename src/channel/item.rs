//! Items on their way into a queue, and out of it.

use crate::codec::{
    NotDecoded, NotEncoded, Reader, bulk_copied, bulk_parts, decode_value, encode_value, may_carry,
    naming, wrong_length,
};
use crate::error::Kind;
use crate::shm::bytes::{Bytes, CopyOut};
use crate::wire::handles::{self, Carried, Received};
use crate::{Data, Error, Execution, Result};
use std::cell::Cell;
use std::io;

thread_local! {
    /// The memory of the last encoding, to be used again.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger memory than this is not kept.
const KEPT: usize = 1 << 20;

/// Encodes an item, on the caller's thread, before anything is locked or taken; then runs `put`
/// with the bytes, in two parts, and the objects that the item names.
#[inline]
pub(super) fn encoded<T: Data, R>(
    item: &T,
    put: impl FnOnce([&[u8]; 2], Carried) -> Result<R>,
) -> Result<R> {
    if let Some((header, body)) = bulk_parts(item) {
        return put([header.bytes(), body], Carried::new());
    }
    // Whoever puts something while it is encoded finds no memory here, and takes new; as does who
    // puts it in the destructor of a thread's variable.
    let mut bytes = SCRATCH.try_with(Cell::take).unwrap_or_default();
    bytes.clear();
    let ((), carried) = naming(|| encode_value(item, &mut bytes)).map_err(|error| match error {
        NotEncoded::Refused(what) => not_encoded(&what),
        NotEncoded::Full => not_encoded("it is too large"),
    })?;
    let result = put([&bytes, &[]], carried);
    if bytes.capacity() <= KEPT {
        let _ = SCRATCH.try_with(|scratch| scratch.set(bytes));
    }
    result
}

/// The error for an item that cannot be put.
#[cold]
pub(super) fn not_encoded(what: &str) -> Error {
    let kind = Kind::Encode(Execution::NotStarted);
    Error::new(kind, format!("the item could not be encoded, and was not put: {what}"))
}

/// What is copied out of a ring while nobody else can take an item: no code of the user's runs.
pub(super) trait Copied: Sized {
    /// Copies it.
    fn copied(source: &impl CopyOut) -> io::Result<Self>;
}

impl Copied for Bytes {
    #[inline]
    fn copied(source: &impl CopyOut) -> io::Result<Self> {
        Self::of(source)
    }
}

/// An item as it came.
#[derive(Debug)]
pub(super) enum Arrived<T> {
    /// A bulk value, copied straight to where it will be; `None` if the bytes are not those of one.
    Bulk(Option<T>),
    /// What has to be decoded.
    Encoded(Bytes),
}

impl<T: Data> Copied for Arrived<T> {
    #[inline]
    fn copied(source: &impl CopyOut) -> io::Result<Self> {
        match bulk_copied(source) {
            Some(value) => value.map(Self::Bulk),
            None => Bytes::of(source).map(Self::Encoded),
        }
    }
}

impl<T: Data> Arrived<T> {
    /// The item, which came with these objects.
    #[inline]
    pub(super) fn decoded(self, received: Option<Received>) -> Result<T> {
        match self {
            Self::Bulk(value) => value.ok_or_else(|| not_decoded(wrong_length::<T>())),
            Self::Encoded(bytes) => decode(bytes.as_slice(), received.unwrap_or_default()),
        }
    }
}

/// The item that came as these bytes, with these objects.
#[inline]
pub(super) fn decode<T: Data>(bytes: &[u8], received: Received) -> Result<T> {
    let decode = || decode_value(&mut Reader(bytes));
    let decoded = if may_carry::<T>() { handles::providing(received, decode) } else { decode() };
    decoded.map_err(not_decoded)
}

#[cold]
fn not_decoded(NotDecoded(what): NotDecoded) -> Error {
    let kind = Kind::Decode(Execution::Failed);
    Error::new(kind, format!("an item was taken that could not be decoded: {what}"))
}

#[cfg(test)]
mod tests {
    use crate::Queue;
    use std::cell::RefCell;
    use std::thread;

    /// Puts a last item when it is dropped.
    struct Last(Queue<String>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.0.put("the last one".to_owned()).expect("it is open");
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    #[test]
    fn what_is_dropped_at_the_very_end_of_a_thread_can_put_an_item() {
        let queue = Queue::new().expect("a queue");
        let puts = queue.clone();
        let thread = thread::spawn(move || {
            // Made first, so it goes last.
            LAST.set(Some(Last(puts.clone())));
            puts.put("one".to_owned()).expect("it is open");
        });
        thread.join().expect("join");
        assert_eq!(queue.get().expect("an item"), "one");
        assert_eq!(queue.try_get().expect("open").as_deref(), Some("the last one"));
    }
}
