//! What is asked of a model. Owns the shape of a request; refuses to know how any service spells it.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::estimate::tokens;

/// The value of `protocol = "…"`: the name of one wire format. Only floor 3 knows what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolId(pub &'static str);

impl std::fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// One request to a model. Calls that are only passed through (embeddings, audio) join when something serves them.
#[derive(Clone, Debug)]
pub enum Call {
    /// A chat: decoded into deltas.
    Chat(ChatRequest),
}

impl Call {
    /// The tokens of the prompt, roughly.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        match self {
            Self::Chat(chat) => chat.estimated_tokens(),
        }
    }

    /// Whether the reply is asked for as a stream.
    #[must_use]
    pub fn streams(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.stream,
        }
    }
}

/// A conversation so far, and how the next message is to be made.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What was set for this request; the model's own parameters lie beneath.
    pub params: Params,
    /// Whether the reply is asked for as a stream.
    pub stream: bool,
    /// A client's own body, kept so that fields unknown here reach the upstream untouched.
    pub original: Option<Original>,
    /// Changes made after a service refused a parameter.
    pub adjustments: Vec<Adjustment>,
}

impl ChatRequest {
    /// The tokens of the conversation, roughly.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        self.messages.iter().map(|message| tokens(&message.joined_text())).sum()
    }
}

/// The body a client sent, and the protocol it is written in.
#[derive(Clone, Debug)]
pub struct Original {
    /// Which protocol `body` is written in.
    pub protocol: ProtocolId,
    /// The bytes as they came.
    pub body: Bytes,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions that frame the conversation.
    System,
    /// The person, or the program, that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool the model called.
    Tool,
}

/// One message of a conversation.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text(text.into())] }
    }

    /// All text of the message, joined.
    #[must_use]
    pub fn joined_text(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
            })
            .collect()
    }
}

/// One piece of a message.
#[derive(Clone, Debug)]
pub enum Part {
    /// Plain text.
    Text(String),
}

/// How the answer is to be made. `None` means "not set": it is never sent, so that strict services are not
/// handed fields their user did not choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling mass.
    pub top_p: Option<f64>,
    /// Upper limit of the answer, in tokens.
    pub max_tokens: Option<u64>,
    /// Seed for reproducible sampling, where the service has it.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How long a reasoning model should think: the service's own word.
    pub reasoning_effort: Option<String>,
    /// Anything else the service takes, sent as it is.
    pub extra: Map<String, Value>,
}

/// A change to a request that a service refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Send the field under another name.
    Rename(&'static str, &'static str),
    /// Do not send the field.
    Omit(String),
}

impl std::fmt::Display for Adjustment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rename(from, to) => write!(f, "sent `{from}` as `{to}`"),
            Self::Omit(name) => write!(f, "left out `{name}`"),
        }
    }
}
