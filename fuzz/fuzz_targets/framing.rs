//! Bytes of a response body.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
mod checks;

fuzz_target!(|input: (u8, &[u8])| checks::framing(input.0, input.1));
