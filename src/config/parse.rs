//! Deserializes a TOML file and reports every error in it, not only the first.
//!
//! serde stops at the first error. So the value with the error is removed from the parsed table, or the missing key is
//! added, and the table is deserialized again, until nothing is wrong. A named entry with an error is left out of the
//! result; its name is kept, so that references to it are not reported as unknown.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue, Deserializer, Error};

use super::{
    Problem,
    names::normalize_name,
    renamed_keys::RENAMED_KEYS,
    source::SourceMap,
    table_path::{Step, entry_path, is_table_path, path_at, remove_at, table_at},
    toml_problem::toml_problem,
};

/// Reports at most this many errors of a file.
pub(super) const MAX_ERRORS: usize = 100;
/// Deserializes a table at most this many times.
const MAX_ATTEMPTS: usize = 4 * MAX_ERRORS;
/// The position of the first value that is not in the text.
const FIRST_PLACEHOLDER: usize = usize::MAX / 2;

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
        let mut problems: Vec<_> = errors.iter().take(MAX_ERRORS).map(|error| toml_problem(source, error)).collect();
        // After an error the parser may find the same error again.
        let mut reported = HashSet::new();
        problems.retain(|problem| reported.insert((problem.labels.clone(), problem.message.clone())));
        return Parsed { value: None, problems, skipped_names: Vec::new() };
    }
    let span = table.span();
    let mut parser = TableParser {
        table: table.into_inner(),
        span,
        skipped: Vec::new(),
        removed: Vec::new(),
        placeholders: HashMap::new(),
        placeholder_count: 0,
    };
    let mut problems: Vec<Problem> = parser.remove_unsupported_values(source);
    problems.extend(parser.remove_old_names(source));
    let (value, errors) = parser.parse();
    problems.extend(errors.iter().map(|error| toml_problem(source, error)));
    problems.truncate(MAX_ERRORS);
    let names = parser.skipped.iter().filter_map(|path| match path.get(1) {
        Some(Step::Key(name)) => Some(normalize_name(name)),
        _ => None,
    });
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
    skipped: Vec<Vec<Step>>,
    /// The paths of removed keys and values.
    removed: Vec<Vec<Step>>,
    /// The paths of values that stand in for missing keys, with the index of their kind.
    placeholders: HashMap<Vec<Step>, usize>,
    /// The number of placeholders set so far, for their positions.
    placeholder_count: usize,
}

