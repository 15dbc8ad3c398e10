//! Finds the origin of a value of the effective configuration: a file and a line, a variable, a flag or the default.

use std::path::Path;

use toml_edit::{Document, Item, TableLike};

use super::{
    Config, ConfigLayers, ResolvedSettings, names::normalize_name, renamed_keys::old_names, source::ConfigText,
    table_path::entry_len, vendors,
};
use crate::model::{environment::Environment, sanitize::one_line};

/// The layers of a configuration, for finding the origin of its values.
#[derive(Debug)]
pub(crate) struct Origins {
    /// The user's file, then the system's.
    files: Vec<ParsedFile>,
    environment: Environment,
}

#[derive(Debug)]
struct ParsedFile {
    file: ConfigText,
    document: Document<String>,
}

impl Origins {
    /// The origins in `layers`, whose files are valid TOML.
    #[must_use]
    pub(crate) fn new(layers: &ConfigLayers) -> Self {
        let parse = |file: &ConfigText| Some(ParsedFile { file: file.clone(), document: file.text.parse().ok()? });
        Self {
            files: layers.user.iter().chain(&layers.system).filter_map(parse).collect(),
            environment: layers.environment.clone(),
        }
    }

    /// The origin of the setting at `path`; `None` if it is a key of the config.
    pub(super) fn of_setting(&self, settings: &ResolvedSettings, path: &[String]) -> Option<String> {
        let [name] = path else { return None };
        let source = settings.source_of(name)?;
        Some(match source {
            super::SettingSource::File => self.in_files(&["default".to_owned()]).unwrap_or_else(|| source.to_string()),
            source => source.to_string(),
        })
    }

    /// The origin of the config key at `path`.
    pub(super) fn of_key(&self, path: &[String], config: &Config) -> String {
        let own = self.in_files(path).or_else(|| self.of_known_service(path, config));
        own.or_else(|| self.of_endpoint_timeout(path, config)).unwrap_or_else(|| "default".to_owned())
    }

    /// The file and line of the key at `path`. Only the layer that has the entry is searched, because it replaces the
    /// entry of the other layer.
    fn in_files(&self, path: &[String]) -> Option<String> {
        let names: Vec<&str> = path.iter().map(String::as_str).take(3).collect();
        // The settings of the server and the policies are replaced one by one.
        let is_setting = matches!(names[..], ["serve", name, ..] if name != "keys")
            || matches!(names[..], ["retry" | "availability", ..]);
        let entry = if is_setting { path } else { &path[..entry_len(&names).min(path.len())] };
        let file = self.files.iter().find(|file| file.line(entry).is_some())?;
        // A line break in the path would end the comment.
        Some(format!("{}:{}", one_line(&file.path().display().to_string()), file.line(path)?))
    }

    /// The variable or the vendor that a property of an endpoint comes from.
    fn of_known_service(&self, path: &[String], config: &Config) -> Option<String> {
        let [table, name, key] = path else { return None };
        let endpoint = config.endpoint(name).filter(|_| table == "endpoints")?;
        let vendor = vendors::by_name(name);
        match key.as_str() {
            "base_url" => {
                let variable = vendor?.base_url_env.iter().find(|name| self.environment.get(name).is_some());
                Some(variable.cloned().unwrap_or_else(|| format!("vendor \"{name}\"")))
            }
            "gateway" if endpoint.gateway => {
                let vendor = vendors::by_url(&endpoint.base_url)?;
                Some(format!("vendor \"{}\"", vendor.name))
            }
            "api_keys" if self.files.is_empty() => vendor?.key_variable(&self.environment).map(str::to_owned),
            _ => None,
        }
    }

    /// The origin of a timeout that a model takes from its endpoint.
    fn of_endpoint_timeout(&self, path: &[String], config: &Config) -> Option<String> {
        let [table, model, key, timeout] = path else { return None };
        let endpoint = &config.model(model).filter(|_| table == "models" && key == "timeouts")?.endpoint.name;
        self.in_files(&["endpoints".into(), endpoint.clone(), key.clone(), timeout.clone()])
    }
}

impl ParsedFile {
    fn path(&self) -> &Path {
        &self.file.path
    }

    /// The line of the key at `path`, counted from 1. If a parent has a value that is not a table, such as an amount of
    /// money in the default currency, the line of that parent.
    fn line(&self, path: &[String]) -> Option<usize> {
        let mut table: &dyn TableLike = self.document.as_table();
        let mut position = None;
        for (depth, name) in path.iter().enumerate() {
            let (offset, item) = find(table, name, &path[..depth])?;
            position = Some(offset);
            match item.as_table_like() {
                Some(inner) => table = inner,
                None => break,
            }
        }
        let before = &self.file.text.as_bytes()[..position?];
        Some(memchr::memchr_iter(b'\n', before).count() + 1)
    }
}

/// Tables whose keys are compared without case: header names and currencies.
const CASELESS_TABLES: [&str; 4] = ["headers", "day", "month", "spend"];

/// The position and the value of the key `name` of the table at `path`, also under an older or a singular name.
fn find<'t>(table: &'t dyn TableLike, name: &str, path: &[String]) -> Option<(usize, &'t Item)> {
    let is_same = |key: &str| {
        let is_singular = name == "api_keys" && key == "api_key";
        normalize_name(key) == name
            || is_singular
            || name.eq_ignore_ascii_case(key)
                && path.last().is_some_and(|table| CASELESS_TABLES.contains(&table.as_str()))
            || path.first().is_some_and(|table| old_names(table, name).any(|old| old == key))
    };
    let (key, _) = table.iter().find(|(key, _)| is_same(key))?;
    let (key, item) = table.get_key_value(key)?;
    // A table that only exists because a subtable has a header has no position of its own.
    let span = key.span().or_else(|| item.span())?;
    Some((span.start, item))
}
