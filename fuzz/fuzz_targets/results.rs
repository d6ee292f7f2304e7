//! Whatever a worker writes into its result ring, the parent reads it harmlessly or refuses it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| multiproc::__fuzz::results(bytes));
