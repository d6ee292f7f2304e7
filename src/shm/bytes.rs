//! A private copy of a few bytes, without an allocation when they are few; and what is copied.

use super::segment::Segment;
use bytemuck::Pod;
use std::fmt;
use std::io;

const INLINE: usize = 38;

/// Bytes that can only be copied: another process may be changing them, or they are in a file.
/// Ranges must lie within the length.
pub(crate) trait CopyOut {
    /// How many there are.
    fn len(&self) -> usize;
    /// Copies bytes.
    fn copy_out(&self, at: usize, target: &mut [u8]) -> io::Result<()>;
    /// Copies numbers into a new vector.
    fn copy_out_vec<N: Pod>(&self, at: usize, count: usize) -> io::Result<Vec<N>>;
}

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

    /// All bytes of the source.
    #[inline]
    pub(crate) fn of(source: &impl CopyOut) -> io::Result<Self> {
        let len = source.len();
        if len > INLINE {
            return source.copy_out_vec(0, len).map(Self::Heap);
        }
        let mut bytes = [0; INLINE];
        source.copy_out(0, &mut bytes[..len])?;
        Ok(Self::Inline(len as u8, bytes))
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
