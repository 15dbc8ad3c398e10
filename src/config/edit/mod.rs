//! Changes to a config that a person wrote: one entry is added, removed or renamed, everything else stays as it is.
//!
//! Owns what follows a change through the file (a renamed model's routes and sets) and that comments survive. Refuses
//! files and the terminal: text in, text out; whoever writes it checks it first with [`super::resolve`].

mod comments;
mod keys;
mod names;

pub use keys::KeyPlace;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use names::{replace_text, text_of_value};

use super::normalised;

/// A config being changed.
#[derive(Clone, Debug)]
pub struct Edit {
    /// A file of comments alone: what is added comes below them.
    head: String,
    document: DocumentMut,
}

/// A new endpoint.
#[derive(Clone, Debug, Default)]
pub struct NewEndpoint {
    /// Its name.
    pub name: String,
    /// Where it is; `None`: its name is a known service's.
    pub base_url: Option<String>,
    /// Where its keys are.
    pub keys: Vec<KeyPlace>,
    /// It is a gateway, which retries by itself.
    pub gateway: bool,
}

/// A new model.
#[derive(Clone, Debug, Default)]
pub struct NewModel {
    /// Its name.
    pub name: String,
    /// The endpoint that serves it.
    pub endpoint: String,
    /// What the endpoint calls it.
    pub upstream: String,
    /// Labels.
    pub tags: Vec<String>,
    /// Tokens it reads and writes together.
    pub context: Option<u64>,
    /// Price of a million tokens of input and of output.
    pub price: Option<(f64, f64)>,
    /// Parameters that are sent.
    pub params: Vec<(&'static str, f64)>,
}

/// A change that makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// It is no TOML.
    #[error("the config is no TOML: {0}")]
    Syntax(#[from] toml_edit::TomlError),
    /// There is something of this name already.
    #[error("there is {kind} `{name}` already")]
    Taken {
        /// What kind of thing, with its article.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There is no such entry.
    #[error("there is no {kind} `{name}` in the config")]
    Missing {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Others need it.
    #[error("`{name}` is used by {}", .by.join(", "))]
    Used {
        /// Its name.
        name: String,
        /// Who uses it.
        by: Vec<String>,
        /// The flag that goes on all the same.
        flag: &'static str,
    },
    /// The table is written in a way that cannot be changed here.
    #[error("`{0}` is no table")]
    Shape(&'static str),
}

impl Edit {
    /// A config with this text; an empty one is a new one.
    pub fn open(text: &str) -> Result<Self, EditError> {
        let document: DocumentMut = text.parse()?;
        if document.is_empty() {
            let gap = if text.trim().is_empty() { "" } else { "\n" };
            return Ok(Self { head: format!("{}{gap}", text.trim_start()), document: DocumentMut::new() });
        }
        Ok(Self { head: String::new(), document })
    }

    /// The text as it is now.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.head, self.document)
    }

    /// Adds an endpoint.
    pub fn add_endpoint(&mut self, new: &NewEndpoint) -> Result<(), EditError> {
        let mut entry = Table::new();
        if let Some(base_url) = &new.base_url {
            entry.insert("base_url", base_url.as_str().into());
        }
        match new.keys.as_slice() {
            [] => {}
            [key] => drop(entry.insert("api_key", Item::Value(keys::source(key)))),
            several => {
                let sources: Array = several.iter().map(keys::source).collect();
                entry.insert("api_keys", Item::Value(sources.into()));
            }
        }
        if new.gateway {
            entry.insert("gateway", true.into());
        }
        self.add("endpoints", "an endpoint", &new.name, entry)
    }

    /// Adds a model.
    pub fn add_model(&mut self, new: &NewModel) -> Result<(), EditError> {
        for (table, kind) in [("routes", "a route"), ("sets", "a set")] {
            if self.find(table, &new.name).is_some() {
                return Err(EditError::Taken { kind, name: new.name.clone() });
            }
        }
        let mut entry = Table::new();
        entry.insert("endpoint", new.endpoint.as_str().into());
        entry.insert("model", new.upstream.as_str().into());
        if let Some(context) = new.context.and_then(|context| i64::try_from(context).ok()) {
            entry.insert("context", context.into());
        }
        if let Some((input, output)) = new.price {
            let price = InlineTable::from_iter([("input", input), ("output", output)]);
            entry.insert("price", Item::Value(price.into()));
        }
        if !new.params.is_empty() {
            let params = new.params.iter().map(|&(name, value)| (name, number(value)));
            entry.insert("params", Item::Value(params.collect::<InlineTable>().into()));
        }
        if !new.tags.is_empty() {
            entry.insert("tags", Item::Value(new.tags.iter().map(String::as_str).collect::<Array>().into()));
        }
        self.add("models", "a model", &new.name, entry)
    }

    /// Adds a route.
    pub fn add_route(&mut self, name: &str, models: &[(String, u32)], strategy: Option<&str>) -> Result<(), EditError> {
        for (table, kind) in [("models", "a model"), ("sets", "a set")] {
            if self.find(table, name).is_some() {
                return Err(EditError::Taken { kind, name: name.to_owned() });
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
        self.add("routes", "a route", name, entry)
    }

    /// Removes an endpoint; its models too, or they keep it. What went with it.
    pub fn remove_endpoint(&mut self, name: &str, with_models: bool) -> Result<Vec<String>, EditError> {
        let name = normalised(name);
        self.existing("endpoints", "endpoint", &name)?;
        let models: Vec<String> = entries(self.document.get("models"))
            .filter(|(_, item)| text_of(item.get("endpoint")).is_some_and(|endpoint| normalised(endpoint) == name))
            .map(|(key, _)| key.to_owned())
            .collect();
        let direct = format!("{name}/");
        let named = |model: &String| format!("model `{model}`");
        if !with_models {
            let by: Vec<String> =
                models.iter().map(named).chain(self.users(|wanted| wanted.starts_with(&direct))).collect();
            if !by.is_empty() {
                return Err(EditError::Used { name, by, flag: "--with-models" });
            }
        }
        let mut gone: Vec<String> = models.iter().map(named).collect();
        for model in &models {
            gone.extend(self.remove_model(model, true)?);
        }
        gone.extend(self.forget(&|wanted| wanted.starts_with(&direct)));
        self.remove("endpoints", &name);
        Ok(gone)
    }

    /// Removes a model; from routes and sets too if `everywhere`, and those that are empty then. What went with it.
    pub fn remove_model(&mut self, name: &str, everywhere: bool) -> Result<Vec<String>, EditError> {
        let name = normalised(name);
        self.existing("models", "model", &name)?;
        let by = self.users(|wanted| wanted == name);
        if !everywhere && !by.is_empty() {
            return Err(EditError::Used { name, by, flag: "--everywhere" });
        }
        self.remove("models", &name);
        Ok(self.forget(&|wanted| wanted == name))
    }

    /// Gives a model another name, wherever it is used.
    pub fn rename_model(&mut self, from: &str, to: &str) -> Result<(), EditError> {
        let (from, to) = (normalised(from), normalised(to));
        self.existing("models", "model", &from)?;
        for (table, kind) in [("models", "a model"), ("routes", "a route"), ("sets", "a set")] {
            if self.find(table, &to).is_some() {
                return Err(EditError::Taken { kind, name: to });
            }
        }
        let models =
            self.document.get_mut("models").and_then(Item::as_table_like_mut).ok_or(EditError::Shape("models"))?;
        let keys: Vec<Key> = models.iter().filter_map(|(key, _)| models.key(key).cloned()).collect();
        // A key cannot be changed where it is: all are taken out and put back in their order.
        for key in keys {
            let Some(item) = models.remove(&key) else { continue };
            let key = if normalised(&key) == from { renamed(&key, &to) } else { key };
            put(models, &key, item);
        }
        self.for_each_name(&mut |value| {
            if text_of_value(value).is_some_and(|name| normalised(name) == from) {
                replace_text(value, &to);
            }
        });
        Ok(())
    }

    /// What `ask` uses when nothing is named.
    pub fn set_default(&mut self, name: &str) {
        if let Some(value) = self.document.get_mut("default").and_then(Item::as_value_mut) {
            return replace_text(value, name);
        }
        let head = self.take_head();
        // In front of the first table, where such keys belong.
        self.document.insert("default", name.into());
        if let Some(mut key) = self.document.as_table_mut().key_mut("default") {
            key.leaf_decor_mut().set_prefix(head);
        }
    }

    fn add(&mut self, table: &'static str, kind: &'static str, name: &str, entry: Table) -> Result<(), EditError> {
        if self.find(table, name).is_some() {
            return Err(EditError::Taken { kind, name: name.to_owned() });
        }
        let parent = self.document.entry(table).or_insert_with(|| {
            let mut parent = Table::new();
            parent.set_implicit(true);
            Item::Table(parent)
        });
        match parent {
            Item::Table(parent) => {
                // Where the others are one-line tables, so is this one.
                let inline = !parent.is_empty() && parent.iter().all(|(_, item)| item.is_value());
                let item = if inline { Item::Value(entry.into_inline_table().into()) } else { Item::Table(entry) };
                parent.insert(name, item);
            }
            Item::Value(Value::InlineTable(parent)) => {
                parent.insert(name, entry.into_inline_table().into());
            }
            _ => return Err(EditError::Shape(table)),
        }
        Ok(())
    }

    /// The key of the entry called `name`, as it is written.
    fn find(&self, table: &str, name: &str) -> Option<String> {
        let name = normalised(name);
        // Composing is slow, and ASCII is composed: imports look for thousands of names.
        let is_it = |key: &&str| *key == name || (!key.is_ascii() && normalised(key) == name);
        entries(self.document.get(table)).map(|(key, _)| key).find(is_it).map(str::to_owned)
    }

    fn existing(&self, table: &'static str, kind: &'static str, name: &str) -> Result<String, EditError> {
        self.find(table, name).ok_or_else(|| EditError::Missing {
            kind,
            name: name.to_owned(),
            known: entries(self.document.get(table)).map(|(key, _)| key.to_owned()).collect(),
        })
    }
}

/// The entries of a table, however it is written.
fn entries(item: Option<&Item>) -> impl Iterator<Item = (&str, &Item)> {
    item.and_then(Item::as_table_like).into_iter().flat_map(TableLike::iter)
}

fn entries_mut(item: Option<&mut Item>) -> impl Iterator<Item = (String, &mut Item)> {
    let table = item.and_then(Item::as_table_like_mut);
    table.into_iter().flat_map(|table| table.iter_mut().map(|(key, item)| (key.get().to_owned(), item)))
}

/// A number as a person would write it.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

fn text_of(item: Option<&Item>) -> Option<&str> {
    item?.as_str()
}

fn renamed(key: &Key, name: &str) -> Key {
    Key::new(name).with_leaf_decor(key.leaf_decor().clone()).with_dotted_decor(key.dotted_decor().clone())
}

fn put(table: &mut dyn TableLike, key: &Key, item: Item) {
    table.insert(key.get(), item);
    if let Some(mut put) = table.key_mut(key.get()) {
        *put.leaf_decor_mut() = key.leaf_decor().clone();
        *put.dotted_decor_mut() = key.dotted_decor().clone();
    }
}

#[cfg(test)]
mod tests;
