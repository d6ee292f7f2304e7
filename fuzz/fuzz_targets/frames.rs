//! Whatever the peer of a connection sends, in whatever pieces, a receive returns a message or
//! refuses it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| multiproc::__fuzz::frames(bytes));
