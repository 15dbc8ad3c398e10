//! Configs of other tools: detecting and parsing them never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mmchat::internals::import::ImportFormat;

fuzz_target!(|text: &str| {
    if let Some(format) = ImportFormat::detect(text) {
        let _ = format.parse(text);
    }
});
