//! Defines the error of a call for all protocols, and maps status, code and message to an [`ErrorClass`].

use std::{error::Error, fmt, sync::Arc};

use http::{HeaderMap, StatusCode};

use super::{error_phrases as phrases, numbers::without_separators, retry_after::RetryAfter};
use crate::model::{
    ErrorClass,
    sanitize::{one_line, truncate_chars},
};

/// Maximum length of a service's message when shown, in characters.
const MAX_MESSAGE_CHARS: usize = 280;
/// Maximum length of a service's code, field or ID, in characters.
const MAX_CODE_CHARS: usize = 128;
/// Maximum number of words between "model" and what is said of it: its name, and words such as "is currently".
const MAX_NAME_WORDS: usize = 6;

/// A balance that pays for fewer tokens is used up.
const MIN_AFFORDABLE_TOKENS: u64 = 256;

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
    /// It is the last error of the service, for a request that was not sent.
    pub remembered: bool,
    /// The cause is a part of this request, such as its tools or its length: the same key and model may accept others.
    pub request_specific: bool,
    /// The headers of the response; without values that quote a secret.
    pub headers: Option<Arc<HeaderMap>>,
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
            remembered: false,
            request_specific: false,
            headers: None,
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
    /// Whether the body is a page or empty, and no error in words.
    pub is_page: bool,
}

/// Maps an error to its class. Where status and text disagree, the text of the body wins, since gateways forward errors
/// under a status of their own.
#[must_use]
pub fn classify(signals: ErrorSignals<'_>) -> Option<ErrorClass> {
    use ErrorClass as C;
    let text = ErrorText::new(signals);
    let status = signals.status.or_else(|| status_from_code(&text.code));
    Some(match status {
        Some(401) if text.is_quota() => C::Quota,
        Some(401) => C::Auth,
        Some(402) => C::Quota,
        Some(403) => text.forbidden_class(signals.is_page),
        Some(404 | 405 | 410) if text.contains(phrases::MODEL) => C::Model,
        Some(404 | 410) if signals.is_page || text.is_path() => C::Path,
        Some(404 | 410) => C::Model,
        Some(405) => C::Path,
        Some(408 | 504 | 524) => C::GatewayTimeout,
        Some(409 | 425) => C::Conflict,
        Some(413) => text.named_class().unwrap_or(C::TooLarge),
        Some(424) => C::Server,
        Some(429) => match text.named_class() {
            Some(class @ (C::Quota | C::Auth | C::Overloaded)) => class,
            _ => C::Rate,
        },
        Some(503) if text.contains(phrases::CHANNEL) || text.code.contains("model_not_found") => C::NoChannel,
        Some(500..=599) if text.contains(phrases::OVERLOADED) => C::Overloaded,
        Some(503 | 529) => text.server_class().unwrap_or(C::Overloaded),
        Some(500..=599) => text.server_class().unwrap_or(C::Server),
        Some(300..=399) => C::Redirect,
        Some(400..=499) => text.named_class().unwrap_or(C::Request),
        None => return text.named_class(),
        _ => return None,
    })
}

/// Whether the text of an error blames a part of this request, whatever its class is.
#[must_use]
pub fn is_request_specific(message: &str) -> bool {
    let message = message.to_lowercase();
    let is_named = phrases::REQUEST_SPECIFIC.iter().any(|phrase| message.contains(phrase));
    is_named && affordable_tokens(&message).is_none_or(|tokens| tokens >= MIN_AFFORDABLE_TOKENS)
}

