//! What went wrong, as a service tells it: one shape for all protocols.
//!
//! Owns [`ApiError`] and how a status and words become an [`ErrorClass`]. Refuses to decide what follows from a class.

use http::{HeaderMap, StatusCode};

use super::retry_after::RetryAfter;
use crate::model::{ErrorClass, sanitize::one_line};

/// The longest message of a service that is shown, in characters.
const LONGEST_MESSAGE: usize = 280;

/// An error of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// What kind it is.
    pub class: ErrorClass,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// The service's own code.
    pub code: Option<String>,
    /// What it says: one line, shortened, without control characters.
    pub message: String,
    /// The parameter it complains of.
    pub param: Option<String>,
    /// When to come back.
    pub retry_after: Option<RetryAfter>,
    /// Its id of the request.
    pub request_id: Option<String>,
    /// What kind of server spoke.
    pub server: ServerKind,
    /// An explicit word on whether to try the same server again: its own (`x-should-retry`), or ours where the class
    /// alone does not tell.
    pub should_retry: Option<bool>,
    /// What the reader may do about it.
    pub hint: Option<String>,
}

impl ApiError {
    /// An error of `class` with a message and nothing else.
    pub fn new(class: ErrorClass, message: impl AsRef<str>) -> Self {
        Self {
            class,
            status: None,
            code: None,
            message: shortened(message.as_ref()),
            param: None,
            retry_after: None,
            request_id: None,
            server: ServerKind::Other,
            should_retry: None,
            hint: None,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// What kind of server answered, as far as its headers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// One-API or new-api: a gateway that forges `[DONE]` when its upstream is cut.
    OneApi,
    /// The LiteLLM proxy.
    LiteLlm,
    /// The Portkey gateway.
    Portkey,
    /// Not recognised.
    #[default]
    Other,
}

impl ServerKind {
    /// Reads it off the headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let has = |prefix: &str| headers.keys().any(|name| name.as_str().starts_with(prefix));
        if has("x-oneapi-") || has("x-new-api-") {
            Self::OneApi
        } else if has("x-litellm-") {
            Self::LiteLlm
        } else if has("x-portkey-") {
            Self::Portkey
        } else {
            Self::Other
        }
    }

    /// Whether it is a gateway, which has retried already.
    #[must_use]
    pub fn is_gateway(self) -> bool {
        matches!(self, Self::OneApi | Self::LiteLlm | Self::Portkey)
    }
}

/// What is known of an error when its class is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// The status, or the code in the body that stands for one.
    pub status: Option<u16>,
    /// The service's code and type, joined.
    pub code: &'a str,
    /// Its message.
    pub message: &'a str,
    /// Whether it says when to come back.
    pub retry_after: bool,
}

const CONTEXT_WORDS: &[&str] = &[
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
const FILTER_WORDS: &[&str] = &[
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
const QUOTA_WORDS: &[&str] = &[
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
const KEY_WORDS: &[&str] = &[
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
const CHANNEL_WORDS: &[&str] =
    &["no available channel", "no_available_channel", "model_not_found", "无可用渠道", "无可用的渠道", "no channel"];

/// The class of an error, from whatever is known of it. Where status and words disagree, the words of a service's own
/// JSON win over the status, since gateways pass errors on under statuses of their own.
#[must_use]
pub fn classify(evidence: Evidence<'_>) -> Option<ErrorClass> {
    let code = evidence.code.to_lowercase();
    let message = evidence.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| code.contains(word) || message.contains(word));
    let status = evidence.status.or_else(|| status_of_code(&code));
    // A quota that says when it is full again is a rate limit.
    let quota = says(QUOTA_WORDS) && !evidence.retry_after;

    Some(match status {
        Some(401) => ErrorClass::Auth,
        Some(402) => ErrorClass::Quota,
        Some(400 | 413 | 422 | 500..=599) | None if says(CONTEXT_WORDS) => ErrorClass::Context,
        Some(400 | 403 | 422 | 500..=502) | None if says(FILTER_WORDS) => ErrorClass::Filter,
        Some(400 | 403 | 429 | 500..=503) | None if quota => ErrorClass::Quota,
        Some(400 | 403 | 500 | 502) | None if says(KEY_WORDS) => ErrorClass::Auth,
        Some(403) => ErrorClass::Forbidden,
        Some(404 | 405) if speaks_of_model(&code, &message) => ErrorClass::Model,
        Some(404 | 405) => ErrorClass::Path,
        Some(400) if speaks_of_model(&code, &message) => ErrorClass::Model,
        Some(408 | 504 | 524) => ErrorClass::GatewayTimeout,
        Some(409 | 425) => ErrorClass::Conflict,
        Some(429) => ErrorClass::Rate,
        Some(503) if says(CHANNEL_WORDS) => ErrorClass::NoChannel,
        Some(503 | 529) => ErrorClass::Overloaded,
        Some(500..=599) if code.contains("overloaded_error") => ErrorClass::Overloaded,
        Some(500..=599) => ErrorClass::Server,
        Some(300..=399) => ErrorClass::Redirect,
        Some(400..=499) => ErrorClass::Request,
        _ => return None,
    })
}

/// Words that services use in place of a status, inside a stream.
fn status_of_code(code: &str) -> Option<u16> {
    const WORDS: &[(&str, u16)] = &[
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
    WORDS.iter().find(|(word, _)| code.contains(word)).map(|&(_, status)| status)
}

fn speaks_of_model(code: &str, message: &str) -> bool {
    const NOT_THERE: &[&str] = &["not found", "not exist", "no such model", "unknown model", "invalid model", "不存在"];
    code.contains("model_not_found")
        || code.contains("invalid_model")
        || ((message.contains("model") || message.contains("模型"))
            && NOT_THERE.iter().any(|words| message.contains(words)))
}

/// One line of a service's text, cut to a length that fits a terminal.
#[must_use]
pub fn shortened(text: &str) -> String {
    let line = one_line(text);
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What a reply without JSON says: its status and title, never the page (which may hold the reader's address).
#[must_use]
pub fn page_message(status: Option<StatusCode>, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let said = if text.starts_with('<') { title(text).unwrap_or_default() } else { text.to_owned() };
    match status {
        None => shortened(&said),
        Some(status) if said.starts_with(status.as_str()) => shortened(&said),
        Some(status) => {
            let reason = status.canonical_reason().unwrap_or_default();
            let name = format!("{} {reason}", status.as_str());
            let nothing_new = said.is_empty() || said.eq_ignore_ascii_case(reason);
            shortened(&if nothing_new { name } else { format!("{}: {said}", name.trim()) })
        }
    }
}

fn title(page: &str) -> Option<String> {
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
        classify(Evidence { status: Some(status), code, message, retry_after: false }).expect("a class")
    }

    #[test]
    fn statuses_and_words_become_classes() {
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
    fn pages_are_reduced_to_status_and_title() {
        let page = b"<html><head><TITLE>502: Bad gateway</title></head><body>Your IP: 203.0.113.9</body>";
        assert_eq!(page_message(Some(StatusCode::BAD_GATEWAY), page), "502: Bad gateway");
        assert_eq!(page_message(Some(StatusCode::SERVICE_UNAVAILABLE), b""), "503 Service Unavailable");
        let server = |body: &[u8]| page_message(Some(StatusCode::INTERNAL_SERVER_ERROR), body);
        assert_eq!(server(b"boom"), "500 Internal Server Error: boom");
        assert_eq!(server(b"Internal Server Error"), "500 Internal Server Error");
    }
}
