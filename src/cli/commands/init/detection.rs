//! Detects services: keys in the environment, servers on this machine, and the models that each of them lists.
//!
//! Only model lists are requested, which is free of charge.

use std::{path::Path, time::Duration};

use crate::{
    cli::{CliError, Context, commands::ping::check_endpoints},
    config::{
        self,
        template::{ConfigTemplate, TemplateEndpoint, TemplateKey, TemplateModel},
        vendors,
    },
    model::{ErrorClass, endpoint::is_loopback, environment::Environment},
    protocol::{CallError, ModelInfo},
    render::notice::reason,
};

/// A service and the result of listing its models.
#[derive(Clone, Debug)]
pub(super) struct DetectedService {
    pub(super) endpoint: TemplateEndpoint,
    model_list: Result<Vec<ModelInfo>, CallError>,
}

/// Result of listing the models of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceStatus {
    /// The service lists models.
    ListsModels,
    /// The service responded with an error or an empty list.
    Responds,
    /// There was no response.
    Unreachable,
}

/// Services to try: vendors whose key variable is set, and the default ports of servers on this machine.
pub(super) fn detectable_endpoints(environment: &Environment) -> Result<Vec<TemplateEndpoint>, CliError> {
    let mut found: Vec<TemplateEndpoint> = Vec::new();
    for vendor in vendors::all() {
        let address = vendor.effective_base_url(environment)?;
        let key = vendor.key_variable(environment);
        let same = |known: &TemplateEndpoint| known.base_url == address.as_str();
        if (key.is_some() || is_loopback(&address)) && !found.iter().any(same) {
            let key = key.map_or(TemplateKey::None, |name| TemplateKey::Env(name.to_owned()));
            found.push(TemplateEndpoint { name: vendor.name.clone(), base_url: address.to_string(), key });
        }
    }
    Ok(found)
}

/// Lists the models of all endpoints concurrently.
pub(super) async fn list_models(
    context: &Context,
    endpoints: Vec<TemplateEndpoint>,
    limit: Duration,
) -> Result<Vec<DetectedService>, CliError> {
    // This text contains typed keys and is never written.
    let text = ConfigTemplate { endpoints: endpoints.clone(), ..ConfigTemplate::default() }.to_toml(true);
    let config = config::resolve(&text, Path::new("init"))?;
    let pinged = check_endpoints(&context.stateless_engine(), config.endpoints, limit).await;
    Ok(endpoints
        .into_iter()
        .zip(pinged)
        .map(|(endpoint, pinged)| DetectedService { endpoint, model_list: pinged.listed })
        .collect())
}

impl DetectedService {
    pub(super) fn status(&self) -> ServiceStatus {
        match &self.model_list {
            Ok(models) if !models.is_empty() => ServiceStatus::ListsModels,
            Err(error) if matches!(error.class, ErrorClass::Connect | ErrorClass::Timeout | ErrorClass::LocalLimit) => {
                ServiceStatus::Unreachable
            }
            Ok(_) | Err(_) => ServiceStatus::Responds,
        }
    }

    /// Whether the service is only a default port on this machine, without a key.
    pub(super) fn is_guess(&self) -> bool {
        matches!(self.endpoint.key, TemplateKey::None) && is_loopback_address(&self.endpoint.base_url)
    }

    /// `openai (OPENAI_API_KEY): 84 models`
    pub(super) fn summary(&self) -> String {
        let result = match &self.model_list {
            Ok(models) => format!("{} model(s)", models.len()),
            Err(error) => reason(error),
        };
        let key = match &self.endpoint.key {
            TemplateKey::Env(name) => format!(" ({name})"),
            _ if is_loopback_address(&self.endpoint.base_url) => format!(" at {}", self.endpoint.base_url),
            _ => String::new(),
        };
        format!("{}{key}: {result}", self.endpoint.name)
    }

    /// The listed models.
    pub(super) fn models(&self) -> impl Iterator<Item = TemplateModel> {
        let models = self.model_list.as_deref().unwrap_or_default().iter();
        models.map(|model| TemplateModel {
            endpoint: self.endpoint.name.clone(),
            upstream: model.id.clone(),
            context: model.context,
        })
    }

    /// The default model of its vendor if it is listed, else the first one.
    pub(super) fn default_model(&self) -> Option<TemplateModel> {
        let usual = vendors::by_name(&self.endpoint.name).and_then(|vendor| vendor.model.as_deref());
        let listed = self.models().find(|model| Some(model.upstream.as_str()) == usual);
        listed.or_else(|| self.models().next())
    }
}

fn is_loopback_address(address: &str) -> bool {
    config::parse_base_url(address).is_ok_and(|url| is_loopback(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, listed: Result<&[&str], ErrorClass>) -> DetectedService {
        let endpoint =
            TemplateEndpoint { name: name.into(), base_url: "http://127.0.0.1:1/v1".into(), key: TemplateKey::None };
        let info = |id: &&str| ModelInfo { id: (*id).to_owned(), context: None, owner: None };
        let listed = listed.map(|ids| ids.iter().map(info).collect()).map_err(|class| CallError::new(class, "reason"));
        DetectedService { endpoint, model_list: listed }
    }

    #[test]
    fn keys_and_default_ports_are_detected_once_each() {
        let environment: Environment =
            [("DEEPSEEK_API_KEY", "sk-1"), ("OPENAI_BASE_URL", "http://127.0.0.1:5/v1"), ("OPENAI_API_KEY", "sk-2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
        let found = detectable_endpoints(&environment).expect("valid addresses");
        let at =
            |name: &str| found.iter().find(|endpoint| endpoint.name == name).map(|endpoint| endpoint.base_url.as_str());
        assert_eq!(at("openai"), Some("http://127.0.0.1:5/v1"));
        assert!(at("deepseek").is_some() && at("ollama").is_some() && at("mistral").is_none());
        let mut addresses: Vec<&str> = found.iter().map(|endpoint| endpoint.base_url.as_str()).collect();
        let all = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all);
    }

    #[test]
    fn default_model_is_the_vendors_if_it_is_listed() {
        let usual = |name, ids| found(name, Ok(ids)).default_model().map(|model| model.upstream);
        assert_eq!(usual("openai", &["gpt-9", "gpt-4o-mini"]).as_deref(), Some("gpt-4o-mini"));
        assert_eq!(usual("openai", &["gpt-9"]).as_deref(), Some("gpt-9"));
        assert_eq!(usual("local", &[]), None);
    }

    #[test]
    fn error_response_is_not_unreachable() {
        assert_eq!(found("a", Ok(&["x"])).status(), ServiceStatus::ListsModels);
        assert_eq!(found("a", Err(ErrorClass::Auth)).status(), ServiceStatus::Responds);
        assert_eq!(found("a", Err(ErrorClass::Connect)).status(), ServiceStatus::Unreachable);
    }
}
