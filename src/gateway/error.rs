//! What a client is told when it gets no answer.
//!
//! Owns the status of every failure, in the shape that clients of OpenAI know, and whether trying again makes sense. The
//! status is the truth about this server: an upstream that refuses our key is a bad gateway and no refused client, and what
//! may be tried again later says when. Refuses to decide what failed.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::reply::{Body, json as json_reply};
use crate::{
    engine::LaneOutcome,
    model::ErrorClass,
    protocol::{ApiError, error::shortened, openai::server::Refusal},
};

/// A request that was refused before anybody was asked.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
}

/// Why.
#[derive(Debug)]
pub(super) enum Why {
    NoKey,
    WrongKey,
    /// The key may not use this.
    NotAllowed {
        name: String,
        model: String,
    },
    TooMany {
        name: String,
        most: u32,
    },
    TooOften {
        name: String,
        most: u32,
        wait: Duration,
    },
    Spent {
        name: String,
        most: String,
    },
    /// The key may not read figures.
    NoFigures {
        name: String,
    },
    /// The key has a limit of what may be spent, and nobody knows what this costs.
    NoPrice {
        name: String,
        model: String,
    },
    /// The host of the address is none of ours.
    Host(String),
    /// A web page that is not allowed to.
    Origin(String),
    TooLarge(usize),
    /// It is packed in a way that is not read.
    Encoded(String),
    /// The body did not come.
    Slow,
    Broken,
    Body(Refusal),
    /// Nothing is called so.
    UnknownModel {
        name: String,
        hint: String,
    },
    /// There is no such address here.
    UnknownPath {
        path: String,
    },
    Method {
        path: String,
    },
    /// All that are being read or asked take more room than there is.
    Full,
    Draining,
}

impl Refused {
    pub(super) fn new(why: Why) -> Self {
        Self { why }
    }

