//! Reading YAML as a tree, and looking into it.
//!
//! Owns nothing of any format. What multiplies itself without end (aliases of aliases) is refused by the reader.

use serde_yaml_ng::Value;

use super::ImportError;

/// No configuration is as deep, and the reader's time grows with the square of it.
const DEEPEST: usize = 64;

/// How deep its brackets are, at most; those within texts count, too.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for c in text.bytes() {
        match c {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' if open > DEEPEST => return open,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// The document.
pub(super) fn read(text: &str) -> Result<Value, ImportError> {
    if depth(text) > DEEPEST {
        return Err(ImportError(format!("it has brackets more than {DEEPEST} deep")));
    }
    serde_yaml_ng::from_str(text).map_err(|error| {
        let at = error.location().map(|at| format!(" (line {}, column {})", at.line(), at.column()));
        // The reader's own message may quote what stands there, which may be a key.
        ImportError(format!("it is no YAML that can be read{}", at.unwrap_or_default()))
    })
}

/// The text under `key`; numbers are texts, too.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text under `key`, unless it is empty.
pub(super) fn some_text(value: &Value, key: &str) -> Option<String> {
    text(value, key).filter(|text| !text.trim().is_empty())
}

/// The list under `key`; empty when there is none.
pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}

/// The texts of the list under `key`.
pub(super) fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The number under `key`.
pub(super) fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key)?.as_f64()
}

/// The whole number under `key`.
pub(super) fn whole(value: &Value, key: &str) -> Option<u64> {
    value.get(key)?.as_u64()
}
