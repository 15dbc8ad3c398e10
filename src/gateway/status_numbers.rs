//! Keeps numbers that look like the status of a temporary failure out of the text of a permanent error.
//!
//! Some clients search the text of an error for 429, 500, 502, 503 or 529, and retry without end if they find one, for
//! example in "the maximum context length is 4290 tokens". The text of a service is changed only for the eye: a narrow
//! space separates the digits.

use serde_json::Value;

/// The statuses that clients search for.
const STATUSES: [&str; 5] = ["429", "500", "502", "503", "529"];

/// The narrow no-break space.
const SEPARATOR: char = '\u{202f}';

/// Removes the numbers from an error body. Names of models and endpoints are not changed.
pub(super) fn remove(body: &mut Value, names: &[&str]) {
    match body {
        Value::String(text) => {
            if !names.contains(&text.as_str()) && STATUSES.iter().any(|status| text.contains(status)) {
                *text = separated(text, names);
            }
        }
        Value::Number(number) => {
            if STATUSES.iter().any(|status| number.to_string().contains(status)) {
                *body = Value::Null;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove(item, names)),
        Value::Object(fields) => fields.values_mut().for_each(|value| remove(value, names)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// The text with a space inside each status, except in names.
fn separated(text: &str, names: &[&str]) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len() + 8), text);
    while !rest.is_empty() {
        if let Some(name) = names.iter().find(|name| !name.is_empty() && rest.starts_with(**name)) {
            out.push_str(name);
            rest = &rest[name.len()..];
        } else if STATUSES.iter().any(|status| rest.starts_with(status)) {
            out.push_str(&rest[..1]);
            out.push(SEPARATOR);
            rest = &rest[1..];
        } else {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_are_removed_from_texts_and_numbers_but_not_from_names() {
        let mut body = json!({
            "message": "model gpt-4290: at most 4290 tokens, 1500 of 500 requested",
            "model": "gpt-4290",
            "attempts": [{"status": 503, "ms": 5021, "key": 0}],
        });
        remove(&mut body, &["gpt-4290"]);
        let want = json!({
            "message": "model gpt-4290: at most 4\u{202f}290 tokens, 15\u{202f}00 of 5\u{202f}00 requested",
            "model": "gpt-4290",
            "attempts": [{"status": null, "ms": null, "key": 0}],
        });
        assert_eq!(body, want);
    }
}
