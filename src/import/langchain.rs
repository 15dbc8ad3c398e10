//! Imports Langchain-Chatchat's `model_settings.yaml` (0.3) and `ONLINE_LLM_MODEL` of `model_config.py` (0.2).

use serde_json::Value;

use super::{ImportError, ImportedConfig, ImportedModel, python, yaml};
use crate::config::vendors;

/// Lists of a platform's models that are not chat models.
const NON_CHAT_LISTS: [&str; 6] = [
    "embed_models",
    "text2image_models",
    "image2text_models",
    "rerank_models",
    "speech2text_models",
    "text2speech_models",
];

/// Imports `MODEL_PLATFORMS` of `model_settings.yaml`.
pub(crate) fn parse_yaml(text: &str) -> Result<ImportedConfig, ImportError> {
    let document = yaml::parse(text)?;
    if document.get("MODEL_PLATFORMS").and_then(|platforms| platforms.as_sequence()).is_none() {
        return Err(ImportError::Content("no list `MODEL_PLATFORMS`".into()));
    }
    let mut imported = ImportedConfig::default();
    // Endpoints of platforms with `auto_detect_model`.
    let mut auto_detecting = Vec::new();
    for platform in yaml::list(&document, "MODEL_PLATFORMS") {
        let name = yaml::nonempty_string(platform, "platform_name").unwrap_or_else(|| "platform".into());
        auto_detecting.extend(self::import_platform(&mut imported, &name, platform));
    }
    if let Some(default_model) = yaml::nonempty_string(&document, "DEFAULT_LLM_MODEL") {
        match imported.models.iter().find(|model| model.upstream == default_model) {
            Some(model) => imported.default = Some(model.name.clone()),
            None => match auto_detecting.as_slice() {
                // Only this platform can have the model.
                [endpoint] => imported.default = Some(format!("{endpoint}/{default_model}")),
                _ => {
                    imported
                        .skip(format!("DEFAULT_LLM_MODEL {default_model}"), "not in the llm_models of any platform");
                }
            },
        }
    }
    for (setting, reason) in [
        ("DEFAULT_EMBEDDING_MODEL", "mmchat supports chat models only"),
        ("TEMPERATURE", "set it in the entry of a model: params = { temperature = … }"),
        ("MAX_TOKENS", "set it in the entry of a model: params = { max_tokens = … }"),
        ("HISTORY_LEN", "ask --continue always sends the complete conversation"),
        ("Agent_MODEL", "mmchat has no agents"),
    ] {
        if let Some(value) = yaml::nonempty_string(&document, setting) {
            imported.skip(format!("{setting} {value}"), reason);
        }
    }
    Ok(imported)
}

/// Imports a platform. Returns its endpoint if it has `auto_detect_model`.
fn import_platform(imported: &mut ImportedConfig, name: &str, platform: &serde_yaml_ng::Value) -> Option<String> {
    let kind = yaml::string(platform, "platform_type").unwrap_or_default();
    if kind == "azure" {
        let reason = "Azure URLs contain a deployment and a version; add it manually";
        imported.skip(format!("platform {name}"), reason);
        return None;
    }
    let Some(base_url) = yaml::nonempty_string(platform, "api_base_url") else {
        imported.skip(format!("platform {name}"), "no api_base_url");
        return None;
    };
    let keys: Vec<_> =
        yaml::string(platform, "api_key").and_then(|key| imported.parse_key(name, &key)).into_iter().collect();
    let is_key_missing = keys.is_empty() && matches!(kind.as_str(), "openai" | "oneapi");
    let endpoint = imported.find_or_add_endpoint(&format!("platform {name}"), name, &base_url, keys)?;
    if is_key_missing {
        imported.skip_missing_key(&endpoint);
    }
    if let Some(limit) = yaml::unsigned(platform, "api_concurrencies") {
        let reason = format!("add max_concurrency = {limit} to the endpoint if it needs a limit");
        imported.skip(format!("api_concurrencies of {name}"), reason);
    }
    set_gateway(imported, &endpoint, kind == "oneapi");
    if yaml::nonempty_string(platform, "api_proxy").is_some() {
        // The value is not shown because a proxy URL may contain a password.
        imported.skip(format!("api_proxy of {name}"), "add proxy = \"…\" to the endpoint");
    }
    let models = yaml::strings(platform, "llm_models");
    let auto_detects = platform.get("auto_detect_model").and_then(serde_yaml_ng::Value::as_bool) == Some(true);
    if models.is_empty() {
        let reason = if auto_detects { "detected at run time" } else { "llm_models is empty" };
        imported.skip(format!("models of {name}"), format!("{reason}; run mmchat models sync {endpoint}"));
    }
    for upstream in models {
        imported.models.push(ImportedModel {
            name: upstream.clone(),
            endpoint: endpoint.clone(),
            upstream,
            ..ImportedModel::default()
        });
    }
    for kind in NON_CHAT_LISTS {
        let names = yaml::strings(platform, kind);
        if !names.is_empty() {
            imported.skip(format!("{kind} of {name}: {}", names.join(", ")), "mmchat supports chat models only");
        }
    }
    auto_detects.then_some(endpoint)
}

