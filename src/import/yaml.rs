//! Parses YAML into a tree and reads values from it.
//!
//! Rejects documents that are nested too deep or that expand to too many values through aliases.

use std::{cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_yaml_ng::Value;

use super::ImportError;

/// Maximum bracket depth; the parser's time grows with the square of it.
const MAX_DEPTH: usize = 64;

/// Maximum number of values, after aliases are expanded.
const MAX_VALUES: usize = 200_000;

/// The maximum bracket depth of `text`. Brackets in strings count, too.
fn bracket_depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for c in text.bytes() {
        match c {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' if open > MAX_DEPTH => return open,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// Counts the values of a document with its aliases expanded, without storing them.
struct ValueCounter<'c>(&'c Cell<usize>);

impl ValueCounter<'_> {
    fn count_value<E: Error>(&self) -> Result<(), E> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MAX_VALUES { Err(E::custom("too many values")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for ValueCounter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.count_value()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueCounter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(ValueCounter(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(ValueCounter(self.0))?.is_some() {
            entries.next_value_seed(ValueCounter(self.0))?;
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant_seed(self)
    }
}

/// Parses a document.
pub(crate) fn parse(text: &str) -> Result<Value, ImportError> {
    if bracket_depth(text) > MAX_DEPTH {
        return Err(ImportError::TooLarge(format!("brackets are nested more than {MAX_DEPTH} deep")));
    }
    let count = Cell::new(0);
    let counted = ValueCounter(&count).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    if count.get() > MAX_VALUES {
        let message = format!("the document has more than {MAX_VALUES} values with its aliases expanded");
        return Err(ImportError::TooLarge(message));
    }
    counted.and_then(|()| serde_yaml_ng::from_str(text)).map_err(|error| {
        let position = error.location().map(|at| format!(" (line {}, column {})", at.line(), at.column()));
        // The parser's message may quote the text at that position, which may be a key.
        ImportError::Syntax(format!("invalid YAML{}", position.unwrap_or_default()))
    })
}

/// The string at `key`; numbers are converted to strings.
pub(crate) fn string(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The string at `key`, unless it is empty.
pub(crate) fn nonempty_string(value: &Value, key: &str) -> Option<String> {
    string(value, key).filter(|text| !text.trim().is_empty())
}

/// The list at `key`; empty if there is none.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}

/// The strings in the list at `key`.
pub(crate) fn strings(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The number at `key`, quoted or not.
pub(crate) fn number(value: &Value, key: &str) -> Option<f64> {
    let value = value.get(key)?;
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The non-negative integer at `key`, quoted or not.
pub(crate) fn unsigned(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}