/// The tokens that the rest of a balance pays for, if the message names them.
fn affordable_tokens(message: &str) -> Option<u64> {
    let (_, after) = message.split_once(phrases::AFFORDABLE)?;
    without_separators(after).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The text of an error in lowercase.
#[derive(Clone)]
struct ErrorText {
    code: String,
    message: String,
    has_retry_after: bool,
}

impl ErrorText {
    fn new(signals: ErrorSignals<'_>) -> Self {
        Self {
            code: signals.code.to_lowercase(),
            message: signals.message.to_lowercase(),
            has_retry_after: signals.retry_after,
        }
    }

    fn contains(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.code.contains(phrase) || self.message.contains(phrase))
    }

    /// The class that the text names, whatever the status.
    fn named_class(&self) -> Option<ErrorClass> {
        use ErrorClass as C;
        let named = [
            (C::Context, self.is_context()),
            (C::Filter, self.contains(phrases::FILTER)),
            (C::Quota, self.is_quota()),
            (C::Rate, self.contains(phrases::RATE)),
            (C::Auth, self.contains(phrases::KEY)),
            (C::Forbidden, self.contains(phrases::FORBIDDEN)),
            (C::Model, self.is_model()),
            (C::TooLarge, self.contains(phrases::TOO_LARGE)),
            (C::Overloaded, self.contains(phrases::OVERLOADED)),
        ];
        named.into_iter().find_map(|(class, is_named)| is_named.then_some(class))
    }

    /// The class that a 5xx names. Its message may be that of another server, and says little; a code is meant for programs.
    fn server_class(&self) -> Option<ErrorClass> {
        let by_code = Self { message: String::new(), ..self.clone() };
        let of_request =
            [(ErrorClass::Context, self.is_context()), (ErrorClass::Filter, self.contains(phrases::FILTER))];
        let named = of_request.into_iter().find(|(_, is_named)| *is_named);
        named.map(|(class, _)| class).or_else(|| by_code.named_class())
    }

    fn is_context(&self) -> bool {
        let is_length_exceeded = || phrases::CONTEXT_LENGTH.iter().all(|part| self.message.contains(part));
        self.contains(phrases::CONTEXT) || is_length_exceeded()
    }

    /// The class of a 403, which may be about the key, the account, the model or one prompt.
    fn forbidden_class(&self, is_page: bool) -> ErrorClass {
        use ErrorClass as C;
        match self.named_class() {
            // Another key may have access to the model.
            Some(C::Model) => C::Forbidden,
            Some(class) => class,
            None if is_page || self.contains(phrases::BLOCKED) => C::Blocked,
            None if self.contains(phrases::UNSUPPORTED) => C::Request,
            None => C::Forbidden,
        }
    }

    /// A quota with a Retry-After, or for a minute or a day, is a rate limit.
    fn is_quota(&self) -> bool {
        let is_rate = || self.has_retry_after || self.contains(phrases::RATE);
        self.contains(phrases::QUOTA) || (self.contains(phrases::QUOTA_OR_RATE) && !is_rate())
    }

    fn is_model(&self) -> bool {
        self.contains(phrases::MODEL) || phrases::MISSING.iter().any(|phrase| self.is_missing_model(phrase))
    }

    /// Whether the message says of a model that it is missing, as in "the model `m` does not exist". A parameter or a tool may
    /// be missing, too: between the word and the phrase, there is only a name.
    fn is_missing_model(&self, phrase: &str) -> bool {
        let of_model = |(at, _): (usize, &str)| {
            let before = &self.message[..at];
            let subject = ["model", "模型"].iter().filter_map(|word| Some(before.rfind(word)? + word.len())).max();
            subject.is_some_and(|start| {
                let between = &before[start..];
                let is_other = phrases::OTHER_SUBJECTS.iter().any(|subject| between.contains(subject));
                between.split_whitespace().count() <= MAX_NAME_WORDS && !is_other
            })
        };
        self.message.match_indices(phrase).any(of_model)
    }

    fn is_path(&self) -> bool {
        let is_bare = matches!(self.message.trim().trim_end_matches('.'), "" | "not found" | "404 not found");
        is_bare || phrases::PATH.iter().any(|phrase| self.message.contains(phrase))
    }
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

/// A service's text as one line, truncated to a length that fits a terminal.
#[must_use]
pub fn truncate_message(text: &str) -> String {
    truncate_chars(&one_line(text), MAX_MESSAGE_CHARS)
}

/// A code, a name of a field or an ID of a service as one line; real ones are shorter.
#[must_use]
pub fn truncate_code(text: &str) -> String {
    truncate_chars(&one_line(text), MAX_CODE_CHARS)
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
        classify(ErrorSignals { status: Some(status), code, message, ..ErrorSignals::default() })
            .expect("an error status has a class")
    }

    #[test]
    fn status_code_and_message_map_to_class() {
        use ErrorClass as C;
        let cases = [
            (401, "", "", C::Auth),
            (429, "exceeded_current_quota_error", "the account is suspended", C::Quota),
            (403, "NOT_ENOUGH_BALANCE", "", C::Quota),
            (403, "", "RPM limit reached", C::Rate),
            (400, "", "Total tokens of image and text exceed max message tokens", C::Context),
            (400, "", "This model's maximum prompt length is 131072 but the request has 140000 tokens", C::Context),
            (400, "", "The decoder prompt (length 9000) is longer than the maximum model length of 8192", C::Context),
            (400, "sensitive_words_detected", "", C::Filter),
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
            (413, "", "too large", C::TooLarge),
        ];
        for (status, code, message, want) in cases {
            assert_eq!(class(status, code, message), want, "{status} {code} {message}");
        }
    }

    #[test]
    fn balance_that_pays_for_few_tokens_is_used_up() {
        for (tokens, is_specific) in [("0.", false), ("12.", false), ("10114.", true), ("10,114.", true)] {
            let message = format!("You requested up to 65536 tokens, but can only afford {tokens} To increase, visit");
            assert_eq!(is_request_specific(&message), is_specific, "{tokens}");
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

    #[test]
    fn error_about_a_part_of_the_request_or_of_another_server_is_not_about_the_model() {
        for (status, message, want) in [
            (400, "Function calling is not available for this model", ErrorClass::Request),
            (400, "temperature is no longer supported for this model", ErrorClass::Request),
            (400, "tool \"search\" not found in tools for model", ErrorClass::Request),
            (400, "模型 glm-4 的参数 tools 不存在", ErrorClass::Request),
            (400, "model m: parameter seed does not exist", ErrorClass::Request),
            (400, "The model `m` does not exist", ErrorClass::Model),
            (400, "模型 glm-9 不存在，请检查", ErrorClass::Model),
            (503, "The model is currently not available. Please try again later.", ErrorClass::Overloaded),
            (502, "invalid authorization header from upstream", ErrorClass::Server),
            (500, "token expired", ErrorClass::Server),
            (500, "concurrency error in worker", ErrorClass::Server),
            (405, "Method Not Allowed", ErrorClass::Path),
            (404, "Resource not found", ErrorClass::Path),
            (404, "Route POST:/chat/completions not found", ErrorClass::Path),
        ] {
            assert_eq!(class(status, "", message), want, "{status} {message}");
        }
    }
}
