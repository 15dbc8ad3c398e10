//! Deserializes a TOML file and reports every error in it, not only the first.
//!
//! serde stops at the first error. So the value with the error is removed from the parsed table, or the missing key is
//! added, and the table is deserialized again, until nothing is wrong. A named entry with an error is left out of the result; its name is kept,
//! so that references to it are not reported as unknown.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue, Deserializer, Error};

use super::{Problem, names::normalize_name, source::SourceMap, toml_problem::toml_problem};

/// Reports at most this many errors of a file.
const MAX_ERRORS: usize = 100;

/// The result of [`parse`].
pub(super) struct Parsed<T> {
    /// The value without the entries that have errors; `None` if the text is not valid TOML.
    pub(super) value: Option<T>,
    /// All errors.
    pub(super) problems: Vec<Problem>,
    /// The names of the entries that were left out.
    pub(super) skipped_names: Vec<String>,
}

/// Deserializes `text`, the file at offset `start` of `source`.
pub(super) fn parse<T: DeserializeOwned>(source: &SourceMap, text: &str, start: usize) -> Parsed<T> {
    let text = with_offset(text, start);
    let (table, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        let problems = errors.iter().take(MAX_ERRORS).map(|error| toml_problem(source, error)).collect();
        return Parsed { value: None, problems, skipped_names: Vec::new() };
    }
    let span = table.span();
    let mut parser = TableParser {
        table: table.into_inner(),
        span,
        skipped: Vec::new(),
        removed: Vec::new(),
        placeholders: HashMap::new(),
    };
    let (value, errors) = parser.parse();
    let problems = errors.iter().map(|error| toml_problem(source, error)).collect();
    let names = parser.skipped.iter().filter_map(|path| path.get(1)).map(|name| normalize_name(name));
    Parsed { value, problems, skipped_names: names.collect() }
}

/// `text` behind `start` blanks, so that the spans of the parser are offsets of the source map.
fn with_offset(text: &str, start: usize) -> Cow<'_, str> {
    const BOM: char = '\u{feff}';
    match start {
        0 => Cow::Borrowed(text),
        // A byte order mark is only valid at the start of a text.
        _ => Cow::Owned(match text.strip_prefix(BOM) {
            Some(rest) => " ".repeat(start + BOM.len_utf8()) + rest,
            None => " ".repeat(start) + text,
        }),
    }
}

struct TableParser<'t> {
    table: DeTable<'t>,
    span: Range<usize>,
    /// The paths of the entries with errors.
    skipped: Vec<Vec<String>>,
    /// The paths of removed keys and values.
    removed: Vec<Vec<String>>,
    /// The paths of values that stand in for missing keys, with the index of their kind.
    placeholders: HashMap<Vec<String>, usize>,
}

impl TableParser<'_> {
    fn parse<T: DeserializeOwned>(&mut self) -> (Option<T>, Vec<Error>) {
        let mut errors = Vec::new();
        loop {
            let error = match self.deserialize() {
                Ok(value) if self.skipped.is_empty() => return (Some(value), errors),
                Ok(_) => break,
                Err(error) => error,
            };
            let Some(path) = error.span().and_then(|span| path_at(&self.table, &span)) else {
                errors.push(error);
                return (None, errors);
            };
            self.skipped.push(entry_path(&path).to_vec());
            let is_new_error = self.work_around(&error, &path);
            if is_new_error {
                errors.push(error);
                if errors.len() == MAX_ERRORS {
                    return (None, errors);
                }
            }
        }
        for path in &self.skipped {
            remove(&mut self.table, path);
        }
        (self.deserialize().ok(), errors)
    }

    fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Deserializer::from(toml::Spanned::new(self.span.clone(), self.table.clone())))
    }

    /// Changes the table so that the next error is found: removes the value at `path`, or adds a missing key. Returns
    /// whether `error` is one of the file, not a result of an earlier change.
    fn work_around(&mut self, error: &Error, path: &[String]) -> bool {
        if let Some(kind) = self.placeholders.get(path) {
            // The placeholder has the wrong type.
            self.set_placeholder(path.to_vec(), kind + 1);
            return false;
        }
        if let Some(key) = missing_key(error) {
            let path = [path, &[key.to_owned()]].concat();
            let is_new_error = !self.removed.contains(&path);
            self.set_placeholder(path, 0);
            return is_new_error;
        }
        let has_removed_part =
            self.removed.iter().any(|removed| removed.len() > path.len() && removed.starts_with(path));
        remove(&mut self.table, path);
        self.removed.push(path.to_vec());
        !has_removed_part
    }

    /// Sets the missing key at `path` to an empty value; removes its table if no kind of value fits.
    fn set_placeholder(&mut self, path: Vec<String>, kind: usize) {
        let (key, parent) = path.split_last().expect("a placeholder has a key");
        let value = match kind {
            0 => DeValue::String(Cow::Borrowed("")),
            1 => DeValue::Integer(DeInteger::default()),
            2 => DeValue::Array(DeArray::new()),
            _ => return remove(&mut self.table, parent),
        };
        // Behind all positions of the text, and different for each placeholder.
        let position = self.placeholders.len() + usize::MAX / 2;
        let spanned = toml::Spanned::new(position..position + 1, value);
        if let Some(table) = table_at(&mut self.table, parent) {
            table.remove(key.as_str());
            table.insert(toml::Spanned::new(0..0, Cow::Owned(key.clone())), spanned);
        }
        self.placeholders.insert(path, kind);
    }
}

