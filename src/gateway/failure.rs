//! Maps a failed call to the HTTP status and the OpenAI error body of its response.
//!
//! Upstream auth failures become 502, not 401: the client's key is valid.

use http::StatusCode;
use serde_json::{Value, json};

use super::status_numbers;

use crate::{engine::CallRecord, model::ErrorClass, protocol::CallError, transport::keys::KeyError};

/// Response status of a failed call.
pub(super) fn response_status(record: &CallRecord, error: &CallError) -> StatusCode {
    use ErrorClass as C;
    let upstream_or = |default: StatusCode, range: std::ops::RangeInclusive<u16>| {
        error
            .status
            .filter(|status| range.contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(default)
    };
    if record.deadline_passed {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    match error.class {
        C::Request => match upstream_or(StatusCode::BAD_REQUEST, 400..=422) {
            // These statuses would tell the client that its own key or its URL is wrong.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => StatusCode::BAD_REQUEST,
            status => status,
        },
        C::Context | C::Filter => StatusCode::BAD_REQUEST,
        C::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        C::Model => StatusCode::NOT_FOUND,
        C::Rate | C::Spend => StatusCode::TOO_MANY_REQUESTS,
        C::Overloaded | C::NoChannel | C::LocalLimit => StatusCode::SERVICE_UNAVAILABLE,
        C::Timeout | C::GatewayTimeout => StatusCode::GATEWAY_TIMEOUT,
        C::Auth
        | C::Forbidden
        | C::Blocked
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
pub(super) fn error_type(class: ErrorClass) -> &'static str {
    use ErrorClass as C;
    match class {
        C::Request | C::Context | C::TooLarge | C::Filter | C::Model => "invalid_request_error",
        C::Rate => "rate_limit_error",
        C::Spend => "insufficient_quota",
        C::Overloaded | C::NoChannel | C::LocalLimit => "overloaded_error",
        C::Timeout | C::GatewayTimeout => "timeout_error",
        _ => "upstream_error",
    }
}

/// `error.code`: the endpoint's own code for errors that the client caused, otherwise ours.
pub(super) fn error_code(error: &CallError) -> &str {
    use ErrorClass as C;
    match (error.class, &error.code) {
        (C::Context, _) => "context_length_exceeded",
        (C::Model, _) => "model_not_found",
        (C::Rate, _) => "rate_limit_exceeded",
        (C::Request | C::Filter, Some(code)) => code,
        (class, _) => class.as_str(),
    }
}

/// Whether the error is about this server's own API key or account. The endpoint's message about it is not sent to
/// clients.
fn is_server_credential_error(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Auth | ErrorClass::Forbidden | ErrorClass::Quota)
}

fn server_credential_message(error: &CallError) -> &'static str {
    match error.class {
        ErrorClass::Quota => "the quota of this server's account at the service is exhausted",
        ErrorClass::Forbidden => "the service does not allow this request with this server's API key",
        _ if error.cause::<KeyError>().is_some() => "this server could not read its API key for the service",
        _ => "the service rejected this server's API key",
    }
}

/// Error body of a failed call, sent as the response or as the last event of a stream.
pub(super) fn error_body(request_id: &str, record: &CallRecord, error: &CallError) -> Value {
    let message =
        if is_server_credential_error(error.class) { server_credential_message(error) } else { &error.message };
    let attempts = record.attempts.iter().map(|attempt| {
        let mut entry = attempt.to_json();
        if attempt.class().is_some_and(is_server_credential_error) {
            entry["message"] = Value::Null;
        }
        entry
    });
    let mut body = json!({"error": {
        "message": message,
        "type": error_type(error.class),
        "param": error.param,
        "code": error_code(error),
        "mmchat": {
            "class": error.class.as_str(),
            "request_id": request_id,
            "remembered": error.remembered,
            "attempts": attempts.collect::<Vec<_>>(),
        },
    }});
    if is_permanent(error.class) {
        let targets = record.attempts.iter().map(|attempt| &attempt.target);
        let names = targets.flat_map(|target| [&*target.id.0, &*target.upstream_id, &*target.endpoint.name]);
        let names: Vec<&str> = names.chain([record.requested.as_str()]).collect();
        status_numbers::remove(&mut body, &names);
    }
    body
}

/// Whether the same request fails again at once, so that the client should not retry it.
pub(super) fn is_permanent(class: ErrorClass) -> bool {
    use ErrorClass as C;
    matches!(
        class,
        C::Request
            | C::Context
            | C::TooLarge
            | C::Filter
            | C::Auth
            | C::Forbidden
            | C::Blocked
            | C::Quota
            | C::Model
            | C::Path
            | C::Redirect
            | C::Spend
    )
}

/// The record of a call that failed with `error`.
#[cfg(test)]
pub(super) fn failed_record(error: &CallError) -> CallRecord {
    CallRecord::new("m", Err(error.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_failures_are_never_401_403_or_success() {
        for &class in ErrorClass::ALL {
            let error = CallError { status: Some(401), ..CallError::new(class, "no") };
            let status = response_status(&failed_record(&error), &error);
            assert!(status.is_client_error() || status.is_server_error(), "{class:?}: {status}");
            assert!(!matches!(status.as_u16(), 401 | 403), "{class:?}: {status}");
        }
    }
}
