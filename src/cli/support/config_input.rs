//! What a person gives on the command line for a config: names, addresses, variables, and the endpoint they make up.
//!
//! Owns refusing what cannot be written, before anything is. What is wrong is told without the value where a key or a
//! password may have been given in its place.

use crate::cli::CliError;
use crate::{
    config::{
        base_url, is_name, normalised,
        template::{DraftEndpoint, DraftKey},
        vendors,
    },
    model::{endpoint::is_loopback, environment::Environment, sanitize::one_line},
    render::wrap::shortened,
};

/// What a name may be.
const NAMES: &str = "names are letters of any script, digits, `.`, `_` and `-`, at most 64, and do not begin with `-`";

/// `name` in composed form, if something new may be called so.
pub(crate) fn new_name(name: &str) -> Result<String, CliError> {
    let name = normalised(name);
    if is_name(&name) {
        return Ok(name);
    }
    Err(CliError::usage(format!("`{}` cannot be a name", shortened(&one_line(&name), 40)), NAMES))
}

/// An address that may be written into a config.
pub(crate) fn new_address(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user in it, which is not sent; say where the key is instead".to_owned());
    }
    if text.contains(char::is_control) { Err("has a line break in it".to_owned()) } else { Ok(text.to_owned()) }
}

/// The name of a variable.
pub(crate) fn variable_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = text.chars().all(fits) && !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty();
    if good { Ok(()) } else { Err("a variable is letters, digits and _; a key itself does not belong here".to_owned()) }
}

/// The key in a variable of this name.
pub(crate) fn key_in(variable: &str) -> Result<DraftKey, CliError> {
    variable_name(variable).map_err(|wrong| CliError::usage(format!("--key-env: {wrong}"), "name the variable"))?;
    Ok(DraftKey::Env(variable.to_owned()))
}

/// The endpoint of this name: at `url`, or where the known service of the name is; with `key`, or with what is usual:
/// the service's variable that is set, none on this machine, else the service's first variable.
pub(crate) fn endpoint(
    name: &str,
    url: Option<&str>,
    key: Option<DraftKey>,
    environment: &Environment,
) -> Result<DraftEndpoint, CliError> {
    let name = new_name(name)?;
    let vendor = vendors::named(&name);
    let address = match (url, vendor) {
        (Some(url), _) => new_address(url).map_err(|wrong| {
            CliError::usage(format!("the address of {name} {wrong}"), "write it like https://api.example.com/v1")
        })?,
        (None, Some(vendor)) => vendor.address(environment)?.to_string(),
        (None, None) => {
            let hint = "say where it is, as http://…/v1; mmchat vendors lists those that are known";
            return Err(CliError::usage(format!("`{name}` is no known service"), hint));
        }
    };
    let here = base_url(&address).is_ok_and(|url| is_loopback(&url));
    let usual = vendor.and_then(|vendor| {
        let first = vendor.key_env.first().map(String::as_str).filter(|_| !here);
        vendor.key_variable(environment).or(first)
    });
    let key = key.unwrap_or_else(|| usual.map_or(DraftKey::None, |variable| DraftKey::Env(variable.to_owned())));
    Ok(DraftEndpoint { name, base_url: address, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(name: &str, url: Option<&str>, variables: &[(&str, &str)]) -> String {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match endpoint(name, url, None, &environment).expect("good").key {
            DraftKey::Env(variable) => variable,
            DraftKey::None => "none".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_usual_key_is_in_the_variable_that_is_set() {
        assert_eq!(key_of("dashscope", None, &[("QWEN_API_KEY", "sk-1")]), "QWEN_API_KEY");
        assert_eq!(key_of("dashscope", None, &[]), "DASHSCOPE_API_KEY");
        assert_eq!(key_of("litellm", None, &[]), "none");
        assert_eq!(key_of("litellm", None, &[("LITELLM_API_KEY", "sk-1")]), "LITELLM_API_KEY");
        assert_eq!(key_of("box", Some("http://box:1/v1"), &[]), "none");
    }
}
