//! Replaces top-level fields of a JSON object and copies all others as text.
//!
//! Field order, nulls, large numbers and unknown fields of the client's body are preserved. Nested values are not
//! parsed.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::lenient::LenientString;

/// Maximum number of fields: each takes several times the memory of its text.
const MAX_FIELDS: usize = 1000;

/// A JSON object whose values keep their original text.
#[derive(Debug, Default)]
pub(crate) struct RawObject<'a>(Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> RawObject<'a> {
    /// # Errors
    /// When `body` is not an object, or has more than 1000 fields.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Replaces the field in place, or appends it.
    pub(crate) fn set(&mut self, name: &str, value: &impl Serialize) -> Result<(), serde_json::Error> {
        let value = serde_json::value::to_raw_value(value)?;
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = Cow::Owned(value),
            None => self.0.push((Cow::Owned(name.to_owned()), Cow::Owned(value))),
        }
        Ok(())
    }

    /// The field names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| &**key)
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for (key, _) in &mut self.0 {
            if key == from {
                *key = Cow::Owned(to.to_owned());
            }
        }
    }

    /// Removes fields whose name differs from `name` only in case: some services treat them as the same field.
    pub(crate) fn remove_case_variants(&mut self, name: &str) {
        self.0.retain(|(key, _)| key == name || !key.eq_ignore_ascii_case(name));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = RawObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<LenientString<'de>, &'de RawValue>()? {
            if fields.len() == MAX_FIELDS {
                return Err(A::Error::custom(format!("an object with more than {MAX_FIELDS} fields")));
            }
            fields.push((name.0.unwrap_or_default(), Cow::Borrowed(value)));
        }
        Ok(RawObject(fields))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl Serialize for RawObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_fields_are_preserved_byte_for_byte() {
        let body = br#"{"z":1e400,"model":"a","big":123456789012345678901234567890,"n":null,"deep":{"b":1,"a":2}}"#;
        let mut object = RawObject::parse(body).expect("valid JSON object");
        object.set("model", &"b").expect("strings serialize");
        object.set("new", &true).expect("booleans serialize");
        assert_eq!(
            serde_json::to_string(&object).expect("raw values serialize"),
            r#"{"z":1e400,"model":"b","big":123456789012345678901234567890,"n":null,"deep":{"b":1,"a":2},"new":true}"#
        );
    }
}
