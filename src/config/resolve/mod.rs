//! Validates the deserialized config files and builds a [`Config`] in which every name is defined.
//!
//! Reports all problems at once, so that a file can be fixed in one pass.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    str::FromStr,
    sync::Arc,
};

use strum::VariantNames;

mod endpoint;
mod model;
mod policies;
mod route;
mod serve;
mod spend;

pub(crate) use endpoint::exposed_key_warning;
pub(crate) use endpoint::resolve_config_path;
use endpoint::{default_endpoint, key_warnings};

use super::{
    Config, ConfigError, Preset, Problem, Set,
    file::ConfigFile,
    names::{NameKind, name_problem, normalize_name},
    parse::MAX_ERRORS,
    preset,
    source::SourceMap,
    values::{OrderedTable, Spanned},
    vendors,
};
use crate::model::{
    Params,
    api_key::KeySource,
    endpoint::Endpoint,
    environment::Environment,
    target::{DecodeOptions, Target, TargetId},
};

/// Validates `file`. `skipped_names`: names of entries that have errors and are missing in `file`.
pub(super) fn resolve_file(
    file: &ConfigFile,
    source: SourceMap,
    environment: &Environment,
    skipped_names: Vec<String>,
) -> (Config, Vec<Problem>) {
    let environment = environment.clone();
    let mut resolver = Resolver { source, environment, skipped_names, problems: Vec::new(), config: Config::default() };
    resolver.resolve_file(file);
    (resolver.config, resolver.problems)
}

/// The configuration without a file: the vendors with a key in the environment, with their default models, and the
/// vendors that need no key. The first vendor with a key is the default.
pub(crate) fn from_environment(environment: &Environment) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for vendor in vendors::all() {
        let key = vendor.key_variable(environment);
        if key.is_none() && !vendor.key_env.is_empty() {
            continue;
        }
        let keys = key.map(|name| KeySource::Env(name.to_owned())).into_iter().collect();
        let endpoint =
            Arc::new(Endpoint { keys, ..default_endpoint(&vendor.name, vendor.effective_base_url(environment)?) });
        config.warnings.extend(key_warnings(&endpoint));
        config.endpoints.push(Arc::clone(&endpoint));
        let Some(model) = vendor.model.as_ref().filter(|_| key.is_some()) else { continue };
        config.models.push(Arc::new(direct_target(&endpoint, model)));
        if config.default.is_none() {
            config.default = Some(format!("{}/{model}", vendor.name));
        }
    }
    Ok(config)
}

/// The target of `endpoint/id`, for a model without an entry.
#[must_use]
pub(crate) fn direct_target(endpoint: &Arc<Endpoint>, upstream: &str) -> Target {
    Target {
        id: TargetId(format!("{}/{upstream}", endpoint.name)),
        is_reasoning: endpoint.reasoning_models.iter().any(|prefix| upstream.starts_with(prefix)),
        timeouts: endpoint.timeouts,
        endpoint: Arc::clone(endpoint),
        upstream_id: upstream.to_owned(),
        params: Params::default(),
        price: None,
        context_window: None,
        tags: Vec::new(),
        decode_options: DecodeOptions::default(),
        supports_images: None,
        supports_tools: None,
        workarounds: Vec::new(),
    }
}

struct Resolver {
    source: SourceMap,
    environment: Environment,
    /// Names of entries with errors that are already reported: references to them are not reported.
    skipped_names: Vec<String>,
    problems: Vec<Problem>,
    config: Config,
}

/// The size in bytes of a config key in MiB.
fn bytes_of_mebibytes(mebibytes: u32) -> usize {
    (mebibytes as usize).saturating_mul(1024 * 1024)
}

