//! Where encoded bytes go, and where they come from.

use postcard::ser_flavors::Flavor;

/// Takes encoded bytes.
pub trait Sink {
    /// Appends bytes; false if they do not fit.
    fn put(&mut self, bytes: &[u8]) -> bool;
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

/// A sink of fixed size.
#[derive(Debug)]
pub(super) struct SliceSink<'a> {
    space: &'a mut [u8],
    used: usize,
}

impl<'a> SliceSink<'a> {
    pub(super) fn new(space: &'a mut [u8]) -> Self {
        Self { space, used: 0 }
    }

    /// How many bytes were put.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl Sink for SliceSink<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        match self.space.get_mut(self.used..self.used + bytes.len()) {
            Some(target) => {
                target.copy_from_slice(bytes);
                self.used += bytes.len();
                true
            }
            None => false,
        }
    }
}

/// A sink that only counts.
#[derive(Debug, Default)]
pub(super) struct Counter(pub(super) usize);

impl Sink for Counter {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> bool {
        self.0 += bytes.len();
        true
    }
}

/// Lets postcard write into a sink.
pub(super) struct Into<'a, S>(pub(super) &'a mut S);

impl<S: Sink> Flavor for Into<'_, S> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.0.put(bytes) { Ok(()) } else { Err(postcard::Error::SerializeBufferFull) }
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Bytes that are left to decode.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// Takes the next `len` bytes, if there are as many.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}
