//! Formats the effective configuration as TOML, with the origin of each value if requested.

use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, Value};

use super::{Config, ConfigLayers, Preset, ResolvedSettings, file::ConfigFile, file::PresetEntry, origin::Origins};

/// The effective settings and configuration.
#[derive(Serialize)]
struct Effective<'a> {
    #[serde(flatten)]
    settings: &'a ResolvedSettings,
    /// The config files that were read.
    files: Vec<String>,
    #[serde(flatten)]
    config: ConfigFile,
}

/// The configuration in effect as TOML. With `origins`, a comment names the origin of each value.
#[must_use]
pub(crate) fn effective_toml(config: &Config, settings: &ResolvedSettings, origins: Option<&Origins>) -> String {
    let mut document = document(&Effective {
        settings,
        files: config.files.iter().map(|file| file.display().to_string()).collect(),
        config: config.into(),
    });
    if let Some(origins) = origins {
        annotate(document.as_table_mut(), &mut Vec::new(), &|path| match origins.of_setting(settings, path) {
            Some(origin) => origin,
            None if path == ["files"] => "read".to_owned(),
            None => origins.of_key(path, config),
        });
    }
    document.to_string()
}

/// The config in effect as TOML, without the settings of the command.
#[must_use]
pub fn config_toml(config: &Config) -> String {
    document(&ConfigFile::from(config)).to_string()
}

/// The effective config as TOML, with the origin of each value in a comment.
#[must_use]
pub fn config_toml_with_origins(config: &Config, layers: &ConfigLayers) -> String {
    let origins = Origins::new(layers);
    let mut document = document(&ConfigFile::from(config));
    annotate(document.as_table_mut(), &mut Vec::new(), &|path| origins.of_key(path, config));
    document.to_string()
}

/// A preset as a TOML table.
#[must_use]
pub(crate) fn preset_toml(preset: &Preset) -> String {
    #[derive(Serialize)]
    struct Presets {
        presets: super::values::OrderedTable<PresetEntry>,
    }
    document(&Presets { presets: [(preset.name.clone(), preset.into())].into_iter().collect() }).to_string()
}

fn document(value: &impl Serialize) -> DocumentMut {
    let mut document = toml_edit::ser::to_document(value).expect("all values of a config have a form in TOML");
    lay_out(document.as_table_mut(), 0);
    document
}

/// The tables whose keys are names of entries: each entry gets a header.
const NAMED_TABLES: [&str; 4] = ["endpoints", "models", "routes", "presets"];

/// Gives tables their headers, and removes empty ones. Tables inside an entry are written with dotted keys.
fn lay_out(table: &mut Table, depth: usize) {
    let names: Vec<String> = table.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let Some(inner) = table.get_mut(&name).and_then(to_table) else { continue };
        // The values of `extra` are the user's: an empty table among them is sent.
        if inner.is_empty() || name == "extra" && depth > 0 {
            if inner.is_empty() {
                table.remove(&name);
            } else {
                inner.set_dotted(true);
            }
            continue;
        }
        if depth == 0 && NAMED_TABLES.contains(&name.as_str()) {
            lay_out_entries(inner);
        } else {
            inner.set_dotted(depth > 0);
            lay_out(inner, depth + 1);
            if let Some(clients) = inner.get_mut("keys").filter(|_| depth == 0 && name == "serve").and_then(to_table) {
                clients.set_dotted(false);
                lay_out_entries(clients);
            }
        }
        if inner.is_empty() {
            table.remove(&name);
        }
    }
}

fn lay_out_entries(table: &mut Table) {
    table.set_implicit(true);
    for (_, entry) in table.iter_mut() {
        if let Some(entry) = to_table(entry) {
            entry.set_dotted(false);
            lay_out(entry, 2);
        }
    }
}

/// Turns an inline table into a table; `None` if `item` is not a table.
fn to_table(item: &mut Item) -> Option<&mut Table> {
    if let Item::Value(Value::InlineTable(_)) = item {
        *item = std::mem::take(item).into_table().map_or_else(|item| item, Item::Table);
    }
    item.as_table_mut()
}

