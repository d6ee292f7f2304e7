//! Entries: the monomorphised functions whose offsets travel.

use super::function::{Fallible, Function};
use super::panics::{catch, shortened};
use crate::codec::{Data, Emitted, Encode, NotDecoded, NotEncoded, Reader, items};
use crate::codec::{decode_value, encode_value, naming};
use crate::sync::{Members, Tasks};
use crate::sys::image;
use crate::wire::control::Failure;
use crate::wire::handles::{self, Carried};
use crate::wire::worker_link::{Inbox, Outbox, Running};
use crate::{Error, Result};
use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;
use std::rc::Rc;

/// Runs the claimed items of a frame.
pub(super) type FrameFn = fn(&mut Inbox, &mut Outbox, &mut Running);
/// Calls a function once with encoded arguments and returns its encoded result.
type ValueFn = fn(&[u8]) -> Returned;
/// An encoded result and the objects that it names.
pub(crate) type Returned = std::result::Result<(Vec<u8>, Carried), Failure>;
/// Calls a function without arguments or result.
type PlainFn = fn();

/// The offset of a function that runs frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameEntry(pub(crate) u64);
/// The offset of a function that is called once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueEntry(pub(crate) u64);
/// The offset of a function without arguments or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlainEntry(pub(crate) u64);

/// The entry that runs items with `F`.
pub(crate) fn frame_entry<F, A>() -> Result<FrameEntry>
where
    F: Function<A, Output: Data>,
    A: Encode,
{
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(run_items::<F, A> as FrameFn as usize).map(FrameEntry)
}

/// The entry that runs items with `F` and a context that stands before them.
pub(crate) fn context_entry<F, C, T, R>() -> Result<FrameEntry>
where
    F: Fn(&C, T) -> R + Copy + Send + Sync + 'static,
    C: Data,
    T: Data,
    R: Data,
{
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(run_items_with::<F, C, T, R> as FrameFn as usize).map(FrameEntry)
}

/// The entry that calls `F` once and returns its value.
pub(crate) fn value_entry<F, A>() -> Result<ValueEntry>
where
    F: Function<A, Output: Data>,
    A: Encode,
{
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(call_once::<F, A> as ValueFn as usize).map(ValueEntry)
}

/// The entry that calls `F` once and reports only whether it failed.
pub(crate) fn fallible_entry<F, A>() -> Result<ValueEntry>
where
    F: Function<A, Output: Fallible>,
    A: Encode,
{
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(call_fallible::<F, A> as ValueFn as usize).map(ValueEntry)
}

/// The entry that calls `F` for its effects.
pub(crate) fn plain_entry<F: Function<(), Output = ()>>() -> Result<PlainEntry> {
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(call_plainly::<F> as PlainFn as usize).map(PlainEntry)
}

pub(super) const fn assert_captures_nothing<F>() {
    assert!(
        size_of::<F>() == 0,
        "multiproc: this closure captures variables, or is a function pointer, and so cannot be \
         called in another process. Pass the captured data as an argument, use `map_with` for \
         data that all items share, name the function itself instead of a pointer to it, or use \
         `Process` with `StartMethod::Fork`, which takes any closure"
    );
}

pub(super) fn offset_of<F>(address: usize) -> Result<u64> {
    image::current().offset_of(address).ok_or_else(|| {
        Error::invalid(format!(
            "the function {} lives in a shared library, not in the program's executable: another \
             process may not have it at the same place. Call it through a function of the program",
            type_name::<F>()
        ))
    })
}

/// Makes the one value of a type without data.
pub(super) fn conjure<F: Copy + 'static>() -> F {
    const { assert_captures_nothing::<F>() };
    // SAFETY: `F` has size 0 (asserted above), so the read touches no memory. A value of it
    // existed: the parent was given one to name the entry. It is `Copy`, so a second one breaks
    // no ownership, and `Function` requires `Send + Sync`.
    unsafe { NonNull::<F>::dangling().read() }
}

fn run_items<F, A>(inbox: &mut Inbox, outbox: &mut Outbox, running: &mut Running)
where
    F: Function<A, Output: Data>,
    A: Encode,
{
    let descriptor = running.descriptor;
    let mut reader = match inbox.payload(outbox, &descriptor) {
        Ok(bytes) => Reader(bytes),
        Err(error) => return fail_all(outbox, running, &Failure::Other(error.to_string())),
    };
    items::skip::<A>(&mut reader, descriptor.first);
    let function = conjure::<F>();
    run_each(outbox, running, &mut reader, |arguments: A| Ok(function.call(arguments)));
}

fn run_items_with<F, C, T, R>(inbox: &mut Inbox, outbox: &mut Outbox, running: &mut Running)
where
    F: Fn(&C, T) -> R + Copy + Send + Sync + 'static,
    C: Data,
    T: Data,
    R: Data,
{
    let function = conjure::<F>();
    run_with_context(inbox, outbox, running, decode_value::<C>, |context, item: T| {
        Ok(function(context, item))
    });
}

