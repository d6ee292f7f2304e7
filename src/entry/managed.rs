//! Entries that a server calls for its clients: methods of the objects that it holds.
//!
//! A client names what is to be called by the offset of an [`Entry`]: a constant that the compiler
//! made for one function, one type of object, and one type of arguments. What a client sends may be
//! anything, so an offset is never jumped to. It is accepted only if a whole, aligned constant lies
//! there in memory of the program that nobody writes to, and if that constant says of itself that
//! it is an entry; the code is what *it* names. The entry then compares the type of the object with
//! the one that it is for.

use super::call::{assert_captures_nothing, conjure, encode_all};
use super::held::{self, holding};
use super::panics::catch;
use crate::codec::{Data, Encode, NotEncoded, Reader, encode_serde, naming};
use crate::error::Kind;
use crate::sys::image;
use crate::wire::control::Failure;
use crate::wire::handles::{self, Carried};
use crate::{Error, Execution, Result};
use serde::Serialize;
use std::any::{Any, type_name};
use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::{Arc, RwLock, Weak};

/// An object that a server holds.
pub(crate) type Target = Arc<dyn Any + Send + Sync>;

/// Who calls: one thread of a client.
pub(crate) trait Caller: fmt::Debug {
    /// A number that no other caller of this server has, or ever had.
    fn id(&self) -> u64;
    /// Whether it is still there to hear the answer.
    fn is_alive(&self) -> bool;
    /// The caller has something that is to be taken from it when it goes.
    fn holds(&self, holder: Weak<dyn Departure>);
    /// The answer to this call is news that is for somebody else if the caller does not hear it.
    fn tells(&self, teller: Weak<dyn Departure>);
}

/// An object that callers can have something of.
pub(crate) trait Departure: Send + Sync {
    /// The caller with this number has gone; whether it said so, as a thread does that ends. One
    /// that is killed does not. Called once for each.
    fn departed(&self, caller: u64, said_so: bool);
    /// A caller has gone, and asked for nothing more after it was sent news: nobody knows whether
    /// it heard them.
    fn unheard(&self) {}
}

/// What a call gives.
pub(crate) enum Answer {
    /// An encoded value, and the objects that it names.
    Value(Vec<u8>, Carried),
    /// A new object for the server to hold.
    Made(Target),
}

/// Calls a function for a client, with encoded arguments.
type Code = fn(&Target, &dyn Caller, &[u8]) -> Result<Answer>;

/// What a client can name: the constant that the compiler made for one function.
#[repr(C)]
struct Entry {
    magic: [u64; 2],
    /// Twice: two equal addresses of code after the magic do not come about by chance.
    code: [Code; 2],
}

/// An entry, before it is known to be one.
type Candidate = [usize; size_of::<Entry>() / size_of::<usize>()];

// The magic is the exclusive or of these, taken by the compiler for the entries, and by the
// processor when one is checked: so it is nowhere in the program but in entries, not even among the
// constants of the code that checks it.
const ONE: [u64; 2] = [0x1d0c_7a4e_95b8_f263, 0x8e31_d95f_06a7_bc4b];
const OTHER: [u64; 2] = [0x6af2_3b91_c7d4_0e58, 0x35cd_7e10_f98b_42a6];

impl Entry {
    const fn new(code: Code) -> Self {
        Self { magic: [ONE[0] ^ OTHER[0], ONE[1] ^ OTHER[1]], code: [code, code] }
    }

    /// The entry at an offset that came from somewhere, if there is one.
    fn at(offset: u64) -> Option<&'static Self> {
        let image = image::current();
        let address = image.address_of_constant::<Self>(offset)?;
        // SAFETY: the image has a whole, aligned `Entry`'s worth of bytes there, which it keeps for
        // the life of the process and nobody writes to; every word is a valid number.
        let words: Candidate =
            unsafe { std::ptr::with_exposed_provenance::<Candidate>(address).read() };
        let words: [u64; 4] = words.map(|word| word as u64);
        let magic = [0, 1].map(|at| black_box(ONE[at]) ^ black_box(OTHER[at]));
        let is_entry = words[..2] == magic
            && words[2] == words[3]
            && image.offset_of(words[2] as usize).is_some();
        // SAFETY: only constants that `Entry::new` made begin with these words, so this is one: the
        // pointers in it are those of a `Code`. It is aligned and lives as long as the process.
        is_entry.then(|| unsafe { &*std::ptr::with_exposed_provenance::<Self>(address) })
    }
}

/// Names an entry to a server of the same build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManagedEntry(pub(crate) u64);

