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
    model::{ErrorClass, endpoint::is_loopback, environment::Environment, plural},
    protocol::{CallError, ModelInfo},
    render::notice::format_reason,
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
    let mut endpoints: Vec<TemplateEndpoint> = Vec::new();
    for vendor in vendors::all() {
        let address = vendor.effective_base_url(environment)?;
        let key = vendor.key_variable(environment);
        let has_same_url = |endpoint: &TemplateEndpoint| endpoint.base_url == address.as_str();
        if (key.is_some() || is_loopback(&address)) && !endpoints.iter().any(has_same_url) {
            let key = key.map_or(TemplateKey::None, |name| TemplateKey::Env(name.to_owned()));
            endpoints.push(TemplateEndpoint { name: vendor.name.clone(), base_url: address.to_string(), key });
        }
    }
    Ok(endpoints)
}

/// Lists the models of all endpoints concurrently.
pub(super) async fn list_models(
    context: &Context,
    endpoints: Vec<TemplateEndpoint>,
    timeout: Duration,
) -> Result<Vec<DetectedService>, CliError> {
    // This text contains typed keys and is never written.
    let text = ConfigTemplate { endpoints: endpoints.clone(), ..ConfigTemplate::default() }.to_toml(true);
    let config = config::resolve(&text, Path::new("init"))?;
    let checks = check_endpoints(&context.stateless_engine(), config.endpoints, timeout).await;
    Ok(endpoints
        .into_iter()
        .zip(checks)
        .map(|(endpoint, check)| DetectedService { endpoint, model_list: check.model_list })
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

    /// Describes the service in one line, such as `openai (OPENAI_API_KEY): 84 models`.
    pub(super) fn summary(&self) -> String {
        let result = match &self.model_list {
            Ok(models) => plural(models.len(), "model"),
            Err(error) => format_reason(error),
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
            context: model.context_window,
        })
    }

    /// The default model of its vendor if it is listed, else the first one.
    pub(super) fn default_model(&self) -> Option<TemplateModel> {
        let default = vendors::by_name(&self.endpoint.name).and_then(|vendor| vendor.model.as_deref());
        let listed = self.models().find(|model| Some(model.upstream.as_str()) == default);
        listed.or_else(|| self.models().next())
    }
}

fn is_loopback_address(address: &str) -> bool {
    config::parse_base_url(address).is_ok_and(|url| is_loopback(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, listed: Result<&[&str], ErrorClass>) -> DetectedService {
        let endpoint =
            TemplateEndpoint { name: name.into(), base_url: "http://127.0.0.1:1/v1".into(), key: TemplateKey::None };
        let info = |id: &&str| ModelInfo { id: (*id).to_owned(), context_window: None, owner: None };
        let model_list =
            listed.map(|ids| ids.iter().map(info).collect()).map_err(|class| CallError::new(class, "reason"));
        DetectedService { endpoint, model_list }
    }

    #[test]
    fn keys_and_default_ports_are_detected_once_each() {
        let environment: Environment =
            [("DEEPSEEK_API_KEY", "sk-1"), ("OPENAI_BASE_URL", "http://127.0.0.1:5/v1"), ("OPENAI_API_KEY", "sk-2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
        let endpoints = detectable_endpoints(&environment).expect("valid addresses");
        let url_of = |name: &str| {
            endpoints.iter().find(|endpoint| endpoint.name == name).map(|endpoint| endpoint.base_url.as_str())
        };
        assert_eq!(url_of("openai"), Some("http://127.0.0.1:5/v1"));
        assert!(url_of("deepseek").is_some() && url_of("ollama").is_some() && url_of("mistral").is_none());
        let mut urls: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.base_url.as_str()).collect();
        let count = urls.len();
        urls.sort_unstable();
        urls.dedup();
        assert_eq!(urls.len(), count);
    }

    #[test]
    fn default_model_is_the_vendors_if_it_is_listed() {
        let default = |name, ids| service(name, Ok(ids)).default_model().map(|model| model.upstream);
        assert_eq!(default("openai", &["gpt-9", "gpt-4o-mini"]).as_deref(), Some("gpt-4o-mini"));
        assert_eq!(default("openai", &["gpt-9"]).as_deref(), Some("gpt-9"));
        assert_eq!(default("local", &[]), None);
    }

    #[test]
    fn error_response_is_not_unreachable() {
        assert_eq!(service("a", Ok(&["x"])).status(), ServiceStatus::ListsModels);
        assert_eq!(service("a", Err(ErrorClass::Auth)).status(), ServiceStatus::Responds);
        assert_eq!(service("a", Err(ErrorClass::Connect)).status(), ServiceStatus::Unreachable);
    }
}
