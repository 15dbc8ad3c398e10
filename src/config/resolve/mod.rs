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
mod spend;

use endpoint::bare_endpoint;
pub use endpoint::{base_url, path_of};

use super::{
    Config, ConfigError, Preset, Problem, Route, Set,
    error::SourceFile,
    file::{ConfigFile, ModelEntry, ParamsEntry, PriceEntry, RouteEntry, TimeoutsEntry},
    names::{forbidden, normalised},
    preset,
    values::{At, Table},
    vendors,
};
use crate::{
    chat::Params,
    endpoint::{Endpoint, Timeouts},
    environment::Environment,
    route::{OnCut, Policy, strategy::Strategy},
    secret::KeySource,
    target::{DecodeOptions, Price, Target, TargetId},
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
        self.config.default = file.default.as_ref().map(|name| self.askable(name, "`default`"));
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
        for name in shared.iter().flat_map(|(_, names)| names).chain(&endpoints).chain(&presets) {
            let wrong = match forbidden(&name.value) {
                _ if name.value.is_empty() => "a name cannot be empty".to_owned(),
                Some(c) => format!("a name cannot have {c:?} in it"),
                None => continue,
            };
            self.problem(wrong, &name.span).help =
                Some("names are letters of any script, digits, `.`, `_` and `-`".into());
        }
    }

    fn model(&mut self, name: &At<String>, entry: &ModelEntry) {
        let endpoint_name = normalised(&entry.endpoint.value);
        let Some(endpoint) = self.config.endpoint(&endpoint_name).cloned() else {
            let known = self.config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
            let problem =
                Problem::new(&self.source, format!("unknown endpoint `{endpoint_name}`"), entry.endpoint.span.clone());
            let problem = problem.label("no [endpoints] entry of this name").nearest(&endpoint_name, known);
            return self.push(problem);
        };
        if entry.model.value.is_empty() {
            self.problem("the upstream model's id is empty", &entry.model.span);
        }
        let mut target = direct_target(&endpoint, &entry.model.value);
        target.id = TargetId(normalised(&name.value));
        target.params = params(&entry.params);
        if let Some(ours) = ["model", "messages", "stream"].iter().find(|ours| entry.extra.contains_key(**ours)) {
            self.problem(format!("`extra` of model `{}` would replace `{ours}`", name.value), &name.span).help =
                Some("that is sent with every request; leave it out".into());
        }
        match serde_json::to_value(&entry.extra) {
            Ok(serde_json::Value::Object(extra)) => target.params.extra = extra,
            _ => {
                self.problem("`extra` holds a value JSON cannot express", &name.span);
            }
        }
        target.price = entry.price.as_ref().map(|price| self.price(price));
        target.context = entry.context;
        target.tags.clone_from(&entry.tags);
        target.timeouts = endpoint.timeouts.overlaid(timeouts(entry.timeouts));
        target.decode =
            DecodeOptions { think_prefilled: entry.think_prefilled, cumulative_deltas: entry.cumulative_deltas };
        for capability in &entry.capabilities {
            const KNOWN: [&str; 3] = ["reasoning", "images", "tools"];
            if !KNOWN.contains(&capability.value.as_str()) {
                let message = format!("unknown capability `{}`", capability.value);
                let problem = Problem::new(&self.source, message, capability.span.clone());
                self.push(problem.help(format!("known: {}", KNOWN.join(", "))));
            }
        }
        let has = |wanted: &str| entry.capabilities.iter().any(|capability| capability.value == wanted);
        target.images = (!entry.capabilities.is_empty()).then(|| has("images"));
        target.tools = (!entry.capabilities.is_empty()).then(|| has("tools"));
        target.reasons |= has("reasoning") || entry.tags.iter().any(|tag| tag == "reasoning");
        self.config.models.push(Arc::new(target));
    }

    fn price(&mut self, entry: &PriceEntry) -> Price {
        for part in [Some(&entry.input), Some(&entry.output), entry.cached_input.as_ref()].into_iter().flatten() {
            if !(part.value.is_finite() && part.value >= 0.0) {
                self.problem("a price is a number that is not negative", &part.span);
            }
        }
        Price {
            input: entry.input.value,
            output: entry.output.value,
            cached_input: entry.cached_input.as_ref().map(|price| price.value),
            currency: entry.currency.as_ref().map_or_else(|| "USD".into(), |code| self.currency(code)),
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

    fn route(&mut self, name: &At<String>, entry: &RouteEntry) {
        let strategy = entry.strategy.as_ref().and_then(|word| self.one_of("strategy", word, &Strategy::NAMES));
        let strategy = strategy.unwrap_or_default();
        if entry.models.is_empty() {
            self.problem(format!("route `{}` has no models", name.value), &name.span);
        }
        let (mut models, mut weights): (Vec<Arc<Target>>, Vec<u32>) = (Vec::new(), Vec::new());
        for member in &entry.models {
            let wanted = At { value: member.value.name.clone(), span: member.span.clone() };
            let Some(target) = self.target(&wanted, &format!("route `{}`", name.value)) else { continue };
            if models.iter().any(|known| known.id == target.id) {
                self.problem(format!("`{}` is in route `{}` twice", wanted.value, name.value), &wanted.span);
            }
            models.push(target);
            weights.push(member.value.weight.unwrap_or(1));
        }
        if !weights.is_empty() && weights.iter().all(|&weight| weight == 0) {
            self.problem(format!("all weights of route `{}` are 0", name.value), &name.span).help =
                Some("give at least one model a weight of 1 or more".into());
        }
        if strategy != Strategy::Weighted && entry.models.iter().any(|member| member.value.weight.is_some()) {
            self.config.warnings.push(format!(
                "route {}: weights are only for `strategy = \"weighted\"`, and it is `{}`",
                name.value,
                strategy.as_str()
            ));
        }
        if strategy == Strategy::Cheapest {
            self.comparable_prices(name, &models);
        }
        let on_cut = entry.on_cut.as_ref().and_then(|word| {
            let known = [("error", OnCut::Error), ("restart", OnCut::Restart), ("buffer", OnCut::Buffer)];
            self.one_of("on_cut", word, &known)
        });
        let on_filter = entry.on_filter.as_ref();
        let filter_goes_on = on_filter
            .and_then(|word| self.one_of("on_filter", word, &[("stop", false), ("next", true)]))
            .unwrap_or(false);
        let hedge_after = entry.hedge_after.map(|time| time.0);
        let policy = Policy { strategy, weights, sticky: entry.sticky, hedge_after };
        self.config.routes.push(Route { name: normalised(&name.value), policy, models, on_cut, filter_goes_on });
    }

    /// The money a route's models are paid in is one, where they are chosen by it.
    fn comparable_prices(&mut self, name: &At<String>, models: &[Arc<Target>]) {
        let mut currencies: Vec<&str> =
            models.iter().filter_map(|model| model.price.as_ref()).map(|price| price.currency.as_str()).collect();
        currencies.sort_unstable();
        currencies.dedup();
        if currencies.len() > 1 {
            let message = format!("route `{}` compares prices in {}", name.value, currencies.join(" and "));
            self.problem(message, &name.span).help = Some("give the prices of its models in one currency".into());
        }
        for model in models.iter().filter(|model| model.price.is_none()) {
            self.config.warnings.push(format!(
                "route {}: {} has no price, so the strategy `cheapest` asks it last",
                name.value, model.id
            ));
        }
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
        if let Some((endpoint, upstream)) = name.split_once('/')
            && let Some(endpoint) = self.config.endpoint(endpoint)
            && !upstream.is_empty()
        {
            return Some(Arc::new(direct_target(endpoint, upstream)));
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

fn timeouts(entry: Option<TimeoutsEntry>) -> Timeouts {
    let entry = entry.unwrap_or_default();
    Timeouts {
        connect: entry.connect.map(|time| time.0),
        first_token: entry.first_token.map(|time| time.0),
        idle: entry.idle.map(|time| time.0),
        total: entry.total.map(|time| time.0),
    }
}

pub(super) fn params(entry: &ParamsEntry) -> Params {
    Params {
        temperature: entry.temperature,
        top_p: entry.top_p,
        max_tokens: entry.max_tokens,
        seed: entry.seed,
        stop: entry.stop.clone(),
        reasoning_effort: entry.reasoning_effort.clone(),
        extra: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests;
