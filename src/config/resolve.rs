//! From the file's shape to a [`Config`] in which every name leads somewhere.
//!
//! Owns the checks and collects every problem before it gives up, so that a file is mended in one go. Refuses I/O:
//! the text comes from the caller.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderName;
use url::Url;

use super::{
    Config, ConfigError, Preset, Problem, Route, Set,
    error::SourceFile,
    file::{ConfigFile, EndpointEntry, ModelEntry, ParamsEntry, PriceEntry, RouteEntry, TimeoutsEntry},
    names::{forbidden, normalised},
    values::{At, KeyEntry, Table},
    vendors,
};
use crate::{
    chat::{Params, ProtocolId},
    endpoint::{ConnectOptions, Endpoint, Limits, Timeouts, is_loopback},
    environment::Environment,
    protocol::PROTOCOLS,
    route::{OnCut, strategy::Strategy},
    secret::{ApiKey, KeySource, masked_url},
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

/// The configuration without a file: every vendor, with the keys the environment holds. The first vendor with a key
/// is the default.
#[must_use]
pub fn from_environment(environment: &Environment) -> Config {
    let mut config = Config::default();
    for vendor in vendors::all() {
        let key = vendor.key_variable(environment);
        let Ok(url) = Url::parse(vendor.address(environment)) else {
            config.warnings.push(format!("the address of {} in the environment is no URL", vendor.title));
            continue;
        };
        let keys = key.map(|name| KeySource::Env(name.to_owned())).into_iter().collect();
        if key.is_some() || vendor.key_env.is_empty() {
            let endpoint = Endpoint { keys, ..bare_endpoint(&vendor.name, url) };
            config.endpoints.push(Arc::new(endpoint));
        }
        if let (Some(_), Some(model), None) = (key, &vendor.model, &config.default) {
            config.default = Some(format!("{}/{model}", vendor.name));
        }
    }
    config
}

/// An endpoint with nothing but its address, and what its vendor is known for.
fn bare_endpoint(name: &str, base_url: Url) -> Endpoint {
    let vendor = vendors::at(&base_url);
    Endpoint {
        name: name.to_owned(),
        protocol: ProtocolId("openai"),
        keys: Vec::new(),
        headers: Vec::new(),
        connect: ConnectOptions {
            loopback: is_loopback(&base_url),
            tls: base_url.scheme() == "https",
            ..ConnectOptions::default()
        },
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        gateway: vendor.is_some_and(|vendor| vendor.gateway),
        no_stream_options: vendor.is_some_and(|vendor| vendor.no_stream_options),
        gzip: false,
        base_url,
    }
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
    }
}

