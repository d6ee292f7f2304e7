//! Copies to and from memory that other processes may be changing meanwhile, without a data race
//! in Rust's sense: by relaxed atomic accesses, or by one opaque string instruction.
//!
//! A value of 1, 2, 4 or 8 bytes at an address that is a multiple of its size is never torn.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Below this the string instruction's start-up costs more than it saves.
const LONG: usize = 256;

/// Copies out of shared memory.
///
/// # Safety
/// `source` is readable and `target` writable for `len` bytes, they do not overlap, and nobody
/// else accesses `target`.
#[inline]
pub(super) unsafe fn copy_out(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: passed on from the caller.
    if len >= LONG && unsafe { string_copy(source, target, len) } {
        return;
    }
    let source = source.cast_mut();
    let mut done = 0;
    while done < len {
        // SAFETY: `done` and the step are within the length that the caller vouches for, and
        // `step` gives a size to which the shared address is aligned.
        // Relaxed: ordering comes from the protocol's words.
        unsafe {
            let (from, to) = (source.add(done), target.add(done));
            let size = step(from, len - done);
            match size {
                8 => to
                    .cast::<u64>()
                    .write_unaligned(AtomicU64::from_ptr(from.cast()).load(Ordering::Relaxed)),
                4 => to
                    .cast::<u32>()
                    .write_unaligned(AtomicU32::from_ptr(from.cast()).load(Ordering::Relaxed)),
                2 => to
                    .cast::<u16>()
                    .write_unaligned(AtomicU16::from_ptr(from.cast()).load(Ordering::Relaxed)),
                _ => to.write(AtomicU8::from_ptr(from).load(Ordering::Relaxed)),
            }
            done += size;
        }
    }
}

/// Copies into shared memory.
///
/// # Safety
/// `source` is readable and `target` writable for `len` bytes, they do not overlap, and nobody
/// else writes to `source`.
#[inline]
pub(super) unsafe fn copy_in(source: *const u8, target: *mut u8, len: usize) {
    // SAFETY: passed on from the caller.
    if len >= LONG && unsafe { string_copy(source, target, len) } {
        return;
    }
    let mut done = 0;
    while done < len {
        // SAFETY: as in `copy_out`. Relaxed: as there.
        unsafe {
            let (from, to) = (source.add(done), target.add(done));
            let size = step(to, len - done);
            match size {
                8 => AtomicU64::from_ptr(to.cast())
                    .store(from.cast::<u64>().read_unaligned(), Ordering::Relaxed),
                4 => AtomicU32::from_ptr(to.cast())
                    .store(from.cast::<u32>().read_unaligned(), Ordering::Relaxed),
                2 => AtomicU16::from_ptr(to.cast())
                    .store(from.cast::<u16>().read_unaligned(), Ordering::Relaxed),
                _ => AtomicU8::from_ptr(to).store(from.read(), Ordering::Relaxed),
            }
            done += size;
        }
    }
}

/// The largest access at this shared address that is aligned and not longer than `left`.
#[inline]
fn step(shared: *const u8, left: usize) -> usize {
    if left >= 8 && shared.cast::<u64>().is_aligned() {
        8
    } else if left >= 4 && shared.cast::<u32>().is_aligned() {
        4
    } else if left >= 2 && shared.cast::<u16>().is_aligned() {
        2
    } else {
        1
    }
}

/// Copies by one instruction, if this kind of machine has it; false if not.
///
/// # Safety
/// As for `copy_out` or `copy_in`.
#[inline]
unsafe fn string_copy(source: *const u8, target: *mut u8, len: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the callers vouch for both ranges. To the compiler the asm block is opaque: it may
    // read anything from `source` and writes exactly `len` bytes of `target`. The direction flag is
    // clear by the ABI.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags)
        );
    }
    let _ = (source, target, len);
    cfg!(target_arch = "x86_64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_and_alignment_are_exact_in_both_directions() {
        let source: Vec<u8> = (0..2000).map(|index| (index % 251) as u8).collect();
        for at in 0..9 {
            for len in (0..40).chain(250..270).chain([1000]) {
                let mut out = vec![0; len];
                let mut into = vec![0; at + len + 1];
                // SAFETY: the ranges are inside three different vectors.
                unsafe {
                    copy_out(source.as_ptr().add(at), out.as_mut_ptr(), len);
                    copy_in(source.as_ptr().add(at), into.as_mut_ptr().add(at), len);
                }
                assert_eq!(out, source[at..at + len]);
                assert_eq!(into[at..at + len], source[at..at + len]);
                assert_eq!((into[..at].iter().max().copied().unwrap_or(0), into[at + len]), (0, 0));
            }
        }
    }
}
