use super::handle::Handle;
use crate::shm::named::{self, Content, LONGEST_NAME, Named};
use crate::sys::fork;
use crate::wire::handles;
use crate::{Error, Result};
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared memory with a name, for processes that are not related. (Python: `SharedMemory`.)
///
/// One process creates it, any other process of the same user opens it by its name, or gets it as
/// an argument. Related processes need no name: for them the other types of this crate are safer
/// and leave nothing behind.
///
/// # Who cleans up
/// The *name* is removed when the creating process drops its last handle. That is not so after
/// [`keep`](Self::keep): then the memory stays until somebody calls [`unlink`](Self::unlink), or
/// the system is restarted. The memory itself goes when the name is gone and nobody has it mapped.
///
/// A creator that is killed, or that calls [`std::process::exit`], leaves the name and the memory
/// behind; [`sweep`](Self::sweep) removes what dead creators have left. A process that is killed
/// while it *creates* leaves nothing.
///
/// # What can be done with it
/// Bytes are copied in and out, while others may be changing them; a process that must see
/// consistent data uses the atomics, or a protocol of its own, and slices are `unsafe` therefore.
/// Give each word one size: two overlapping accesses of different sizes see some mix.
/// The memory is reserved when it is created. Only this user can open it (mode 0600).
///
/// Do not truncate the file in `/dev/shm`: whoever touches the lost part gets `SIGBUS`. This crate
/// never does, and no other user can. (In the file, the data begins at byte 4096.) That also means
/// that whoever accepts a `SharedMemory` as a *result* trusts the worker that sent it: the file has
/// a name and cannot be sealed, so the worker could cut it short later. From a worker that is not
/// trusted, take a [`FrozenVec`](super::FrozenVec) or an [`Array`](super::Array): those cannot be
/// cut.
///
/// Huge pages and alignment can be chosen for a [`SharedVec`](super::SharedVec) only
/// ([`SharedVec::options`](super::SharedVec::options)); here the first byte is at a page.
///
/// A clone is another handle of the same mapping.
///
/// ```
/// use multiproc::SharedMemory;
/// use std::sync::atomic::Ordering;
///
/// let board = SharedMemory::create_unique(4096)?;
/// board.write_at(100, b"hello")?;
///
/// // In any other program:
/// let same = SharedMemory::open(board.name())?;
/// let mut text = [0; 5];
/// same.read_at(100, &mut text)?;
/// assert_eq!(&text, b"hello");
/// same.atomic_u64(0)?.fetch_add(1, Ordering::SeqCst);
/// assert_eq!(board.read::<u64>(0)?, 1);
/// # Ok::<(), multiproc::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedMemory(Arc<Owned>);

impl SharedMemory {
    /// Makes memory of `size` bytes, all zero, with this name.
    ///
    /// The name has 1 to 245 bytes, and no `/` or NUL; in `/dev/shm`, `multiproc.` is in front of
    /// it.
    ///
    /// # Errors
    /// Invalid input, for a wrong name, a size of 0, and a name that is in use; out of memory.
    pub fn create(name: &str, size: usize) -> Result<Self> {
        check_name(name)?;
        check_size(size)?;
        let created = Named::create(name, Content::Bytes, size, |_| Ok(()));
        created.map(Owned::created).map(Self).map_err(|error| not_created(name, error))
    }

