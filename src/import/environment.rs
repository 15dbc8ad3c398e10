//! `NAME=VALUE` lines as shells and programs hold them: the keys and addresses of known services.

use super::{ImportError, Imported, ImportedModel};
use crate::{config::vendors, model::environment::Environment};

/// What other programs call the model to use, beside the service's key.
const MODELS: [&str; 4] = ["MODEL", "API_MODEL", "MODEL_NAME", "DEFAULT_MODEL"];
/// Another common word for the address.
const ADDRESSES: [&str; 2] = ["API_BASE", "API_BASE_URL"];

/// Whether a line assigns something to a variable.
pub(crate) fn is_assignment(line: &str) -> bool {
    assignment(line).is_some()
}

/// Whether a variable can be called so.
pub(crate) fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    if !is_variable(name) {
        return None;
    }
    let value = value.trim();
    let quoted = |quote: char| {
        let (inside, rest) = value.strip_prefix(quote)?.split_once(quote)?;
        (rest.trim().is_empty() || rest.trim_start().starts_with('#')).then_some(inside)
    };
    let bare = value.split_once(" #").map_or(value, |(value, _)| value.trim_end());
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(bare);
    Some((name.to_owned(), value.to_owned()))
}

/// Every known service whose key or address is set.
pub(crate) fn variables(text: &str) -> Result<Imported, ImportError> {
    let pairs: Vec<(String, String)> = text.lines().filter_map(assignment).collect();
    let environment: Environment = pairs.iter().cloned().collect();
    let mut imported = Imported::default();
    for vendor in vendors::all() {
        let stem = vendor.name.to_uppercase().replace('-', "_");
        let variable = vendor.key_variable(&environment);
        let other = || ADDRESSES.iter().find_map(|end| environment.get(&format!("{stem}_{end}")));
        let own = vendor.base_url_env.iter().find_map(|name| environment.get(name)).or_else(other);
        if variable.is_none() && own.is_none() {
            continue;
        }
        let address = match own {
            // Other programs want the address without a path.
            Some(own) if url::Url::parse(own).is_ok_and(|url| url.path() == "/") => {
                let path = url::Url::parse(&vendor.base_url).map(|url| url.path().to_owned()).unwrap_or_default();
                format!("{}{path}", own.trim_end_matches('/'))
            }
            Some(own) => own.to_owned(),
            None => vendor.base_url.clone(),
        };
        let value = variable.and_then(|name| environment.get(name));
        let keys = value.and_then(|value| imported.key(&vendor.name, value)).into_iter().collect();
        let Some(endpoint) = imported.endpoint(&vendor.name, &vendor.name, &address, keys) else { continue };
        let named = MODELS.iter().find_map(|end| environment.get(&format!("{stem}_{end}")));
        match named.map(str::to_owned).or_else(|| vendor.model.clone().filter(|_| own.is_none())) {
            Some(upstream) => {
                let name = upstream.clone();
                imported.models.push(ImportedModel { name, endpoint, upstream, ..ImportedModel::default() });
            }
            None => imported
                .leave_out(format!("models of {endpoint}"), format!("none is named: mmchat models sync {endpoint}")),
        }
    }
    if imported.endpoints.is_empty() {
        return Err(ImportError(
            "it sets the key or address of no known service (mmchat vendors lists the variables)".into(),
        ));
    }
    Ok(imported)
}
