//! Maps a rejected request, which fails before any upstream request, to the status and error body of its response.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    model::plural,
    protocol::{error::truncate_message, openai::server::ParseError},
};

/// Why a request was rejected before any upstream request.
#[derive(Debug)]
pub(super) enum Rejection {
    MissingKey,
    UnknownKey,
    /// The client key may not use the model.
    ModelNotAllowed {
        client: String,
        model: String,
    },
    ConcurrencyLimit {
        client: String,
        limit: u32,
    },
    RateLimit {
        client: String,
        limit: u32,
        wait: Duration,
    },
    SpendLimit {
        client: String,
        limit: String,
    },
    /// The client key may not read `/metrics` and `/status`.
    MetricsNotAllowed {
        client: String,
    },
    /// The client key has a spend limit, and the price of the model is unknown.
    PriceUnknown {
        client: String,
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
        model: String,
        hint: String,
    },
    /// No route matches the path.
    UnknownPath {
        path: String,
    },
    MethodNotAllowed {
        path: String,
    },
    /// The memory for requests and answers is used up.
    MemoryFull,
    /// The address of the client has as many connections as it may have.
    TooManyConnections {
        max: usize,
    },
    ShuttingDown,
}

impl Rejection {
    /// Status, `error.code` and `error.type`; those of OpenAI where it has them.
    fn error_parts(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        let invalid = "invalid_request_error";
        match self {
            Self::MissingKey | Self::UnknownKey => (S::UNAUTHORIZED, "invalid_api_key", "authentication_error"),
            Self::ModelNotAllowed { .. } | Self::PriceUnknown { .. } => {
                (S::FORBIDDEN, "model_not_allowed", "permission_error")
            }
            Self::MetricsNotAllowed { .. } => (S::FORBIDDEN, "metrics_not_allowed", "permission_error"),
            Self::HostNotAllowed(_) => (S::FORBIDDEN, "host_not_allowed", "permission_error"),
            Self::OriginNotAllowed(_) => (S::FORBIDDEN, "origin_not_allowed", "permission_error"),
            Self::ConcurrencyLimit { .. } => (S::TOO_MANY_REQUESTS, "concurrency_limit_exceeded", "rate_limit_error"),
            Self::RateLimit { .. } => (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", "rate_limit_error"),
            Self::SpendLimit { .. } => (S::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota"),
            Self::BodyTooLarge(_) => (S::PAYLOAD_TOO_LARGE, "request_too_large", invalid),
            Self::UnsupportedEncoding(_) => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", invalid),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "request_timeout", invalid),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete_body", invalid),
            Self::InvalidRequest(_) => (S::BAD_REQUEST, "invalid_request", invalid),
            Self::UnknownModel { .. } => (S::NOT_FOUND, "model_not_found", invalid),
            Self::UnknownPath { .. } => (S::NOT_FOUND, "unknown_url", invalid),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", invalid),
            Self::TooManyConnections { .. } => (S::TOO_MANY_REQUESTS, "too_many_connections", "rate_limit_error"),
            Self::MemoryFull => (S::SERVICE_UNAVAILABLE, "memory_full", "server_error"),
            Self::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "server_error"),
        }
    }

