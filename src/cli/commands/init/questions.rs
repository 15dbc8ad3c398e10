//! What a person is asked when a config is made or changed, one question a function.
//!
//! Owns the questions and which answers make sense. Refuses to write anything.

use std::sync::Arc;

use crate::{
    cli::{
        CliError,
        support::{
            config_input::{new_address, variable_name},
            exit::Exit,
        },
    },
    config::{
        Config, base_url, is_name, normalised,
        template::{DraftEndpoint, DraftKey, name_of},
        vendors,
    },
    model::{endpoint::Endpoint, environment::Environment},
    protocol::{ApiError, ModelInfo},
    render::notice::reason,
    term::{
        output::say,
        prompt::{choose, confirm, secret, text},
        signals::{Interruption, TerminalState},
    },
};

/// Ctrl-C and its kin, from now on: the process ends, with the terminal as it was.
pub(crate) struct Restored {
    state: TerminalState,
    _interruption: Interruption,
}

impl Restored {
    pub(crate) fn when_interrupted() -> Result<Self, CliError> {
        let state = TerminalState::save();
        let before = state.clone();
        let interruption = Exit::on_interruption_then(move || {
            before.restore();
            say("\ninterrupted; nothing was changed\n");
        })?;
        Ok(Self { state, _interruption: interruption })
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        self.state.restore();
    }
}

/// A service: a known one, or one at any address.
pub(crate) fn endpoint(environment: &Environment, taken: &[&str]) -> Result<DraftEndpoint, CliError> {
    let free: Vec<_> = vendors::all().iter().filter(|vendor| !taken.contains(&vendor.name.as_str())).collect();
    let mut choices = vec!["another address".to_owned()];
    choices.extend(free.iter().map(|vendor| format!("{} ({})", vendor.title, vendor.name)));
    let choice = choose("Which service", &choices, 0)?;
    let vendor = choice.checked_sub(1).map(|index| free[index]);
    let (name, base_url) = if let Some(vendor) = vendor {
        (vendor.name.clone(), vendor.base_url.clone())
    } else {
        let address = text("Where is it, up to and with /v1", None, |text| new_address(text).map(drop))?;
        let guess = host_name(&address);
        let name = text("Your name for it", Some(guess), |text| new_name(text, taken))?;
        (normalised(&name), address)
    };
    let variables = vendor.map(|vendor| vendor.key_env.as_slice()).unwrap_or_default();
    Ok(DraftEndpoint { key: key(&name, variables, environment)?, name, base_url })
}

/// Where a service's key is.
fn key(name: &str, variables: &[String], environment: &Environment) -> Result<DraftKey, CliError> {
    let set = variables.iter().find(|variable| environment.get(variable).is_some());
    if let Some(variable) = set
        && confirm(&format!("Use the key in {variable}"), true)?
    {
        return Ok(DraftKey::Env(variable.clone()));
    }
    let choices = ["it wants none", "in a variable of the environment", "I type it now (it is not shown)"];
    let usual = usize::from(!variables.is_empty());
    Ok(match choose(&format!("The key of {name}"), &choices.map(str::to_owned), usual)? {
        0 => DraftKey::None,
        1 => {
            let name = text("Which variable", variables.first().cloned(), variable_name)?;
            if environment.get(&name).is_none() {
                say(&format!("  {name} is not set now; the key is read from it whenever it is needed\n"));
            }
            DraftKey::Env(name)
        }
        _ => DraftKey::Typed(secret("Type or paste it")?),
    })
}

/// One of the endpoints there are.
pub(crate) fn one_endpoint(config: &Config) -> Result<&Arc<Endpoint>, CliError> {
    match config.endpoints.as_slice() {
        [] => Err(CliError::usage("the config has no endpoints", "add one first: mmchat endpoint add")),
        [only] => Ok(only),
        several => {
            let names: Vec<String> = several.iter().map(|endpoint| endpoint.name.clone()).collect();
            Ok(&several[choose("Which endpoint", &names, 0)?])
        }
    }
}

/// A model's id at its endpoint: one of its list, or typed where there is none.
pub(crate) fn upstream_id(endpoint: &str, listed: Result<Vec<ModelInfo>, ApiError>) -> Result<String, CliError> {
    let models = listed.unwrap_or_else(|error| {
        say(&format!("  {endpoint} gives no list: {}\n", reason(&error)));
        Vec::new()
    });
    if models.is_empty() {
        let check = |text: &str| if text.is_empty() { Err("an id is not empty".to_owned()) } else { Ok(()) };
        return Ok(text(&format!("What {endpoint} calls the model"), None, check)?);
    }
    let ids: Vec<String> = models.into_iter().map(|model| model.id).collect();
    let chosen = choose("Which model (type to search)", &ids, 0)?;
    Ok(ids.into_iter().nth(chosen).unwrap_or_default())
}

/// A name for a model, none that there is.
pub(crate) fn model_name(config: &Config, upstream: &str) -> Result<String, CliError> {
    let taken: Vec<&str> = config.names().collect();
    let guess = Some(name_of(upstream)).filter(|guess| !taken.contains(&guess.as_str()));
    Ok(normalised(&text("Your name for it", guess, |text| new_name(text, &taken))?))
}

fn new_name(name: &str, taken: &[&str]) -> Result<(), String> {
    if taken.contains(&normalised(name).as_str()) {
        return Err(format!("there is a `{name}` already"));
    }
    if is_name(name) { Ok(()) } else { Err("a name is letters of any script, digits, `.`, `_` and `-`".to_owned()) }
}

/// A name that an address suggests: `api.example.com` is `example`.
fn host_name(address: &str) -> String {
    let url = base_url(address).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    let local = host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') || host == "localhost";
    let parts: Vec<&str> = host.split('.').collect();
    match parts.as_slice() {
        _ if local => "local".to_owned(),
        [.., name, _] => (*name).to_owned(),
        _ => Some(host.to_owned()).filter(|host| is_name(host)).unwrap_or_else(|| "other".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_suggests_a_name() {
        for (address, name) in [
            ("https://api.example.com/v1", "example"),
            ("http://127.0.0.1:8080/v1", "local"),
            ("http://[::1]:1/v1", "local"),
            ("http://gpu-box:8000/v1", "gpu-box"),
        ] {
            assert_eq!(host_name(address), name);
        }
    }

    #[test]
    fn a_name_is_new_and_can_be_written() {
        assert!(new_name("fast", &["slow"]).is_ok());
        assert!(new_name("fast", &["fast"]).is_err() && new_name("a/b", &[]).is_err() && new_name("", &[]).is_err());
    }
}
