//! Where the memory of a vector lies, and of what pages it is.

use super::{FrozenVec, SharedVec};
use crate::shm::element_size;
use crate::shm::owned::{Layout, OwnedMemory};
use crate::sys::mmap::Placement;
use crate::{Error, Result};
use bytemuck::Pod;

/// The largest alignment that can be asked for: 1 GiB, which is the largest kind of page there is.
const LARGEST_ALIGN: usize = 1 << 30;

/// What kind of pages memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HugePages {
    /// Those that the system uses for shared memory by default.
    #[default]
    None,
    /// Huge pages where the kernel finds some, small ones elsewhere (`MADV_HUGEPAGE`). Whether it
    /// looks for any is set in `/sys/kernel/mm/transparent_hugepage/shmem_enabled`.
    Transparent,
    /// Huge pages of this size in bytes that the administrator has set aside (`MFD_HUGETLB`); an
    /// error if there are not enough of them. The memory is rounded up to whole such pages.
    Explicit(usize),
}

/// How the memory of a [`SharedVec`] is made; see [`SharedVec::options`].
///
/// The memory of a vector that grows, or that is copied because it was sealed, is of the same
/// kind. A vector that was received from another process is of ordinary pages there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VecOptions {
    huge_pages: HugePages,
    align: usize,
}

impl VecOptions {
    /// The default: ordinary pages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What kind of pages the memory is made of.
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// The address of the first element, in this process, is a multiple of `bytes`: a power of two
    /// up to 1 GiB. It is always at least that of a page.
    #[must_use]
    pub fn align(mut self, bytes: usize) -> Self {
        self.align = bytes;
        self
    }

    /// An empty vector with room for `capacity` elements.
    ///
    /// # Errors
    /// Out of memory, if there is not enough, or not enough huge pages are set aside; invalid
    /// input, for an alignment or size of pages that is not a power of two, or an alignment above
    /// 1 GiB.
    pub fn with_capacity<T: Pod>(self, capacity: usize) -> Result<SharedVec<T>> {
        let bytes = capacity.saturating_mul(element_size::<T>());
        let memory = OwnedMemory::create(bytes, self.layout()?).map_err(|error| {
            Error::memory(format!("a vector of {capacity} elements{self} could not be made"), error)
        })?;
        Ok(SharedVec::over(memory, 0))
    }

    /// A vector of `len` elements whose bytes are all zero.
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    pub fn zeroed<T: Pod>(self, len: usize) -> Result<SharedVec<T>> {
        let mut vec = self.with_capacity(len)?;
        vec.set_zeroed_len(len);
        Ok(vec)
    }

    /// A vector with a copy of these elements.
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    pub fn copied<T: Pod>(self, elements: &[T]) -> Result<SharedVec<T>> {
        let mut vec = self.with_capacity(elements.len())?;
        vec.extend_from_slice(elements)?;
        Ok(vec)
    }

    /// A frozen vector with a copy of these elements.
    ///
    /// # Errors
    /// As [`with_capacity`](Self::with_capacity).
    pub fn frozen<T: Pod>(self, elements: &[T]) -> Result<FrozenVec<T>> {
        self.copied(elements)?.freeze()
    }

    fn layout(self) -> Result<Layout> {
        let power = |bytes: usize, what: &str| match bytes {
            0 => Err(Error::invalid(format!("{what} of 0 bytes: use a power of two"))),
            bytes if bytes.is_power_of_two() && bytes <= LARGEST_ALIGN => Ok(bytes),
            bytes => Err(Error::invalid(format!(
                "{what} of {bytes} bytes: use a power of two up to {LARGEST_ALIGN}"
            ))),
        };
        let align = if self.align == 0 { 1 } else { power(self.align, "an alignment")? };
        let (huge_page, transparent_huge) = match self.huge_pages {
            HugePages::None => (None, false),
            HugePages::Transparent => (None, true),
            HugePages::Explicit(size) => (Some(power(size, "huge pages")?), false),
        };
        let align = align.max(huge_page.unwrap_or(1));
        Ok(Layout { placement: Placement { align, transparent_huge }, huge_page })
    }
}

/// For error messages: what was asked for beyond a plain vector.
impl std::fmt::Display for VecOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.huge_pages {
            HugePages::Explicit(size) => write!(
                f,
                " in huge pages of {size} bytes (they are set aside in \
                 /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages)",
                size / 1024
            ),
            HugePages::None | HugePages::Transparent => Ok(()),
        }
    }
}
