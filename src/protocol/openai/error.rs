//! Extracts errors from response bodies of all known forms.
//!
//! The forms: `{"error":{…}}`, `{"error":"text"}`, `[{"error":…}]`, flat `{"message":…,"code":…}`,
//! `{"object":"error",…}`, FastAPI's `{"detail":"text"|[…]}`, `{"errors":[…]}`, MiniMax's `base_resp`, an HTML page,
//! plain text, an empty body. Works on a JSON tree: errors are rare and small.

use std::sync::Arc;

use serde_json::Value;

use super::echo::without_echo;
use crate::{
    model::ErrorClass,
    protocol::{
        CallError, ResponseHead, ServerKind,
        error::{ErrorSignals, classify, is_request_specific, page_message, truncate_code, truncate_message},
        retry_after::{RetryAfter, from_headers, parse_delay},
    },
};

/// Fields that only errors have, in spellings of several services.
const MESSAGE_FIELDS: [&str; 6] = ["error_msg", "errmsg", "err_msg", "error_message", "errorMessage", "errMsg"];

/// Fields with the code of an error.
const CODE_FIELDS: [&str; 5] = ["code", "error_code", "errcode", "err_no", "errorCode"];

/// The contents of an error body.
#[derive(Debug, Default)]
pub(super) struct ErrorBody {
    pub(super) message: String,
    /// The `code`, `type`, `status` and `details` strings, joined for classification.
    pub(super) codes: String,
    pub(super) code: Option<String>,
    pub(super) param: Option<String>,
    /// A code in the body that looks like an HTTP error status.
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<RetryAfter>,
    pub(super) request_id: Option<String>,
}

impl ErrorBody {
    /// Whether a code says more than the HTTP status does.
    fn has_code(&self) -> bool {
        let words = self.codes.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_lowercase).collect();
        !words.is_empty() && words != ["not", "found"]
    }
}

/// The error of a response with an error status. `request`: the body of the request, which the error may quote.
pub(super) fn from_response(head: &ResponseHead, body: &[u8], request: &[u8]) -> CallError {
    let status = head.status;
    let json = serde_json::from_slice::<Value>(body.trim_ascii()).ok().or_else(|| first_event(body));
    let mut error = json.as_ref().map(parse_error).unwrap_or_default();
    let header_delay = from_headers(&head.headers);
    let is_page = error.message.is_empty() && !error.has_code() && (json.is_some() || !is_plain_text(body));
    if error.message.is_empty() {
        error.message = page_message(Some(status), body);
    }
    let server = ServerKind::from_headers(&head.headers);
    let own_words = OwnWords::new(&error, request);
    let retry_after = header_delay.or(error.retry_after);
    let signals = own_words.signals(Some(status.as_u16()), retry_after.is_some());
    let class = classify(ErrorSignals { is_page, ..signals }).unwrap_or(ErrorClass::InvalidResponse);
    CallError {
        class,
        status: Some(status.as_u16()),
        code: error.code.as_deref().map(truncate_code),
        hint: hint(class, &error.message),
        message: truncate_message(&error.message),
        param: error.param.as_deref().map(truncate_code),
        retry_after,
        request_id: head.request_id().or(error.request_id.as_deref().map(truncate_code)),
        server,
        should_retry: head.header("x-should-retry").and_then(|value| value.parse().ok()),
        remembered: false,
        request_specific: is_request_specific(&own_words.message),
        headers: Some(Arc::clone(&head.headers)),
        source: None,
    }
}

/// Whether an error with this text makes a key or a model unavailable for other requests.
fn has_lasting_effect(text: &str) -> bool {
    use ErrorClass as C;
    let class = classify(ErrorSignals { status: Some(400), message: text, ..ErrorSignals::default() });
    matches!(class, Some(C::Quota | C::Rate | C::Auth | C::Forbidden | C::Model | C::Overloaded))
}

/// The texts of an error without what the client has sent.
pub(super) struct OwnWords {
    pub(super) message: String,
    codes: String,
}

impl OwnWords {
    pub(super) fn new(error: &ErrorBody, request: &[u8]) -> Self {
        let own = |text: &str| without_echo(text, request, has_lasting_effect);
        Self { message: own(&error.message), codes: own(&error.codes) }
    }

    pub(super) fn signals(&self, status: Option<u16>, retry_after: bool) -> ErrorSignals<'_> {
        ErrorSignals { status, code: &self.codes, message: &self.message, retry_after, is_page: false }
    }
}

/// Whether a body without JSON is an error in words, and not a page.
fn is_plain_text(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    !text.is_empty() && !text.starts_with('<')
}

