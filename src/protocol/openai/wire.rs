//! Deserializes a chunk or a complete response leniently, with only the fields that are used.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{content_bytes::ContentBytes, usage::WireUsage};
use crate::protocol::framing::lenient::{LenientList, LenientNumber, LenientObject, LenientString};

#[derive(Debug, Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) choices: LenientList<Choice<'a>>,
    #[serde(default)]
    pub(super) usage: LenientObject<Box<WireUsage>>,
    #[serde(default)]
    pub(super) x_groq: LenientObject<Groq>,
    #[serde(borrow, default)]
    pub(super) model: LenientString<'a>,
    /// Only its presence is read here; the error itself is parsed from a JSON tree.
    #[serde(default)]
    pub(super) error: Present,
    #[serde(borrow, default)]
    pub(super) object: LenientString<'a>,
    #[serde(default)]
    pub(super) base_resp: Present,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Groq {
    #[serde(default)]
    pub(super) usage: LenientObject<Box<WireUsage>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: LenientNumber,
    /// Large or rare parts are boxed, because the enclosing value is moved several times during deserialization.
    #[serde(borrow, default)]
    pub(super) delta: LenientObject<Box<Message<'a>>>,
    #[serde(borrow, default)]
    pub(super) message: LenientObject<Box<Message<'a>>>,
    /// The text of the legacy completions format.
    #[serde(default)]
    pub(super) text: Content,
    #[serde(borrow, default)]
    pub(super) finish_reason: LenientString<'a>,
    /// Moonshot sends the usage here.
    #[serde(default)]
    pub(super) usage: LenientObject<Box<WireUsage>>,
}

/// The message of an object, or a part of it in a chunk.
#[derive(Debug, Default)]
pub(super) struct Message<'a> {
    pub(super) content: Content,
    pub(super) reasoning_content: Content,
    pub(super) reasoning: Content,
    pub(super) refusal: Content,
    pub(super) tool_calls: LenientList<WireToolCall<'a>>,
    pub(super) function_call: LenientObject<Function<'a>>,
    /// The bytes of reasoning and of unknown parts, which are not decoded.
    pub(super) other_reasoning: usize,
    /// The bytes of images and audio.
    pub(super) media: usize,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MessageField {
    Role,
    Content,
    ReasoningContent,
    Reasoning,
    #[serde(
        alias = "reasoning_summary",
        alias = "reasoning_text",
        alias = "thinking",
        alias = "thinking_content",
        alias = "thought",
        alias = "thoughts"
    )]
    ReasoningDetails,
    Refusal,
    ToolCalls,
    FunctionCall,
    #[serde(alias = "image", alias = "audio", alias = "video", alias = "videos")]
    Images,
    /// Data about the answer that LiteLLM adds.
    ProviderSpecificFields,
    #[serde(other)]
    Other,
}

struct MessageVisitor;

impl<'de> Visitor<'de> for MessageVisitor {
    type Value = Message<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message<'de>, A::Error> {
        use MessageField as F;
        let mut message = Message::default();
        let (mut has_role, mut unknown) = (false, 0);
        while let Some(field) = map.next_key::<F>()? {
            match field {
                F::Content => message.content = map.next_value()?,
                F::ReasoningContent => message.reasoning_content = map.next_value()?,
                F::Reasoning => message.reasoning = map.next_value()?,
                F::Refusal => message.refusal = map.next_value()?,
                F::ToolCalls => message.tool_calls = map.next_value()?,
                F::FunctionCall => message.function_call = map.next_value()?,
                F::ReasoningDetails => message.other_reasoning += content_bytes(map.next_value()?).total(),
                F::Images => message.media += content_bytes(map.next_value()?).total(),
                F::Role => has_role = !map.next_value::<LenientString<'_>>()?.as_str().is_empty(),
                F::ProviderSpecificFields => drop(map.next_value::<IgnoredAny>()?),
                // A text may be anything, such as the name of the role.
                F::Other => unknown += content_bytes(map.next_value()?).of_parts,
            }
        }
        // Lists and objects beside the role describe the answer; alone, they show that the model works.
        message.other_reasoning += if has_role { 0 } else { unknown };
        Ok(message)
    }
}

/// The bytes of the texts in a value that is not decoded; none if it cannot be parsed.
fn content_bytes(json: &RawValue) -> ContentBytes {
    serde_json::from_str(json.get()).unwrap_or_default()
}

impl<'de: 'a, 'a> Deserialize<'de> for Message<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MessageVisitor)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WireToolCall<'a> {
    #[serde(default)]
    pub(super) index: LenientNumber,
    #[serde(borrow, default)]
    pub(super) id: LenientString<'a>,
    #[serde(borrow, default)]
    pub(super) function: LenientObject<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow, default)]
    pub(super) name: LenientString<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: LenientString<'a>,
}

/// Whether a field is present and not null.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Present(pub(super) bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer).map(|value| Self(value.is_some()))
    }
}

/// Content: a string, or a list of text and thinking parts.
#[derive(Debug, Default)]
pub(super) enum Content {
    #[default]
    Empty,
    Text(String),
    Parts(Vec<ContentPart>),
}

impl Content {
    /// The text without thinking parts.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().map(|part| part.text.into_text()).collect(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ContentPart {
    #[serde(default)]
    pub(super) text: Content,
    /// The reasoning in a Mistral part: a string or a list of text parts.
    #[serde(default)]
    pub(super) thinking: Content,
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of parts")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(if text.is_empty() { Content::Empty } else { Content::Text(text.to_owned()) })
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
        Ok(if text.is_empty() { Content::Empty } else { Content::Text(text) })
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Empty)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Content, E> {
        Ok(Content::Empty)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Text(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Text(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Content, E> {
        Ok(Content::Text(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut parts = Vec::new();
        while let Some(item) = seq.next_element::<PartOrText>()? {
            parts.push(item.0);
        }
        Ok(Content::Parts(parts))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
        let part = ContentPart::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Ok(Content::Parts(vec![part]))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// An item of a list of parts, which some servers send as a bare string.
struct PartOrText(ContentPart);

impl<'de> Deserialize<'de> for PartOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Content::deserialize(deserializer)? {
            Content::Parts(mut parts) if parts.len() == 1 => parts.remove(0),
            text => ContentPart { text, thinking: Content::Empty },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_beside_values_that_cannot_be_parsed_is_read() {
        let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        for own in ["1e400", &deep] {
            let json = format!("{{\"content\":\"Hello\",\"own\":{own},\"images\":[{{\"url\":\"x\"}}]}}");
            let message: Message<'_> = serde_json::from_str(&json).expect("valid JSON");
            assert_eq!((message.content.into_text().as_str(), message.media), ("Hello", 1));
        }
    }
}
