//! The LiteLLM proxy's `config.yaml`.

use serde_yaml_ng::Value;

use super::{ImportError, Imported, ImportedKey, ImportedModel, ImportedRoute, key, yaml};
use crate::config::{draft::name_of, vendors};

/// What LiteLLM calls services, where our names differ.
const PROVIDERS: [(&str, &str); 12] = [
    ("together_ai", "together"),
    ("fireworks_ai", "fireworks"),
    ("nvidia_nim", "nvidia"),
    ("ollama_chat", "ollama"),
    ("hosted_vllm", "vllm"),
    ("lm_studio", "lmstudio"),
    ("volcengine", "doubao"),
    ("cohere_chat", "cohere"),
    ("litellm_proxy", "litellm"),
    ("custom_openai", "openai"),
    ("openai_like", "openai"),
    ("text-completion-openai", "openai"),
];
/// Services with formats of their own: only their usual addresses speak ours as well.
const OWN_FORMAT: [&str; 5] = ["anthropic", "gemini", "cohere", "ollama", "mistral"];

/// Each deployment becomes a model; several of one `model_name` become a route.
pub(super) fn config(text: &str) -> Result<Imported, ImportError> {
    let mut document = yaml::read(text)?;
    // `<<: *defaults`
    document.apply_merge().map_err(|_| ImportError("its merges (<<) cannot be read".into()))?;
    if document.get("model_list").and_then(Value::as_sequence).is_none() {
        return Err(ImportError("it has no list model_list, as LiteLLM's config.yaml has".into()));
    }
    let mut imported = Imported::default();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for entry in yaml::list(&document, "model_list") {
        let Some(name) = yaml::some_text(entry, "model_name") else {
            imported.leave_out("an entry of model_list", "it has no model_name");
            continue;
        };
        if let Some(model) = deployment(&mut imported, &name, entry) {
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, models)) => models.push(model.name.clone()),
                None => groups.push((name.clone(), vec![model.name.clone()])),
            }
            imported.models.push(model);
        }
    }
    routes(&mut imported, &document, &mut groups);
    for (alias, wanted) in aliases(&document) {
        imported.leave_out(format!("model_group_alias {alias}"), format!("ask for {wanted}"));
    }
    for (section, why) in [
        ("general_settings", "keys and limits of the proxy itself"),
        ("environment_variables", "set them in the environment"),
    ] {
        if document.get(section).is_some_and(|section| !section.is_null()) {
            imported.leave_out(section, why);
        }
    }
    Ok(imported)
}

/// Other names of groups.
fn aliases(document: &Value) -> Vec<(String, String)> {
    let aliases = document.get("router_settings").and_then(|router| router.get("model_group_alias"));
    let pairs = aliases.and_then(Value::as_mapping).into_iter().flatten();
    pairs.filter_map(|(alias, wanted)| Some((alias.as_str()?.to_owned(), wanted.as_str()?.to_owned()))).collect()
}

fn deployment(imported: &mut Imported, name: &str, entry: &Value) -> Option<ImportedModel> {
    let what = format!("model_name {name}");
    let params = entry.get("litellm_params")?;
    let Some(model) = yaml::some_text(params, "model") else {
        imported.leave_out(what, "it has no litellm_params.model");
        return None;
    };
    if params.get("mock_response").is_some() {
        imported.leave_out(what, "LiteLLM answers it by itself (mock_response)");
        return None;
    }
    let mode = entry.get("model_info").and_then(|info| yaml::text(info, "mode"));
    if name.contains('*') || model.contains('*') {
        imported.leave_out(what, "a pattern of names: name the models you want");
        return None;
    }
    if mode.is_some_and(|mode| !matches!(mode.as_str(), "chat" | "completion")) || super::is_no_chat_model(&model) {
        imported.leave_out(what, "mmchat asks chat models only");
        return None;
    }
    let Some((provider, upstream)) =
        model.split_once('/').or_else(|| is_openais(&model).then_some(("openai", &*model)))
    else {
        imported.leave_out(what, format!("LiteLLM knows by itself whose {model} is; add it by hand"));
        return None;
    };
    let own = yaml::some_text(params, "api_base").or_else(|| yaml::some_text(params, "base_url"));
    if own.as_ref().is_some_and(|own| own.starts_with("os.environ/")) {
        imported.leave_out(what, "its address is in a variable of the environment; add it by hand");
        return None;
    }
    let vendor_name = PROVIDERS.iter().find(|(known, _)| *known == provider).map_or(provider, |(_, ours)| ours);
    let vendor = vendors::named(vendor_name);
    let address = match (own, vendor) {
        (Some(_), _) if OWN_FORMAT.contains(&vendor_name) => {
            imported.leave_out(what, format!("{provider} at an address of its own speaks its own format there"));
            return None;
        }
        (Some(own), Some(_)) => own,
        (None, Some(vendor)) => vendor.base_url.clone(),
        (_, None) => {
            imported.leave_out(what, format!("{provider} has no address that speaks the OpenAI format"));
            return None;
        }
    };
    let keys: Vec<ImportedKey> = match yaml::text(params, "api_key") {
        Some(text) => key(&text).into_iter().collect(),
        None => vendor
            .and_then(|vendor| vendor.key_env.first())
            .map(|name| ImportedKey::Env(name.clone()))
            .into_iter()
            .collect(),
    };
    let endpoint = imported.endpoint(vendor_name, &address, keys)?;
    unmapped(imported, name, params);
    let info = entry.get("model_info").unwrap_or(&Value::Null);
    let price = |name: &str| {
        yaml::number(params, name)
            .or_else(|| yaml::number(info, name))
            .map(|each| each * 1e6)
            .filter(|price| *price >= 0.0)
    };
    let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
    Some(ImportedModel {
        name: super::free(&name_of(name), &taken),
        endpoint,
        upstream: upstream.to_owned(),
        context: yaml::whole(info, "max_input_tokens").or_else(|| yaml::whole(info, "max_tokens")),
        price: price("input_cost_per_token").zip(price("output_cost_per_token")),
        params: ["temperature", "top_p", "max_tokens"]
            .into_iter()
            .filter_map(|name| Some((name, yaml::number(params, name)?)))
            .collect(),
    })
}

