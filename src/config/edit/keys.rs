//! Edits the key sources of endpoints.

use toml_edit::{Array, ArrayOfTables, InlineTable, Item, Key, Table, TableLike, Value};

use super::{
    ConfigEditor, EditError,
    comments::{detached_comment, join_comments, prefix_of, prepend_comment},
    entries_mut,
    lists::{push_value, remove_values},
};
use crate::config::normalize_name;

/// A reference to a key: `env`, `file`, `command` or `keyring`, and its value.
pub type KeyRef = (&'static str, String);

impl ConfigEditor {
    /// Sets the key of an endpoint. `keep_existing` adds it to the existing keys instead of replacing them.
    pub fn set_key(&mut self, endpoint: &str, key_ref: &KeyRef, keep_existing: bool) -> Result<(), EditError> {
        let key = self.require_key("endpoints", "endpoint", &normalize_name(endpoint))?;
        let entry = self.document.get_mut("endpoints").and_then(|endpoints| endpoints.get_mut(&key));
        let entry = entry.and_then(Item::as_table_like_mut).ok_or(EditError::NotATable("endpoints"))?;
        let mut values = key_values(entry);
        if keep_existing
            && entry.get("api_key").is_none()
            && let Some(list) = entry.get_mut("api_keys").and_then(Item::as_array_mut)
        {
            if !list.iter().any(|value| is_key_ref(value, key_ref)) {
                push_value(list, key_ref_value(key_ref));
            }
            return Ok(());
        }
        if keep_existing
            && entry.get("api_key").is_none()
            && let Some(tables) = entry.get_mut("api_keys").and_then(Item::as_array_of_tables_mut)
        {
            if !values.iter().any(|value| is_key_ref(value, key_ref)) {
                tables.push(Table::from_iter([(key_ref.0, key_ref.1.as_str())]));
            }
            return Ok(());
        }
        if !keep_existing {
            values.clear();
        }
        if !values.iter().any(|value| is_key_ref(value, key_ref)) {
            values.push(key_ref_value(key_ref));
        }
        let comment = comment_above_tables(entry);
        replace_keys(entry, values);
        self.insert_comments_after_tables(comment.into_iter().collect());
        Ok(())
    }

    /// Removes the key references that match from all endpoints. `matches` gets the kind and the value of a reference.
    pub fn remove_key_refs(&mut self, matches: &dyn Fn(&str, &str) -> bool) {
        let is_removed = |value: &Value| {
            let table = value.as_inline_table().into_iter().flat_map(InlineTable::iter);
            table.filter_map(|(kind, value)| Some((kind, value.as_str()?))).any(|(kind, value)| matches(kind, value))
        };
        let (mut without_keys, mut comments) = (Vec::new(), Vec::new());
        for (endpoint, item) in entries_mut(self.document.get_mut("endpoints")) {
            let Some(entry) = item.as_table_like_mut() else { continue };
            let values = key_values(entry);
            let remaining: Vec<Value> = values.iter().filter(|value| !is_removed(value)).cloned().collect();
            if remaining.len() == values.len() {
                continue;
            }
            let is_empty = remaining.is_empty();
            match entry.get_mut("api_keys") {
                Some(Item::ArrayOfTables(tables)) => comments.extend(remove_tables(tables, &is_removed)),
                // A list over several lines may contain comments.
                Some(Item::Value(Value::Array(list))) if remaining.len() > 1 || list.to_string().contains('\n') => {
                    remove_values(list, &is_removed);
                }
                _ if !is_empty => replace_keys(entry, remaining),
                _ => {}
            }
            if is_empty {
                without_keys.push(endpoint);
            }
        }
        self.insert_comments_after_tables(comments);
        for endpoint in without_keys {
            self.remove_key(&["endpoints", &endpoint], "api_key");
            self.remove_key(&["endpoints", &endpoint], "api_keys");
        }
    }
}

/// Removes the keys that match from `[[endpoints.NAME.api_keys]]`. Detached comments move to the next key. Returns the
/// comments of removed keys that no other key follows, and the position of the last removed table.
fn remove_tables(tables: &mut ArrayOfTables, is_removed: &dyn Fn(&Value) -> bool) -> Option<(String, isize)> {
    let is_removed = |table: &Table| to_inline_table(table).is_some_and(|key| is_removed(&key));
    let (mut comments, mut position) = (Vec::new(), None);
    for table in tables.iter_mut() {
        if is_removed(table) {
            comments.push(detached_comment(&prefix_of(table.decor())).to_owned());
            position = table.position();
        } else {
            prepend_comment(table.decor_mut(), &join_comments(&std::mem::take(&mut comments)));
        }
    }
    tables.retain(|table| !is_removed(table));
    position.map(|position| (join_comments(&comments), position))
}

/// The detached comments above the headers of keys that are written as tables, and the position of the last of these.
fn comment_above_tables(entry: &dyn TableLike) -> Option<(String, isize)> {
    let single = entry.get("api_key").and_then(Item::as_table).into_iter();
    let several = entry.get("api_keys").and_then(Item::as_array_of_tables).into_iter().flatten();
    let (comments, positions): (Vec<String>, Vec<isize>) = single
        .chain(several)
        .filter_map(|table| Some((detached_comment(&prefix_of(table.decor())).to_owned(), table.position()?)))
        .unzip();
    Some((join_comments(&comments), positions.into_iter().max()?))
}

/// The values of `api_key` and `api_keys`, in any TOML notation.
fn key_values(entry: &dyn TableLike) -> Vec<Value> {
    let single = entry
        .get("api_key")
        .and_then(|item| item.as_value().cloned().or_else(|| to_inline_table(item.as_table_like()?)));
    let list = entry.get("api_keys");
    let array_values = list.and_then(Item::as_array).into_iter().flatten().cloned();
    // `[[endpoints.a.api_keys]]`
    let table_values =
        list.and_then(Item::as_array_of_tables).into_iter().flatten().filter_map(|table| to_inline_table(table));
    single.into_iter().chain(array_values).chain(table_values).collect()
}

/// Converts `api_key.env = "A"` and `[endpoints.a.api_key]` to an inline table.
fn to_inline_table(table: &dyn TableLike) -> Option<Value> {
    let pairs: Option<Vec<(&str, Value)>> =
        table.iter().map(|(key, item)| Some((key, item.as_value()?.clone()))).collect();
    let mut inlined: InlineTable = pairs?.into_iter().collect();
    inlined.fmt();
    Some(inlined.into())
}

/// Replaces the keys, at the position of the first one, by at least one other; keeps the comments of the first one.
fn replace_keys(entry: &mut dyn TableLike, mut values: Vec<Value>) {
    for value in &mut values {
        value.decor_mut().clear();
    }
    let (name, value): (&str, Option<Value>) = match values.len() {
        0 | 1 => ("api_key", values.pop()),
        _ => ("api_keys", Some(values.into_iter().collect::<Array>().into())),
    };
    let Some(mut value) = value else { return };
    // toml_edit cannot rename a key in place, so all entries are removed and inserted again in order.
    let keys: Vec<Key> = entry.iter().filter_map(|(key, _)| entry.key(key).cloned()).collect();
    let mut placed = false;
    for key in keys {
        let Some(item) = entry.remove(&key) else { continue };
        if key != "api_key" && key != "api_keys" {
            super::insert_with_decor(entry, &key, item);
        } else if !std::mem::replace(&mut placed, true) {
            // Of a key that is written as a table, the first line has the comments: `api_key.env = "A" # mine`.
            let first_line = item.as_table_like().and_then(|table| {
                let (key, value) = table.iter().next()?;
                Some((table.key(key)?, value.as_value()?))
            });
            let (old_key, old_value) = item.as_value().map(|value| (&key, value)).or(first_line).unzip();
            let new_key = old_key.map_or_else(|| Key::new(name), |old| super::renamed_key(old, name));
            if let Some(old) = old_value {
                *value.decor_mut() = old.decor().clone();
            }
            super::insert_with_decor(entry, &new_key, Item::Value(value.clone()));
        }
    }
    if !placed {
        entry.insert(name, Item::Value(value));
    }
}

/// `{ file = "keys/openai" }`
pub(super) fn key_ref_value((kind, value): &KeyRef) -> Value {
    InlineTable::from_iter([(*kind, value.as_str())]).into()
}

fn is_key_ref(entry: &Value, (kind, value): &KeyRef) -> bool {
    entry.as_inline_table().and_then(|table| table.get(kind)?.as_str()) == Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key = { env = \"A\" } # mine\n[endpoints.b]\nbase_url = \"http://b/v1\"\n";

    fn file(name: &str) -> KeyRef {
        ("file", format!("keys/{name}"))
    }

    fn edited(apply: impl FnOnce(&mut ConfigEditor)) -> String {
        let mut editor = ConfigEditor::parse(CONFIG).expect("valid TOML");
        apply(&mut editor);
        editor.text()
    }

    #[test]
    fn key_replaces_or_extends_the_existing_keys() {
        let text = edited(|editor| editor.set_key("a", &file("a"), false).expect("known endpoint"));
        assert!(text.contains("api_key = { file = \"keys/a\" } # mine"), "{text}");
        let text = edited(|editor| editor.set_key("a", &file("a"), true).expect("known endpoint"));
        assert!(text.contains("api_keys = [{ env = \"A\" }, { file = \"keys/a\" }]"), "{text}");
        let text = edited(|editor| editor.set_key("b", &file("b"), true).expect("known endpoint"));
        assert!(text.contains("api_key = { file = \"keys/b\" }"), "{text}");
        assert!(edited(|editor| assert!(editor.set_key("c", &file("c"), true).is_err())) == CONFIG);
    }

    #[test]
    fn existing_keys_are_found_in_any_notation() {
        for old in [
            "api_key.env = \"A\"",
            "# above\napi_key = { env = \"A\" } # mine\nrpm = 7",
            "[endpoints.a.api_key]\nenv = \"A\"",
        ] {
            let mut editor = ConfigEditor::parse(&format!("[endpoints.a]\nbase_url = \"http://h/v1\"\n{old}\n"))
                .expect("valid TOML");
            editor.set_key("a", &file("a"), true).expect("known endpoint");
            let text = editor.text();
            assert!(text.contains("api_keys = [{ env = \"A\" }, { file = \"keys/a\" }]"), "{text}");
            assert!(
                !old.contains("rpm") || text.contains("# above\napi_keys") && text.ends_with("# mine\nrpm = 7\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn key_is_added_to_keys_in_tables_and_comments_are_kept() {
        let config =
            "[endpoints.a]\nbase_url = \"http://h/v1\"\n[[endpoints.a.api_keys]] # first\nenv = \"A\" # mine\n";
        let mut editor = ConfigEditor::parse(config).expect("valid TOML");
        editor.set_key("a", &file("a"), true).expect("known endpoint");
        assert_eq!(editor.text(), format!("{config}\n[[endpoints.a.api_keys]]\nfile = \"keys/a\"\n"));
        let dotted = "[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key.env = \"A\" # mine\n";
        let mut editor = ConfigEditor::parse(dotted).expect("valid TOML");
        editor.set_key("a", &file("a"), false).expect("known endpoint");
        assert!(editor.text().ends_with("api_key = { file = \"keys/a\" } # mine\n"), "{}", editor.text());
        let commented = dotted.replace("api_key", "# --- credentials ---\n\n# of ops\napi_key");
        let mut editor = ConfigEditor::parse(&commented).expect("valid TOML");
        editor.set_key("a", &file("a"), false).expect("known endpoint");
        assert_eq!(editor.text(), commented.replace(".env = \"A\"", " = { file = \"keys/a\" }"));
    }

    #[test]
    fn appending_to_a_list_keeps_lines_and_comments() {
        for (end, last) in [(",", " # second is best"), (" # second is best", ""), (",", "")] {
            let list = format!("[\n  {{ env = \"A\" }}, # first\n  {{ env = \"B\" }}{end}{last}\n]");
            let mut editor =
                ConfigEditor::parse(&format!("[endpoints.a]\napi_keys = {list} # both\n")).expect("valid TOML");
            editor.set_key("a", &file("c"), true).expect("known endpoint");
            let text = editor.text();
            assert!(text.contains("{ env = \"A\" }, # first\n  { env = \"B\" },"), "{text}");
            assert!(text.ends_with("\n  { file = \"keys/c\" },\n] # both\n"), "{text}");
            assert_eq!(text.contains("B\" }, # second is best\n"), end.len() + last.len() > 1, "{text}");
        }
    }

    #[test]
    fn comments_of_other_keys_are_kept() {
        let head = "[endpoints.a]\nbase_url = \"http://h/v1\"\n";
        let without_b = |keys: &str| {
            let mut editor = ConfigEditor::parse(&format!("{head}{keys}")).expect("valid TOML");
            editor.remove_key_refs(&|kind, value| kind == "env" && value == "B");
            editor.text().strip_prefix(head).expect("the same endpoint").to_owned()
        };
        let tables = "[[endpoints.a.api_keys]] # first\nenv = \"A\" # owner: ops\n# spare\n\n# the second\n\
            [[endpoints.a.api_keys]]\nenv = \"B\"\n# third\n[[endpoints.a.api_keys]]\nenv = \"C\"\n";
        let want = "[[endpoints.a.api_keys]] # first\nenv = \"A\" # owner: ops\n# spare\n\n# third\n[[endpoints.a.api_keys]]\nenv = \"C\"\n";
        assert_eq!(without_b(tables), want);
        let mut editor = ConfigEditor::parse(&format!("{head}{tables}[models]\n")).expect("valid TOML");
        editor.set_key("a", &file("a"), false).expect("known endpoint");
        let want = format!("{head}api_key = {{ file = \"keys/a\" }}\n# spare\n\n[models]\n");
        assert_eq!(editor.text(), want);
        let last = "# --- credentials ---\n\n# mine\n[[endpoints.a.api_keys]]\nenv = \"B\"\n[models]\n";
        assert_eq!(without_b(last), "# --- credentials ---\n\n[models]\n");
        let single = "# --- credentials ---\n\n# mine\napi_key = { env = \"B\" }\nrpm = 5\n";
        assert_eq!(without_b(single), "# --- credentials ---\n\nrpm = 5\n");
    }

    #[test]
    fn removed_key_is_removed_from_all_endpoints() {
        let text = edited(|editor| {
            editor.set_key("a", &file("x"), true).expect("known endpoint");
            editor.set_key("b", &file("x"), false).expect("known endpoint");
            editor.remove_key_refs(&|kind, value| kind == "file" && value == "keys/x");
        });
        assert!(text.contains("api_key = { env = \"A\" }") && !text.contains("keys/x"), "{text}");
    }
}