fn set_gateway(imported: &mut ImportedConfig, endpoint: &str, gateway: bool) {
    if let Some(endpoint) = imported.endpoints.iter_mut().find(|known| known.name == endpoint) {
        endpoint.gateway |= gateway;
    }
}

/// Worker classes of version 0.2 and their vendors.
const WORKER_VENDORS: [(&str, &str); 6] = [
    ("ChatGLMWorker", "zhipu"),
    ("MiniMaxWorker", "minimax"),
    ("QwenWorker", "dashscope"),
    ("BaiChuanWorker", "baichuan"),
    ("ClaudeWorker", "anthropic"),
    ("GeminiWorker", "gemini"),
];
/// Workers whose services have changed their API: the keys only work with the old one.
const OUTDATED_WORKERS: [&str; 3] = ["XingHuoWorker", "QianFanWorker", "FangZhouWorker"];

/// Imports `ONLINE_LLM_MODEL` of `model_config.py`.
pub(crate) fn parse_python(text: &str) -> Result<ImportedConfig, ImportError> {
    let Some(Value::Object(online)) = python::parse_assignment(text, "ONLINE_LLM_MODEL")? else {
        return Err(ImportError::Content("no dictionary `ONLINE_LLM_MODEL`".into()));
    };
    let mut imported = ImportedConfig::default();
    for (name, entry) in &online {
        self::import_online_model(&mut imported, name, entry);
    }
    let default_model = python::parse_assignment(text, "LLM_MODELS").ok().flatten();
    let default_model = default_model.as_ref().and_then(|names| names.as_array()?.first()?.as_str());
    if let Some(default_model) = default_model {
        match imported.models.iter().find(|model| model.name == default_model) {
            Some(model) => imported.default = Some(model.name.clone()),
            None => {
                imported.skip(
                    format!("LLM_MODELS {default_model}"),
                    "a local model of Langchain-Chatchat, or not imported",
                );
            }
        }
    }
    Ok(imported)
}

fn import_online_model(imported: &mut ImportedConfig, name: &str, entry: &Value) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let item = format!("ONLINE_LLM_MODEL[\"{name}\"]");
    let vendor = match text("provider") {
        None => None,
        Some(worker) => match WORKER_VENDORS.iter().find(|(known, _)| *known == worker) {
            Some((_, vendor)) => vendors::by_name(vendor),
            None if OUTDATED_WORKERS.contains(&worker) => {
                return imported.skip(item, format!("{worker} uses keys of an old API of its service"));
            }
            None => return imported.skip(item, format!("{worker} uses its own format")),
        },
    };
    let Some(base_url) =
        text("api_base_url").map(str::to_owned).or_else(|| vendor.map(|vendor| vendor.base_url.clone()))
    else {
        return imported.skip(item, "no api_base_url");
    };
    let keys: Vec<_> = text("api_key").and_then(|key| imported.parse_key(name, key)).into_iter().collect();
    let is_key_missing = keys.is_empty();
    if vendor.is_some() && keys.is_empty() {
        return imported.skip(item, "no api_key");
    }
    // Anthropic's `version` is the version of the API, not a model.
    let version = text("version").filter(|_| vendor.is_none_or(|vendor| vendor.name != "anthropic"));
    let upstream = text("model_name").or(version).or(text("model")).map(str::to_owned);
    let Some(upstream) = upstream.or_else(|| vendor.and_then(|vendor| vendor.model.clone())) else {
        return imported.skip(item, "no model name");
    };
    let endpoint_name = vendor.map_or(name, |vendor| vendor.name.as_str());
    let Some(endpoint) = imported.find_or_add_endpoint(&item, endpoint_name, &base_url, keys) else { return };
    if is_key_missing {
        imported.skip_missing_key(&endpoint);
    }
    if text("openai_proxy").is_some() {
        imported.skip(format!("openai_proxy of {name}"), "add proxy = \"…\" to the endpoint");
    }
    imported.models.push(ImportedModel { name: name.to_owned(), endpoint, upstream, ..ImportedModel::default() });
}
