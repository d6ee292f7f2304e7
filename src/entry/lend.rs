//! Memory lent to a pool: what travels, and how a worker gets its part of it.

use super::call::{
    FrameEntry, FrameFn, assert_captures_nothing, conjure, offset_of, run_with_context,
};
use crate::Result;
use crate::codec::{Data, NotDecoded, Reader, decode_value};
use crate::shm::lend::{self, Loan};
use crate::shm::object::{Access, Object};
use crate::wire::control::Failure;
use crate::wire::travel::Handle;
use crate::wire::worker_link::{Inbox, Outbox, Running};
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// Memory as a worker sees it that it was lent to.
///
/// # Safety
/// `chunk` gives out nothing but the elements `start..start + count` (of each vector).
pub unsafe trait Lent: Data {
    /// Whether borrowers can change it.
    const MUTABLE: bool;
    /// A part of it.
    type Chunk<'a>;

    /// The elements from `start` on, `count` of them.
    ///
    /// # Safety
    /// Until the chunk is dropped nobody else, in any process, has the same elements of what is
    /// lent mutably, or writes to those of what is lent for reading.
    unsafe fn chunk(&self, start: usize, count: usize) -> io::Result<Self::Chunk<'_>>;
}

/// The handle of lent elements.
#[derive(Debug)]
pub struct Elements<T> {
    object: Arc<Object>,
    frozen: bool,
    /// The bytes that are mapped.
    bytes: u64,
    /// Where the first element is, in elements.
    first: u64,
    element: PhantomData<fn() -> T>,
}

impl<T: Pod> Elements<T> {
    /// The elements of a loan from number `first` on.
    pub(crate) fn of(loan: Loan, first: usize) -> Self {
        Self {
            frozen: loan.access == Access::Frozen,
            object: loan.object,
            bytes: loan.bytes as u64,
            first: first as u64,
            element: PhantomData,
        }
    }

    fn access(&self) -> Access {
        if self.frozen { Access::Frozen } else { Access::Owned }
    }
}

impl<T: Pod> Serialize for Elements<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (Handle(self.object.clone()), self.frozen, self.bytes, self.first).serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Elements<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (Handle(object), frozen, bytes, first) = Deserialize::deserialize(deserializer)?;
        Ok(Self { object, frozen, bytes, first, element: PhantomData })
    }
}

/// Lent for reading.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Shared<T: Pod>(pub(crate) Elements<T>);

/// Lent for writing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Exclusive<T: Pod>(pub(crate) Elements<T>);

// SAFETY: `lend::chunk` checks that the range is within the elements, and gives out that range.
unsafe impl<T: Pod> Lent for Shared<T> {
    const MUTABLE: bool = false;
    type Chunk<'a> = &'a [T];

    unsafe fn chunk(&self, start: usize, count: usize) -> io::Result<&[T]> {
        let Elements { object, bytes, first, .. } = &self.0;
        let start = start.saturating_add(*first as usize);
        // SAFETY: passed on from the caller: nobody writes to these elements.
        unsafe { lend::chunk(object, self.0.access(), *bytes as usize, start, count) }
    }
}

// SAFETY: as for `Shared`.
unsafe impl<T: Pod> Lent for Exclusive<T> {
    const MUTABLE: bool = true;
    type Chunk<'a> = &'a mut [T];

    unsafe fn chunk(&self, start: usize, count: usize) -> io::Result<&mut [T]> {
        let Elements { object, bytes, first, .. } = &self.0;
        let start = start.saturating_add(*first as usize);
        // SAFETY: passed on from the caller: nobody else has these elements.
        unsafe { lend::chunk_mut(object, *bytes as usize, start, count) }
    }
}

macro_rules! zipped {
    ($($name:ident)*) => {
        // SAFETY: each part gives out its own range, and the parts are different vectors or lent
        // for reading: the borrow checker saw to that when they were lent.
        unsafe impl<$($name: Lent),*> Lent for ($($name,)*) {
            const MUTABLE: bool = false $(|| $name::MUTABLE)*;
            type Chunk<'a> = ($($name::Chunk<'a>,)*);

            #[allow(non_snake_case, reason = "one name for type and value")]
            unsafe fn chunk(&self, start: usize, count: usize) -> io::Result<Self::Chunk<'_>> {
                let ($($name,)*) = self;
                // SAFETY: passed on from the caller, for each.
                Ok(($(unsafe { $name.chunk(start, count) }?,)*))
            }
        }
    };
}

zipped!(A B);
zipped!(A B C);
zipped!(A B C D);

/// What stands before the numbers of the chunks: what is lent, how it is cut, and the user's
/// context.
pub(crate) struct Call<L, C> {
    lent: L,
    len: u64,
    chunk_len: u64,
    context: C,
}

/// How lent memory is cut into chunks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// The number of elements.
    pub(crate) len: u64,
    /// The number of elements in each chunk but the last; not 0.
    pub(crate) chunk_len: u64,
}

impl Cut {
    /// The number of chunks.
    pub(crate) fn chunks(self) -> u64 {
        self.len.div_ceil(self.chunk_len.max(1))
    }
}

/// The entry that runs `F` on chunks by number.
pub(crate) fn chunk_entry<F, L, C, R>() -> Result<FrameEntry>
where
    F: Fn(&C, usize, L::Chunk<'_>) -> R + Copy + Send + Sync + 'static,
    L: Lent,
    C: Data,
    R: Data,
{
    const { assert_captures_nothing::<F>() };
    offset_of::<F>(run_chunks::<F, L, C, R> as FrameFn as usize).map(FrameEntry)
}

fn run_chunks<F, L, C, R>(inbox: &mut Inbox, outbox: &mut Outbox, running: &mut Running)
where
    F: Fn(&C, usize, L::Chunk<'_>) -> R + Copy + Send + Sync + 'static,
    L: Lent,
    C: Data,
    R: Data,
{
    let function = conjure::<F>();
    run_with_context(inbox, outbox, running, Call::<L, C>::decode, |call, number: u64| {
        call.run(number, function)
    });
}

impl<L: Lent, C: Data> Call<L, C> {
    fn decode(reader: &mut Reader<'_>) -> std::result::Result<Self, NotDecoded> {
        let lent = decode_value(reader)?;
        let Cut { len, chunk_len } = decode_value(reader)?;
        Ok(Self { lent, len, chunk_len, context: decode_value(reader)? })
    }

    fn run<F, R>(&self, number: u64, function: F) -> std::result::Result<R, Failure>
    where
        F: Fn(&C, usize, L::Chunk<'_>) -> R,
    {
        let start = number.saturating_mul(self.chunk_len);
        let count = self.chunk_len.min(self.len.saturating_sub(start));
        // SAFETY: the parent has lent the memory, mutably or not, for the time of one call, in
        // which it hands out each number once: to one worker, and to another only after the first
        // has died. Chunks with different numbers do not overlap, and this one ends with the call
        // of `function`, whose result cannot borrow from it (`R: 'static`).
        let chunk = unsafe { self.lent.chunk(start as usize, count as usize) };
        match chunk {
            Ok(chunk) => Ok(function(&self.context, number as usize, chunk)),
            Err(error) => {
                Err(Failure::Decode(format!("the lent memory could not be mapped: {error}")))
            }
        }
    }
}
