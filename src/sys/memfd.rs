//! Anonymous shared memory files.
//!
//! Semantics: memfd_create(2) and the file seals of fcntl(2). A memfd has no name in any file
//! system, so nothing is left behind whoever dies.

use super::mmap::page_size;
use super::room;
use bytemuck::Pod;
use nix::errno::Errno;
#[cfg(feature = "ipc-channel")]
use nix::fcntl::OFlag;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use nix::sys::uio::{pread, pwrite, pwritev};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Creates a memfd of `len` bytes whose size can never change again.
pub(crate) fn create(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = sized(name, len, MFdFlags::empty())?;
    seal(&fd, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)?;
    Ok(fd)
}

/// Creates a memfd of `len` bytes that cannot shrink or grow, and whose memory is really there.
///
/// # Errors
/// If there is not enough memory: now, and not by a signal when it is first touched.
pub(crate) fn create_reserved(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = create(name, len)?;
    reserve(&fd, 0, len)?;
    Ok(fd)
}

/// Creates a memfd that cannot shrink, of `len` bytes whose memory is really there; [`reserve`]
/// makes it longer. `huge_page` is the size of its pages in bytes, a power of two, if they shall
/// be explicit huge pages; `len` is a multiple of it.
pub(crate) fn create_growable(
    name: &str,
    len: usize,
    huge_page: Option<usize>,
) -> io::Result<OwnedFd> {
    let pages = match huge_page {
        None => MFdFlags::empty(),
        Some(size) => {
            let log = MFdFlags::from_bits_retain(size.trailing_zeros() << libc::MFD_HUGE_SHIFT);
            MFdFlags::MFD_HUGETLB | log
        }
    };
    let fd = sized(name, 0, pages)?;
    seal(&fd, SealFlag::F_SEAL_SHRINK)?;
    match huge_page {
        None => reserve(&fd, 0, len)?,
        Some(_) => reserve_huge(&fd, 0, len)?,
    }
    Ok(fd)
}

/// As [`reserve`], in a file of explicit huge pages. They are set aside already, or not: the rest
/// of the memory has nothing to do with it.
pub(crate) fn reserve_huge(fd: impl AsFd, at: usize, len: usize) -> io::Result<()> {
    room::check_file_size(at.saturating_add(len))?;
    reserve_range(fd, at, len)
}

fn sized(name: &str, len: usize, flags: MFdFlags) -> io::Result<OwnedFd> {
    room::check_file_size(len)?;
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | flags)?;
    let file = File::from(fd);
    file.set_len(len as u64)?;
    Ok(OwnedFd::from(file))
}

/// Has the kernel set memory aside for a part of the file, which becomes as long as that needs.
///
/// # Errors
/// If there is not enough memory; what was set aside is given back.
pub(crate) fn reserve(fd: impl AsFd, at: usize, len: usize) -> io::Result<()> {
    // Others take memory at the same time, so the question is asked again on the way. It also
    // keeps each call short: an interrupted one gives back all that it had, so with a timer
    // that ticks faster than one large call, that call would never end.
    const STEP: usize = 256 << 20;
    let end = at.checked_add(len).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    room::check_file_size(end)?;
    let mut done = at;
    while done < end {
        let step = STEP.min(end - done);
        let result = room::check(end - done).and_then(|()| reserve_range(&fd, done, step));
        if let Err(error) = result {
            release(&fd, at, len);
            return Err(error);
        }
        done += step;
    }
    Ok(())
}

fn reserve_range(fd: impl AsFd, at: usize, len: usize) -> io::Result<()> {
    const SMALLEST: usize = 1 << 20;
    let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    let (mut done, end, mut step) = (at, at + len, len);
    while done < end {
        step = step.min(end - done);
        let range =
            (i64::try_from(done).map_err(too_large)?, i64::try_from(step).map_err(too_large)?);
        match fallocate(&fd, FallocateFlags::empty(), range.0, range.1) {
            Err(Errno::EINTR) => step = (step / 2).max(SMALLEST),
            Err(error) => return Err(error.into()),
            Ok(()) => done += step,
        }
    }
    Ok(())
}

