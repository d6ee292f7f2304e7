//! Whatever a stranger says to a listener, or a listener to a client, nobody is let in by it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| multiproc::__fuzz::handshake(bytes));
