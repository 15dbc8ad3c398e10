//! Reading YAML as a tree, and looking into it.
//!
//! Owns nothing of any format, and that what multiplies itself by aliases is refused.

use std::{cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_yaml_ng::Value;

use super::ImportError;

/// No configuration is as deep, and the reader's time grows with the square of it.
const DEEPEST: usize = 64;

/// No configuration holds as many values.
const MOST: usize = 200_000;

/// How deep its brackets are, at most; those within texts count, too.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for c in text.bytes() {
        match c {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            b'\n' if open > DEEPEST => return open,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// Counts what a document holds once its aliases stand for what they name, without keeping any of it.
struct Count<'c>(&'c Cell<usize>);

impl Count<'_> {
    fn one<E: Error>(&self) -> Result<(), E> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > MOST { Err(E::custom("too much")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.one()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
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
        while items.next_element_seed(Count(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_key_seed(Count(self.0))?.is_some() {
            entries.next_value_seed(Count(self.0))?;
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant_seed(self)
    }
}

/// The document.
pub(crate) fn read(text: &str) -> Result<Value, ImportError> {
    if depth(text) > DEEPEST {
        return Err(ImportError(format!("it has brackets more than {DEEPEST} deep")));
    }
    let count = Cell::new(0);
    let counted = Count(&count).deserialize(serde_yaml_ng::Deserializer::from_str(text));
    if count.get() > MOST {
        return Err(ImportError(format!("its aliases make more than {MOST} values of it")));
    }
    counted.and_then(|()| serde_yaml_ng::from_str(text)).map_err(|error| {
        let at = error.location().map(|at| format!(" (line {}, column {})", at.line(), at.column()));
        // The reader's own message may quote what stands there, which may be a key.
        ImportError(format!("it is no YAML that can be read{}", at.unwrap_or_default()))
    })
}

/// The text under `key`; numbers are texts, too.
pub(crate) fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text under `key`, unless it is empty.
pub(crate) fn some_text(value: &Value, key: &str) -> Option<String> {
    text(value, key).filter(|text| !text.trim().is_empty())
}

/// The list under `key`; empty when there is none.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}

/// The texts of the list under `key`.
pub(crate) fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The number under `key`, in quotes or not.
pub(crate) fn number(value: &Value, key: &str) -> Option<f64> {
    let value = value.get(key)?;
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The whole number under `key`, in quotes or not.
pub(crate) fn whole(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}
