//! Defines the error of a call for all protocols, and maps status, code and message to an [`ErrorClass`].

use std::{error::Error, fmt, sync::Arc};

use http::{HeaderMap, StatusCode};

use super::retry_after::RetryAfter;
use crate::model::{
    ErrorClass,
    sanitize::{one_line, truncate_chars},
};

/// Maximum length of a service's message when shown, in characters.
const MAX_MESSAGE_CHARS: usize = 280;

/// The error of a call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The error class.
    pub class: ErrorClass,
    /// The HTTP status, if a response arrived.
    pub status: Option<u16>,
    /// The error code of the service.
    pub code: Option<String>,
    /// The message: one line, truncated, without control characters.
    pub message: String,
    /// The parameter that the service rejected.
    pub param: Option<String>,
    /// The retry delay that the service requests.
    pub retry_after: Option<RetryAfter>,
    /// The request id that the service assigned.
    pub request_id: Option<String>,
    /// The server software that answered.
    pub server: ServerKind,
    /// Whether a retry on the same endpoint can succeed, if known: from the `x-should-retry` header, or set by mmchat.
    pub should_retry: Option<bool>,
    /// A hint for the user.
    pub hint: Option<String>,
    /// The error of a lower layer that caused it. The message contains its relevant part, without secrets.
    #[source]
    pub source: Option<ErrorSource>,
}

/// The cause of a [`CallError`], shared by its clones.
#[derive(Clone, Debug)]
pub struct ErrorSource(Arc<dyn Error + Send + Sync>);

impl ErrorSource {
    /// The cause as a type of a lower layer, such as `TransportError`.
    #[must_use]
    pub fn downcast_ref<T: Error + 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// This cause, or only its masked text if `mask` changes the text of it or of one of its own causes.
    #[must_use]
    pub(crate) fn masked(self, mask: impl Fn(&str) -> String) -> Self {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct MaskedCause(String);

        let text = format!("{:?}", self.0);
        let (own_text, mut causes) = (self.0.to_string(), Vec::new());
        let mut cause = self.0.source();
        while let Some(current) = cause {
            causes.push(current.to_string());
            cause = current.source();
        }
        let has_secret = causes.iter().chain([&text, &own_text]).any(|text| mask(text) != *text);
        if has_secret { Self(Arc::new(MaskedCause(mask(&own_text)))) } else { self }
    }
}

impl PartialEq for ErrorSource {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl fmt::Display for ErrorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ErrorSource {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl CallError {
    /// An error with only a class and a message.
    pub fn new(class: ErrorClass, message: impl AsRef<str>) -> Self {
        Self {
            class,
            status: None,
            code: None,
            message: truncate_message(message.as_ref()),
            param: None,
            retry_after: None,
            request_id: None,
            server: ServerKind::Other,
            should_retry: None,
            hint: None,
            source: None,
        }
    }

    /// An error with the message of `source`, which caused it.
    pub fn from_source(class: ErrorClass, source: impl Error + Send + Sync + 'static) -> Self {
        Self::new(class, source.to_string()).caused_by(source)
    }

    /// The error that caused it, if it has this type.
    #[must_use]
    pub fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.source.as_ref()?.0.downcast_ref()
    }

    /// This error with the error that caused it.
    #[must_use]
    pub fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(ErrorSource(Arc::new(source))), ..self }
    }
}

/// The server software, as recognized by its response headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// One-API or new-api: a gateway that sends its own `[DONE]` when its upstream stream breaks off.
    OneApi,
    /// The LiteLLM proxy.
    LiteLlm,
    /// The Portkey gateway.
    Portkey,
    /// Not recognized.
    #[default]
    Other,
}

impl ServerKind {
    /// Detects the server from response headers.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let has_header = |prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
        if has_header("x-oneapi-") || has_header("x-new-api-") {
            Self::OneApi
        } else if has_header("x-litellm-") {
            Self::LiteLlm
        } else if has_header("x-portkey-") {
            Self::Portkey
        } else {
            Self::Other
        }
    }

    /// Whether it is a gateway, which has already retried.
    #[must_use]
    pub fn is_gateway(self) -> bool {
        matches!(self, Self::OneApi | Self::LiteLlm | Self::Portkey)
    }
}

/// The input of [`classify`].
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorSignals<'a> {
    /// The HTTP status, or the code in the body that stands for one.
    pub status: Option<u16>,
    /// The code and type of the error body, joined.
    pub code: &'a str,
    /// The message of the error body.
    pub message: &'a str,
    /// Whether the response has a Retry-After, in a header or in the body.
    pub retry_after: bool,
}

