//! Request bodies of clients: parsing never panics, and an accepted body is one JSON object.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mmchat::internals::protocol::openai::server::parse_chat;

fuzz_target!(|body: &[u8]| {
    if parse_chat(&Bytes::copy_from_slice(body)).is_ok() {
        let value: serde_json::Value = serde_json::from_slice(body).expect("an accepted body is JSON");
        assert!(value.is_object());
    }
});
