//! The memory of vectors in forked children, which do not have it.

mod common;

use common::isolated;
use multiproc::{Process, SharedVec, Stdio};
use std::process::ExitCode;

fn main() -> ExitCode {
    isolated::main(
        cases![
            a_slice_that_got_into_a_forked_child_leads_nowhere,
            what_was_given_back_before_the_fork_is_free_in_the_child,
            a_vector_that_grew_leads_nowhere_either,
        ],
        &[],
    )
}

/// Whether something else can come to lie at these addresses.
fn can_be_mapped(address: usize) -> bool {
    let hint = std::ptr::without_provenance_mut(address);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without MAP_FIXED nothing that is mapped is touched.
    let mapped = unsafe { libc::mmap(hint, 4096, libc::PROT_READ, flags, -1, 0) };
    mapped.addr() == address
}

fn vector() -> &'static mut SharedVec<u64> {
    Box::leak(Box::new(SharedVec::try_from_iter(0..10_000).unwrap()))
}

fn a_slice_that_got_into_a_forked_child_leads_nowhere() {
    let slice: &'static [u64] = &vector()[..];
    let mapped = move || {
        let start = slice.as_ptr().addr();
        (can_be_mapped(start), can_be_mapped(start + 4096 * (size_of_val(slice) / 4096)))
    };
    assert_eq!(Process::fork(mapped).spawn().unwrap().join().unwrap(), (false, false));
    let mut reader = Process::fork(move || slice[5]).stderr(Stdio::Null).spawn().unwrap();
    assert!(reader.join().expect_err("there is nothing to read").is_exited());
    assert_eq!(slice[5], 5, "the parent has it as before");
}

fn what_was_given_back_before_the_fork_is_free_in_the_child() {
    let vec = SharedVec::<u64>::zeroed(1_000_000).unwrap();
    let address = vec.as_ptr().addr();
    drop(vec);
    let mapped = move || can_be_mapped(address);
    assert!(Process::fork(mapped).spawn().unwrap().join().unwrap());
}

fn a_vector_that_grew_leads_nowhere_either() {
    let vec = vector();
    vec.resize(5_000_000, 1).unwrap();
    let slice: &'static [u64] = &vec[..];
    let mapped = move || {
        let start = slice.as_ptr().addr();
        (can_be_mapped(start), can_be_mapped(start + 4096 * (size_of_val(slice) / 4096 - 1)))
    };
    assert_eq!(Process::fork(mapped).spawn().unwrap().join().unwrap(), (false, false));
}
