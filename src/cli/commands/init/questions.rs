//! Asks the questions for creating or changing a config, one per function. Does not write anything.

use std::sync::Arc;

use crate::{
    cli::{
        CliError,
        support::config_input::{validate_base_url, validate_variable_name},
    },
    config::{
        Config, NameKind, is_valid_new_name, normalize_name, parse_base_url,
        template::{TemplateEndpoint, TemplateKey, name_from_upstream_id},
        vendors,
    },
    model::{endpoint::Endpoint, environment::Environment},
    protocol::{CallError, ModelInfo},
    render::notice::format_reason,
    term::{
        output::write_stderr,
        prompt::{choose, confirm, secret, text},
    },
};

/// Prompts for an endpoint: a known vendor, or any base URL.
pub(crate) fn prompt_endpoint(environment: &Environment, taken: &[&str]) -> Result<TemplateEndpoint, CliError> {
    let available: Vec<_> = vendors::all().iter().filter(|vendor| !taken.contains(&vendor.name.as_str())).collect();
    let mut choices = vec!["another address".to_owned()];
    choices.extend(available.iter().map(|vendor| format!("{} ({})", vendor.title, vendor.name)));
    let choice = choose("Which vendor", &choices, 0)?;
    let vendor = choice.checked_sub(1).map(|index| available[index]);
    let (name, base_url) = if let Some(vendor) = vendor {
        (vendor.name.clone(), vendor.base_url.clone())
    } else {
        let is_valid =
            |text: &str| validate_base_url(text).map(drop).map_err(|reason| format!("the base URL {reason}"));
        let address = text("Base URL, including /v1", None, is_valid)?;
        let suggestion = suggested_name(&address);
        let name = text("Name for this endpoint", Some(suggestion), |text| check_new_name(text, taken))?;
        (normalize_name(&name), address)
    };
    let variables = vendor.map(|vendor| vendor.key_env.as_slice()).unwrap_or_default();
    Ok(TemplateEndpoint { key: prompt_key(&name, variables, environment)?, name, base_url })
}

/// Prompts for the source of the key.
fn prompt_key(name: &str, variables: &[String], environment: &Environment) -> Result<TemplateKey, CliError> {
    let set_variable = variables.iter().find(|variable| environment.get(variable).is_some());
    if let Some(variable) = set_variable
        && confirm(&format!("Use the key in {variable}"), true)?
    {
        return Ok(TemplateKey::Env(variable.clone()));
    }
    let choices = ["no key needed", "in an environment variable", "type it now (not shown)"];
    let default = usize::from(!variables.is_empty());
    Ok(match choose(&format!("API key of {name}"), &choices.map(str::to_owned), default)? {
        0 => TemplateKey::None,
        1 => {
            let name = text("Environment variable", variables.first().cloned(), validate_variable_name)?;
            if environment.get(&name).is_none() {
                write_stderr(&format!("  {name} is not set; it is read whenever the key is needed\n"));
            }
            TemplateKey::Env(name)
        }
        _ => TemplateKey::Typed(secret("Type or paste the key")?),
    })
}

/// Prompts for one of the configured endpoints; the only one is used without a question.
pub(crate) fn choose_endpoint(config: &Config) -> Result<&Arc<Endpoint>, CliError> {
    match config.endpoints.as_slice() {
        [] => Err(CliError::usage("no endpoints in the config", "run \"mmchat endpoint add\" first")),
        [only] => Ok(only),
        several => {
            let names: Vec<String> = several.iter().map(|endpoint| endpoint.name.clone()).collect();
            Ok(&several[choose("Which endpoint", &names, 0)?])
        }
    }
}

/// Prompts for a model id: one from the endpoint's list, or typed if there is no list.
pub(crate) fn prompt_upstream_id(
    endpoint: &str,
    listed: Result<Vec<ModelInfo>, CallError>,
) -> Result<String, CliError> {
    let models = listed.unwrap_or_else(|error| {
        write_stderr(&format!("  cannot list the models of \"{endpoint}\": {}\n", format_reason(&error)));
        Vec::new()
    });
    if models.is_empty() {
        let check = |text: &str| if text.is_empty() { Err("the ID is empty".to_owned()) } else { Ok(()) };
        return Ok(text(&format!("Model ID at {endpoint}"), None, check)?);
    }
    let ids: Vec<String> = models.into_iter().map(|model| model.id).collect();
    let chosen = choose("Model (type to search)", &ids, 0)?;
    Ok(ids.into_iter().nth(chosen).unwrap_or_default())
}

/// Prompts for a model name that is not taken.
pub(crate) fn prompt_model_name(config: &Config, upstream: &str) -> Result<String, CliError> {
    let taken: Vec<&str> = config.names().collect();
    let suggestion = Some(name_from_upstream_id(upstream)).filter(|name| !taken.contains(&name.as_str()));
    Ok(normalize_name(&text("Name for this model", suggestion, |text| check_new_name(text, &taken))?))
}

fn check_new_name(name: &str, taken: &[&str]) -> Result<(), String> {
    if taken.contains(&normalize_name(name).as_str()) {
        return Err(format!("\"{name}\" already exists"));
    }
    if is_valid_new_name(NameKind::Other, name) {
        Ok(())
    } else {
        Err("expected letters of any script, digits, `.`, `_` and `-`".to_owned())
    }
}

/// Suggests a name from an address: `example` for `api.example.com`.
fn suggested_name(address: &str) -> String {
    let url = parse_base_url(address).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    let is_local = host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') || host == "localhost";
    let parts: Vec<&str> = host.split('.').collect();
    match parts.as_slice() {
        _ if is_local => "local".to_owned(),
        [.., name, _] => (*name).to_owned(),
        _ => Some(host.to_owned())
            .filter(|host| is_valid_new_name(NameKind::Other, host))
            .unwrap_or_else(|| "other".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_name_comes_from_the_host() {
        for (address, name) in [
            ("https://api.example.com/v1", "example"),
            ("http://127.0.0.1:8080/v1", "local"),
            ("http://[::1]:1/v1", "local"),
            ("http://gpu-box:8000/v1", "gpu-box"),
        ] {
            assert_eq!(suggested_name(address), name);
        }
    }

    #[test]
    fn new_name_must_be_free_and_valid() {
        assert!(check_new_name("fast", &["slow"]).is_ok());
        assert!(
            check_new_name("fast", &["fast"]).is_err()
                && check_new_name("a/b", &[]).is_err()
                && check_new_name("", &[]).is_err()
        );
    }
}
