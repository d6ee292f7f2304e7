//! Anonymous shared memory files.
//!
//! Semantics: memfd_create(2) and the file seals of fcntl(2). A memfd has no name in any file
//! system, so nothing is left behind whoever dies.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// Creates a memfd of `len` bytes whose size can never change again.
pub(crate) fn create(name: &str, len: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = File::from(fd);
    file.set_len(len as u64)?;
    let fd = OwnedFd::from(file);
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

/// Has the kernel set memory aside for a part of the file.
pub(crate) fn reserve(fd: &OwnedFd, at: usize, len: usize) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    let (at, len) = (i64::try_from(at).map_err(too_large)?, i64::try_from(len).map_err(too_large)?);
    loop {
        match fallocate(fd, FallocateFlags::empty(), at, len) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Seals a memfd against all writing.
///
/// # Errors
/// `ResourceBusy` while anybody, also another process, has it mapped for writing.
pub(crate) fn seal_writes(fd: &OwnedFd) -> io::Result<()> {
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

fn seal(fd: &OwnedFd, seals: SealFlag) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// The number of bytes that can be mapped from a memfd that somebody else made.
///
/// # Errors
/// `InvalidData` if the file could shrink under a mapping (no shrink seal), and if its memory is
/// not really there: a sparse file would let its maker have us allocate what it never paid for.
pub(crate) fn checked_len(fd: impl AsFd) -> io::Result<usize> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let seals = match fcntl(&fd, FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_truncate(bits),
        Err(_) => return invalid("a block that is not a memfd"),
    };
    if !seals.contains(SealFlag::F_SEAL_SHRINK) {
        return invalid("a memfd that is not sealed against shrinking");
    }
    let stat = File::from(fd.as_fd().try_clone_to_owned()?).metadata()?;
    let allocated = stat.blocks().saturating_mul(512);
    usize::try_from(stat.len().min(allocated)).or_else(|_| invalid("a memfd larger than memory"))
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
    fn a_sparse_or_unsealed_file_is_not_trusted() {
        let sparse = create("test", 1 << 30).expect("memfd");
        assert_eq!(checked_len(&sparse).expect("sealed"), 0);
        let unsealed = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        assert!(checked_len(&unsealed).is_err());
        assert!(checked_len(File::open("/proc/self/exe").expect("exe")).is_err());
    }
}