impl Resolver {
    fn resolve_file(&mut self, file: &ConfigFile) {
        self.check_names(file);
        for (name, entry) in &file.endpoints.0 {
            self.add_endpoint(name, entry);
        }
        for (name, entry) in &file.models.0 {
            self.add_model(name, entry);
        }
        for (name, entry) in &file.routes.0 {
            self.add_route(name, entry);
        }
        for (name, members) in &file.sets.0 {
            self.add_set(name, members);
        }
        for (name, entry) in &file.presets.0 {
            let model = entry.model.as_ref().map(|model| self.check_model_or_route(model, "this preset"));
            self.problems.extend(preset::template_problems(&self.source, entry));
            self.config.presets.push(Preset { model, ..Preset::new(&normalize_name(&name.value), entry) });
        }
        self.resolve_spend(&file.spend);
        self.resolve_history(file);
        self.resolve_serve(&file.serve);
        self.resolve_policies(file);
        self.config.default = file.default.as_ref().map(|name| self.check_model_or_route(name, "`default`"));
        let context = file.context.as_ref();
        self.config.context = context.and_then(|keyword| self.parse_keyword("context", keyword)).unwrap_or_default();
        self.config.compare = file.compare.as_ref().map(|name| self.check_set(name));
    }

    fn add_problem(&mut self, message: impl Into<String>, span: &Range<usize>) -> &mut Problem {
        // Beyond the limit, the last problem is replaced.
        self.problems.truncate(MAX_ERRORS - 1);
        self.problems.push(Problem::new(&self.source, message, span.clone()));
        self.problems.last_mut().expect("a problem was just pushed")
    }

    fn push_problem(&mut self, problem: Problem) {
        // Rendering a problem reads the file, so a file with many problems would take long.
        if self.problems.len() < MAX_ERRORS {
            self.problems.push(problem);
        }
    }

    /// Adds a problem with a reference to `name`, unless the entry with this name has errors of its own.
    fn push_unknown_name(&mut self, name: &str, problem: Problem) {
        let entry = name.split('/').next().unwrap_or(name);
        if !self.skipped_names.iter().any(|skipped| skipped == name || skipped == entry) {
            self.push_problem(problem);
        }
    }

    /// Checks all names: models, routes and sets share one namespace, and every name must be valid.
    fn check_names(&mut self, file: &ConfigFile) {
        fn keys<T>(table: &OrderedTable<T>) -> impl Iterator<Item = &Spanned<String>> {
            table.0.iter().map(|(name, _)| name)
        }
        let mut definitions: HashMap<String, (&str, Range<usize>)> = HashMap::new();
        let shared_namespace = [
            ("model", keys(&file.models).collect::<Vec<_>>()),
            ("route", keys(&file.routes).collect()),
            ("set", keys(&file.sets).collect()),
        ];
        for (kind, names) in &shared_namespace {
            for name in names {
                let previous = definitions.insert(normalize_name(&name.value), (kind, name.span.clone()));
                if let Some((other_kind, other_span)) = previous {
                    let message = format!("\"{}\" is the name of both a {other_kind} and a {kind}", name.value);
                    let problem = Problem::new(&self.source, message, name.span.clone());
                    self.push_problem(
                        problem
                            .with_primary_label(format!("the {kind}"))
                            .with_secondary_label(other_span, format!("the {other_kind}"))
                            .help("rename one of them"),
                    );
                }
            }
        }
        for (kind, names) in [
            ("endpoint", keys(&file.endpoints).collect::<Vec<_>>()),
            ("preset", keys(&file.presets).collect()),
            ("client key", keys(&file.serve.keys).collect()),
        ] {
            let mut known = HashSet::new();
            for name in names.into_iter().filter(|name| !known.insert(normalize_name(&name.value))) {
                self.add_problem(format!("there are two of {kind} \"{}\"", name.value), &name.span).help =
                    Some("rename one of them".into());
            }
        }
        let endpoints: Vec<_> = keys(&file.endpoints).collect();
        let presets: Vec<_> = keys(&file.presets).collect();
        let clients: Vec<_> = keys(&file.serve.keys).collect();
        let others = endpoints.iter().chain(&presets).chain(&clients).map(|name| (NameKind::Other, *name));
        let models = shared_namespace.iter().flat_map(|(_, names)| names).map(|name| (NameKind::Model, *name));
        for (kind, name) in models.chain(others).collect::<Vec<_>>() {
            let Some(message) = name_problem(kind, &name.value) else { continue };
            self.add_problem(message, &name.span).help = Some(match kind {
                NameKind::Model => "use visible characters without `,` and `=`".into(),
                NameKind::Other => "use letters of any script, digits, `.`, `_` and `-`".into(),
            });
        }
        for (kind, names) in &shared_namespace {
            for name in names {
                self.warn_of_ambiguous_name(kind, &name.value, &endpoints);
            }
        }
    }

