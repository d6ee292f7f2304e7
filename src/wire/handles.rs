//! Objects inside messages.
//!
//! A handle is encoded as the number that its object has in the sending process; the descriptor
//! travels beside the message. While a message is encoded, the objects that its handles name are
//! collected here; while one is decoded, the objects that came with it are found here. At any other
//! time a handle can be neither serialised nor deserialised.

use crate::shm::object::Object;
use crate::sys::lasting::Lasting;
use crate::sys::socket::MAX_FDS;
use serde::{Deserialize, Deserializer, Serializer, de, ser};
use std::cell::Cell;
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
    static SENDING: Lasting<Carried> = const { Lasting::new() };
    /// The objects that came with the message which this thread is decoding; in a pool worker those
    /// that it was sent and the parent has not dropped.
    static RECEIVED: Lasting<Received> = const { Lasting::new() };
    /// Whether this thread is decoding a message.
    static DECODING: Cell<bool> = const { Cell::new(false) };
    /// The numbers of the objects that were found while something was decoded.
    static FOUND: Lasting<Vec<u64>> = const { Lasting::new() };
    /// Why a handle refused, in words: the encoding drops the text of an error.
    static REFUSAL: Cell<Option<&'static str>> = const { Cell::new(None) };
}

const OUTSIDE: &str = "a shared object can only travel as an argument, an item, a context or a \
                       result of a multiproc call, or in a message of one of its queues, pipes or \
                       Unix connections, because its descriptor goes beside it";

const TOO_MANY: &str = "more than 224 shared objects in one value or one set of arguments, because \
                        their descriptors go in one message; send them in several";
const _: () = assert!(MAX_HANDLES == 224);

/// Sets a thread's cell for the time of `run`, then puts back what was there: calls nest, because
/// the user's code runs in them.
fn with<T, R>(
    cell: &'static LocalKey<Lasting<T>>,
    value: T,
    run: impl FnOnce() -> R,
) -> (R, Option<T>) {
    struct Restore<T: 'static>(&'static LocalKey<Lasting<T>>, Option<T>);
    impl<T> Drop for Restore<T> {
        fn drop(&mut self) {
            let outer = self.1.take();
            let _ = self.0.with(|cell| cell.replace(outer));
        }
    }
    let restore = Restore(cell, cell.with(|cell| cell.replace(Some(value))));
    let result = run();
    let value = cell.with(Lasting::take);
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
    SENDING.with(|sending| sending.with(|sending| sending.map(std::mem::take))).unwrap_or_default()
}

/// Whether any object was collected.
pub(crate) fn is_carrying() -> bool {
    SENDING.with(|sending| sending.with(|sending| sending.is_some_and(|sent| !sent.is_empty())))
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
    drop(RECEIVED.with(|installed| installed.replace(Some(received))));
}

/// The objects that were installed are needed no longer.
pub(crate) fn uninstall() {
    drop(RECEIVED.with(Lasting::take));
}

/// One more object for this thread to find.
pub(crate) fn admit(uid: u64, object: Arc<Object>) {
    let before =
        RECEIVED.with(|received| received.with_default(|received| received.insert(uid, object)));
    drop(before);
}

/// The sender has dropped an object.
pub(crate) fn dismiss(uid: u64) {
    let object = RECEIVED.with(|received| received.with(|received| received?.remove(&uid)));
    drop(object);
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
    let collect = |sending: Option<&mut Carried>| {
        let carried = sending.ok_or(OUTSIDE)?;
        if carried.iter().any(|known| known.uid() == object.uid()) {
            return Ok(());
        }
        if carried.len() == MAX_HANDLES {
            return Err(TOO_MANY);
        }
        carried.push(object.clone());
        Ok(())
    };
    SENDING.with(|sending| sending.with(collect)).map_err(refuse_encoding)?;
    serializer.serialize_u64(object.uid())
}

/// The error for a handle that cannot be encoded.
pub(crate) fn refuse_encoding<E: ser::Error>(what: &'static str) -> E {
    REFUSAL.set(Some(what));
    E::custom(what)
}

/// This process can take no more descriptors.
pub(crate) fn no_descriptors() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EMFILE)
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
    let find = |received: Option<&mut Received>| {
        let missing = "a shared object that did not come with the message; if it was sent, this \
                       process has too many open files";
        received.and_then(|received| received.get(&uid).cloned()).ok_or(missing)
    };
    FOUND.with(|found| found.with(|found| found.map(|found| found.push(uid))));
    RECEIVED.with(|received| received.with(find)).map_err(refuse_decoding)
}
