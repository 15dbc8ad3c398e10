//! One-API and new-api: their list of channels, as `GET /api/channel/` gives it.

use serde_json::Value;

use super::{ImportError, Imported, ImportedModel, ImportedRoute};
use crate::config::vendors;

/// One-API's channel types whose vendor speaks the OpenAI format at an address we know.
const ONE_API: [(u64, &str); 22] = [
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
/// new-api's: the two share only the older numbers.
const NEW_API: [(u64, &str); 18] = [
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
/// Custom channels, and resellers that speak the OpenAI format: their address is in `base_url`.
const ONE_API_CUSTOM: [u64; 11] = [2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 50];
const NEW_API_CUSTOM: [u64; 8] = [6, 7, 8, 9, 10, 12, 13, 47];
/// One-API's type whose `base_url` holds the version, too.
const COMPATIBLE: u64 = 50;
/// The type whose `base_url` is the whole address, in new-api.
const CUSTOM: u64 = 8;
const ENABLED: u64 = 1;

/// Each channel becomes an endpoint; a model of several channels becomes a route of that name.
pub(crate) fn channels(text: &str) -> Result<Imported, ImportError> {
    let document: Value = serde_json::from_str(text).map_err(|error| {
        ImportError(format!("it is no JSON that can be read (line {}, column {})", error.line(), error.column()))
    })?;
    let data = document.get("data").unwrap_or(&document);
    let channels = data
        .get("items")
        .unwrap_or(data)
        .as_array()
        .filter(|channels| channels.iter().all(|channel| channel.get("models").is_some()));
    let channels = channels.ok_or_else(|| {
        ImportError("it is no list of channels: get it with GET /api/channel/ and an access token".into())
    })?;
    let is_new_api = data.get("items").is_some() || channels.iter().any(|channel| channel.get("auto_ban").is_some());
    let mut imported = Imported::default();
    // What each model is called, and by how many channels.
    let mut served: Vec<(String, Vec<String>)> = Vec::new();
    let mut ordered: Vec<&Value> = channels.iter().collect();
    ordered.sort_by_key(|channel| std::cmp::Reverse(channel.get("priority").and_then(Value::as_i64).unwrap_or(0)));
    for channel in ordered {
        self::channel(&mut imported, channel, is_new_api, &mut served);
    }
    for (name, models) in served.into_iter().filter(|(_, models)| models.len() > 1) {
        imported.routes.push(ImportedRoute {
            name: crate::config::template::name_of(&name),
            models: models.into_iter().map(|model| (model, 1)).collect(),
            strategy: "priority",
        });
    }
    Ok(imported)
}

fn channel(imported: &mut Imported, channel: &Value, is_new_api: bool, served: &mut Vec<(String, Vec<String>)>) {
    let text = |key: &str| channel.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name").unwrap_or("channel");
    let what = format!("channel {name}");
    if channel.get("status").and_then(Value::as_u64).is_some_and(|status| status != ENABLED) {
        return imported.leave_out(what, "it is switched off");
    }
    let kind = channel.get("type").and_then(Value::as_u64).unwrap_or(1);
    let (types, custom) =
        if is_new_api { (&NEW_API[..], &NEW_API_CUSTOM[..]) } else { (&ONE_API[..], &ONE_API_CUSTOM[..]) };
    let vendor = types.iter().find(|(known, _)| *known == kind).and_then(|(_, vendor)| vendors::named(vendor));
    if vendor.is_none() && !custom.contains(&kind) {
        return imported.leave_out(what, format!("its type {kind} has no address that speaks the OpenAI format"));
    }
    let own = match text("base_url") {
        None => None,
        Some(own) => match address(own, Base::of(kind, is_new_api), vendor) {
            Ok(address) => Some(address),
            Err(why) => return imported.leave_out(what, why),
        },
    };
    let Some(address) = own.or_else(|| vendor.map(|vendor| vendor.base_url.clone())) else {
        return imported.leave_out(what, "it has no base_url");
    };
    // Several keys stand on lines of their own. The list itself leaves keys out.
    let keys: Vec<_> =
        text("key").into_iter().flat_map(str::lines).filter_map(|key| imported.key(&what, key)).collect();
    let missing = keys.is_empty();
    let Some(endpoint) = imported.endpoint(&what, name, &address, keys) else { return };
    if missing {
        imported.lacks_key(&endpoint);
    }
    let mapping: Value = text("model_mapping").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for model in
        text("models").into_iter().flat_map(|models| models.split(',')).map(str::trim).filter(|model| !model.is_empty())
    {
        if super::is_no_chat_model(model) {
            imported.leave_out(format!("model {model} of channel {name}"), "mmchat asks chat models only");
            continue;
        }
        let upstream = mapping.get(model).and_then(Value::as_str).unwrap_or(model).to_owned();
        let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
        let name = super::free(&crate::config::template::name_of(model), &taken);
        match served.iter_mut().find(|(known, _)| known == model) {
            Some((_, models)) => models.push(name.clone()),
            None => served.push((model.to_owned(), vec![name.clone()])),
        }
        imported.models.push(ImportedModel { name, endpoint: endpoint.clone(), upstream, ..ImportedModel::default() });
    }
}

/// What a channel's `base_url` holds.
#[derive(Clone, Copy, PartialEq)]
enum Base {
    /// All before the version.
    Plain,
    /// The version, too.
    Versioned,
    /// The whole address of a request.
    Whole,
}

impl Base {
    fn of(kind: u64, is_new_api: bool) -> Self {
        match kind {
            COMPATIBLE if !is_new_api => Self::Versioned,
            CUSTOM if is_new_api => Self::Whole,
            _ => Self::Plain,
        }
    }
}

/// The address below which the API is, or why there is none. A vendor's own is known better.
fn address(own: &str, base: Base, vendor: Option<&vendors::Vendor>) -> Result<String, &'static str> {
    let own = own.trim_end_matches('/');
    let host = |text: &str| url::Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
    if let Some(vendor) = vendor.filter(|vendor| host(own) == host(&vendor.base_url)) {
        return Ok(vendor.base_url.clone());
    }
    let speaks_its_own = |name: &str| super::OWN_FORMAT.contains(&name) || name == "dashscope";
    if vendor.is_some_and(|vendor| speaks_its_own(&vendor.name)) {
        return Err("at an address of its own it speaks its own format");
    }
    match base {
        Base::Whole if own.contains('{') => Err("its address has the model in it"),
        Base::Whole => Ok(own.trim_end_matches("/chat/completions").to_owned()),
        Base::Versioned => Ok(own.to_owned()),
        Base::Plain if own.ends_with("/v1") => Ok(own.to_owned()),
        Base::Plain => Ok(format!("{own}/v1")),
    }
}
