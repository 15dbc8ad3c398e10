//! Implements the OpenAI chat completions format, including the deviations of compatible services.
//!
//! `encode` writes requests, `wire` has the types of a chunk, `decode` maps frames to deltas, `opaque` decodes
//! pass-through responses, and `server` and `server_response` are the server side. Nothing depends on vendor names:
//! differences between vendors are detected from the response or set in the config.

use bytes::Bytes;
use http::{
    HeaderValue, Method,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE},
};
use url::Url;

use super::{CallError, Decoder, EncodeError, ModelList, Protocol, ResponseHead, SentRequest, ServerKind};
use crate::model::{
    ModelRequest, Operation, ParamWorkaround, ProtocolId,
    api_key::{ApiKey, redact_url},
    target::{DecodeOptions, Target},
};

mod choice;
mod content_bytes;
mod decode;
mod echo;
mod encode;
mod error;
mod known_fields;
mod models;
mod opaque;
mod prompt_count;
mod refusal;
mod request_summary;
pub mod reshape;
mod routing_fields;
pub mod server;
pub mod server_response;
mod stream_errors;
mod system_role;
mod usage;
mod wire;
mod workaround;

/// The `openai` protocol.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiChat;

/// The id of this protocol.
pub const ID: ProtocolId = ProtocolId("openai");

impl Protocol for OpenAiChat {
    fn id(&self) -> ProtocolId {
        ID
    }

    fn encode(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        request: &ModelRequest,
    ) -> Result<http::Request<Bytes>, EncodeError> {
        match request {
            ModelRequest::Chat(chat) => {
                let body = encode::encode_chat(target, chat)?;
                let accept = if chat.is_streaming() { "text/event-stream" } else { "application/json" };
                let url = target.endpoint.url("chat/completions");
                build_request(target, key, &url, &Method::POST, accept, body)
            }
            ModelRequest::Opaque(opaque) => {
                let body = encode::encode_opaque(target, opaque)?;
                let accept = if opaque.stream { "text/event-stream" } else { "application/json" };
                let url = target.endpoint.url(opaque::path(opaque.operation));
                build_request(target, key, &url, &Method::POST, accept, body)
            }
        }
    }

    fn decoder(
        &self,
        request: &ModelRequest,
        options: &DecodeOptions,
        head: &ResponseHead,
        sent: SentRequest,
    ) -> Box<dyn Decoder> {
        let errors = stream_errors::StreamErrors::new(ServerKind::from_headers(&head.headers), sent.body);
        match request {
            // Completions are decoded like chats: their choices only have a text in place of a message.
            ModelRequest::Opaque(opaque) if opaque.operation != Operation::Completions => {
                Box::new(opaque::OpaqueDecoder::new(errors))
            }
            ModelRequest::Chat(_) | ModelRequest::Opaque(_) => {
                Box::new(decode::ChatDecoder::new(*options, errors).expecting_choices(sent.choice_count))
            }
        }
    }

    fn reports_usage_at_end(&self, target: &Target, request: &ModelRequest) -> bool {
        let is_omitted = request
            .workarounds()
            .iter()
            .any(|workaround| matches!(workaround, ParamWorkaround::Omit(name) if name == encode::STREAM_OPTIONS));
        let is_asked = match request {
            ModelRequest::Chat(_) => !is_omitted,
            ModelRequest::Opaque(opaque) => opaque.operation == Operation::Completions && !is_omitted,
        };
        let is_declined = request.raw_request().is_some_and(|raw_request| raw_request.summary.declines_usage);
        is_asked && !is_declined && request.is_streaming() && !target.endpoint.no_stream_options
    }

    fn decode_error(&self, head: &ResponseHead, body: &[u8], request: &[u8]) -> CallError {
        error::from_response(head, body, request)
    }

    fn list_models(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        after: Option<&str>,
    ) -> Result<http::Request<Bytes>, EncodeError> {
        let mut url = target.endpoint.url("models");
        if let Some(after) = after {
            // `after` is OpenAI's parameter, `after_id` Anthropic's.
            url.query_pairs_mut().append_pair("after", after).append_pair("after_id", after);
        }
        build_request(target, key, &url, &Method::GET, "application/json", Bytes::new())
    }

    fn parse_models(&self, body: &[u8]) -> Result<ModelList, CallError> {
        models::parse(body)
    }

    fn workaround(&self, error: &CallError, target: &Target, request: &ModelRequest) -> Option<ParamWorkaround> {
        workaround::workaround_for(error, target, request)
    }

    fn is_general(&self, error: &CallError, workaround: &ParamWorkaround) -> bool {
        workaround::is_general(error, workaround)
    }
}

fn build_request(
    target: &Target,
    key: Option<&ApiKey>,
    url: &Url,
    method: &Method,
    accept: &str,
    body: Bytes,
) -> Result<http::Request<Bytes>, EncodeError> {
    let mut builder = http::Request::builder().method(method).uri(url.as_str()).header(ACCEPT, accept);
    if method == Method::POST {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    if target.endpoint.gzip {
        builder = builder.header(ACCEPT_ENCODING, "gzip");
    }
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| EncodeError::Key { endpoint: target.endpoint.name.clone() })?;
        value.set_sensitive(true);
        builder = builder.header(AUTHORIZATION, value);
    }
    builder.body(body).map_err(|source| EncodeError::Request { url: redact_url(url), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatRequest, target::testing::target};

    #[test]
    fn key_is_sent_in_the_authorization_header_only() {
        let key = ApiKey::new("sk-very-secret");
        let chat = ModelRequest::Chat(ChatRequest { stream: true, ..ChatRequest::default() });
        let request = OpenAiChat.encode(&target("a"), Some(&key), &chat).expect("valid request");
        assert_eq!(request.uri(), "https://a.example.com/v1/chat/completions");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer sk-very-secret");
        assert!(!format!("{request:?}").contains("very-secret"));
    }

    #[test]
    fn key_with_a_line_break_is_an_error_that_names_the_endpoint() {
        let key = ApiKey::new("sk-a\nsk-b");
        let error =
            OpenAiChat.list_models(&target("a"), Some(&key), None).expect_err("line breaks are invalid in headers");
        assert!(error.to_string().contains("a-endpoint") && !error.to_string().contains("sk-b"));
    }
}