fn name<F>(entry: &'static Entry) -> Result<ManagedEntry> {
    image::current().offset_of_constant(entry).map(ManagedEntry).ok_or_else(|| {
        Error::invalid(format!(
            "the function {} lives in a shared library, or in a program that is linked without \
             RELRO: a manager calls only what is named by a constant of the program's executable",
            type_name::<F>()
        ))
    })
}

/// Calls what an offset names.
///
/// # Errors
/// If there is no entry, if it is for objects of another type, and whatever the call gives.
pub(crate) fn call_managed(
    entry: u64,
    target: &Target,
    caller: &dyn Caller,
    arguments: &[u8],
) -> Result<Answer> {
    let Some(entry) = Entry::at(entry) else {
        return Err(Error::invalid(format!(
            "there is no method at offset {entry:#x} of the manager's executable"
        )));
    };
    let answer = catch(|| entry.code[0](target, caller, arguments));
    answer.unwrap_or_else(|failure| Err(failed(failure)))
}

fn failed(failure: Failure) -> Error {
    match failure {
        Failure::Panicked(info) => Error::panicked(info),
        Failure::Decode(what) => Error::new(
            Kind::Decode(Execution::NotStarted),
            format!("the arguments could not be decoded by the manager: {what}"),
        ),
        Failure::Encode(what) => Error::new(
            Kind::Encode(Execution::Failed),
            format!("the method returned, but its value could not be encoded: {what}"),
        ),
        Failure::Other(what) => Error::invalid(what),
    }
}

fn not_encoded(error: NotEncoded) -> Error {
    failed(Failure::Encode(match error {
        NotEncoded::Refused(what) => what,
        NotEncoded::Full => "the value is too large".to_owned(),
    }))
}

fn decode<A: Encode>(bytes: &[u8]) -> Result<A> {
    let decoded = handles::decoding(|| A::decode(&mut Reader(bytes)));
    decoded.map_err(|error| failed(error.into()))
}

thread_local! {
    static ANSWERING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is encoding what a client asked for.
pub(crate) fn is_answering() -> bool {
    ANSWERING.get()
}

fn answering<R>(encode: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ANSWERING.set(self.0);
        }
    }
    let _restore = Restore(ANSWERING.replace(true));
    encode()
}

fn value<R: Data>(value: &R) -> Result<Answer> {
    let (bytes, carried) = answering(|| encode_all(value)).map_err(failed)?;
    Ok(Answer::Value(bytes, carried))
}

fn object<O: Send + Sync + 'static>(target: &Target) -> Result<Arc<O>> {
    target.clone().downcast().map_err(|_| {
        Error::invalid(format!(
            "the method is one of {}, and the object is of another type",
            type_name::<O>()
        ))
    })
}

/// The value of a look at an object, encoded while the object cannot change.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    bytes: &'a mut Vec<u8>,
    refused: Option<NotEncoded>,
}

impl Look<'_> {
    /// The answer is this value; what is borrowed is encoded like what is owned. Not for numbers
    /// and vectors of them, which have an encoding of their own: see [`Look::value`].
    pub(crate) fn show<R: Serialize>(&mut self, value: &R) {
        self.note(|bytes| encode_serde(value, bytes));
    }

    /// The answer is this value.
    pub(crate) fn value<R: Data>(&mut self, value: &R) {
        self.note(|bytes| crate::codec::encode_value(value, bytes));
    }

    fn note(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), NotEncoded>) {
        self.bytes.clear();
        self.refused = answering(|| encode(self.bytes)).err();
    }
}

struct Write<F, S, A, R>(PhantomData<(F, S, A, R)>);

impl<F, S, A, R> Write<F, S, A, R>
where
    F: Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(target: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let state = object::<RwLock<S>>(target)?;
        let arguments = decode::<A>(arguments)?;
        let returned = holding(target, || -> Result<R> {
            let mut state = held::exclusive(&state)?;
            Ok(conjure::<F>()(&mut state, arguments))
        })?;
        value(&returned)
    }
}

struct Read<F, S, A, R>(PhantomData<(F, S, A, R)>);

impl<F, S, A, R> Read<F, S, A, R>
where
    F: Fn(&S, A) -> R + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(target: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let state = object::<RwLock<S>>(target)?;
        let arguments = decode::<A>(arguments)?;
        let returned = holding(target, || -> Result<R> {
            let state = held::shared(&state)?;
            Ok(conjure::<F>()(&state, arguments))
        })?;
        value(&returned)
    }
}

struct Show<F, S, A>(PhantomData<(F, S, A)>);

