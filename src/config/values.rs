//! The small values of the file: durations, key sources, addresses, and the wrapper that remembers where each stood.
//!
//! Owns their reading and their schema. Refuses `untagged` and `flatten`: both lose the place of an error.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Range, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// A value and its place in the file.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place, in bytes.
    pub span: Range<usize>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A table of named entries, in the order of the file.
#[derive(Clone, Debug)]
pub struct Table<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = Table<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Table(entries))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Table".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<T>();
        json_schema!({"type": "object", "additionalProperties": entry})
    }
}

/// A time such as `500ms`, `5s`, `2m` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// Reads a duration: numbers with a unit each (`ms`, `s`, `m`, `h`); a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it like 500ms, 5s, 2m or 1h30m");
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let span: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    Duration::try_from(span).map_err(|_| wrong())
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A limit that leaves some time.
pub(super) fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let time = Time::deserialize(deserializer)?;
    if time.0.is_zero() { Err(D::Error::custom("a limit of 0 leaves no time")) } else { Ok(Some(time)) }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A duration: 500ms, 5s, 2m, 1h30m."})
    }
}

/// Where a secret comes from, as written.
#[derive(Clone, Debug)]
pub enum KeyEntry {
    /// The value itself.
    Literal(String),
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "path" }`
    File(String),
    /// `{ command = ["pass", "show", "x"] }`
    Command(Vec<String>),
    /// `{ command = "a line for the shell" }`
    Shell(String),
    /// `{ keyring = "name" }`
    Keyring(String),
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = KeyEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key or one of { env = … }, { file = … }, { command = […] }, { keyring = … }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<KeyEntry, E> {
        Ok(KeyEntry::Literal(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyEntry, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Tagged {
            Env(String),
            File(String),
            Command(Words),
            Keyring(String),
        }
        let tagged = Tagged::deserialize(MapAccessDeserializer::new(&mut map))?;
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("a secret is in one place: env, file, command or keyring"));
        }
        Ok(match tagged {
            Tagged::Env(name) => KeyEntry::Env(name),
            Tagged::File(path) => KeyEntry::File(path),
            Tagged::Command(Words::List(words)) => KeyEntry::Command(words),
            Tagged::Command(Words::Line(line)) => KeyEntry::Shell(line),
            Tagged::Keyring(name) => KeyEntry::Keyring(name),
        })
    }
}

impl<'de> Deserialize<'de> for KeyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl JsonSchema for KeyEntry {
    fn schema_name() -> Cow<'static, str> {
        "KeySource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |name: &str, schema: serde_json::Value| json_schema!({"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": false});
        let text = serde_json::json!({"type": "string"});
        let command = serde_json::json!({"type": ["string", "array"], "items": {"type": "string"}});
        json_schema!({
            "description": "A secret: the value itself, or where to read it.",
            "anyOf": [text.clone(), one("env", text.clone()), one("file", text.clone()), one("command", command), one("keyring", text)],
        })
    }
}

/// A command: words, or a line.
enum Words {
    List(Vec<String>),
    Line(String),
}

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of words, or a line for the shell")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<Words, E> {
        if line.trim().is_empty() {
            return Err(E::custom("the command is empty"));
        }
        Ok(Words::Line(line.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = seq.next_element()? {
            words.push(word);
        }
        if words.is_empty() {
            Err(A::Error::custom("a command needs at least a program"))
        } else {
            Ok(Words::List(words))
        }
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor)
    }
}

/// A sum of money: a number of US dollars, or several sums, each in its currency.
#[derive(Clone, Debug)]
pub struct AmountEntry(pub Vec<(String, f64)>);

/// What a sum is in unless it says so.
pub(super) const DOLLARS: &str = "USD";

struct AmountVisitor;

impl<'de> Visitor<'de> for AmountVisitor {
    type Value = AmountEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of US dollars, or { USD = …, CNY = … }")
    }

    fn visit_f64<E: Error>(self, amount: f64) -> Result<AmountEntry, E> {
        Ok(AmountEntry(vec![(DOLLARS.to_owned(), amount)]))
    }

    fn visit_i64<E: Error>(self, amount: i64) -> Result<AmountEntry, E> {
        #[expect(clippy::cast_precision_loss, reason = "nobody spends 2^52")]
        self.visit_f64(amount as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AmountEntry, A::Error> {
        let mut sums = Vec::new();
        while let Some(sum) = map.next_entry::<String, f64>()? {
            sums.push(sum);
        }
        Ok(AmountEntry(sums))
    }
}

impl<'de> Deserialize<'de> for AmountEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

impl JsonSchema for AmountEntry {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of US dollars, or a sum for each of several currencies: { USD = 5, CNY = 30 }.",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
            ],
        })
    }
}

/// A model of a route: its name, or its name and weight.
#[derive(Clone, Debug)]
pub struct Member {
    /// The model.
    pub name: String,
    /// Its share under `weighted`.
    pub weight: Option<u32>,
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model's name or { name = …, weight = … }")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
        Ok(Member { name: name.to_owned(), weight: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Weighted {
            name: String,
            weight: Option<u32>,
        }
        let Weighted { name, weight } = Weighted::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Member { name, weight })
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

impl JsonSchema for Member {
    fn schema_name() -> Cow<'static, str> {
        "RouteMember".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A model of a route, with its weight if it has one.",
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "minimum": 0}},
                    "required": ["name"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        let ms = |text| parse_duration(text).map(|time| time.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("5s"), Ok(5000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("30"), Ok(30_000));
        assert_eq!(ms("0.5"), Ok(500));
        for wrong in ["", "-5s", "5 parsecs", "-1"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
