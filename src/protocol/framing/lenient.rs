//! Lenient serde field types, for services that send null for absent fields, numbers as strings, or an object in place
//! of a list.
//!
//! A value of an unexpected type counts as absent and is never an error, so that one malformed field does not lose a
//! chunk.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A string; integers are converted, any other type counts as absent.
#[derive(Debug, Default)]
pub(crate) struct LenientString<'a>(pub(crate) Option<Cow<'a, str>>);

impl LenientString<'_> {
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn into_string(self) -> String {
        self.0.map(Cow::into_owned).unwrap_or_default()
    }
}

/// An unsigned integer; strings and floats without a fraction are converted, anything else counts as absent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LenientNumber(pub(crate) Option<u64>);

/// A list; null is an empty list, a single object a list of one.
#[derive(Debug)]
pub(crate) struct LenientList<T>(pub(crate) Vec<T>);

impl<T> Default for LenientList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// An object; any other type counts as absent.
#[derive(Debug)]
pub(crate) struct LenientObject<T>(pub(crate) Option<T>);

impl<T> Default for LenientObject<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// Consumes the remaining items of a list.
fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// The visitor methods for values of an unexpected type, which count as absent.
macro_rules! absent {
    ($value:expr; $($method:ident: $type:ty),*) => {
        $(fn $method<E: Error>(self, _: $type) -> Result<Self::Value, E> { Ok($value) })*
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> { Ok($value) }
    };
}

struct StringVisitor;

impl<'de> Visitor<'de> for StringVisitor {
    type Value = LenientString<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(LenientString(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(LenientString(Some(Cow::Owned(text.to_owned()))))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(LenientString(Some(Cow::Owned(number.to_string()))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(LenientString(Some(Cow::Owned(number.to_string()))))
    }

    absent!(LenientString(None); visit_f64: f64, visit_bool: bool);

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| LenientString(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        skip_map(map).map(|()| LenientString(None))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for LenientString<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringVisitor)
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = LenientNumber;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(LenientNumber(Some(number)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(LenientNumber(u64::try_from(number).ok()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range and fraction are checked")]
        let integer = ((0.0..1e15).contains(&number) && number.fract() == 0.0).then_some(number as u64);
        Ok(LenientNumber(integer))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(LenientNumber(text.trim().parse().ok()))
    }

    absent!(LenientNumber(None); visit_bool: bool);

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| LenientNumber(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        skip_map(map).map(|()| LenientNumber(None))
    }
}

impl<'de> Deserialize<'de> for LenientNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = LenientList<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<LenientObject<T>>()? {
            items.extend(item.0);
        }
        Ok(LenientList(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|item| LenientList(vec![item]))
    }

    absent!(LenientList(Vec::new()); visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_bool: bool, visit_str: &str);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = LenientObject<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|item| LenientObject(Some(item)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq).map(|()| LenientObject(None))
    }

    absent!(LenientObject(None); visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_bool: bool, visit_str: &str);
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for LenientObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData))
    }
}

/// Replaces lone surrogate escapes with U+FFFD; `None`: there are none. Servers that split text by UTF-16 code unit
/// send them, and JSON parsers reject them.
pub(crate) fn replace_lone_surrogates(json: &str) -> Option<String> {
    let (mut out, mut remaining, mut changed) = (String::with_capacity(json.len()), json, false);
    while let Some(start) = remaining.find('\\') {
        out.push_str(&remaining[..start]);
        let escape = &remaining[start..];
        let length = match (utf16_escape(escape), utf16_escape(escape.get(6..).unwrap_or_default())) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
                out.push_str(&escape[..12]);
                12
            }
            (Some(0xd800..=0xdfff), _) => {
                out.push_str("\\ufffd");
                changed = true;
                6
            }
            // A one-character escape; the character may have several bytes if the JSON is invalid.
            _ => {
                let length = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
                out.push_str(&escape[..length]);
                length
            }
        };
        remaining = &escape[length..];
    }
    out.push_str(remaining);
    changed.then_some(out)
}

/// The UTF-16 code unit of a `\uXXXX` escape at the start of `text`.
fn utf16_escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample<'a> {
        #[serde(borrow, default)]
        text: LenientString<'a>,
        #[serde(default)]
        number: LenientNumber,
        #[serde(default)]
        list: LenientList<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(default)]
        n: LenientNumber,
    }

    fn read(json: &str) -> (String, Option<u64>, Vec<Option<u64>>) {
        let sample: Sample<'_> = serde_json::from_str(json).expect("lenient fields accept any type");
        let list = sample.list.0.into_iter().map(|inner| inner.n.0).collect();
        (sample.text.into_string(), sample.number.0, list)
    }

    #[test]
    fn unexpected_type_is_absent_and_not_an_error() {
        assert_eq!(read(r#"{"text":"a","number":1,"list":[{"n":2}]}"#), ("a".into(), Some(1), vec![Some(2)]));
        assert_eq!(read(r#"{"text":7,"number":"8","list":{"n":2.0}}"#), ("7".into(), Some(8), vec![Some(2)]));
        assert_eq!(read(r#"{"text":null,"number":null,"list":null}"#), (String::new(), None, vec![]));
        assert_eq!(read(r#"{"text":[1],"number":{"a":1},"list":"x"}"#), (String::new(), None, vec![]));
        assert_eq!(read(r#"{"text":{},"number":-1,"list":[null,3,{"n":[]}]}"#), (String::new(), None, vec![None]));
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_preserved() {
        assert_eq!(replace_lone_surrogates(r#""a\ud83d b""#).as_deref(), Some(r#""a\ufffd b""#));
        assert_eq!(replace_lone_surrogates(r#""\udc4b\ud83d\ude00""#).as_deref(), Some(r#""\ufffd\ud83d\ude00""#));
        assert_eq!(replace_lone_surrogates(r#""\\ud83d""#), None);
        assert_eq!(replace_lone_surrogates(r#""\ud83d\ude00""#), None);
        assert_eq!(replace_lone_surrogates("\\"), None);
    }
}
