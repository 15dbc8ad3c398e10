//! Generates the text of a new config file, with comments, for `mmchat init`.

use std::fmt::Write as _;

use toml_edit::{InlineTable, Key, Value};

use super::{
    names::{MAX_NAME_CHARS, first_invalid_char},
    normalize_name, vendors,
};
use crate::model::api_key::ApiKey;

/// The contents of a new config file.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigTemplate {
    /// The endpoints.
    pub endpoints: Vec<TemplateEndpoint>,
    /// The model named `fast`.
    pub fast: Option<TemplateModel>,
    /// The model named `strong`.
    pub strong: Option<TemplateModel>,
    /// The model named `cheap`.
    pub cheap: Option<TemplateModel>,
    /// Additional models for comparisons.
    pub extra_models: Vec<TemplateModel>,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub(crate) struct TemplateEndpoint {
    /// The name.
    pub name: String,
    /// The base URL.
    pub base_url: String,
    /// The API key.
    pub key: TemplateKey,
}

/// The API key of an endpoint, or its source.
#[derive(Clone, Debug)]
pub(crate) enum TemplateKey {
    /// The service needs no key.
    None,
    /// An environment variable.
    Env(String),
    /// A file.
    File(String),
    /// A key that the user typed. It is stored in a separate file, never in the config.
    Typed(ApiKey),
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateModel {
    /// The name of the endpoint.
    pub endpoint: String,
    /// The model ID used by the endpoint.
    pub upstream: String,
    /// The context window in tokens, if the service reports it.
    pub context: Option<u64>,
}

/// The path of the file for an endpoint's typed key, relative to the config's folder.
#[must_use]
pub(crate) fn key_file_path(endpoint: &str) -> String {
    format!("keys/{endpoint}")
}

impl ConfigTemplate {
    /// The models with their names, without duplicates. A model with a role has the name of its first role.
    #[must_use]
    pub(crate) fn named_models(&self) -> Vec<(String, &TemplateModel)> {
        let roles = [("fast", &self.fast), ("strong", &self.strong), ("cheap", &self.cheap)];
        let roles = roles.into_iter().filter_map(|(name, model)| Some((name.to_owned(), model.as_ref()?)));
        let extra = self.extra_models.iter().map(|model| (name_from_upstream_id(&model.upstream), model));
        let mut named: Vec<(String, &TemplateModel)> = Vec::new();
        for (name, model) in roles.chain(extra) {
            if named.iter().any(|(_, known)| *known == model) {
                continue;
            }
            // The names of the routes and the set are also taken.
            let taken = |name: &str| {
                ["chat", "analysis", "simple", "all"].contains(&name) || named.iter().any(|(known, _)| known == name)
            };
            let numbered = (2..).map(|number| format!("{name}-{number}"));
            let name = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
            named.push((name.expect("the number range is unbounded"), model));
        }
        named
    }

    /// The text of the file. `include_typed_keys` puts typed keys into the text, to test them before anything is
    /// written; such a text must stay in memory.
    #[must_use]
    pub(crate) fn to_toml(&self, include_typed_keys: bool) -> String {
        let models = self.named_models();
        let mut out = String::from(HEADER);
        if !models.is_empty() {
            out.push_str("default = \"chat\"   # the model or route for `mmchat ask`\ncompare = \"all\"    # the set for `mmchat compare`\n\n");
        }
        out.push_str("# ---- Endpoints: services and their keys ----\n\n");
        for endpoint in &self.endpoints {
            push_endpoint(endpoint, include_typed_keys, &mut out);
        }
        if !models.is_empty() {
            out.push_str("# ---- Models: your name for each, and the model ID used by its endpoint ----\n\n");
        }
        for (index, (name, model)) in models.iter().enumerate() {
            push_model(name, model, index == 0, &mut out);
        }
        if !models.is_empty() {
            self.push_routes(&models, &mut out);
        }
        out
    }

    fn push_routes(&self, models: &[(String, &TemplateModel)], out: &mut String) {
        out.push_str(
            "# ---- Routes: one name, several models, one answer. When a model fails, the next one is tried ----\n\n",
        );
        let name_of = |role: &Option<TemplateModel>| {
            let model = role.as_ref()?;
            models.iter().find(|(_, known)| *known == model).map(|(name, _)| name.clone())
        };
        let (fast, strong, cheap) = (name_of(&self.fast), name_of(&self.strong), name_of(&self.cheap));
        for (route, comment, order) in [
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
            push_line(out, &format!("[routes.{route}]   # {comment}\nmodels = {}\n", toml_array(members)));
        }
        out.push_str("# ---- Sets: one name, several models, one answer from each: mmchat compare ----\n\n[sets]\n");
        push_line(out, &format!("all = {}", toml_array(models.iter().map(|(name, _)| name.as_str()).collect())));
    }
}

const HEADER: &str =
    "# Configuration of mmchat. Check it with `mmchat config check`, list its models with `mmchat models`.\n\n";

fn push_endpoint(endpoint: &TemplateEndpoint, include_typed_keys: bool, out: &mut String) {
    let vendor = vendors::by_name(&endpoint.name);
    let title = vendor.map(|vendor| format!("   # {}", vendor.title)).unwrap_or_default();
    push_line(out, &format!("[endpoints.{}]{title}", toml_key(&endpoint.name)));
    if vendor.is_none_or(|vendor| vendor.base_url != endpoint.base_url) {
        push_line(out, &format!("base_url = {}", toml_string(&endpoint.base_url)));
    }
    match &endpoint.key {
        TemplateKey::None => {}
        TemplateKey::Env(name) => push_line(out, &format!("api_key = {}", key_source_toml("env", name))),
        TemplateKey::File(path) => push_line(out, &format!("api_key = {}", key_source_toml("file", path))),
        TemplateKey::Typed(secret) if include_typed_keys => {
            push_line(out, &format!("api_key = {}", toml_string(secret.expose())));
        }
        TemplateKey::Typed(_) => {
            push_line(out, &format!("api_key = {}", key_source_toml("file", &key_file_path(&endpoint.name))));
        }
    }
    out.push_str("# max_concurrency = 16   # concurrent requests; see also rpm, timeouts, headers, proxy\n\n");
}

fn push_model(name: &str, model: &TemplateModel, with_examples: bool, out: &mut String) {
    push_line(
        out,
        &format!(
            "[models.{}]\nendpoint = {}\nmodel = {}",
            toml_key(name),
            toml_string(&model.endpoint),
            toml_string(&model.upstream)
        ),
    );
    if let Some(context) = model.context {
        push_line(out, &format!("context = {context}"));
    }
    if with_examples {
        out.push_str("# params = { temperature = 0.2 }\n");
        out.push_str("# price = { input = 0.15, output = 0.60 }   # per million tokens; enables cost reporting\n");
        out.push_str("# tags = [\"cheap\"]   # for mmchat compare --tag\n");
    }
    out.push('\n');
}

fn push_line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}

