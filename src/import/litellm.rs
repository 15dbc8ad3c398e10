//! Imports the `config.yaml` of the LiteLLM proxy.

use serde_yaml_ng::Value;

use super::{ImportError, ImportedConfig, ImportedKey, ImportedModel, ImportedRoute, yaml};
use crate::config::{template::name_from_upstream_id, vendors};

/// Names of services in LiteLLM that differ from the vendor names here.
const PROVIDER_VENDORS: [(&str, &str); 12] = [
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

/// Imports each deployment as a model. Several deployments with one `model_name` become a route.
pub(crate) fn parse(text: &str) -> Result<ImportedConfig, ImportError> {
    let mut document = yaml::parse(text)?;
    // `<<: *defaults`
    document.apply_merge().map_err(|_| ImportError::Content("invalid merge keys (<<)".into()))?;
    if document.get("model_list").and_then(Value::as_sequence).is_none() {
        return Err(ImportError::Content("no list `model_list`".into()));
    }
    let mut imported = ImportedConfig::default();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for entry in yaml::list(&document, "model_list") {
        let Some(name) = yaml::nonempty_string(entry, "model_name") else {
            imported.skip("an entry of model_list", "no model_name");
            continue;
        };
        if let Some(model) = import_deployment(&mut imported, &name, entry) {
            match groups.iter_mut().find(|(known, _)| *known == name) {
                Some((_, models)) => models.push(model.name.clone()),
                None => groups.push((name.clone(), vec![model.name.clone()])),
            }
            imported.models.push(model);
        }
    }
    import_routes(&mut imported, &document, &mut groups);
    for (alias, model_group) in aliases(&document) {
        imported.skip(format!("model_group_alias {alias}"), format!("use the name {model_group}"));
    }
    for (section, known) in [
        ("router_settings", &["routing_strategy", "fallbacks", "model_group_alias"][..]),
        ("litellm_settings", &["fallbacks"]),
    ] {
        let keys = document.get(section).and_then(Value::as_mapping).into_iter().flatten();
        let reported = ["default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"];
        let others: Vec<&str> = keys
            .filter_map(|(key, _)| key.as_str())
            .filter(|key| !known.contains(key) && !reported.contains(key))
            .collect();
        if !others.is_empty() {
            imported.skip(format!("{} of {section}", others.join(", ")), "settings of the proxy");
        }
    }
    for (section, reason) in [
        ("general_settings", "keys and limits of the proxy"),
        ("environment_variables", "set these variables in the environment"),
    ] {
        if document.get(section).is_some_and(|section| !section.is_null()) {
            imported.skip(section, reason);
        }
    }
    Ok(imported)
}

/// The aliases of model groups.
fn aliases(document: &Value) -> Vec<(String, String)> {
    let aliases = document.get("router_settings").and_then(|router| router.get("model_group_alias"));
    let pairs = aliases.and_then(Value::as_mapping).into_iter().flatten();
    pairs
        .filter_map(|(alias, model_group)| Some((alias.as_str()?.to_owned(), model_group.as_str()?.to_owned())))
        .collect()
}

/// The service of a deployment.
struct DeploymentService {
    /// The name of the vendor here.
    vendor: String,
    base_url: String,
    keys: Vec<ImportedKey>,
    upstream: String,
}

fn import_deployment(imported: &mut ImportedConfig, name: &str, entry: &Value) -> Option<ImportedModel> {
    let params = entry.get("litellm_params").unwrap_or(&Value::Null);
    let info = entry.get("model_info").unwrap_or(&Value::Null);
    let service = match resolve_service(imported, name, params, info) {
        Ok(service) => service,
        Err(reason) => {
            imported.skip(format!("model_name {name}"), reason);
            return None;
        }
    };
    let endpoint = imported.find_or_add_endpoint(
        &format!("model_name {name}"),
        &service.vendor,
        &service.base_url,
        service.keys,
    )?;
    skip_unmapped_settings(imported, name, params);
    let price = |name: &str| {
        let per_token = yaml::number(params, name).or_else(|| yaml::number(info, name));
        per_token.map(|per_token| per_token * 1e6)
    };
    let (input, output) = (price("input_cost_per_token"), price("output_cost_per_token"));
    if input.is_some() != output.is_some() {
        imported.skip(format!("the price of {name}"), "only one of input and output has a price");
    }
    let parameter = |name: &'static str| Some((name, yaml::number(params, name)?));
    let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
    Some(ImportedModel {
        name: crate::config::unique_name(&name_from_upstream_id(name), &taken),
        endpoint,
        upstream: service.upstream,
        context: yaml::unsigned(info, "max_input_tokens").or_else(|| yaml::unsigned(info, "max_tokens")),
        price: input.zip(output),
        params: ["temperature", "top_p", "max_tokens"].into_iter().filter_map(parameter).collect(),
    })
}

/// The service of a deployment, or the reason why it cannot be imported.
fn resolve_service(
    imported: &mut ImportedConfig,
    name: &str,
    params: &Value,
    info: &Value,
) -> Result<DeploymentService, String> {
    let model = yaml::nonempty_string(params, "model").ok_or("no litellm_params.model")?;
    if params.get("mock_response").is_some() {
        return Err("answered by LiteLLM (mock_response)".into());
    }
    if name.contains('*') || model.contains('*') {
        return Err("a pattern of names; add models by name".into());
    }
    let mode = yaml::string(info, "mode");
    if mode.is_some_and(|mode| !matches!(mode.as_str(), "chat" | "completion")) || super::is_non_chat_model(&model) {
        return Err("mmchat supports chat models only".into());
    }
    let provider_and_model = model.split_once('/').or_else(|| is_openai_model(&model).then_some(("openai", &*model)));
    let Some((provider, upstream)) = provider_and_model else {
        return Err(format!("no provider in the model name {model}; add it manually"));
    };
    let vendor = PROVIDER_VENDORS.iter().find(|(known, _)| *known == provider).map_or(provider, |(_, vendor)| vendor);
    let api_base = yaml::nonempty_string(params, "api_base").or_else(|| yaml::nonempty_string(params, "base_url"));
    let base_url = deployment_base_url(provider, vendor, api_base)?;
    let keys = match params.get("api_key").filter(|key| !key.is_null()) {
        Some(Value::String(text)) => imported.parse_key(name, text),
        Some(_) => {
            imported.skip(format!("the key of {name}"), "not a string");
            None
        }
        None => vendors::by_name(vendor).and_then(|vendor| vendor.key_env.first()).cloned().map(ImportedKey::Env),
    };
    Ok(DeploymentService {
        vendor: vendor.to_owned(),
        base_url,
        keys: keys.into_iter().collect(),
        upstream: upstream.to_owned(),
    })
}

/// The base URL of a deployment.
fn deployment_base_url(provider: &str, vendor: &str, api_base: Option<String>) -> Result<String, String> {
    let Some(known) = vendors::by_name(vendor) else {
        return Err(format!("{provider} has no known OpenAI-compatible API"));
    };
    match api_base {
        None => Ok(known.base_url.clone()),
        Some(api_base) if api_base.starts_with("os.environ/") => {
            Err("its base URL is in an environment variable; add it manually".into())
        }
        Some(_) if super::NATIVE_FORMAT_VENDORS.contains(&vendor) => {
            Err(format!("{provider} with a custom base URL uses its native format"))
        }
        // LiteLLM uses Ollama's native API at the root; the OpenAI-compatible API is below /v1.
        Some(api_base) if vendor == "ollama" => {
            Ok(format!("{}/v1", api_base.trim_end_matches('/').trim_end_matches("/v1")))
        }
        Some(api_base) => Ok(api_base),
    }
}

/// Whether a model name without a provider is one of OpenAI's.
fn is_openai_model(model: &str) -> bool {
    ["gpt-", "chatgpt-", "o1", "o3", "o4"].iter().any(|prefix| model.starts_with(prefix))
}

/// Reports the settings of a deployment that are not imported.
fn skip_unmapped_settings(imported: &mut ImportedConfig, name: &str, params: &Value) {
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
        let reason = "set rpm, timeouts and headers in the endpoint, other parameters in `extra` of the model";
        imported.skip(format!("{} of {name}", others.join(", ")), reason);
    }
}

