//! Reads JSON values without keeping them, so that a body takes no more memory than its text.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::lenient::LenientString;

/// Collects what it needs of one value.
pub(crate) trait ValueReader {
    /// The value is a text.
    fn text(&mut self, _text: &str) {
        self.other(true);
    }

    /// The value is null (`is_set` is false), false (likewise), true or a number.
    fn other(&mut self, _is_set: bool) {}

    /// The value is a list, of which this is an item.
    fn item<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        skip_value(item)
    }

    /// The value is an object, of which this is a field.
    fn field<'de, D: Deserializer<'de>>(&mut self, _name: &str, value: D) -> Result<(), D::Error> {
        skip_value(value)
    }
}

/// Reads a value with `reader`.
pub(crate) fn read_with<'de, D: Deserializer<'de>>(reader: &mut impl ValueReader, value: D) -> Result<(), D::Error> {
    value.deserialize_any(ReaderVisitor(reader))
}

/// Reads a value with a new reader.
pub(crate) fn read_value<'de, R: ValueReader + Default, D: Deserializer<'de>>(value: D) -> Result<R, D::Error> {
    let mut reader = R::default();
    read_with(&mut reader, value)?;
    Ok(reader)
}

/// Skips a value.
pub(crate) fn skip_value<'de, D: Deserializer<'de>>(value: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(value).map(drop)
}

struct ReaderVisitor<'r, R>(&'r mut R);

struct Item<'r, R>(&'r mut R);

struct Field<'r, R>(&'r mut R, LenientString<'r>);

impl<'de, R: ValueReader> DeserializeSeed<'de> for Item<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, item: D) -> Result<(), D::Error> {
        self.0.item(item)
    }
}

impl<'de, R: ValueReader> DeserializeSeed<'de> for Field<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        self.0.field(self.1.as_str(), value)
    }
}

impl<'de, R: ValueReader> Visitor<'de> for ReaderVisitor<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.other(false);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.other(value);
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.0.other(true);
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.0.other(true);
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.0.other(true);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.other(true);
        while items.next_element_seed(Item(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.0.other(true);
        while let Some(name) = fields.next_key::<LenientString<'de>>()? {
            fields.next_value_seed(Field(self.0, name))?;
        }
        Ok(())
    }
}

/// A field that is read with `R`.
#[derive(Debug)]
pub(crate) struct Read<R>(pub(crate) R);

impl<R: Default> Default for Read<R> {
    fn default() -> Self {
        Self(R::default())
    }
}

impl<'de, R: ValueReader + Default> Deserialize<'de> for Read<R> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        read_value(value).map(Self)
    }
}