/// Runs items with a context that stands before them.
pub(super) fn run_with_context<C: 'static, T: Data, R: Data>(
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    running: &mut Running,
    decode: impl FnOnce(&mut Reader<'_>) -> std::result::Result<C, NotDecoded>,
    function: impl Fn(&C, T) -> std::result::Result<R, Failure>,
) {
    let descriptor = running.descriptor;
    let (context, members) = match context::<C>(inbox, outbox, running, decode) {
        Ok(context) => context,
        Err(failure) => return fail_all(outbox, running, &failure),
    };
    let mut reader = match inbox.payload(outbox, &descriptor) {
        Ok(bytes) => Reader(bytes),
        Err(error) => return fail_all(outbox, running, &Failure::Other(error.to_string())),
    };
    let _ = ContextHeader::read(&mut reader);
    items::skip::<(T,)>(&mut reader, descriptor.first);
    run_each(outbox, running, &mut reader, |(item,): (T,)| {
        // Until the function has returned: before anybody learns its result.
        let _attending = members.attend();
        function(&context, item)
    });
}

/// Runs the item that is claimed, and those that can still be claimed.
#[inline]
fn run_each<A: Encode, R: Data>(
    outbox: &mut Outbox,
    running: &mut Running,
    reader: &mut Reader<'_>,
    function: impl Fn(A) -> std::result::Result<R, Failure>,
) {
    let mut emitted = false;
    let tasks = Tasks::begin();
    loop {
        // One catch for as many items as go well: it costs more than a tiny item.
        let outcome = catch(|| {
            loop {
                emitted = false;
                let mut item = items::next::<A>(reader).ok_or_else(missing)?;
                let arguments = decode_item::<A>(&mut item)?;
                let value = function(arguments)?;
                // Before anybody learns its result.
                tasks.one_is_over();
                outbox.emit(running, &Emitted::new(&value))?;
                emitted = true;
                drop(value);
                if !outbox.claim(running) {
                    return Ok(());
                }
            }
        });
        tasks.one_is_over();
        match outcome.and_then(|outcome| outcome) {
            Ok(()) => break,
            // A panic in the drop of a value that is on its way changes nothing for its receiver.
            Err(failure) if !emitted => outbox.fail(running, &failure),
            Err(_) => {}
        }
        if !outbox.claim(running) {
            break;
        }
    }
    outbox.flush();
}

#[inline]
fn decode_item<A: Encode>(item: &mut Reader<'_>) -> std::result::Result<A, NotDecoded> {
    // Numbers name no objects, and should not pay for those that do.
    if A::fixed_len().is_some() { A::decode(item) } else { handles::decoding(|| A::decode(item)) }
}

fn fail_all(outbox: &mut Outbox, running: &mut Running, failure: &Failure) {
    loop {
        outbox.fail(running, failure);
        if !outbox.claim(running) {
            break;
        }
    }
}

fn call_once<F, A>(arguments: &[u8]) -> Returned
where
    F: Function<A, Output: Data>,
    A: Encode,
{
    catch(|| {
        let arguments = decode_all::<A>(arguments)?;
        encode_all(&conjure::<F>().call(arguments))
    })?
}

fn call_fallible<F, A>(arguments: &[u8]) -> Returned
where
    F: Function<A, Output: Fallible>,
    A: Encode,
{
    catch(|| {
        let arguments = decode_all::<A>(arguments)?;
        match conjure::<F>().call(arguments).into_failure() {
            None => Ok((Vec::new(), Carried::new())),
            Some(error) => Err(Failure::Other(shortened(error))),
        }
    })?
}

fn call_plainly<F: Function<(), Output = ()>>() {
    conjure::<F>().call(());
}

fn missing() -> Failure {
    Failure::Decode("arguments: the bytes end early".to_owned())
}

/// Decodes arguments that come once; the objects that came with them are theirs from then on.
fn decode_all<A: Encode>(bytes: &[u8]) -> std::result::Result<A, Failure> {
    let arguments = handles::decoding(|| A::decode(&mut Reader(bytes)));
    handles::uninstall();
    Ok(arguments?)
}

/// Encodes the value that a process returns.
pub(crate) fn encode_all<R: Data>(value: &R) -> Returned {
    let mut bytes = Vec::new();
    match naming(|| encode_value(value, &mut bytes)) {
        Ok(((), carried)) => Ok((bytes, carried)),
        Err(NotEncoded::Refused(what)) => Err(Failure::Encode(what)),
        Err(NotEncoded::Full) => Err(Failure::Encode("the value is too large".to_owned())),
    }
}

/// What stands before the items of a frame with a context: which context, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContextHeader {
    /// A number that no other context of this parent has; also the number of its block.
    pub(crate) uid: u64,
    /// The length of the encoded context.
    pub(crate) len: u64,
    /// Whether it is in a block; otherwise it follows the header.
    pub(crate) in_block: bool,
}