fn key_source_toml(kind: &str, value: &str) -> String {
    Value::from(InlineTable::from_iter([(kind, value)])).to_string()
}

fn toml_key(name: &str) -> String {
    Key::new(name).to_string()
}

fn toml_array(names: Vec<&str>) -> String {
    Value::from_iter(names).to_string()
}

/// A name derived from an upstream model ID: `Qwen2.5-7B-Instruct` for `Qwen/Qwen2.5-7B-Instruct`.
#[must_use]
pub(crate) fn name_from_upstream_id(upstream: &str) -> String {
    let last_part = upstream.rsplit('/').find(|part| !part.is_empty()).unwrap_or("model");
    let name: String =
        last_part.chars().map(|c| if first_invalid_char(&c.to_string()).is_some() { '-' } else { c }).collect();
    // The name must not look like a flag or a folder.
    let name: String = normalize_name(&name).trim_start_matches(['-', '.']).chars().take(MAX_NAME_CHARS).collect();
    if name.is_empty() { "model".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn model(endpoint: &str, upstream: &str) -> TemplateModel {
        TemplateModel { endpoint: endpoint.into(), upstream: upstream.into(), context: None }
    }

    fn template() -> ConfigTemplate {
        let endpoint =
            |name: &str, base_url: &str, key| TemplateEndpoint { name: name.into(), base_url: base_url.into(), key };
        ConfigTemplate {
            endpoints: vec![
                endpoint("openai", "https://api.openai.com/v1", TemplateKey::Env("OPENAI_API_KEY".into())),
                endpoint("本地", "http://127.0.0.1:8080/v1", TemplateKey::Typed(ApiKey::new("sk-typed-secret"))),
            ],
            fast: Some(model("openai", "gpt-4o-mini")),
            strong: Some(model("本地", "Qwen/Qwen3:latest \"x\"")),
            cheap: Some(model("openai", "gpt-4o-mini")),
            extra_models: vec![model("本地", "a/chat"), model("本地", "b/x:1"), model("openai", "gpt-4o-mini")],
        }
    }

    #[test]
    fn template_is_a_valid_config_without_typed_keys() {
        let text = template().to_toml(false);
        let config =
            crate::config::resolve(&text, Path::new("c.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert!(!text.contains("sk-typed") && text.contains("{ file = \"keys/本地\" }"), "{text}");
        assert!(!text.contains("api.openai.com"), "a vendor needs no base_url: {text}");
        let names: Vec<&str> = config.models.iter().map(|model| model.id.0.as_str()).collect();
        assert_eq!(names, ["fast", "strong", "chat-2", "x-1"]);
        let route = |name: &str| {
            let models = &config.route(name).expect("defined").models;
            models.iter().map(|model| model.id.0.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((route("chat"), route("analysis")), (vec!["fast", "strong"], vec!["strong", "fast"]));
        assert_eq!(route("simple"), ["fast", "strong"]);
        assert_eq!(config.set("all").expect("defined").members, ["fast", "strong", "chat-2", "x-1"]);
        assert_eq!((config.default.as_deref(), config.compare.as_deref()), (Some("chat"), Some("all")));
        assert!(template().to_toml(true).contains("sk-typed-secret"));
    }

    #[test]
    fn template_without_models_is_valid() {
        let text = ConfigTemplate { endpoints: template().endpoints, ..ConfigTemplate::default() }.to_toml(false);
        assert_eq!(crate::config::resolve(&text, Path::new("c.toml")).expect("valid config").endpoints.len(), 2);
    }

    #[test]
    fn names_are_derived_from_upstream_ids() {
        for (upstream, name) in [
            ("Qwen/Qwen2.5-7B", "Qwen2.5-7B"),
            ("llama3:8b", "llama3-8b"),
            ("a/", "a"),
            ("通义 x", "通义-x"),
            ("", "model"),
            ("--flag", "flag"),
            ("..", "model"),
        ] {
            assert_eq!(name_from_upstream_id(upstream), name);
        }
        assert!(crate::config::is_valid_new_name(
            crate::config::NameKind::Other,
            &name_from_upstream_id(&"x".repeat(300))
        ));
    }
}