    /// `error.code`, also used as the class in the log and the metrics.
    pub(super) fn code(&self) -> &'static str {
        self.error_parts().1
    }

    fn message(&self) -> String {
        match self {
            Self::MissingKey => "missing client key: send `Authorization: Bearer KEY`".into(),
            Self::UnknownKey => "unknown client key".into(),
            Self::ModelNotAllowed { client, model } => {
                format!(
                    "client key \"{client}\" may not use \"{}\"; GET /v1/models lists the models it may use",
                    truncate_message(model)
                )
            }
            Self::MetricsNotAllowed { client } => format!(
                "client key \"{client}\" may not read metrics or status; set metrics = true under [serve.keys.{client}]"
            ),
            Self::PriceUnknown { client, model } => {
                format!("client key \"{client}\" has a spend limit, and \"{}\" has no price", truncate_message(model))
            }
            Self::ConcurrencyLimit { client, limit } => {
                format!(
                    "client key \"{client}\" has reached its limit of {}",
                    plural(*limit as usize, "concurrent request")
                )
            }
            Self::RateLimit { client, limit, .. } => {
                format!(
                    "client key \"{client}\" has reached its limit of {} per minute",
                    plural(*limit as usize, "request")
                )
            }
            Self::SpendLimit { client, limit } => {
                format!("client key \"{client}\" has reached its spend limit of {limit} per day")
            }
            Self::HostNotAllowed(host) => {
                format!("host \"{}\" is not allowed; add it to hosts under [serve]", truncate_message(host))
            }
            Self::OriginNotAllowed(origin) => {
                format!("origin \"{}\" is not allowed; add it to cors under [serve]", truncate_message(origin))
            }
            Self::BodyTooLarge(max_bytes) => {
                format!("the body is larger than {} MiB; raise max_body_mb under [serve]", max_bytes / 1024 / 1024)
            }
            Self::UnsupportedEncoding(encoding) => {
                format!("unsupported body encoding \"{}\"; send the body unencoded", truncate_message(encoding))
            }
            Self::BodyTimeout => "timed out waiting for the request body".into(),
            Self::IncompleteBody => "the request body is incomplete".into(),
            Self::InvalidRequest(error) => error.message.clone(),
            Self::UnknownModel { model, hint } => {
                format!("unknown model \"{}\": {hint}", truncate_message(model))
            }
            Self::UnknownPath { path } => {
                format!("unknown path \"{}\"; the base URL of this server ends in /v1", truncate_message(path))
            }
            Self::MethodNotAllowed { path } => format!(
                "method not allowed for \"{}\"; use POST for requests to a model, and GET otherwise",
                truncate_message(path)
            ),
            Self::MemoryFull => "the memory for requests and answers is used up; raise memory_mb under [serve]".into(),
            Self::TooManyConnections { max } => {
                format!("this address has {}, and may have no more", plural(*max, "connection"))
            }
            Self::ShuttingDown => "the server is shutting down".into(),
        }
    }

    /// `Retry-After`, if a retry can succeed.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ConcurrencyLimit { .. } | Self::TooManyConnections { .. } | Self::MemoryFull => {
                Some(Duration::from_secs(1))
            }
            Self::RateLimit { wait, .. } => Some(*wait),
            Self::ShuttingDown => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// Whether only the transfer of the request failed, so that the same one may be accepted.
    pub(super) fn is_of_transfer(&self) -> bool {
        matches!(self, Self::BodyTimeout | Self::IncompleteBody)
    }

    /// `error.param`: the field of the request that is invalid.
    fn param(&self) -> Option<&'static str> {
        if let Self::InvalidRequest(error) = self { error.param } else { None }
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

    /// The names in the message that the client or the config has chosen.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::ModelNotAllowed { client, model } | Self::PriceUnknown { client, model } => vec![client, model],
            Self::ConcurrencyLimit { client, .. }
            | Self::RateLimit { client, .. }
            | Self::SpendLimit { client, .. }
            | Self::MetricsNotAllowed { client } => vec![client],
            // The hint may suggest a name.
            Self::UnknownModel { model, hint } => vec![model, hint],
            _ => Vec::new(),
        }
    }

    /// The status of the response.
    pub(super) fn status(&self) -> StatusCode {
        self.error_parts().0
    }

    /// Whether the client is not authenticated.
    pub(super) fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::MissingKey | Self::UnknownKey)
    }

    /// Whether the connection is closed: the unread rest of the body would be parsed as the next request.
    pub(super) fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge(_)
                | Self::UnsupportedEncoding(_)
                | Self::MemoryFull
                | Self::BodyTimeout
                | Self::IncompleteBody
        )
    }
}
