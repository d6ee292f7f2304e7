//! The path of a listening Unix socket: a file that the kernel makes and nobody removes.

use super::Address;
use crate::sys::clock::Deadline;
use crate::sys::fork;
use crate::sys::stream::connect_to;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A path that this process has made, and removes.
#[derive(Debug)]
pub(super) struct BoundPath {
    path: PathBuf,
    file: File,
    /// A forked child removes nothing of its parent's.
    generation: u32,
}

/// Which file it is: somebody may have put another one at the same path.
#[derive(Debug, PartialEq, Eq)]
struct File(u64, u64);

impl File {
    /// The socket at a path, if there is one.
    fn socket_at(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        found.file_type().is_socket().then(|| Self(found.dev(), found.ino()))
    }
}

impl BoundPath {
    /// The path that was just bound, if the address has one.
    pub(super) fn just_made(address: &Address) -> Option<Self> {
        let Address::Unix(path) = address else { return None };
        let file = File::socket_at(path)?;
        Some(Self { path: path.clone(), file, generation: fork::generation() })
    }

    /// Removes it, if it is still what was made; doing so twice does no harm.
    pub(super) fn remove(&self) {
        let is_ours = self.generation == fork::generation()
            && File::socket_at(&self.path).as_ref() == Some(&self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the socket at a path if nobody listens there; returns whether it did.
pub(super) fn remove_stale(address: &Address) -> bool {
    let Address::Unix(path) = address else { return false };
    let (Some(found), Ok(place)) = (File::socket_at(path), address.place()) else { return false };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if !connect_to(&place, Deadline::now()).is_err_and(refused) {
        return false;
    }
    // Somebody else may be doing the same, and listen there by now. So it is moved away first, and
    // moved back if it turns out to be another one.
    let mut aside = path.clone().into_os_string();
    aside.push(format!(".{}", std::process::id()));
    if fs::rename(path, &aside).is_err() {
        return false;
    }
    let aside = Path::new(&aside);
    let is_same = File::socket_at(aside) == Some(found);
    if !is_same {
        // Not over one that was made meanwhile.
        let _ = fs::hard_link(aside, path);
    }
    let _ = fs::remove_file(aside);
    is_same
}