const CONTEXT_PHRASES: &[&str] = &[
    "context_length_exceeded",
    "context length",
    "context size",
    "context window",
    "contextwindowexceeded",
    "exceed_context_size",
    "exceeds the available context",
    "prompt is too long",
    "input is too long",
    "input length and `max_tokens` exceed",
    "range of input length should be",
    "maximum number of tokens",
    "longer than the model's context",
    "reduce the length of the messages",
    "上下文长度",
    "输入长度超",
];
const FILTER_PHRASES: &[&str] = &[
    "content_policy_violation",
    "contentpolicyviolation",
    "content_filter",
    "content management policy",
    "data_inspection_failed",
    "datainspectionfailed",
    "inappropriate content",
    "responsibleaipolicyviolation",
    "敏感内容",
];
const QUOTA_PHRASES: &[&str] = &[
    "insufficient_quota",
    "insufficient_user_quota",
    "billing_hard_limit",
    "billing_not_active",
    "exceeded your current quota",
    "insufficient balance",
    "insufficient_balance",
    "insufficient credits",
    "credit balance is too low",
    "arrearage",
    "余额不足",
    "额度不足",
    "额度已用尽",
    "欠费",
];
const KEY_PHRASES: &[&str] = &[
    "invalid_api_key",
    "invalid api key",
    "incorrect api key",
    "api key not valid",
    "api_key_invalid",
    "invalid_authentication",
    "authentication_error",
    "authenticationerror",
    "无效的令牌",
];
const CHANNEL_PHRASES: &[&str] =
    &["no available channel", "no_available_channel", "model_not_found", "无可用渠道", "无可用的渠道", "no channel"];

/// Maps an error to its class. Where status and text disagree, the text of the JSON body wins (except for 401 and 402),
/// since gateways forward errors under a status of their own.
#[must_use]
pub fn classify(signals: ErrorSignals<'_>) -> Option<ErrorClass> {
    let code = signals.code.to_lowercase();
    let message = signals.message.to_lowercase();
    let contains = |phrases: &[&str]| phrases.iter().any(|phrase| code.contains(phrase) || message.contains(phrase));
    let status = signals.status.or_else(|| status_from_code(&code));
    // A quota error with a Retry-After is a rate limit.
    let is_quota = contains(QUOTA_PHRASES) && !signals.retry_after;

    Some(match status {
        Some(401) => ErrorClass::Auth,
        Some(402) => ErrorClass::Quota,
        Some(400 | 413 | 422 | 500..=599) | None if contains(CONTEXT_PHRASES) => ErrorClass::Context,
        Some(400 | 403 | 422 | 500..=502) | None if contains(FILTER_PHRASES) => ErrorClass::Filter,
        Some(400 | 403 | 429 | 500..=503) | None if is_quota => ErrorClass::Quota,
        Some(400 | 403 | 500 | 502) | None if contains(KEY_PHRASES) => ErrorClass::Auth,
        Some(403) => ErrorClass::Forbidden,
        Some(404 | 405) if is_unknown_model(&code, &message) => ErrorClass::Model,
        Some(404 | 405) => ErrorClass::Path,
        Some(400) if is_unknown_model(&code, &message) => ErrorClass::Model,
        Some(408 | 504 | 524) => ErrorClass::GatewayTimeout,
        Some(409 | 425) => ErrorClass::Conflict,
        Some(429) => ErrorClass::Rate,
        Some(503) if contains(CHANNEL_PHRASES) => ErrorClass::NoChannel,
        Some(503 | 529) => ErrorClass::Overloaded,
        Some(500..=599) if code.contains("overloaded_error") => ErrorClass::Overloaded,
        Some(500..=599) => ErrorClass::Server,
        Some(300..=399) => ErrorClass::Redirect,
        Some(400..=499) => ErrorClass::Request,
        _ => return None,
    })
}

/// The HTTP status that an error code inside a stream corresponds to.
fn status_from_code(code: &str) -> Option<u16> {
    const CODES: &[(&str, u16)] = &[
        ("rate_limit", 429),
        ("throttl", 429),
        ("resource_exhausted", 429),
        ("too_many_requests", 429),
        ("overloaded", 529),
        ("permission", 403),
        ("model_not_found", 404),
        ("invalid_request", 400),
        ("bad_request", 400),
        ("timeout", 504),
        ("server_error", 500),
        ("internalservererror", 500),
        ("internal_error", 500),
        ("unavailable", 503),
    ];
    CODES.iter().find(|(part, _)| code.contains(part)).map(|&(_, status)| status)
}