/// Imports groups of several deployments, and groups with fallbacks, as routes.
fn import_routes(imported: &mut ImportedConfig, document: &Value, groups: &mut [(String, Vec<String>)]) {
    let router = document.get("router_settings").unwrap_or(&Value::Null);
    let settings = document.get("litellm_settings").unwrap_or(&Value::Null);
    let strategy = match yaml::string(router, "routing_strategy").as_deref() {
        Some("least-busy") => "least-busy",
        Some("latency-based-routing") => "fastest",
        Some("cost-based-routing") => "cheapest",
        _ => "weighted",
    };
    for setting in ["default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"] {
        if router.get(setting).or_else(|| settings.get(setting)).is_some_and(|value| !value.is_null()) {
            imported.skip(
                setting,
                "a route fails over to its next model; set on_filter = \"next\" to include content filters",
            );
        }
    }
    let fallbacks: Vec<&Value> =
        yaml::list(router, "fallbacks").iter().chain(yaml::list(settings, "fallbacks")).collect();
    let group_models = |groups: &[(String, Vec<String>)], name: &str| {
        groups.iter().find(|(known, _)| known == name).map(|(_, models)| models.clone())
    };
    let original_groups = groups.to_vec();
    for (name, models) in groups.iter_mut() {
        let fallback_names = fallbacks.iter().find_map(|fallback| fallback.get(name.as_str())?.as_sequence());
        let own_count = models.len();
        for fallback in fallback_names.into_iter().flatten().filter_map(Value::as_str) {
            match group_models(&original_groups, fallback) {
                Some(fallback_models) => models.extend(fallback_models),
                None => {
                    imported.skip(format!("fallback of {name} to {fallback}"), "not imported, or not in model_list");
                }
            }
        }
        if models.len() < 2 {
            continue;
        }
        let has_fallbacks = models.len() > own_count;
        // Fallbacks are tried after all others failed. Only `priority` and weights of 0 guarantee that.
        let strategy = match strategy {
            _ if own_count == 1 => "priority",
            "weighted" => "weighted",
            other if has_fallbacks => {
                let reason = "only the strategy priority tries fallbacks last";
                imported.skip(format!("routing_strategy {other} of {name}"), reason);
                "priority"
            }
            other => other,
        };
        let weight = |index| u32::from(index < own_count || strategy != "weighted");
        let models = models.iter().enumerate().map(|(index, model)| (model.clone(), weight(index))).collect();
        imported.routes.push(ImportedRoute { name: name_from_upstream_id(name), models, strategy });
    }
}
