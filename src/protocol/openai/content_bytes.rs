//! Counts the bytes of a value that is not decoded, without keeping it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A field of a part of an answer.
#[derive(Deserialize)]
#[serde(field_identifier)]
enum PartField {
    /// It describes content, and contains none.
    #[serde(
        rename = "type",
        alias = "format",
        alias = "id",
        alias = "index",
        alias = "role",
        alias = "mime_type",
        alias = "detail"
    )]
    Structure,
    #[serde(other)]
    Content,
}

/// The bytes of the texts of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContentBytes {
    /// If it is a text.
    of_text: usize,
    /// If it is a list or an object.
    pub(super) of_parts: usize,
}

impl ContentBytes {
    fn parts(of_parts: usize) -> Self {
        Self { of_parts, ..Self::default() }
    }

    pub(super) fn total(self) -> usize {
        self.of_text + self.of_parts
    }
}

struct ContentBytesVisitor;

impl<'de> Visitor<'de> for ContentBytesVisitor {
    type Value = ContentBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ContentBytes, E> {
        Ok(ContentBytes { of_text: text.len(), ..ContentBytes::default() })
    }

    fn visit_unit<E: Error>(self) -> Result<ContentBytes, E> {
        Ok(ContentBytes::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<ContentBytes, E> {
        Ok(ContentBytes::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<ContentBytes, E> {
        Ok(ContentBytes::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<ContentBytes, E> {
        Ok(ContentBytes::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<ContentBytes, E> {
        Ok(ContentBytes::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ContentBytes, A::Error> {
        let mut bytes = 0;
        while let Some(item) = seq.next_element::<ContentBytes>()? {
            bytes += item.total();
        }
        Ok(ContentBytes::parts(bytes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ContentBytes, A::Error> {
        let mut bytes = 0;
        while let Some(field) = map.next_key::<PartField>()? {
            match field {
                PartField::Structure => drop(map.next_value::<IgnoredAny>()?),
                PartField::Content => bytes += map.next_value::<ContentBytes>()?.total(),
            }
        }
        Ok(ContentBytes::parts(bytes))
    }
}

impl<'de> Deserialize<'de> for ContentBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentBytesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_counted_and_empty_values_are_not() {
        let count = |json: &str| serde_json::from_str::<ContentBytes>(json).expect("valid JSON");
        assert_eq!(count(r#"[{"type":"image_url","image_url":{"url":"data:x"}},null,7]"#), ContentBytes::parts(6));
        for empty in ["null", "[]", "{}", "[{}]", r#"{"a":[]}"#, r#"{"type":"x","data":"","n":1.5,"b":true,"i":-1}"#] {
            assert_eq!(count(empty).of_parts, 0, "{empty}");
        }
        assert_eq!((count(r#""text""#).of_text, count(r#""text""#).of_parts), (4, 0));
    }
}