pub(super) fn hint(class: ErrorClass, message: &str) -> Option<String> {
    let text = match class {
        ErrorClass::Path => "check base_url: OpenAI-compatible services usually serve the API under /v1",
        ErrorClass::NoChannel => "enable an upstream for this model in the gateway, or use another model",
        ErrorClass::Request if message.contains("No connected db") => {
            "check the key: LiteLLM without a database returns this error for an invalid key"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// The JSON of the first event that has any, for an event stream with an error status.
fn first_event(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    text.lines().filter_map(|line| line.strip_prefix("data:")).find_map(|data| serde_json::from_str(data.trim()).ok())
}

pub(super) fn parse_error(json: &Value) -> ErrorBody {
    match json {
        Value::Array(items) => items.first().map(parse_error).unwrap_or_default(),
        Value::Object(object) => match object.get("error").filter(|error| is_set(error)) {
            Some(Value::String(text)) => match embedded_json(text) {
                Some(inner) => parse_error(&inner),
                None => ErrorBody { message: text.clone(), ..parse_fields(json) },
            },
            Some(inner) => {
                let outer = parse_fields(json);
                let inner = if inner.is_object() {
                    parse_error(inner)
                } else {
                    ErrorBody { message: inner.to_string(), ..ErrorBody::default() }
                };
                ErrorBody { request_id: inner.request_id.or(outer.request_id), ..inner }
            }
            None => parse_fields(json),
        },
        Value::String(text) => ErrorBody { message: text.clone(), ..ErrorBody::default() },
        _ => ErrorBody::default(),
    }
}

/// The error object in the text of a gateway that forwards it as a string.
fn embedded_json(text: &str) -> Option<Value> {
    serde_json::from_str::<Value>(text.trim()).ok().filter(Value::is_object)
}

/// Parses one level of an error object.
fn parse_fields(json: &Value) -> ErrorBody {
    let field = |name: &str| json.get(name).and_then(scalar_text).filter(|text| !text.is_empty());
    let base_resp = json.get("base_resp");
    let message = ["message", "msg", "html-message"]
        .into_iter()
        .chain(MESSAGE_FIELDS)
        .find_map(field)
        .or_else(|| json.get("detail").map(detail_text).filter(|text| !text.is_empty()))
        .or_else(|| field("title"))
        .or_else(|| json.get("errors").map(detail_text).filter(|text| !text.is_empty()))
        .or_else(|| base_resp.and_then(|resp| resp.get("status_msg")).and_then(scalar_text))
        .unwrap_or_else(|| if has_known_key(json) { String::new() } else { json.to_string() });
    let code = CODE_FIELDS.into_iter().find_map(field);
    let code = code.or_else(|| base_resp.and_then(|resp| resp.get("status_code")).and_then(scalar_text));
    let minimax = base_resp.and_then(|resp| resp.get("status_code")).and_then(Value::as_u64).and_then(minimax_code);
    let by_minimax = minimax.map(|(_, code)| code.to_owned());
    let codes = [code.clone(), field("type"), field("status"), field("details"), by_minimax];
    let codes = codes.into_iter().flatten().chain(detail_codes(json)).collect::<Vec<_>>().join(" ");
    let as_status = |text: String| text.parse::<u16>().ok().filter(|status| (400..600).contains(status));
    ErrorBody {
        message,
        codes,
        status: minimax
            .map(|(status, _)| status)
            .or_else(|| code.clone().and_then(as_status))
            .or_else(|| field("status").and_then(as_status)),
        code,
        param: field("param"),
        retry_after: retry_delay(json),
        request_id: field("request_id").or_else(|| field("requestId")),
    }
}

/// Further texts that name the cause: the reason and the limits in Gemini's `details`, the code of Azure's `innererror`, and
/// the error of the provider that OpenRouter forwards.
fn detail_codes(json: &Value) -> Vec<String> {
    let details = json.get("details").and_then(Value::as_array).into_iter().flatten();
    let limits = details.clone().filter_map(|detail| detail.get("violations")?.as_array()).flatten();
    let reasons =
        details.filter_map(|detail| detail.get("reason")).chain(limits.filter_map(|limit| limit.get("quotaId")));
    let paths = ["/innererror/code", "/innererror/message", "/metadata/raw", "/metadata/error_type"];
    reasons.chain(paths.iter().filter_map(|path| json.pointer(path))).filter_map(scalar_text).collect()
}

/// The retry delay in Gemini's `RetryInfo`, or in the plain fields of other services.
fn retry_delay(json: &Value) -> Option<RetryAfter> {
    let details = json.get("details").and_then(Value::as_array).into_iter().flatten();
    details
        .filter_map(|detail| detail.get("retryDelay"))
        .chain(["retry_after", "retryAfter", "retryDelay"].iter().filter_map(|name| json.get(name)))
        .find_map(|value| parse_delay(&scalar_text(value)?))
}

/// The text of FastAPI's `detail` or the `errors` of other services: a string, an object, or a list of them.
fn detail_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            items.iter().map(detail_text).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
        }
        Value::Object(object) => {
            let text = ["msg", "message", "error", "detail"].iter().find_map(|name| object.get(*name));
            let location = object
                .get("loc")
                .and_then(Value::as_array)
                .map(|path| path.iter().filter_map(scalar_text).collect::<Vec<_>>().join("."));
            match (text.map(detail_text), location) {
                (Some(text), Some(location)) => format!("{text} ({location})"),
                (Some(text), None) => text,
                (None, _) => value.to_string(),
            }
        }
        _ => String::new(),
    }
}

