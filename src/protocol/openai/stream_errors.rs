//! Errors inside a response with a success status. Their class depends on the output before them.

use bytes::Bytes;
use serde_json::Value;

use super::error::{OwnWords, hint, parse_error};
use crate::{
    model::ErrorClass,
    protocol::{
        CallError, ServerKind,
        error::{classify, is_request_specific, truncate_code},
    },
};

/// The most advanced output so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutputSeen {
    Nothing,
    /// Reasoning, which can be discarded.
    Reasoning,
    /// Part of the answer.
    Answer,
}

/// Makes the errors inside a response with a success status.
#[derive(Debug)]
pub(super) struct StreamErrors {
    /// The software of the server.
    pub(super) server: ServerKind,
    /// The output before the error.
    pub(super) output_seen: OutputSeen,
    /// The body of the request, which an error before the output may quote.
    sent: Bytes,
}

impl StreamErrors {
    pub(super) fn new(server: ServerKind, sent: Bytes) -> Self {
        Self { server, output_seen: OutputSeen::Nothing, sent }
    }

    /// Records output. A later error affects no key and no model by its words, so the request is not needed any more.
    pub(super) fn record_output(&mut self, output: OutputSeen) {
        if self.output_seen == OutputSeen::Nothing {
            self.sent = Bytes::new();
        }
        self.output_seen = self.output_seen.max(output);
    }

    /// The error in this body.
    pub(super) fn error(&self, json: &Value) -> CallError {
        let error = parse_error(json);
        let own_words = OwnWords::new(&error, &self.sent);
        let error_class = classify(own_words.signals(error.status, error.retry_after.is_some()));
        let error_class = error_class.unwrap_or(ErrorClass::InStream);
        // An error after output makes the answer incomplete. But before any answer text, an error caused by the request
        // itself keeps its class, so that the request is not sent to the next candidate.
        let is_request_error = matches!(error_class, ErrorClass::Filter | ErrorClass::Context | ErrorClass::Request);
        let class = match self.output_seen {
            OutputSeen::Nothing => error_class,
            OutputSeen::Reasoning if is_request_error => error_class,
            OutputSeen::Reasoning | OutputSeen::Answer => ErrorClass::Incomplete,
        };
        let message =
            if error.message.is_empty() { "the service reported an error without a message" } else { &error.message };
        CallError {
            status: Some(200),
            code: error.code.as_deref().map(truncate_code),
            hint: hint(class, &error.message),
            param: error.param.as_deref().map(truncate_code),
            retry_after: error.retry_after,
            request_id: error.request_id.as_deref().map(truncate_code),
            server: self.server,
            request_specific: is_request_specific(&own_words.message),
            ..CallError::new(class, message)
        }
    }
}
