//! Changes to where an endpoint's keys are.

use toml_edit::{Array, InlineTable, Item, Key, TableLike, Value};

use super::{Edit, EditError, entries_mut};
use crate::config::normalised;

/// Where a key is: `env`, `file`, `command` or `keyring`, and which.
pub type KeyPlace = (&'static str, String);

impl Edit {
    /// The endpoint takes its key from `place`: in place of those it had, or beside them.
    pub fn set_key(&mut self, endpoint: &str, place: &KeyPlace, beside: bool) -> Result<(), EditError> {
        let key = self.existing("endpoints", "endpoint", &normalised(endpoint))?;
        let entry = self.document.get_mut("endpoints").and_then(|endpoints| endpoints.get_mut(&key));
        let entry = entry.and_then(Item::as_table_like_mut).ok_or(EditError::Shape("endpoints"))?;
        let mut values = keys_of(entry);
        if beside
            && entry.get("api_key").is_none()
            && let Some(list) = entry.get_mut("api_keys").and_then(Item::as_array_mut)
        {
            if !list.iter().any(|value| is_at(value, place)) {
                push(list, source(place));
            }
            return Ok(());
        }
        if !beside {
            values.clear();
        }
        if !values.iter().any(|value| is_at(value, place)) {
            values.push(source(place));
        }
        put(entry, values);
        Ok(())
    }

    /// Nobody takes a key from there any more; `is_it` is told what kind of place a key has, and which.
    pub fn forget_key(&mut self, is_it: &dyn Fn(&str, &str) -> bool) {
        for (_, item) in entries_mut(self.document.get_mut("endpoints")) {
            let Some(entry) = item.as_table_like_mut() else { continue };
            let values = keys_of(entry);
            let goes = |value: &Value| {
                let table = value.as_inline_table().into_iter().flat_map(InlineTable::iter);
                table.filter_map(|(kind, place)| Some((kind, place.as_str()?))).any(|(kind, place)| is_it(kind, place))
            };
            let left: Vec<Value> = values.iter().filter(|value| !goes(value)).cloned().collect();
            if left.len() < values.len() {
                put(entry, left);
            }
        }
    }
}

/// The values of `api_key` and `api_keys`, however they are written.
fn keys_of(entry: &dyn TableLike) -> Vec<Value> {
    let one = entry.get("api_key").and_then(|item| item.as_value().cloned().or_else(|| inlined(item.as_table_like()?)));
    let list = entry.get("api_keys");
    let several = list.and_then(Item::as_array).into_iter().flatten().cloned();
    // `[[endpoints.a.api_keys]]`
    let tables = list.and_then(Item::as_array_of_tables).into_iter().flatten().filter_map(|table| inlined(table));
    one.into_iter().chain(several).chain(tables).collect()
}

/// `api_key.env = "A"` and `[endpoints.a.api_key]`, on one line.
fn inlined(table: &dyn TableLike) -> Option<Value> {
    let pairs: Option<Vec<(&str, Value)>> =
        table.iter().map(|(key, item)| Some((key, item.as_value()?.clone()))).collect();
    let mut inlined: InlineTable = pairs?.into_iter().collect();
    inlined.fmt();
    Some(inlined.into())
}

/// Puts the keys where the first of them was, with its comments.
fn put(entry: &mut dyn TableLike, mut values: Vec<Value>) {
    for value in &mut values {
        value.decor_mut().clear();
    }
    let (name, value): (&str, Option<Value>) = match values.len() {
        0 | 1 => ("api_key", values.pop()),
        _ => ("api_keys", Some(values.into_iter().collect::<Array>().into())),
    };
    let Some(mut value) = value else {
        entry.remove("api_key");
        entry.remove("api_keys");
        return;
    };
    // A key cannot be changed where it is: all are taken out and put back in their order.
    let keys: Vec<Key> = entry.iter().filter_map(|(key, _)| entry.key(key).cloned()).collect();
    let mut placed = false;
    for key in keys {
        let Some(item) = entry.remove(&key) else { continue };
        if key != "api_key" && key != "api_keys" {
            super::put(entry, &key, item);
        } else if !std::mem::replace(&mut placed, true) {
            // What was a table of its own has no line whose comments could be kept.
            let key = match item.as_value() {
                Some(old) => {
                    *value.decor_mut() = old.decor().clone();
                    super::renamed(&key, name)
                }
                None => Key::new(name),
            };
            super::put(entry, &key, Item::Value(value.clone()));
        }
    }
    if !placed {
        entry.insert(name, Item::Value(value));
    }
}

/// Adds a value to a list; in one that has a line for each, below the last with its comment.
fn push(list: &mut Array, mut value: Value) {
    let Some(indent) = list.iter().last().and_then(|last| {
        let prefix = last.decor().prefix()?.as_str()?;
        prefix.rfind('\n').map(|line| prefix[line..].to_owned())
    }) else {
        return list.push(value);
    };
    // What stands behind the last value, up to the end of its line, stays with it.
    let own = list.iter_mut().last().and_then(|last| {
        let suffix = last.decor().suffix()?.as_str()?.to_owned();
        last.decor_mut().set_suffix("");
        Some(suffix)
    });
    let behind = format!("{}{}", own.unwrap_or_default(), list.trailing().as_str().unwrap_or_default());
    value.decor_mut().set_prefix(format!("{}{indent}", behind.trim_end()));
    list.push_formatted(value);
    list.set_trailing(behind[behind.trim_end().len()..].to_owned());
    list.set_trailing_comma(true);
}

/// `{ file = "keys/openai" }`
pub(super) fn source((kind, place): &KeyPlace) -> Value {
    InlineTable::from_iter([(*kind, place.as_str())]).into()
}

fn is_at(value: &Value, (kind, place): &KeyPlace) -> bool {
    value.as_inline_table().and_then(|table| table.get(kind)?.as_str()) == Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key = { env = \"A\" } # mine\n[endpoints.b]\nbase_url = \"http://b/v1\"\n";

    fn file(name: &str) -> KeyPlace {
        ("file", format!("keys/{name}"))
    }

    fn edited(act: impl FnOnce(&mut Edit)) -> String {
        let mut edit = Edit::open(CONFIG).expect("good");
        act(&mut edit);
        edit.text()
    }

    #[test]
    fn a_key_takes_the_place_of_the_old_one_or_stands_beside_it() {
        let text = edited(|edit| edit.set_key("a", &file("a"), false).expect("there"));
        assert!(text.contains("api_key = { file = \"keys/a\" } # mine"), "{text}");
        let text = edited(|edit| edit.set_key("a", &file("a"), true).expect("there"));
        assert!(text.contains("api_keys = [{ env = \"A\" }, { file = \"keys/a\" }]"), "{text}");
        let text = edited(|edit| edit.set_key("b", &file("b"), true).expect("there"));
        assert!(text.contains("api_key = { file = \"keys/b\" }"), "{text}");
        assert!(edited(|edit| assert!(edit.set_key("c", &file("c"), true).is_err())) == CONFIG);
    }

    #[test]
    fn keys_are_seen_however_they_are_written() {
        for old in [
            "api_key.env = \"A\"",
            "# above\napi_key = { env = \"A\" } # mine\nrpm = 7",
            "[endpoints.a.api_key]\nenv = \"A\"",
            "[[endpoints.a.api_keys]]\nenv = \"A\"",
        ] {
            let mut edit = Edit::open(&format!("[endpoints.a]\nbase_url = \"http://h/v1\"\n{old}\n")).expect("good");
            edit.set_key("a", &file("a"), true).expect("there");
            let text = edit.text();
            assert!(text.contains("api_keys = [{ env = \"A\" }, { file = \"keys/a\" }]"), "{text}");
            assert!(
                !old.contains("rpm") || text.contains("# above\napi_keys") && text.ends_with("# mine\nrpm = 7\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_list_keeps_its_lines_and_their_comments() {
        for (end, last) in [(",", " # second is best"), (" # second is best", ""), (",", "")] {
            let list = format!("[\n  {{ env = \"A\" }}, # first\n  {{ env = \"B\" }}{end}{last}\n]");
            let mut edit = Edit::open(&format!("[endpoints.a]\napi_keys = {list} # both\n")).expect("good");
            edit.set_key("a", &file("c"), true).expect("there");
            let text = edit.text();
            assert!(text.contains("{ env = \"A\" }, # first\n  { env = \"B\" },"), "{text}");
            assert!(text.ends_with("\n  { file = \"keys/c\" },\n] # both\n"), "{text}");
            assert_eq!(text.contains("B\" }, # second is best\n"), end.len() + last.len() > 1, "{text}");
        }
    }

    #[test]
    fn a_key_that_goes_is_taken_out_wherever_it_is_used() {
        let text = edited(|edit| {
            edit.set_key("a", &file("x"), true).expect("there");
            edit.set_key("b", &file("x"), false).expect("there");
            edit.forget_key(&|kind, place| kind == "file" && place == "keys/x");
        });
        assert!(text.contains("api_key = { env = \"A\" }") && !text.contains("keys/x"), "{text}");
    }
}
