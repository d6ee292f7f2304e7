//! Values with parts of channels in them that would not arrive.

use super::PATH;
use std::any::type_name;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whether the name of `T` says that its values have parts of channels in them, as they are: inside
/// of tuples, arrays and types of the standard library only. Of any other type nobody knows what
/// is in it.
#[inline]
pub(crate) fn names_bare_part<T>() -> bool {
    let name = type_name::<T>();
    let key = (name.len() as u64) << 48 | name.as_ptr().addr() as u64;
    // Relaxed: whoever reads a key may believe it, it belongs to nothing else.
    let known = CLEAN[slot(key)].load(Ordering::Relaxed);
    known != key && look(name, key)
}

/// The names that were found to be without such parts, by address and length: a name is a constant
/// of the program. The last one of each slot is known; others are looked at again.
static CLEAN: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

fn slot(key: u64) -> usize {
    (key >> 3) as usize % CLEAN.len()
}

#[cold]
fn look(name: &str, key: u64) -> bool {
    let found = name.match_indices(PATH).any(|(at, _)| is_bare(&name[..at]));
    if !found {
        // Relaxed: see above.
        CLEAN[slot(key)].store(key, Ordering::Relaxed);
    }
    found
}

/// Whether what follows `before` in the name of a type is a value in it, as far as one can tell.
fn is_bare(before: &str) -> bool {
    let mut closed = 0_usize;
    for (at, byte) in before.bytes().enumerate().rev() {
        match byte {
            b'>' if before[..at].ends_with('-') => {}
            b'>' | b')' | b']' => closed += 1,
            b'<' | b'(' | b'[' if closed > 0 => closed -= 1,
            b'<' if !has_values(&before[..at]) => return false,
            _ => {}
        }
    }
    // Behind a part of a longer path it is somebody else's module.
    !before.ends_with(|last: char| last == ':' || last == '_' || last.is_alphanumeric())
}

/// Whether the generic type at the end of `before` is one of the standard library, with values of
/// its parameters in it.
fn has_values(before: &str) -> bool {
    let is_path = |letter: char| letter == ':' || letter == '_' || letter.is_alphanumeric();
    let path = &before[before.trim_end_matches(is_path).len()..];
    let standard = ["core::", "alloc::", "std::"].iter().any(|root| path.starts_with(root));
    standard && path != "core::marker::PhantomData"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> bool {
        name.match_indices(PATH).any(|(at, _)| is_bare(&name[..at]))
    }

    #[test]
    fn parts_in_tuples_arrays_and_standard_types_are_bare() {
        assert!(names("ipc_channel::ipc::IpcSharedMemory"));
        assert!(names("core::option::Option<ipc_channel::ipc::IpcSender<u32>>"));
        assert!(names("(u8, [ipc_channel::ipc::IpcSender<u32>; 3])"));
        assert!(names("alloc::vec::Vec<(u8, my::Type<u8>, ipc_channel::ipc::IpcBytesSender)>"));
        assert!(names(
            "(my::Ipc<ipc_channel::ipc::IpcBytesSender>, ipc_channel::ipc::IpcSender<u8>)"
        ));
    }

    #[test]
    fn parts_in_other_types_are_not() {
        assert!(!names("multiproc::ipc::Ipc<ipc_channel::ipc::IpcSender<u32>>"));
        assert!(!names(
            "(u8, multiproc::channel::queue::Queue<(u8, ipc_channel::ipc::IpcSender<u32>)>)"
        ));
        assert!(!names("core::marker::PhantomData<ipc_channel::ipc::IpcSharedMemory>"));
        assert!(!names("core::marker::PhantomData<fn() -> ipc_channel::ipc::IpcSharedMemory>"));
        assert!(!names("my_ipc_channel::ipc::Type"));
        assert!(!names("core::option::Option<my::ipc_channel::ipc::Type>"));
        assert!(!names("alloc::string::String"));
    }

    #[test]
    fn what_was_found_is_remembered_for_its_type() {
        for _ in 0..3 {
            assert!(!names_bare_part::<Vec<String>>());
            assert!(!names_bare_part::<String>());
        }
    }
}
