//! Well-known services: their addresses, key variables and peculiarities, from `vendors.toml`.
//!
//! Owns the table and what it says about an endpoint. Refuses to be needed: an endpoint no vendor knows works too.

use std::sync::OnceLock;

use serde::Deserialize;
use url::Url;

use super::{error::ConfigError, redact::redacted, resolve::base_url, values::Table};
use crate::model::environment::Environment;

/// A well-known service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vendor {
    /// Its key in the table, which is also the name of its endpoint when there is no config.
    #[serde(skip)]
    pub name: String,
    /// Its name, for people.
    pub title: String,
    /// Where it is.
    pub base_url: String,
    /// Variables that move it.
    #[serde(default)]
    pub base_url_env: Vec<String>,
    /// Variables that hold its key.
    pub key_env: Vec<String>,
    /// What is asked when only a key is known.
    #[serde(default)]
    pub model: Option<String>,
    /// It retries by itself.
    #[serde(default)]
    pub gateway: bool,
    /// It refuses `stream_options`.
    #[serde(default)]
    pub no_stream_options: bool,
    /// Upstream ids, by their start, that think before they answer.
    #[serde(default)]
    pub reasoning: Vec<String>,
}

impl Vendor {
    /// Its address, as the environment has it.
    pub fn address(&self, environment: &Environment) -> Result<Url, ConfigError> {
        let moved = self.base_url_env.iter().find_map(|name| Some((name, environment.get(name)?)));
        let Some((name, value)) = moved else {
            return Ok(self.own_address());
        };
        let reason = |reason| ConfigError::Variable { name: name.clone(), value: redacted(value).0, reason };
        let mut url = base_url(value).map_err(reason)?;
        // Other programs want some of these variables without a path.
        if url.path().trim_matches('/').is_empty() {
            url.set_path(self.own_address().path());
        }
        Ok(url)
    }

    fn own_address(&self) -> Url {
        Url::parse(&self.base_url).expect("a test reads the addresses that are built in")
    }

    /// The variable that holds its key, if one is set.
    #[must_use]
    pub fn key_variable(&self, environment: &Environment) -> Option<&str> {
        self.key_env.iter().map(String::as_str).find(|name| environment.get(name).is_some())
    }

    /// Whether this upstream id thinks before it answers.
    #[must_use]
    pub fn reasons(&self, upstream: &str) -> bool {
        self.reasoning.iter().any(|start| upstream.starts_with(start))
    }
}

const TABLE: &str = include_str!("vendors.toml");

/// The port as an address has it; nothing where it is the scheme's own.
fn port(url: &Url) -> String {
    url.port().map(|port| format!(":{port}")).unwrap_or_default()
}

/// Every vendor, in the order in which their keys are looked for.
pub fn all() -> &'static [Vendor] {
    static VENDORS: OnceLock<Vec<Vendor>> = OnceLock::new();
    VENDORS.get_or_init(|| {
        let table: Table<Vendor> = toml::from_str(TABLE).expect("a test reads the file that is built in");
        table.0.into_iter().map(|(name, vendor)| Vendor { name: name.value, ..vendor }).collect()
    })
}

/// The vendor called `name`.
#[must_use]
pub fn named(name: &str) -> Option<&'static Vendor> {
    all().iter().find(|vendor| vendor.name == name)
}

/// The vendor that serves at `url`.
#[must_use]
pub fn at(url: &Url) -> Option<&'static Vendor> {
    // Most addresses are in no entry: the table need not even be read for them.
    if !url.host_str().is_some_and(|host| TABLE.contains(&format!("//{host}{}", port(url)))) {
        return None;
    }
    all().iter().find(|vendor| {
        Url::parse(&vendor.base_url).is_ok_and(|known| {
            known.host() == url.host() && known.port_or_known_default() == url.port_or_known_default()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::names::{forbidden, normalised};

    #[test]
    fn every_vendor_has_a_shape_that_works() {
        assert!(all().len() >= 25);
        let mut variables = std::collections::BTreeSet::new();
        for vendor in all() {
            let url = Url::parse(&vendor.base_url).expect("a url");
            assert!(!url.path().ends_with('/') && url.path().len() > 1, "{}: {url}", vendor.name);
            // Two servers may use one port by habit; then what is known of them must be the same.
            let found = at(&url).expect("its own address");
            assert_eq!(
                (found.gateway, found.no_stream_options),
                (vendor.gateway, vendor.no_stream_options),
                "{}",
                vendor.name
            );
            assert!(!vendor.title.is_empty() && normalised(&vendor.name) == vendor.name, "{}", vendor.name);
            assert!(forbidden(&vendor.name).is_none(), "{}", vendor.name);
            let local = crate::model::endpoint::is_loopback(&url);
            assert!(local || url.scheme() == "https", "{} would send keys in the clear", vendor.name);
            assert!(local || !vendor.key_env.is_empty(), "{} has no variable for its key", vendor.name);
            assert!(vendor.model.is_some() || vendor.key_env.is_empty(), "{} has a key but no model", vendor.name);
            for variable in vendor.key_env.iter().chain(&vendor.base_url_env) {
                assert!(variable.chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{variable}");
                assert!(variables.insert(variable), "{variable} is another vendor's, too");
            }
        }
    }

    #[test]
    fn a_variable_without_a_path_means_the_usual_one() {
        let address = |value: &str| {
            let environment = [("LITELLM_BASE_URL".to_owned(), value.to_owned())].into_iter().collect();
            named("litellm").expect("known").address(&environment).expect("an address").to_string()
        };
        assert_eq!(address("http://gw:1"), "http://gw:1/v1");
        assert_eq!(address("http://gw:1/proxy"), "http://gw:1/proxy");
    }

    #[test]
    fn the_services_people_ask_for_are_there() {
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
            assert!(named(name).is_some(), "{name}");
        }
    }
}
