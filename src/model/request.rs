//! Requests to a model, independent of any wire format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Image, estimate::tokens, image};

/// Name of a wire format, as in `protocol = "…"`, such as `openai`. It must be one that this crate supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolId(pub &'static str);

impl std::fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// One request to a model.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all requests are chats, and requests are shared behind `Arc`")]
pub enum ModelRequest {
    /// A chat request; its response is decoded into deltas.
    Chat(ChatRequest),
    /// Any other request; passed through.
    Opaque(OpaqueRequest),
}

/// A request that is passed through; only the model name and parameters from the config are changed.
#[derive(Clone, Debug)]
pub struct OpaqueRequest {
    /// Requested operation.
    pub operation: Operation,
    /// Body sent by the client.
    pub raw_request: RawRequest,
    /// Whether a streamed response is requested.
    pub stream: bool,
    /// Number of requested choices of a text completion: `n` for each prompt.
    pub choice_count: Option<u64>,
    /// Changes for a model that refuses a part of the request.
    pub workarounds: Vec<ParamWorkaround>,
}

/// Operations other than chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Operation {
    /// Text completion (legacy API).
    Completions,
    /// Embedding vectors for texts.
    Embeddings,
    /// Ranking documents by relevance.
    Rerank,
    /// Image generation.
    Images,
}

impl ModelRequest {
    /// Estimated number of prompt tokens.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        match self {
            Self::Chat(chat) => chat.estimated_tokens(),
            // The body of an opaque request is not parsed.
            Self::Opaque(_) => 0,
        }
    }

    /// The chat request, if it is one.
    #[must_use]
    pub fn as_chat(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat(chat) => Some(chat),
            Self::Opaque(_) => None,
        }
    }

    /// The chat request, if it is one, for modification.
    pub fn as_chat_mut(&mut self) -> Option<&mut ChatRequest> {
        match self {
            Self::Chat(chat) => Some(chat),
            Self::Opaque(_) => None,
        }
    }

    /// Body sent by the client, if any.
    #[must_use]
    pub fn raw_request(&self) -> Option<&RawRequest> {
        match self {
            Self::Chat(chat) => chat.raw_request.as_ref(),
            Self::Opaque(opaque) => Some(&opaque.raw_request),
        }
    }

    /// The length of that body in bytes; about the length of the request that is sent.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.raw_request().map_or(0, |raw| raw.body.len())
    }

    /// Whether a streamed response is requested, after the changes for the model.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.is_streaming(),
            Self::Opaque(opaque) => opaque.stream,
        }
    }

    /// The changes for the model.
    #[must_use]
    pub fn workarounds(&self) -> &[ParamWorkaround] {
        match self {
            Self::Chat(chat) => &chat.workarounds,
            Self::Opaque(opaque) => &opaque.workarounds,
        }
    }

    /// Adds changes for the model.
    pub fn add_workarounds(&mut self, workarounds: impl IntoIterator<Item = ParamWorkaround>) {
        match self {
            Self::Chat(chat) => chat.workarounds.extend(workarounds),
            Self::Opaque(opaque) => opaque.workarounds.extend(workarounds),
        }
    }

    /// The operation, unless it is a chat.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Chat(_) => None,
            Self::Opaque(opaque) => Some(opaque.operation),
        }
    }

    /// Whether processing it twice has an effect beyond the cost of an answer: it makes images or audio, is stored by the
    /// service, or uses tools that the service runs.
    #[must_use]
    pub fn is_unsafe_to_repeat(&self) -> bool {
        match self {
            Self::Chat(chat) => {
                chat.summary().map_or_else(|| chat.params.is_unsafe_to_repeat(), |summary| summary.is_unsafe_to_repeat)
            }
            Self::Opaque(opaque) => opaque.raw_request.summary.is_unsafe_to_repeat,
        }
    }

    /// Whether the request needs a model with image input.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.as_chat().is_some_and(ChatRequest::has_images)
    }

    /// Whether the request needs a model with tool calling.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        let Some(chat) = self.as_chat() else { return false };
        let has_tools = || chat.params.extra.get("tools").is_some_and(|tools| !tools.is_null());
        chat.summary().map_or_else(has_tools, |summary| summary.has_tools)
    }

    /// Maximum number of answer tokens, if the request sets it.
    #[must_use]
    pub fn max_tokens(&self) -> Option<u64> {
        self.as_chat()?.params.max_output_tokens()
    }

    /// Number of requested choices, if the request sets it.
    #[must_use]
    pub fn choice_count(&self) -> Option<u64> {
        match self {
            Self::Chat(chat) => chat.params.choice_count(),
            Self::Opaque(opaque) => opaque.choice_count,
        }
    }

    /// Limits the answer to `max_tokens`, in addition to any limit in the parameters.
    pub fn set_budget_max_tokens(&mut self, max_tokens: u64) {
        if let Some(chat) = self.as_chat_mut() {
            chat.budget_max_tokens = Some(max_tokens);
        }
    }

    /// Key for session affinity: `prompt_cache_key` or `user` if the client set one, otherwise the first system and
    /// user messages.
    #[must_use]
    pub fn affinity_key(&self) -> String {
        let chat = match self {
            Self::Chat(chat) => chat,
            Self::Opaque(opaque) => return opaque.raw_request.summary.affinity_key.clone(),
        };
        if let Some(summary) = chat.summary() {
            return summary.affinity_key.clone();
        }
        let key = ["prompt_cache_key", "user"].into_iter().find_map(|name| chat.params.extra.get(name)?.as_str());
        if let Some(key) = key {
            return key.to_owned();
        }
        let first_message = |role| chat.messages.iter().find(|message| message.role == role);
        let parts = [Role::System, Role::User].into_iter().filter_map(first_message).flat_map(|message| &message.parts);
        let texts = parts.filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\0")
    }
}