impl TableParser<'_> {
    /// Removes the values that no key accepts: dates, `nan`, `inf`, too large integers, and lists instead of tables.
    fn remove_unsupported_values(&mut self, source: &SourceMap) -> Vec<Problem> {
        let mut found = Vec::new();
        find_unsupported(&self.table, &mut Vec::new(), &mut found);
        let mut problems = Vec::new();
        for (path, span, message) in found {
            problems.push(Problem::new(source, message, span));
            self.skipped.push(entry_path(&path).to_vec());
            self.remove(path);
        }
        problems
    }

    /// Removes the old name of a key whose new name is set too.
    fn remove_old_names(&mut self, source: &SourceMap) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (table, old, new) in RENAMED_KEYS {
            let entries = self.table.get(table).and_then(|table| table.get_ref().as_table());
            let duplicates = entries.into_iter().flatten().filter_map(|(name, entry)| {
                let entry = entry.get_ref().as_table()?;
                let (key, _) = entry.get_key_value(old).filter(|_| entry.contains_key(new))?;
                Some(([table, name.get_ref(), old].map(|key| Step::Key(key.to_owned())).to_vec(), key.span()))
            });
            for (path, span) in duplicates.take(MAX_ERRORS).collect::<Vec<_>>() {
                let message = format!("`{old}` is the old name of `{new}`, which is set too");
                problems.push(Problem::new(source, message, span).help("remove it"));
                self.skipped.push(entry_path(&path).to_vec());
                self.remove(path);
            }
        }
        problems
    }

    fn parse<T: DeserializeOwned>(&mut self) -> (Option<T>, Vec<Error>) {
        let mut errors: Vec<Error> = Vec::new();
        let mut attempts = 0..MAX_ATTEMPTS;
        loop {
            if attempts.next().is_none() {
                return (None, errors);
            }
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
            let is_new_error = self.work_around(&error, path);
            if is_new_error {
                errors.push(error);
                if errors.len() == MAX_ERRORS {
                    return (None, errors);
                }
            }
        }
        for path in &self.skipped {
            remove_at(&mut self.table, path);
        }
        (self.deserialize().ok(), errors)
    }

    fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(Deserializer::from(toml::Spanned::new(self.span.clone(), self.table.clone())))
    }

    /// Changes the table so that the next error is found: removes the value at `path`, or adds a missing key. Returns
    /// whether `error` is one of the file, not a result of an earlier change.
    fn work_around(&mut self, error: &Error, path: Vec<Step>) -> bool {
        if let Some(kind) = self.placeholders.get(&path) {
            // The placeholder has the wrong type.
            let kind = kind + 1;
            self.set_placeholder(path, kind);
            return false;
        }
        if let Some(key) = missing_key(error) {
            let path = [&path[..], &[Step::Key(key.to_owned())]].concat();
            let is_new_error = !self.removed.contains(&path);
            self.set_placeholder(path, 0);
            return is_new_error;
        }
        let has_removed_part = can_result_from_removal(error)
            && self.removed.iter().any(|removed| removed.len() > path.len() && removed.starts_with(&path));
        self.remove(path);
        !has_removed_part
    }

    fn remove(&mut self, path: Vec<Step>) {
        remove_at(&mut self.table, &path);
        self.removed.push(path);
    }

    /// Sets the missing key at `path` to an empty value; removes its table if no kind of value fits.
    fn set_placeholder(&mut self, path: Vec<Step>, kind: usize) {
        let (key, parent) = path.split_last().expect("a placeholder has a key");
        let value = match kind {
            0 => DeValue::String(Cow::Borrowed("")),
            1 => DeValue::Integer(DeInteger::default()),
            2 => DeValue::Array(DeArray::new()),
            _ => {
                let parent = parent.to_vec();
                return self.remove(parent);
            }
        };
        let position = FIRST_PLACEHOLDER + self.placeholder_count;
        self.placeholder_count += 1;
        let spanned = toml::Spanned::new(position..position + 1, value);
        if let (Some(table), Step::Key(key)) = (table_at(&mut self.table, parent), key) {
            table.remove(key.as_str());
            table.insert(toml::Spanned::new(position..position + 1, Cow::Owned(key.clone())), spanned);
        } else {
            let parent = parent.to_vec();
            self.remove(parent);
        }
        self.placeholders.insert(path, kind);
    }
}

/// The key that a table lacks according to `error`.
fn missing_key(error: &Error) -> Option<&str> {
    error.message().strip_prefix("missing field `")?.split('`').next()
}

/// Whether a table or list can have this error only because parts of it were removed. A removal causes neither an
/// unknown key nor a key source with several keys.
fn can_result_from_removal(error: &Error) -> bool {
    !["unknown field", "a key source has exactly one"].iter().any(|start| error.message().starts_with(start))
}

