//! The table of vendors, which are known services: base URLs, key variables and deviations, from `vendors.toml`.
//!
//! Endpoints that are not in the table work too.

use std::sync::OnceLock;

use serde::Deserialize;
use url::Url;

use super::{base_url::parse_base_url, error::ConfigError, redact::redact, values::OrderedTable};
use crate::model::environment::Environment;

/// A known service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// The key in the table, which is also the name of the endpoint when there is no config.
    #[serde(skip)]
    pub name: String,
    /// The display name.
    pub title: String,
    /// The default base URL.
    pub base_url: String,
    /// Environment variables that override the base URL.
    #[serde(default)]
    pub base_url_env: Vec<String>,
    /// Environment variables that hold the key, in order of precedence.
    pub key_env: Vec<String>,
    /// The default model, used when there is a key but no config.
    #[serde(default)]
    pub model: Option<String>,
    /// The service is a gateway with its own retries.
    #[serde(default)]
    pub gateway: bool,
    /// The service rejects `stream_options`.
    #[serde(default)]
    pub no_stream_options: bool,
    /// Prefixes of the upstream IDs of reasoning models.
    #[serde(default)]
    pub reasoning: Vec<String>,
}

impl Vendor {
    /// The base URL, taken from the environment if one of its variables is set.
    pub fn effective_base_url(&self, environment: &Environment) -> Result<Url, ConfigError> {
        let variable = self.base_url_env.iter().find_map(|name| Some((name, environment.get(name)?)));
        let Some((name, value)) = variable else {
            return Ok(self.default_base_url());
        };
        let invalid_variable = |reason| ConfigError::InvalidVariable {
            name: name.clone(),
            value: redact(value).0,
            reason: format!("it {reason}; expected a URL such as {}", self.base_url),
        };
        let mut url = parse_base_url(value).map_err(invalid_variable)?;
        // Other programs expect some of these variables without a path.
        if url.path().trim_matches('/').is_empty() {
            url.set_path(self.default_base_url().path());
        }
        Ok(url)
    }

    fn default_base_url(&self) -> Url {
        Url::parse(&self.base_url).expect("a test parses the built-in URLs")
    }

    /// The first key variable that is set.
    #[must_use]
    pub fn key_variable(&self, environment: &Environment) -> Option<&str> {
        self.key_env.iter().map(String::as_str).find(|name| environment.get(name).is_some())
    }
}

const VENDORS_TOML: &str = include_str!("vendors.toml");

/// The port as written in a URL (`:8080`); empty for the default port of the scheme.
fn explicit_port(url: &Url) -> String {
    url.port().map(|port| format!(":{port}")).unwrap_or_default()
}

/// All vendors, in the order in which their keys are looked up.
pub fn all() -> &'static [Vendor] {
    static VENDORS: OnceLock<Vec<Vendor>> = OnceLock::new();
    VENDORS.get_or_init(|| {
        let table: OrderedTable<Vendor> = toml::from_str(VENDORS_TOML).expect("a test parses the built-in file");
        table.0.into_iter().map(|(name, vendor)| Vendor { name: name.value, ..vendor }).collect()
    })
}

/// The vendor called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Vendor> {
    all().iter().find(|vendor| vendor.name == name)
}

/// The vendor with the host and port of `url`.
#[must_use]
pub fn by_url(url: &Url) -> Option<&'static Vendor> {
    // Most URLs belong to no vendor; this check avoids parsing the table for them.
    if !url.host_str().is_some_and(|host| VENDORS_TOML.contains(&format!("//{host}{}", explicit_port(url)))) {
        return None;
    }
    all().iter().find(|vendor| {
        Url::parse(&vendor.base_url).is_ok_and(|vendor_url| {
            vendor_url.host() == url.host() && vendor_url.port_or_known_default() == url.port_or_known_default()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::names::{first_invalid_char, normalize_name};

    #[test]
    fn every_vendor_entry_is_valid() {
        assert!(all().len() >= 25);
        let mut variables = std::collections::BTreeSet::new();
        for vendor in all() {
            let url = Url::parse(&vendor.base_url).expect("valid URL");
            assert!(!url.path().ends_with('/') && url.path().len() > 1, "{}: {url}", vendor.name);
            // Vendors with the same default port cannot be told apart by URL, so they must have the same properties.
            let recognized = by_url(&url).expect("the URL of a vendor");
            assert_eq!(
                (recognized.gateway, recognized.no_stream_options, &recognized.reasoning),
                (vendor.gateway, vendor.no_stream_options, &vendor.reasoning),
                "{}",
                vendor.name
            );
            assert!(!vendor.title.is_empty() && normalize_name(&vendor.name) == vendor.name, "{}", vendor.name);
            assert!(first_invalid_char(&vendor.name).is_none(), "{}", vendor.name);
            let local = crate::model::endpoint::is_loopback(&url);
            // The tests of the binary redirect the base URLs with this start, so that they never call a local server.
            assert!(!local || vendor.base_url.starts_with("http://127.0.0.1"), "{}", vendor.name);
            assert!(local || url.scheme() == "https", "{} would send keys unencrypted", vendor.name);
            assert!(local || !vendor.key_env.is_empty(), "{} has no key variable", vendor.name);
            assert!(!local || !vendor.base_url_env.is_empty(), "{} has no variable for its base URL", vendor.name);
            assert!(
                vendor.model.is_some() || vendor.key_env.is_empty(),
                "{} has a key variable but no model",
                vendor.name
            );
            for variable in vendor.key_env.iter().chain(&vendor.base_url_env) {
                let is_valid = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                assert!(variable.chars().all(is_valid), "{variable} has a character other than A-Z, 0-9 and _");
                assert!(variables.insert(variable), "{variable} is used by two vendors");
            }
        }
    }

    #[test]
    fn base_url_variable_without_a_path_gets_the_default_path() {
        let base_url = |value: &str| {
            let environment = [("LITELLM_BASE_URL".to_owned(), value.to_owned())].into_iter().collect();
            by_name("litellm").expect("known vendor").effective_base_url(&environment).expect("valid URL").to_string()
        };
        assert_eq!(base_url("http://gw:1"), "http://gw:1/v1");
        assert_eq!(base_url("http://gw:1/proxy"), "http://gw:1/proxy");
    }

    #[test]
    fn common_services_are_in_the_table() {
        for name in [
            "openai",
            "deepseek",
            "dashscope",
            "zhipu",
            "moonshot",
            "doubao",
            "siliconflow",
            "minimax",
            "baichuan",
            "stepfun",
            "hunyuan",
            "yi",
            "xinference",
            "lmstudio",
            "llama-cpp",
            "vllm",
            "ollama",
            "litellm",
            "one-api",
            "new-api",
        ] {
            assert!(by_name(name).is_some(), "{name}");
        }
    }
}