/// Messages of a conversation and the parameters for generating the next one.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// Messages, oldest first; empty if there is a `raw_request`.
    pub messages: Vec<Message>,
    /// Parameters of this request; they override those of the model.
    pub params: Params,
    /// Whether a streamed response is requested.
    pub stream: bool,
    /// Body sent by the client, kept so that unknown fields reach the upstream unchanged.
    pub raw_request: Option<RawRequest>,
    /// Changes for a model that refuses a part of the request.
    pub workarounds: Vec<ParamWorkaround>,
    /// Maximum number of answer tokens that `--max-cost` allows, sent under the field name that the service accepts.
    pub budget_max_tokens: Option<u64>,
}

impl ChatRequest {
    /// Whether a streamed response is requested, after the changes for the model.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        let changed = self.workarounds.iter().rev().find_map(|workaround| match workaround {
            ParamWorkaround::Stream(stream) => Some(*stream),
            _ => None,
        });
        changed.unwrap_or(self.stream)
    }

    /// The summary of the body that a client sent.
    fn summary(&self) -> Option<&RequestSummary> {
        self.raw_request.as_ref().map(|raw_request| &raw_request.summary)
    }

    /// Estimated number of tokens of the messages.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        if let Some(summary) = self.summary() {
            return summary.estimated_tokens;
        }
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts
            .map(|part| match part {
                Part::Text(text) => tokens(text),
                Part::Image(_) => image::ESTIMATED_TOKENS,
            })
            .sum()
    }

    /// Whether a message contains an image.
    #[must_use]
    pub fn has_images(&self) -> bool {
        if let Some(summary) = self.summary() {
            return summary.has_images;
        }
        self.messages.iter().flat_map(|message| &message.parts).any(|part| matches!(part, Part::Image(_)))
    }
}

/// Unmodified body sent by a client, and its protocol.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Protocol of `body`.
    pub protocol: ProtocolId,
    /// Unmodified bytes.
    pub body: Bytes,
    /// What routing needs to know of the body, which is not kept in parsed form.
    pub summary: RequestSummary,
    /// Fields of the body that are not sent, because they choose models or addresses that the client may not use.
    pub removed_fields: Vec<String>,
}

/// What routing needs to know of the body of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSummary {
    /// Estimated number of prompt tokens.
    pub estimated_tokens: u64,
    /// Whether a message contains an image.
    pub has_images: bool,
    /// Whether the request has tools.
    pub has_tools: bool,
    /// Whether processing it twice has an effect beyond the cost of an answer.
    pub is_unsafe_to_repeat: bool,
    /// Whether the client asks for a stream without usage.
    pub declines_usage: bool,
    /// What related requests have in common.
    pub affinity_key: String,
}

