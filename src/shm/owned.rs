//! Memory with one owner, which can grow it, lend it, and seal it.
//!
//! The memory is *writable* or *frozen*. It is writable from its creation. It is frozen by
//! [`OwnedMemory::seal`], which needs no exclusive access: others get the sealed file, and the
//! owner's own mapping becomes read-only at the same addresses, so that slices into it stay good.
//! The next change copies it into a new object, which is writable.

use super::element_size;
use super::frozen::FrozenMemory;
use super::object::{Access, Object};
use crate::sys::mmap::{Inherit, Mapping, Placement, page_size};
use crate::sys::{fork, memfd, room};
use bytemuck::Pod;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The name that `/proc/<pid>/maps` shows.
const NAME: &str = "multiproc-vec";
/// How long to wait, at least, until receivers have unmapped what they were told to forget.
const PATIENCE: Duration = Duration::from_millis(5);
/// How many bytes a copy moves in the time of [`PATIENCE`]: to wait for longer than a copy takes is
/// no gain.
const COPIED_MEANWHILE: usize = 16 << 20;
/// Above this size a growing vector takes half of its size more, below it doubles.
const LARGE: usize = 64 << 20;

/// Where and of what kind of pages owned memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where it is mapped.
    pub(crate) placement: Placement,
    /// The size of explicit huge pages in bytes, a power of two.
    pub(crate) huge_page: Option<usize>,
}

impl Layout {
    /// Ordinary pages anywhere.
    pub(crate) const PLAIN: Self = Self { placement: Placement::PLAIN, huge_page: None };

    /// The whole pages that this many bytes need; at least one.
    fn whole_pages(&self, bytes: usize) -> io::Result<usize> {
        let granule = self.huge_page.unwrap_or_else(page_size);
        let whole = bytes.max(1).checked_next_multiple_of(granule);
        whole.filter(|whole| isize::try_from(*whole).is_ok()).ok_or_else(too_large)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct OwnedMemory {
    object: Arc<Object>,
    /// The start of the mapping of `object`.
    start: NonNull<u8>,
    /// The length of that mapping in bytes.
    capacity: usize,
    /// In which generation of forks it was made.
    generation: u32,
    layout: Layout,
    /// What others get, once it is sealed: `object`, or a copy if somebody would not let go of it.
    sealed: OnceLock<FrozenMemory>,
    sealing: Mutex<()>,
}

// SAFETY: `start` is the address of a mapping that `object` keeps; that is not tied to a thread.
unsafe impl Send for OwnedMemory {}
// SAFETY: through a shared reference the bytes are only read (`bytes`), and `seal` exchanges the
// mapping under a lock for one with the same bytes.
unsafe impl Sync for OwnedMemory {}

impl OwnedMemory {
    /// Memory for `bytes` bytes, rounded up to whole pages, all of them zero and really there.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn create(bytes: usize, layout: Layout) -> io::Result<Self> {
        let capacity = layout.whole_pages(bytes)?;
        room::check_addresses(capacity)?;
        let fd = memfd::create_growable(NAME, capacity, layout.huge_page)?;
        let mapping = Mapping::placed(&fd, capacity, Inherit::No, layout.placement)?;
        let start = mapping.start();
        let object = Arc::new(Object::owned(fd, mapping));
        Ok(Self::of(object, start, capacity, layout))
    }

    /// Memory that somebody sealed, to be read until it is changed, which copies it.
    pub(crate) fn received(memory: FrozenMemory) -> Self {
        let (object, start, capacity) = (memory.object().clone(), memory.start(), memory.len());
        let owned = Self::of(object, start, capacity, Layout::PLAIN);
        // The cell is new, so the value goes in.
        let _ = owned.sealed.set(memory);
        owned
    }

    fn of(object: Arc<Object>, start: NonNull<u8>, capacity: usize, layout: Layout) -> Self {
        let generation = fork::generation();
        let (sealed, sealing) = Default::default();
        Self { object, start, capacity, generation, layout, sealed, sealing }
    }

    /// How many bytes there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether this process has the memory: a forked child has only what was frozen before.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.generation == fork::known_generation() || self.is_inherited()
    }

    #[cold]
    fn is_inherited(&self) -> bool {
        self.object.segment().is_some_and(|segment| !segment.mapping().is_absent())
    }

    /// The first `count` elements.
    ///
    /// # Panics
    /// If this process does not have the memory, or it is shorter.
    #[inline]
    pub(crate) fn slice<T: Pod>(&self, count: usize) -> &[T] {
        assert!(self.is_here(), "{NOT_HERE}");
        assert!(count <= self.capacity / element_size::<T>(), "a range outside the memory");
        // SAFETY: `capacity` bytes from `start` on are mapped as long as `object` lives (and this
        // process has the mapping, checked above), and `start` is the start of a page, which is
        // aligned for `T` (`element_size`). The bytes are initialised, by the kernel with zeros,
        // and any bytes are a `T`. In this process `&mut self` is needed to write to them. Another
        // process writes to them only while it has them on loan, by the contract of
        // `lend::chunk_mut`, which holds the owner mutably borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), count) }
    }

