//! Config keys that were renamed: the old spelling is still accepted, and `mmchat config migrate` replaces it.

use std::ops::Range;

use toml_edit::{Document, Item};

/// Renamed keys: the table of the entries, the old key and the new key. In `file`, the new key has a `serde(alias)` for
/// the old one.
pub(super) const RENAMED_KEYS: [(&str, &str, &str); 1] = [("routes", "on_cut", "on_incomplete")];

/// The old names of the key `new` of the entries in `table`.
pub(super) fn old_names<'a>(table: &'a str, new: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    RENAMED_KEYS.iter().filter(move |(known, _, name)| *known == table && *name == new).map(|(_, old, _)| *old)
}

/// A use of an old key in a config file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenamedKey {
    /// The entry, as `[routes.chat]`.
    pub entry: String,
    /// The old key.
    pub old: &'static str,
    /// The new key.
    pub new: &'static str,
    /// The position of the old key in the text.
    span: Range<usize>,
}

impl std::fmt::Display for RenamedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} is now {}", self.entry, self.old, self.new)
    }
}

/// The old keys that the config file `text` uses; none if it is not valid TOML.
#[must_use]
pub fn find_renamed_keys(text: &str) -> Vec<RenamedKey> {
    // Parsing the file a second time is only necessary if it contains an old key at all.
    if !RENAMED_KEYS.iter().any(|(_, old, _)| text.contains(old)) {
        return Vec::new();
    }
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let mut renamed = Vec::new();
    for (table, old, new) in RENAMED_KEYS {
        let entries = document.get(table).and_then(Item::as_table_like);
        for (name, entry) in entries.iter().flat_map(|entries| entries.iter()) {
            let Some(span) = entry.as_table_like().and_then(|entry| entry.get_key_value(old)?.0.span()) else {
                continue;
            };
            renamed.push(RenamedKey { entry: format!("[{table}.{name}]"), old, new, span });
        }
    }
    renamed
}

/// Replaces the old keys in `text`; every other byte stays.
#[must_use]
pub fn replace_renamed_keys(text: &str, renamed: &[RenamedKey]) -> String {
    let mut out = text.to_owned();
    let mut by_position: Vec<_> = renamed.iter().collect();
    by_position.sort_by_key(|key| std::cmp::Reverse(key.span.start));
    for key in by_position {
        out.replace_range(key.span.clone(), key.new);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_keys_are_replaced_in_every_notation() {
        let text = "# on_cut\n[routes.a]\nmodels = [\"x\"]\non_cut = \"buffer\" # why\n[routes.\"b/c\"]\n\"on_cut\" = 'restart'\n\
                    [routes]\nd = { models = [], on_cut = \"error\" }\ne.on_cut = \"error\"\n[sets]\non_cut = []\n";
        let renamed = find_renamed_keys(text);
        let messages: Vec<_> = renamed.iter().map(ToString::to_string).collect();
        assert_eq!(
            messages[..2],
            ["[routes.a]: on_cut is now on_incomplete", "[routes.b/c]: on_cut is now on_incomplete"]
        );
        let replaced = replace_renamed_keys(text, &renamed);
        assert_eq!(renamed.len(), 4);
        let expected = text.replace("\non_cut = \"buffer\"", "\non_incomplete = \"buffer\"");
        let expected = expected.replace("\"on_cut\" =", "on_incomplete =").replace(", on_cut =", ", on_incomplete =");
        assert_eq!(replaced, expected.replace("e.on_cut", "e.on_incomplete"));
        assert!(find_renamed_keys(&replaced).is_empty());
    }

    #[test]
    fn invalid_file_has_no_renamed_keys() {
        assert!(find_renamed_keys("[routes.a\non_cut = 1").is_empty());
    }
}
