//! aichat's `config.yaml`.

use serde_yaml_ng::Value;

use super::{ImportError, Imported, ImportedKey, ImportedModel, yaml};
use crate::config::vendors;

/// What aichat calls services, where our names differ.
const CLIENTS: [(&str, &str); 3] = [("claude", "anthropic"), ("qianwen", "dashscope"), ("ernie", "qianfan")];

/// Each client becomes an endpoint.
pub(crate) fn config(text: &str) -> Result<Imported, ImportError> {
    let document = yaml::read(text)?;
    if document.get("clients").and_then(Value::as_sequence).is_none() {
        return Err(ImportError("it has no list clients, as aichat's config.yaml has".into()));
    }
    let mut imported = Imported::default();
    // What aichat calls each model: `client:model`.
    let mut called = Vec::new();
    for client in yaml::list(&document, "clients") {
        self::client(&mut imported, client, &mut called);
    }
    if let Some(wanted) = yaml::some_text(&document, "model") {
        match called.iter().find(|(name, _)| *name == wanted) {
            Some((_, model)) => imported.default = Some(model.clone()),
            // aichat has the models of well-known services built in.
            None => match wanted.split_once(':').filter(|(client, _)| has_endpoint(&imported, client)) {
                Some((client, id)) => imported.default = Some(format!("{client}/{id}")),
                None => imported.leave_out(format!("model {wanted}"), "no client lists it: mmchat model default NAME"),
            },
        }
    }
    for setting in ["temperature", "top_p"] {
        if let Some(value) = yaml::number(&document, setting) {
            imported.leave_out(
                format!("{setting} {value}"),
                format!("set it for a model: params = {{ {setting} = {value} }}"),
            );
        }
    }
    Ok(imported)
}

fn has_endpoint(imported: &Imported, name: &str) -> bool {
    imported.endpoints.iter().any(|endpoint| endpoint.name == name)
}

fn client(imported: &mut Imported, client: &Value, called: &mut Vec<(String, String)>) {
    let kind = yaml::text(client, "type").unwrap_or_default();
    let name = yaml::some_text(client, "name").unwrap_or_else(|| kind.clone());
    let what = format!("client {name}");
    let vendor = CLIENTS.iter().find(|(known, _)| *known == kind).map_or(kind.as_str(), |(_, ours)| ours);
    // A compatible client is often named after the service it is.
    let vendor = vendors::named(vendor).or_else(|| vendors::named(&name));
    let own = yaml::some_text(client, "api_base");
    if kind != "openai" && kind != "openai-compatible" && (own.is_some() || vendor.is_none()) {
        return imported.leave_out(what, format!("{kind} has no address that speaks the OpenAI format"));
    }
    let Some(address) = own.or_else(|| vendor.map(|vendor| vendor.base_url.clone())) else {
        return imported.leave_out(what, "it has no api_base");
    };
    let keys = match yaml::text(client, "api_key") {
        Some(text) => imported.key(&what, &text).into_iter().collect(),
        // aichat reads `NAME_API_KEY` of the environment then.
        None => vendor
            .and_then(|vendor| vendor.key_env.first())
            .map(|name| ImportedKey::Env(name.clone()))
            .into_iter()
            .collect(),
    };
    let Some(endpoint) = imported.endpoint(&what, &name, &address, keys) else { return };
    let models = yaml::list(client, "models");
    if models.is_empty() {
        imported
            .leave_out(format!("models of {name}"), format!("aichat has them built in: mmchat models sync {endpoint}"));
    }
    for model in models {
        let Some(id) = yaml::some_text(model, "name") else { continue };
        if yaml::text(model, "type").is_some_and(|kind| kind != "chat") {
            imported.leave_out(format!("model {name}:{id}"), "mmchat asks chat models only");
            continue;
        }
        let upstream = yaml::some_text(model, "real_name").unwrap_or_else(|| id.clone());
        let price = |key: &str| yaml::number(model, key);
        let taken: Vec<String> = imported.models.iter().map(|known| known.name.clone()).collect();
        let own = super::free(&crate::config::template::name_of(&id), &taken);
        called.push((format!("{name}:{id}"), own.clone()));
        imported.models.push(ImportedModel {
            name: own,
            endpoint: endpoint.clone(),
            upstream,
            context: yaml::whole(model, "max_input_tokens"),
            price: price("input_price").zip(price("output_price")),
            params: Vec::new(),
        });
    }
}
