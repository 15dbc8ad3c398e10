//! Looking around: keys in the environment, servers on this machine, and the models each of them lists.
//!
//! Owns what is looked for and what is made of the replies. Asks for lists alone, which cost nothing.

use std::{path::Path, time::Duration};

use crate::{
    cli::{CliError, Context, commands::ping::ping_all},
    config::{
        self,
        template::{Draft, DraftEndpoint, DraftKey, DraftModel},
        vendors,
    },
    model::{ErrorClass, endpoint::is_loopback, environment::Environment},
    protocol::{ApiError, ModelInfo},
    render::notice::reason,
};

/// A service that was asked for its models.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) endpoint: DraftEndpoint,
    listed: Result<Vec<ModelInfo>, ApiError>,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It lists models.
    Models,
    /// Somebody is there, but says no, or something else.
    Somebody,
    /// There is nobody.
    Nobody,
}

/// Services worth asking: those whose key is known, and the ports of this machine that servers use by habit.
pub(super) fn candidates(environment: &Environment) -> Result<Vec<DraftEndpoint>, CliError> {
    let mut found: Vec<DraftEndpoint> = Vec::new();
    for vendor in vendors::all() {
        let address = vendor.address(environment)?;
        let key = vendor.key_variable(environment);
        let same = |known: &DraftEndpoint| known.base_url == address.as_str();
        if (key.is_some() || is_loopback(&address)) && !found.iter().any(same) {
            let key = key.map_or(DraftKey::None, |name| DraftKey::Env(name.to_owned()));
            found.push(DraftEndpoint { name: vendor.name.clone(), base_url: address.to_string(), key });
        }
    }
    Ok(found)
}

/// Asks all of them for their models, at once.
pub(super) async fn list(
    context: &Context,
    endpoints: Vec<DraftEndpoint>,
    limit: Duration,
) -> Result<Vec<Found>, CliError> {
    // Typed keys are in this text, which never leaves memory.
    let text = Draft { endpoints: endpoints.clone(), ..Draft::default() }.text(true);
    let config = config::resolve(&text, Path::new("init"))?;
    let pinged = ping_all(&context.engine(), config.endpoints, limit).await;
    Ok(endpoints.into_iter().zip(pinged).map(|(endpoint, pinged)| Found { endpoint, listed: pinged.listed }).collect())
}

impl Found {
    pub(super) fn seen(&self) -> Seen {
        match &self.listed {
            Ok(models) if !models.is_empty() => Seen::Models,
            Err(error) if matches!(error.class, ErrorClass::Connect | ErrorClass::Silent | ErrorClass::Local) => {
                Seen::Nobody
            }
            Ok(_) | Err(_) => Seen::Somebody,
        }
    }

    /// Nothing says that it is there but the habit of its kind.
    pub(super) fn is_guess(&self) -> bool {
        matches!(self.endpoint.key, DraftKey::None) && is_loopback_text(&self.endpoint.base_url)
    }

    /// `openai (OPENAI_API_KEY): 84 models`
    pub(super) fn line(&self) -> String {
        let what = match &self.listed {
            Ok(models) => format!("{} model(s)", models.len()),
            Err(error) => reason(error),
        };
        let key = match &self.endpoint.key {
            DraftKey::Env(name) => format!(" ({name})"),
            _ if is_loopback_text(&self.endpoint.base_url) => format!(" at {}", self.endpoint.base_url),
            _ => String::new(),
        };
        format!("{}{key}: {what}", self.endpoint.name)
    }

    /// The models it lists.
    pub(super) fn models(&self) -> impl Iterator<Item = DraftModel> {
        let models = self.listed.as_deref().unwrap_or_default().iter();
        models.map(|model| DraftModel {
            endpoint: self.endpoint.name.clone(),
            upstream: model.id.clone(),
            context: model.context,
        })
    }

    /// The one that is usual: its vendor's, where it is listed; else the first.
    pub(super) fn usual(&self) -> Option<DraftModel> {
        let usual = vendors::named(&self.endpoint.name).and_then(|vendor| vendor.model.as_deref());
        let listed = self.models().find(|model| Some(model.upstream.as_str()) == usual);
        listed.or_else(|| self.models().next())
    }
}

fn is_loopback_text(address: &str) -> bool {
    config::base_url(address).is_ok_and(|url| is_loopback(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, listed: Result<&[&str], ErrorClass>) -> Found {
        let endpoint =
            DraftEndpoint { name: name.into(), base_url: "http://127.0.0.1:1/v1".into(), key: DraftKey::None };
        let info = |id: &&str| ModelInfo { id: (*id).to_owned(), context: None, owner: None };
        let listed = listed.map(|ids| ids.iter().map(info).collect()).map_err(|class| ApiError::new(class, "why"));
        Found { endpoint, listed }
    }

    #[test]
    fn keys_and_habitual_ports_are_looked_at_once_each() {
        let environment: Environment =
            [("DEEPSEEK_API_KEY", "sk-1"), ("OPENAI_BASE_URL", "http://127.0.0.1:5/v1"), ("OPENAI_API_KEY", "sk-2")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect();
        let found = candidates(&environment).expect("good addresses");
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
    fn the_usual_model_is_the_vendors_where_it_is_listed() {
        let usual = |name, ids| found(name, Ok(ids)).usual().map(|model| model.upstream);
        assert_eq!(usual("openai", &["gpt-9", "gpt-4o-mini"]).as_deref(), Some("gpt-4o-mini"));
        assert_eq!(usual("openai", &["gpt-9"]).as_deref(), Some("gpt-9"));
        assert_eq!(usual("local", &[]), None);
    }

    #[test]
    fn somebody_who_says_no_is_not_nobody() {
        assert_eq!(found("a", Ok(&["x"])).seen(), Seen::Models);
        assert_eq!(found("a", Err(ErrorClass::Auth)).seen(), Seen::Somebody);
        assert_eq!(found("a", Err(ErrorClass::Connect)).seen(), Seen::Nobody);
    }
}
