//! Objects inside messages.
//!
//! A handle is encoded as the number that its object has in the sending process; the descriptor
//! travels beside the message. While a message is encoded, the objects that its handles name are
//! collected here; while one is decoded, the objects that came with it are found here. At any other
//! time a handle can be neither serialised nor deserialised.

use crate::shm::object::Object;
use serde::{Deserialize, Deserializer, Serializer, de, ser};
use std::cell::RefCell;
use std::sync::Arc;

/// The objects that travel with one message, each once.
pub(crate) type Carried = Vec<Arc<Object>>;
/// Received objects, with the numbers that they have at the sender.
pub(crate) type Received = Vec<(u64, Arc<Object>)>;

thread_local! {
    /// The objects of the message that this thread is encoding.
    static SENDING: RefCell<Option<Carried>> = const { RefCell::new(None) };
    /// The objects of the message that this thread is decoding.
    static RECEIVING: RefCell<Option<Received>> = const { RefCell::new(None) };
    /// Why a handle refused, in words: the encoding drops the text of an error.
    static REFUSAL: RefCell<Option<String>> = const { RefCell::new(None) };
}

const OUTSIDE: &str = "a shared object can only travel as an argument, an item, a context or a \
                       result of a multiproc call: its descriptor goes beside the message";

/// Runs `encode` and returns the objects whose handles it encoded.
pub(crate) fn collecting<R>(encode: impl FnOnce() -> R) -> (R, Carried) {
    let before = SENDING.replace(Some(Vec::new()));
    let restore = Restore(&SENDING, before);
    let result = encode();
    let carried = SENDING.take().unwrap_or_default();
    drop(restore);
    (result, carried)
}

/// Runs `decode` with the objects that came with the message.
pub(crate) fn providing<R>(received: Received, decode: impl FnOnce() -> R) -> R {
    let before = RECEIVING.replace(Some(received));
    let _restore = Restore(&RECEIVING, before);
    decode()
}

/// Puts back what a thread was doing before, also after a panic in the user's code.
struct Restore<T: 'static>(&'static std::thread::LocalKey<RefCell<Option<T>>>, Option<T>);

impl<T> Drop for Restore<T> {
    fn drop(&mut self) {
        let before = self.1.take();
        // A thread that is ending encodes nothing any more.
        let _ = self.0.try_with(|cell| cell.replace(before));
    }
}

/// What the last handle that refused to be encoded or decoded said.
pub(crate) fn take_refusal() -> Option<String> {
    REFUSAL.take()
}

fn refuse(what: &str) {
    REFUSAL.set(Some(what.to_owned()));
}

/// Encodes a handle of `object`.
pub(crate) fn serialize<S: Serializer>(
    object: &Arc<Object>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let sending = SENDING.with_borrow_mut(|sending| match sending {
        Some(carried) => {
            if !carried.iter().any(|known| known.uid() == object.uid()) {
                carried.push(object.clone());
            }
            true
        }
        None => false,
    });
    if !sending {
        return Err(refuse_encoding(OUTSIDE));
    }
    serializer.serialize_u64(object.uid())
}

/// The error for a handle that cannot be encoded.
pub(crate) fn refuse_encoding<E: ser::Error>(what: &str) -> E {
    refuse(what);
    E::custom(what)
}

/// The error for a handle that cannot be decoded.
pub(crate) fn refuse_decoding<E: de::Error>(what: &str) -> E {
    refuse(what);
    E::custom(what)
}

/// Decodes a handle.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<Object>, D::Error> {
    let uid = u64::deserialize(deserializer)?;
    let found = RECEIVING.with_borrow(|receiving| {
        let received = receiving.as_ref()?;
        Some(received.iter().find(|(known, _)| *known == uid).map(|(_, object)| object.clone()))
    });
    match found {
        Some(Some(object)) => Ok(object),
        Some(None) => Err(refuse_decoding(
            "a shared object whose descriptor did not come (too many open files?)",
        )),
        None => Err(refuse_decoding(OUTSIDE)),
    }
}