    /// Warns of a name that could also mean a model of an endpoint.
    fn warn_of_ambiguous_name(&mut self, kind: &str, name: &str, endpoints: &[&Spanned<String>]) {
        let name = normalize_name(name);
        let endpoint = name.split_once('/').map(|(endpoint, _)| endpoint);
        if endpoint.is_some_and(|endpoint| endpoints.iter().any(|known| normalize_name(&known.value) == endpoint)) {
            let endpoint = endpoint.unwrap_or_default();
            let warning = format!("\"{name}\" is the {kind}, and not a model of endpoint \"{endpoint}\"");
            self.config.warnings.push(warning);
        }
    }

    /// Checks a currency code; case is ignored.
    fn currency_code(&mut self, code: &Spanned<String>) -> String {
        let upper = code.value.to_uppercase();
        if upper.len() != 3 || !upper.bytes().all(|c| c.is_ascii_uppercase()) {
            self.add_problem(format!("invalid currency \"{}\"", code.value), &code.span).help =
                Some("use an ISO 4217 code such as USD, EUR or CNY".into());
        }
        upper
    }

    fn parse_keyword<T: FromStr + VariantNames>(&mut self, key: &str, keyword: &Spanned<String>) -> Option<T> {
        let value = keyword.value.parse().ok();
        if value.is_none() {
            self.add_invalid_keyword(key, keyword, T::VARIANTS);
        }
        value
    }

    fn add_invalid_keyword(&mut self, key: &str, keyword: &Spanned<String>, valid: &[&str]) {
        self.add_problem(format!("invalid {key} \"{}\"", keyword.value), &keyword.span).help =
            Some(format!("available: {}", valid.join(", ")));
    }

    /// The target of a model or of `endpoint/id`.
    fn find_target(&mut self, reference: &Spanned<String>, used_by: &str) -> Option<Arc<Target>> {
        let name = normalize_name(&reference.value);
        if let Some(model) = self.config.model(&name) {
            return Some(Arc::clone(model));
        }
        if let Some(target) = self.config.direct_model(&name) {
            return Some(target);
        }
        if self.config.route(&name).is_some() {
            let problem = Problem::new(&self.source, format!("\"{name}\" is a route"), reference.span.clone());
            self.push_problem(
                problem
                    .with_primary_label(format!("used by {used_by}"))
                    .help("list its models instead; a route cannot contain routes"),
            );
            return None;
        }
        let problem = Problem::new(&self.source, format!("unknown model \"{name}\""), reference.span.clone());
        let known = self.config.models.iter().map(|model| model.id.0.as_str());
        let problem = problem.with_primary_label(format!("used by {used_by}")).with_suggestion(&name, known);
        self.push_unknown_name(&name, problem);
        None
    }

    fn add_set(&mut self, name: &Spanned<String>, members: &[Spanned<String>]) {
        if members.is_empty() {
            self.add_problem(format!("set \"{}\" has no models", name.value), &name.span);
        }
        let used_by = format!("set \"{}\"", name.value);
        let members = members.iter().map(|member| self.check_model_or_route(member, &used_by)).collect();
        self.config.sets.push(Set { name: normalize_name(&name.value), members });
    }

    /// Checks a name that must give one answer: a model, a route or `endpoint/id`.
    fn check_model_or_route(&mut self, reference: &Spanned<String>, used_by: &str) -> String {
        let name = normalize_name(&reference.value);
        if self.config.set(&name).is_some() {
            let problem = Problem::new(
                &self.source,
                format!("\"{name}\" is a set, which gives several answers"),
                reference.span.clone(),
            );
            self.push_problem(problem.with_primary_label(format!("used by {used_by}")).help("use a model or a route"));
        } else if self.config.route(&name).is_none() {
            self.find_target(reference, used_by);
        }
        name
    }

    fn check_set(&mut self, reference: &Spanned<String>) -> String {
        let name = normalize_name(&reference.value);
        if self.config.set(&name).is_none() {
            let problem = Problem::new(&self.source, format!("unknown set \"{name}\""), reference.span.clone());
            let problem = problem.with_primary_label("`compare` must name a set");
            let problem = problem.with_suggestion(&name, self.config.sets.iter().map(|set| set.name.as_str()));
            self.push_unknown_name(&name, problem);
        }
        name
    }
}

#[cfg(test)]
mod tests;