fn scalar_text(value: &Value) -> Option<String> {
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

/// What a code in MiniMax's `base_resp` means, as a status and a code of OpenAI: <https://platform.minimax.io>, error codes.
fn minimax_code(code: u64) -> Option<(u16, &'static str)> {
    Some(match code {
        1000 | 1013 | 1024 | 1033 => (500, "server_error"),
        1001 => (504, "timeout"),
        1002 | 1039 | 1041 | 2045 => (429, "rate_limit"),
        1004 | 2049 => (401, "invalid_api_key"),
        1008 | 2056 => (402, "insufficient_quota"),
        1026 | 1027 => (400, "content_filter"),
        1042 | 2013 => (400, "invalid_request"),
        _ => return None,
    })
}

fn has_known_key(json: &Value) -> bool {
    ["message", "detail", "errors", "code", "type", "base_resp", "error_code", "errcode"]
        .iter()
        .any(|name| json.get(name).is_some_and(|value| !value.is_null()))
}

/// Whether an object in a response with a success status is an error.
pub(super) fn is_error_body(json: &Value, event: &[u8]) -> bool {
    let item = json.as_array().and_then(|items| items.first()).unwrap_or(json);
    let has = |name: &str| item.get(name).is_some_and(is_set);
    let has_base_resp_error =
        item.pointer("/base_resp/status_code").and_then(Value::as_i64).is_some_and(|code| code != 0);
    let is_answer =
        item.get("choices").is_some_and(|choices| !choices.is_null()) || item.get("usage").is_some_and(is_set);
    let has_items = |name: &str| item.get(name).and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    let has_results = ["choices", "data", "results", "output"].into_iter().any(has_items);
    let is_success = CODE_FIELDS.into_iter().filter_map(|name| item.get(name)).any(|code| *code == 0 || *code == "0");
    event == b"error"
        || has("error")
        || !has_results && !is_success && MESSAGE_FIELDS.into_iter().any(has)
        || item.get("object").is_some_and(|object| object == "error")
        || has_base_resp_error
        || (!is_answer && ["message", "msg", "detail", "errors"].into_iter().any(has))
}

/// The error of a response with status 200 that is an HTML page or plain text.
pub(super) fn page_error(data: &[u8], server: ServerKind) -> CallError {
    let error =
        CallError::new(ErrorClass::InvalidResponse, format!("expected an answer, got: {}", page_message(None, data)));
    CallError { status: Some(200), server, hint: hint(ErrorClass::Path, ""), ..error }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::openai::stream_errors::StreamErrors;

    /// The error bodies of services in `tests/fixtures/errors/`.
    #[derive(serde::Deserialize)]
    struct ErrorFixtures {
        error: Vec<ErrorFixture>,
    }

    #[derive(serde::Deserialize)]
    struct ErrorFixture {
        /// Where the body was published.
        source: String,
        status: u16,
        class: String,
        body: String,
        #[serde(default)]
        headers: std::collections::BTreeMap<String, String>,
        /// Other requests with the same key to the same model may be accepted.
        #[serde(default)]
        request_specific: bool,
    }

    #[test]
    fn error_bodies_of_services_have_the_class_of_their_fixture() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/errors");
        let (mut count, mut wrong) = (0, Vec::new());
        for file in std::fs::read_dir(folder).expect("the fixtures") {
            let path = file.expect("readable folder").path();
            let text = std::fs::read_to_string(&path).expect("readable file");
            let fixtures: ErrorFixtures = toml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            for fixture in fixtures.error {
                count += 1;
                assert!(fixture.source.contains("://") || fixture.source.starts_with("repo "), "{}", fixture.source);
                let error = error_of(&fixture);
                if error.class.as_str() != fixture.class || error.request_specific != fixture.request_specific {
                    let file = path.file_stem().expect("a name").to_string_lossy().into_owned();
                    let ErrorFixture { status, class: want, body, .. } = &fixture;
                    let CallError { class, request_specific, .. } = error;
                    wrong.push(format!("{file}: {status} is {class} ({request_specific}), not {want}: {body}"));
                }
            }
        }
        assert!(count >= 150, "{count}");
        assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    }

    fn error_of(fixture: &ErrorFixture) -> CallError {
        let mut headers = http::HeaderMap::new();
        for (name, value) in &fixture.headers {
            let name = http::HeaderName::try_from(name).expect("valid header name");
            headers.insert(name, value.parse().expect("valid header value"));
        }
        let status = http::StatusCode::from_u16(fixture.status).expect("valid status");
        if status.is_success() {
            let json = serde_json::from_str(&fixture.body).expect("an error in a 200 is JSON");
            assert!(is_error_body(&json, b""), "{}", fixture.body);
            return StreamErrors::new(ServerKind::Other, bytes::Bytes::new()).error(&json);
        }
        from_response(&ResponseHead { status, headers: std::sync::Arc::new(headers) }, fixture.body.as_bytes(), b"")
    }

    #[test]
    fn message_is_extracted_from_all_forms() {
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
            json!({"error_message": "boom"}),
            json!({"errorMessage": "boom", "errorCode": 7}),
            json!({"err_no": 7, "err_msg": "boom"}),
            json!({"choices": [], "usage": {"total_tokens": 1}, "error_msg": "boom"}),
            json!({"error": {"error": {"message": "boom"}}}),
        ] {
            assert_eq!(parse_error(&body).message, "boom", "{body}");
            assert!(is_error_body(&body, b""), "{body}");
        }
        assert!(parse_error(&json!({"odd": "shape"})).message.contains("shape"));
    }

    #[test]
    fn answers_are_not_errors() {
        for body in [
            json!({"choices": [], "error": null}),
            json!({"choices": [{"delta": {"content": "x"}}], "message": "hi"}),
            json!({"choices": [], "usage": {"prompt_tokens": 1}, "error": {}}),
            json!({"errcode": 0, "errmsg": "ok", "data": [{"embedding": [1]}], "usage": {"total_tokens": 1}}),
            json!({"errcode": 0, "errmsg": "ok", "choices": [], "usage": {"total_tokens": 1}}),
        ] {
            assert!(!is_error_body(&body, b""), "{body}");
        }
    }

    #[test]
    fn codes_and_names_are_shortened() {
        let long = "\u{9d}x".repeat(60_000);
        let body = json!({"error": {"message": long, "code": long, "param": long, "request_id": long}});
        let head = ResponseHead { status: http::StatusCode::BAD_REQUEST, headers: std::sync::Arc::default() };
        let response = from_response(&head, body.to_string().as_bytes(), b"");
        for error in [response, StreamErrors::new(ServerKind::Other, bytes::Bytes::new()).error(&body)] {
            for text in [error.code, error.param, error.request_id] {
                let text = text.expect("the text of the service");
                assert!(text.len() < 500 && !text.contains('\u{9d}'), "{text:?}");
            }
        }
    }

    #[test]
    fn value_of_the_client_does_not_change_the_class() {
        for value in [
            "invalid api key",
            "You exceeded your current quota",
            "insufficient balance",
            "The model `m` does not exist",
            "No endpoints found",
            "rate limit reached, tokens per minute",
        ] {
            let message = format!("Invalid value: '{value}'. Supported values are: 'low' and 'high'.");
            let body = json!({"error": {"message": message, "code": "invalid_value", "param": "reasoning_effort"}});
            let request = json!({"model": "m", "reasoning_effort": value}).to_string();
            let head = ResponseHead { status: http::StatusCode::BAD_REQUEST, headers: std::sync::Arc::default() };
            let error = from_response(&head, body.to_string().as_bytes(), request.as_bytes());
            assert_eq!(error.class, ErrorClass::Request, "{value}");
            assert!(error.message.contains(value), "the message is shown as it came");
            // OpenRouter forwards the error of the provider, and Azure the cause.
            let raw = format!("{{\"error\":{{\"message\":\"{message}\"}}}}");
            for error in [
                json!({"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}),
                json!({"message": "bad request", "innererror": {"message": message}}),
                json!({"message": "bad request", "details": message}),
            ] {
                let body = json!({"error": error});
                let error = from_response(&head, body.to_string().as_bytes(), request.as_bytes());
                assert_eq!(error.class, ErrorClass::Request, "{body}");
                let sent = bytes::Bytes::from(request.clone());
                let error = StreamErrors::new(ServerKind::Other, sent).error(&body);
                assert!(matches!(error.class, ErrorClass::Request | ErrorClass::InStream), "{body}: {}", error.class);
            }
        }
    }
}
