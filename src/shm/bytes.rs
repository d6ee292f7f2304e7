//! A private copy of a few bytes, without an allocation when they are few.

use super::segment::Segment;
use std::fmt;

const INLINE: usize = 38;

/// Owned bytes; up to 38 of them live in the value itself.
#[derive(Clone)]
pub(crate) enum Bytes {
    Inline(u8, [u8; INLINE]),
    Heap(Vec<u8>),
}

impl Bytes {
    /// The bytes of this range of a segment that another process may be changing.
    pub(super) fn copied(segment: &Segment, at: usize, len: usize) -> Self {
        if len <= INLINE {
            Self::filled(len, |target| segment.copy_out(at, target))
        } else {
            Self::Heap(segment.copy_out_vec(at, len))
        }
    }

    /// Bytes of this length that `fill` writes.
    pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Self {
        if len <= INLINE {
            let mut bytes = [0; INLINE];
            fill(&mut bytes[..len]);
            Self::Inline(len as u8, bytes)
        } else {
            let mut bytes = vec![0; len];
            fill(&mut bytes);
            Self::Heap(bytes)
        }
    }

    /// The bytes, in memory of their own.
    pub(crate) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Inline(..) => self.as_slice().to_vec(),
            Self::Heap(bytes) => bytes,
        }
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self::filled(bytes.len(), |target| target.copy_from_slice(bytes))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.as_slice().len())
    }
}