/// Author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// System prompt.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool the model called.
    Tool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Author.
    pub role: Role,
    /// Content parts, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// Creates a message with one text part.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())] }
    }

    /// All text parts, separated by blank lines.
    #[must_use]
    pub fn joined_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\n\n")
    }
}

/// Content part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// An image.
    Image(Image),
}

/// Generation parameters. Unset parameters are never sent, so that strict services do not receive fields that the user
/// did not choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling probability mass.
    pub top_p: Option<f64>,
    /// Maximum number of answer tokens.
    pub max_tokens: Option<u64>,
    /// Seed for reproducible sampling, if the service supports it.
    pub seed: Option<i64>,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// Reasoning effort; the values are those of the service.
    pub reasoning_effort: Option<String>,
    /// Other parameters, sent unchanged.
    pub extra: Map<String, Value>,
}

/// Field names for the maximum number of answer tokens; newer models require the second.
pub const MAX_TOKENS_FIELDS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

impl Params {
    /// Maximum number of answer tokens: the smallest value of `max_tokens` and `max_completion_tokens`.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<u64> {
        let extra_limits = MAX_TOKENS_FIELDS.into_iter().filter_map(|name| self.extra.get(name)?.as_u64());
        extra_limits.chain(self.max_tokens).min()
    }

    /// Number of requested choices (`n`).
    #[must_use]
    pub fn choice_count(&self) -> Option<u64> {
        self.extra.get("n").and_then(Value::as_u64).filter(|&count| count > 0)
    }

    fn is_unsafe_to_repeat(&self) -> bool {
        let list = |name: &str| self.extra.get(name).and_then(Value::as_array).into_iter().flatten();
        let is_set =
            |name: &str| self.extra.get(name).is_some_and(|value| !value.is_null() && *value != Value::Bool(false));
        let is_run_by_client = |tool: &Value| {
            tool.get("type").and_then(Value::as_str).is_none_or(|kind| matches!(kind, "function" | "custom"))
        };
        is_set("store")
            || is_set("web_search_options")
            || list("modalities").any(|modality| modality != "text")
            || list("tools").any(|tool| !is_run_by_client(tool))
    }

    /// Returns these parameters with the set values of `overrides` replacing them.
    #[must_use]
    pub fn with_overrides(mut self, overrides: Self) -> Self {
        self.extra.extend(overrides.extra);
        Self {
            temperature: overrides.temperature.or(self.temperature),
            top_p: overrides.top_p.or(self.top_p),
            max_tokens: overrides.max_tokens.or(self.max_tokens),
            seed: overrides.seed.or(self.seed),
            stop: if overrides.stop.is_empty() { self.stop } else { overrides.stop },
            reasoning_effort: overrides.reasoning_effort.or(self.reasoning_effort),
            extra: self.extra,
        }
    }
}

/// Change to a request for a model that refuses a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParamWorkaround {
    /// Send the field under another name (from, to).
    Rename(String, String),
    /// Do not send the field.
    Omit(String),
    /// Limit the answer to this number of tokens.
    MaxTokens(u64),
    /// Ask for a stream, or for one object.
    Stream(bool),
    /// Send the system prompt in this way.
    System(SystemRole),
}

/// How the system prompt is sent.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SystemRole {
    /// With the role `system`.
    System,
    /// With the role `developer`.
    Developer,
    /// At the start of the first message of the user.
    Fold,
}

impl std::fmt::Display for ParamWorkaround {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rename(from, to) => write!(f, "renamed `{from}` to `{to}`"),
            Self::Omit(name) => write!(f, "omitted `{name}`"),
            Self::MaxTokens(max_tokens) => write!(f, "limited the answer to {max_tokens} tokens"),
            Self::Stream(true) => f.write_str("asked for a stream"),
            Self::Stream(false) => f.write_str("asked for an answer without a stream"),
            Self::System(SystemRole::Fold) => f.write_str("moved the system prompt into the first message"),
            Self::System(SystemRole::Developer) => f.write_str("sent the system prompt as `developer`"),
            Self::System(SystemRole::System) => f.write_str("sent the system prompt as `system`"),
        }
    }
}
