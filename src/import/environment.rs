//! Imports `NAME=VALUE` lines of `.env` files and shells: the keys and base URLs of vendors.

use super::{ImportError, ImportedConfig, ImportedModel};
use crate::{config::vendors, model::environment::Environment};

/// Suffixes of the variables in which other programs expect the model of a service.
const MODEL_SUFFIXES: [&str; 4] = ["MODEL", "API_MODEL", "MODEL_NAME", "DEFAULT_MODEL"];
/// Suffixes of other common variables for the base URL.
const BASE_URL_SUFFIXES: [&str; 2] = ["API_BASE", "API_BASE_URL"];

/// Whether a line is an assignment to a variable.
pub(crate) fn is_assignment(line: &str) -> bool {
    parse_assignment(line).is_some()
}

/// Whether `name` is a valid variable name.
pub(crate) fn is_variable_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(is_allowed) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn parse_assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    if !is_variable_name(name) {
        return None;
    }
    let value = value.trim();
    let quoted = |quote: char| {
        let (inner, rest) = value.strip_prefix(quote)?.split_once(quote)?;
        (rest.trim().is_empty() || rest.trim_start().starts_with('#')).then_some(inner)
    };
    let bare = value.split_once(" #").map_or(value, |(value, _)| value.trim_end());
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(bare);
    Some((name.to_owned(), value.to_owned()))
}

/// Imports every vendor whose key or base URL is set.
pub(crate) fn parse(text: &str) -> Result<ImportedConfig, ImportError> {
    let pairs: Vec<(String, String)> = text.lines().filter_map(parse_assignment).collect();
    let environment: Environment = pairs.iter().cloned().collect();
    let mut imported = ImportedConfig::default();
    for vendor in vendors::all() {
        let prefix = vendor.name.to_uppercase().replace('-', "_");
        let variable = vendor.key_variable(&environment);
        let from_common_suffix =
            || BASE_URL_SUFFIXES.iter().find_map(|suffix| environment.get(&format!("{prefix}_{suffix}")));
        let configured_url =
            vendor.base_url_env.iter().find_map(|name| environment.get(name)).or_else(from_common_suffix);
        if variable.is_none() && configured_url.is_none() {
            continue;
        }
        let base_url = match configured_url {
            // Other programs expect the URL without a path.
            Some(configured_url) if url::Url::parse(configured_url).is_ok_and(|url| url.path() == "/") => {
                let path = url::Url::parse(&vendor.base_url).map(|url| url.path().to_owned()).unwrap_or_default();
                format!("{}{path}", configured_url.trim_end_matches('/'))
            }
            Some(configured_url) => configured_url.to_owned(),
            None => vendor.base_url.clone(),
        };
        let value = variable.and_then(|name| environment.get(name));
        let keys = value.and_then(|value| imported.parse_key(&vendor.name, value)).into_iter().collect();
        let Some(endpoint) = imported.find_or_add_endpoint(&vendor.name, &vendor.name, &base_url, keys) else {
            continue;
        };
        let configured_model = MODEL_SUFFIXES.iter().find_map(|suffix| environment.get(&format!("{prefix}_{suffix}")));
        match configured_model.map(str::to_owned).or_else(|| vendor.model.clone().filter(|_| configured_url.is_none()))
        {
            Some(upstream) => {
                let name = upstream.clone();
                imported.models.push(ImportedModel { name, endpoint, upstream, ..ImportedModel::default() });
            }
            None => imported
                .skip(format!("models of {endpoint}"), format!("no model is set; run mmchat models sync {endpoint}")),
        }
    }
    if imported.endpoints.is_empty() {
        return Err(ImportError::Content("no variable sets the key or base URL of a vendor".into()));
    }
    Ok(imported)
}