/// Adds a comment with the origin to every value.
fn annotate(table: &mut Table, path: &mut Vec<String>, origin: &dyn Fn(&[String]) -> String) {
    for (key, item) in table.iter_mut() {
        path.push(key.get().to_owned());
        match item {
            Item::Table(inner) => annotate(inner, path, origin),
            Item::Value(value) => value.decor_mut().set_suffix(format!("  # {}", origin(path))),
            Item::None | Item::ArrayOfTables(_) => {}
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::{
        config::{ConfigLayers, ConfigText, Flags, resolve},
        model::environment::Environment,
    };

    fn settings() -> ResolvedSettings {
        ResolvedSettings::new(&Environment::default(), &Flags::default()).expect("valid settings")
    }

    /// A config that sets every key of the schema.
    const FULL: &str = include_str!("../../tests/fixtures/config/full.toml");

    fn leaf_paths(table: &toml::Table, prefix: &str, paths: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = format!("{prefix}/{key}");
            match value {
                toml::Value::Table(inner) => leaf_paths(inner, &path, paths),
                value => _ = paths.insert(format!("{path} = {value}")),
            }
        }
    }

    #[test]
    fn every_key_of_the_file_is_shown_and_parses_to_the_same_config() {
        let config = resolve(FULL, Path::new("/c.toml")).expect("valid config");
        let text = config_toml(&config);
        let (mut written, mut shown) = (BTreeSet::new(), BTreeSet::new());
        leaf_paths(&FULL.parse().expect("valid TOML"), "", &mut written);
        leaf_paths(&text.parse().expect("valid TOML"), "", &mut shown);
        // A member without a weight has weight 1; an effective timeout of a model may be that of its endpoint.
        let missing: Vec<_> = written.difference(&shown).filter(|leaf| !leaf.starts_with("/routes/r/models")).collect();
        assert!(missing.is_empty(), "{missing:#?}\n{text}");
        let again = resolve(&text, Path::new("/c.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert_eq!(config_toml(&again), text);
    }

    #[cfg(feature = "schema")]
    #[test]
    fn full_config_sets_every_key_of_the_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(ConfigFile)).expect("a schema is JSON");
        let mut keys = BTreeSet::new();
        let mut pending = vec![&schema];
        while let Some(value) = pending.pop() {
            let properties = value.get("properties").and_then(serde_json::Value::as_object);
            keys.extend(properties.into_iter().flatten().map(|(key, _)| key.as_str()));
            match value {
                serde_json::Value::Object(object) => pending.extend(object.values()),
                serde_json::Value::Array(array) => pending.extend(array),
                _ => {}
            }
        }
        let mut paths = BTreeSet::new();
        leaf_paths(&FULL.parse().expect("valid TOML"), "", &mut paths);
        let set_keys: BTreeSet<&str> =
            paths.iter().flat_map(|path| path.split(" = ").next().unwrap_or_default().split('/')).collect();
        // Forms of a key source and of a member are tables in lists.
        let in_lists = ["env", "file", "command", "keyring", "name", "weight"];
        let unused: Vec<_> = keys.iter().filter(|key| !set_keys.contains(*key) && !in_lists.contains(key)).collect();
        assert!(keys.len() > 60 && unused.is_empty(), "{} keys, not in the test: {unused:?}", keys.len());
    }

    #[test]
    fn secrets_are_shown_by_source_only() {
        let text = r#"
[endpoints.a]
base_url = "https://user:hunter2@h/v1?key=topsecret"
api_keys = ["sk-literal-secret", { env = "A_KEY" }, { command = ["pass", "argument-secret"] }, { command = "sh line-secret" }]
headers = { X-Token = "header-secret-value" }
proxy = "http://me:proxy-secret@p:1"
[serve.keys.team]
api_key = "client-secret-value"
rpm = 7
"#;
        let config = resolve(text, Path::new("c.toml")).expect("valid config");
        let toml = effective_toml(&config, &settings(), None);
        for secret in [
            "hunter2",
            "topsecret",
            "literal-secret",
            "header-secret",
            "proxy-secret",
            "client-secret",
            "argument-secret",
            "line-secret",
        ] {
            assert!(!toml.contains(secret), "{secret} in\n{toml}");
        }
        assert!(toml.contains("[serve.keys.team]") && toml.contains("rpm = 7"), "{toml}");
        assert!(toml.contains("{ env = \"A_KEY\" }") && toml.contains("headers.x-token"), "{toml}");
    }

    #[test]
    fn origin_of_each_value_is_named() {
        let file = |path: &str, text: &str| Some(ConfigText { path: path.into(), text: text.to_owned() });
        let variables = [("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"), ("MMCHAT_PLAIN", "1")];
        let environment: Environment =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let layers = ConfigLayers {
            system: file(
                "/etc/mmchat.toml",
                "history_days = 5\n[endpoints.e]\nbase_url = \"http://old/v1\"\nrpm = 3\n[endpoints.f]\nbase_url = \"http://f/v1\"\n",
            ),
            user: file(
                "/home/c.toml",
                "default = \"m\"\n[endpoints.e]\nbase_url = \"http://new/v1\"\napi_key = { env = \"K\" }\ntimeouts.idle = \"3s\"\n\
                 [endpoints.openai]\n[endpoints.deepseek]\n[models.m]\nendpoint = \"e\"\nmodel = \"x\"\ntimeouts.total = \"9s\"\n\
                 [routes.r]\nmodels = [\"m\"]\non_cut = \"buffer\"\n[spend]\nday = 5\nmonth = { cny = 9 }\n[endpoints.openrouter]\n",
            ),
            environment: environment.clone(),
        };
        let config = layers.resolve().expect("valid layers");
        let flags = Flags { format: Some("json".into()), ..Flags::default() };
        let settings = ResolvedSettings::new(&environment, &flags).expect("valid settings");
        let text = effective_toml(&config, &settings, Some(&Origins::new(&layers)));
        for line in [
            "format = \"json\"  # --format",
            "plain = true  # MMCHAT_PLAIN",
            "no_stdin = false  # default",
            "default = \"m\"  # /home/c.toml:1",
            "history_days = 5  # /etc/mmchat.toml:1",
            "base_url = \"http://new/v1\"  # /home/c.toml:3",
            "api_keys = [{ env = \"K\" }]  # /home/c.toml:4",
            "timeouts.idle = \"3s\"  # /home/c.toml:5",
            "base_url = \"http://f/v1\"  # /etc/mmchat.toml:6",
            "base_url = \"http://127.0.0.1:9/v1\"  # OPENAI_BASE_URL",
            "base_url = \"https://api.deepseek.com/v1\"  # vendor \"deepseek\"",
            "gzip = false  # default",
            "timeouts.total = \"9s\"  # /home/c.toml:11",
            "on_incomplete = \"buffer\"  # /home/c.toml:14",
            "day.USD = 5.0  # /home/c.toml:16",
            "month.CNY = 9.0  # /home/c.toml:17",
            "gateway = true  # vendor \"openrouter\"",
            "files = [\"/etc/mmchat.toml\", \"/home/c.toml\"]  # read",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("rpm"), "the key of the replaced entry is not shown\n{text}");
        let unmarked = text.lines().filter(|line| line.contains(" = ") && !line.contains("  # "));
        assert_eq!(unmarked.count(), 0, "{text}");
    }
}
