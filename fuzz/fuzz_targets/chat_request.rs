//! Request bodies of clients.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
mod checks;

fuzz_target!(|body: &[u8]| checks::chat_request(body));