fn is_unknown_model(code: &str, message: &str) -> bool {
    const NOT_FOUND: &[&str] = &["not found", "not exist", "no such model", "unknown model", "invalid model", "不存在"];
    code.contains("model_not_found")
        || code.contains("invalid_model")
        || ((message.contains("model") || message.contains("模型"))
            && NOT_FOUND.iter().any(|phrase| message.contains(phrase)))
}

/// A service's text as one line, truncated to a length that fits a terminal.
#[must_use]
pub fn truncate_message(text: &str) -> String {
    truncate_chars(&one_line(text), MAX_MESSAGE_CHARS)
}

/// The message of a response without JSON: the status with plain text or the title of an HTML page. The rest of a page
/// is not shown, because it may contain the user's IP address.
#[must_use]
pub fn page_message(status: Option<StatusCode>, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let summary = if text.starts_with('<') { page_title(text).unwrap_or_default() } else { text.to_owned() };
    match status {
        None => truncate_message(&summary),
        Some(status) if summary.starts_with(status.as_str()) => truncate_message(&summary),
        Some(status) => {
            let reason = status.canonical_reason().unwrap_or_default();
            let status_line = format!("{} {reason}", status.as_str());
            let is_redundant = summary.is_empty() || summary.eq_ignore_ascii_case(reason);
            truncate_message(&if is_redundant { status_line } else { format!("{}: {summary}", status_line.trim()) })
        }
    }
}

fn page_title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title")?;
    let start = start + lower[start..].find('>')? + 1;
    let end = start + lower[start..].find('<')?;
    Some(page[start..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, code: &str, message: &str) -> ErrorClass {
        classify(ErrorSignals { status: Some(status), code, message, retry_after: false })
            .expect("an error status has a class")
    }

    #[test]
    fn status_code_and_message_map_to_class() {
        use ErrorClass as C;
        let cases = [
            (401, "", "", C::Auth),
            (403, "invalid_api_key", "", C::Auth),
            (403, "", "not for you", C::Forbidden),
            (400, "", "API key not valid. Please pass a valid API key.", C::Auth),
            (402, "", "", C::Quota),
            (429, "insufficient_quota", "", C::Quota),
            (403, "insufficient_user_quota", "", C::Quota),
            (429, "rate_limit_exceeded", "", C::Rate),
            (400, "context_length_exceeded", "", C::Context),
            (400, "", "Range of input length should be [1, 30720]", C::Context),
            (400, "content_policy_violation", "", C::Filter),
            (400, "", "litellm.ContentPolicyViolationError: no", C::Filter),
            (404, "", "The model `x` does not exist", C::Model),
            (400, "400", "Invalid model name passed in model=x", C::Model),
            (404, "", "Not Found", C::Path),
            (503, "", "no available channel for model gpt-4o", C::NoChannel),
            (503, "", "当前分组 default 下对于模型 x 无可用渠道", C::NoChannel),
            (503, "", "", C::Overloaded),
            (529, "", "", C::Overloaded),
            (500, "", "boom", C::Server),
            (521, "", "", C::Server),
            (524, "", "", C::GatewayTimeout),
            (408, "", "", C::GatewayTimeout),
            (409, "", "", C::Conflict),
            (301, "", "", C::Redirect),
            (422, "", "Unexpected fields", C::Request),
            (413, "", "too large", C::Request),
        ];
        for (status, code, message, want) in cases {
            assert_eq!(class(status, code, message), want, "{status} {code} {message}");
        }
    }

    #[test]
    fn html_page_is_reduced_to_status_and_title() {
        let page = b"<html><head><TITLE>502: Bad gateway</title></head><body>Your IP: 203.0.113.9</body>";
        assert_eq!(page_message(Some(StatusCode::BAD_GATEWAY), page), "502: Bad gateway");
        assert_eq!(page_message(Some(StatusCode::SERVICE_UNAVAILABLE), b""), "503 Service Unavailable");
        let server = |body: &[u8]| page_message(Some(StatusCode::INTERNAL_SERVER_ERROR), body);
        assert_eq!(server(b"boom"), "500 Internal Server Error: boom");
        assert_eq!(server(b"Internal Server Error"), "500 Internal Server Error");
    }
}
