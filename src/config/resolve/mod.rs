//! From the file's shape to a [`Config`] in which every name leads somewhere.
//!
//! Owns the checks (those of endpoints are in `endpoint`) and collects every problem before it gives up, so that a file is mended in one go. Refuses I/O:
//! the text comes from the caller.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

mod endpoint;
mod model;
mod route;
mod serve;
mod spend;

use endpoint::bare_endpoint;
pub use endpoint::{base_url, in_folder, path_of};
pub(super) use model::params;

use super::{
    Config, ConfigError, Preset, Problem, RoundContext, Set,
    error::SourceFile,
    file::ConfigFile,
    names::{forbidden, normalised},
    preset,
    values::{At, Table},
    vendors,
};
use crate::model::{
    Params,
    api_key::KeySource,
    endpoint::Endpoint,
    environment::Environment,
    target::{DecodeOptions, Target, TargetId},
};

/// Checks the text of the file at `path`.
pub fn resolve(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let source = SourceFile::new(&path.display().to_string(), text);
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    let file: ConfigFile = toml::from_str(text).map_err(|error| invalid(vec![syntax(&source, &error)]))?;
    let mut resolver = Resolver {
        source,
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        problems: Vec::new(),
        config: Config { path: Some(path.to_owned()), ..Config::default() },
    };
    resolver.file(&file);
    if resolver.problems.is_empty() { Ok(resolver.config) } else { Err(invalid(resolver.problems)) }
}

/// The configuration without a file: every vendor, with the keys the environment holds, and its usual model. The first
/// vendor with a key is the default.
pub fn from_environment(environment: &Environment) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    for vendor in vendors::all() {
        let key = vendor.key_variable(environment);
        if key.is_none() && !vendor.key_env.is_empty() {
            continue;
        }
        let keys = key.map(|name| KeySource::Env(name.to_owned())).into_iter().collect();
        let endpoint = Arc::new(Endpoint { keys, ..bare_endpoint(&vendor.name, vendor.address(environment)?) });
        config.endpoints.push(Arc::clone(&endpoint));
        let Some(model) = vendor.model.as_ref().filter(|_| key.is_some()) else { continue };
        config.models.push(Arc::new(direct_target(&endpoint, model)));
        if config.default.is_none() {
            config.default = Some(format!("{}/{model}", vendor.name));
        }
    }
    Ok(config)
}

/// The target for a model that has no entry: `endpoint/upstream-id`.
#[must_use]
pub fn direct_target(endpoint: &Arc<Endpoint>, upstream: &str) -> Target {
    Target {
        id: TargetId(format!("{}/{upstream}", endpoint.name)),
        reasons: vendors::at(&endpoint.base_url).is_some_and(|vendor| vendor.reasons(upstream)),
        timeouts: endpoint.timeouts,
        endpoint: Arc::clone(endpoint),
        upstream: upstream.to_owned(),
        params: Params::default(),
        price: None,
        context: None,
        tags: Vec::new(),
        decode: DecodeOptions::default(),
        images: None,
        tools: None,
    }
}

/// What the TOML reader says, with the nearest valid key.
pub(super) fn syntax(source: &SourceFile, error: &toml::de::Error) -> Problem {
    let message = error.message().trim_end();
    let at = error.span().unwrap_or(0..0);
    let problem = Problem::new(source, message.lines().next().unwrap_or("not TOML"), at.clone());
    if message.starts_with("duplicate key") {
        return match first_of_its_kind(source.text(), at.start) {
            Some(first) => problem.label("again here").also(first, "first here").help("remove or rename one of them"),
            None => problem,
        };
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(wrong) if message.starts_with("unknown") => {
            let valid: Vec<&str> = quoted.collect();
            problem.label("not a key of this table").nearest(wrong, valid.into_iter())
        }
        _ => problem,
    }
}

/// The first line that defines the same table or key as the line at `at`.
fn first_of_its_kind(text: &str, at: usize) -> Option<Range<usize>> {
    let defines = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let wanted = defines(text[start..].lines().next()?);
    let mut from = 0;
    // A key belongs to the nearest table above it: the search begins there.
    if !wanted.starts_with('[') {
        from = text[..start].rfind("\n[").map_or(0, |line| line + 1);
    }
    let mut place = from;
    for line in text[from..start].split_inclusive('\n') {
        if defines(line) == wanted {
            return Some(place..place + line.trim_end().len());
        }
        place += line.len();
    }
    None
}

struct Resolver {
    source: SourceFile,
    folder: PathBuf,
    problems: Vec<Problem>,
    config: Config,
}

impl Resolver {
    fn file(&mut self, file: &ConfigFile) {
        self.names(file);
        for (name, entry) in &file.endpoints.0 {
            self.endpoint(name, entry);
        }
        for (name, entry) in &file.models.0 {
            self.model(name, entry);
        }
        for (name, entry) in &file.routes.0 {
            self.route(name, entry);
        }
        for (name, members) in &file.sets.0 {
            self.set(name, members);
        }
        for (name, entry) in &file.presets.0 {
            let model = entry.model.as_ref().map(|model| self.askable(model, "this preset"));
            self.problems.extend(preset::problems(&self.source, entry));
            self.config.presets.push(Preset { model, ..Preset::new(&normalised(&name.value), entry) });
        }
        self.spend(&file.spend);
        self.history(file);
        self.serve(&file.serve);
        self.config.default = file.default.as_ref().map(|name| self.askable(name, "`default`"));
        let context = file.context.as_ref();
        self.config.context =
            context.and_then(|word| self.one_of("context", word, &RoundContext::NAMES)).unwrap_or_default();
        self.config.compare = file.compare.as_ref().map(|name| self.comparable(name));
    }

