//! Error bodies of every shape, through one extractor.
//!
//! Seen in the wild: `{"error":{…}}`, `{"error":"text"}`, `[{"error":…}]`, flat `{"message":…,"code":…}`,
//! `{"object":"error",…}`, FastAPI's `{"detail":"text"|[…]}`, `{"errors":[…]}`, MiniMax's `base_resp`, a page, a text,
//! nothing. Works on a JSON tree: errors are rare and small.

use serde_json::Value;

use super::decode::Came;
use crate::{
    model::ErrorClass,
    protocol::{
        ApiError, ResponseHead, ServerKind,
        error::{Evidence, classify, page_message, shortened},
        retry_after::{RetryAfter, from_delay, from_headers},
    },
};

/// What an error body says.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// `code` and `type` and `status` words, for classification.
    words: String,
    code: Option<String>,
    param: Option<String>,
    /// A code in the body that reads like an HTTP status.
    status: Option<u16>,
    retry_after: Option<RetryAfter>,
    request_id: Option<String>,
}

/// The error of a reply whose status was no success.
pub(super) fn of_reply(head: &ResponseHead, body: &[u8]) -> ApiError {
    let status = head.status;
    let json = serde_json::from_slice::<Value>(body.trim_ascii()).ok().or_else(|| first_event(body));
    let said = json.as_ref().map(said).filter(|said| !said.message.is_empty());
    let header_wait = from_headers(&head.headers);
    let said = said.unwrap_or_else(|| Said { message: page_message(Some(status), body), ..Said::default() });
    let server = ServerKind::of(&head.headers);
    let retry_after = header_wait.or(said.retry_after);
    let evidence = Evidence {
        status: Some(status.as_u16()),
        code: &said.words,
        message: &said.message,
        retry_after: retry_after.is_some(),
    };
    let class = classify(evidence).unwrap_or(ErrorClass::Garbage);
    ApiError {
        class,
        status: Some(status.as_u16()),
        code: said.code,
        hint: hint(class, &said.message),
        message: shortened(&said.message),
        param: said.param,
        retry_after,
        request_id: head.request_id().or(said.request_id),
        server,
        should_retry: head.header("x-should-retry").and_then(|word| word.parse().ok()),
    }
}

/// The error inside a reply that claimed success, after what came before it.
pub(super) fn in_stream(json: &Value, server: ServerKind, after: Came) -> ApiError {
    let said = said(json);
    let evidence = Evidence {
        status: said.status,
        code: &said.words,
        message: &said.message,
        retry_after: said.retry_after.is_some(),
    };
    let coded = classify(evidence).unwrap_or(ErrorClass::InStream);
    // What breaks off is cut, whatever the reason; but while nothing of the answer is out, a request that is itself at
    // fault must not be taken to the next candidate.
    let at_fault = matches!(coded, ErrorClass::Filter | ErrorClass::Context | ErrorClass::Request);
    let class = match after {
        Came::Nothing => coded,
        Came::Thoughts if at_fault => coded,
        Came::Thoughts | Came::Answer => ErrorClass::Cut,
    };
    let message = if said.message.is_empty() { "the server reported an error without a text" } else { &said.message };
    ApiError {
        status: Some(200),
        code: said.code,
        hint: hint(class, &said.message),
        param: said.param,
        retry_after: said.retry_after,
        request_id: said.request_id,
        server,
        ..ApiError::new(class, message)
    }
}

