//! Objects inside messages.
//!
//! A handle is encoded as the number that its object has in the sending process; the descriptor
//! travels beside the message. While a message is encoded, the objects that its handles name are
//! collected here; while one is decoded, the objects that came with it are found here. At any other
//! time a handle can be neither serialised nor deserialised.

use crate::shm::object::Object;
use crate::sys::socket::MAX_FDS;
use serde::{Deserialize, Deserializer, Serializer, de, ser};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::LocalKey;

/// The most objects that the value of one call, or the arguments of one process, can name: their
/// descriptors travel in one message, beside a few others.
pub(crate) const MAX_HANDLES: usize = MAX_FDS - 16;

/// The objects that travel with one message, each once.
pub(crate) type Carried = Vec<Arc<Object>>;
/// Received objects, by the numbers that they have at the sender.
pub(crate) type Received = HashMap<u64, Arc<Object>>;

thread_local! {
    /// The objects of the message that this thread is encoding.
    static SENDING: RefCell<Option<Carried>> = const { RefCell::new(None) };
    /// The objects that came with the message which this thread is decoding; in a pool worker those
    /// that it was sent and the parent has not dropped.
    static RECEIVED: RefCell<Option<Received>> = const { RefCell::new(None) };
    /// Whether this thread is decoding a message.
    static DECODING: Cell<bool> = const { Cell::new(false) };
    /// The numbers of the objects that were found while something was decoded.
    static FOUND: RefCell<Option<Vec<u64>>> = const { RefCell::new(None) };
    /// Why a handle refused, in words: the encoding drops the text of an error.
    static REFUSAL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

const OUTSIDE: &str = "a shared object can only travel as an argument, an item, a context or a \
                       result of a multiproc call, or in a message of one of its queues, pipes or \
                       Unix connections, because its descriptor goes beside it";

const TOO_MANY: &str = "more than 224 shared objects in one value or one set of arguments, because \
                        their descriptors go in one message; send them in several";
const _: () = assert!(MAX_HANDLES == 224);

/// A cell of a thread. What is dropped at the very end of a thread may still encode and decode,
/// when the cell is gone: then no object travels.
type Slot<T> = &'static LocalKey<RefCell<Option<T>>>;

/// Puts something into a cell, and returns what was there.
fn exchange<T>(cell: Slot<T>, value: Option<T>) -> Option<T> {
    cell.try_with(|cell| cell.replace(value)).ok().flatten()
}

/// Does something with what is in a cell.
fn at<T, R: Default>(cell: Slot<T>, act: impl FnOnce(&mut Option<T>) -> R) -> R {
    cell.try_with(|cell| act(&mut cell.borrow_mut())).unwrap_or_default()
}

/// Sets a thread's cell for the time of `run`, then puts back what was there: calls nest, because
/// the user's code runs in them.
fn with<T, R>(cell: Slot<T>, value: T, run: impl FnOnce() -> R) -> (R, Option<T>) {
    struct Restore<T: 'static>(Slot<T>, Option<T>);
    impl<T> Drop for Restore<T> {
        fn drop(&mut self) {
            exchange(self.0, self.1.take());
        }
    }
    let restore = Restore(cell, exchange(cell, Some(value)));
    let result = run();
    let value = exchange(cell, None);
    drop(restore);
    (result, value)
}

/// Runs `encode` and returns the objects whose handles it encoded: [`MAX_HANDLES`] at most, the
/// next one cannot be encoded.
#[inline]
pub(crate) fn collecting<R>(encode: impl FnOnce() -> R) -> (R, Carried) {
    let (result, carried) = with(&SENDING, Vec::new(), encode);
    (result, carried.unwrap_or_default())
}

/// The objects collected so far.
pub(crate) fn take_collected() -> Carried {
    at(&SENDING, |sending| sending.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// Whether any object was collected.
pub(crate) fn is_carrying() -> bool {
    at(&SENDING, |sending| sending.as_ref().is_some_and(|carried| !carried.is_empty()))
}

/// Runs `decode` with the objects that came with the message.
pub(crate) fn providing<R>(received: Received, decode: impl FnOnce() -> R) -> R {
    with(&RECEIVED, received, || decoding(decode)).0
}

/// Runs `decode` with the objects that are installed.
#[inline]
pub(crate) fn decoding<R>(decode: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            DECODING.set(self.0);
        }
    }
    let _restore = Restore(DECODING.replace(true));
    decode()
}

/// Runs `decode` and returns the numbers of the objects that it found.
pub(crate) fn noting<R>(decode: impl FnOnce() -> R) -> (R, Vec<u64>) {
    let (result, found) = with(&FOUND, Vec::new(), decode);
    (result, found.unwrap_or_default())
}

/// From now on this thread finds these objects.
pub(crate) fn install(received: Received) {
    exchange(&RECEIVED, Some(received));
}

/// The objects that were installed are needed no longer.
pub(crate) fn uninstall() {
    exchange(&RECEIVED, None);
}

/// One more object for this thread to find.
pub(crate) fn admit(uid: u64, object: Arc<Object>) {
    at(&RECEIVED, |received| received.get_or_insert_default().insert(uid, object));
}

/// The sender has dropped an object.
pub(crate) fn dismiss(uid: u64) {
    at(&RECEIVED, |received| received.as_mut()?.remove(&uid));
}

/// The numbers of objects, as a message names them.
pub(crate) fn numbers(carried: &Carried) -> Vec<u64> {
    carried.iter().map(|object| object.uid()).collect()
}

/// The descriptors of objects, as they go beside the message.
pub(crate) fn descriptors(carried: &Carried) -> impl Iterator<Item = BorrowedFd<'_>> {
    carried.iter().map(|object| object.fd())
}

