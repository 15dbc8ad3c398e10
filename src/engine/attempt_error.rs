//! The errors that an attempt itself causes: limits, timeouts, redirects, and those of the layers below as errors of a call.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    engine::{credentials::Credentials, memory::MemoryFull},
    model::ErrorClass,
    protocol::{CallError, EncodeError, ResponseHead, RetryAfter},
    transport::{TransportError, TransportErrorKind},
};

/// The error of an answer that is larger than `max_bytes`.
pub(crate) fn answer_size_error(max_bytes: usize) -> CallError {
    let message = format!("the answer is longer than {} MiB", max_bytes / 1024 / 1024);
    let hint = Some("raise max_answer_mb in the config".to_owned());
    CallError { hint, ..CallError::new(ErrorClass::Incomplete, message) }
}

/// Converts the error of an answer for which no memory is left. The request is not repeated, which would need more.
pub(crate) fn memory_error(full: MemoryFull) -> CallError {
    CallError {
        should_retry: Some(false),
        retry_after: Some(RetryAfter::after(Duration::from_secs(1))),
        hint: Some("raise memory_mb under [serve]".to_owned()),
        ..CallError::from_source(ErrorClass::LocalLimit, full)
    }
}

/// Converts the error of a request that cannot be encoded.
pub(crate) fn encode_error(error: EncodeError) -> CallError {
    let class = match error {
        EncodeError::Key { .. } => ErrorClass::Auth,
        EncodeError::Body(_) => ErrorClass::Request,
        EncodeError::Request { .. } => ErrorClass::LocalLimit,
    };
    CallError::from_source(class, error)
}

/// Masks secrets in every text of `error`: services quote them in codes, ids and headers, too.
pub(crate) fn mask_error(error: CallError, credentials: &Credentials) -> CallError {
    let mask = |text: Option<String>| text.map(|text| credentials.masked_in(&text));
    CallError {
        message: credentials.masked_in(&error.message),
        code: mask(error.code),
        param: mask(error.param),
        hint: mask(error.hint),
        request_id: mask(error.request_id),
        headers: error.headers.map(|headers| without_secrets(headers, credentials)),
        source: error.source.map(|source| source.masked(|text| credentials.masked_in(text))),
        retry_after: error.retry_after.map(|after| RetryAfter { raw: credentials.masked_in(&after.raw), ..after }),
        ..error
    }
}

/// The headers whose values quote no secret.
pub(super) fn without_secrets(headers: Arc<HeaderMap>, credentials: &Credentials) -> Arc<HeaderMap> {
    let is_clean = |(_, value): &(&HeaderName, &HeaderValue)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        credentials.masked_in(&text) == text
    };
    if headers.iter().all(|header| is_clean(&header)) {
        return headers;
    }
    Arc::new(headers.iter().filter(is_clean).map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The error of an attempt that waited for this long without output.
pub(super) fn timeout_error(waited: Duration) -> CallError {
    CallError::new(ErrorClass::Timeout, format!("no answer within {:.1} s", waited.as_secs_f64()))
}

/// Adds to the error of a redirect where it leads, and what to do.
pub(super) fn redirect_error(error: CallError, head: &ResponseHead) -> CallError {
    let location = head.header("location").and_then(|location| url::Url::parse(location).ok());
    let location = location.map(|url| crate::model::api_key::redact_url(&url));
    let hint = match location {
        Some(_) => "if you trust that address, set it as base_url",
        None => "the service named no address; check base_url",
    };
    let (status, location) = (head.status, location.as_deref().unwrap_or("another address"));
    CallError {
        message: format!("{status}: redirect to {location} not followed; the prompt was not sent there"),
        hint: Some(hint.into()),
        ..error
    }
}

/// Converts a transport error to the error of a call.
pub(crate) fn transport_error(error: TransportError, after_output: bool) -> CallError {
    let class = match error.kind {
        _ if after_output => ErrorClass::Incomplete,
        TransportErrorKind::Refused
        | TransportErrorKind::Dns
        | TransportErrorKind::Tls
        | TransportErrorKind::Connect => ErrorClass::Connect,
        TransportErrorKind::Reset => ErrorClass::Reset,
        TransportErrorKind::Malformed => ErrorClass::InvalidResponse,
        TransportErrorKind::Local => ErrorClass::LocalLimit,
    };
    // A retry helps after a short failure, but not with an unknown host name or an invalid certificate.
    let should_retry = matches!(error.kind, TransportErrorKind::Dns | TransportErrorKind::Tls).then_some(false);
    CallError { should_retry, ..CallError::from_source(class, error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::api_key::ApiKey;

    #[test]
    fn cause_that_quotes_a_secret_is_masked() {
        let credentials = Credentials { key: Some(ApiKey::new("sk-the-key")), ..Credentials::default() };
        let cause = |text: &str| {
            let error = transport_error(TransportError::new(TransportErrorKind::Reset, text), false);
            mask_error(error, &credentials).source.expect("a cause")
        };
        let masked = cause("bad header sk-the-key");
        assert!(!format!("{masked} {masked:?}").contains("sk-the-key"), "{masked:?}");
        assert!(cause("connection reset").downcast_ref::<TransportError>().is_some(), "nothing to mask");
    }
}
