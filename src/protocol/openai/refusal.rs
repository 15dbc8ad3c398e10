//! Reads what part of a request an error refuses.

use crate::protocol::CallError;

/// An error that may refuse a part of the request.
pub(super) struct Refusal {
    /// The text in lowercase.
    text: String,
    /// The words of the text, and the parameter that the error names: only letters and digits, in lowercase.
    words: Vec<String>,
}

/// The wordings of a refused parameter.
const REFUSED: [&str; 37] = [
    "unsupported",
    "not supported",
    "isn't supported",
    "aren't supported",
    "not a supported",
    "does not support",
    "doesn't support",
    "do not support",
    "deprecated",
    "only 1 is allowed",
    "is allowed for this model",
    "not allowed",
    "not permitted",
    "not accepted",
    "does not accept",
    "not available for",
    "not implemented",
    "cannot be used",
    "can't be used",
    "unrecognized",
    "unrecognised",
    "not recognized",
    "unknown param",
    "unknown field",
    "unknown name",
    "unknown key",
    "unknown argument",
    "unexpected field",
    "unexpected param",
    "unexpected argument",
    "unexpected keyword",
    "extra_forbidden",
    "cannot both be specified",
    "not enabled",
    "不支持",
    "未知参数",
    "不可用",
];

/// The wordings of a refused value, or of a parameter that is refused because of another one.
const VALUE: [&str; 15] = [
    "unsupported value",
    "unsupported_value",
    "does not support setting",
    "cannot both",
    "at the same time",
    "simultaneously",
    "mutually exclusive",
    "together with",
    "in combination",
    " when ",
    "is enabled",
    "are enabled",
    "is set",
    "unless ",
    "同时",
];

/// Parameters that services refuse because of others. An error that names two of them is about their combination.
const COMBINED: [&str; 12] = [
    "temperature",
    "topp",
    "topk",
    "tools",
    "toolchoice",
    "thinking",
    "reasoningeffort",
    "responseformat",
    "logprobs",
    "stream",
    "streamoptions",
    "paralleltoolcalls",
];

const STREAMING: [&str; 9] = [
    "verified to stream",
    "'stream' does not support true",
    "stream is not supported",
    "streaming is not supported",
    "does not support stream",
    "not support streaming",
    "streaming not supported",
    "unsupported parameter: 'stream'",
    "stream must be false",
];

const ONE_OBJECT: [&str; 9] = [
    "only support stream",
    "only supports stream",
    "only stream",
    "enable the stream parameter",
    "non-streaming calls",
    "stream must be true",
    "stream must be set to true",
    "non-streaming is not supported",
    "non-streaming requests are not supported",
];

const SYSTEM_ROLE: [&str; 14] = [
    "system role not supported",
    "system role is not supported",
    "developer instruction is not enabled",
    "does not support 'system'",
    "'system' role",
    "system messages are not supported",
    "does not support 'developer'",
    "'system' is not supported",
    "'developer' is not supported",
    "system role is not allowed",
    "invalid role: system",
    "invalid role: developer",
    "only user and assistant roles",
    "conversation roles must alternate",
];

impl Refusal {
    /// The refusal of `error`. `message`: its message without what the client has sent.
    pub(super) fn new(error: &CallError, message: &str) -> Self {
        let text = [error.code.as_deref().unwrap_or_default(), message].join(" ");
        let mut refusal = Self::of_text(&text);
        refusal.words.extend(error.param.as_deref().map(letters).filter(|word| !word.is_empty()));
        refusal
    }

    pub(super) fn of_text(text: &str) -> Self {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map(letters);
        Self { words: words.filter(|word| !word.is_empty()).collect(), text: text.to_lowercase() }
    }

    /// Whether it refuses anything.
    pub(super) fn is_any(&self) -> bool {
        [&REFUSED[..], &STREAMING, &ONE_OBJECT, &SYSTEM_ROLE].iter().any(|phrases| self.contains(phrases))
    }

    fn contains(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.text.contains(phrase))
    }

    /// Whether a parameter is refused, and not only its value.
    pub(super) fn is_of_parameter(&self) -> bool {
        self.contains(&REFUSED)
    }

    /// Whether the text names the field, in any spelling.
    pub(super) fn names(&self, field: &str) -> bool {
        let field = letters(field);
        self.words.contains(&field)
    }

    /// Whether a value or a combination of parameters is refused, which another request may not have. For parameters of
    /// sampling, models that refuse a value accept only the default.
    pub(super) fn is_of_value(&self) -> bool {
        let named = COMBINED.iter().filter(|name| self.words.iter().any(|word| word == *name));
        // These name no condition.
        let text = self.text.replace("when using this model", "").replace("when using the model", "");
        let is_conditional = VALUE.iter().any(|phrase| text.contains(phrase)) || named.count() > 1;
        is_conditional && !self.contains(&["only the default"])
    }

    /// Whether a stream is refused.
    pub(super) fn is_of_streaming(&self) -> bool {
        self.contains(&STREAMING)
    }

    /// Whether an answer in one object is refused.
    pub(super) fn is_of_one_object(&self) -> bool {
        self.contains(&ONE_OBJECT)
    }

    /// Whether the role of the system prompt is refused.
    pub(super) fn is_of_system_role(&self) -> bool {
        self.contains(&SYSTEM_ROLE)
    }
}

fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