type UnsupportedValue = (Vec<Step>, Range<usize>, &'static str);

fn find_unsupported(table: &DeTable<'_>, path: &mut Vec<Step>, found: &mut Vec<UnsupportedValue>) {
    for (key, value) in table {
        if found.len() == MAX_ERRORS {
            return;
        }
        path.push(Step::Key(key.get_ref().to_string()));
        find_unsupported_in(value, path, found);
        path.pop();
    }
}

fn find_unsupported_in(value: &toml::Spanned<DeValue<'_>>, path: &mut Vec<Step>, found: &mut Vec<UnsupportedValue>) {
    let message = match value.get_ref() {
        DeValue::Table(inner) => return find_unsupported(inner, path, found),
        DeValue::Array(_) if is_table_path(path) => "invalid type: list, expected a table",
        DeValue::Array(elements) => {
            for element in elements {
                if found.len() == MAX_ERRORS {
                    return;
                }
                path.push(Step::Element(element.span().start));
                find_unsupported_in(element, path, found);
                path.pop();
            }
            return;
        }
        DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
            "the number is too large"
        }
        DeValue::Float(number) if !number.as_str().parse::<f64>().is_ok_and(f64::is_finite) => {
            "expected a finite number"
        }
        DeValue::Datetime(_) => "a date is not supported here; write it as text",
        _ => return,
    };
    found.push((path.clone(), value.span(), message));
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
    fn errors_in_lists_are_all_listed() {
        let text = "[sets]\ns = [1, 2]\n[serve]\nhosts = [1, true]\n[endpoints.e]\nbase_url = \"http://h/v1\"\n\
                    api_keys = [5, { enw = \"x\" }]\n[routes.r]\nmodels = [{ weight = 1 }, { name = \"e/x\", weight = -1 }]\n";
        let lines: Vec<usize> = problems(text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [2, 2, 4, 4, 7, 7, 9, 9], "{:#?}", problems(text));
    }

    #[test]
    fn removed_elements_neither_hide_nor_cause_errors() {
        let endpoint = "[endpoints.e]\nbase_url = \"http://h/v1\"\n";
        for (keys, count) in [
            ("api_keys = [{ enw = \"x\" }, { env = \"A\", file = \"b\" }]", 2),
            ("api_keys = [{ env = 5 }, {}]", 2),
            ("api_keys = [nan, { env = nan }]", 2),
            (
                "nonsense = 1\ngzip = true\n[routes.r]\nmodels = [\"e/x\"]\nfoo = 1\non_cut = \"error\"\non_incomplete = \"error\"",
                3,
            ),
        ] {
            let found = problems(&format!("{endpoint}{keys}\n"));
            assert_eq!(found.len(), count, "{keys}: {found:#?}");
        }
        let tables = problems(&format!("{endpoint}[[routes.r.models]]\nweight = 1\n"));
        assert_eq!(tables.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>(), ["missing key `name`"]);
        let lost = problems("[[endpoints.ollama.api_keys]]\nenv = 5\n[[endpoints.ollama.api_keys]]\nenw = \"x\"\n");
        assert_eq!(lost.len(), 2, "{lost:#?}");
        let lists = "serve = [\"127.0.0.1:1\"]\nspend = [5]\n[endpoints]\ne = [\"http://h/v1\"]\nf.timeouts = [\"1s\"]\n\
            [models]\nm = [\"e\", \"x\"]\nn = { endpoint = \"f\", model = \"x\", price = [1, 2] }\n";
        let lists: Vec<String> = problems(lists).into_iter().map(|(_, message)| message).collect();
        assert_eq!(lists, ["invalid type: list, expected a table"; 6]);
        let dates = problems("[routes.r]\nmodels = [2026-01-01, { name = 2026-01-02 }]\n");
        assert_eq!(dates.len(), 2, "{dates:#?}");
    }

    #[test]
    fn missing_keys_of_a_table_without_a_header_are_its_own() {
        let found = problems("[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.m.price]\ninput = 1\noutput = 2\n");
        let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
        assert_eq!(messages, ["missing key `endpoint`", "missing key `model`"], "{found:#?}");
    }

    #[test]
    fn many_errors_are_limited() {
        let text = format!("x = [{}]\n[sets]\ns = [{}]\n", "nan, ".repeat(3000), "1, ".repeat(3000));
        assert!((50..=200).contains(&problems(&text).len()));
    }

    #[test]
    fn values_that_json_cannot_represent_are_reported_wherever_they_are() {
        let text = "history_days = 9223372036854775808\n[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.m]\nendpoint = \"e\"\n\
                    model = \"x\"\nextra = { a = [1.0, nan], b = { c = 2026-01-01 } }\nparams = { temperature = inf }\n";
        let found = problems(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 7, 7, 8], "{found:#?}");
    }

    #[test]
    fn all_syntax_errors_are_listed() {
        let found = problems("a = \n[b\nc = 'x\n");
        assert!(found.len() >= 2, "{found:?}");
    }
}
