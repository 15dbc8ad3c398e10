//! llm's `extra-openai-models.yaml`.

use super::{ImportError, Imported, ImportedModel, yaml};

/// Each entry becomes a model; those at one address share an endpoint.
pub(crate) fn models(text: &str) -> Result<Imported, ImportError> {
    let document = yaml::read(text)?;
    let entries = document.as_sequence().filter(|entries| entries.iter().all(|entry| entry.get("model_id").is_some()));
    let entries = entries.ok_or_else(|| {
        ImportError("it is no list of entries with a model_id, as llm's extra-openai-models.yaml is".into())
    })?;
    let mut imported = Imported::default();
    for entry in entries {
        let Some(id) = yaml::some_text(entry, "model_id") else { continue };
        if entry.get("completion").and_then(serde_yaml_ng::Value::as_bool) == Some(true) {
            imported.leave_out(format!("model {id}"), "it completes texts; mmchat asks chat models only");
            continue;
        }
        let upstream = yaml::some_text(entry, "model_name").unwrap_or_else(|| id.clone());
        let address = yaml::some_text(entry, "api_base").unwrap_or_else(|| "https://api.openai.com/v1".into());
        let name = host(&address);
        let Some(endpoint) = imported.endpoint(&format!("model {id}"), &name, &address, Vec::new()) else { continue };
        if let Some(key) = yaml::some_text(entry, "api_key_name") {
            imported.leave_out(
                format!("the key `{key}` of {id}"),
                format!("llm keeps it: llm keys get {key} | mmchat key set {endpoint}"),
            );
        }
        if entry.get("headers").is_some() {
            imported
                .leave_out(format!("the headers of {id}"), "they may be secret; add headers = { … } to the endpoint");
        }
        imported.models.push(ImportedModel { name: id, endpoint, upstream, ..ImportedModel::default() });
    }
    imported.left_out.dedup();
    Ok(imported)
}

/// A name for whatever is at `address`.
fn host(address: &str) -> String {
    let url = url::Url::parse(address).ok();
    let vendor = url.as_ref().and_then(crate::config::vendors::at).map(|vendor| vendor.name.clone());
    let host = || url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    vendor.or_else(host).unwrap_or_else(|| "endpoint".into())
}