/// Gives the memory of a part of the file back; it reads as zeros then.
pub(crate) fn release(fd: impl AsFd, at: usize, len: usize) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) {
        // A kernel that does not want to keeps the memory: nothing else is lost.
        while fallocate(&fd, flags, at, len) == Err(Errno::EINTR) {}
    }
}

/// Writes bytes at a place whose memory is there.
pub(crate) fn write_at(fd: impl AsFd, mut at: usize, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(&fd, bytes, i64::try_from(at).map_err(|_| Errno::EFBIG)?) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => (at, bytes) = (at + written, &bytes[written..]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// As [`write_at`], of two parts, one after the other: in one call, if the kernel takes all of it.
pub(crate) fn write_both_at(fd: impl AsFd, at: usize, parts: [&[u8]; 2]) -> io::Result<()> {
    let offset = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
    let written = match pwritev(&fd, &parts.map(IoSlice::new), offset) {
        Err(Errno::EINTR) => 0,
        written => written?,
    };
    let first = parts[0].len();
    write_at(&fd, at + written.min(first), parts[0].get(written..).unwrap_or_default())?;
    let of_second = written.saturating_sub(first);
    write_at(&fd, at + first + of_second, &parts[1][of_second..])
}

/// Reads the bytes from byte `at` on.
///
/// # Errors
/// `InvalidData` if the file ends before.
pub(crate) fn read_at(fd: impl AsFd, mut at: usize, mut target: &mut [u8]) -> io::Result<()> {
    while !target.is_empty() {
        match pread(&fd, target, i64::try_from(at).map_err(|_| Errno::EINVAL)?) {
            Ok(0) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(read) => (at, target) = (at + read, &mut target[read..]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads `count` numbers from byte `at` on, into memory that is not cleared first.
///
/// # Errors
/// `InvalidData` if the whole file does not have that much memory: whoever made it claims more
/// than was paid for. `OutOfMemory` if there is none for the copy.
pub(crate) fn read_vec_at<N: Pod>(fd: impl AsFd, at: usize, count: usize) -> io::Result<Vec<N>> {
    let len = count.checked_mul(size_of::<N>()).ok_or(Errno::EINVAL)?;
    if fstat(&fd)?.st_blocks.saturating_mul(512) < i64::try_from(len).unwrap_or(i64::MAX) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut numbers = Vec::<N>::new();
    numbers.try_reserve_exact(count)?;
    let start = numbers.as_mut_ptr().cast::<u8>();
    let mut done = 0;
    while done < len {
        let offset = i64::try_from(at + done).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the kernel writes at most the `len - done` bytes that are left of the room for
        // `count` numbers, `len` bytes, which the vector has just reserved.
        let read = unsafe {
            let target = start.add(done).cast();
            libc::pread(fd.as_fd().as_raw_fd(), target, len - done, offset)
        };
        match Errno::result(read) {
            Ok(0) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(read) => done += read as usize,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // SAFETY: the kernel has written all bytes of `count` numbers, and any bytes are an `N`
    // (`Pod`).
    unsafe { numbers.set_len(count) };
    Ok(numbers)
}

/// The length of a memfd that somebody else made and whose memory need not all be there.
///
/// # Errors
/// `InvalidData` if the file could shrink under a mapping.
pub(crate) fn checked_sparse_len(fd: impl AsFd) -> io::Result<usize> {
    check_seal(&fd)?;
    usize::try_from(fstat(&fd)?.st_size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Seals a memfd against all writing.
///
/// # Errors
/// `ResourceBusy` while anybody, also another process, has it mapped for writing.
pub(crate) fn seal_writes(fd: impl AsFd) -> io::Result<()> {
    seal(fd, SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)
}

/// As [`checked_len`], for a file that nobody can write to.
pub(crate) fn checked_frozen_len(fd: impl AsFd) -> io::Result<usize> {
    let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    if !seals.is_ok_and(|seals| seals.contains(SealFlag::F_SEAL_WRITE)) {
        let what = "memory that is not sealed against writing";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    checked_len(fd)
}

/// Adds the seals that make every mapping made from now on read-only, for good.
///
/// A writable mapping that exists already stays writable: that is the creator's.
pub(crate) fn seal_future_writes(fd: &OwnedFd) -> io::Result<()> {
    seal(fd, SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL)
}

fn seal(fd: impl AsFd, seals: SealFlag) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// The number of bytes that can be mapped from a memfd that somebody else made.
///
/// # Errors
/// `InvalidData` if the file could shrink under a mapping (no shrink seal), and if its memory is
/// not really there: a sparse file would let its maker have us allocate what it never paid for.
pub(crate) fn checked_len(fd: impl AsFd) -> io::Result<usize> {
    check_seal(&fd)?;
    let stat = fstat(&fd)?;
    let allocated = stat.st_blocks.saturating_mul(512);
    usize::try_from(stat.st_size.min(allocated)).or_else(|_| invalid("a memfd larger than memory"))
}

/// The length of a memfd that can be mapped for writing, and that may shrink or grow at any time.
///
/// # Errors
/// `InvalidData` if it is not such a memfd.
#[cfg(feature = "ipc-channel")]
pub(crate) fn writable_len(fd: impl AsFd) -> io::Result<usize> {
    let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    let sealed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE;
    if !seals.is_ok_and(|seals| !seals.intersects(sealed))
        || flags & OFlag::O_ACCMODE != OFlag::O_RDWR
    {
        return invalid("what is no memfd that can be written to");
    }
    usize::try_from(fstat(&fd)?.st_size).or_else(|_| invalid("a memfd larger than memory"))
}

fn check_seal(fd: impl AsFd) -> io::Result<()> {
    let seals = match fcntl(&fd, FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_truncate(bits),
        Err(_) => return invalid("a block that is not a memfd"),
    };
    match seals.contains(SealFlag::F_SEAL_SHRINK) {
        true => Ok(()),
        false => invalid("a memfd that is not sealed against shrinking"),
    }
}

fn invalid<T>(what: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// The size of the explicit huge pages that a memfd is made of, if it is.
pub(crate) fn huge_page(fd: impl AsFd) -> io::Result<Option<usize>> {
    let large = usize::try_from(fstat(&fd)?.st_blksize).ok().filter(|size| *size > page_size());
    // Ordinary shared memory may name a large block, too: what it prefers.
    match large {
        Some(_) if fstatfs(&fd)?.filesystem_type() == HUGETLBFS_MAGIC => Ok(large),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_can_be_neither_grown_nor_shrunk() {
        let file = File::from(create("test", 4096).expect("memfd"));
        assert!(file.set_len(0).is_err());
        assert!(file.set_len(8192).is_err());
    }

    #[test]
    fn explicit_huge_pages_are_told_from_others() {
        assert_eq!(huge_page(create("test", 4096).expect("memfd")).expect("stat"), None);
        for size in [1 << 21, 1 << 30] {
            // A machine may lack one of the sizes. No page is taken.
            if let Ok(fd) = create_growable("test", 0, Some(size)) {
                assert_eq!(huge_page(fd).expect("stat"), Some(size));
            }
        }
    }

    #[test]
    fn a_sparse_or_unsealed_file_is_not_trusted() {
        let sparse = create("test", 1 << 30).expect("memfd");
        assert_eq!(checked_len(&sparse).expect("sealed"), 0);
        let unsealed = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        assert!(checked_len(&unsealed).is_err());
        assert!(checked_len(File::open("/proc/self/exe").expect("exe")).is_err());
    }
}