    /// The first `count` elements, for writing.
    ///
    /// # Panics
    /// If [`prepare`](Self::prepare) did not come before it, for at least this length.
    #[inline]
    pub(crate) fn slice_mut<T: Pod>(&mut self, count: usize) -> &mut [T] {
        let room = self.capacity / element_size::<T>();
        assert!(self.is_writable() && count <= room, "memory that was not prepared");
        // SAFETY: as for `slice`; `&mut self` excludes every other reference, and the mapping is
        // writable, because it is not frozen.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), count) }
    }

    #[inline]
    fn is_writable(&self) -> bool {
        self.is_here() && !self.is_frozen()
    }

    /// Whether the memory of this process is frozen: it was sealed, or received.
    #[inline]
    fn is_frozen(&self) -> bool {
        self.sealed.get().is_some() || self.object.is_frozen()
    }

    /// Makes the memory writable, with room for `bytes` bytes; the first `used` ones are kept.
    ///
    /// # Errors
    /// If there is not enough memory, or this process does not have the memory.
    #[inline]
    pub(crate) fn prepare(&mut self, used: usize, bytes: usize) -> io::Result<()> {
        if self.is_writable() && bytes <= self.capacity {
            return Ok(());
        }
        self.prepare_slowly(used, bytes)
    }

    #[cold]
    fn prepare_slowly(&mut self, used: usize, bytes: usize) -> io::Result<()> {
        if !self.is_here() {
            return Err(not_here());
        }
        let ample = self.layout.whole_pages(self.ample(bytes))?;
        let exact = self.layout.whole_pages(bytes)?;
        let mut change = |capacity| match self.is_frozen() {
            true => self.copy(used, capacity),
            false => self.grow(capacity),
        };
        match change(ample) {
            Err(_) if exact < ample => change(exact),
            result => result,
        }
    }

    /// How much to take when `bytes` bytes are needed, so that a vector that grows by one element
    /// at a time is seldom moved.
    fn ample(&self, bytes: usize) -> usize {
        if bytes <= self.capacity {
            return bytes;
        }
        let more = if self.capacity < LARGE { self.capacity } else { self.capacity / 2 };
        bytes.max(self.capacity.saturating_add(more).min(isize::MAX as usize / 2))
    }

    fn copy(&mut self, used: usize, capacity: usize) -> io::Result<()> {
        let mut new = Self::create(capacity, self.layout)?;
        new.slice_mut(used).copy_from_slice(self.slice::<u8>(used));
        *self = new;
        Ok(())
    }

    /// Makes the file longer, and maps it as a new object: others may have the old one mapped,
    /// which stays as long as it was.
    fn grow(&mut self, capacity: usize) -> io::Result<()> {
        let more = capacity - self.capacity;
        room::check_addresses(more)?;
        match self.layout.huge_page {
            None => memfd::reserve(self.object.fd(), self.capacity, more)?,
            Some(_) => memfd::reserve_huge(self.object.fd(), self.capacity, more)?,
        }
        let fd = self.object.fd().try_clone_to_owned()?;
        let mapping = self.grown_mapping(capacity)?;
        self.start = mapping.start();
        self.capacity = capacity;
        // The drop of the old object tells those who know it.
        self.object = Arc::new(Object::owned(fd, mapping));
        Ok(())
    }

    /// The mapping of the object made longer, or a new one if that one cannot be moved: it is in
    /// use by a message, is aligned, or has explicit huge pages.
    fn grown_mapping(&mut self, capacity: usize) -> io::Result<Mapping> {
        let can_move =
            self.layout.placement.align <= page_size() && self.layout.huge_page.is_none();
        if can_move && let Some(object) = Arc::get_mut(&mut self.object) {
            object.grow_segment(capacity)?;
            if let Some(segment) = object.take_segment() {
                return Ok(segment.into_mapping());
            }
        }
        let placement = self.layout.placement;
        Mapping::placed(self.object.fd(), capacity, Inherit::No, placement)
    }

