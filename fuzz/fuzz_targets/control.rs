//! Whatever a worker sends through its control socket, the parent decodes or refuses it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| multiproc::__fuzz::control(bytes));