fn hint(class: ErrorClass, message: &str) -> Option<String> {
    let text = match class {
        ErrorClass::Path => "check base_url: OpenAI-compatible services usually serve below /v1",
        ErrorClass::NoChannel => "the gateway has no upstream for this model: enable one there, or ask another model",
        ErrorClass::Request if message.contains("No connected db") => {
            "LiteLLM without a database answers so when the key is wrong"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The JSON of an event stream that came with an error status.
fn first_event(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    text.lines().filter_map(|line| line.strip_prefix("data:")).find_map(|data| serde_json::from_str(data.trim()).ok())
}

/// The parameters an error complains of; `None` when it is about something else.
pub(super) fn refused_parameters(error: &ApiError) -> Option<Vec<String>> {
    const CODES: [&str; 4] = ["unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden"];
    const PHRASES: [&str; 8] = [
        "unsupported parameter",
        "unsupported value",
        "unexpected field",
        "unknown field",
        "unrecognized request argument",
        "unrecognized field",
        "extra inputs are not permitted",
        "extra fields not permitted",
    ];
    let message = error.message.to_lowercase();
    let complains = error.code.as_deref().is_some_and(|code| CODES.contains(&code))
        || PHRASES.iter().any(|phrase| message.contains(phrase));
    if error.class != ErrorClass::Request || !complains {
        return None;
    }
    let words = error.message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    Some(error.param.iter().cloned().chain(words.filter(|word| word.len() > 2).map(str::to_owned)).collect())
}

fn said(json: &Value) -> Said {
    match json {
        Value::Array(items) => items.first().map(said).unwrap_or_default(),
        Value::Object(object) => match object.get("error").filter(|error| is_set(error)) {
            Some(Value::String(text)) => Said { message: text.clone(), ..flat(json) },
            Some(inner) => {
                let outer = flat(json);
                let inner = if inner.is_object() {
                    said(inner)
                } else {
                    Said { message: inner.to_string(), ..Said::default() }
                };
                Said { request_id: inner.request_id.or(outer.request_id), ..inner }
            }
            None => flat(json),
        },
        Value::String(text) => Said { message: text.clone(), ..Said::default() },
        _ => Said::default(),
    }
}

/// One level of an error object.
fn flat(json: &Value) -> Said {
    let text = |name: &str| json.get(name).and_then(word).filter(|text| !text.is_empty());
    let minimax = json.get("base_resp");
    let message = ["message", "msg", "error_msg", "errorMessage", "html-message", "title"]
        .into_iter()
        .find_map(text)
        .or_else(|| json.get("detail").map(detail).filter(|text| !text.is_empty()))
        .or_else(|| json.get("errors").map(detail).filter(|text| !text.is_empty()))
        .or_else(|| minimax.and_then(|resp| resp.get("status_msg")).and_then(word))
        .unwrap_or_else(|| if has_known_key(json) { String::new() } else { json.to_string() });
    let code = text("code").or_else(|| minimax.and_then(|resp| resp.get("status_code")).and_then(word));
    let words = [code.clone(), text("type"), text("status"), text("details")]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ");
    let as_status = |word: String| word.parse::<u16>().ok().filter(|status| (400..600).contains(status));
    Said {
        message,
        words,
        status: code.clone().and_then(as_status).or_else(|| text("status").and_then(as_status)),
        code,
        param: text("param"),
        retry_after: retry_delay(json),
        request_id: text("request_id").or_else(|| text("requestId")),
    }
}

/// Gemini's RetryInfo and the plain fields of others.
fn retry_delay(json: &Value) -> Option<RetryAfter> {
    let details = json.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter_map(|detail| detail.get("retryDelay"))
        .chain(["retry_after", "retryAfter", "retryDelay"].iter().filter_map(|name| json.get(name)))
        .find_map(|value| from_delay(&word(value)?))
}

/// FastAPI's `detail` and the `errors` of others: a text, an object, or a list of them.
fn detail(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(detail).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
        Value::Object(object) => {
            let text = ["msg", "message", "error", "detail"].iter().find_map(|name| object.get(*name));
            let place = object
                .get("loc")
                .and_then(Value::as_array)
                .map(|path| path.iter().filter_map(word).collect::<Vec<_>>().join("."));
            match (text.map(detail), place) {
                (Some(text), Some(place)) => format!("{text} ({place})"),
                (Some(text), None) => text,
                (None, _) => value.to_string(),
            }
        }
        _ => String::new(),
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

fn has_known_key(json: &Value) -> bool {
    ["message", "detail", "errors", "code", "type", "base_resp"]
        .iter()
        .any(|name| json.get(name).is_some_and(|v| !v.is_null()))
}

/// Whether a successful reply's object is an error all the same.
pub(super) fn is_error(json: &Value, event: &[u8]) -> bool {
    let item = json.as_array().and_then(|items| items.first()).unwrap_or(json);
    let has = |name: &str| item.get(name).is_some_and(is_set);
    let minimax = item.pointer("/base_resp/status_code").and_then(Value::as_i64).is_some_and(|code| code != 0);
    let is_answer =
        item.get("choices").is_some_and(|choices| !choices.is_null()) || item.get("usage").is_some_and(is_set);
    event == b"error"
        || has("error")
        || item.get("object").is_some_and(|object| object == "error")
        || minimax
        || (!is_answer && ["message", "msg", "detail", "errors"].into_iter().any(has))
}

/// A page where an answer should be: status 200, and nothing a client of this API could read.
pub(super) fn page(data: &[u8], server: ServerKind) -> ApiError {
    let error = ApiError::new(ErrorClass::Garbage, format!("no answer but: {}", page_message(None, data)));
    ApiError { status: Some(200), server, hint: hint(ErrorClass::Path, ""), ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_gives_its_message() {
        for body in [
            json!({"error": {"message": "boom", "code": 500}}),
            json!({"error": "boom"}),
            json!([{"error": {"message": "boom"}}]),
            json!({"message": "boom", "code": "x"}),
            json!({"object": "error", "message": "boom"}),
            json!({"detail": "boom"}),
            json!({"detail": [{"msg": "boom"}]}),
            json!({"errors": [{"code": 1, "message": "boom"}]}),
            json!({"base_resp": {"status_code": 1004, "status_msg": "boom"}}),
            json!({"error": {"error": {"message": "boom"}}}),
        ] {
            assert_eq!(said(&body).message, "boom", "{body}");
            assert!(is_error(&body, b""), "{body}");
        }
        assert!(said(&json!({"odd": "shape"})).message.contains("shape"));
    }

    #[test]
    fn answers_are_no_errors() {
        for body in [
            json!({"choices": [], "error": null}),
            json!({"choices": [{"delta": {"content": "x"}}], "message": "hi"}),
            json!({"choices": [], "usage": {"prompt_tokens": 1}, "error": {}}),
        ] {
            assert!(!is_error(&body, b""), "{body}");
        }
    }
}
