//! Reads from the body of a client what routing needs to know of it, without keeping its messages and tools.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::{
    model::{estimate, image},
    protocol::framing::{
        lenient::LenientString,
        value_reader::{ValueReader, read_value, read_with, skip_value},
    },
};

/// Bytes of a message that are kept to recognize its conversation.
const AFFINITY_BYTES: usize = 4096;

/// The part of a text that is kept to recognize its conversation.
pub(super) fn affinity_start(text: &str) -> &str {
    &text[..text.floor_char_boundary(AFFINITY_BYTES)]
}

/// The `messages` of a chat request.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) estimated_tokens: u64,
    pub(super) has_images: bool,
    /// The starts of the first system prompt and of the first message of the user.
    system: Option<String>,
    user: Option<String>,
}

impl Messages {
    /// What related requests have in common.
    pub(super) fn affinity_key(self) -> String {
        self.system.into_iter().chain(self.user).collect::<Vec<_>>().join("\0")
    }
}

impl ValueReader for Messages {
    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        let Message { role, content } = read_value(item)?;
        self.estimated_tokens += content.estimated_tokens;
        self.has_images |= content.has_images;
        match role {
            Role::System => _ = self.system.get_or_insert(content.start),
            Role::User => _ = self.user.get_or_insert(content.start),
            Role::Other => {}
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Role {
    System,
    /// Unknown roles count as the user's.
    #[default]
    User,
    Other,
}

#[derive(Debug, Default)]
struct Message {
    role: Role,
    content: Content,
}

impl ValueReader for Message {
    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        match name {
            "role" => {
                self.role = match LenientString::deserialize(value)?.as_str() {
                    "system" | "developer" => Role::System,
                    "assistant" | "tool" | "function" => Role::Other,
                    _ => Role::User,
                };
            }
            "content" => self.content = read_value(value)?,
            _ => skip_value(value)?,
        }
        Ok(())
    }
}

/// A text, or a list of texts and parts.
#[derive(Debug, Default)]
struct Content {
    estimated_tokens: u64,
    has_images: bool,
    /// The first bytes of the text.
    start: String,
}

impl ValueReader for Content {
    fn text(&mut self, text: &str) {
        self.estimated_tokens += estimate::tokens(text);
        let room = AFFINITY_BYTES.saturating_sub(self.start.len());
        self.start.push_str(&text[..text.floor_char_boundary(room)]);
    }

    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        read_with(&mut Part(self), item)
    }
}

/// A part of a content, to which it is added.
struct Part<'c>(&'c mut Content);

impl ValueReader for Part<'_> {
    fn text(&mut self, text: &str) {
        self.0.text(text);
    }

    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        match name {
            "text" => read_with(&mut Text(self.0), value),
            "image_url" => {
                let ImageUrl { is_set } = read_value(value)?;
                self.0.has_images |= is_set;
                self.0.estimated_tokens += if is_set { image::ESTIMATED_TOKENS } else { 0 };
                Ok(())
            }
            _ => skip_value(value),
        }
    }
}

/// The text of a part, which is added to the content.
struct Text<'c>(&'c mut Content);

impl ValueReader for Text<'_> {
    fn text(&mut self, text: &str) {
        self.0.text(text);
    }
}

/// An image: its URL, or an object with it.
#[derive(Debug, Default)]
struct ImageUrl {
    is_set: bool,
}

impl ValueReader for ImageUrl {
    fn text(&mut self, _url: &str) {
        self.is_set = true;
    }

    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        if name == "url" { read_with(self, value) } else { skip_value(value) }
    }
}

/// The `tools` of a request.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) is_set: bool,
    /// The service runs one of them.
    pub(super) has_server_side: bool,
}

impl ValueReader for Tools {
    fn other(&mut self, is_set: bool) {
        self.is_set |= is_set;
    }

    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        let Tool { kind } = read_value(item)?;
        self.has_server_side |= kind.is_some_and(|kind| !matches!(kind.as_str(), "function" | "custom"));
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Tool {
    kind: Option<String>,
}

impl ValueReader for Tool {
    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        if name != "type" {
            return skip_value(value);
        }
        self.kind = LenientString::deserialize(value)?.0.map(Cow::into_owned);
        Ok(())
    }
}

/// Whether a field is neither null nor false.
#[derive(Debug, Default)]
pub(super) struct IsSet(pub(super) bool);

impl ValueReader for IsSet {
    fn other(&mut self, is_set: bool) {
        self.0 = is_set;
    }
}

/// Whether `modalities` asks for more than text.
#[derive(Debug, Default)]
pub(super) struct Modalities {
    pub(super) has_other_than_text: bool,
}

impl ValueReader for Modalities {
    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        let modality = LenientString::deserialize(item)?;
        self.has_other_than_text |= modality.0.is_some_and(|modality| modality != "text");
        Ok(())
    }
}

/// Collects the text of all messages.
#[derive(Debug, Default)]
pub(super) struct PromptText(pub(super) String);

impl ValueReader for PromptText {
    fn text(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\n\n");
        }
        self.0.push_str(text);
    }

    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        read_with(self, item)
    }

    fn field<'de, D: Deserializer<'de>>(&mut self, name: &str, value: D) -> Result<(), D::Error> {
        if matches!(name, "content" | "text") { read_with(self, value) } else { skip_value(value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::framing::value_reader::Read;

    fn messages(json: &str) -> Messages {
        let Read(messages): Read<Messages> = serde_json::from_str(json).expect("any JSON");
        messages
    }

    #[test]
    fn texts_and_images_of_all_forms_are_counted() {
        let text = "x".repeat(400);
        for (content, tokens, has_images) in [
            (format!("\"{text}\""), 100, false),
            (format!("[\"{text}\",{{\"type\":\"text\",\"text\":\"{text}\"}}]"), 200, false),
            (
                r#"[{"image_url":{"url":"data:x"}},{"image_url":"http://h"},{"image_url":{"url":null}}]"#.into(),
                1600,
                true,
            ),
            ("null".into(), 0, false),
            ("{\"text\":\"x\"}".into(), 0, false),
        ] {
            let read = messages(&format!(r#"[{{"content":{content},"role":"user","x":[[{{}}]]}},{{}},7]"#));
            assert_eq!((read.estimated_tokens, read.has_images), (tokens, has_images), "{content}");
        }
    }

    #[test]
    fn conversation_is_known_by_the_start_of_its_first_messages() {
        let long = "é".repeat(AFFINITY_BYTES);
        let key = |question: &str| {
            let system = format!(r#"{{"role":"developer","content":"{long}"}}"#);
            let user = format!(r#"{{"content":[{{"text":"{question}"}}],"role":"user"}}"#);
            messages(&format!(r#"[{system},{user},{{"role":"user","content":"later"}}]"#)).affinity_key()
        };
        assert_eq!(key("a"), format!("{}\0a", &long[..AFFINITY_BYTES]));
        assert_ne!(key("a"), key("b"));
    }

    #[test]
    fn tools_of_the_service_are_found() {
        for (json, is_set, has_server_side) in [
            ("null", false, false),
            ("[]", true, false),
            (r#"[{"type":"function"},{"type":"custom"},{},7]"#, true, false),
            (r#"[{"type":"function"},{"type":"web_search"}]"#, true, true),
        ] {
            let Read(tools): Read<Tools> = serde_json::from_str(json).expect("any JSON");
            assert_eq!((tools.is_set, tools.has_server_side), (is_set, has_server_side), "{json}");
        }
    }
}
