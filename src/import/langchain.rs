//! Langchain-Chatchat: `model_settings.yaml` (0.3) and `ONLINE_LLM_MODEL` of `model_config.py` (0.2).

use serde_json::Value;

use super::{ImportError, Imported, ImportedModel, python, yaml};
use crate::config::vendors;

/// Kinds of models of a platform that are not asked to chat.
const OTHER_KINDS: [&str; 6] = [
    "embed_models",
    "text2image_models",
    "image2text_models",
    "rerank_models",
    "speech2text_models",
    "text2speech_models",
];

/// `MODEL_PLATFORMS` of `model_settings.yaml`.
pub(crate) fn settings(text: &str) -> Result<Imported, ImportError> {
    let document = yaml::read(text)?;
    if document.get("MODEL_PLATFORMS").and_then(|platforms| platforms.as_sequence()).is_none() {
        return Err(ImportError(
            "it has no list MODEL_PLATFORMS, as Langchain-Chatchat's model_settings.yaml has".into(),
        ));
    }
    let mut imported = Imported::default();
    // Platforms whose models Langchain-Chatchat finds by itself.
    let mut detecting = Vec::new();
    for platform in yaml::list(&document, "MODEL_PLATFORMS") {
        let name = yaml::some_text(platform, "platform_name").unwrap_or_else(|| "platform".into());
        detecting.extend(self::platform(&mut imported, &name, platform));
    }
    if let Some(wanted) = yaml::some_text(&document, "DEFAULT_LLM_MODEL") {
        match imported.models.iter().find(|model| model.upstream == wanted) {
            Some(model) => imported.default = Some(model.name.clone()),
            None => match detecting.as_slice() {
                // It can only be found there.
                [endpoint] => imported.default = Some(format!("{endpoint}/{wanted}")),
                _ => imported.leave_out(format!("DEFAULT_LLM_MODEL {wanted}"), "no platform lists it in llm_models"),
            },
        }
    }
    for (setting, why) in [
        ("DEFAULT_EMBEDDING_MODEL", "mmchat asks chat models only"),
        ("TEMPERATURE", "set it for a model: params = { temperature = … }"),
        ("MAX_TOKENS", "set it for a model: params = { max_tokens = … }"),
        ("HISTORY_LEN", "ask --continue goes on with all of a conversation"),
        ("Agent_MODEL", "there are no agents here"),
    ] {
        if let Some(value) = yaml::some_text(&document, setting) {
            imported.leave_out(format!("{setting} {value}"), why);
        }
    }
    Ok(imported)
}

/// Adds a platform; its endpoint, if its models are found by asking it.
fn platform(imported: &mut Imported, name: &str, platform: &serde_yaml_ng::Value) -> Option<String> {
    let kind = yaml::text(platform, "platform_type").unwrap_or_default();
    if kind == "azure" {
        let why = "Azure's addresses hold a deployment and a version; add it by hand";
        imported.leave_out(format!("platform {name}"), why);
        return None;
    }
    let Some(address) = yaml::some_text(platform, "api_base_url") else {
        imported.leave_out(format!("platform {name}"), "it has no api_base_url");
        return None;
    };
    let keys: Vec<_> = yaml::text(platform, "api_key").and_then(|text| imported.key(name, &text)).into_iter().collect();
    let lacks = keys.is_empty() && matches!(kind.as_str(), "openai" | "oneapi");
    let endpoint = imported.endpoint(&format!("platform {name}"), name, &address, keys)?;
    if lacks {
        imported.lacks_key(&endpoint);
    }
    if let Some(most) = yaml::whole(platform, "api_concurrencies") {
        let why = format!("add max_concurrency = {most} to the endpoint if it wants that");
        imported.leave_out(format!("api_concurrencies of {name}"), why);
    }
    set_gateway(imported, &endpoint, kind == "oneapi");
    if yaml::some_text(platform, "api_proxy").is_some() {
        // It is not shown: a proxy's address may hold a password.
        imported.leave_out(format!("api_proxy of {name}"), "add proxy = \"…\" to the endpoint");
    }
    let models = yaml::texts(platform, "llm_models");
    let detected = platform.get("auto_detect_model").and_then(serde_yaml_ng::Value::as_bool) == Some(true);
    if models.is_empty() {
        let what = if detected { "its models are found while it runs" } else { "llm_models is empty" };
        imported.leave_out(format!("models of {name}"), format!("{what}: mmchat models sync {endpoint}"));
    }
    for upstream in models {
        imported.models.push(ImportedModel {
            name: upstream.clone(),
            endpoint: endpoint.clone(),
            upstream,
            ..ImportedModel::default()
        });
    }
    for kind in OTHER_KINDS {
        let names = yaml::texts(platform, kind);
        if !names.is_empty() {
            imported.leave_out(format!("{kind} of {name}: {}", names.join(", ")), "mmchat asks chat models only");
        }
    }
    detected.then_some(endpoint)
}

