//! Masks secrets in the parameters of a model.

use serde_json::{Map, Value};

use super::words::sensitive_word_end;
use crate::model::key_mask::{REDACTED, mask_key_shapes};

/// `params` without secrets: texts below a name such as `token`, and whatever looks like a key.
#[must_use]
pub(crate) fn without_secrets(params: &Map<String, Value>) -> Map<String, Value> {
    masked_map(params, false)
}

fn masked_map(params: &Map<String, Value>, is_secret: bool) -> Map<String, Value> {
    let masked = params.iter().map(|(name, value)| {
        let is_secret = is_secret || sensitive_word_end(name).is_some();
        (mask_key_shapes(name).into_owned(), masked_value(value, is_secret))
    });
    masked.collect()
}

fn masked_value(value: &Value, is_secret: bool) -> Value {
    match value {
        Value::String(_) if is_secret => REDACTED.into(),
        Value::String(text) => mask_key_shapes(text).into(),
        Value::Array(items) => items.iter().map(|item| masked_value(item, is_secret)).collect(),
        Value::Object(params) => masked_map(params, is_secret).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_masked_and_settings_are_not() {
        let params = json!({
            "api_key": "hunter22", "user": {"token": "hunter22", "name": "me"}, "note": "use sk-1234567890ab",
            "extra_headers": {"Authorization": ["Bearer hunter22"]}, "sk-1234567890ab": 1,
            "max_tokens": 5, "min_tokens": 2, "stop": ["x"], "thinking": {"type": "enabled"},
        });
        let masked = without_secrets(params.as_object().expect("an object"));
        let want = json!({
            "api_key": REDACTED, "user": {"token": REDACTED, "name": "me"}, "note": "use [redacted]",
            "extra_headers": {"Authorization": [REDACTED]}, "[redacted]": 1,
            "max_tokens": 5, "min_tokens": 2, "stop": ["x"], "thinking": {"type": "enabled"},
        });
        assert_eq!(Value::from(masked), want);
    }
}
