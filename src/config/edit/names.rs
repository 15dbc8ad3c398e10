//! Who names a model, and what becomes of them when it goes or is renamed.

use toml_edit::{Item, Value};

use super::{Edit, entries, entries_mut, text_of};
use crate::config::normalised;

impl Edit {
    /// Takes names out of routes and sets, and what nothing is left of; and out of `default`, `compare` and presets.
    /// What is gone then.
    pub(super) fn forget(&mut self, is_it: &dyn Fn(&str) -> bool) -> Vec<String> {
        let names_it = |value: &Value| text_of_value(value).is_some_and(|text| is_it(&normalised(text)));
        let routes = emptied(self.document.get_mut("routes"), Some("models"), &names_it);
        let is_gone = |value: &Value| {
            names_it(value) || text_of_value(value).is_some_and(|text| routes.contains(&normalised(text)))
        };
        let sets = emptied(self.document.get_mut("sets"), None, &is_gone);
        let mut gone: Vec<String> = routes.iter().map(|route| format!("route `{route}`")).collect();
        gone.extend(sets.iter().map(|set| format!("set `{set}`")));
        for (key, preset) in entries_mut(self.document.get_mut("presets")) {
            if preset.get("model").and_then(Item::as_value).is_some_and(is_gone)
                && let Some(preset) = preset.as_table_like_mut()
            {
                preset.remove("model");
                gone.push(format!("the model of preset `{key}`"));
            }
        }
        let default = self.document.get("default").and_then(Item::as_value).is_some_and(is_gone);
        let compare = text_of(self.document.get("compare")).is_some_and(|set| sets.contains(&normalised(set)));
        for (setting, _) in [("default", default), ("compare", compare)].iter().filter(|(_, gone)| *gone) {
            self.remove_setting(setting);
            gone.push(format!("`{setting}`"));
        }
        for (table, names) in [("routes", &routes), ("sets", &sets)] {
            for name in names {
                self.remove(table, name);
            }
        }
        gone
    }

    /// Who uses a name.
    pub(super) fn users(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let has = |value: &Value| text_of_value(value).is_some_and(|name| wanted(&normalised(name)));
        let any = |item: Option<&Item>| item.and_then(Item::as_array).is_some_and(|array| array.iter().any(has));
        let one = |item: Option<&Item>| item.and_then(Item::as_value).is_some_and(has);
        let mut by = Vec::new();
        if one(self.document.get("default")) {
            by.push("`default`".to_owned());
        }
        let named = |kind: &str, key: &str| format!("{kind} `{key}`");
        let routes = entries(self.document.get("routes")).filter(|(_, route)| any(route.get("models")));
        by.extend(routes.map(|(key, _)| named("route", key)));
        let sets = entries(self.document.get("sets")).filter(|(_, set)| any(Some(set)));
        by.extend(sets.map(|(key, _)| named("set", key)));
        let presets = entries(self.document.get("presets")).filter(|(_, preset)| one(preset.get("model")));
        by.extend(presets.map(|(key, _)| named("preset", key)));
        by
    }

    /// Every place that names a model.
    pub(super) fn for_each_name(&mut self, act: &mut dyn FnMut(&mut Value)) {
        if let Some(value) = self.document.get_mut("default").and_then(Item::as_value_mut) {
            act(value);
        }
        for (_, route) in entries_mut(self.document.get_mut("routes")) {
            if let Some(models) = route.get_mut("models").and_then(Item::as_array_mut) {
                models.iter_mut().for_each(&mut *act);
            }
        }
        for (_, set) in entries_mut(self.document.get_mut("sets")) {
            if let Some(members) = set.as_array_mut() {
                members.iter_mut().for_each(&mut *act);
            }
        }
        for (_, preset) in entries_mut(self.document.get_mut("presets")) {
            if let Some(value) = preset.get_mut("model").and_then(Item::as_value_mut) {
                act(value);
            }
        }
    }
}

/// Takes names out of a table's entries, which are lists or have one called `list`; the entries that are empty then.
fn emptied(table: Option<&mut Item>, list: Option<&str>, is_gone: &dyn Fn(&Value) -> bool) -> Vec<String> {
    let mut empty = Vec::new();
    for (key, entry) in entries_mut(table) {
        let list = match list {
            Some(list) => entry.get_mut(list),
            None => Some(entry),
        };
        if let Some(names) = list.and_then(Item::as_array_mut) {
            names.retain(|value| !is_gone(value));
            if names.is_empty() {
                empty.push(normalised(&key));
            }
        }
    }
    empty
}

/// The name in a list of models: `"fast"`, or the one in `{ name = "fast", … }`.
pub(super) fn text_of_value(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.as_inline_table()?.get("name")?.as_str())
}

pub(super) fn replace_text(value: &mut Value, text: &str) {
    if let Some(named) = value.as_inline_table_mut().and_then(|table| table.get_mut("name")) {
        return replace_text(named, text);
    }
    let decor = value.decor().clone();
    *value = Value::from(text);
    *value.decor_mut() = decor;
}
