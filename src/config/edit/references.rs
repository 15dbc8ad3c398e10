//! Finds, renames and removes references to models in routes, sets, presets, client keys, spend limits and `default`.

use toml_edit::{DocumentMut, Item, Value};

use super::{ConfigEditor, EditError, entries, entries_mut, item_str, lists::remove_values};
use crate::config::normalize_name;

impl ConfigEditor {
    /// Removes references to the models that match, and routes and sets that are empty afterwards. Returns what was
    /// removed. A client key that may use no other model is an error: without `models`, it could use all of them.
    pub(super) fn remove_references(&mut self, matches: &dyn Fn(&str) -> bool) -> Result<Vec<String>, EditError> {
        let is_match = |value: &Value| referenced_name(value).is_some_and(|text| matches(&normalize_name(text)));
        let routes = remove_from_lists(self.document.get_mut("routes"), Some("models"), &is_match);
        let is_removed = |value: &Value| {
            is_match(value) || referenced_name(value).is_some_and(|text| routes.contains(&normalize_name(text)))
        };
        let sets = remove_from_lists(self.document.get_mut("sets"), None, &is_removed);
        let mut removed: Vec<String> = routes.iter().map(|route| format!("route \"{route}\"")).collect();
        removed.extend(sets.iter().map(|set| format!("set \"{set}\"")));
        let presets = entries(self.document.get("presets"));
        let presets =
            presets.filter(|(_, preset)| preset.get("model").and_then(Item::as_value).is_some_and(is_removed));
        for preset in presets.map(|(key, _)| key.to_owned()).collect::<Vec<_>>() {
            self.remove_key(&["presets", &preset], "model");
            removed.push(format!("the model of preset \"{preset}\""));
        }
        let clients = remove_from_lists(client_keys_mut(&mut self.document), Some("models"), &is_removed);
        if let Some(client) = clients.into_iter().next() {
            return Err(EditError::OnlyModel { client });
        }
        let aliases = entries(aliases(&self.document));
        let aliases = aliases.filter(|(_, target)| target.as_value().is_some_and(is_removed));
        for alias in aliases.map(|(key, _)| key.to_owned()).collect::<Vec<_>>() {
            self.remove_entry(&["serve", "aliases"], &alias);
            removed.push(format!("alias \"{alias}\""));
        }
        let limits = entries(spend_models(&self.document)).map(|(name, _)| name.to_owned());
        for name in limits.filter(|name| matches(&normalize_name(name))).collect::<Vec<_>>() {
            self.remove_entry(&["spend", "models"], &name);
            removed.push(format!("[spend.models.{name}]"));
        }
        let default = self.document.get("default").and_then(Item::as_value).is_some_and(is_removed);
        let compare = item_str(self.document.get("compare")).is_some_and(|set| sets.contains(&normalize_name(set)));
        for (setting, _) in [("default", default), ("compare", compare)].iter().filter(|(_, is_removed)| *is_removed) {
            self.remove_top_level_key(setting);
            removed.push(format!("`{setting}`"));
        }
        for (table, names) in [("routes", &routes), ("sets", &sets)] {
            for name in names {
                self.remove_entry(&[table], name);
            }
        }
        Ok(removed)
    }

    /// The settings that refer to the models that match.
    pub(super) fn references_to(&self, matches: impl Fn(&str) -> bool) -> Vec<String> {
        let is_match = |value: &Value| referenced_name(value).is_some_and(|name| matches(&normalize_name(name)));
        let list_matches =
            |item: Option<&Item>| item.and_then(Item::as_array).is_some_and(|array| array.iter().any(is_match));
        let value_matches = |item: Option<&Item>| item.and_then(Item::as_value).is_some_and(is_match);
        let mut users = Vec::new();
        if value_matches(self.document.get("default")) {
            users.push("`default`".to_owned());
        }
        let describe = |kind: &str, key: &str| format!("{kind} \"{key}\"");
        let routes = entries(self.document.get("routes")).filter(|(_, route)| list_matches(route.get("models")));
        users.extend(routes.map(|(key, _)| describe("route", key)));
        let sets = entries(self.document.get("sets")).filter(|(_, set)| list_matches(Some(set)));
        users.extend(sets.map(|(key, _)| describe("set", key)));
        let presets = entries(self.document.get("presets")).filter(|(_, preset)| value_matches(preset.get("model")));
        users.extend(presets.map(|(key, _)| describe("preset", key)));
        let clients = entries(client_keys(&self.document)).filter(|(_, client)| list_matches(client.get("models")));
        users.extend(clients.map(|(key, _)| format!("[serve.keys.{key}]")));
        let aliases = entries(aliases(&self.document)).filter(|(_, target)| value_matches(Some(target)));
        users.extend(aliases.map(|(key, _)| describe("alias", key)));
        let limits = entries(spend_models(&self.document)).filter(|(key, _)| matches(&normalize_name(key)));
        users.extend(limits.map(|(key, _)| format!("[spend.models.{key}]")));
        users
    }

