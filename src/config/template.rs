//! A first config, as text with comments, for people who have not written one.
//!
//! Owns what such a file looks like and how models are named in it. Refuses to ask anybody: what goes in is decided
//! already.

use std::fmt::Write as _;

use toml_edit::{InlineTable, Key, Value};

use super::{
    names::{LONGEST, forbidden},
    normalised, vendors,
};
use crate::model::api_key::ApiKey;

/// What a first config holds.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The services.
    pub endpoints: Vec<DraftEndpoint>,
    /// What the person calls fast.
    pub fast: Option<DraftModel>,
    /// What the person calls strong.
    pub strong: Option<DraftModel>,
    /// What the person calls cheap.
    pub cheap: Option<DraftModel>,
    /// Whom else to compare with.
    pub also: Vec<DraftModel>,
}

/// A service.
#[derive(Clone, Debug)]
pub struct DraftEndpoint {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub base_url: String,
    /// Its key.
    pub key: DraftKey,
}

/// A service's key.
#[derive(Clone, Debug)]
pub enum DraftKey {
    /// It wants none.
    None,
    /// In a variable of the environment.
    Env(String),
    /// In a file.
    File(String),
    /// Just typed; it is to be kept in a file of its own, never in the config.
    Typed(ApiKey),
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftModel {
    /// The service's name.
    pub endpoint: String,
    /// What it calls the model.
    pub upstream: String,
    /// Tokens it reads and writes together, if the service says so.
    pub context: Option<u64>,
}

/// Where the typed key of an endpoint is kept, seen from the config's folder.
#[must_use]
pub fn key_file(endpoint: &str) -> String {
    format!("keys/{endpoint}")
}

impl Draft {
    /// The models with the names they get, each once: what somebody calls fast is `fast`.
    #[must_use]
    pub fn models(&self) -> Vec<(String, &DraftModel)> {
        let roles = [("fast", &self.fast), ("strong", &self.strong), ("cheap", &self.cheap)];
        let roles = roles.into_iter().filter_map(|(name, model)| Some((name.to_owned(), model.as_ref()?)));
        let also = self.also.iter().map(|model| (name_of(&model.upstream), model));
        let mut named: Vec<(String, &DraftModel)> = Vec::new();
        for (name, model) in roles.chain(also) {
            if named.iter().any(|(_, known)| *known == model) {
                continue;
            }
            // Routes and the set take their names, too.
            let taken = |name: &str| {
                ["chat", "analysis", "simple", "all"].contains(&name) || named.iter().any(|(known, _)| known == name)
            };
            let numbered = (2..).map(|number| format!("{name}-{number}"));
            let name = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
            named.push((name.expect("numbers do not end"), model));
        }
        named
    }

    /// The file. `typed`: with typed keys in it, which only memory may hold, to try them before anything is written.
    #[must_use]
    pub fn text(&self, typed: bool) -> String {
        let models = self.models();
        let mut out = String::from(HEAD);
        if !models.is_empty() {
            out.push_str("default = \"chat\"   # what `mmchat ask` uses\ncompare = \"all\"    # whom a bare `mmchat compare` asks\n\n");
        }
        out.push_str("# ---- Services: where they are and where their keys are ----\n\n");
        for endpoint in &self.endpoints {
            put_endpoint(endpoint, typed, &mut out);
        }
        if !models.is_empty() {
            out.push_str("# ---- Models: your name for each, and what its service calls it ----\n\n");
        }
        for (index, (name, model)) in models.iter().enumerate() {
            put_model(name, model, index == 0, &mut out);
        }
        if !models.is_empty() {
            self.put_routes(&models, &mut out);
        }
        out
    }