/// Names that are OpenAI's own.
fn is_openais(model: &str) -> bool {
    ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|start| model.starts_with(start))
}

/// Settings of a deployment that have another home here, or none.
fn unmapped(imported: &mut Imported, name: &str, params: &Value) {
    const KNOWN: [&str; 9] = [
        "model",
        "api_base",
        "base_url",
        "api_key",
        "temperature",
        "top_p",
        "max_tokens",
        "input_cost_per_token",
        "output_cost_per_token",
    ];
    let keys = params.as_mapping().into_iter().flatten().filter_map(|(key, _)| key.as_str());
    let others: Vec<&str> = keys.filter(|key| !KNOWN.contains(key)).collect();
    if !others.is_empty() {
        let why = "rpm, timeouts and headers belong to the endpoint, other parameters to the model's `extra`";
        imported.leave_out(format!("{} of {name}", others.join(", ")), why);
    }
}

/// Groups of several deployments, and fallbacks, are routes.
fn routes(imported: &mut Imported, document: &Value, groups: &mut [(String, Vec<String>)]) {
    let router = document.get("router_settings").unwrap_or(&Value::Null);
    let settings = document.get("litellm_settings").unwrap_or(&Value::Null);
    let strategy = match yaml::text(router, "routing_strategy").as_deref() {
        Some("least-busy") => "least-busy",
        Some("latency-based-routing") => "fastest",
        Some("cost-based-routing") => "cheapest",
        _ => "weighted",
    };
    for other in ["default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"] {
        if router.get(other).or_else(|| settings.get(other)).is_some_and(|value| !value.is_null()) {
            imported.leave_out(other, "a route goes on to its next model; on_filter = \"next\" does so after a filter");
        }
    }
    let fallbacks: Vec<&Value> =
        yaml::list(router, "fallbacks").iter().chain(yaml::list(settings, "fallbacks")).collect();
    let models_of = |groups: &[(String, Vec<String>)], name: &str| {
        groups.iter().find(|(known, _)| known == name).map(|(_, models)| models.clone())
    };
    let known = groups.to_vec();
    for (name, models) in groups.iter_mut() {
        let next = fallbacks.iter().find_map(|fallback| fallback.get(name.as_str())?.as_sequence());
        let own = models.len();
        for other in next.into_iter().flatten().filter_map(Value::as_str) {
            match models_of(&known, other) {
                Some(others) => models.extend(others),
                None => imported
                    .leave_out(format!("fallback of {name} to {other}"), "it was left out, or is not in model_list"),
            }
        }
        if models.len() < 2 {
            continue;
        }
        let fallbacks = models.len() > own;
        // Fallbacks are asked when all others failed: only `priority` and weights of 0 say so.
        let strategy = match strategy {
            _ if own == 1 => "priority",
            "weighted" => "weighted",
            other if fallbacks => {
                let why = "its fallbacks come last only in order";
                imported.leave_out(format!("routing_strategy {other} of {name}"), why);
                "priority"
            }
            other => other,
        };
        let weight = |place| u32::from(place < own || strategy != "weighted");
        let models = models.iter().enumerate().map(|(place, model)| (model.clone(), weight(place))).collect();
        imported.routes.push(ImportedRoute { name: name_of(name), models, strategy });
    }
}
