//! Rules for names, in Unicode's composed form (NFC).
//!
//! Models, routes and sets have the names that clients and services use, such as `qwen2.5:7b` and `kimi/kimi-k3`: any
//! visible characters but `,` and `=`, which separate names on the command line. Endpoints, presets and client keys have
//! letters of any script, digits, `.`, `_` and `-`: the name of an endpoint ends at the first `/` of `endpoint/id`, and
//! presets are files.

use serde::{Deserialize, de::IgnoredAny};
use unicode_normalization::UnicodeNormalization;

use super::values::OrderedTable;
use crate::model::sanitize::is_invisible;

/// `name` in NFC, the form in which names are compared.
#[must_use]
pub(crate) fn normalize_name(name: &str) -> String {
    name.nfc().collect()
}

/// `name`, with a number appended if it is taken.
#[must_use]
pub(crate) fn unique_name(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).expect("the number range is unbounded")
}

/// Maximum length of a new name, in characters, so that it fits into messages and tables.
pub(super) const MAX_NAME_CHARS: usize = 64;

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// A model, a route or a set.
    Model,
    /// An endpoint, a preset or a client key.
    Other,
}

/// Whether `name` is valid for a new entry. Stricter than for existing ones: it must not look like a flag or a folder.
#[must_use]
pub(crate) fn is_valid_new_name(kind: NameKind, name: &str) -> bool {
    let plain = !name.starts_with('-') && !name.chars().all(|c| c == '.');
    plain && name_problem(kind, name).is_none() && name.chars().count() <= MAX_NAME_CHARS
}

/// Why `name` is not allowed.
pub(super) fn name_problem(kind: NameKind, name: &str) -> Option<String> {
    let invalid = match kind {
        NameKind::Model => normalize_name(name).chars().find(|&c| is_invalid_in_model_name(c)),
        NameKind::Other => first_invalid_char(name),
    };
    match invalid {
        _ if name.is_empty() => Some("a name cannot be empty".to_owned()),
        Some(c) => Some(format!("a name cannot contain {c:?}")),
        None if name.trim() != name => Some("a name cannot begin or end with a blank".to_owned()),
        None => None,
    }
}

fn is_invalid_in_model_name(c: char) -> bool {
    matches!(c, ',' | '=') || is_invisible(c)
}

/// Whether an environment variable can have this name.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=')
}

/// The first character of `name` that only models, routes and sets may have.
pub(super) fn first_invalid_char(name: &str) -> Option<char> {
    normalize_name(name).chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-')))
}

/// The names in a config file, read without validation, so that shell completion works while the file is being edited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Endpoints, with their `base_url` as written.
    pub endpoints: Vec<(String, Option<String>)>,
    /// Models.
    pub models: Vec<String>,
    /// Routes.
    pub routes: Vec<String>,
    /// Sets.
    pub sets: Vec<String>,
    /// Presets.
    pub presets: Vec<String>,
    /// Tags of models, without duplicates.
    pub tags: Vec<String>,
}

impl Names {
    /// The names of both, without duplicates.
    #[must_use]
    pub(crate) fn merge(mut self, other: Self) -> Self {
        fn add(names: &mut Vec<String>, others: Vec<String>) {
            for name in others {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let Self { endpoints, models, routes, sets, presets, tags } = other;
        self.endpoints.retain(|(name, _)| !endpoints.iter().any(|(other, _)| other == name));
        self.endpoints.extend(endpoints);
        add(&mut self.models, models);
        add(&mut self.routes, routes);
        add(&mut self.sets, sets);
        add(&mut self.presets, presets);
        add(&mut self.tags, tags);
        self
    }

    /// Whether an entry of this kind has this name.
    pub(crate) fn contains(&self, kind: &str, name: &str) -> bool {
        let names = match kind {
            "endpoint" => return self.endpoints.iter().any(|(known, _)| known == name),
            "model" => &self.models,
            "route" => &self.routes,
            "set" => &self.sets,
            "preset" => &self.presets,
            _ => return false,
        };
        names.iter().any(|known| known == name)
    }

    /// The names in `text`; empty when it is not valid TOML.
    #[must_use]
    pub(crate) fn parse_lenient(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct LenientConfig {
            endpoints: OrderedTable<EndpointAddress>,
            models: OrderedTable<ModelTags>,
            routes: OrderedTable<IgnoredAny>,
            sets: OrderedTable<IgnoredAny>,
            presets: OrderedTable<IgnoredAny>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct EndpointAddress {
            base_url: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct ModelTags {
            tags: Vec<String>,
        }
        fn keys<T>(table: &OrderedTable<T>) -> Vec<String> {
            table.0.iter().map(|(name, _)| normalize_name(&name.value)).collect()
        }
        let file: LenientConfig = toml::from_str(text).unwrap_or_default();
        let mut tags: Vec<String> = file.models.0.iter().flat_map(|(_, model)| model.tags.clone()).collect();
        tags.sort();
        tags.dedup();
        Self {
            models: keys(&file.models),
            routes: keys(&file.routes),
            sets: keys(&file.sets),
            presets: keys(&file.presets),
            endpoints: file
                .endpoints
                .0
                .into_iter()
                .map(|(name, entry)| (normalize_name(&name.value), entry.base_url))
                .collect(),
            tags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_are_allowed_and_separators_are_not() {
        for name in ["fast", "通义", "gpt-4o.mini_2", "e\u{301}clair"] {
            assert_eq!(first_invalid_char(name), None, "{name}");
        }
        for (name, bad) in [("a/b", '/'), ("a,b", ','), ("a b", ' '), ("a:b", ':'), ("😀", '😀')] {
            assert_eq!(first_invalid_char(name), Some(bad));
        }
        assert_eq!(normalize_name("e\u{301}"), "é");
    }

    #[test]
    fn models_may_have_the_names_that_services_use() {
        for name in ["qwen2.5:7b", "kimi/kimi-k3", "claude@20240620", "openai/*", "*", "@cf/meta/llama", "a b", "😀"]
        {
            assert_eq!(name_problem(NameKind::Model, name), None, "{name}");
        }
        for name in ["", " a", "a ", "a,b", "a=b", "a\nb", "a\u{1b}b", "a\u{202e}b", "a\u{200b}b"] {
            assert!(name_problem(NameKind::Model, name).is_some(), "{name:?}");
        }
        assert!(name_problem(NameKind::Other, "a/b").is_some());
    }

    #[test]
    fn new_name_must_not_look_like_a_flag_or_folder() {
        let long = "x".repeat(MAX_NAME_CHARS + 1);
        for name in ["", ".", "..", "-x", "a/b", "../pwn", "a b", long.as_str()] {
            assert!(!is_valid_new_name(NameKind::Other, name), "{name}");
        }
        let is_valid = |name| is_valid_new_name(NameKind::Other, name);
        assert!(is_valid("通义-2.5_x") && is_valid("a.b"));
        assert!(is_valid_new_name(NameKind::Model, "kimi/k3") && !is_valid_new_name(NameKind::Model, "-k3"));
    }

    #[test]
    fn names_are_read_from_an_invalid_config() {
        let text = "nonsense = 1\n[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.a]\ntags = [\"x\"]\n[sets]\ns = [\"gone\"]\n";
        let names = Names::parse_lenient(text);
        assert_eq!((names.models, names.sets, names.tags), (vec!["a".into()], vec!["s".into()], vec!["x".into()]));
        assert_eq!(names.endpoints, [("e".to_owned(), Some("http://h/v1".to_owned()))]);
        assert!(Names::parse_lenient("[broken").models.is_empty());
    }
}
