//! Maps rejections and failed calls to HTTP statuses and OpenAI error bodies.
//!
//! Upstream auth failures become 502, not 401: the client's key is valid. Retryable failures carry `Retry-After`.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::response::{Body, json_response as json_reply};
use crate::{
    engine::CallOutcome,
    model::ErrorClass,
    protocol::{CallError, error::truncate_message, openai::server::ParseError},
};

/// A request that was rejected before any upstream request.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) kind: RejectionKind,
}

/// Reason of a rejection.
#[derive(Debug)]
pub(super) enum RejectionKind {
    MissingKey,
    UnknownKey,
    /// The client key may not use the model.
    ModelNotAllowed {
        name: String,
        model: String,
    },
    ConcurrencyLimit {
        name: String,
        limit: u32,
    },
    RateLimit {
        name: String,
        limit: u32,
        wait: Duration,
    },
    SpendLimit {
        name: String,
        limit: String,
    },
    /// The client key may not read `/metrics` and `/status`.
    MetricsNotAllowed {
        name: String,
    },
    /// The client key has a spend limit, and the price of the model is unknown.
    PriceUnknown {
        name: String,
        model: String,
    },
    /// The `Host` does not name this machine.
    HostNotAllowed(String),
    /// The `Origin` is not in `cors`.
    OriginNotAllowed(String),
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// The body has an unsupported content or transfer encoding.
    UnsupportedEncoding(String),
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended early.
    IncompleteBody,
    /// The body is not a valid request.
    InvalidRequest(ParseError),
    /// No model or route has this name.
    UnknownModel {
        name: String,
        hint: String,
    },
    /// No route matches the path.
    UnknownPath {
        path: String,
    },
    MethodNotAllowed {
        path: String,
    },
    /// The memory limit of large bodies is reached.
    TooManyLargeBodies,
    ShuttingDown,
}

impl Rejection {
    pub(super) fn new(kind: RejectionKind) -> Self {
        Self { kind }
    }

    /// Status, `error.code` and `error.type`; those of OpenAI where it has them.
    fn error_parts(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        let invalid = "invalid_request_error";
        match &self.kind {
            RejectionKind::MissingKey | RejectionKind::UnknownKey => {
                (S::UNAUTHORIZED, "invalid_api_key", "authentication_error")
            }
            RejectionKind::ModelNotAllowed { .. } | RejectionKind::PriceUnknown { .. } => {
                (S::FORBIDDEN, "model_not_allowed", "permission_error")
            }
            RejectionKind::MetricsNotAllowed { .. } => (S::FORBIDDEN, "figures_not_allowed", "permission_error"),
            RejectionKind::HostNotAllowed(_) => (S::FORBIDDEN, "host_not_allowed", "permission_error"),
            RejectionKind::OriginNotAllowed(_) => (S::FORBIDDEN, "origin_not_allowed", "permission_error"),
            RejectionKind::ConcurrencyLimit { .. } => {
                (S::TOO_MANY_REQUESTS, "concurrency_limit_exceeded", "rate_limit_error")
            }
            RejectionKind::RateLimit { .. } => (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", "rate_limit_error"),
            RejectionKind::SpendLimit { .. } => (S::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota"),
            RejectionKind::BodyTooLarge(_) => (S::PAYLOAD_TOO_LARGE, "request_too_large", invalid),
            RejectionKind::UnsupportedEncoding(_) => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", invalid),
            RejectionKind::BodyTimeout => (S::REQUEST_TIMEOUT, "request_timeout", invalid),
            RejectionKind::IncompleteBody => (S::BAD_REQUEST, "incomplete_body", invalid),
            RejectionKind::InvalidRequest(_) => (S::BAD_REQUEST, "invalid_request", invalid),
            RejectionKind::UnknownModel { .. } => (S::NOT_FOUND, "model_not_found", invalid),
            RejectionKind::UnknownPath { .. } => (S::NOT_FOUND, "unknown_url", invalid),
            RejectionKind::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", invalid),
            RejectionKind::TooManyLargeBodies => (S::SERVICE_UNAVAILABLE, "too_many_large_bodies", "server_error"),
            RejectionKind::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "server_error"),
        }
    }

    /// `error.code`, also used as the class in the log and the metrics.
    pub(super) fn code(&self) -> &'static str {
        self.error_parts().1
    }