/// The key that a table lacks according to `error`.
fn missing_key(error: &Error) -> Option<&str> {
    error.message().strip_prefix("missing field `")?.split('`').next()
}

/// The path of the innermost key or value that contains `span`; a key comes before a value.
fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let contains = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut paths: Vec<(usize, bool, Vec<String>)> = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if contains(key.span()) {
            paths.push((key.span().len(), false, vec![name.clone()]));
        }
        if contains(value.span()) {
            paths.push((value.span().len(), true, vec![name.clone()]));
        }
        let inner = if let DeValue::Table(inner) = value.get_ref() { path_at(inner, span) } else { None };
        if let Some(mut inner) = inner {
            inner.insert(0, name);
            return Some(inner);
        }
    }
    paths.into_iter().min().map(|(_, _, path)| path)
}

fn remove(table: &mut DeTable<'_>, path: &[String]) {
    let Some((name, parent)) = path.split_last() else { return };
    if let Some(table) = table_at(table, parent) {
        table.remove(name.as_str());
    }
}

fn table_at<'a, 't>(table: &'a mut DeTable<'t>, path: &[String]) -> Option<&'a mut DeTable<'t>> {
    let Some((name, rest)) = path.split_first() else { return Some(table) };
    let (_, value) = table.iter_mut().find(|(key, _)| *key.get_ref() == name.as_str())?;
    if let DeValue::Table(inner) = value.get_mut() { table_at(inner, rest) } else { None }
}

/// The part of `path` that names the entry it belongs to: all of an entry is left out when part of it has an error.
pub(super) fn entry_path(path: &[String]) -> &[String] {
    let len = match path.first().map(String::as_str) {
        Some("endpoints" | "models" | "routes" | "sets" | "presets") => 2,
        Some("serve") if path.len() >= 3 && path[1] == "keys" => 3,
        Some("serve") => 1,
        _ => path.len(),
    };
    &path[..len.min(path.len())]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{ConfigError, resolve};

    /// The line of each problem, and its message.
    fn problems(text: &str) -> Vec<(usize, String)> {
        let Err(ConfigError::Invalid { problems, .. }) = resolve(text, Path::new("c.toml")) else {
            panic!("expected problems in {text}");
        };
        problems.iter().map(|problem| (problem.line_column().0, problem.message.clone())).collect()
    }

    #[test]
    fn every_schema_error_is_listed_with_the_errors_of_other_entries() {
        let text = "defualt = \"a\"\nhistory_days = \"x\"\n[endpoints.e]\nbase_url = 5\nrpmm = 3\ngzip = \"yes\"\n\
                    [endpoints.f]\nbase_url = \"http://h/v1\"\ntimeouts = { idle = \"soon\", total = 3 }\n\
                    [models.m]\nendpoint = \"e\"\n[models.n]\nendpoint = \"nowhere\"\nmodel = \"x\"\n\
                    [routes.r]\nmodels = [\"m\", \"n\", \"e/y\", \"unknown\"]\n[serve]\nlisten = 1\nhosts = 2\n";
        let found = problems(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 5, 6, 9, 9, 10, 13, 16, 18, 19], "{found:#?}");
    }

    #[test]
    fn every_missing_key_is_reported_unless_it_had_an_invalid_value() {
        let messages = |text: &str| problems(text).into_iter().map(|(_, message)| message).collect::<Vec<_>>();
        assert_eq!(messages("[models.m]\n"), ["missing key `endpoint`", "missing key `model`"]);
        assert_eq!(messages("[routes.r]\n"), ["missing key `models`"]);
        assert_eq!(
            messages("[models.m]\nendpoint = 1\nprice = {}\n"),
            [
                "missing key `model`",
                "invalid type: integer `1`, expected a string",
                "missing key `input`",
                "missing key `output`"
            ]
        );
    }

    #[test]
    fn references_to_an_entry_with_errors_are_not_unknown() {
        let found = problems(
            "default = \"m\"\n[endpoints.ollama]\n[models.m]\nendpoint = \"ollama\"\nmodel = \"x\"\nnonsense = 1\n\
             [sets]\ns = [\"m\"]\n[serve.keys.k]\napi_key = \"kkkkkkkk\"\nmodels = [\"m\"]\n",
        );
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn all_syntax_errors_are_listed() {
        let found = problems("a = \n[b\nc = 'x\n");
        assert!(found.len() >= 2, "{found:?}");
    }
}
