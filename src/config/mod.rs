//! The configuration: from a TOML file, the environment and the flags to a checked [`Config`].
//!
//! The flow: `file` gives the file's shape with a span on every value; `resolve` checks every name and makes the
//! endpoints and targets of the floors below; `layers` holds what the environment and the flags lay on top;
//! `vendors` knows well-known services. Owns errors that point at the file. Refuses the terminal.

pub mod edit;
pub mod effective;
mod error;
pub mod file;
mod names;
pub mod preset;
mod redact;
mod resolve;
mod serve;
pub mod settings;
pub mod template;
mod values;
pub mod vendors;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use error::{ConfigError, Problem, nearest};
pub use names::{Names, is_name, normalised};
pub use preset::Preset;
pub use resolve::{base_url, direct_target, from_environment, in_folder, path_of, resolve};
pub use serve::{Client, Serve};
pub use settings::{Flags, Layers, Source};
pub use values::parse_duration;

use crate::{
    model::{endpoint::Endpoint, target::Target},
    routing::{OnCut, Policy, spend::SpendLimit},
};

/// A checked configuration: every name in it leads somewhere.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where it was read from; `None` when it was made up from the environment.
    pub path: Option<PathBuf>,
    /// What `ask` uses when nothing is named.
    pub default: Option<String>,
    /// What a bare `compare` uses.
    pub compare: Option<String>,
    /// What each model sees when a comparison goes on.
    pub context: RoundContext,
    /// The endpoints, in the file's order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The models, in the file's order.
    pub models: Vec<Arc<Target>>,
    /// The routes, in the file's order.
    pub routes: Vec<Route>,
    /// The sets, in the file's order.
    pub sets: Vec<Set>,
    /// The presets, in the file's order.
    pub presets: Vec<Preset>,
    /// What may be spent.
    pub spend: Vec<SpendLimit>,
    /// How it is served to other programs.
    pub serve: Serve,
    /// Whether prompts and answers are kept, and for how long.
    pub history: History,
    /// What is not wrong but should be known.
    pub warnings: Vec<String>,
}

/// What each model sees of the rounds before, when a comparison goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoundContext {
    /// Its own answers.
    #[default]
    Separate,
    /// The answer that was picked.
    Shared,
}

impl RoundContext {
    /// Each with its name.
    pub const NAMES: [(&'static str, Self); 2] = [("separate", Self::Separate), ("shared", Self::Shared)];

    /// Its name in the config and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, context)| *context == self).map_or("", |(name, _)| name)
    }
}

/// Whether prompts and answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// They are.
    pub on: bool,
    /// For so many days; `None`: for good.
    pub days: Option<u32>,
}

impl Default for History {
    fn default() -> Self {
        Self { on: true, days: None }
    }
}

/// One name, several models, one answer.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// How it chooses.
    pub policy: Policy,
    /// Its models, in order.
    pub models: Vec<Arc<Target>>,
    /// What happens when an answer breaks off; `None`: what the command finds right.
    pub on_cut: Option<OnCut>,
    /// How long a stream's headers are held back; `None`: as `[serve]` says.
    pub hold: Option<Duration>,
    /// Whether a filter's refusal goes on to the next model.
    pub filter_goes_on: bool,
}

/// One name, several models, several answers.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The models and routes in it.
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

    /// The model of an endpoint that is called `endpoint/upstream-id`.
    #[must_use]
    pub fn direct(&self, name: &str) -> Option<Arc<Target>> {
        let (endpoint, upstream) = name.split_once('/').filter(|(_, upstream)| !upstream.is_empty())?;
        let direct = direct_target(self.endpoint(endpoint)?, upstream);
        // It costs the same under whatever name it is asked for.
        let same = |model: &&Arc<Target>| model.endpoint.name == endpoint && model.upstream == upstream;
        let price = self.models.iter().find(same).and_then(|model| model.price.clone());
        Some(Arc::new(Target { price, ..direct }))
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

    /// The preset called `name`, of those in the file.
    #[must_use]
    pub fn preset(&self, name: &str) -> Option<&Preset> {
        self.presets.iter().find(|preset| preset.name == name)
    }

    /// Every name that can be asked for: models, routes and sets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let models = self.models.iter().map(|model| model.id.0.as_str());
        let routes = self.routes.iter().map(|route| route.name.as_str());
        models.chain(routes).chain(self.sets.iter().map(|set| set.name.as_str()))
    }
}
