//! Counts the prompts of a text completion without keeping them: each gets a choice of its own.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// The number of prompts: a text or a list of tokens is one, a list of these is several.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptCount(pub(super) u64);

impl Default for PromptCount {
    fn default() -> Self {
        Self(1)
    }
}

/// Whether an item of the list is a prompt, and not a token.
struct IsPrompt(bool);

impl<'de> Deserialize<'de> for IsPrompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IsPromptVisitor)
    }
}

struct IsPromptVisitor;

impl<'de> Visitor<'de> for IsPromptVisitor {
    type Value = IsPrompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt or a token")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<IsPrompt, E> {
        Ok(IsPrompt(true))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<IsPrompt, A::Error> {
        while tokens.next_element::<IgnoredAny>()?.is_some() {}
        Ok(IsPrompt(true))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IsPrompt, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(IsPrompt(false))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<IsPrompt, E> {
        Ok(IsPrompt(false))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<IsPrompt, E> {
        Ok(IsPrompt(false))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<IsPrompt, E> {
        Ok(IsPrompt(false))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<IsPrompt, E> {
        Ok(IsPrompt(false))
    }

    fn visit_unit<E: Error>(self) -> Result<IsPrompt, E> {
        Ok(IsPrompt(false))
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = PromptCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a prompt or a list of prompts")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_unit<E: Error>(self) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<PromptCount, E> {
        Ok(PromptCount(1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PromptCount, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(PromptCount(1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PromptCount, A::Error> {
        let mut count = 0;
        while let Some(item) = items.next_element::<IsPrompt>()? {
            count += u64::from(item.0);
        }
        Ok(PromptCount(count.max(1)))
    }
}

impl<'de> Deserialize<'de> for PromptCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_of_tokens_are_prompts() {
        for (json, count) in [
            ("\"a\"", 1),
            ("[1,2,3]", 1),
            ("[\"a\",\"b\"]", 2),
            ("[[1,2],[3],[4]]", 3),
            ("[]", 1),
            ("null", 1),
            ("{\"a\":[1]}", 1),
            ("[[1],\"b\",null]", 2),
        ] {
            let prompts: PromptCount = serde_json::from_str(json).expect("any JSON");
            assert_eq!(prompts.0, count, "{json}");
        }
    }
}
