//! Loads the configuration from TOML files, the environment and the flags into a validated [`Config`].
//!
//! `file` defines the shape of a file, with a span on every value. `parse` deserializes it and reports all errors,
//! `layers` merges the files. `resolve` checks every name and builds the endpoints and targets of the lower layers.
//! `settings` adds the values from the environment and the flags. `vendors` is the table of vendors. Errors have their
//! position in the file.

mod base_url;
mod convert;
pub mod edit;
mod effective;
mod error;
pub(crate) mod file;
mod layers;
mod names;
mod origin;
mod parse;
mod policies;
pub(crate) mod preset;
mod preset_template;
mod redact;
pub mod renamed_keys;
mod resolve;
mod serve;
pub(crate) mod settings;
pub(crate) mod show;
mod source;
mod table_path;
pub(crate) mod template;
mod toml_problem;
mod values;
pub mod vendors;

use std::{path::PathBuf, sync::Arc, time::Duration};

use strum::{EnumString, IntoStaticStr, VariantNames};

pub(crate) use base_url::parse_base_url;
pub(crate) use error::closest_name;
pub use error::{ConfigError, Problem};
pub use layers::{ConfigLayers, resolve};
pub(crate) use names::{NameKind, Names, is_valid_new_name, normalize_name, unique_name};
pub(crate) use origin::Origins;
pub(crate) use preset::Preset;
pub(crate) use redact::{without_keys, without_secrets};
pub(crate) use resolve::{direct_target, exposed_key_warning, from_environment, resolve_config_path};
pub(crate) use serve::{Alias, ClientConfig, ServeConfig, listed_headers};
pub(crate) use settings::{Flags, ResolvedSettings, SettingSource};
pub use show::{config_toml, config_toml_with_origins};
pub use source::ConfigText;
pub(crate) use values::parse_duration;

use crate::{
    model::{endpoint::Endpoint, target::Target},
    routing::{OnFilter, OnIncomplete, RoutePolicy, policies::Policies, spend::SpendLimit},
};

/// A validated configuration: every name in it is defined.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The files it was read from, the system's first; empty when it was built from the environment.
    pub files: Vec<PathBuf>,
    /// The model or route that `ask` uses when none is given.
    pub default: Option<String>,
    /// The set that `compare` uses when no models are given.
    pub(crate) compare: Option<String>,
    /// Which earlier answers each model gets when a comparison is continued.
    pub(crate) context: RoundContext,
    /// The endpoints, in the file's order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The models, in the file's order.
    pub models: Vec<Arc<Target>>,
    /// The routes, in the file's order.
    pub routes: Vec<Route>,
    /// The sets, in the file's order.
    pub(crate) sets: Vec<Set>,
    /// The presets, in the file's order.
    pub(crate) presets: Vec<Preset>,
    /// The spend limits.
    pub(crate) spend: Vec<SpendLimit>,
    /// The settings of `mmchat serve`.
    pub(crate) serve: ServeConfig,
    /// The policies of retries and availability.
    pub(crate) policies: Policies,
    /// Whether prompts and answers are stored, and for how long.
    pub(crate) history: History,
    /// Old spellings of renamed keys in the file.
    pub(crate) renamed_keys: Vec<renamed_keys::RenamedKey>,
    /// Warnings: the configuration is valid, but part of it may not do what was intended.
    pub warnings: Vec<String>,
}

/// Which answers of the earlier rounds each model gets when a comparison is continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum RoundContext {
    /// Its own answers.
    #[default]
    Separate,
    /// The picked answer, for all models.
    Shared,
}

/// Whether prompts and answers are stored, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// Whether prompts and answers are stored.
    pub store_content: bool,
    /// Retention in days; `None`: unlimited.
    pub retention_days: Option<u32>,
}

impl Default for History {
    fn default() -> Self {
        Self { store_content: true, retention_days: None }
    }
}

/// One name for several models that gives one answer.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name.
    pub name: String,
    /// How a model is selected.
    pub policy: RoutePolicy,
    /// The models, in order.
    pub models: Vec<Arc<Target>>,
    /// What happens when an answer is incomplete; `None`: the default of the command.
    pub on_incomplete: Option<OnIncomplete>,
    /// How long the response headers of a stream are held back; `None`: the value of `[serve]`.
    pub hold: Option<Duration>,
    /// What happens when a content filter rejects the request or ends its answer.
    pub on_filter: OnFilter,
}

/// One name for several models that gives one answer from each.
#[derive(Clone, Debug)]
pub struct Set {
    /// The name.
    pub name: String,
    /// The models and routes of the set.
    pub members: Vec<String>,
}

impl Config {
    /// The endpoint called `name`.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }

    /// The model called `name`.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<Target>> {
        self.models.iter().find(|model| model.id.0 == name)
    }

    /// The target of `endpoint/id`, for a model without an entry.
    #[must_use]
    pub fn direct_model(&self, name: &str) -> Option<Arc<Target>> {
        let (endpoint, upstream) = self.split_direct(name)?;
        let direct = direct_target(endpoint, upstream);
        // The price of a model entry also applies when the model is requested as `endpoint/id`.
        let is_same_model =
            |model: &&Arc<Target>| model.endpoint.name == endpoint.name && model.upstream_id == upstream;
        let price = self.models.iter().find(is_same_model).and_then(|model| model.price.clone());
        Some(Arc::new(Target { price, ..direct }))
    }

    /// The endpoint and the model ID of a name such as `endpoint/id`.
    pub(crate) fn split_direct<'a>(&self, name: &'a str) -> Option<(&Arc<Endpoint>, &'a str)> {
        let (endpoint, upstream) = name.split_once('/').filter(|(_, upstream)| !upstream.is_empty())?;
        Some((self.endpoint(endpoint)?, upstream))
    }

    /// The route called `name`.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// The set called `name`.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The preset called `name` in the config file; presets in their own files are not included.
    #[must_use]
    pub fn preset(&self, name: &str) -> Option<&Preset> {
        self.presets.iter().find(|preset| preset.name == name)
    }

    /// The names of all models, routes and sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let models = self.models.iter().map(|model| model.id.0.as_str());
        let routes = self.routes.iter().map(|route| route.name.as_str());
        models.chain(routes).chain(self.sets.iter().map(|set| set.name.as_str()))
    }
}
