//! Encoding arguments on their way to the workers, and the blocks for large ones.

use super::task::{Objects, Payload, objects};
use crate::codec::{Encode, NotEncoded, items, naming};
use crate::shm::block::{LARGEST_POOLED, WriterBlock, capacity_for};
use crate::shm::bytes::Bytes;
use crate::shm::object::next_uid;
use crate::shm::tasks::{MAX_IN_LINE, MAX_INLINE};
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many bytes of idle argument blocks a pool keeps.
const MAX_IDLE: usize = 128 * 1024 * 1024;

/// The argument blocks of one pool.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Vec<Numbered>>);

#[derive(Debug)]
struct Numbered {
    uid: u64,
    block: WriterBlock,
}

/// An argument block that tasks share; it goes back to its pool after the last of them.
#[derive(Debug)]
pub(super) struct SharedBlock {
    /// There until the drop.
    inner: Option<Numbered>,
    home: Weak<Blocks>,
}

impl SharedBlock {
    /// The number that no other block of this process has.
    pub(super) fn uid(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.uid)
    }

    /// The block.
    pub(super) fn block(&self) -> Option<&WriterBlock> {
        self.inner.as_ref().map(|inner| &inner.block)
    }

    /// Whether workers drop it after one use.
    pub(super) fn is_single_use(&self) -> bool {
        self.block().is_none_or(|block| block.capacity() > LARGEST_POOLED)
    }
}

impl Drop for SharedBlock {
    fn drop(&mut self) {
        if let (Some(inner), Some(home)) = (self.inner.take(), self.home.upgrade()) {
            home.give_back(inner);
        }
    }
}

impl Blocks {
    /// A block that holds what `fill` writes into its first `len` bytes.
    pub(super) fn filled(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Arc<SharedBlock>> {
        let mut inner = match self.take(len) {
            Some(inner) => inner,
            None => Self::make(len)?,
        };
        fill(&mut inner.block.bytes_mut()[..len])?;
        Ok(Arc::new(SharedBlock { inner: Some(inner), home: Arc::downgrade(self) }))
    }

    /// A block that no worker has seen, so that its number is new.
    pub(super) fn fresh(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Arc<SharedBlock>> {
        let mut inner = Self::make(len)?;
        fill(&mut inner.block.bytes_mut()[..len])?;
        // It does not go back to the pool: workers remember what they decoded by its number.
        Ok(Arc::new(SharedBlock { inner: Some(inner), home: Weak::new() }))
    }

    fn make(len: usize) -> Result<Numbered> {
        let block = WriterBlock::for_arguments(capacity_for(len)).map_err(|error| {
            Error::os(format!("no shared memory for arguments of {len} bytes"), error)
        })?;
        Ok(Numbered { uid: next_uid(), block })
    }

    /// The idle block that fits best; the latest of equals, which workers are likely to know.
    fn take(&self, len: usize) -> Option<Numbered> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = capacity_for(len);
        let index = idle.iter().rposition(|numbered| numbered.block.capacity() == wanted)?;
        Some(idle.remove(index))
    }

    fn give_back(&self, numbered: Numbered) {
        if numbered.block.capacity() > LARGEST_POOLED {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(numbered);
        let mut total: usize = idle.iter().map(|numbered| numbered.block.capacity()).sum();
        while total > MAX_IDLE {
            total -= idle.remove(0).block.capacity();
        }
    }

    /// Encodes one argument tuple; returns the objects that it names, too.
    #[inline]
    pub(super) fn encode<A: Encode>(self: &Arc<Self>, arguments: &A) -> Result<(Payload, Objects)> {
        if A::fixed_len().is_some() {
            return Ok((self.encode_payload(arguments)?, None));
        }
        let mut payload = Err(Error::arguments(NotEncoded::Full));
        let encode = || {
            payload = self.encode_payload(arguments);
            Ok(())
        };
        let ((), carried) = naming(encode).map_err(Error::arguments)?;
        Ok((payload?, objects(carried)))
    }

    fn encode_payload<A: Encode>(self: &Arc<Self>, arguments: &A) -> Result<Payload> {
        match items::known_len(arguments) {
            Some(len) if len > MAX_INLINE => {
                let block = self.filled(len, |space| {
                    items::fill(arguments, len, space).map_err(Error::arguments)
                })?;
                Ok(Payload::Block(block, len))
            }
            _ => {
                if let Some(small) = encode_small(arguments)? {
                    return Ok(Payload::Small(small));
                }
                let mut bytes = Vec::new();
                items::push(arguments, &mut bytes).map_err(Error::arguments)?;
                self.pack(&mut bytes)
            }
        }
    }

    /// Makes a payload of encoded items; leaves `bytes` empty, with its memory if possible.
    pub(super) fn pack(self: &Arc<Self>, bytes: &mut Vec<u8>) -> Result<Payload> {
        let len = bytes.len();
        if len <= MAX_IN_LINE {
            let small = Bytes::from(bytes.as_slice());
            bytes.clear();
            return Ok(Payload::Small(small));
        }
        if len <= MAX_INLINE {
            return Ok(Payload::Shared(Arc::new(std::mem::take(bytes))));
        }
        let block = self.filled(len, |space| {
            space.copy_from_slice(bytes);
            Ok(())
        })?;
        bytes.clear();
        Ok(Payload::Block(block, len))
    }
}

fn encode_small<A: Encode>(arguments: &A) -> Result<Option<Bytes>> {
    let Some(len) = items::known_len(arguments).filter(|len| *len <= MAX_IN_LINE) else {
        return Ok(None);
    };
    let mut result = Ok(());
    let bytes = Bytes::filled(len, |space| {
        result = items::fill(arguments, len, space).map_err(Error::arguments);
    });
    result.map(|()| Some(bytes))
}
