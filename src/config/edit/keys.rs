//! Changes to where an endpoint's keys are.

use toml_edit::{Array, InlineTable, Item, TableLike, Value};

use super::{Edit, EditError, entries, entries_mut};
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
        if !beside {
            values.clear();
        }
        if !values.iter().any(|value| is_at(value, place)) {
            values.push(source(place));
        }
        put(entry, values);
        Ok(())
    }

    /// Who takes a key from `place`.
    #[must_use]
    pub fn users_of_key(&self, place: &KeyPlace) -> Vec<String> {
        let endpoints =
            entries(self.document.get("endpoints")).filter_map(|(key, item)| Some((key, item.as_table_like()?)));
        let using = endpoints.filter(|(_, entry)| keys_of(*entry).iter().any(|value| is_at(value, place)));
        using.map(|(key, _)| key.to_owned()).collect()
    }

    /// Nobody takes a key from `place` any more.
    pub fn forget_key(&mut self, place: &KeyPlace) {
        for (_, item) in entries_mut(self.document.get_mut("endpoints")) {
            let Some(entry) = item.as_table_like_mut() else { continue };
            let values = keys_of(entry);
            let left: Vec<Value> = values.iter().filter(|value| !is_at(value, place)).cloned().collect();
            if left.len() < values.len() {
                put(entry, left);
            }
        }
    }
}

/// The values of `api_key` and `api_keys`.
fn keys_of(entry: &dyn TableLike) -> Vec<Value> {
    let one = entry.get("api_key").and_then(Item::as_value).cloned();
    let several = entry.get("api_keys").and_then(Item::as_array).into_iter().flatten().cloned();
    one.into_iter().chain(several).collect()
}

fn put(entry: &mut dyn TableLike, mut values: Vec<Value>) {
    for value in &mut values {
        value.decor_mut().clear();
    }
    entry.remove("api_keys");
    match values.len() {
        0 => drop(entry.remove("api_key")),
        // Where it was, it stays, with its comment.
        1 => match entry.get_mut("api_key").and_then(Item::as_value_mut) {
            Some(known) => {
                let decor = known.decor().clone();
                *known = values.remove(0);
                *known.decor_mut() = decor;
            }
            None => drop(entry.insert("api_key", Item::Value(values.remove(0)))),
        },
        _ => {
            entry.remove("api_key");
            entry.insert("api_keys", Item::Value(values.into_iter().collect::<Array>().into()));
        }
    }
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
    fn a_key_that_goes_is_taken_out_wherever_it_is_used() {
        let text = edited(|edit| {
            edit.set_key("a", &file("x"), true).expect("there");
            edit.set_key("b", &file("x"), false).expect("there");
            assert_eq!(edit.users_of_key(&file("x")), ["a", "b"]);
            edit.forget_key(&file("x"));
        });
        assert!(text.contains("api_key = { env = \"A\" }") && !text.contains("keys/x"), "{text}");
    }
}