    /// Freezes the memory and returns what others get: memory that nobody can write to any more.
    /// The first `used` bytes count.
    ///
    /// # Errors
    /// If the kernel refuses, there is not enough memory for a copy (which is made if somebody has
    /// the memory mapped for writing and does not let go), or this process does not have it.
    pub(crate) fn seal(&self, used: usize) -> io::Result<FrozenMemory> {
        let _turn = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealed) = self.sealed.get() {
            return Ok(sealed.clone());
        }
        if !self.is_here() {
            return Err(not_here());
        }
        let patience = Patience::for_bytes(self.capacity);
        let sealed = match self.seal_in_place(&patience)? {
            true => FrozenMemory::open(self.object.clone(), self.capacity)?,
            false => FrozenMemory::copied(self.slice(used))?,
        };
        Ok(self.sealed.get_or_init(|| sealed).clone())
    }

    /// Seals the file; false if others have it, and do not let go of it in time.
    fn seal_in_place(&self, patience: &Patience) -> io::Result<bool> {
        // Lent for reading, it is named by messages that are on their way: who gets them must find
        // it. (For writing it is not lent now: that borrows the owner mutably.)
        if !patience.wait(|| Arc::strong_count(&self.object) == 1) {
            return Ok(false);
        }
        self.object.forget_elsewhere();
        // No mutable slice is lent: that needs `&mut self`.
        self.object.freeze_in_place()?;
        let mut refusal = None;
        patience.wait(|| match memfd::seal_writes(self.object.fd()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                refusal = Some(error);
                false
            }
            result => {
                refusal = result.err();
                true
            }
        });
        Ok(refusal.is_none())
    }

    /// The object for those to whom the memory is lent, and how they map it: all its
    /// [`capacity`](Self::capacity), or that of the frozen copy.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), for memory that is frozen.
    pub(crate) fn lend(&self, used: usize) -> io::Result<super::lend::Loan> {
        use super::lend::Loan;
        if !self.is_here() {
            return Err(not_here());
        }
        {
            // Another thread that seals the memory sees the loan, or is done before it.
            let _turn = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.is_frozen() {
                let object = self.object.clone();
                return Ok(Loan { object, access: Access::Owned, bytes: self.capacity });
            }
        }
        Ok(Loan::of_frozen(&self.seal(used)?))
    }
}

/// How long to wait for those who have the memory: no longer than copying would take.
struct Patience {
    start: Instant,
    limit: Duration,
}

impl Patience {
    fn for_bytes(bytes: usize) -> Self {
        let copies = u32::try_from(bytes / COPIED_MEANWHILE).unwrap_or(u32::MAX);
        let limit = PATIENCE.saturating_mul(copies.saturating_add(1));
        Self { start: Instant::now(), limit }
    }

    /// Whether it has come true in time.
    fn wait(&self, mut come_true: impl FnMut() -> bool) -> bool {
        while !come_true() {
            if self.start.elapsed() >= self.limit {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
    }
}

const NOT_HERE: &str = "a SharedVec belongs to the process that made it, and a forked child does \
                        not have its memory: freeze the vector before the fork, or pass it as an \
                        argument";

fn not_here() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, NOT_HERE)
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, "more bytes are needed than there are addresses")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8]) -> OwnedMemory {
        let mut memory = OwnedMemory::create(bytes.len(), Layout::PLAIN).expect("memory");
        memory.slice_mut::<u8>(bytes.len()).copy_from_slice(bytes);
        memory
    }

    #[test]
    fn sealing_keeps_slices_and_addresses_and_the_next_change_copies() {
        let mut memory = filled(b"abc");
        let slice = memory.slice::<u8>(3);
        let sealed = memory.seal(3).expect("seal");
        assert_eq!((slice, sealed.slice::<u8>(0, 3)), (&b"abc"[..], &b"abc"[..]));
        assert_eq!(slice.as_ptr(), sealed.slice::<u8>(0, 3).as_ptr(), "nothing was copied");
        let again = memory.seal(3).expect("seal");
        assert_eq!(again.object().uid(), sealed.object().uid());
        memory.prepare(3, 3).expect("copy");
        memory.slice_mut::<u8>(3)[0] = b'x';
        assert_eq!((memory.slice::<u8>(3), sealed.slice::<u8>(0, 3)), (&b"xbc"[..], &b"abc"[..]));
    }

    #[test]
    fn somebody_who_keeps_it_mapped_costs_a_copy_and_cannot_write_to_that() {
        let memory = filled(b"abc");
        let fd = memory.object.fd().try_clone_to_owned().expect("dup");
        let worker = Object::received(fd);
        let theirs = worker.map(Access::Owned, memory.capacity()).expect("map");
        let sealed = memory.seal(3).expect("seal");
        assert_ne!(sealed.object().uid(), memory.object.uid());
        // SAFETY: nobody else accesses the range during the call.
        unsafe { theirs.bytes_mut(0, 1).fill(b'!') };
        assert_eq!(sealed.slice::<u8>(0, 3), b"abc");
    }

    #[test]
    fn growing_keeps_what_was_there_and_those_who_mapped_the_old_object_keep_it() {
        let mut memory = filled(b"abc");
        let old = memory.object.clone();
        for bytes in [5000, 1 << 20, 100 << 20] {
            memory.prepare(3, bytes).expect("grow");
            assert!(memory.capacity() >= bytes && memory.slice::<u8>(bytes)[..4] == *b"abc\0");
            memory.slice_mut::<u8>(bytes)[bytes - 1] = 7;
        }
        assert_eq!(old.segment().expect("mapped").len(), page_size());
        assert_ne!(old.uid(), memory.object.uid());
    }

    #[test]
    fn aligned_memory_stays_aligned_when_it_grows() {
        let align = 1 << 21;
        let placement = Placement { align, transparent_huge: true };
        let layout = Layout { placement, huge_page: None };
        let mut memory = OwnedMemory::create(1, layout).expect("memory");
        for bytes in [1, 5000, 1 << 22] {
            memory.prepare(1, bytes).expect("grow");
            assert_eq!(memory.slice::<u8>(1).as_ptr().addr() % align, 0);
        }
    }
}
