//! The LiteLLM proxy's `config.yaml`.

use serde_yaml_ng::Value;

use super::{ImportError, Imported, ImportedKey, ImportedModel, ImportedRoute, yaml};
use crate::config::{template::name_of, vendors};

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
/// Each deployment becomes a model; several of one `model_name` become a route.
pub(crate) fn config(text: &str) -> Result<Imported, ImportError> {
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
    for (section, known) in [
        ("router_settings", &["routing_strategy", "fallbacks", "model_group_alias"][..]),
        ("litellm_settings", &["fallbacks"]),
    ] {
        let keys = document.get(section).and_then(Value::as_mapping).into_iter().flatten();
        let told = ["default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks"];
        let others: Vec<&str> = keys
            .filter_map(|(key, _)| key.as_str())
            .filter(|key| !known.contains(key) && !told.contains(key))
            .collect();
        if !others.is_empty() {
            imported.leave_out(format!("{} of {section}", others.join(", ")), "settings of the proxy itself");
        }
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

/// Who serves a deployment.
struct Service {
    /// What it is called here.
    vendor: String,
    address: String,
    keys: Vec<ImportedKey>,
    upstream: String,
}

fn deployment(imported: &mut Imported, name: &str, entry: &Value) -> Option<ImportedModel> {
    let params = entry.get("litellm_params").unwrap_or(&Value::Null);
    let info = entry.get("model_info").unwrap_or(&Value::Null);
    let service = match service(imported, name, params, info) {
        Ok(service) => service,
        Err(why) => {
            imported.leave_out(format!("model_name {name}"), why);
            return None;
        }
    };
    let endpoint = imported.endpoint(&format!("model_name {name}"), &service.vendor, &service.address, service.keys)?;
    unmapped(imported, name, params);
    let price = |name: &str| {
        let each = yaml::number(params, name).or_else(|| yaml::number(info, name));
        each.map(|each| each * 1e6)
    };
    let (input, output) = (price("input_cost_per_token"), price("output_cost_per_token"));
    if input.is_some() != output.is_some() {
        imported.leave_out(format!("the price of {name}"), "it is one of input or of output only");
    }
    let own = |name: &'static str| Some((name, yaml::number(params, name)?));
    let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
    Some(ImportedModel {
        name: super::free(&name_of(name), &taken),
        endpoint,
        upstream: service.upstream,
        context: yaml::whole(info, "max_input_tokens").or_else(|| yaml::whole(info, "max_tokens")),
        price: input.zip(output),
        params: ["temperature", "top_p", "max_tokens"].into_iter().filter_map(own).collect(),
    })
}

/// Who serves a deployment, or why nobody does that can be asked here.
fn service(imported: &mut Imported, name: &str, params: &Value, info: &Value) -> Result<Service, String> {
    let model = yaml::some_text(params, "model").ok_or("it has no litellm_params.model")?;
    if params.get("mock_response").is_some() {
        return Err("LiteLLM answers it by itself (mock_response)".into());
    }
    if name.contains('*') || model.contains('*') {
        return Err("a pattern of names: name the models you want".into());
    }
    let mode = yaml::text(info, "mode");
    if mode.is_some_and(|mode| !matches!(mode.as_str(), "chat" | "completion")) || super::is_no_chat_model(&model) {
        return Err("mmchat asks chat models only".into());
    }
    let named = model.split_once('/').or_else(|| is_openais(&model).then_some(("openai", &*model)));
    let Some((provider, upstream)) = named else {
        return Err(format!("LiteLLM knows by itself whose {model} is; add it by hand"));
    };
    let vendor = PROVIDERS.iter().find(|(known, _)| *known == provider).map_or(provider, |(_, ours)| ours);
    let own = yaml::some_text(params, "api_base").or_else(|| yaml::some_text(params, "base_url"));
    let address = address(provider, vendor, own)?;
    let keys = match params.get("api_key").filter(|key| !key.is_null()) {
        Some(Value::String(text)) => imported.key(name, text),
        Some(_) => {
            imported.leave_out(format!("the key of {name}"), "it is no text");
            None
        }
        None => vendors::named(vendor).and_then(|vendor| vendor.key_env.first()).cloned().map(ImportedKey::Env),
    };
    Ok(Service { vendor: vendor.to_owned(), address, keys: keys.into_iter().collect(), upstream: upstream.to_owned() })
}

/// The address below which a deployment's API is.
fn address(provider: &str, vendor: &str, own: Option<String>) -> Result<String, String> {
    let Some(known) = vendors::named(vendor) else {
        return Err(format!("{provider} has no address that speaks the OpenAI format"));
    };
    match own {
        None => Ok(known.base_url.clone()),
        Some(own) if own.starts_with("os.environ/") => {
            Err("its address is in a variable of the environment; add it by hand".into())
        }
        Some(_) if super::OWN_FORMAT.contains(&vendor) => {
            Err(format!("{provider} at an address of its own speaks its own format there"))
        }
        // LiteLLM asks its own API at the root; the OpenAI format is beside it.
        Some(own) if vendor == "ollama" => Ok(format!("{}/v1", own.trim_end_matches('/').trim_end_matches("/v1"))),
        Some(own) => Ok(own),
    }
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
