//! Imports aichat's `config.yaml`.

use serde_yaml_ng::Value;

use super::{ImportError, ImportedConfig, ImportedKey, ImportedModel, yaml};
use crate::config::vendors;

/// Names of services in aichat that differ from the vendor names here.
const CLIENT_VENDORS: [(&str, &str); 3] = [("claude", "anthropic"), ("qianwen", "dashscope"), ("ernie", "qianfan")];

/// Imports each client as an endpoint.
pub(crate) fn parse(text: &str) -> Result<ImportedConfig, ImportError> {
    let document = yaml::parse(text)?;
    if document.get("clients").and_then(Value::as_sequence).is_none() {
        return Err(ImportError::Content("no list `clients`".into()));
    }
    let mut imported = ImportedConfig::default();
    // The names of the models in aichat (`client:model`) and here.
    let mut names = Vec::new();
    for client in yaml::list(&document, "clients") {
        self::import_client(&mut imported, client, &mut names);
    }
    if let Some(default_model) = yaml::nonempty_string(&document, "model") {
        match names.iter().find(|(name, _)| *name == default_model) {
            Some((_, model)) => imported.default = Some(model.clone()),
            // aichat has a built-in list of the models of vendors.
            None => match default_model.split_once(':').filter(|(client, _)| has_endpoint(&imported, client)) {
                Some((client, id)) => imported.default = Some(format!("{client}/{id}")),
                None => {
                    imported.skip(
                        format!("model {default_model}"),
                        "not listed by any client; run mmchat model default NAME",
                    );
                }
            },
        }
    }
    for setting in ["temperature", "top_p"] {
        if let Some(value) = yaml::number(&document, setting) {
            imported.skip(
                format!("{setting} {value}"),
                format!("set it in the entry of a model: params = {{ {setting} = {value} }}"),
            );
        }
    }
    Ok(imported)
}

fn has_endpoint(imported: &ImportedConfig, name: &str) -> bool {
    imported.endpoints.iter().any(|endpoint| endpoint.name == name)
}

fn import_client(imported: &mut ImportedConfig, client: &Value, names: &mut Vec<(String, String)>) {
    let kind = yaml::string(client, "type").unwrap_or_default();
    let name = yaml::nonempty_string(client, "name").unwrap_or_else(|| kind.clone());
    let item = format!("client {name}");
    let vendor = CLIENT_VENDORS.iter().find(|(known, _)| *known == kind).map_or(kind.as_str(), |(_, vendor)| vendor);
    // An OpenAI-compatible client often has the name of its service.
    let vendor = vendors::by_name(vendor).or_else(|| vendors::by_name(&name));
    let api_base = yaml::nonempty_string(client, "api_base");
    if kind != "openai" && kind != "openai-compatible" && (api_base.is_some() || vendor.is_none()) {
        return imported.skip(item, format!("{kind} has no known OpenAI-compatible API"));
    }
    let Some(base_url) = api_base.or_else(|| vendor.map(|vendor| vendor.base_url.clone())) else {
        return imported.skip(item, "no api_base");
    };
    let keys = match yaml::string(client, "api_key") {
        Some(key) => imported.parse_key(&item, &key).into_iter().collect(),
        // Without a key, aichat reads it from the environment variable `NAME_API_KEY`.
        None => vendor
            .and_then(|vendor| vendor.key_env.first())
            .map(|name| ImportedKey::Env(name.clone()))
            .into_iter()
            .collect(),
    };
    let Some(endpoint) = imported.find_or_add_endpoint(&item, &name, &base_url, keys) else { return };
    let models = yaml::list(client, "models");
    if models.is_empty() {
        imported.skip(format!("models of {name}"), format!("built into aichat; run mmchat models sync {endpoint}"));
    }
    for model in models {
        let Some(id) = yaml::nonempty_string(model, "name") else { continue };
        if yaml::string(model, "type").is_some_and(|kind| kind != "chat") {
            imported.skip(format!("model {name}:{id}"), "mmchat supports chat models only");
            continue;
        }
        let upstream = yaml::nonempty_string(model, "real_name").unwrap_or_else(|| id.clone());
        let price = |key: &str| yaml::number(model, key);
        let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
        let new_name = crate::config::unique_name(&crate::config::template::name_from_upstream_id(&id), &taken);
        names.push((format!("{name}:{id}"), new_name.clone()));
        imported.models.push(ImportedModel {
            name: new_name,
            endpoint: endpoint.clone(),
            upstream,
            context: yaml::unsigned(model, "max_input_tokens"),
            price: price("input_price").zip(price("output_price")),
            params: Vec::new(),
        });
    }
}
