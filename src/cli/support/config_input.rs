//! Validates command-line values that go into the config: names, addresses, variables, and the endpoint they form.
//!
//! Error messages omit a value in whose place the user may have pasted a key or a password.

use crate::cli::CliError;
use crate::{
    config::{
        NameKind, is_valid_new_name, normalize_name, parse_base_url,
        template::{TemplateEndpoint, TemplateKey},
        vendors,
    },
    model::{endpoint::is_loopback, environment::Environment, sanitize::one_line},
    render::wrap::truncate_to_width,
};

/// The rules for names, as a hint.
const NAME_RULES: &str =
    "use at most 64 letters of any script, digits, \".\", \"_\" and \"-\", and do not begin with \"-\"";

/// The rules for names of models, routes and sets.
const MODEL_NAME_RULES: &str = "use at most 64 visible characters without \",\" and \"=\", and do not begin with \"-\"";

/// Checks a name for a new entry and returns it in composed form (Unicode NFC).
pub(crate) fn validate_name(kind: NameKind, name: &str) -> Result<String, CliError> {
    let name = normalize_name(name);
    if is_valid_new_name(kind, &name) {
        return Ok(name);
    }
    let rules = match kind {
        NameKind::Model => MODEL_NAME_RULES,
        NameKind::Other => NAME_RULES,
    };
    Err(CliError::usage(format!("invalid name \"{}\"", truncate_to_width(&one_line(&name), 40)), rules))
}

/// Checks a base URL for the config.
pub(crate) fn validate_base_url(text: &str) -> Result<String, String> {
    let url = parse_base_url(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name, which would not be sent; set a key instead".to_owned());
    }
    if text.contains(char::is_control) { Err("contains a control character".to_owned()) } else { Ok(text.to_owned()) }
}

/// Checks the name of an environment variable.
pub(crate) fn validate_variable_name(text: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let valid = text.chars().all(is_allowed) && !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty();
    if valid {
        Ok(())
    } else {
        Err("expected the name of a variable (letters, digits and _), not the key itself".to_owned())
    }
}

/// A key that is read from an environment variable.
pub(crate) fn key_from_variable(variable: &str) -> Result<TemplateKey, CliError> {
    validate_variable_name(variable)
        .map_err(|reason| CliError::usage(format!("--key-env: {reason}"), "pass a name, such as OPENAI_API_KEY"))?;
    Ok(TemplateKey::Env(variable.to_owned()))
}

/// An endpoint for the config. Without `url`, the base URL is that of the known vendor called `name`; if there is none,
/// `url_hint` says how to add a URL. Without `key`, it is the vendor's key variable that is set; if none is set, no key
/// for a loopback address, else the first variable.
pub(crate) fn build_endpoint(
    name: &str,
    (url, url_hint): (Option<&str>, &str),
    key: Option<TemplateKey>,
    environment: &Environment,
) -> Result<TemplateEndpoint, CliError> {
    let name = validate_name(NameKind::Other, name)?;
    let vendor = vendors::by_name(&name);
    let address = match (url, vendor) {
        (Some(url), _) => validate_base_url(url).map_err(|reason| {
            CliError::usage(
                format!("the base URL of \"{name}\" {reason}"),
                "use a URL such as https://api.example.com/v1",
            )
        })?,
        (None, Some(vendor)) => vendor.effective_base_url(environment)?.to_string(),
        (None, None) => {
            let hint = format!("{url_hint}; \"mmchat vendors\" lists the vendors that need no URL");
            return Err(CliError::usage(format!("unknown vendor \"{name}\""), hint));
        }
    };
    let loopback = parse_base_url(&address).is_ok_and(|url| is_loopback(&url));
    let default_variable = vendor.and_then(|vendor| {
        let first = vendor.key_env.first().map(String::as_str).filter(|_| !loopback);
        vendor.key_variable(environment).or(first)
    });
    let default_key = || default_variable.map_or(TemplateKey::None, |name| TemplateKey::Env(name.to_owned()));
    let key = key.unwrap_or_else(default_key);
    Ok(TemplateEndpoint { name, base_url: address, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(name: &str, url: Option<&str>, variables: &[(&str, &str)]) -> String {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match build_endpoint(name, (url, "add --url URL"), None, &environment).expect("valid endpoint").key {
            TemplateKey::Env(variable) => variable,
            TemplateKey::None => "none".to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn default_key_is_the_vendor_variable_that_is_set() {
        assert_eq!(key_of("dashscope", None, &[("QWEN_API_KEY", "sk-1")]), "QWEN_API_KEY");
        assert_eq!(key_of("dashscope", None, &[]), "DASHSCOPE_API_KEY");
        assert_eq!(key_of("litellm", None, &[]), "none");
        assert_eq!(key_of("litellm", None, &[("LITELLM_API_KEY", "sk-1")]), "LITELLM_API_KEY");
        assert_eq!(key_of("box", Some("http://box:1/v1"), &[]), "none");
    }
}
