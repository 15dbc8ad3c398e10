//! Changes to a config that a person wrote: one entry is added, removed or renamed, everything else stays as it is.
//!
//! Owns what follows a change through the file (a renamed model's routes and sets) and that comments survive. Refuses
//! files and the terminal: text in, text out; whoever writes it checks it first with [`super::resolve`].

mod keys;

pub use keys::KeyPlace;
use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

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

    /// Takes the file's own head off the first table, if nothing else stands before that.
    fn take_head(&mut self) -> String {
        let root = self.document.as_table_mut();
        if root.iter().any(|(_, item)| item.is_value()) {
            return String::new();
        }
        let first = tables(root).into_iter().min_by_key(|table| table.position().unwrap_or(isize::MAX));
        let Some(decor) = first.map(Table::decor_mut) else { return String::new() };
        let above = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
        let head = apart(&above);
        decor.set_prefix(above[head.len()..].to_owned());
        head.to_owned()
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
        entries(self.document.get(table)).map(|(key, _)| key).find(|key| normalised(key) == name).map(str::to_owned)
    }

    fn existing(&self, table: &'static str, kind: &'static str, name: &str) -> Result<String, EditError> {
        self.find(table, name).ok_or_else(|| EditError::Missing {
            kind,
            name: name.to_owned(),
            known: entries(self.document.get(table)).map(|(key, _)| key.to_owned()).collect(),
        })
    }

    /// Removes an entry. The comment right above it goes too; what stands apart from it by a blank line is kept.
    fn remove(&mut self, table: &str, name: &str) {
        let Some(key) = self.find(table, name) else { return };
        let Some(parent) = self.document.get_mut(table).and_then(Item::as_table_like_mut) else { return };
        let next = parent.iter().map(|(key, _)| key.to_owned()).skip_while(|other| *other != key).nth(1);
        let above = parent.key(&key).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        let removed = parent.remove(&key);
        match removed {
            Some(Item::Table(removed)) => {
                let above = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
                // At the top of the file it may be the file's own head.
                let kept = if self.begins_behind(&removed) { apart(above) } else { above };
                self.keep_before_table(kept, removed.position());
            }
            Some(_) => {
                let above = apart(&above.unwrap_or_default()).to_owned();
                match next.and_then(|next| parent.key_mut(&next)) {
                    Some(mut next) => keep_above(next.leaf_decor_mut(), &above),
                    None => self.keep_before_table(&above, None),
                }
            }
            None => {}
        }
        if self.document.get(table).and_then(Item::as_table_like).is_some_and(TableLike::is_empty) {
            self.document.remove(table);
        }
    }

    /// Whether something stands before this table in the file.
    fn begins_behind(&mut self, table: &Table) -> bool {
        let root = self.document.as_table_mut();
        root.iter().any(|(_, item)| item.is_value())
            || tables(root).iter().any(|other| other.position() < table.position())
    }

    /// Removes a setting of the whole file; what stands above it may be the file's own head, and is kept.
    fn remove_setting(&mut self, name: &str) {
        let root = self.document.as_table_mut();
        let next = root.iter().skip_while(|(key, _)| *key != name).nth(1);
        let next = next.filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned());
        let above = root.key(name).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        root.remove(name);
        let above = above.unwrap_or_default();
        match next.and_then(|next| root.key_mut(&next)) {
            Some(mut next) => keep_above(next.leaf_decor_mut(), &above),
            None => self.keep_before_table(&above, Some(isize::MIN)),
        }
    }

    /// Puts `comment` in front of the table that now stands where one was removed, or at the end of the file.
    fn keep_before_table(&mut self, comment: &str, position: Option<isize>) {
        if comment.trim().is_empty() {
            return;
        }
        let mut next: Option<&mut Table> = None;
        let after = |table: &Table| table.position().filter(|at| position.is_some_and(|position| *at > position));
        for table in tables(self.document.as_table_mut()) {
            let nearer = after(table)
                .is_some_and(|at| next.as_ref().and_then(|next| next.position()).is_none_or(|next| at < next));
            if nearer {
                next = Some(table);
            }
        }
        if let Some(next) = next {
            keep_above(next.decor_mut(), comment);
        } else {
            let own = self.document.trailing().as_str().unwrap_or_default().to_owned();
            self.document.set_trailing(format!("{comment}{own}"));
        }
    }

    /// Takes names out of routes and sets, and what nothing is left of; and out of `default`, `compare` and presets.
    /// What is gone then.
    fn forget(&mut self, is_it: &dyn Fn(&str) -> bool) -> Vec<String> {
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
    fn users(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
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
    fn for_each_name(&mut self, act: &mut dyn FnMut(&mut Value)) {
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

/// The entries of a table, however it is written.
fn entries(item: Option<&Item>) -> impl Iterator<Item = (&str, &Item)> {
    item.and_then(Item::as_table_like).into_iter().flat_map(TableLike::iter)
}

fn entries_mut(item: Option<&mut Item>) -> impl Iterator<Item = (String, &mut Item)> {
    let table = item.and_then(Item::as_table_like_mut);
    table.into_iter().flat_map(|table| table.iter_mut().map(|(key, item)| (key.get().to_owned(), item)))
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

/// A number as a person would write it.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

fn text_of(item: Option<&Item>) -> Option<&str> {
    item?.as_str()
}

/// The name in a list of models: `"fast"`, or the one in `{ name = "fast", … }`.
fn text_of_value(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.as_inline_table()?.get("name")?.as_str())
}

fn replace_text(value: &mut Value, text: &str) {
    if let Some(named) = value.as_inline_table_mut().and_then(|table| table.get_mut("name")) {
        return replace_text(named, text);
    }
    let decor = value.decor().clone();
    *value = Value::from(text);
    *value.decor_mut() = decor;
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

/// Puts `comment` above whatever has this decor.
fn keep_above(decor: &mut Decor, comment: &str) {
    let own = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let joined = format!("{comment}{own}");
    decor.set_prefix(joined);
}

/// What of the lines above an entry stands apart from it by a blank line.
fn apart(above: &str) -> &str {
    above.rfind("\n\n").map_or("", |blank| &above[..=blank])
}

/// All tables with a head of their own below this one.
fn tables(table: &mut Table) -> Vec<&mut Table> {
    let mut found = Vec::new();
    for (_, item) in table.iter_mut() {
        if let Item::Table(inner) = item {
            // A table with a head is one place; what is below it comes after it.
            if inner.is_implicit() {
                found.extend(tables(inner));
            } else {
                found.push(inner);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