impl ContextHeader {
    pub(crate) fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.uid.to_ne_bytes());
        bytes.extend_from_slice(&(self.len << 1 | u64::from(self.in_block)).to_ne_bytes());
    }

    /// Reads a header and skips the context, if that follows; returns both.
    fn read<'a>(reader: &mut Reader<'a>) -> Option<(Self, &'a [u8])> {
        let uid = reader.take(8).map(bytemuck::pod_read_unaligned)?;
        let word: u64 = reader.take(8).map(bytemuck::pod_read_unaligned)?;
        let header = Self { uid, len: word >> 1, in_block: word & 1 != 0 };
        let inline = if header.in_block { 0 } else { header.len as usize };
        Some((header, reader.take(inline)?))
    }
}

thread_local! {
    /// The contexts decoded last, by number.
    static CONTEXTS: RefCell<VecDeque<Context>> = const { RefCell::new(VecDeque::new()) };
}

/// A context that this worker has decoded.
struct Context {
    uid: u64,
    value: Rc<dyn Any>,
    /// Those of its parts whose death in the middle of a task others must see.
    members: Rc<Members>,
    /// The shared objects that it names.
    objects: Vec<u64>,
}

/// Drops the contexts that name one of these objects, which the parent has dropped.
pub(crate) fn drop_contexts_with(objects: &[u64]) {
    let named = |context: &Context| context.objects.iter().any(|uid| objects.contains(uid));
    let dropped: VecDeque<Context> = CONTEXTS.with_borrow_mut(|contexts| {
        let (dropped, kept) = contexts.drain(..).partition(named);
        *contexts = kept;
        dropped
    });
    // Their drop is the user's code.
    let _ = catch(|| drop(dropped));
}

/// The context of a frame: decoded once in this worker, then remembered.
fn context<C: 'static>(
    inbox: &mut Inbox,
    outbox: &Outbox,
    running: &Running,
    decode: impl FnOnce(&mut Reader<'_>) -> std::result::Result<C, NotDecoded>,
) -> std::result::Result<(Rc<C>, Rc<Members>), Failure> {
    const REMEMBERED: usize = 4;
    let other = |error: std::io::Error| Failure::Other(error.to_string());
    let garbled = || Failure::Decode("the context: the bytes end early".to_owned());
    let bytes = inbox.payload(outbox, &running.descriptor).map_err(other)?;
    let (header, inline) = ContextHeader::read(&mut Reader(bytes)).ok_or_else(garbled)?;
    let known = CONTEXTS.with_borrow(|contexts| {
        let known = contexts.iter().find(|known| known.uid == header.uid)?;
        Some((known.value.clone().downcast::<C>().ok()?, known.members.clone()))
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let bytes = if header.in_block {
        inbox.block(outbox, header.uid, header.len as usize).map_err(other)?
    } else {
        inline
    };
    let decode = || catch(|| handles::decoding(|| decode(&mut Reader(bytes))));
    let ((decoded, objects), members) = Members::noting(|| handles::noting(decode));
    let (context, members) = (Rc::new(decoded??), Rc::new(members));
    let dropped = CONTEXTS.with_borrow_mut(|contexts| {
        let (value, members) = (context.clone(), members.clone());
        contexts.push_back(Context { uid: header.uid, value, members, objects });
        if contexts.len() > REMEMBERED { contexts.pop_front() } else { None }
    });
    // Dropped outside the borrow: its drop is the user's code.
    drop(dropped);
    Ok((context, members))
}

/// Runs the claimed items of a frame that the parent posted.
pub(crate) fn run_frame(inbox: &mut Inbox, outbox: &mut Outbox, running: &mut Running) {
    match image::current().address_of(running.descriptor.entry) {
        Some(address) => {
            // SAFETY: the parent, which runs the same build (checked at hello), posted the offset
            // of a `FrameFn` that it got from `frame_entry` or `context_entry`; workers cannot
            // write to the task ring.
            let entry = unsafe { std::mem::transmute::<usize, FrameFn>(address) };
            entry(inbox, outbox, running);
        }
        None => fail_all(outbox, running, &no_code(running.descriptor.entry)),
    }
}

/// Calls the function at an offset that `value_entry` or `fallible_entry` gave to the parent.
pub(crate) fn call_value(entry: u64, arguments: &[u8]) -> Returned {
    let address = image::current().address_of(entry).ok_or_else(|| no_code(entry))?;
    // SAFETY: the parent, which runs the same build (checked at hello), sent the offset of a
    // `ValueFn` in the setup message.
    let entry = unsafe { std::mem::transmute::<usize, ValueFn>(address) };
    entry(arguments)
}

/// Calls the function at an offset that `plain_entry` gave to the parent.
pub(crate) fn call_plain(entry: u64) -> std::result::Result<(), Failure> {
    let address = image::current().address_of(entry).ok_or_else(|| no_code(entry))?;
    // SAFETY: the parent, which runs the same build (checked at hello), sent the offset of a
    // `PlainFn` in the setup message.
    let entry = unsafe { std::mem::transmute::<usize, PlainFn>(address) };
    catch(entry)
}

fn no_code(entry: u64) -> Failure {
    Failure::Other(format!("there is no code at offset {entry:#x} of this executable"))
}
