//! Edits the text of a config file: adds, removes and renames entries, and keeps comments and formatting.
//!
//! References follow a change: the routes and sets of a renamed model name it by its new name. The result is not
//! validated; check it with `config::resolve` before writing it.

mod comments;
mod keys;
mod lists;
mod references;

pub use keys::KeyRef;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use comments::prepend_comment;
use references::{referenced_name, set_referenced_name, spend_models_mut};

use super::normalize_name;

/// A config file being edited.
#[derive(Clone, Debug)]
pub struct ConfigEditor {
    /// The text of a file that contains only comments, else empty; new entries are added below it.
    comments: String,
    document: DocumentMut,
}

/// A new endpoint.
#[derive(Clone, Debug, Default)]
pub struct NewEndpoint {
    /// The name.
    pub name: String,
    /// The base URL; `None`: that of the vendor with this name.
    pub base_url: Option<String>,
    /// The references to the keys.
    pub keys: Vec<KeyRef>,
    /// The endpoint is a gateway with its own retries.
    pub gateway: bool,
}

/// A new model.
#[derive(Clone, Debug, Default)]
pub struct NewModel {
    /// The name.
    pub name: String,
    /// The endpoint that serves it.
    pub endpoint: String,
    /// The model ID used by the endpoint.
    pub upstream: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The context window: input and output tokens together.
    pub context: Option<u64>,
    /// The prices of input and output, in US dollars per million tokens.
    pub price: Option<(f64, f64)>,
    /// The default parameters.
    pub params: Vec<(&'static str, f64)>,
}

/// An edit that is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The text is not valid TOML.
    #[error("the config is not valid TOML: {0}")]
    Syntax(#[from] toml_edit::TomlError),
    /// The name is already in use.
    #[error("{kind} \"{name}\" already exists")]
    AlreadyExists {
        /// The kind of the entry, with an article.
        kind: &'static str,
        /// The name of the entry.
        name: String,
    },
    /// The entry does not exist.
    #[error("unknown {kind} \"{name}\"")]
    NotFound {
        /// The kind of the entry.
        kind: &'static str,
        /// The name of the entry.
        name: String,
        /// The names of the existing entries.
        known: Vec<String>,
    },
    /// Other entries refer to it.
    #[error("\"{name}\" is used by {}", .by.join(", "))]
    InUse {
        /// The name of the entry.
        name: String,
        /// The entries that refer to it.
        by: Vec<String>,
        /// The flag that removes those references, too.
        flag: &'static str,
    },
    /// The models that a client key may use would all be removed.
    #[error("all models that [serve.keys.{client}] may use would be removed")]
    OnlyModel {
        /// The name of the client key.
        client: String,
    },
    /// The key has a value that is not a table.
    #[error("`{0}` is not a table")]
    NotATable(&'static str),
}

impl ConfigEditor {
    /// Parses the text of a config file; an empty text is a new config.
    pub fn parse(text: &str) -> Result<Self, EditError> {
        let document: DocumentMut = text.parse()?;
        if document.is_empty() {
            let separator = if text.trim().is_empty() { "" } else { "\n" };
            return Ok(Self { comments: format!("{}{separator}", text.trim_start()), document: DocumentMut::new() });
        }
        Ok(Self { comments: String::new(), document })
    }

    /// The edited text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.comments, self.document)
    }

    /// Adds an endpoint.
    pub fn add_endpoint(&mut self, endpoint: &NewEndpoint) -> Result<(), EditError> {
        let mut entry = Table::new();
        if let Some(base_url) = &endpoint.base_url {
            entry.insert("base_url", base_url.as_str().into());
        }
        match endpoint.keys.as_slice() {
            [] => {}
            [key] => drop(entry.insert("api_key", Item::Value(keys::key_ref_value(key)))),
            several => {
                let sources: Array = several.iter().map(keys::key_ref_value).collect();
                entry.insert("api_keys", Item::Value(sources.into()));
            }
        }
        if endpoint.gateway {
            entry.insert("gateway", true.into());
        }
        self.insert_entry("endpoints", "an endpoint", &endpoint.name, entry)
    }

    /// Adds a model.
    pub fn add_model(&mut self, model: &NewModel) -> Result<(), EditError> {
        for (table, kind) in [("routes", "a route"), ("sets", "a set")] {
            if self.find_key(table, &model.name).is_some() {
                return Err(EditError::AlreadyExists { kind, name: model.name.clone() });
            }
        }
        let mut entry = Table::new();
        entry.insert("endpoint", model.endpoint.as_str().into());
        entry.insert("model", model.upstream.as_str().into());
        if let Some(context) = model.context.and_then(|context| i64::try_from(context).ok()) {
            entry.insert("context", context.into());
        }
        if let Some((input, output)) = model.price {
            let price = InlineTable::from_iter([("input", input), ("output", output)]);
            entry.insert("price", Item::Value(price.into()));
        }
        if !model.params.is_empty() {
            let params = model.params.iter().map(|&(name, value)| (name, toml_number(value)));
            entry.insert("params", Item::Value(params.collect::<InlineTable>().into()));
        }
        if !model.tags.is_empty() {
            entry.insert("tags", Item::Value(model.tags.iter().map(String::as_str).collect::<Array>().into()));
        }
        self.insert_entry("models", "a model", &model.name, entry)
    }

    /// Adds a route.
    pub fn add_route(&mut self, name: &str, models: &[(String, u32)], strategy: Option<&str>) -> Result<(), EditError> {
        for (table, kind) in [("models", "a model"), ("sets", "a set")] {
            if self.find_key(table, name).is_some() {
                return Err(EditError::AlreadyExists { kind, name: name.to_owned() });
            }
        }
        let mut entry = Table::new();
        if let Some(strategy) = strategy {
            entry.insert("strategy", strategy.into());
        }
        let member = |(name, weight): &(String, u32)| match weight {
            1 => Value::from(name.as_str()),
            weight => {
                let weighted = [("name", Value::from(name.as_str())), ("weight", Value::from(i64::from(*weight)))];
                weighted.into_iter().collect::<InlineTable>().into()
            }
        };
        entry.insert("models", Item::Value(models.iter().map(member).collect::<Array>().into()));
        self.insert_entry("routes", "a route", name, entry)
    }

    /// Removes an endpoint, its models and all references to them. If `with_models` is false, an endpoint with models or
    /// references is an error. Returns what else was removed.
    pub fn remove_endpoint(&mut self, name: &str, with_models: bool) -> Result<Vec<String>, EditError> {
        let name = normalize_name(name);
        self.require_key("endpoints", "endpoint", &name)?;
        let models: Vec<String> = entries(self.document.get("models"))
            .filter(|(_, item)| item_str(item.get("endpoint")).is_some_and(|endpoint| normalize_name(endpoint) == name))
            .map(|(key, _)| key.to_owned())
            .collect();
        let prefix = format!("{name}/");
        let describe = |model: &String| format!("model \"{model}\"");
        let limit = find_key(self.item(&["spend", "endpoints"]), &name).map(|key| format!("[spend.endpoints.{key}]"));
        if !with_models {
            let mut by: Vec<String> = models.iter().map(describe).collect();
            by.extend(self.references_to(|model| model.starts_with(&prefix)));
            by.extend(limit.clone());
            if !by.is_empty() {
                return Err(EditError::InUse { name, by, flag: "--with-models" });
            }
        }
        let mut removed: Vec<String> = models.iter().map(describe).collect();
        for model in &models {
            removed.extend(self.remove_model(model, true)?);
        }
        removed.extend(self.remove_references(&|model| model.starts_with(&prefix))?);
        removed.extend(limit);
        self.remove_entry(&["spend", "endpoints"], &name);
        self.remove_entry(&["endpoints"], &name);
        Ok(removed)
    }

    /// Removes a model. `everywhere` also removes all references to it, and routes and sets that are empty afterwards;
    /// otherwise a referenced model is an error. Returns what else was removed.
    pub fn remove_model(&mut self, name: &str, everywhere: bool) -> Result<Vec<String>, EditError> {
        let name = normalize_name(name);
        self.require_key("models", "model", &name)?;
        let by = self.references_to(|model| model == name);
        if !everywhere && !by.is_empty() {
            return Err(EditError::InUse { name, by, flag: "--everywhere" });
        }
        self.remove_entry(&["models"], &name);
        self.remove_references(&|model| model == name)
    }

    /// Renames a model and all references to it.
    pub fn rename_model(&mut self, from: &str, to: &str) -> Result<(), EditError> {
        let (from, to) = (normalize_name(from), normalize_name(to));
        self.require_key("models", "model", &from)?;
        for (table, kind) in [("models", "a model"), ("routes", "a route"), ("sets", "a set")] {
            if self.find_key(table, &to).is_some() {
                return Err(EditError::AlreadyExists { kind, name: to });
            }
        }
        let models =
            self.document.get_mut("models").and_then(Item::as_table_like_mut).ok_or(EditError::NotATable("models"))?;
        rename_entry(models, &from, &to);
        if let Some(limits) = spend_models_mut(&mut self.document).and_then(Item::as_table_like_mut) {
            rename_entry(limits, &from, &to);
        }
        self.for_each_reference(&mut |value| {
            if referenced_name(value).is_some_and(|name| normalize_name(name) == from) {
                set_referenced_name(value, &to);
            }
        });
        Ok(())
    }

    /// Sets `default`, the model or route that `ask` uses when none is given.
    pub fn set_default(&mut self, name: &str) {
        if let Some(value) = self.document.get_mut("default").and_then(Item::as_value_mut) {
            return set_referenced_name(value, name);
        }
        let file_comment = self.take_file_comment();
        // Top-level keys must come before the first table.
        self.document.insert("default", name.into());
        if let Some(mut key) = self.document.as_table_mut().key_mut("default") {
            prepend_comment(key.leaf_decor_mut(), &file_comment);
        }
    }

    fn insert_entry(
        &mut self,
        table: &'static str,
        kind: &'static str,
        name: &str,
        entry: Table,
    ) -> Result<(), EditError> {
        if self.find_key(table, name).is_some() {
            return Err(EditError::AlreadyExists { kind, name: name.to_owned() });
        }
        let parent = self.document.entry(table).or_insert_with(|| {
            let mut parent = Table::new();
            parent.set_implicit(true);
            Item::Table(parent)
        });
        match parent {
            Item::Table(parent) => {
                // If all other entries are inline tables, the new one is, too.
                let inline = !parent.is_empty() && parent.iter().all(|(_, item)| item.is_value());
                let item = if inline { Item::Value(entry.into_inline_table().into()) } else { Item::Table(entry) };
                parent.insert(name, item);
            }
            Item::Value(Value::InlineTable(parent)) => {
                parent.insert(name, entry.into_inline_table().into());
            }
            _ => return Err(EditError::NotATable(table)),
        }
        Ok(())
    }

    /// The key of the entry called `name`, as written.
    fn find_key(&self, table: &str, name: &str) -> Option<String> {
        find_key(self.document.get(table), name)
    }

    /// The item at `path`; the root for an empty path.
    fn item(&self, path: &[&str]) -> Option<&Item> {
        path.iter().try_fold(self.document.as_item(), |item, key| item.get(key))
    }

    fn item_mut(&mut self, path: &[&str]) -> Option<&mut Item> {
        path.iter().try_fold(self.document.as_item_mut(), |item, key| item.get_mut(key))
    }

    fn require_key(&self, table: &'static str, kind: &'static str, name: &str) -> Result<String, EditError> {
        self.find_key(table, name).ok_or_else(|| EditError::NotFound {
            kind,
            name: name.to_owned(),
            known: entries(self.document.get(table)).map(|(key, _)| key.to_owned()).collect(),
        })
    }
}

/// The key of the entry called `name`, as written.
fn find_key(table: Option<&Item>, name: &str) -> Option<String> {
    let name = normalize_name(name);
    // ASCII needs no normalization, which is slow: imports look up thousands of names.
    let is_match = |key: &&str| *key == name || (!key.is_ascii() && normalize_name(key) == name);
    entries(table).map(|(key, _)| key).find(is_match).map(str::to_owned)
}

/// The entries of a table, in any TOML notation.
fn entries(item: Option<&Item>) -> impl Iterator<Item = (&str, &Item)> {
    item.and_then(Item::as_table_like).into_iter().flat_map(TableLike::iter)
}

fn entries_mut(item: Option<&mut Item>) -> impl Iterator<Item = (String, &mut Item)> {
    let table = item.and_then(Item::as_table_like_mut);
    table.into_iter().flat_map(|table| table.iter_mut().map(|(key, item)| (key.get().to_owned(), item)))
}

/// A TOML number; integers have no decimal point.
fn toml_number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 1e15")]
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

fn item_str(item: Option<&Item>) -> Option<&str> {
    item?.as_str()
}

/// Renames an entry. toml_edit cannot rename a key in place, so all entries are removed and inserted again in order.
fn rename_entry(table: &mut dyn TableLike, from: &str, to: &str) {
    let keys: Vec<Key> = table.iter().filter_map(|(key, _)| table.key(key).cloned()).collect();
    for key in keys {
        let Some(item) = table.remove(&key) else { continue };
        let key = if normalize_name(&key) == from { renamed_key(&key, to) } else { key };
        insert_with_decor(table, &key, item);
    }
}

fn renamed_key(key: &Key, name: &str) -> Key {
    Key::new(name).with_leaf_decor(key.leaf_decor().clone()).with_dotted_decor(key.dotted_decor().clone())
}

fn insert_with_decor(table: &mut dyn TableLike, key: &Key, item: Item) {
    table.insert(key.get(), item);
    if let Some(mut inserted) = table.key_mut(key.get()) {
        *inserted.leaf_decor_mut() = key.leaf_decor().clone();
        *inserted.dotted_decor_mut() = key.dotted_decor().clone();
    }
}

#[cfg(test)]
mod tests;
