//! Maps a rejected request, which fails before any upstream request, to the status and error body of its response.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::protocol::{error::truncate_message, openai::server::ParseError};

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
            RejectionKind::MetricsNotAllowed { .. } => (S::FORBIDDEN, "metrics_not_allowed", "permission_error"),
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
                    "client key \"{name}\" may not use \"{}\"; GET /v1/models lists the models it may use",
                    truncate_message(model)
                )
            }
            RejectionKind::MetricsNotAllowed { name } => format!(
                "client key \"{name}\" may not read metrics or status; set metrics = true under [serve.keys.{name}]"
            ),
            RejectionKind::PriceUnknown { name, model } => {
                format!("client key \"{name}\" has a spend limit, and \"{}\" has no price", truncate_message(model))
            }
            RejectionKind::ConcurrencyLimit { name, limit } => {
                format!("client key \"{name}\" has reached its limit of {limit} concurrent request(s)")
            }
            RejectionKind::RateLimit { name, limit, .. } => {
                format!("client key \"{name}\" has reached its limit of {limit} request(s) per minute")
            }
            RejectionKind::SpendLimit { name, limit } => {
                format!("client key \"{name}\" has reached its spend limit of {limit} per day")
            }
            RejectionKind::HostNotAllowed(host) => {
                format!("host \"{}\" is not allowed; add it to hosts under [serve]", truncate_message(host))
            }
            RejectionKind::OriginNotAllowed(origin) => {
                format!("origin \"{}\" is not allowed; add it to cors under [serve]", truncate_message(origin))
            }
            RejectionKind::BodyTooLarge(max_bytes) => {
                format!("the body is larger than {} MiB; raise max_body_mb under [serve]", max_bytes / 1024 / 1024)
            }
            RejectionKind::UnsupportedEncoding(encoding) => {
                format!("unsupported body encoding \"{}\"; send the body unencoded", truncate_message(encoding))
            }
            RejectionKind::BodyTimeout => "timed out waiting for the request body".into(),
            RejectionKind::IncompleteBody => "the request body is incomplete".into(),
            RejectionKind::InvalidRequest(error) => error.message.clone(),
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
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match &self.kind {
            RejectionKind::ConcurrencyLimit { .. } | RejectionKind::TooManyLargeBodies => Some(Duration::from_secs(1)),
            RejectionKind::RateLimit { wait, .. } => Some(*wait),
            RejectionKind::ShuttingDown => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// `error.param`: the field of the request that is invalid.
    fn param(&self) -> Option<&'static str> {
        if let RejectionKind::InvalidRequest(error) = &self.kind { error.param } else { None }
    }

    /// `error` of the response, as OpenAI formats it.
    pub(super) fn error_body(&self, request_id: &str) -> Value {
        let (_, code, kind) = self.error_parts();
        json!({"error": {
            "message": self.message(),
            "type": kind,
            "param": self.param(),
            "code": code,
            "mmchat": {"request_id": request_id, "attempts": []},
        }})
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.error_parts().0
    }

    /// Whether the client is not authenticated.
    pub(super) fn is_unauthenticated(&self) -> bool {
        matches!(self.kind, RejectionKind::MissingKey | RejectionKind::UnknownKey)
    }

    /// Whether the connection is closed: the unread rest of the body would be parsed as the next request.
    pub(super) fn closes_connection(&self) -> bool {
        matches!(
            self.kind,
            RejectionKind::BodyTooLarge(_)
                | RejectionKind::UnsupportedEncoding(_)
                | RejectionKind::TooManyLargeBodies
                | RejectionKind::BodyTimeout
                | RejectionKind::IncompleteBody
        )
    }
}
