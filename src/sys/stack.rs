//! A small stack for the child of a vfork.

use std::io;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::num::NonZeroUsize;

const LEN: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// Private memory for a stack, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Stack(NonNull<libc::c_void>);

impl Stack {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        Ok(Self(unsafe { mmap_anonymous(None, LEN, protection, flags) }?))
    }

    /// The address one past the highest byte; page-aligned, so aligned for any ABI.
    pub(crate) fn top(&self) -> *mut libc::c_void {
        // SAFETY: the result is one past the end of the mapping, still in bounds of it.
        unsafe { self.0.byte_add(LEN.get()) }.as_ptr()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and owned by `self`; the child that ran on it has executed or
        // exited.
        let _ = unsafe { munmap(self.0, LEN.get()) };
    }
}
