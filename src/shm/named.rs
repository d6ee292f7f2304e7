//! Memory with a name, for processes that are not related.
//!
//! In front of the data is a page that says what it is, how long, and who made it: which process,
//! in which pid namespace. That page is written before the file has a name.
//!
//! Nothing keeps another process of the same user from cutting the file short, which would be a
//! `SIGBUS` for whoever touches the lost pages: seals are for files without a name. It takes that
//! user's own program to do it on purpose; nothing here ever does. Whatever is read from the memory
//! is hostile all the same: lengths are taken once, when it is opened, and compared with the file.

use super::object::{Access, Object};
use super::owner;
use super::segment::Segment;
use crate::sys::named;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Before the names of all files that are made here.
const PREFIX: &str = "multiproc.";
/// Where the data begins.
const DATA: usize = 4096;
const MAGIC_NUMBER: u64 = u64::from_le_bytes(*b"mprocSM1");

const MAGIC: usize = 0;
const KIND: usize = 8;
const LEN: usize = 16;
const CREATOR: usize = 24;
const NAMESPACE: usize = 32;
const KEPT: usize = 40;

/// What is in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Content {
    /// Bytes.
    Bytes = 1,
    /// A list; see `list`.
    List = 2,
}

/// The file that has this name.
fn file_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The longest name in bytes.
pub(crate) const LONGEST_NAME: usize = 255 - PREFIX.len();

/// Memory with a name, mapped.
#[derive(Debug)]
pub(crate) struct Named {
    object: Arc<Object>,
    name: String,
    /// The number of bytes of data; that many are mapped behind the first page.
    len: usize,
    writable: bool,
}

