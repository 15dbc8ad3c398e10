//! Value types of the config file (durations, key sources, amounts of money) and the wrapper that records spans.
//!
//! Does not use serde's `untagged` and `flatten`: both lose the position of an error.

use std::{fmt, marker::PhantomData, ops::Range, time::Duration};

#[cfg(feature = "schema")]
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
    ser::SerializeStruct as _,
};

/// A value and its span in the file.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The span, in bytes; empty for a value that is not in a file.
    #[serde(skip)]
    pub span: Range<usize>,
}

impl<T> From<T> for Spanned<T> {
    fn from(value: T) -> Self {
        Self { value, span: 0..0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { span: spanned.span(), value: spanned.into_inner() })
    }
}

#[cfg(feature = "schema")]
impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A table of named entries, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct OrderedTable<T>(pub Vec<(Spanned<String>, T)>);

impl<T> Default for OrderedTable<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(String, T)> for OrderedTable<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, entry)| (name.into(), entry)).collect())
    }
}

impl<T: Serialize> Serialize for OrderedTable<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, entry)| (&name.value, entry)))
    }
}

struct OrderedTableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedTableVisitor<T> {
    type Value = OrderedTable<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(OrderedTable(entries))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrderedTable<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OrderedTableVisitor(PhantomData))
    }
}

#[cfg(feature = "schema")]
impl<T: JsonSchema> JsonSchema for OrderedTable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Table".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<T>();
        json_schema!({"type": "object", "additionalProperties": entry})
    }
}

/// A duration such as `500ms`, `5s`, `2m` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationEntry(pub Duration);

/// What a duration looks like.
pub(super) const DURATION_FORM: &str = "expected a duration such as 500ms, 5s, 2m or 1h30m";

/// The longest duration; a time plus a longer one may be out of range.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Parses a duration: numbers with units (`ms`, `s`, `m`, `h`). A number without a unit is seconds. The error says what is
/// expected.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || DURATION_FORM.to_owned();
    let duration = if let Ok(seconds) = text.trim().parse::<f64>() {
        Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?
    } else {
        let duration: jiff::SignedDuration = text.trim().parse().map_err(|_| invalid())?;
        Duration::try_from(duration).map_err(|_| invalid())?
    };
    if duration > MAX_DURATION { Err("expected at most one year".to_owned()) } else { Ok(duration) }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = DurationEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text such as \"5s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DurationEntry, E> {
        parse_duration(text)
            .map(DurationEntry)
            .map_err(|expected| E::custom(format!("invalid duration \"{text}\": {expected}")))
    }
}

impl<'de> Deserialize<'de> for DurationEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor)
    }
}

impl Serialize for DurationEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The debug format is a number with one unit, such as 1.5s.
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

/// Deserializes a duration that must not be zero.
pub(super) fn nonzero_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DurationEntry>, D::Error> {
    let duration = DurationEntry::deserialize(deserializer)?;
    if duration.0.is_zero() { Err(D::Error::custom("the duration must be longer than 0")) } else { Ok(Some(duration)) }
}

#[cfg(feature = "schema")]
impl JsonSchema for DurationEntry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "description": "A duration: 500ms, 5s, 2m, 1h30m."})
    }
}

/// A secret or its source, as written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyEntry {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "path" }`
    File(String),
    /// `{ command = ["pass", "show", "x"] }`
    Command(Vec<String>),
    /// `{ command = "shell command line" }`
    #[serde(rename = "command")]
    Shell(String),
    /// `{ keyring = "name" }`
    Keyring(String),
    /// The value itself.
    #[serde(untagged)]
    Literal(String),
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
            Command(CommandSpec),
            Keyring(String),
        }
        let tagged = Tagged::deserialize(MapAccessDeserializer::new(&mut map))?;
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("a key source has exactly one of env, file, command and keyring"));
        }
        Ok(match tagged {
            Tagged::Env(name) => KeyEntry::Env(name),
            Tagged::File(path) => KeyEntry::File(path),
            Tagged::Command(CommandSpec::Args(args)) => KeyEntry::Command(args),
            Tagged::Command(CommandSpec::Line(line)) => KeyEntry::Shell(line),
            Tagged::Keyring(name) => KeyEntry::Keyring(name),
        })
    }
}

