//! Texts of config files: resolving them never panics, and replacing renamed keys leaves none.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mmchat::internals::config;

fuzz_target!(|text: &str| {
    let _ = config::resolve(text, Path::new("fuzz.toml"));
    let found = config::renamed_keys::find_renamed_keys(text);
    let replaced = config::renamed_keys::replace_renamed_keys(text, &found);
    assert!(config::renamed_keys::find_renamed_keys(&replaced).is_empty());
});
