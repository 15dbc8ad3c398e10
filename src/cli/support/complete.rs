//! Names for the shell to complete: what the config has, and what endpoints listed when they were last asked.
//!
//! Owns which names fit which flag. Asks nobody and checks nothing: a key press must not wait, and a config with names
//! that lead nowhere still has names.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap_complete::{ArgValueCompleter, CompletionCandidate, engine::ValueCompleter};
use url::Url;

use super::context::{preset_files, preset_folder, text_of};
use crate::{
    config::{Flags, Layers, Names, from_environment, vendors},
    model::environment::Environment,
    render::{FORMATS, compare::VIEWS},
    store,
};

/// What fits a flag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offer {
    /// What `ask` takes: models, routes, `endpoint/id`.
    Askable,
    /// What `compare` takes, several joined with commas: also sets.
    Comparable,
    /// Models that have an entry.
    Models,
    /// Sets.
    Sets,
    /// Labels of models.
    Tags,
    /// Presets.
    Presets,
    /// Endpoints.
    Endpoints,
    /// Endpoints, models and routes.
    Reachable,
    /// Known services.
    Vendors,
    /// Formats of the data.
    Formats,
    /// Arrangements of several answers.
    Views,
}

impl Offer {
    /// For `#[arg(add = …)]`.
    pub(crate) fn completer(self) -> ArgValueCompleter {
        ArgValueCompleter::new(self)
    }

    fn names(self, begun: &str) -> Vec<String> {
        let words = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        match self {
            Self::Vendors => return vendors::all().iter().map(|vendor| vendor.name.clone()).collect(),
            Self::Formats => return words(&FORMATS.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
            Self::Views => return words(&VIEWS.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
            _ => {}
        }
        let Some(found) = Found::read() else { return Vec::new() };
        let chain = |mut names: Vec<String>, more: &[String]| {
            names.extend_from_slice(more);
            names
        };
        match self {
            Self::Askable => found.askable(begun),
            Self::Comparable => chain(found.askable(begun), &found.names.sets),
            Self::Models => found.names.models,
            Self::Sets => found.names.sets,
            Self::Tags => found.names.tags,
            Self::Presets => {
                let files = preset_folder(&found.layers).map(|folder| preset_files(&folder)).unwrap_or_default();
                chain(found.names.presets, &files)
            }
            Self::Endpoints => found.endpoints(),
            Self::Reachable => chain(chain(found.endpoints(), &found.names.models), &found.names.routes),
            Self::Vendors | Self::Formats | Self::Views => Vec::new(),
        }
    }
}

impl ValueCompleter for Offer {
    fn complete(&self, begun: &OsStr) -> Vec<CompletionCandidate> {
        let begun = begun.to_str().unwrap_or_default();
        let comma = matches!(self, Self::Comparable).then(|| begun.rfind(',')).flatten();
        let (before, last) = comma.map_or(("", begun), |comma| begun.split_at(comma + 1));
        let names = self.names(last).into_iter().filter(|name| name.starts_with(last));
        names.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
    }
}

/// What there is on this machine.
struct Found {
    environment: Environment,
    layers: Layers,
    names: Names,
}

impl Found {
    fn read() -> Option<Self> {
        let environment = Environment::of_process();
        let flags = Flags { config: named_config(std::env::args_os()), ..Flags::default() };
        let layers = Layers::new(&environment, &flags).ok()?;
        let text = layers.config.value.as_deref().and_then(|path| text_of(path).ok());
        let names = text.map_or_else(|| of_environment(&environment), |text| Names::of(&text));
        Some(Self { environment, layers, names })
    }

    /// Models, routes, and for a name with a slash what its endpoint listed.
    fn askable(&self, begun: &str) -> Vec<String> {
        if let Some((endpoint, _)) = begun.split_once('/') {
            return self.listed(endpoint).into_iter().map(|id| format!("{endpoint}/{id}")).collect();
        }
        let endpoints = self.endpoints().into_iter().map(|name| format!("{name}/"));
        self.names.models.iter().chain(&self.names.routes).cloned().chain(endpoints).collect()
    }

    fn endpoints(&self) -> Vec<String> {
        self.names.endpoints.iter().map(|(name, _)| name.clone()).collect()
    }

    fn listed(&self, endpoint: &str) -> Vec<String> {
        let address = self.names.endpoints.iter().find(|(name, _)| name == endpoint).and_then(|(_, at)| at.clone());
        let known = || vendors::named(endpoint).map(|vendor| vendor.base_url.clone());
        let address = address.or_else(known).and_then(|address| Url::parse(&address).ok());
        match (store::cache_folder(&self.environment), address) {
            (Some(cache), Some(address)) => store::list_cache::read(&cache, endpoint, address.as_str()),
            _ => Vec::new(),
        }
    }
}

/// The config of the command line that is being completed.
fn named_config(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut words = words.skip_while(|word| word != "--");
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--config") => return words.next().map(PathBuf::from),
            Some(word) if word.starts_with("--config=") => return word.strip_prefix("--config=").map(PathBuf::from),
            _ => {}
        }
    }
    None
}

/// What there is without a config: the services whose keys are set.
fn of_environment(environment: &Environment) -> Names {
    let config = from_environment(environment).unwrap_or_default();
    Names {
        endpoints: config
            .endpoints
            .iter()
            .map(|known| (known.name.clone(), Some(known.base_url.to_string())))
            .collect(),
        models: config.models.iter().map(|model| model.id.0.clone()).collect(),
        ..Names::default()
    }
}