impl<F, S, A> Show<F, S, A>
where
    F: Fn(&S, A, &mut Look<'_>) + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(target: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let state = object::<RwLock<S>>(target)?;
        let arguments = decode::<A>(arguments)?;
        let mut bytes = Vec::new();
        let looked = holding(target, || {
            let state = held::shared(&state)?;
            let look = || {
                let mut look = Look { bytes: &mut bytes, refused: None };
                conjure::<F>()(&state, arguments, &mut look);
                look.refused.map_or(Ok(()), Err)
            };
            naming(look).map_err(not_encoded)
        });
        let ((), carried) = looked?;
        Ok(Answer::Value(bytes, carried))
    }
}

struct Raw<F, O, A, R>(PhantomData<(F, O, A, R)>);

impl<F, O, A, R> Raw<F, O, A, R>
where
    F: Fn(&Arc<O>, &dyn Caller, A) -> Result<R> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(target: &Target, caller: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let object = object::<O>(target)?;
        let arguments = decode::<A>(arguments)?;
        value(&conjure::<F>()(&object, caller, arguments)?)
    }
}

struct Make<F, O, A>(PhantomData<(F, O, A)>);

impl<F, O, A> Make<F, O, A>
where
    F: Fn(A) -> Result<O> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(_: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let made = conjure::<F>()(decode::<A>(arguments)?)?;
        Ok(Answer::Made(Arc::new(made)))
    }
}

struct TryMake<F, O, A, E>(PhantomData<(F, O, A, E)>);

impl<F, O, A, E> TryMake<F, O, A, E>
where
    F: Fn(A) -> std::result::Result<O, E> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    E: Data,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(_: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        match conjure::<F>()(decode::<A>(arguments)?) {
            Ok(made) => Ok(Answer::Made(Arc::new(made))),
            Err(why) => value(&why),
        }
    }
}

struct Spawn<F, O, A, N>(PhantomData<(F, O, A, N)>);

impl<F, O, A, N> Spawn<F, O, A, N>
where
    F: Fn(&Arc<O>, A) -> Result<N> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    N: Send + Sync + 'static,
{
    const ENTRY: &'static Entry = &Entry::new(Self::run);

    fn run(target: &Target, _: &dyn Caller, arguments: &[u8]) -> Result<Answer> {
        let object = object::<O>(target)?;
        let made = conjure::<F>()(&object, decode::<A>(arguments)?)?;
        Ok(Answer::Made(Arc::new(made)))
    }
}

/// The entry of a function that may change an object, which nobody else sees meanwhile.
pub(crate) fn write_entry<F, S, A, R>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(&mut S, A) -> R + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Write::<F, S, A, R>::ENTRY)
}

/// The entry of a function that looks at an object, as others may at the same time.
pub(crate) fn read_entry<F, S, A, R>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(&S, A) -> R + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Read::<F, S, A, R>::ENTRY)
}

/// The entry of a function that shows a part of an object, which is encoded where it is.
pub(crate) fn show_entry<F, S, A>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(&S, A, &mut Look<'_>) + Copy + Send + Sync + 'static,
    S: Send + Sync + 'static,
    A: Encode,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Show::<F, S, A>::ENTRY)
}

/// The entry of a method of an object that synchronises itself, and may wait.
pub(crate) fn raw_entry<F, O, A, R>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(&Arc<O>, &dyn Caller, A) -> Result<R> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    R: Data,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Raw::<F, O, A, R>::ENTRY)
}

/// The entry of a function that makes an object.
pub(crate) fn make_entry<F, O, A>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(A) -> Result<O> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Make::<F, O, A>::ENTRY)
}

/// The entry of a function that makes an object, or gives a value that says why not.
pub(crate) fn try_make_entry<F, O, A, E>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(A) -> std::result::Result<O, E> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    E: Data,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(TryMake::<F, O, A, E>::ENTRY)
}