    fn message(&self) -> String {
        match &self.kind {
            RejectionKind::MissingKey => "missing client key: send `Authorization: Bearer KEY`".into(),
            RejectionKind::UnknownKey => "unknown client key".into(),
            RejectionKind::ModelNotAllowed { name, model } => {
                format!(
                    "client key \"{name}\" may not use \"{}\"; GET /v1/models lists what it may use",
                    truncate_message(model)
                )
            }
            RejectionKind::MetricsNotAllowed { name } => format!(
                "client key \"{name}\" may not read metrics or status; set metrics = true under [serve.keys.{name}]"
            ),
            RejectionKind::PriceUnknown { name, model } => {
                format!("client key \"{name}\" has a spend limit, and \"{}\" has no price", truncate_message(model))
            }
            RejectionKind::ConcurrencyLimit { name, limit: most } => {
                format!("client key \"{name}\" has reached its limit of {most} concurrent request(s)")
            }
            RejectionKind::RateLimit { name, limit: most, .. } => {
                format!("client key \"{name}\" has reached its limit of {most} request(s) per minute")
            }
            RejectionKind::SpendLimit { name, limit: most } => {
                format!("client key \"{name}\" has reached its spend limit of {most} per day")
            }
            RejectionKind::HostNotAllowed(host) => {
                format!("host \"{}\" is not allowed; add it to hosts under [serve]", truncate_message(host))
            }
            RejectionKind::OriginNotAllowed(origin) => {
                format!("origin \"{}\" is not allowed; add it to cors under [serve]", truncate_message(origin))
            }
            RejectionKind::BodyTooLarge(most) => {
                format!("the body is larger than {} MB; raise max_body_mb under [serve]", most / 1024 / 1024)
            }
            RejectionKind::UnsupportedEncoding(how) => {
                format!("unsupported body encoding \"{}\"; send the body unencoded", truncate_message(how))
            }
            RejectionKind::BodyTimeout => "timed out waiting for the request body".into(),
            RejectionKind::IncompleteBody => "the request body is incomplete".into(),
            RejectionKind::InvalidRequest(refusal) => refusal.message.clone(),
            RejectionKind::UnknownModel { name, hint } => {
                format!("unknown model \"{}\": {hint}", truncate_message(name))
            }
            RejectionKind::UnknownPath { path } => format!("unknown path \"{}\"", truncate_message(path)),
            RejectionKind::MethodNotAllowed { path } => {
                format!("method not allowed for \"{}\"", truncate_message(path))
            }
            RejectionKind::TooManyLargeBodies => "too many large request bodies at once".into(),
            RejectionKind::ShuttingDown => "the server is shutting down".into(),
        }
    }

