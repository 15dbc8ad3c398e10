//! Texts of `health.json`: a snapshot that was read is written and read again without a change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mmchat::internals::routing::health::HealthSnapshot;

fuzz_target!(|text: &str| {
    if let Ok(snapshot) = serde_json::from_str::<HealthSnapshot>(text) {
        let written = serde_json::to_string(&snapshot).expect("a snapshot serializes");
        let again: HealthSnapshot = serde_json::from_str(&written).expect("a written snapshot is valid");
        assert_eq!(written, serde_json::to_string(&again).expect("a snapshot serializes"));
    }
});