    /// Makes memory with a name that nobody else uses; [`name`](Self::name) tells it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_unique(size: usize) -> Result<Self> {
        check_size(size)?;
        let created = unique(|name| Named::create(name, Content::Bytes, size, |_| Ok(())))?;
        Ok(Self(Owned::created(created)))
    }

    /// Opens memory that somebody created, for reading and writing.
    ///
    /// # Errors
    /// Invalid input, for a wrong name and one that nothing has; an OS error if what has the name
    /// belongs to another user or was not made by this type.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_for(name, true)
    }

    /// Opens memory that somebody created, for reading only: the kernel refuses to write.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_read_only(name: &str) -> Result<Self> {
        Self::open_for(name, false)
    }

    fn open_for(name: &str, writable: bool) -> Result<Self> {
        check_name(name)?;
        let opened = Named::open(name, Content::Bytes, writable);
        opened.map(Owned::opened).map(Self).map_err(|error| not_opened(name, error))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.named.name()
    }

    /// The number of bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.named.len()
    }

    /// Whether this handle can be written through.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.named.is_writable()
    }

    /// Copies bytes out, from byte `at` on. Others may be changing them meanwhile.
    ///
    /// # Errors
    /// Invalid input, if not all of them are inside.
    pub fn read_at(&self, at: usize, target: &mut [u8]) -> Result<()> {
        if self.0.named.read(at, target) { Ok(()) } else { Err(self.refusal(at, target.len())) }
    }

    /// Copies bytes in, from byte `at` on.
    ///
    /// # Errors
    /// Invalid input, if not all of them are inside, or the memory was opened for reading only.
    pub fn write_at(&self, at: usize, source: &[u8]) -> Result<()> {
        if self.0.named.write(at, source) { Ok(()) } else { Err(self.refusal(at, source.len())) }
    }

    /// A copy of the value at byte `at`. It need not be aligned; if it is, and has up to 8 bytes,
    /// it is never torn.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read<T: Pod>(&self, at: usize) -> Result<T> {
        let mut value = T::zeroed();
        self.read_at(at, bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// Overwrites the value at byte `at`.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write<T: Pod>(&self, at: usize, value: T) -> Result<()> {
        self.write_at(at, bytemuck::bytes_of(&value))
    }

    /// The 8 bytes at byte `at`, which is a multiple of 8, as an atomic word.
    ///
    /// # Errors
    /// Invalid input, if they are not inside or `at` is no multiple of 8, or the memory was opened
    /// for reading only ([`read`](Self::read) reads words atomically, too).
    pub fn atomic_u64(&self, at: usize) -> Result<&AtomicU64> {
        self.0.named.word64(at).ok_or_else(|| self.refusal(at, 8))
    }

    /// All bytes.
    ///
    /// # Safety
    /// While the slice lives, no thread of any process writes to the memory, and nobody truncates
    /// the file.
    #[must_use]
    #[allow(unsafe_code, reason = "what is asked of the caller is passed on")]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: passed on from the caller.
        unsafe { self.0.named.bytes() }
    }

    /// All bytes, for writing.
    ///
    /// # Errors
    /// Invalid input, if the memory was opened for reading only.
    ///
    /// # Safety
    /// While the slice lives, no other thread of any process reads or writes the memory, also not
    /// through another slice of this one, and nobody truncates the file.
    #[allow(unsafe_code, reason = "what is asked of the caller is passed on")]
    #[allow(clippy::mut_from_ref, reason = "exclusivity is the caller's to show")]
    pub unsafe fn as_mut_slice(&self) -> Result<&mut [u8]> {
        // SAFETY: passed on from the caller.
        unsafe { self.0.named.bytes_mut() }.ok_or_else(|| self.refusal(0, self.len()))
    }

    /// From now on the memory outlives its creator: it stays until [`unlink`](Self::unlink).
    ///
    /// # Errors
    /// Invalid input, if the memory was opened for reading only.
    pub fn keep(&self) -> Result<()> {
        if self.0.named.keep() { Ok(()) } else { Err(self.refusal(0, 0)) }
    }

    /// Removes the name: nobody can open the memory any more. Those who have it keep it. Returns
    /// whether it had the name still.
    ///
    /// # Errors
    /// An OS error if the kernel refuses.
    pub fn unlink(&self) -> Result<bool> {
        self.0.unlink()
    }

    /// Removes what dead creators have left: named memory and [`ShareableList`]s of this user whose
    /// creating process does not exist any more, and that were not to be kept. Returns their names.
    ///
    /// Who has such memory open keeps it. What was created in another pid namespace (a container
    /// that shares `/dev/shm`) is left alone.
    ///
    /// # Errors
    /// An OS error if `/dev/shm` cannot be read, or the kernel refuses to remove a name.
    ///
    /// ```
    /// let removed = multiproc::SharedMemory::sweep()?;
    /// println!("removed {removed:?}");
    /// # Ok::<(), multiproc::Error>(())
    /// ```
    ///
    /// [`ShareableList`]: crate::ShareableList
    pub fn sweep() -> Result<Vec<String>> {
        named::sweep().map_err(|error| Error::os("stale shared memory could not be removed", error))
    }

    fn refusal(&self, at: usize, len: usize) -> Error {
        let named = &self.0.named;
        let (name, size) = (named.name(), named.len());
        if !named.contains(at, len) {
            let what =
                format!("{len} bytes at byte {at} of shared memory {name:?} of {size} bytes");
            return Error::invalid(what);
        }
        if !named.is_writable() {
            return Error::invalid(format!("shared memory {name:?} was opened for reading only"));
        }
        Error::invalid(format!(
            "an atomic word of {len} bytes at byte {at}: use a multiple of {len}"
        ))
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SharedMemory");
        debug.field("name", &self.name()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Owned::received(deserializer, Content::Bytes).map(Self)
    }
}