/// The entry of a method, of an object that synchronises itself, that makes another object.
pub(crate) fn spawn_entry<F, O, A, N>(_function: F) -> Result<ManagedEntry>
where
    F: Fn(&Arc<O>, A) -> Result<N> + Copy + Send + Sync + 'static,
    O: Send + Sync + 'static,
    A: Encode,
    N: Send + Sync + 'static,
{
    const { assert_captures_nothing::<F>() };
    name::<F>(Spawn::<F, O, A, N>::ENTRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_arguments;

    #[derive(Debug)]
    struct Nobody;

    impl Caller for Nobody {
        fn id(&self) -> u64 {
            0
        }
        fn is_alive(&self) -> bool {
            true
        }
        fn holds(&self, _: Weak<dyn Departure>) {}
        fn tells(&self, _: Weak<dyn Departure>) {}
    }

    fn push() -> ManagedEntry {
        write_entry(|list: &mut Vec<u64>, (item,): (u64,)| {
            list.push(item);
            list.len()
        })
        .expect("an entry")
    }

    fn list() -> Target {
        Arc::new(RwLock::new(Vec::<u64>::new()))
    }

    fn call(entry: u64, target: &Target) -> Result<usize> {
        let (arguments, _) = encode_arguments(&(7u64,)).expect("encode");
        match call_managed(entry, target, &Nobody, &arguments)? {
            Answer::Value(bytes, _) => decode::<(usize,)>(&bytes).map(|(value,)| value),
            Answer::Made(_) => panic!("nothing was to be made"),
        }
    }

    #[test]
    fn an_entry_calls_its_function_on_an_object_of_its_type() {
        let list = list();
        assert_eq!(call(push().0, &list).expect("call"), 1);
        assert_eq!(call(push().0, &list).expect("call"), 2);
    }

    #[test]
    fn an_object_of_another_type_is_refused() {
        let other: Target = Arc::new(RwLock::new(Vec::<u32>::new()));
        let error = call(push().0, &other).expect_err("another type");
        assert!(error.is_invalid_input(), "{error}");
    }

    /// Every offset of the image but those of entries, and some outside of it.
    #[test]
    fn no_other_offset_is_taken_for_an_entry() {
        let entry = push().0;
        let near = (entry.saturating_sub(4096)..entry + 4096).filter(|&offset| offset != entry);
        let found: Vec<u64> = near.filter(|&offset| Entry::at(offset).is_some()).collect();
        // Others may lie there; all of them begin with the magic, 8 bytes aligned.
        assert!(found.iter().all(|offset| offset % 8 == 0), "{found:x?}");
        for offset in (0..1 << 20).chain((40..64).map(|bit| 1 << bit)).chain([u64::MAX - 7]) {
            let _ = Entry::at(offset);
        }
        let error = call(entry + 8, &list()).expect_err("no entry");
        assert!(error.is_invalid_input(), "{error}");
    }

    #[test]
    fn the_magic_is_nowhere_in_the_program_but_in_entries() {
        let magic = [0, 1].map(|at| black_box(ONE[at]) ^ black_box(OTHER[at]));
        let base = name::<()>(Entry::at(push().0).expect("an entry")).map(|entry| {
            std::ptr::from_ref(Entry::at(push().0).expect("an entry")) as u64 - entry.0
        });
        let base = base.expect("it is named");
        let (mut entries, mut others) = (0, Vec::new());
        for range in image::current().constants() {
            for address in
                (range.start.next_multiple_of(8)..range.end.saturating_sub(15)).step_by(8)
            {
                // SAFETY: these are mapped, readable, for the life of the process (asked of the
                // program headers), and the address is aligned.
                let words = unsafe {
                    std::ptr::with_exposed_provenance::<[u64; 2]>(address).read_volatile()
                };
                if words == magic {
                    match Entry::at(address as u64 - base) {
                        Some(_) => entries += 1,
                        None => others.push(address),
                    }
                }
            }
        }
        assert!(entries > 0 && others.is_empty(), "{entries} entries, and {others:x?}");
    }

    #[test]
    fn a_copy_of_an_entry_elsewhere_is_none() {
        let original = Entry::at(push().0).expect("an entry");
        let copy: &'static Entry =
            Box::leak(Box::new(Entry { magic: original.magic, code: original.code }));
        assert!(name::<()>(copy).is_err());
        let base = std::ptr::from_ref(original) as u64 - push().0;
        let offset = (std::ptr::from_ref(copy) as u64).wrapping_sub(base);
        assert!(Entry::at(offset).is_none());
    }

    #[test]
    fn a_panic_is_an_error_and_the_object_stays() {
        let list = list();
        let fail = write_entry(|_: &mut Vec<u64>, (_,): (u64,)| -> usize { panic!("no") });
        let error = call(fail.expect("an entry").0, &list).expect_err("a panic");
        assert!(error.is_panic(), "{error}");
        assert_eq!(call(push().0, &list).expect("call"), 1);
    }

    #[test]
    fn arguments_that_end_early_are_an_error() {
        let error = call_managed(push().0, &list(), &Nobody, &[1, 2]).err().expect("an error");
        assert!(error.is_decode(), "{error}");
    }
}