    fn put_routes(&self, models: &[(String, &DraftModel)], out: &mut String) {
        out.push_str("# ---- Routes: one name, several models, one answer. When one fails, the next is asked ----\n\n");
        let name = |role: &Option<DraftModel>| {
            let model = role.as_ref()?;
            models.iter().find(|(_, known)| *known == model).map(|(name, _)| name.clone())
        };
        let (fast, strong, cheap) = (name(&self.fast), name(&self.strong), name(&self.cheap));
        for (route, why, order) in [
            ("chat", "fast", [&fast, &cheap, &strong]),
            ("analysis", "strong", [&strong, &fast, &cheap]),
            ("simple", "cheap", [&cheap, &fast, &strong]),
        ] {
            let mut members: Vec<&str> = Vec::new();
            for name in order.into_iter().flatten() {
                if !members.contains(&name.as_str()) {
                    members.push(name);
                }
            }
            if members.is_empty() {
                members.extend(models.iter().map(|(name, _)| name.as_str()));
            }
            line(out, &format!("[routes.{route}]   # {why}\nmodels = {}\n", list(members)));
        }
        out.push_str("# ---- Sets: one name, several answers, side by side: mmchat compare ----\n\n[sets]\n");
        line(out, &format!("all = {}", list(models.iter().map(|(name, _)| name.as_str()).collect())));
    }
}

const HEAD: &str =
    "# mmchat's config. `mmchat config check` tells every mistake in it, `mmchat models` what it gives.\n\n";

fn put_endpoint(endpoint: &DraftEndpoint, typed: bool, out: &mut String) {
    let vendor = vendors::named(&endpoint.name);
    let title = vendor.map(|vendor| format!("   # {}", vendor.title)).unwrap_or_default();
    line(out, &format!("[endpoints.{}]{title}", key(&endpoint.name)));
    if vendor.is_none_or(|vendor| vendor.base_url != endpoint.base_url) {
        line(out, &format!("base_url = {}", quoted(&endpoint.base_url)));
    }
    match &endpoint.key {
        DraftKey::None => {}
        DraftKey::Env(name) => line(out, &format!("api_key = {}", source("env", name))),
        DraftKey::File(path) => line(out, &format!("api_key = {}", source("file", path))),
        DraftKey::Typed(secret) if typed => line(out, &format!("api_key = {}", quoted(secret.expose()))),
        DraftKey::Typed(_) => line(out, &format!("api_key = {}", source("file", &key_file(&endpoint.name)))),
    }
    out.push_str("# max_concurrency = 16   # requests at once; also rpm, timeouts, headers, proxy\n\n");
}

fn put_model(name: &str, model: &DraftModel, explained: bool, out: &mut String) {
    line(
        out,
        &format!("[models.{}]\nendpoint = {}\nmodel = {}", key(name), quoted(&model.endpoint), quoted(&model.upstream)),
    );
    if let Some(context) = model.context {
        line(out, &format!("context = {context}"));
    }
    if explained {
        out.push_str("# params = { temperature = 0.2 }\n");
        out.push_str("# price = { input = 0.15, output = 0.60 }   # of a million tokens; then costs are shown\n");
        out.push_str("# tags = [\"cheap\"]   # for mmchat compare --tag\n");
    }
    out.push('\n');
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn source(kind: &str, place: &str) -> String {
    Value::from(InlineTable::from_iter([(kind, place)])).to_string()
}

fn key(name: &str) -> String {
    Key::new(name).to_string()
}

fn list(names: Vec<&str>) -> String {
    Value::from_iter(names).to_string()
}

/// A name for a model that its upstream id suggests: `Qwen/Qwen2.5-7B-Instruct` is `Qwen2.5-7B-Instruct`.
#[must_use]
pub fn name_of(upstream: &str) -> String {
    let last = upstream.rsplit('/').find(|part| !part.is_empty()).unwrap_or("model");
    let name: String = last.chars().map(|c| if forbidden(&c.to_string()).is_some() { '-' } else { c }).collect();
    // Nothing that looks like a flag or a folder, and nothing longer than a name.
    let name: String = normalised(&name).trim_start_matches(['-', '.']).chars().take(LONGEST).collect();
    if name.is_empty() { "model".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn model(endpoint: &str, upstream: &str) -> DraftModel {
        DraftModel { endpoint: endpoint.into(), upstream: upstream.into(), context: None }
    }

    fn draft() -> Draft {
        let endpoint =
            |name: &str, base_url: &str, key| DraftEndpoint { name: name.into(), base_url: base_url.into(), key };
        Draft {
            endpoints: vec![
                endpoint("openai", "https://api.openai.com/v1", DraftKey::Env("OPENAI_API_KEY".into())),
                endpoint("本地", "http://127.0.0.1:8080/v1", DraftKey::Typed(ApiKey::new("sk-typed-secret"))),
            ],
            fast: Some(model("openai", "gpt-4o-mini")),
            strong: Some(model("本地", "Qwen/Qwen3:latest \"x\"")),
            cheap: Some(model("openai", "gpt-4o-mini")),
            also: vec![model("本地", "a/chat"), model("本地", "b/x:1"), model("openai", "gpt-4o-mini")],
        }
    }

    #[test]
    fn a_draft_is_a_good_config_without_typed_keys() {
        let text = draft().text(false);
        let config =
            crate::config::resolve(&text, Path::new("c.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert!(!text.contains("sk-typed") && text.contains("{ file = \"keys/本地\" }"), "{text}");
        assert!(!text.contains("api.openai.com"), "a known service needs no address: {text}");
        let names: Vec<&str> = config.models.iter().map(|model| model.id.0.as_str()).collect();
        assert_eq!(names, ["fast", "strong", "chat-2", "x-1"]);
        let route = |name: &str| {
            let models = &config.route(name).expect("there").models;
            models.iter().map(|model| model.id.0.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((route("chat"), route("analysis")), (vec!["fast", "strong"], vec!["strong", "fast"]));
        assert_eq!(route("simple"), ["fast", "strong"]);
        assert_eq!(config.set("all").expect("there").members, ["fast", "strong", "chat-2", "x-1"]);
        assert_eq!((config.default.as_deref(), config.compare.as_deref()), (Some("chat"), Some("all")));
        assert!(draft().text(true).contains("sk-typed-secret"));
    }

    #[test]
    fn endpoints_alone_make_a_config_too() {
        let text = Draft { endpoints: draft().endpoints, ..Draft::default() }.text(false);
        assert_eq!(crate::config::resolve(&text, Path::new("c.toml")).expect("good").endpoints.len(), 2);
    }

    #[test]
    fn names_come_from_upstream_ids() {
        for (upstream, name) in [
            ("Qwen/Qwen2.5-7B", "Qwen2.5-7B"),
            ("llama3:8b", "llama3-8b"),
            ("a/", "a"),
            ("通义 x", "通义-x"),
            ("", "model"),
            ("--flag", "flag"),
            ("..", "model"),
        ] {
            assert_eq!(name_of(upstream), name);
        }
        assert!(crate::config::is_name(&name_of(&"x".repeat(300))));
    }
}