    /// Calls `f` for every value that refers to a model.
    pub(super) fn for_each_reference(&mut self, f: &mut dyn FnMut(&mut Value)) {
        if let Some(value) = self.document.get_mut("default").and_then(Item::as_value_mut) {
            f(value);
        }
        for (_, route) in entries_mut(self.document.get_mut("routes")) {
            if let Some(models) = route.get_mut("models").and_then(Item::as_array_mut) {
                models.iter_mut().for_each(&mut *f);
            }
        }
        for (_, client) in entries_mut(client_keys_mut(&mut self.document)) {
            if let Some(models) = client.get_mut("models").and_then(Item::as_array_mut) {
                models.iter_mut().for_each(&mut *f);
            }
        }
        for (_, target) in entries_mut(aliases_mut(&mut self.document)) {
            if let Some(value) = target.as_value_mut() {
                f(value);
            }
        }
        for (_, set) in entries_mut(self.document.get_mut("sets")) {
            if let Some(members) = set.as_array_mut() {
                members.iter_mut().for_each(&mut *f);
            }
        }
        for (_, preset) in entries_mut(self.document.get_mut("presets")) {
            if let Some(value) = preset.get_mut("model").and_then(Item::as_value_mut) {
                f(value);
            }
        }
    }
}

fn client_keys(document: &DocumentMut) -> Option<&Item> {
    document.get("serve")?.get("keys")
}

fn client_keys_mut(document: &mut DocumentMut) -> Option<&mut Item> {
    document.get_mut("serve")?.get_mut("keys")
}

fn aliases(document: &DocumentMut) -> Option<&Item> {
    document.get("serve")?.get("aliases")
}

fn aliases_mut(document: &mut DocumentMut) -> Option<&mut Item> {
    document.get_mut("serve")?.get_mut("aliases")
}

fn spend_models(document: &DocumentMut) -> Option<&Item> {
    document.get("spend")?.get("models")
}

pub(super) fn spend_models_mut(document: &mut DocumentMut) -> Option<&mut Item> {
    document.get_mut("spend")?.get_mut("models")
}

/// Removes values from the entries of a table, which are lists or contain one named `list`. Returns the names of the
/// entries that are empty afterwards.
fn remove_from_lists(table: Option<&mut Item>, list: Option<&str>, is_removed: &dyn Fn(&Value) -> bool) -> Vec<String> {
    let mut empty = Vec::new();
    for (key, entry) in entries_mut(table) {
        let list = match list {
            Some(list) => entry.get_mut(list),
            None => Some(entry),
        };
        if let Some(names) = list.and_then(Item::as_array_mut) {
            remove_values(names, is_removed);
            if names.is_empty() {
                empty.push(normalize_name(&key));
            }
        }
    }
    empty
}

/// The model name in a list entry, written as `"fast"` or `{ name = "fast", … }`.
pub(super) fn referenced_name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.as_inline_table()?.get("name")?.as_str())
}

pub(super) fn set_referenced_name(value: &mut Value, name: &str) {
    if let Some(named) = value.as_inline_table_mut().and_then(|table| table.get_mut("name")) {
        return set_referenced_name(named, name);
    }
    let decor = value.decor().clone();
    *value = Value::from(name);
    *value.decor_mut() = decor;
}
