//! Imports the channels of One-API and new-api, as returned by `GET /api/channel/`.

use serde_json::Value;

use super::{ImportError, ImportedConfig, ImportedModel, ImportedRoute};
use crate::config::vendors;

/// Channel types of One-API whose vendor has an OpenAI-compatible API at a known base URL.
const ONE_API_TYPES: [(u64, &str); 22] = [
    (1, "openai"),
    (14, "anthropic"),
    (16, "zhipu"),
    (17, "dashscope"),
    (20, "openrouter"),
    (24, "gemini"),
    (25, "moonshot"),
    (26, "baichuan"),
    (27, "minimax"),
    (28, "mistral"),
    (29, "groq"),
    (30, "ollama"),
    (31, "yi"),
    (32, "stepfun"),
    (35, "cohere"),
    (36, "deepseek"),
    (39, "together"),
    (40, "doubao"),
    (44, "siliconflow"),
    (45, "xai"),
    (47, "qianfan"),
    (48, "spark"),
];
/// The same for new-api. Only the older numbers are the same in both.
const NEW_API_TYPES: [(u64, &str); 18] = [
    (1, "openai"),
    (4, "ollama"),
    (14, "anthropic"),
    (16, "zhipu"),
    (17, "dashscope"),
    (20, "openrouter"),
    (24, "gemini"),
    (25, "moonshot"),
    (26, "zhipu"),
    (31, "yi"),
    (34, "cohere"),
    (35, "minimax"),
    (40, "siliconflow"),
    (42, "mistral"),
    (43, "deepseek"),
    (45, "doubao"),
    (46, "qianfan"),
    (48, "xai"),
];
/// Custom channels and resellers with an OpenAI-compatible API; their address is in `base_url`.
const ONE_API_CUSTOM_TYPES: [u64; 11] = [2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 50];
const NEW_API_CUSTOM_TYPES: [u64; 8] = [6, 7, 8, 9, 10, 12, 13, 47];
/// The type of One-API whose `base_url` includes the version.
const ONE_API_VERSIONED_TYPE: u64 = 50;
/// The type of new-api whose `base_url` is the complete request URL.
const NEW_API_FULL_URL_TYPE: u64 = 8;
/// A vendor with a native format for which only One-API and new-api use it.
const NATIVE_FORMAT_VENDOR: &str = "dashscope";
const STATUS_ENABLED: u64 = 1;

/// Imports each channel as an endpoint. A model of several channels becomes a route with its name.
pub(crate) fn parse(text: &str) -> Result<ImportedConfig, ImportError> {
    let document: Value = serde_json::from_str(text).map_err(|error| {
        ImportError::Syntax(format!("invalid JSON (line {}, column {})", error.line(), error.column()))
    })?;
    let data = document.get("data").unwrap_or(&document);
    let channels = data
        .get("items")
        .unwrap_or(data)
        .as_array()
        .filter(|channels| channels.iter().all(|channel| channel.get("models").is_some()));
    let channels = channels.ok_or_else(|| ImportError::Content("not a list of channels".into()))?;
    let is_new_api = data.get("items").is_some() || channels.iter().any(|channel| channel.get("auto_ban").is_some());
    let mut imported = ImportedConfig::default();
    // For each model name, the imported models of its channels.
    let mut models_by_name: Vec<(String, Vec<String>)> = Vec::new();
    let mut by_priority: Vec<&Value> = channels.iter().collect();
    by_priority.sort_by_key(|channel| std::cmp::Reverse(channel.get("priority").and_then(Value::as_i64).unwrap_or(0)));
    for channel in by_priority {
        self::import_channel(&mut imported, channel, is_new_api, &mut models_by_name);
    }
    for (name, models) in models_by_name.into_iter().filter(|(_, models)| models.len() > 1) {
        imported.routes.push(ImportedRoute {
            name: crate::config::template::name_from_upstream_id(&name),
            models: models.into_iter().map(|model| (model, 1)).collect(),
            strategy: "priority",
        });
    }
    Ok(imported)
}

