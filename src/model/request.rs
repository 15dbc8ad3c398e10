//! What is asked of a model. Owns the shape of a request; refuses to know how any service spells it.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{Image, estimate::tokens, image};

/// The value of `protocol = "…"`: the name of one wire format. Only floor 3 knows what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolId(pub &'static str);

impl std::fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// One request to a model.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are chats, and all are shared")]
pub enum Call {
    /// A chat: decoded into deltas.
    Chat(ChatRequest),
    /// Anything else: passed on as it is.
    Opaque(OpaqueRequest),
}

/// A request that is only passed on: of it the model is changed, and what the config adds.
#[derive(Clone, Debug)]
pub struct OpaqueRequest {
    /// What is asked for.
    pub service: Service,
    /// The client's own body.
    pub original: Original,
    /// Whether the reply is asked for as a stream.
    pub stream: bool,
}

/// What a model does besides chatting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Goes on with a text (the older way to ask).
    Completions,
    /// Turns texts into vectors.
    Embeddings,
    /// Puts documents in order.
    Rerank,
    /// Draws pictures.
    Images,
}

impl Call {
    /// The tokens of the prompt, roughly.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        match self {
            Self::Chat(chat) => chat.estimated_tokens(),
            // What it holds is not looked into.
            Self::Opaque(_) => 0,
        }
    }

    /// The chat, if it is one.
    #[must_use]
    pub fn chat(&self) -> Option<&ChatRequest> {
        match self {
            Self::Chat(chat) => Some(chat),
            Self::Opaque(_) => None,
        }
    }

    /// The chat, if it is one, to be changed.
    pub fn chat_mut(&mut self) -> Option<&mut ChatRequest> {
        match self {
            Self::Chat(chat) => Some(chat),
            Self::Opaque(_) => None,
        }
    }

    /// The client's own body, where there is one.
    #[must_use]
    pub fn original(&self) -> Option<&Original> {
        match self {
            Self::Chat(chat) => chat.original.as_ref(),
            Self::Opaque(opaque) => Some(&opaque.original),
        }
    }

    /// Whether the reply is asked for as a stream.
    #[must_use]
    pub fn streams(&self) -> bool {
        match self {
            Self::Chat(chat) => chat.stream,
            Self::Opaque(opaque) => opaque.stream,
        }
    }

    /// Whether only a model that looks at pictures can answer it.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.chat().is_some_and(ChatRequest::has_images)
    }

    /// Whether only a model that calls tools can answer it.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        self.chat().and_then(|chat| chat.params.extra.get("tools")).is_some_and(|tools| !tools.is_null())
    }

    /// The most tokens the answer may have, where the request says so.
    #[must_use]
    pub fn max_tokens(&self) -> Option<u64> {
        self.chat()?.params.most_tokens()
    }

    /// How many answers are asked for at once, where the request says so.
    #[must_use]
    pub fn choices(&self) -> Option<u64> {
        self.chat()?.params.choices()
    }

    /// Limits the answer to so many tokens, whatever else is said of that.
    pub fn cap(&mut self, most: u64) {
        if let Some(chat) = self.chat_mut() {
            chat.capped = Some(most);
        }
    }

    /// What requests that belong together have in common: the client's own word for it (`prompt_cache_key`, `user`), else
    /// how the conversation begins.
    #[must_use]
    pub fn thread(&self) -> String {
        let chat = match self {
            Self::Chat(chat) => chat,
            Self::Opaque(opaque) => return opaque.beginning(),
        };
        let own = ["prompt_cache_key", "user"].into_iter().find_map(|name| chat.params.extra.get(name)?.as_str());
        if let Some(own) = own {
            return own.to_owned();
        }
        let first = |role| chat.messages.iter().find(|message| message.role == role);
        let parts = [Role::System, Role::User].into_iter().filter_map(first).flat_map(|message| &message.parts);
        let texts = parts.filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\0")
    }
}

impl OpaqueRequest {
    /// How it begins, as far as requests that belong together have that in common.
    fn beginning(&self) -> String {
        const BEGINNING: usize = 256;
        let body = &self.original.body;
        String::from_utf8_lossy(&body[..body.len().min(BEGINNING)]).into_owned()
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
    /// So many tokens somebody wants to pay for: the answer is limited to no more, by whatever name its limit has.
    pub capped: Option<u64>,
}

impl ChatRequest {
    /// The tokens of the conversation, roughly.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        parts
            .map(|part| match part {
                Part::Text(text) => tokens(text),
                Part::Image(_) => image::TOKENS,
            })
            .sum()
    }

    /// Whether there is a picture to look at.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.messages.iter().flat_map(|message| &message.parts).any(|part| matches!(part, Part::Image(_)))
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Its texts, a blank line between them.
    #[must_use]
    pub fn words(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\n\n")
    }
}

/// One piece of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Plain text.
    Text(String),
    /// A picture.
    Image(Image),
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

/// The names of the limit of tokens; newer models want the second.
pub const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

impl Params {
    /// The limit of the answer, under whichever of its names; the smallest counts.
    #[must_use]
    pub fn most_tokens(&self) -> Option<u64> {
        let extra = LIMITS.into_iter().filter_map(|name| self.extra.get(name)?.as_u64());
        extra.chain(self.max_tokens).min()
    }

    /// How many answers are asked for at once (`n`).
    #[must_use]
    pub fn choices(&self) -> Option<u64> {
        self.extra.get("n").and_then(Value::as_u64).filter(|&choices| choices > 0)
    }

    /// These, with those of `over` laid on top.
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        self.extra.extend(over.extra);
        Self {
            temperature: over.temperature.or(self.temperature),
            top_p: over.top_p.or(self.top_p),
            max_tokens: over.max_tokens.or(self.max_tokens),
            seed: over.seed.or(self.seed),
            stop: if over.stop.is_empty() { self.stop } else { over.stop },
            reasoning_effort: over.reasoning_effort.or(self.reasoning_effort),
            extra: self.extra,
        }
    }
}

/// A change to a request that a service refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Send the field under another name.
    Rename(&'static str, &'static str),
    /// Do not send the field.
    Omit(String),
    /// Ask for no more tokens than this.
    Limit(u64),
}

impl std::fmt::Display for Adjustment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rename(from, to) => write!(f, "sent `{from}` as `{to}`"),
            Self::Omit(name) => write!(f, "left out `{name}`"),
            Self::Limit(most) => write!(f, "limited the answer to {most} tokens"),
        }
    }
}