    fn problem(&mut self, message: impl Into<String>, at: &Range<usize>) -> &mut Problem {
        self.problems.push(Problem::new(&self.source, message, at.clone()));
        self.problems.last_mut().expect("one was pushed")
    }

    fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Models, routes and sets share one name space; every name keeps the rule.
    fn names(&mut self, file: &ConfigFile) {
        fn keys<T>(table: &Table<T>) -> impl Iterator<Item = &At<String>> {
            table.0.iter().map(|(name, _)| name)
        }
        let mut seen: HashMap<String, (&str, Range<usize>)> = HashMap::new();
        let shared = [
            ("model", keys(&file.models).collect::<Vec<_>>()),
            ("route", keys(&file.routes).collect()),
            ("set", keys(&file.sets).collect()),
        ];
        for (kind, names) in &shared {
            for name in names {
                let first = seen.insert(normalised(&name.value), (kind, name.span.clone()));
                if let Some((other, at)) = first {
                    let message = format!("`{}` is the name of a {other} and of a {kind}", name.value);
                    let problem = Problem::new(&self.source, message, name.span.clone());
                    self.push(
                        problem
                            .label(format!("the {kind}"))
                            .also(at, format!("the {other}"))
                            .help("rename one of them"),
                    );
                }
            }
        }
        let endpoints: Vec<_> = keys(&file.endpoints).collect();
        let presets: Vec<_> = keys(&file.presets).collect();
        let clients: Vec<_> = keys(&file.serve.keys).collect();
        let others = endpoints.iter().chain(&presets).chain(&clients);
        for name in shared.iter().flat_map(|(_, names)| names).chain(others) {
            let wrong = match forbidden(&name.value) {
                _ if name.value.is_empty() => "a name cannot be empty".to_owned(),
                Some(c) => format!("a name cannot have {c:?} in it"),
                None => continue,
            };
            self.problem(wrong, &name.span).help =
                Some("names are letters of any script, digits, `.`, `_` and `-`".into());
        }
    }

    /// A currency's code, whose case nobody means anything by.
    fn currency(&mut self, code: &At<String>) -> String {
        let upper = code.value.to_uppercase();
        if upper.len() != 3 || !upper.bytes().all(|c| c.is_ascii_uppercase()) {
            self.problem(format!("`{}` is no currency", code.value), &code.span).help =
                Some("write its ISO 4217 code, such as USD, EUR or CNY".into());
        }
        upper
    }

    fn one_of<T: Copy>(&mut self, key: &str, word: &At<String>, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(name, _)| *name == word.value).map(|&(_, value)| value);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|&(name, _)| name).collect();
            self.problem(format!("{key} cannot be `{}`", word.value), &word.span).help =
                Some(format!("known: {}", names.join(", ")));
        }
        found
    }

    /// A model's target, or that of `endpoint/id`.
    fn target(&mut self, wanted: &At<String>, by: &str) -> Option<Arc<Target>> {
        let name = normalised(&wanted.value);
        if let Some(model) = self.config.model(&name) {
            return Some(Arc::clone(model));
        }
        if let Some(target) = self.config.direct(&name) {
            return Some(target);
        }
        if self.config.route(&name).is_some() {
            let problem = Problem::new(&self.source, format!("`{name}` is a route"), wanted.span.clone());
            self.push(problem.label(format!("asked for by {by}")).help("name its models: routes do not hold routes"));
            return None;
        }
        let problem = Problem::new(&self.source, format!("unknown model `{name}`"), wanted.span.clone());
        let known = self.config.models.iter().map(|model| model.id.0.as_str());
        self.problems.push(problem.label(format!("asked for by {by}")).nearest(&name, known));
        None
    }

    fn set(&mut self, name: &At<String>, members: &[At<String>]) {
        if members.is_empty() {
            self.problem(format!("set `{}` has no models", name.value), &name.span);
        }
        let by = format!("set `{}`", name.value);
        let members = members.iter().map(|member| self.askable(member, &by)).collect();
        self.config.sets.push(Set { name: normalised(&name.value), members });
    }

    /// A name that gives one answer: a model, a route or `endpoint/id`.
    fn askable(&mut self, wanted: &At<String>, by: &str) -> String {
        let name = normalised(&wanted.value);
        if self.config.set(&name).is_some() {
            let problem =
                Problem::new(&self.source, format!("`{name}` is a set: it gives several answers"), wanted.span.clone());
            self.push(problem.label(format!("used by {by}")).help("name a model or a route"));
        } else if self.config.route(&name).is_none() {
            self.target(wanted, by);
        }
        name
    }

    fn comparable(&mut self, wanted: &At<String>) -> String {
        let name = normalised(&wanted.value);
        if self.config.set(&name).is_none() {
            let problem = Problem::new(&self.source, format!("unknown set `{name}`"), wanted.span.clone());
            let problem = problem.label("`compare` names a set");
            let problem = problem.nearest(&name, self.config.sets.iter().map(|set| set.name.as_str()));
            self.push(problem);
        }
        name
    }
}

#[cfg(test)]
mod tests;
