//! Mapped memory.

use super::{fork, holes};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::mman::{
    MRemapFlags, MapFlags, MmapAdvise, MsFlags, ProtFlags, madvise, mmap, mmap_anonymous, mremap,
    msync, munmap,
};

/// Whether a forked child has the mapping, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inherit {
    /// It shares the memory.
    Yes,
    /// The addresses are unmapped there: the memory belongs to exactly one process, or to one
    /// parent and one worker.
    No,
}

/// How memory is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The first address is a multiple of this, a power of two.
    pub(crate) align: usize,
    /// The kernel may use huge pages.
    pub(crate) transparent_huge: bool,
}

impl Placement {
    /// At a page, of pages.
    pub(crate) const PLAIN: Self = Self { align: 1, transparent_huge: false };
}

/// A mapping of a file, unmapped on drop.
///
/// It hands out raw addresses only; `shm` decides who may touch which byte.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// In which generation of forks it was made.
    generation: u32,
    /// Whether forked children do not have it.
    exclusive: AtomicBool,
}

// SAFETY: the mapping is plain address space; moving the owner to another thread moves nothing.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives only the address and the length; every access through the
// address is made, and justified, in `shm`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` for reading and writing.
    pub(crate) fn read_write(fd: impl AsFd, len: usize, inherit: Inherit) -> io::Result<Self> {
        Self::placed(fd, len, inherit, Placement::PLAIN)
    }

    /// Maps `len` bytes from byte `at` on, a multiple of the page size, for reading and writing.
    /// Forked children have the mapping, too.
    pub(crate) fn part(fd: impl AsFd, at: usize, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Self::new(fd, at, len, protection, MapFlags::MAP_SHARED, Inherit::Yes, 1)
    }

    /// As [`read_write`](Self::read_write), at a place of this kind.
    pub(crate) fn placed(
        fd: impl AsFd,
        len: usize,
        inherit: Inherit,
        placement: Placement,
    ) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let align = placement.align;
        let mapping = Self::new(fd, 0, len, protection, MapFlags::MAP_SHARED, inherit, align)?;
        if placement.transparent_huge {
            // Advice: a kernel without huge pages for shared memory goes on with small ones.
            // SAFETY: the range was mapped just now and belongs to `mapping`.
            let _ = unsafe { madvise(mapping.start.cast(), len, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(mapping)
    }

    /// Maps `len` bytes of `fd` for reading; writes of others show.
    pub(crate) fn read_only(fd: impl AsFd, len: usize, inherit: Inherit) -> io::Result<Self> {
        Self::new(fd, 0, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, inherit, 1)
    }

    /// Maps `len` bytes of a file that nobody can write to any more, for reading.
    ///
    /// The mapping is private: before Linux 6.7 a file that is sealed against writing could not be
    /// mapped shared, and a file that is to be sealed must not be.
    pub(crate) fn frozen(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::new(fd, 0, len, ProtFlags::PROT_READ, Self::FROZEN, Inherit::Yes, 1)
    }

    /// Private; and of explicit huge pages none are set aside for writes that cannot happen.
    const FROZEN: MapFlags = MapFlags::MAP_PRIVATE.union(MapFlags::MAP_NORESERVE);

    /// Maps the same bytes again at the same addresses, for reading only and privately, as
    /// [`frozen`](Self::frozen) does: the bytes that a reader of the mapping sees do not change,
    /// and no thread sees the addresses unmapped.
    ///
    /// `fd` must be the file that is mapped. Forked children have the new mapping.
    ///
    /// # Errors
    /// If the kernel refuses; then nothing has changed.
    pub(crate) fn freeze_in_place(&self, fd: impl AsFd) -> io::Result<()> {
        if self.is_absent() {
            return Err(Errno::EINVAL.into());
        }
        let size = NonZeroUsize::new(self.len).ok_or(Errno::EINVAL)?;
        let address = NonZeroUsize::new(self.start.as_ptr().addr());
        let flags = Self::FROZEN | MapFlags::MAP_FIXED;
        // SAFETY: the range belongs to `self` and stays mapped, with the same bytes: the kernel
        // exchanges the mapping under its own lock, and a thread that faults meanwhile waits for
        // that lock. Nobody holds a mutable reference into it: `shm` calls this only while
        // it lends none.
        match unsafe { mmap(address, size, ProtFlags::PROT_READ, flags, fd, 0) } {
            Ok(_) => {
                // Relaxed: it is read after forks only. After the exchange: a child that is forked
                // in between believes that it lacks what it has, and leaves it alone.
                if self.exclusive.swap(false, Ordering::Relaxed) {
                    holes::remove(self.start.addr().get());
                }
                Ok(())
            }
            // Refused at the door, as every refusal that a limit or the arguments cause is.
            Err(error) if self.is_mapped() => Err(error.into()),
            // The kernel ran out of memory for its own structures between the two halves of the
            // exchange. Slices into the range are alive, so there is no way on.
            Err(_) => super::exit::abort_with("multiproc: out of memory while sealing a vector"),
        }
    }

    /// Makes the mapping longer; it moves if it must. Its file is long enough.
    ///
    /// # Errors
    /// If the kernel refuses; then nothing has changed.
    pub(crate) fn grow(&mut self, len: usize) -> io::Result<()> {
        if self.is_absent() {
            return Err(Errno::EINVAL.into());
        }
        let flags = MRemapFlags::MREMAP_MAYMOVE;
        let exclusive = *self.exclusive.get_mut();
        if exclusive {
            holes::remove(self.start.addr().get());
        }
        // SAFETY: the range belongs to `self`, and `&mut self` excludes references into it: `shm`
        // ties each to a borrow of the mapping.
        let moved = unsafe { mremap(self.start.cast(), self.len, len, flags, None) };
        if let Ok(start) = moved {
            (self.start, self.len) = (start.cast(), len);
        }
        if exclusive {
            holes::add(self.start.addr().get(), self.len);
        }
        moved?;
        Ok(())
    }

    /// Whether all addresses of the range are mapped.
    fn is_mapped(&self) -> bool {
        // SAFETY: with this flag msync(2) only looks whether the range is mapped.
        unsafe { msync(self.start.cast(), self.len, MsFlags::MS_ASYNC) }.is_ok()
    }

    fn new(
        fd: impl AsFd,
        at: usize,
        len: usize,
        protection: ProtFlags,
        sharing: MapFlags,
        inherit: Inherit,
        align: usize,
    ) -> io::Result<Self> {
        let size = NonZeroUsize::new(len)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a mapping of 0 bytes"))?;
        let start = if align <= page_size() {
            let at = libc::off_t::try_from(at).map_err(|_| Errno::EINVAL)?;
            // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
            unsafe { mmap(None, size, protection, sharing, fd, at) }?.cast()
        } else {
            map_aligned(fd, size, protection, sharing, align)?
        };
        // From here on the drop unmaps, also when the advice is refused.
        let exclusive = AtomicBool::new(inherit == Inherit::No);
        let mapping = Self { start, len, generation: fork::generation(), exclusive };
        if sharing.contains(MapFlags::MAP_SHARED) {
            // A core dump would walk through every byte that is reserved, and take memory for those
            // that nobody has touched; files in /dev/shm are not in one, either. A refusal harms
            // nobody.
            // SAFETY: the range was mapped just now and belongs to `mapping`.
            let _ = unsafe { madvise(start.cast(), len, MmapAdvise::MADV_DONTDUMP) };
        }
        if inherit == Inherit::No {
            // SAFETY: as above.
            unsafe { madvise(start.cast(), len, MmapAdvise::MADV_DONTFORK) }?;
            holes::add(start.addr().get(), len);
        }
        Ok(mapping)
    }

    /// The address of the first byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this process is one that does not have the mapping: a forked child.
    pub(crate) fn is_absent(&self) -> bool {
        // Relaxed: in a forked child one thread has this copy of the word.
        self.generation != fork::known_generation() && self.exclusive.load(Ordering::Relaxed)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_absent() {
            // These addresses stay closed in a forked child: see `holes`.
            return;
        }
        if *self.exclusive.get_mut() {
            holes::remove(self.start.addr().get());
        }
        // SAFETY: the range was mapped by `new`, is owned by `self` alone, and no reference into
        // it outlives `self`: `shm` ties each to a borrow of the mapping.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}

/// The size of a page in bytes.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf takes a constant and returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Reserves more addresses than needed, maps the file at an aligned one, and gives the rest back.
fn map_aligned(
    fd: impl AsFd,
    size: NonZeroUsize,
    protection: ProtFlags,
    sharing: MapFlags,
    align: usize,
) -> io::Result<NonNull<u8>> {
    let whole = size.get().next_multiple_of(page_size());
    let reserved = whole.checked_add(align).and_then(NonZeroUsize::new).ok_or(Errno::ENOMEM)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice; nothing can be accessed in it.
    let around = unsafe { mmap_anonymous(None, reserved, ProtFlags::PROT_NONE, flags) }?;
    let start = around.as_ptr().addr();
    let aligned = start.next_multiple_of(align);
    let fixed = sharing | MapFlags::MAP_FIXED;
    // SAFETY: `aligned + size` lies in the reserved range, which is ours and holds no reference.
    let mapped = unsafe { mmap(NonZeroUsize::new(aligned), size, protection, fixed, fd, 0) };
    let (keep, kept) = match &mapped {
        Ok(_) => (aligned, aligned + whole),
        Err(_) => (start, start),
    };
    let end = start + reserved.get();
    for (from, to) in [(start, keep), (kept, end)] {
        if from < to {
            // SAFETY: these are the parts of the reserved range on both sides of the mapping.
            let _ = unsafe { munmap(around.map_addr_to(from), to - from) };
        }
    }
    Ok(mapped?.cast())
}

/// The same pointer at another address of its range.
trait MapAddr {
    fn map_addr_to(self, address: usize) -> NonNull<libc::c_void>;
}

impl MapAddr for NonNull<libc::c_void> {
    fn map_addr_to(self, address: usize) -> NonNull<libc::c_void> {
        self.map_addr(|old| NonZeroUsize::new(address).unwrap_or(old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that the kernel has for the mapping at this address.
    fn flags_at(start: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{start:x}-")));
        lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("flags").to_owned()
    }

    #[test]
    fn shared_memory_is_not_in_a_core_dump() {
        let fd = super::super::memfd::create("test", 1 << 16).expect("memfd");
        let mapping = Mapping::read_only(&fd, 1 << 16, Inherit::Yes).expect("mapping");
        assert!(flags_at(mapping.start().addr().get()).split(' ').any(|flag| flag == "dd"));
    }
}