/// Memory, and whether its name goes with it.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) named: Named,
    /// In which generation of forks this process created it, if it did: a forked child did not.
    created: Option<u32>,
}

impl Owned {
    pub(super) fn created(named: Named) -> Arc<Self> {
        Arc::new(Self { named, created: Some(fork::generation()) })
    }

    pub(super) fn opened(named: Named) -> Arc<Self> {
        Arc::new(Self { named, created: None })
    }

    pub(super) fn unlink(&self) -> Result<bool> {
        self.named.unlink().map_err(|error| {
            let name = self.named.name();
            Error::os(format!("the name {name:?} of shared memory could not be removed"), error)
        })
    }

    pub(super) fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (Handle(self.named.object().clone()), self.named.name()).serialize(serializer)
    }

    pub(super) fn received<'de, D: Deserializer<'de>>(
        deserializer: D,
        content: Content,
    ) -> Result<Arc<Self>, D::Error> {
        let (Handle(object), name): (_, String) = Deserialize::deserialize(deserializer)?;
        let wrong = "what came is no named shared memory of this kind and user";
        if check_name(&name).is_err() {
            return Err(handles::refuse_decoding(wrong));
        }
        let named = Named::received(object, name, content);
        named.map(Self::opened).map_err(|_| handles::refuse_decoding(wrong))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.created == Some(fork::generation()) {
            // If it cannot be removed now, a sweep will do it.
            let _ = self.named.unlink_unless_kept();
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let what = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("it has {} bytes; {LONGEST_NAME} are allowed", name.len())
    } else if name.contains(['/', '\0']) {
        "it contains `/` or NUL".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the name {name:?} for shared memory: {what}")))
}

fn check_size(size: usize) -> Result<()> {
    if size > 0 {
        Ok(())
    } else {
        Err(Error::invalid("shared memory of 0 bytes: ask for one or more"))
    }
}

pub(super) fn not_created(name: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::invalid(format!(
            "shared memory {name:?} exists: open it, or unlink it, or sweep if its creator is dead"
        ));
    }
    Error::memory(format!("shared memory {name:?} could not be created in /dev/shm"), error)
}

pub(super) fn not_opened(name: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Error::invalid(format!("there is no shared memory {name:?}: create it first"));
    }
    Error::os(format!("shared memory {name:?} could not be opened"), error)
}

/// Tries names until one is free.
pub(super) fn unique<R>(create: impl Fn(&str) -> io::Result<R>) -> Result<R> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        // Relaxed: only the numbers must differ.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        match create(&name) {
            // Left by a process that had this id before.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map_err(|error| not_created(&name, error)),
        }
    }
}
