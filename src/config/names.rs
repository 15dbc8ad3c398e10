//! What a name may be: letters of any script, digits, `.`, `_` and `-`, in Unicode's composed form (NFC).
//!
//! Owns the rule, and reading the names alone. `/`, `,`, `:` and space stay free, since they separate names on the command line.

use serde::{Deserialize, de::IgnoredAny};
use unicode_normalization::UnicodeNormalization;

use super::values::Table;

/// `name` in composed form, as names are compared.
#[must_use]
pub fn normalised(name: &str) -> String {
    name.nfc().collect()
}

/// The longest name that is given to something new: it has to fit into messages and tables.
pub(super) const LONGEST: usize = 64;

/// Whether something new may be called so: nothing that looks like a flag or a folder either.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = !name.starts_with('-') && !name.chars().all(|c| c == '.');
    plain && forbidden(name).is_none() && name.chars().count() <= LONGEST
}

/// The first character of `name` that no name may have.
pub(super) fn forbidden(name: &str) -> Option<char> {
    normalised(name).chars().find(|&c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-')))
}

/// The names a file gives, read without checking anything: for completing them, also while the file is being changed.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Endpoints, with the address as it is written.
    pub endpoints: Vec<(String, Option<String>)>,
    /// Models.
    pub models: Vec<String>,
    /// Routes.
    pub routes: Vec<String>,
    /// Sets.
    pub sets: Vec<String>,
    /// Presets.
    pub presets: Vec<String>,
    /// Labels of models, each once.
    pub tags: Vec<String>,
}

impl Names {
    /// The names in `text`; none when it is no TOML.
    #[must_use]
    pub fn of(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Loose {
            endpoints: Table<Address>,
            models: Table<Tags>,
            routes: Table<IgnoredAny>,
            sets: Table<IgnoredAny>,
            presets: Table<IgnoredAny>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Address {
            base_url: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Tags {
            tags: Vec<String>,
        }
        fn keys<T>(table: &Table<T>) -> Vec<String> {
            table.0.iter().map(|(name, _)| normalised(&name.value)).collect()
        }
        let loose: Loose = toml::from_str(text).unwrap_or_default();
        let mut tags: Vec<String> = loose.models.0.iter().flat_map(|(_, model)| model.tags.clone()).collect();
        tags.sort();
        tags.dedup();
        Self {
            models: keys(&loose.models),
            routes: keys(&loose.routes),
            sets: keys(&loose.sets),
            presets: keys(&loose.presets),
            endpoints: loose.endpoints.0.into_iter().map(|(name, at)| (normalised(&name.value), at.base_url)).collect(),
            tags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_are_fine_and_separators_are_not() {
        for name in ["fast", "通义", "gpt-4o.mini_2", "e\u{301}clair"] {
            assert_eq!(forbidden(name), None, "{name}");
        }
        for (name, bad) in [("a/b", '/'), ("a,b", ','), ("a b", ' '), ("a:b", ':'), ("😀", '😀')] {
            assert_eq!(forbidden(name), Some(bad));
        }
        assert_eq!(normalised("e\u{301}"), "é");
    }

    #[test]
    fn a_new_name_is_no_flag_and_no_folder() {
        let long = "x".repeat(LONGEST + 1);
        for name in ["", ".", "..", "-x", "a/b", "../pwn", "a b", long.as_str()] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("通义-2.5_x") && is_name("a.b"));
    }

    #[test]
    fn names_are_read_from_a_file_that_would_not_pass() {
        let text = "nonsense = 1\n[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.a]\ntags = [\"x\"]\n[sets]\ns = [\"gone\"]\n";
        let names = Names::of(text);
        assert_eq!((names.models, names.sets, names.tags), (vec!["a".into()], vec!["s".into()], vec!["x".into()]));
        assert_eq!(names.endpoints, [("e".to_owned(), Some("http://h/v1".to_owned()))]);
        assert!(Names::of("[broken").models.is_empty());
    }
}
