//! Texts of config files: the part before a line `#user` is the system's file.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
mod checks;

fuzz_target!(|text: &str| checks::config_layers(text));