/// Objects out of a message: those that have both number and descriptor.
pub(crate) fn receive(
    numbers: &[u64],
    fds: impl Iterator<Item = OwnedFd>,
) -> impl Iterator<Item = (u64, Arc<Object>)> {
    numbers.iter().copied().zip(fds.map(|fd| Arc::new(Object::received(fd))))
}

/// What the last handle that could not be encoded or decoded said.
pub(crate) fn take_refusal() -> Option<&'static str> {
    REFUSAL.take()
}

/// Encodes a handle of `object`.
pub(crate) fn serialize<S: Serializer>(
    object: &Arc<Object>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let collected = at(&SENDING, |sending| {
        let carried = sending.as_mut()?;
        if carried.iter().any(|known| known.uid() == object.uid()) {
            return Some(Ok(()));
        }
        if carried.len() == MAX_HANDLES {
            return Some(Err(TOO_MANY));
        }
        carried.push(object.clone());
        Some(Ok(()))
    });
    collected.unwrap_or(Err(OUTSIDE)).map_err(refuse_encoding)?;
    serializer.serialize_u64(object.uid())
}

/// The error for a handle that cannot be encoded.
pub(crate) fn refuse_encoding<E: ser::Error>(what: &'static str) -> E {
    REFUSAL.set(Some(what));
    E::custom(what)
}

/// The error for a handle that cannot be decoded.
pub(crate) fn refuse_decoding<E: de::Error>(what: &'static str) -> E {
    REFUSAL.set(Some(what));
    E::custom(what)
}

/// Decodes a handle.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Arc<Object>, D::Error> {
    let uid = u64::deserialize(deserializer)?;
    if !DECODING.get() {
        return Err(refuse_decoding(OUTSIDE));
    }
    let object = at(&RECEIVED, |received| received.as_ref()?.get(&uid).cloned());
    at(&FOUND, |found| found.as_mut().map(|found| found.push(uid)));
    object.ok_or_else(|| {
        refuse_decoding(
            "a shared object that did not come with the message; if it was sent, this process has \
             too many open files",
        )
    })
}