impl<'de> Deserialize<'de> for KeyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for KeyEntry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KeySource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let source_schema = |name: &str, schema: serde_json::Value| json_schema!({"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": false});
        let text = serde_json::json!({"type": "string"});
        let command = serde_json::json!({"type": ["string", "array"], "items": {"type": "string"}});
        json_schema!({
            "description": "A secret: the value itself, or where to read it.",
            "anyOf": [text.clone(), source_schema("env", text.clone()), source_schema("file", text.clone()), source_schema("command", command), source_schema("keyring", text)],
        })
    }
}

/// A command: a list of arguments, or a line for the shell.
enum CommandSpec {
    Args(Vec<String>),
    Line(String),
}

struct CommandSpecVisitor;

impl<'de> Visitor<'de> for CommandSpecVisitor {
    type Value = CommandSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings, or a command line for the shell")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<CommandSpec, E> {
        if line.trim().is_empty() {
            return Err(E::custom("the command is empty"));
        }
        Ok(CommandSpec::Line(line.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CommandSpec, A::Error> {
        let mut args = Vec::new();
        while let Some(arg) = seq.next_element()? {
            args.push(arg);
        }
        if args.is_empty() {
            Err(A::Error::custom("the command is empty: expected at least a program"))
        } else {
            Ok(CommandSpec::Args(args))
        }
    }
}

impl<'de> Deserialize<'de> for CommandSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandSpecVisitor)
    }
}

/// Amounts of money by currency, written as a number of US dollars or as a table.
#[derive(Clone, Debug)]
pub(crate) struct MoneyEntry(pub Vec<(String, f64)>);

/// The currency of an amount without one.
const DEFAULT_CURRENCY: &str = "USD";

struct MoneyVisitor;

impl<'de> Visitor<'de> for MoneyVisitor {
    type Value = MoneyEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of US dollars, or { USD = …, CNY = … }")
    }

    fn visit_f64<E: Error>(self, amount: f64) -> Result<MoneyEntry, E> {
        Ok(MoneyEntry(vec![(DEFAULT_CURRENCY.to_owned(), amount)]))
    }

    fn visit_i64<E: Error>(self, amount: i64) -> Result<MoneyEntry, E> {
        #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
        self.visit_f64(amount as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MoneyEntry, A::Error> {
        let mut amounts = Vec::new();
        while let Some(amount) = map.next_entry::<String, f64>()? {
            amounts.push(amount);
        }
        Ok(MoneyEntry(amounts))
    }
}

impl<'de> Deserialize<'de> for MoneyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MoneyVisitor)
    }
}

impl Serialize for MoneyEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(currency, amount)| (currency, amount)))
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for MoneyEntry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of US dollars, or an amount for each of several currencies: { USD = 5, CNY = 30 }.",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
            ],
        })
    }
}

/// A model of a route, with an optional weight.
#[derive(Clone, Debug)]
pub(crate) struct RouteMember {
    /// The model.
    pub name: String,
    /// The weight for the strategy `weighted`; default 1.
    pub weight: Option<u32>,
}

struct RouteMemberVisitor;

impl<'de> Visitor<'de> for RouteMemberVisitor {
    type Value = RouteMember;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model name or { name = …, weight = … }")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<RouteMember, E> {
        Ok(RouteMember { name: name.to_owned(), weight: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteMember, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Weighted {
            name: String,
            weight: Option<u32>,
        }
        let Weighted { name, weight } = Weighted::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RouteMember { name, weight })
    }
}

impl<'de> Deserialize<'de> for RouteMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RouteMemberVisitor)
    }
}

impl Serialize for RouteMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, weight } = self;
        let Some(weight) = weight else { return serializer.serialize_str(name) };
        let mut table = serializer.serialize_struct("RouteMember", 2)?;
        table.serialize_field("name", name)?;
        table.serialize_field("weight", weight)?;
        table.end()
    }
}

#[cfg(feature = "schema")]
impl JsonSchema for RouteMember {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteMember".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A model of a route, with an optional weight.",
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
    fn durations_are_parsed_with_units() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("5s"), Ok(5000));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("30"), Ok(30_000));
        assert_eq!(ms("0.5"), Ok(500));
        for invalid in ["", "-5s", "5 parsecs", "-1", "1e19", "9000h"] {
            assert!(parse_duration(invalid).is_err(), "{invalid:?}");
        }
    }
}
