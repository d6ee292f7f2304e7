//! Files of shared memory that have a name.
//!
//! Semantics: shm_overview(7). Such a file lives in `/dev/shm` until it is unlinked. It is made
//! without a name, filled, and then given one: nobody ever finds a half-made one, and a process
//! that is killed on the way leaves nothing.
//!
//! Whoever removes a name holds the file's lock (flock(2)) and looks, under it, whether the name is
//! still that file's. So of several that remove the same name, and others that make it anew
//! meanwhile, nobody removes what he did not look at.

use super::clock::Deadline;
use super::memfd;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DIRECTORY: &str = "/dev/shm";
/// Who holds the lock needs it for microseconds; but it could have been stopped.
const PATIENCE: Duration = Duration::from_secs(2);

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Makes a file of `len` bytes that has no name yet and that only this user can open; its memory
/// is really there.
///
/// # Errors
/// If there is not enough memory, or no `/dev/shm`.
pub(crate) fn create(len: usize) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    let fd = OwnedFd::from(options.open(DIRECTORY)?);
    memfd::reserve(&fd, 0, len)?;
    Ok(fd)
}

/// Gives a file that has none a name.
///
/// # Errors
/// `AlreadyExists`.
pub(crate) fn link(fd: impl AsFd, name: &str) -> io::Result<()> {
    let from = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    let here = nix::fcntl::AT_FDCWD;
    nix::unistd::linkat(here, &from, here, &path(name), AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}

/// Opens the file of this name. Symbolic links are not followed.
///
/// # Errors
/// `NotFound`; and if it is none that could be memory of this user.
pub(crate) fn open(name: &str, writable: bool) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(writable).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let fd = OwnedFd::from(options.open(path(name))?);
    checked_len(&fd)?;
    Ok(fd)
}

/// The number of bytes that can be mapped, of memory that somebody else made.
///
/// # Errors
/// `InvalidData` if it is no regular file in memory that belongs to this user. (Another user could
/// cut it short while it is mapped. One's own processes could, too: see `shm::named`.)
pub(crate) fn checked_len(fd: impl AsFd) -> io::Result<usize> {
    let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    let stat = fstat(&fd)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG || fstatfs(&fd)?.filesystem_type() != TMPFS_MAGIC {
        return invalid("it is no shared memory");
    }
    if stat.st_uid != nix::unistd::geteuid().as_raw() {
        return invalid(&format!("it belongs to user {}, not to this one", stat.st_uid));
    }
    let allocated = stat.st_blocks.saturating_mul(512);
    usize::try_from(stat.st_size.min(allocated)).or_else(|_| invalid("it is larger than memory"))
}

/// Whether the descriptor can be written to.
pub(crate) fn is_writable(fd: impl AsFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDWR)
}

/// Removes the name if it is that of this file; returns whether it was. `may` is asked under the
/// lock.
///
/// # Errors
/// `WouldBlock` if somebody holds the lock and does not give it back.
pub(crate) fn unlink_if(fd: impl AsFd, name: &str, may: impl FnOnce() -> bool) -> io::Result<bool> {
    // A file description of its own: the lock belongs to that, and others may share the caller's.
    let own = OwnedFd::from(File::open(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))?);
    let lock = locked(own)?;
    let file = fstat(&*lock)?;
    let same = match std::fs::symlink_metadata(path(name)) {
        Ok(named) => (named.dev(), named.ino()) == (file.st_dev, file.st_ino),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !same || !may() {
        return Ok(false);
    }
    std::fs::remove_file(path(name))?;
    Ok(true)
}

fn locked(mut fd: OwnedFd) -> io::Result<Flock<OwnedFd>> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        fd = match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((fd, Errno::EWOULDBLOCK | Errno::EINTR)) if !deadline.passed() => fd,
            Err((_, error)) => return Err(error.into()),
        };
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The names that begin with `prefix`.
pub(crate) fn list(prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        let name = entry?.file_name();
        // A name that is no UTF-8 was not made here.
        if name.as_bytes().starts_with(prefix.as_bytes()) {
            names.extend(name.into_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique(what: &str) -> String {
        format!("multiproc-test-{what}-{}", std::process::id())
    }

    #[test]
    fn a_name_is_given_once_and_removed_by_who_means_that_file() {
        let name = unique("link");
        let (first, second) = (create(4096).expect("file"), create(4096).expect("file"));
        assert!(!list(&name).expect("list").contains(&name));
        link(&first, &name).expect("free");
        let taken = link(&second, &name).expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert!(!unlink_if(&second, &name, || true).expect("another file"));
        assert!(!unlink_if(&first, &name, || false).expect("it may not"));
        assert!(list(&name).expect("list").contains(&name));
        assert!(unlink_if(&first, &name, || true).expect("unlink"));
        assert!(!unlink_if(&first, &name, || true).expect("gone already"));
        assert_eq!(open(&name, false).expect_err("gone").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn links_and_files_that_are_no_memory_are_not_opened() {
        let name = unique("symlink");
        std::os::unix::fs::symlink("/proc/self/exe", path(&name)).expect("symlink");
        assert!(open(&name, false).is_err());
        std::fs::remove_file(path(&name)).expect("remove");
        assert!(checked_len(File::open("/proc/self/exe").expect("exe")).is_err());
        assert!(checked_len(File::open("/dev/null").expect("null")).is_err());
    }

    #[test]
    fn a_descriptor_tells_what_it_was_opened_for() {
        let name = unique("mode");
        let fd = create(4096).expect("file");
        link(&fd, &name).expect("free");
        assert!(is_writable(&fd) && is_writable(open(&name, true).expect("open")));
        assert!(!is_writable(open(&name, false).expect("open")));
        unlink_if(&fd, &name, || true).expect("unlink");
    }
}
