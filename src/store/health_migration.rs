//! Reads `health.json` in the format from before 0.1.0, whose fields have other names.
//!
//! A running process of an earlier version rejects the new names: it prints a warning, starts with empty health and
//! writes the old format, which is then read here.

use serde_json::{Map, Value};

use crate::{model::ErrorClass, routing::health::HealthSnapshot};

/// The renamed fields: the object that has the field, its old name and its new name.
const RENAMED: [(&str, &str, &str); 16] = [
    ("", "salt", "key_salt"),
    ("", "places", "entries"),
    ("entry", "aside", "cooldown"),
    ("entry", "probe", "probe_lease"),
    ("entry", "error", "last_error"),
    ("entry", "seen", "updated_at"),
    ("breaker", "row", "consecutive_failures"),
    ("breaker", "openings", "open_count"),
    ("breaker", "recent", "recent_calls"),
    ("breaker", "opened", "opened_at"),
    ("cooldown", "ms", "duration_ms"),
    ("cooldown", "times", "consecutive"),
    ("last_error", "status", "http_status"),
    ("latency", "average", "average_ms"),
    ("latency", "at", "updated_at"),
    ("latency", "last", "samples_ms"),
];

/// Reads a snapshot in the old format; `None` if `text` is something else.
pub(super) fn read_old_format(text: &str) -> Option<HealthSnapshot> {
    let mut document: Map<String, Value> = serde_json::from_str(text).ok()?;
    if !document.contains_key("places") {
        return None;
    }
    rename(&mut document, "");
    for entry in document.get_mut("entries")?.as_object_mut()?.values_mut() {
        let entry = entry.as_object_mut()?;
        rename(entry, "entry");
        for object in ["breaker", "cooldown", "last_error", "latency"] {
            if let Some(Value::Object(fields)) = entry.get_mut(object) {
                rename(fields, object);
            }
        }
        if let Some(Value::String(class)) = entry.get_mut("last_error").and_then(|error| error.get_mut("class"))
            && let Some(renamed) = ErrorClass::from_old_name(class)
        {
            renamed.as_str().clone_into(class);
        }
    }
    serde_json::from_value(document.into()).ok()
}

fn rename(fields: &mut Map<String, Value>, object: &str) {
    for (_, old, new) in RENAMED.iter().filter(|(owner, ..)| *owner == object) {
        if let Some(value) = fields.remove(*old) {
            fields.insert((*new).to_owned(), value);
        }
    }
}