/// What the TOML reader says, with the nearest valid key.
fn syntax(source: &SourceFile, error: &toml::de::Error) -> Problem {
    let message = error.message().trim_end();
    let problem = Problem::new(source, message.lines().next().unwrap_or("not TOML"), error.span().unwrap_or(0..0));
    let mut quoted = message.split('`').skip(1).step_by(2);
    match quoted.next() {
        Some(wrong) if message.starts_with("unknown") => {
            let valid: Vec<&str> = quoted.collect();
            problem.label("not a key of this table").nearest(wrong, valid.into_iter())
        }
        _ => problem,
    }
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
            self.config.presets.push(Preset {
                name: normalised(&name.value),
                system: entry.system.clone(),
                model,
                prompt: entry.prompt.clone(),
            });
        }
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

    fn endpoint(&mut self, name: &At<String>, entry: &EndpointEntry) {
        let Some(base_url) = self.base_url(name, entry) else { return };
        let name = normalised(&name.value);
        let mut endpoint = bare_endpoint(&name, base_url);
        if let Some(protocol) = &entry.protocol {
            let ids: Vec<(&str, ProtocolId)> = PROTOCOLS.iter().map(|known| (known.id().0, known.id())).collect();
            endpoint.protocol = self.one_of("protocol", protocol, &ids).unwrap_or(endpoint.protocol);
        }
        if let (Some(one), Some(several)) = (&entry.api_key, entry.api_keys.as_ref().and_then(|keys| keys.first())) {
            let problem = Problem::new(&self.source, "both `api_key` and `api_keys` are set", one.span.clone());
            self.push(problem.also(several.span.clone(), "and here").help("keep one of them"));
        }
        let keys = entry.api_key.iter().chain(entry.api_keys.iter().flatten());
        endpoint.keys = keys.filter_map(|key| self.key(key)).collect();
        for (header, value) in &entry.headers.0 {
            match header.value.parse::<HeaderName>() {
                Ok(header) => endpoint.headers.extend(self.key(value).map(|source| (header, source))),
                Err(_) => {
                    self.problem(format!("`{}` is no header name", header.value), &header.span);
                }
            }
        }
        endpoint.timeouts = timeouts(entry.timeouts);
        endpoint.limits = self.limits(entry);
        endpoint.connect.timeout = endpoint.timeouts.connect;
        endpoint.connect.proxy = entry.proxy.as_ref().and_then(|proxy| self.proxy(proxy));
        endpoint.connect.ca_file = entry.ca_file.as_ref().map(|path| self.path(&path.value));
        endpoint.gateway = entry.gateway.unwrap_or(endpoint.gateway);
        endpoint.gzip = entry.gzip.unwrap_or(false);
        self.config.endpoints.push(Arc::new(endpoint));
    }

    fn base_url(&mut self, name: &At<String>, entry: &EndpointEntry) -> Option<Url> {
        let Some(written) = &entry.base_url else {
            let vendor = vendors::all().iter().find(|vendor| vendor.name == name.value);
            if vendor.is_none() {
                self.problem(format!("endpoint `{}` has no base_url", name.value), &name.span).help =
                    Some("add base_url = \"https://…/v1\"".into());
            }
            return vendor.and_then(|vendor| Url::parse(&vendor.base_url).ok());
        };
        let wrong = match Url::parse(&written.value) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => format!("base_url begins with {}://", url.scheme()),
            Ok(url) if url.host_str().is_none_or(str::is_empty) => "base_url names no host".to_owned(),
            Ok(mut url) => {
                // The address of one call is often pasted in place of the address of all of them.
                if let Some(base) = url.path().trim_end_matches('/').strip_suffix("/chat/completions") {
                    let base = base.to_owned();
                    url.set_path(&base);
                }
                return Some(self.warn_of_missing_version(&name.value, url));
            }
            Err(error) => format!("base_url is no address: {error}"),
        };
        self.problem(wrong, &written.span).help = Some("write it like \"https://api.example.com/v1\"".into());
        None
    }

    fn warn_of_missing_version(&mut self, name: &str, url: Url) -> Url {
        if url.path().trim_matches('/').is_empty() {
            let shown = masked_url(&url);
            let shown = shown.trim_end_matches('/');
            self.config.warnings.push(format!(
                "endpoint {name}: base_url {shown} has no path; OpenAI-compatible services usually serve below {shown}/v1"
            ));
        }
        url
    }

    fn limits(&mut self, entry: &EndpointEntry) -> Limits {
        let zero = "must be at least 1";
        if let Some(most) = entry.max_concurrency.as_ref().filter(|most| most.value == 0) {
            self.problem(format!("max_concurrency {zero}"), &most.span);
        }
        if let Some(rpm) = entry.rpm.as_ref().filter(|rpm| rpm.value == 0) {
            self.problem(format!("rpm {zero}"), &rpm.span);
        }
        Limits {
            max_concurrency: entry.max_concurrency.as_ref().map(|most| most.value),
            rpm: entry.rpm.as_ref().map(|rpm| rpm.value),
            queue: entry.queue.map(|queue| queue.0),
        }
    }

    fn proxy(&mut self, proxy: &At<String>) -> Option<Url> {
        let url = Url::parse(&proxy.value).ok();
        let known = |url: &Url| matches!(url.scheme(), "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h");
        if !url.as_ref().is_some_and(known) {
            self.problem("proxy is no address of a proxy", &proxy.span).help =
                Some("write it like \"http://host:port\" or \"socks5h://host:port\"".into());
            return None;
        }
        url
    }

    fn key(&mut self, entry: &At<KeyEntry>) -> Option<KeySource> {
        Some(match &entry.value {
            KeyEntry::Literal(value) if value.trim().is_empty() => {
                self.problem("the key is empty", &entry.span).help =
                    Some("leave it out if the service wants none".into());
                return None;
            }
            KeyEntry::Literal(value) => KeySource::Literal(ApiKey::new(value)),
            KeyEntry::Env(name) => KeySource::Env(name.clone()),
            KeyEntry::File(path) => KeySource::File(self.path(path)),
            KeyEntry::Command(words) => KeySource::Command(words.clone()),
            KeyEntry::Shell(line) => KeySource::Shell(line.clone()),
            KeyEntry::Keyring(name) => KeySource::Keyring(name.clone()),
        })
    }

    /// `~` is the home folder; other relative paths start at the config's folder.
    fn path(&self, written: &str) -> PathBuf {
        let home = || directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        match written.strip_prefix("~/").zip(home()) {
            Some((rest, home)) => home.join(rest),
            None => self.folder.join(written),
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
        target.reasons |= entry.capabilities.iter().any(|capability| capability.value == "reasoning")
            || entry.tags.iter().any(|tag| tag == "reasoning");
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
            currency: entry.currency.clone().unwrap_or_else(|| "USD".into()),
        }
    }

    fn route(&mut self, name: &At<String>, entry: &RouteEntry) {
        let strategy = entry.strategy.as_ref().map_or(Strategy::Priority, |strategy| self.strategy(strategy));
        if entry.models.is_empty() {
            self.problem(format!("route `{}` has no models", name.value), &name.span);
        }
        let mut models: Vec<Arc<Target>> = Vec::new();
        for member in &entry.models {
            let wanted = At { value: member.value.name.clone(), span: member.span.clone() };
            let Some(target) = self.target(&wanted, &format!("route `{}`", name.value)) else { continue };
            if models.iter().any(|known| known.id == target.id) {
                self.problem(format!("`{}` is in route `{}` twice", wanted.value, name.value), &wanted.span);
            }
            models.push(target);
        }
        let on_cut = entry.on_cut.as_ref().and_then(|word| {
            let known = [("error", OnCut::Error), ("restart", OnCut::Restart), ("buffer", OnCut::Buffer)];
            self.one_of("on_cut", word, &known)
        });
        let on_filter = entry.on_filter.as_ref();
        let filter_goes_on = on_filter
            .and_then(|word| self.one_of("on_filter", word, &[("stop", false), ("next", true)]))
            .unwrap_or(false);
        self.config.routes.push(Route { name: normalised(&name.value), strategy, models, on_cut, filter_goes_on });
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

    fn strategy(&mut self, word: &At<String>) -> Strategy {
        match Strategy::NAMES.iter().find(|(name, _)| *name == word.value) {
            Some((_, Some(strategy))) => return *strategy,
            Some((name, None)) => {
                self.problem(format!("the strategy `{name}` is not there yet"), &word.span).help =
                    Some("use \"priority\" for now".into());
            }
            None => {
                let names = Strategy::NAMES.iter().map(|(name, _)| *name);
                let problem =
                    Problem::new(&self.source, format!("unknown strategy `{}`", word.value), word.span.clone());
                self.push(problem.nearest(&word.value, names));
            }
        }
        Strategy::Priority
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

fn params(entry: &ParamsEntry) -> Params {
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
mod tests {
    use super::*;

    const GOOD: &str = r#"
default = "chat"
compare = "panel"
[endpoints.local]
base_url = "http://127.0.0.1:8080/v1"
timeouts = { first_token = "3s" }
[endpoints.openai]
api_key = { env = "OPENAI_API_KEY" }
headers = { "X-Team" = "search", X-Token = { command = ["token"] } }
[models.fast]
endpoint = "openai"
model = "gpt-4o-mini"
params = { temperature = 0.2 }
extra = { enable_thinking = false }
price = { input = 0.15, output = 0.6 }
[models."通义"]
endpoint = "local"
model = "qwen"
timeouts = { idle = "1m" }
[routes.chat]
models = ["fast", { name = "通义", weight = 2 }, "local/other"]
on_cut = "restart"
[sets]
panel = ["fast", "chat", "local/x"]
[presets.review]
system = "Be brief."
model = "chat"
"#;

    fn problems(text: &str) -> Vec<Problem> {
        match resolve(text, Path::new("config.toml")) {
            Err(ConfigError::Invalid { problems, .. }) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    /// The one problem of a text, and the text at its first label.
    fn one(text: &str) -> (String, String, Option<String>) {
        let mut problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems.remove(0);
        (problem.message.clone(), text[problem.labels[0].0.clone()].to_owned(), problem.help)
    }

    #[test]
    fn a_good_file_becomes_targets() {
        let config = resolve(GOOD, Path::new("/etc/mmchat/config.toml")).expect("good");
        let fast = config.model("fast").expect("there");
        assert_eq!((fast.upstream.as_str(), fast.params.temperature), ("gpt-4o-mini", Some(0.2)));
        assert_eq!(fast.endpoint.base_url.as_str(), "https://api.openai.com/v1");
        assert_eq!(fast.params.extra["enable_thinking"], false);
        let local = config.model("通义").expect("there");
        let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs());
        assert_eq!((seconds(local.timeouts.first_token), seconds(local.timeouts.idle)), (Some(3), Some(60)));
        let ids: Vec<_> = config.route("chat").expect("there").models.iter().map(|model| model.id.0.as_str()).collect();
        assert_eq!(ids, ["fast", "通义", "local/other"]);
        assert_eq!(config.names().collect::<Vec<_>>(), ["fast", "通义", "chat", "panel"]);
    }

    #[test]
    fn wrong_keys_and_types_point_at_themselves() {
        let (message, at, help) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\nbase_ulr = 1\n");
        assert!(message.contains("unknown field `base_ulr`"), "{message}");
        assert_eq!((at.as_str(), help.as_deref()), ("base_ulr", Some("did you mean `base_url`?")));
        let (message, at, _) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\nrpm = \"many\"\n");
        assert!(message.contains("invalid type"), "{message}");
        assert_eq!(at, "\"many\"");
        let (message, at, _) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\ntimeouts = { idle = \"soon\" }\n");
        assert!(message.contains("no duration"), "{message}");
        assert_eq!(at, "\"soon\"");
        let (message, ..) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key = { evn = \"A\" }\n");
        assert!(message.contains("evn"), "{message}");
    }

    #[test]
    fn dangling_names_suggest_the_nearest() {
        let base = "[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"m\"\n";
        let cases = [
            ("[models.x]\nendpoint = \"opnai\"\nmodel = \"m\"\n", "\"opnai\"", "openai"),
            ("[routes.r]\nmodels = [\"fats\"]\n", "\"fats\"", "fast"),
            ("[sets]\ns = [\"fsat\"]\n", "\"fsat\"", "fast"),
        ];
        for (more, at, near) in cases {
            let (_, found, help) = one(&format!("{base}{more}"));
            assert_eq!((found.as_str(), help), (at, Some(format!("did you mean `{near}`?"))));
        }
        let (message, ..) = one(&format!("default = \"gone\"\n{base}"));
        assert_eq!(message, "unknown model `gone`");
    }

    #[test]
    fn a_name_used_twice_shows_both_places() {
        let text = "[endpoints.openai]\n[models.a]\nendpoint = \"openai\"\nmodel = \"m\"\n[sets]\na = [\"a\"]\n";
        let both = problems(text).into_iter().find(|problem| problem.labels.len() == 2).expect("two places");
        assert!(both.message.contains("a model and of a set"), "{}", both.message);
        assert!(problems("[endpoints.a]\n[endpoints.a]\n")[0].message.contains("duplicate"));
    }

    #[test]
    fn strategies_to_come_are_refused_as_such() {
        let base =
            "[endpoints.openai]\n[models.a]\nendpoint = \"openai\"\nmodel = \"m\"\n[routes.r]\nmodels = [\"a\"]\n";
        let (message, ..) = one(&format!("{base}strategy = \"fastest\"\n"));
        assert!(message.contains("not there yet"), "{message}");
        let (message, _, help) = one(&format!("{base}strategy = \"priorty\"\n"));
        assert!(
            message.contains("unknown strategy") && help.is_some_and(|help| help.contains("priority")),
            "{message}"
        );
    }

    #[test]
    fn many_problems_are_told_at_once() {
        let text =
            "[endpoints.a]\nbase_url = \"ftp://h\"\n[endpoints.b]\nbase_url = \"nonsense\"\n[endpoints.\"c d\"]\n";
        assert_eq!(problems(text).len(), 4);
    }

    #[test]
    fn an_address_without_v1_warns_and_a_pasted_call_is_cut() {
        let config = resolve("[endpoints.a]\nbase_url = \"http://h:1\"\n", Path::new("c")).expect("usable");
        assert!(config.warnings[0].contains("http://h:1/v1"), "{:?}", config.warnings);
        let text = "[endpoints.a]\nbase_url = \"http://h/v1/chat/completions\"\n";
        let config = resolve(text, Path::new("c")).expect("usable");
        assert_eq!(config.endpoints[0].base_url.as_str(), "http://h/v1");
    }

    #[test]
    fn keys_in_the_environment_are_enough() {
        let environment = [("DEEPSEEK_API_KEY", "sk-d"), ("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")]
            .map(|(n, v)| (n.into(), v.into()));
        let config = from_environment(&environment.into_iter().collect());
        assert_eq!(config.default.as_deref(), Some("deepseek/deepseek-chat"));
        let endpoint = config.endpoint("deepseek").expect("there");
        assert_eq!(endpoint.base_url.as_str(), "http://127.0.0.1:1/v1");
        assert_eq!(endpoint.keys, [KeySource::Env("DEEPSEEK_API_KEY".into())]);
        assert!(from_environment(&Environment::default()).default.is_none());
    }
}
