//! The OpenAI chat completions format, as OpenAI documents it and as everybody else speaks it.
//!
//! Owns the [`Protocol`] implementation; its parts are `encode` (requests), `wire` (the shape of a chunk), `decode`
//! (frames to deltas), `opaque` (what is only passed on), `usage`, `error` and `models`. Refuses sockets, clocks and vendors' names: what differs by
//! vendor is read off the reply or set in the config.

use bytes::Bytes;
use http::{
    HeaderValue, Method,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE},
};
use url::Url;

use super::{ApiError, Decoder, EncodeError, ModelList, Protocol, ResponseHead, ServerKind};
use crate::model::{
    Adjustment, Call, ChatRequest, ProtocolId, Service,
    api_key::{ApiKey, masked_url},
    target::{DecodeOptions, Target},
};

mod choice;
mod decode;
mod encode;
mod error;
mod models;
mod opaque;
pub mod server;
mod usage;
mod wire;

/// The protocol called `openai`.
#[derive(Clone, Copy, Debug)]
pub struct OpenAiChat;

/// The name of this protocol.
pub const ID: ProtocolId = ProtocolId("openai");

impl Protocol for OpenAiChat {
    fn id(&self) -> ProtocolId {
        ID
    }

    fn encode(&self, target: &Target, key: Option<&ApiKey>, call: &Call) -> Result<http::Request<Bytes>, EncodeError> {
        match call {
            Call::Chat(chat) => {
                let body = encode::body(target, chat)?;
                let accept = if chat.stream { "text/event-stream" } else { "application/json" };
                let url = target.endpoint.url("chat/completions");
                request(target, key, &url, &Method::POST, accept, body)
            }
            Call::Opaque(opaque) => {
                let body = encode::opaque(target, opaque)?;
                let accept = if opaque.stream { "text/event-stream" } else { "application/json" };
                let url = target.endpoint.url(opaque::path(opaque.service));
                request(target, key, &url, &Method::POST, accept, body)
            }
        }
    }

    fn decoder(&self, call: &Call, options: &DecodeOptions, head: &ResponseHead) -> Box<dyn Decoder> {
        let server = ServerKind::of(&head.headers);
        match call {
            // A completion's choices have their text where a chat's have a message; all else is the same.
            Call::Opaque(opaque) if opaque.service != Service::Completions => {
                Box::new(opaque::OpaqueDecoder::new(server))
            }
            Call::Chat(_) | Call::Opaque(_) => Box::new(decode::ChatDecoder::new(*options, server)),
        }
    }

    fn error(&self, head: &ResponseHead, body: &[u8]) -> ApiError {
        error::of_reply(head, body)
    }

    fn list_models(
        &self,
        target: &Target,
        key: Option<&ApiKey>,
        after: Option<&str>,
    ) -> Result<http::Request<Bytes>, EncodeError> {
        let mut url = target.endpoint.url("models");
        if let Some(after) = after {
            // The word of OpenAI's lists, and Anthropic's.
            url.query_pairs_mut().append_pair("after", after).append_pair("after_id", after);
        }
        request(target, key, &url, &Method::GET, "application/json", Bytes::new())
    }

    fn parse_models(&self, body: &[u8]) -> Result<ModelList, ApiError> {
        models::parse(body)
    }

    fn adjust(&self, error: &ApiError, target: &Target, chat: &ChatRequest) -> Option<Adjustment> {
        encode::adjustment(error, target, chat)
    }
}

fn request(
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
    builder.body(body).map_err(|source| EncodeError::Request { url: masked_url(url), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::target::testing::target;

    #[test]
    fn the_key_goes_into_the_header_and_nowhere_else() {
        let key = ApiKey::new("sk-very-secret");
        let call = Call::Chat(ChatRequest { stream: true, ..ChatRequest::default() });
        let request = OpenAiChat.encode(&target("a"), Some(&key), &call).expect("encodes");
        assert_eq!(request.uri(), "https://a.example.com/v1/chat/completions");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer sk-very-secret");
        assert!(!format!("{request:?}").contains("very-secret"));
    }

    #[test]
    fn a_key_with_a_line_break_is_refused_by_name() {
        let key = ApiKey::new("sk-a\nsk-b");
        let error = OpenAiChat.list_models(&target("a"), Some(&key), None).expect_err("no header can hold it");
        assert!(error.to_string().contains("a-endpoint") && !error.to_string().contains("sk-b"));
    }
}
