//! Finds secrets in the parsed values: every value below a key such as `api_key`, unless it only names the source of the
//! secret, and URLs with a user or a query.

use std::{collections::HashSet, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::words::{ENTRY_TABLES, HARMLESS_KEYS, secret_words, sensitive_word_end};
use crate::config::names::is_variable_name;

/// Keys whose value only names the source of a secret. A command may contain one.
const SOURCE_NAMES: [&str; 3] = ["env", "file", "keyring"];
/// The sources of a key.
const KEY_SOURCES: [&str; 4] = ["env", "file", "command", "keyring"];
/// The settings of a client in `[serve.keys.NAME]`.
const CLIENT_SETTINGS: [&str; 6] = ["models", "rpm", "max_concurrency", "spend", "metrics", "api_key"];

/// The secrets of a parsed file.
pub(super) struct SecretValues<'a> {
    text: &'a str,
    /// The positions of the values.
    pub(super) ranges: Vec<Range<usize>>,
    /// The texts of the values, as messages quote them.
    pub(super) secrets: Vec<String>,
    /// The words of commands.
    command_words: Vec<String>,
}

/// Finds the secrets of `table`, which was parsed from `text`.
pub(super) fn scan_values<'a>(text: &'a str, table: &DeTable<'_>) -> SecretValues<'a> {
    let mut values = SecretValues { text, ranges: Vec::new(), secrets: Vec::new(), command_words: Vec::new() };
    values.scan_table(table, &mut Vec::new());
    // A word of a command that is also the name of an entry is no secret.
    let names: HashSet<&str> = ENTRY_TABLES
        .iter()
        .filter_map(|name| table.get(*name)?.get_ref().as_table())
        .flat_map(|entries| entries.keys().map(|name| name.get_ref().as_ref()))
        .collect();
    let words = std::mem::take(&mut values.command_words);
    values.secrets.extend(words.into_iter().filter(|word| !names.contains(word.as_str())));
    values
}

impl SecretValues<'_> {
    fn scan_table<'t>(&mut self, table: &'t DeTable<'_>, path: &mut Vec<&'t str>) {
        // In place of a secret, a table has no known keys, and its keys may be the secret. A misspelled source or setting
        // is shown.
        let is_client = matches!(path[..], ["serve", "keys", _]);
        let has_names_as_keys =
            matches!(path[..], [.., "headers"] | ["serve", "keys"]) || is_client || is_place_of_endpoints(path);
        let is_in_place_of_a_secret = is_secret_path(path) && !has_names_as_keys;
        for (key, value) in table {
            let is_known = is_similar(key.get_ref(), &KEY_SOURCES)
                || is_client
                    && (is_similar(key.get_ref(), &CLIENT_SETTINGS) || HARMLESS_KEYS.contains(&key.get_ref().as_ref()));
            if (is_in_place_of_a_secret || is_client) && !is_known {
                self.ranges.push(key.span());
                self.push_secret(key.get_ref());
            }
            path.push(key.get_ref());
            self.scan_value(value, path);
            path.pop();
        }
    }

    fn scan_value<'t>(&mut self, value: &'t Spanned<DeValue<'_>>, path: &mut Vec<&'t str>) {
        match value.get_ref() {
            DeValue::Table(table) => self.scan_table(table, path),
            DeValue::Array(elements) => {
                // `env = ["…"]` names no variable.
                path.push("");
                elements.iter().for_each(|element| self.scan_value(element, path));
                path.pop();
            }
            DeValue::String(text) => {
                let source = &self.text[value.span()];
                // A pasted key instead of the name of a variable.
                let is_secret = is_secret_path(path)
                    || is_source_of_a_secret(path) && path.ends_with(&["env"]) && !is_variable_name(text);
                if is_secret || has_hidden_url_secret(text, source) {
                    self.ranges.push(value.span());
                    self.push_secret(text);
                    let words = if path.contains(&"command") { &mut self.command_words } else { &mut self.secrets };
                    words.extend(secret_words(text));
                }
            }
            DeValue::Boolean(_) => {}
            // Messages do not quote a masked number.
            _ if is_secret_path(path) || is_source_of_a_secret(path) => self.ranges.push(value.span()),
            _ => {}
        }
    }

    /// Adds a secret as it is, and as a quoted value, with escape sequences.
    fn push_secret(&mut self, text: &str) {
        let quoted = format!("{text:?}");
        let texts = [text.trim(), quoted.trim_matches('"')];
        self.secrets.extend(texts.into_iter().filter(|text| !text.is_empty()).map(str::to_owned));
    }
}

/// Whether the value at `path` is a secret: a key of the path has a sensitive name, and the last one is not the source of
/// a secret. The names of entries and the settings of a client in `serve.keys` do not count; a value in place of an
/// endpoint, of a client or of all clients, and unknown settings of a client, are secret.
fn is_secret_path(path: &[&str]) -> bool {
    let keys = match path {
        path if is_place_of_endpoints(path) => return true,
        ["serve", "keys", _, "api_key", source] if SOURCE_NAMES.contains(source) => return false,
        ["serve", "keys", _, setting, ..] if CLIENT_SETTINGS.contains(setting) => return *setting == "api_key",
        ["serve", "keys", ..] => return true,
        ["spend", "endpoints" | "models", _, keys @ ..] => keys,
        [table, _, keys @ ..] if ENTRY_TABLES.contains(table) => keys,
        keys => keys,
    };
    let names_source = keys.last().is_some_and(|key| SOURCE_NAMES.contains(key));
    !names_source && keys.iter().any(|key| !HARMLESS_KEYS.contains(key) && sensitive_word_end(key).is_some())
}

/// Whether `path` is that of all endpoints, of one, or of an element of a list in place of one.
fn is_place_of_endpoints(path: &[&str]) -> bool {
    path.first() == Some(&"endpoints") && path.iter().skip(2).all(|key| key.is_empty())
}

/// Whether `key` is one of `names`, or a misspelled one.
fn is_similar(key: &str, names: &[&str]) -> bool {
    let is_word = !key.contains(|c: char| c.is_ascii_digit());
    names.iter().any(|name| key == *name || is_word && strsim::damerau_levenshtein(key, name) <= 2)
}

/// Whether the value at `path` names the source of a secret.
fn is_source_of_a_secret(path: &[&str]) -> bool {
    path.split_last().is_some_and(|(key, parent)| SOURCE_NAMES.contains(key) && is_secret_path(parent))
}

/// Whether `text` is a URL with a user or a query that the scan of the words may not find, since it contains a space or a
/// quote, or is written with escape sequences.
fn has_hidden_url_secret(text: &str, source: &str) -> bool {
    let is_separator = |c: char| c.is_whitespace() || "\"'".contains(c);
    text.contains("://") && text.contains(['@', '?']) && (text.contains(is_separator) || !source.contains(text))
}
