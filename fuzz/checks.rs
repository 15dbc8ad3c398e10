//! What must hold for any input: used by the fuzz targets, and by a test that feeds known and damaged inputs.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

use std::path::Path;

use bytes::Bytes;
use mmchat::{
    ConfigError, ConfigLayers, ConfigText,
    internals::{
        config,
        import::ImportFormat,
        protocol::{framing::sse::SseDecoder, openai::server::parse_chat},
        routing::health::HealthSnapshot,
    },
};

/// Framing bytes of a response in one read and in reads of any size gives the same frames.
pub(crate) fn framing(read_size: u8, bytes: &[u8]) {
    let reads: Vec<&[u8]> = bytes.chunks(usize::from(read_size).max(1)).collect();
    assert_eq!(decode(&[bytes]), decode(&reads));
}

/// The data of all frames, and whether an event was too large.
fn decode(reads: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut decoder, mut frames) = (SseDecoder::default(), Vec::new());
    for read in reads {
        decoder.push(read);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.data.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    frames.extend(decoder.finish().map(|frame| frame.data.to_vec()));
    (frames, false)
}

/// Parsing the body of a client's request never panics, and an accepted body is one JSON object.
pub(crate) fn chat_request(body: &[u8]) {
    if parse_chat(&Bytes::copy_from_slice(body)).is_ok() {
        let value: serde_json::Value = serde_json::from_slice(body).expect("an accepted body is JSON");
        assert!(value.is_object());
    }
}

/// The same as [`config`]: a text with the line `#user` is that of the system's file, and after it that of the user's file.
pub(crate) fn config_layers(text: &str) {
    match text.split_once("#user\n") {
        Some((system, user)) => config(Some(system), user),
        None => config(None, text),
    }
}

/// Resolving config files never panics, every problem is reported once, and what is shown of a config parses to the same.
/// Replacing renamed keys leaves none.
pub(crate) fn config(system: Option<&str>, user: &str) {
    let file = |path: &str, text: &str| ConfigText { path: path.into(), text: text.to_owned() };
    let system = system.map(|text| file("system.toml", text));
    let layers = ConfigLayers { system, user: Some(file("user.toml", user)), ..ConfigLayers::default() };
    match layers.resolve() {
        Ok(config) => {
            let shown = config::config_toml(&config);
            let again = config::resolve(&shown, Path::new("shown.toml"));
            match again {
                Ok(again) => assert_eq!(config::config_toml(&again), shown),
                // A redacted header or address may not be valid.
                Err(error) => assert!(shown.contains("[redacted") || shown.contains("***"), "{error:?}\n{shown}"),
            }
            let _ = config::config_toml_with_origins(&config, &layers);
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            let mut reported: Vec<_> = problems
                .iter()
                .map(|problem| (problem.path(), problem.labels.clone(), problem.message.as_str()))
                .collect();
            let count = reported.len();
            reported.sort_by_key(|(path, labels, message)| (*path, format!("{labels:?}"), *message));
            reported.dedup();
            assert_eq!(reported.len(), count, "a problem is reported twice: {problems:#?}");
        }
        Err(_) => {}
    }
    let found = config::renamed_keys::find_renamed_keys(user);
    let replaced = config::renamed_keys::replace_renamed_keys(user, &found);
    assert!(config::renamed_keys::find_renamed_keys(&replaced).is_empty());
}

/// Parsing the config of another tool never panics.
pub(crate) fn import(text: &str) {
    for format in ImportFormat::ALL {
        let _ = format.parse(text);
    }
    let _ = ImportFormat::detect(text);
}

/// A health file that was read is written and read again without a change.
pub(crate) fn health(bytes: &[u8]) {
    if let Ok(snapshot) = serde_json::from_slice::<HealthSnapshot>(bytes) {
        let text = serde_json::to_string(&snapshot).expect("a snapshot is JSON");
        let again: HealthSnapshot = serde_json::from_str(&text).expect("a written snapshot can be read");
        assert_eq!(serde_json::to_string(&again).expect("a snapshot is JSON"), text);
    }
}