fn set_gateway(imported: &mut Imported, endpoint: &str, gateway: bool) {
    if let Some(endpoint) = imported.endpoints.iter_mut().find(|known| known.name == endpoint) {
        endpoint.gateway |= gateway;
    }
}

/// Workers of the older version, and the service each speaks to.
const WORKERS: [(&str, &str); 6] = [
    ("ChatGLMWorker", "zhipu"),
    ("MiniMaxWorker", "minimax"),
    ("QwenWorker", "dashscope"),
    ("BaiChuanWorker", "baichuan"),
    ("ClaudeWorker", "anthropic"),
    ("GeminiWorker", "gemini"),
];
/// Workers whose services have changed since: their keys fit the older addresses only.
const OUTDATED: [&str; 3] = ["XingHuoWorker", "QianFanWorker", "FangZhouWorker"];

/// `ONLINE_LLM_MODEL` of `model_config.py`, read as literals.
pub(crate) fn python(text: &str) -> Result<Imported, ImportError> {
    let Some(Value::Object(online)) = python::assigned(text, "ONLINE_LLM_MODEL")? else {
        return Err(ImportError(
            "it assigns no dictionary to ONLINE_LLM_MODEL, as Langchain-Chatchat's model_config.py does".into(),
        ));
    };
    let mut imported = Imported::default();
    for (name, entry) in &online {
        self::online(&mut imported, name, entry);
    }
    let wanted = python::assigned(text, "LLM_MODELS").ok().flatten();
    let wanted = wanted.as_ref().and_then(|names| names.as_array()?.first()?.as_str());
    if let Some(wanted) = wanted {
        match imported.models.iter().find(|model| model.name == wanted) {
            Some(model) => imported.default = Some(model.name.clone()),
            None => imported
                .leave_out(format!("LLM_MODELS {wanted}"), "it is run by Langchain-Chatchat itself, or was left out"),
        }
    }
    Ok(imported)
}

fn online(imported: &mut Imported, name: &str, entry: &Value) {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let what = format!("ONLINE_LLM_MODEL[\"{name}\"]");
    let vendor = match text("provider") {
        None => None,
        Some(worker) => match WORKERS.iter().find(|(known, _)| *known == worker) {
            Some((_, vendor)) => vendors::named(vendor),
            None if OUTDATED.contains(&worker) => {
                return imported.leave_out(what, format!("{worker} uses keys of an older API of its service"));
            }
            None => return imported.leave_out(what, format!("{worker} speaks a format of its own")),
        },
    };
    let Some(address) =
        text("api_base_url").map(str::to_owned).or_else(|| vendor.map(|vendor| vendor.base_url.clone()))
    else {
        return imported.leave_out(what, "it has no api_base_url");
    };
    let keys: Vec<_> = text("api_key").and_then(|text| imported.key(name, text)).into_iter().collect();
    let lacks = keys.is_empty();
    if vendor.is_some() && keys.is_empty() {
        return imported.leave_out(what, "it has no api_key");
    }
    // What Anthropic calls a version is that of its format.
    let version = text("version").filter(|_| vendor.is_none_or(|vendor| vendor.name != "anthropic"));
    let upstream = text("model_name").or(version).or(text("model")).map(str::to_owned);
    let Some(upstream) = upstream.or_else(|| vendor.and_then(|vendor| vendor.model.clone())) else {
        return imported.leave_out(what, "it names no model");
    };
    let named = vendor.map_or(name, |vendor| vendor.name.as_str());
    let Some(endpoint) = imported.endpoint(&what, named, &address, keys) else { return };
    if lacks {
        imported.lacks_key(&endpoint);
    }
    if text("openai_proxy").is_some() {
        imported.leave_out(format!("openai_proxy of {name}"), "add proxy = \"…\" to the endpoint");
    }
    imported.models.push(ImportedModel { name: name.to_owned(), endpoint, upstream, ..ImportedModel::default() });
}