fn import_channel(
    imported: &mut ImportedConfig,
    channel: &Value,
    is_new_api: bool,
    models_by_name: &mut Vec<(String, Vec<String>)>,
) {
    let text = |key: &str| channel.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name").unwrap_or("channel");
    let item = format!("channel {name}");
    if channel.get("status").and_then(Value::as_u64).is_some_and(|status| status != STATUS_ENABLED) {
        return imported.skip(item, "the channel is disabled");
    }
    let kind = channel.get("type").and_then(Value::as_u64).unwrap_or(1);
    let (types, custom) = if is_new_api {
        (&NEW_API_TYPES[..], &NEW_API_CUSTOM_TYPES[..])
    } else {
        (&ONE_API_TYPES[..], &ONE_API_CUSTOM_TYPES[..])
    };
    let vendor = types.iter().find(|(known, _)| *known == kind).and_then(|(_, vendor)| vendors::by_name(vendor));
    if vendor.is_none() && !custom.contains(&kind) {
        return imported.skip(item, format!("type {kind} has no known OpenAI-compatible API"));
    }
    let configured_url = match text("base_url") {
        None => None,
        Some(base_url) => match channel_base_url(base_url, BaseUrlKind::from_channel_type(kind, is_new_api), vendor) {
            Ok(base_url) => Some(base_url),
            Err(reason) => return imported.skip(item, reason),
        },
    };
    let Some(base_url) = configured_url.or_else(|| vendor.map(|vendor| vendor.base_url.clone())) else {
        return imported.skip(item, "no base_url");
    };
    // Several keys are separated by line breaks. The list endpoint of the API omits the keys.
    let keys: Vec<_> =
        text("key").into_iter().flat_map(str::lines).filter_map(|key| imported.parse_key(&item, key)).collect();
    let is_key_missing = keys.is_empty();
    let Some(endpoint) = imported.find_or_add_endpoint(&item, name, &base_url, keys) else { return };
    if is_key_missing {
        imported.skip_missing_key(&endpoint);
    }
    let mapping: Value = text("model_mapping").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for model in
        text("models").into_iter().flat_map(|models| models.split(',')).map(str::trim).filter(|model| !model.is_empty())
    {
        if super::is_non_chat_model(model) {
            imported.skip(format!("model {model} of channel {name}"), "mmchat supports chat models only");
            continue;
        }
        let upstream = mapping.get(model).and_then(Value::as_str).unwrap_or(model).to_owned();
        let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
        let name = crate::config::unique_name(&crate::config::template::name_from_upstream_id(model), &taken);
        match models_by_name.iter_mut().find(|(known, _)| known == model) {
            Some((_, models)) => models.push(name.clone()),
            None => models_by_name.push((model.to_owned(), vec![name.clone()])),
        }
        imported.models.push(ImportedModel { name, endpoint: endpoint.clone(), upstream, ..ImportedModel::default() });
    }
}

/// The parts of the URL that a channel's `base_url` contains.
#[derive(Clone, Copy, PartialEq)]
enum BaseUrlKind {
    /// Everything before the version.
    WithoutVersion,
    /// Everything including the version.
    WithVersion,
    /// The complete request URL.
    FullUrl,
}

impl BaseUrlKind {
    fn from_channel_type(kind: u64, is_new_api: bool) -> Self {
        match kind {
            ONE_API_VERSIONED_TYPE if !is_new_api => Self::WithVersion,
            NEW_API_FULL_URL_TYPE if is_new_api => Self::FullUrl,
            _ => Self::WithoutVersion,
        }
    }
}

/// The base URL of the API, or the reason why there is none. For a vendor's own host, the vendor's base URL is used.
fn channel_base_url(
    base_url: &str,
    kind: BaseUrlKind,
    vendor: Option<&vendors::Vendor>,
) -> Result<String, &'static str> {
    let base_url = base_url.trim_end_matches('/');
    let host = |url: &str| url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    if let Some(vendor) = vendor.filter(|vendor| host(base_url) == host(&vendor.base_url)) {
        return Ok(vendor.base_url.clone());
    }
    let has_native_format = |name: &str| super::NATIVE_FORMAT_VENDORS.contains(&name) || name == NATIVE_FORMAT_VENDOR;
    if vendor.is_some_and(|vendor| has_native_format(&vendor.name)) {
        return Err("with a custom base URL it uses its native format");
    }
    match kind {
        BaseUrlKind::FullUrl if base_url.contains('{') => Err("its base_url contains the model"),
        BaseUrlKind::FullUrl => Ok(base_url.trim_end_matches("/chat/completions").to_owned()),
        BaseUrlKind::WithVersion => Ok(base_url.to_owned()),
        BaseUrlKind::WithoutVersion if base_url.ends_with("/v1") => Ok(base_url.to_owned()),
        BaseUrlKind::WithoutVersion => Ok(format!("{base_url}/v1")),
    }
}