impl Named {
    /// Makes memory for `len` bytes, all zero, and gives it the name when `fill` has filled it.
    ///
    /// # Errors
    /// `AlreadyExists`; if there is not enough memory; and what `fill` says.
    pub(crate) fn create(
        name: &str,
        content: Content,
        len: usize,
        fill: impl FnOnce(&Self) -> io::Result<()>,
    ) -> io::Result<Self> {
        let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, "more bytes than addresses");
        let whole = len.checked_add(DATA).ok_or_else(too_large)?;
        crate::sys::room::check_addresses(whole)?;
        let object = Arc::new(Object::received(named::create(whole)?));
        let segment = object.map(Access::Named, whole)?;
        let namespace = pid_namespace()?;
        let words = [
            (KIND, content as u64),
            (LEN, len as u64),
            (CREATOR, owner::my_process()),
            (NAMESPACE, namespace),
            (MAGIC, MAGIC_NUMBER),
        ];
        for (at, word) in words {
            // Relaxed: the file has no name yet, so nobody reads.
            segment.word64(at).store(word, Ordering::Relaxed);
        }
        let new = Self { object, name: name.to_owned(), len, writable: true };
        fill(&new)?;
        named::link(new.object.fd(), &file_name(name))?;
        Ok(new)
    }

    /// Maps the memory that has this name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` if it is something else.
    pub(crate) fn open(name: &str, content: Content, writable: bool) -> io::Result<Self> {
        let fd = named::open(&file_name(name), writable)?;
        Self::received(Arc::new(Object::received(fd)), name.to_owned(), content)
    }

    /// Maps memory whose descriptor came from elsewhere.
    ///
    /// # Errors
    /// `InvalidData` if it is something else.
    pub(crate) fn received(
        object: Arc<Object>,
        name: String,
        content: Content,
    ) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let segment = object.map_whole(Access::Named, DATA)?;
        let whole = segment.len();
        // Relaxed: written before the file had a name.
        let word = |at| segment.word64(at).load(Ordering::Relaxed);
        if word(MAGIC) != MAGIC_NUMBER {
            return Err(invalid("it was not made by this crate"));
        }
        if word(KIND) != content as u64 {
            return Err(invalid("it holds another kind of data (a SharedMemory or ShareableList)"));
        }
        match usize::try_from(word(LEN)).ok().filter(|len| *len <= whole - DATA) {
            Some(len) => {
                let writable = named::is_writable(object.fd());
                Ok(Self { object, name, len, writable })
            }
            None => Err(invalid("it is shorter than it says")),
        }
    }

    /// What travels.
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The number of bytes of data.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether this process can write to it.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether there are `len` bytes at `at`.
    pub(crate) fn contains(&self, at: usize, len: usize) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Copies bytes out, which others may be changing meanwhile; false if they are not inside.
    #[must_use]
    pub(crate) fn read(&self, at: usize, target: &mut [u8]) -> bool {
        let inside = self.contains(at, target.len());
        if inside {
            self.segment().copy_out(DATA + at, target);
        }
        inside
    }

    /// Copies bytes in; false if they are not inside, or the memory cannot be written to.
    #[must_use]
    pub(crate) fn write(&self, at: usize, source: &[u8]) -> bool {
        let may = self.writable && self.contains(at, source.len());
        if may {
            self.segment().copy_in(DATA + at, source);
        }
        may
    }

    /// The word at `at`; none if it is not inside, not at a multiple of 8, or cannot be written to.
    #[inline]
    pub(crate) fn word64(&self, at: usize) -> Option<&AtomicU64> {
        let fine = self.writable && at.is_multiple_of(8) && self.contains(at, 8);
        fine.then(|| self.segment().word64(DATA + at))
    }

    /// All data.
    ///
    /// # Safety
    /// While the slice lives, no process writes to the memory, and none cuts the file short.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: passed on from the caller.
        unsafe { self.segment().bytes(DATA, self.len) }
    }

    /// All data, for writing; none if it cannot be written to.
    ///
    /// # Safety
    /// While the slice lives, nobody else, in this or any process, accesses the memory, and none
    /// cuts the file short.
    #[allow(clippy::mut_from_ref, reason = "exclusivity is the caller's to show")]
    pub(crate) unsafe fn bytes_mut(&self) -> Option<&mut [u8]> {
        // SAFETY: passed on from the caller; writable, as checked.
        self.writable.then(|| unsafe { self.segment().bytes_mut(DATA, self.len) })
    }

    fn segment(&self) -> &Segment {
        match self.object.segment() {
            Some(segment) => segment,
            None => unreachable!("both constructors map the object"),
        }
    }

    /// The memory outlives its creator, until somebody removes the name; false if it cannot be
    /// written to.
    #[must_use]
    pub(crate) fn keep(&self) -> bool {
        if self.writable {
            // Relaxed: a mark that stands for itself.
            self.segment().word64(KEPT).store(1, Ordering::Relaxed);
        }
        self.writable
    }

    fn is_kept(&self) -> bool {
        self.segment().word64(KEPT).load(Ordering::Relaxed) != 0
    }

    /// Removes the name; the memory stays until nobody has it mapped. Returns whether it had it.
    pub(crate) fn unlink(&self) -> io::Result<bool> {
        named::unlink_if(self.object.fd(), &file_name(&self.name), || true)
    }

    /// The creator goes: removes the name if nobody keeps it.
    pub(crate) fn unlink_unless_kept(&self) -> io::Result<bool> {
        named::unlink_if(self.object.fd(), &file_name(&self.name), || !self.is_kept())
    }

    /// Whether this process can see the one that made it. If not, neither can it judge who is dead.
    pub(crate) fn is_of_this_namespace(&self) -> bool {
        let made_in = self.segment().word64(NAMESPACE).load(Ordering::Relaxed);
        pid_namespace().is_ok_and(|namespace| namespace == made_in)
    }

    /// Whether the process that made it is known to be dead, and nobody keeps it.
    fn is_stale(&self) -> bool {
        let creator = self.segment().word64(CREATOR).load(Ordering::Relaxed);
        self.is_of_this_namespace()
            && !self.is_kept()
            && owner::is_dead(creator, owner::Look::Close)
    }
}

/// Removes the names of all memory of this user whose creator is dead, and returns them.
pub(crate) fn sweep() -> io::Result<Vec<String>> {
    let mut swept = Vec::new();
    for file in named::list(PREFIX)? {
        let name = file[PREFIX.len()..].to_owned();
        // What cannot be opened is somebody else's, or gone.
        let opened = [Content::Bytes, Content::List]
            .into_iter()
            .find_map(|content| Named::open(&name, content, false).ok());
        let Some(memory) = opened else { continue };
        if !memory.is_stale() {
            continue;
        }
        match named::unlink_if(memory.object.fd(), &file, || memory.is_stale()) {
            Ok(true) => swept.push(name),
            Ok(false) => {}
            // Somebody else is removing it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(swept)
}

/// The pid namespace of this process, as a number.
fn pid_namespace() -> io::Result<u64> {
    std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino())
}