    /// `Retry-After`, if a retry can succeed.
    fn retry_after(&self) -> Option<Duration> {
        match &self.kind {
            RejectionKind::ConcurrencyLimit { .. } | RejectionKind::TooManyLargeBodies => Some(Duration::from_secs(1)),
            RejectionKind::RateLimit { wait, .. } => Some(*wait),
            RejectionKind::ShuttingDown => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    pub(super) fn to_response(&self, request_id: &str) -> Response<Body> {
        let param = if let RejectionKind::InvalidRequest(refusal) = &self.kind { refusal.param } else { None };
        let (status, code, kind) = self.error_parts();
        let body = json!({"error": {
            "message": self.message(),
            "type": kind,
            "param": param,
            "code": code,
            "mmchat": {"request_id": request_id, "attempts": []},
        }});
        let mut response = json_reply(status, &body);
        insert_request_id(&mut response, request_id);
        let retry_after = self.retry_after();
        if let Some(retry_after) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after_value(retry_after));
        } else {
            // The same request would be rejected again.
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let RejectionKind::MissingKey | RejectionKind::UnknownKey = self.kind {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The unread rest of the body would be parsed as the next request.
        if let RejectionKind::BodyTooLarge(_)
        | RejectionKind::UnsupportedEncoding(_)
        | RejectionKind::TooManyLargeBodies
        | RejectionKind::BodyTimeout
        | RejectionKind::IncompleteBody = self.kind
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Adds the request ID headers.
pub(super) fn insert_request_id(response: &mut Response<Body>, request_id: &str) {
    let id = HeaderValue::try_from(request_id).expect("a request ID consists of hexadecimal digits");
    for name in ["x-mmchat-request-id", "x-request-id"] {
        response.headers_mut().insert(name, id.clone());
    }
}

/// Response status of a failed call.
pub(super) fn response_status(outcome: &CallOutcome, error: &CallError) -> StatusCode {
    use ErrorClass as C;
    let upstream_or = |default: StatusCode, range: std::ops::RangeInclusive<u16>| {
        error
            .status
            .filter(|status| range.contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(default)
    };
    if outcome.deadline_passed {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    match error.class {
        C::Request => match upstream_or(StatusCode::BAD_REQUEST, 400..=422) {
            // These would refer to the client key or a path of this server.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => StatusCode::BAD_REQUEST,
            status => status,
        },
        C::Context | C::Filter => StatusCode::BAD_REQUEST,
        C::Model => StatusCode::NOT_FOUND,
        C::Rate | C::Spend => StatusCode::TOO_MANY_REQUESTS,
        C::Overloaded | C::NoChannel | C::LocalLimit => StatusCode::SERVICE_UNAVAILABLE,
        C::Timeout | C::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        C::Auth
        | C::Forbidden
        | C::Quota
        | C::Connect
        | C::Reset
        | C::Server
        | C::Path
        | C::Conflict
        | C::Redirect
        | C::InvalidResponse
        | C::InStream
        | C::Incomplete
        | C::InvalidChunk => StatusCode::BAD_GATEWAY,
    }
}

/// `error.type`, as OpenAI names it.
fn error_type(class: ErrorClass) -> &'static str {
    use ErrorClass as C;
    match class {
        C::Request | C::Context | C::Filter | C::Model => "invalid_request_error",
        C::Rate => "rate_limit_error",
        C::Spend => "insufficient_quota",
        C::Overloaded | C::NoChannel | C::LocalLimit => "overloaded_error",
        C::Timeout | C::GatewayTimeout => "timeout_error",
        _ => "upstream_error",
    }
}

/// `error.code`: the endpoint's own code for errors that the client caused, otherwise ours.
fn error_code(error: &CallError) -> &str {
    use ErrorClass as C;
    match (error.class, &error.code) {
        (C::Context, _) => "context_length_exceeded",
        (C::Model, _) => "model_not_found",
        (C::Rate, _) => "rate_limit_exceeded",
        (C::Request | C::Filter, Some(code)) => code,
        (class, _) => class.as_str(),
    }
}

/// Errors about this server's own API keys and accounts; the endpoint's messages about them are not sent to clients.
fn is_server_credential_error(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Auth | ErrorClass::Forbidden | ErrorClass::Quota)
}

fn server_credential_message(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Quota => "the quota of this server's account at the endpoint is exhausted",
        ErrorClass::Forbidden => "the endpoint does not allow this request with this server's API key",
        _ => "the endpoint rejected this server's API key",
    }
}

/// Error body of a failed call, sent as the response or as the last event of a stream.
pub(super) fn error_body(request_id: &str, outcome: &CallOutcome, error: &CallError) -> Value {
    let message =
        if is_server_credential_error(error.class) { server_credential_message(error.class) } else { &error.message };
    let attempts = outcome.attempts.iter().map(|attempt| {
        let mut entry = attempt.to_json();
        if attempt.class().is_some_and(is_server_credential_error) {
            entry["message"] = Value::Null;
        }
        entry
    });
    json!({"error": {
        "message": message,
        "type": error_type(error.class),
        "param": error.param,
        "code": error_code(error),
        "mmchat": {
            "class": error.class.as_str(),
            "request_id": request_id,
            "attempts": attempts.collect::<Vec<_>>(),
        },
    }})
}

/// Error response of a failed call.
pub(super) fn error_response(request_id: &str, outcome: &CallOutcome, error: &CallError) -> Response<Body> {
    let status = response_status(outcome, error);
    let mut response = json_reply(status, &error_body(request_id, outcome, error));
    // All candidates were tried already; a retry by the client would repeat them.
    response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = status
        && error.class != ErrorClass::Spend
    {
        let retry_after = shortest_retry_after(outcome, error).unwrap_or(Duration::from_secs(1));
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_value(retry_after));
    }
    response
}

/// Shortest `Retry-After` of the tried candidates.
fn shortest_retry_after(outcome: &CallOutcome, error: &CallError) -> Option<Duration> {
    let errors = outcome.attempts.iter().filter_map(|attempt| attempt.error.as_ref()).chain([error]);
    let now = Timestamp::now();
    errors.filter_map(|error| Some(error.retry_after.as_ref()?.delay_from(now))).min()
}

/// Rounds up to whole seconds, at least 1, so that a client does not retry too early.
fn retry_after_value(wait: Duration) -> HeaderValue {
    let rounded = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(rounded.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{RetryAfter, RetryWhen};

    fn outcome(error: &CallError) -> CallOutcome {
        CallOutcome {
            result: Err(error.clone()),
            incomplete: false,
            stopped: false,
            deadline_passed: false,
            target: None,
            attempts: Vec::new(),
            ttft: None,
            first_output: None,
            total: Duration::ZERO,
            output_duration: Duration::ZERO,
        }
    }

    #[test]
    fn upstream_failures_are_never_401_403_or_success() {
        for &class in ErrorClass::ALL {
            let error = CallError { status: Some(401), ..CallError::new(class, "no") };
            let status = response_status(&outcome(&error), &error);
            assert!(status.is_client_error() || status.is_server_error(), "{class:?}: {status}");
            assert!(!matches!(status.as_u16(), 401 | 403), "{class:?}: {status}");
        }
    }

    #[test]
    fn retryable_failures_have_retry_after() {
        let retry_after = |class, wait: Option<u64>| {
            let when = |wait| RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_millis(wait)) };
            let error = CallError { retry_after: wait.map(when), ..CallError::new(class, "no") };
            let response = error_response("id", &outcome(&error), &error);
            assert_eq!(response.headers()["x-should-retry"], "false");
            response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("ASCII header").to_owned())
        };
        assert_eq!(retry_after(ErrorClass::Rate, Some(1500)).as_deref(), Some("2"));
        assert_eq!(retry_after(ErrorClass::Overloaded, None).as_deref(), Some("1"));
        assert_eq!(retry_after(ErrorClass::Server, Some(1500)), None);
    }
}
