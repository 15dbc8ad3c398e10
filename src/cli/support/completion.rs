//! Completes names in the shell: from the config, and from the cached model lists of endpoints.
//!
//! Sends no requests, because a key press must not wait. Does not validate the config: names are completed even when
//! references in it are broken.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap_complete::{ArgValueCompleter, CompletionCandidate, engine::ValueCompleter};
use strum::VariantNames as _;
use url::Url;

use super::context::{extend_with_new, preset_file_names, preset_folder, read_text_file};
use crate::{
    config::{Flags, Names, ResolvedSettings, from_environment, vendors},
    model::{environment::Environment, sanitize::is_invisible},
    render::{Format, compare::View},
    store,
};

/// The kind of names that an argument accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CompletionKind {
    /// Models, routes and `endpoint/id`, as in `ask -m`.
    ModelsAndRoutes,
    /// Models, routes, `endpoint/id` and sets, joined with commas, as in `compare -m`.
    ModelsRoutesAndSets,
    /// Models of the config.
    Models,
    Sets,
    /// Tags of models.
    Tags,
    Presets,
    Endpoints,
    /// Endpoints, models and routes.
    EndpointsAndModels,
    /// Known vendors.
    Vendors,
    /// Output formats.
    Formats,
    /// Views of `compare`.
    Views,
}

impl CompletionKind {
    /// The completer for `#[arg(add = …)]`.
    pub(crate) fn completer(self) -> ArgValueCompleter {
        ArgValueCompleter::new(self)
    }

    fn candidates(self, prefix: &str) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        match self {
            Self::Vendors => return vendors::all().iter().map(|vendor| vendor.name.clone()).collect(),
            Self::Formats => return owned(Format::VARIANTS),
            Self::Views => return owned(View::VARIANTS),
            _ => {}
        }
        let Some(data) = CompletionData::load() else { return Vec::new() };
        let chain = |mut names: Vec<String>, more: &[String]| {
            extend_with_new(&mut names, more);
            names
        };
        match self {
            Self::ModelsAndRoutes => data.models_and_routes(prefix),
            Self::ModelsRoutesAndSets => chain(data.models_and_routes(prefix), &data.names.sets),
            Self::Models => data.names.models,
            Self::Sets => data.names.sets,
            Self::Tags => data.names.tags,
            Self::Presets => {
                let files = preset_folder(&data.settings).map(|folder| preset_file_names(&folder)).unwrap_or_default();
                chain(data.names.presets, &files)
            }
            Self::Endpoints => data.endpoint_names(),
            Self::EndpointsAndModels => chain(chain(data.endpoint_names(), &data.names.models), &data.names.routes),
            Self::Vendors | Self::Formats | Self::Views => Vec::new(),
        }
    }
}

impl ValueCompleter for CompletionKind {
    fn complete(&self, typed: &OsStr) -> Vec<CompletionCandidate> {
        let typed = unquoted(typed.to_str().unwrap_or_default());
        let comma = matches!(self, Self::ModelsRoutesAndSets).then(|| typed.rfind(',')).flatten();
        let (before, last) = comma.map_or(("", typed.as_str()), |comma| typed.split_at(comma + 1));
        // Names come from services, too: what cannot be seen must not get into a command line.
        let is_offered = |name: &String| name.starts_with(last) && !name.chars().any(is_invisible);
        let names = self.candidates(last).into_iter().filter(is_offered);
        names.map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
    }
}

/// A typed word without its quotes.
fn unquoted(word: &str) -> String {
    let mut chars = word.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '\'' | '"' => {}
            c => out.push(c),
        }
    }
    out
}

/// The names that can be completed on this machine.
struct CompletionData {
    environment: Environment,
    settings: ResolvedSettings,
    names: Names,
}

impl CompletionData {
    fn load() -> Option<Self> {
        let environment = Environment::from_process();
        let flags = Flags { config: config_argument(std::env::args_os()), ..Flags::default() };
        let settings = ResolvedSettings::new(&environment, &flags).ok()?;
        let paths = [&settings.system_config.value, &settings.config.value];
        let texts = paths.into_iter().flatten().filter_map(|path| read_text_file(path).ok());
        let names = texts.map(|text| Names::parse_lenient(&text)).reduce(Names::merge);
        let names = names.unwrap_or_else(|| names_from_environment(&environment));
        Some(Self { environment, settings, names })
    }

    /// Models, routes and endpoints; after a slash, the cached model list of the endpoint.
    fn models_and_routes(&self, prefix: &str) -> Vec<String> {
        if let Some((endpoint, _)) = prefix.split_once('/') {
            return self.listed_models(endpoint).into_iter().map(|id| format!("{endpoint}/{id}")).collect();
        }
        let endpoints = self.endpoint_names().into_iter().map(|name| format!("{name}/"));
        self.names.models.iter().chain(&self.names.routes).cloned().chain(endpoints).collect()
    }

    fn endpoint_names(&self) -> Vec<String> {
        self.names.endpoints.iter().map(|(name, _)| name.clone()).collect()
    }

    fn listed_models(&self, endpoint: &str) -> Vec<String> {
        let configured =
            self.names.endpoints.iter().find(|(name, _)| name == endpoint).and_then(|(_, base_url)| base_url.clone());
        let configured = configured.and_then(|base_url| Url::parse(&base_url).ok());
        let default = || vendors::by_name(endpoint)?.effective_base_url(&self.environment).ok();
        let base_url = configured.or_else(default);
        match (store::cache_folder(&self.environment), base_url) {
            (Some(cache), Some(base_url)) => store::list_cache::read(&cache, endpoint, base_url.as_str()),
            _ => Vec::new(),
        }
    }
}

/// The value of `--config` on the command line that is being completed.
fn config_argument(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    // The words of the command line follow the `--` of the shell's completion request.
    let mut words = arguments.skip_while(|argument| argument != "--");
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--config") => return words.next().map(PathBuf::from),
            Some(word) if word.starts_with("--config=") => return word.strip_prefix("--config=").map(PathBuf::from),
            _ => {}
        }
    }
    None
}

/// The names without a config file: the services whose key variables are set.
fn names_from_environment(environment: &Environment) -> Names {
    let config = from_environment(environment).unwrap_or_default();
    Names {
        endpoints: config
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.name.clone(), Some(endpoint.base_url.to_string())))
            .collect(),
        models: config.models.iter().map(|model| model.id.0.clone()).collect(),
        ..Names::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_typed_words_are_removed() {
        assert_eq!(unquoted(r#"ev/x\$\("a b"'c'"#), "ev/x$(a bc");
    }
}
