//! Imports llm's `extra-openai-models.yaml`.

use super::{ImportError, ImportedConfig, ImportedModel, yaml};

/// Imports each entry as a model. Models with the same base URL share an endpoint.
pub(crate) fn parse(text: &str) -> Result<ImportedConfig, ImportError> {
    let document = yaml::parse(text)?;
    let entries = document.as_sequence().filter(|entries| entries.iter().all(|entry| entry.get("model_id").is_some()));
    let entries = entries.ok_or_else(|| ImportError::Content("not a list of entries with a `model_id`".into()))?;
    let mut imported = ImportedConfig::default();
    for entry in entries {
        let Some(id) = yaml::nonempty_string(entry, "model_id") else { continue };
        if entry.get("completion").and_then(serde_yaml_ng::Value::as_bool) == Some(true) {
            imported.skip(format!("model {id}"), "a completion model; mmchat supports chat models only");
            continue;
        }
        let upstream = yaml::nonempty_string(entry, "model_name").unwrap_or_else(|| id.clone());
        let base_url = yaml::nonempty_string(entry, "api_base").unwrap_or_else(|| "https://api.openai.com/v1".into());
        let name = endpoint_name(&base_url);
        let Some(endpoint) = imported.find_or_add_endpoint(&format!("model {id}"), &name, &base_url, Vec::new()) else {
            continue;
        };
        if let Some(key) = yaml::nonempty_string(entry, "api_key_name") {
            imported.skip(
                format!("the key \"{key}\" of {id}"),
                format!("stored by llm; run llm keys get {key} | mmchat key set {endpoint}"),
            );
        }
        if entry.get("headers").is_some() {
            imported.skip(format!("the headers of {id}"), "may be secret; add headers = { … } to the endpoint");
        }
        imported.models.push(ImportedModel { name: id, endpoint, upstream, ..ImportedModel::default() });
    }
    imported.skipped.dedup();
    Ok(imported)
}

/// A name for the endpoint at `address`: the vendor's name, else the host.
fn endpoint_name(base_url: &str) -> String {
    let url = url::Url::parse(base_url).ok();
    let vendor = url.as_ref().and_then(crate::config::vendors::by_url).map(|vendor| vendor.name.clone());
    let host = || url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    vendor.or_else(host).unwrap_or_else(|| "endpoint".into())
}