    /// The status, the code and the type, as OpenAI has them where it has them.
    fn shape(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        let invalid = "invalid_request_error";
        match &self.why {
            Why::NoKey | Why::WrongKey => (S::UNAUTHORIZED, "invalid_api_key", "authentication_error"),
            Why::NotAllowed { .. } | Why::NoPrice { .. } => (S::FORBIDDEN, "model_not_allowed", "permission_error"),
            Why::NoFigures { .. } => (S::FORBIDDEN, "figures_not_allowed", "permission_error"),
            Why::Host(_) => (S::FORBIDDEN, "host_not_allowed", "permission_error"),
            Why::Origin(_) => (S::FORBIDDEN, "origin_not_allowed", "permission_error"),
            Why::TooMany { .. } => (S::TOO_MANY_REQUESTS, "concurrency_limit_exceeded", "rate_limit_error"),
            Why::TooOften { .. } => (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", "rate_limit_error"),
            Why::Spent { .. } => (S::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota"),
            Why::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, "request_too_large", invalid),
            Why::Encoded(_) => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", invalid),
            Why::Slow => (S::REQUEST_TIMEOUT, "request_timeout", invalid),
            Why::Broken => (S::BAD_REQUEST, "incomplete_body", invalid),
            Why::Body(_) => (S::BAD_REQUEST, "invalid_request", invalid),
            Why::UnknownModel { .. } => (S::NOT_FOUND, "model_not_found", invalid),
            Why::UnknownPath { .. } => (S::NOT_FOUND, "unknown_url", invalid),
            Why::Method { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed", invalid),
            Why::Full => (S::SERVICE_UNAVAILABLE, "too_many_large_bodies", "server_error"),
            Why::Draining => (S::SERVICE_UNAVAILABLE, "shutting_down", "server_error"),
        }
    }

    /// The word for it in the log and the figures.
    pub(super) fn code(&self) -> &'static str {
        self.shape().1
    }

    fn message(&self) -> String {
        match &self.why {
            Why::NoKey => "this server wants a key: send it as `Authorization: Bearer …`".into(),
            Why::WrongKey => "the key is none of this server's".into(),
            Why::NotAllowed { name, model } => {
                format!("the key {name} may not use `{}`; GET /v1/models lists what it may", shortened(model))
            }
            Why::NoFigures { name } => format!("the key {name} may not read figures; `metrics = true` would let it"),
            Why::NoPrice { name, model } => {
                format!("the key {name} has a limit of what it may spend, and `{}` has no price", shortened(model))
            }
            Why::TooMany { name, most } => format!("the key {name} may have {most} request(s) under way at once"),
            Why::TooOften { name, most, .. } => format!("the key {name} may make {most} request(s) a minute"),
            Why::Spent { name, most } => format!("the key {name} may spend {most} a day, and has"),
            Why::Host(host) => {
                format!("this server is not called `{}`; add it to `hosts` under [serve]", shortened(host))
            }
            Why::Origin(origin) => {
                format!("web pages of `{}` may not use this server; add it to `cors` under [serve]", shortened(origin))
            }
            Why::TooLarge(most) => {
                format!("the body is larger than {} MB; raise max_body_mb under [serve]", most / 1024 / 1024)
            }
            Why::Encoded(how) => format!("the body is encoded as `{}`; send it as it is", shortened(how)),
            Why::Slow => "the body did not come in time".into(),
            Why::Broken => "the body broke off".into(),
            Why::Body(refusal) => refusal.message.clone(),
            Why::UnknownModel { name, hint } => format!("nothing is called `{}`: {hint}", shortened(name)),
            Why::UnknownPath { path } => format!("there is nothing at {}", shortened(path)),
            Why::Method { path } => format!("{} does not take this method", shortened(path)),
            Why::Full => "too many large bodies are under way at once".into(),
            Why::Draining => "this server is being stopped".into(),
        }
    }

    /// When to come back, where coming back helps.
    fn retry_after(&self) -> Option<Duration> {
        match &self.why {
            Why::TooMany { .. } | Why::Full => Some(Duration::from_secs(1)),
            Why::TooOften { wait, .. } => Some(*wait),
            Why::Draining => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    pub(super) fn reply(&self, request_id: &str) -> Response<Body> {
        let param = if let Why::Body(refusal) = &self.why { refusal.param } else { None };
        let (status, code, kind) = self.shape();
        let body = json!({"error": {
            "message": self.message(),
            "type": kind,
            "param": param,
            "code": code,
            "mmchat": {"request_id": request_id, "attempts": []},
        }});
        let mut reply = json_reply(status, &body);
        named(&mut reply, request_id);
        let after = self.retry_after();
        if let Some(after) = after {
            reply.headers_mut().insert(header::RETRY_AFTER, seconds(after));
        } else {
            // Who is refused for what it is will be refused again.
            reply.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if let Why::NoKey | Why::WrongKey = self.why {
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What is left of a body that is not read would be taken for the next request.
        if let Why::TooLarge(_) | Why::Encoded(_) | Why::Full | Why::Slow | Why::Broken = self.why {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

/// Says which request it was.
pub(super) fn named(reply: &mut Response<Body>, request_id: &str) {
    let id = HeaderValue::try_from(request_id).expect("hexadecimal digits");
    for name in ["x-mmchat-request-id", "x-request-id"] {
        reply.headers_mut().insert(name, id.clone());
    }
}

/// The status for a lane that gave no answer.
pub(super) fn status_of(outcome: &LaneOutcome, error: &ApiError) -> StatusCode {
    use ErrorClass as C;
    let own = |usual: StatusCode, range: std::ops::RangeInclusive<u16>| {
        error
            .status
            .filter(|status| range.contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(usual)
    };
    if outcome.deadline_passed {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    match error.class {
        C::Request => match own(StatusCode::BAD_REQUEST, 400..=422) {
            // Those mean something else here.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => StatusCode::BAD_REQUEST,
            status => status,
        },
        C::Context | C::Filter => StatusCode::BAD_REQUEST,
        C::Model => StatusCode::NOT_FOUND,
        C::Rate | C::Spend => StatusCode::TOO_MANY_REQUESTS,
        C::Overloaded | C::NoChannel | C::Local => StatusCode::SERVICE_UNAVAILABLE,
        C::Silent | C::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        C::Auth
        | C::Forbidden
        | C::Quota
        | C::Connect
        | C::Reset
        | C::Server
        | C::Path
        | C::Conflict
        | C::Redirect
        | C::Garbage
        | C::InStream
        | C::Cut
        | C::Garbled => StatusCode::BAD_GATEWAY,
    }
}

/// What OpenAI's clients call it.
fn kind_of(class: ErrorClass) -> &'static str {
    use ErrorClass as C;
    match class {
        C::Request | C::Context | C::Filter | C::Model => "invalid_request_error",
        C::Rate => "rate_limit_error",
        C::Spend => "insufficient_quota",
        C::Overloaded | C::NoChannel | C::Local => "overloaded_error",
        C::Silent | C::GatewayTimeout => "timeout_error",
        _ => "upstream_error",
    }
}

/// The code, where a client may look for one: the service's own for what the client did, else ours.
fn code_of(error: &ApiError) -> &str {
    use ErrorClass as C;
    match (error.class, &error.code) {
        (C::Context, _) => "context_length_exceeded",
        (C::Model, _) => "model_not_found",
        (C::Rate, _) => "rate_limit_exceeded",
        (C::Request | C::Filter, Some(code)) => code,
        (class, _) => class.as_str(),
    }
}

/// What services say of the keys and accounts of this server is no affair of its clients.
fn is_ours(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Auth | ErrorClass::Forbidden | ErrorClass::Quota)
}

fn ours(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Quota => "the account of this server at the service has nothing left",
        ErrorClass::Forbidden => "the key of this server may not do this at the service",
        _ => "the key of this server is refused by the service",
    }
}

/// The body that tells of a lane that gave no answer, whole or as the last event of a stream.
pub(super) fn body(request_id: &str, outcome: &LaneOutcome, error: &ApiError) -> Value {
    let message = if is_ours(error.class) { ours(error.class) } else { &error.message };
    let attempts = outcome.attempts.iter().map(|attempt| {
        let mut facts = attempt.facts();
        if attempt.class().is_some_and(is_ours) {
            facts["message"] = Value::Null;
        }
        facts
    });
    json!({"error": {
        "message": message,
        "type": kind_of(error.class),
        "param": error.param,
        "code": code_of(error),
        "mmchat": {
            "class": error.class.as_str(),
            "request_id": request_id,
            "attempts": attempts.collect::<Vec<_>>(),
        },
    }})
}

/// The reply that tells of a lane that gave no answer.
pub(super) fn reply(request_id: &str, outcome: &LaneOutcome, error: &ApiError) -> Response<Body> {
    let status = status_of(outcome, error);
    let mut reply = json_reply(status, &body(request_id, outcome, error));
    // Everything that could be tried was: a client that tries again does the same once more.
    reply.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = status
        && error.class != ErrorClass::Spend
    {
        let after = soonest(outcome, error).unwrap_or(Duration::from_secs(1));
        reply.headers_mut().insert(header::RETRY_AFTER, seconds(after));
    }
    reply
}

/// When the first of those that were asked may be asked again.
fn soonest(outcome: &LaneOutcome, error: &ApiError) -> Option<Duration> {
    let errors = outcome.attempts.iter().filter_map(|attempt| attempt.error.as_ref()).chain([error]);
    let now = Timestamp::now();
    errors.filter_map(|error| Some(error.retry_after.as_ref()?.from(now))).min()
}

/// Whole seconds, and at least one: sooner would be too soon.
fn seconds(wait: Duration) -> HeaderValue {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{RetryAfter, RetryWhen};

    fn outcome(error: &ApiError) -> LaneOutcome {
        LaneOutcome {
            result: Err(error.clone()),
            cut: false,
            stopped: false,
            deadline_passed: false,
            target: None,
            attempts: Vec::new(),
            ttft: None,
            first: None,
            total: Duration::ZERO,
            generating: Duration::ZERO,
        }
    }

    #[test]
    fn no_failure_of_an_upstream_blames_the_client_or_looks_like_an_answer() {
        for class in ErrorClass::ALL {
            let error = ApiError { status: Some(401), ..ApiError::new(class, "no") };
            let status = status_of(&outcome(&error), &error);
            assert!(status.is_client_error() || status.is_server_error(), "{class:?}: {status}");
            assert!(!matches!(status.as_u16(), 401 | 403), "{class:?}: {status}");
        }
    }

    #[test]
    fn whoever_may_come_back_is_told_when() {
        let after = |class, wait: Option<u64>| {
            let when = |wait| RetryAfter { raw: String::new(), when: RetryWhen::After(Duration::from_millis(wait)) };
            let error = ApiError { retry_after: wait.map(when), ..ApiError::new(class, "no") };
            let reply = reply("id", &outcome(&error), &error);
            assert_eq!(reply.headers()["x-should-retry"], "false");
            reply.headers().get(header::RETRY_AFTER).map(|value| value.to_str().expect("text").to_owned())
        };
        assert_eq!(after(ErrorClass::Rate, Some(1500)).as_deref(), Some("2"));
        assert_eq!(after(ErrorClass::Overloaded, None).as_deref(), Some("1"));
        assert_eq!(after(ErrorClass::Server, Some(1500)), None);
    }
}
