//! Resolves names of models, routes and sets to a plan: the calls to run, each with a request and its candidates.

use std::{sync::Arc, time::Duration};

pub mod cost;
mod select;

use http::HeaderMap;
pub use select::{SelectedCalls, Selection};

use crate::{
    config::{Config, closest_name, normalize_name, vendors},
    engine::memory::AnswerMemory,
    model::{ChatRequest, ModelRequest, target::Target},
    routing::{OnFilter, OnIncomplete, RoutePolicy},
};

/// All calls of one command.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The calls; each gives one answer.
    pub calls: Vec<Call>,
    /// How many calls run concurrently at most; `None`: all.
    pub max_concurrent: Option<usize>,
}

impl Plan {
    /// A plan of one call.
    #[must_use]
    pub fn single(call: Call) -> Self {
        Self { calls: vec![call], max_concurrent: None }
    }

    /// Keeps the text of the answers for the records of the calls.
    #[must_use]
    pub fn retaining_text(mut self) -> Self {
        self.calls.iter_mut().for_each(|call| call.retain_text = true);
        self
    }
}

/// The largest number of concurrent calls; more would exhaust the file descriptors of some systems.
pub const MAX_CONCURRENT_CALLS: usize = 200;

/// One call: a request and the targets that may answer it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The name it was requested by: a model, a route, or `endpoint/id`.
    pub name: String,
    /// The sample number, from 1; `None`: only one sample was requested.
    pub sample: Option<usize>,
    /// The request; shared by calls with the same request.
    pub request: Arc<ModelRequest>,
    /// Estimated tokens of the prompt; cached, because counting a long one takes time.
    pub estimated_prompt_tokens: u64,
    /// The targets that may answer, in the order of the config; never empty.
    pub candidates: Vec<Arc<Target>>,
    /// The policy that orders the candidates; `None`: a single model was requested.
    pub route: Option<RoutePolicy>,
    /// What to do if an answer ends early after part of it was shown.
    pub on_incomplete: OnIncomplete,
    /// What happens when a content filter rejects the request or ends its answer.
    pub on_filter: OnFilter,
    /// Deadline of the whole call; only time spent waiting for the network counts.
    pub deadline: Option<Duration>,
    /// Keeps the raw frames of the response, so that it can be forwarded unchanged. Reasoning that was forwarded cannot be
    /// discarded.
    pub passthrough: bool,
    /// The text of the answer is kept for the record of the call.
    pub retain_text: bool,
    /// The session affinity key sent by the client; `None`: derived from the request.
    pub affinity_key: Option<String>,
    /// Headers of the client that are sent to the service, unless the endpoint sets them.
    pub headers: HeaderMap,
    /// Headers of the service that the client gets, in lowercase; a name may end in `*`.
    pub response_headers: Arc<[String]>,
    /// The client retries by itself, and this request is such a retry: no further attempts follow its last candidate.
    pub client_retries: bool,
    /// The memory of the answer.
    pub memory: AnswerMemory,
}

impl Call {
    /// A call of `request` with `target` as the only candidate.
    #[must_use]
    pub fn single(name: impl Into<String>, request: Arc<ModelRequest>, target: Arc<Target>) -> Self {
        Self {
            name: name.into(),
            sample: None,
            estimated_prompt_tokens: request.estimated_tokens(),
            request,
            candidates: vec![target],
            route: None,
            on_incomplete: OnIncomplete::Error,
            on_filter: OnFilter::Stop,
            deadline: None,
            passthrough: false,
            retain_text: false,
            affinity_key: None,
            headers: HeaderMap::new(),
            response_headers: Arc::default(),
            client_retries: false,
            memory: AnswerMemory::default(),
        }
    }

    /// The unique name within the plan: `fast`, or `fast#2` with several samples.
    #[must_use]
    pub fn label(&self) -> String {
        match self.sample {
            None => self.name.clone(),
            Some(sample) => format!("{}#{sample}", self.name),
        }
    }

    /// Changes the request and recounts its tokens.
    pub fn update_request(&mut self, change: impl FnOnce(&mut ModelRequest)) {
        change(Arc::make_mut(&mut self.request));
        self.estimated_prompt_tokens = self.request.estimated_tokens();
    }

    /// Repeats the call `samples` times.
    pub fn into_samples(self, samples: usize) -> impl Iterator<Item = Self> {
        (1..=samples).map(move |sample| Self { sample: (samples > 1).then_some(sample), ..self.clone() })
    }
}

/// An error that prevents a plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The name does not exist.
    #[error("unknown {kind} \"{name}\"")]
    Unknown {
        /// The requested name.
        name: String,
        /// `model` or `set`.
        kind: &'static str,
        /// What the user can do.
        hint: String,
    },
    /// The name is a set, where a single model is needed.
    #[error("\"{0}\" is a set, not a single model")]
    IsSet(String),
    /// The request has images, which no candidate accepts.
    #[error("\"{0}\" does not accept images, according to its capabilities in the config")]
    NoImageSupport(String),
    /// No model has this tag.
    #[error("no model has the tag \"{tag}\"")]
    UnknownTag {
        /// The requested tag.
        tag: String,
        /// What the user can do.
        hint: String,
    },
    /// There is no config, no known key, and no local server.
    #[error("no config, no API key in the environment, and no model server found on this machine")]
    NoEndpoints,
    /// No models were selected, and the config has no default selection.
    #[error("no models selected to compare")]
    NoSelection {
        /// What the user can do.
        hint: String,
    },
    /// No model was given, and the config has no default.
    #[error("no model given, and the config has no default")]
    NoDefault {
        /// What the user can do.
        hint: String,
    },
}

impl PlanError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { hint, .. }
            | Self::NoDefault { hint }
            | Self::NoSelection { hint }
            | Self::UnknownTag { hint, .. } => hint.clone(),
            Self::NoImageSupport(_) => "choose another model, or add \"images\" to its capabilities".into(),
            Self::NoEndpoints => "run \"mmchat init\", or set a key such as OPENAI_API_KEY".into(),
            Self::IsSet(name) => format!("run \"mmchat compare --set {name}\", or choose one of its models"),
        }
    }
}

/// The call of `request` to `name`: a model, a route or `endpoint/id`; `None`: `default` of the config, else its only route
/// or model. `on_incomplete` is the default of the command, for a route that does not set it.
///
/// # Errors
/// When `name` cannot be called, or no candidate accepts the images of the request.
pub fn resolve_call(
    config: &Config,
    name: Option<&str>,
    request: &Arc<ModelRequest>,
    on_incomplete: OnIncomplete,
) -> Result<Call, PlanError> {
    let name = match name {
        Some(name) => normalize_name(name),
        None => default_name(config)?,
    };
    let call = resolve_name(config, name, request, on_incomplete)?;
    if request.has_images() && call.candidates.iter().all(|target| target.supports_images == Some(false)) {
        return Err(PlanError::NoImageSupport(call.name));
    }
    Ok(call)
}

/// Checks that `name` can be called.
///
/// # Errors
/// When it is neither a model, a route nor `endpoint/id`.
pub fn check_name(config: &Config, name: &str) -> Result<(), PlanError> {
    let request = Arc::new(ModelRequest::Chat(ChatRequest::default()));
    resolve_name(config, normalize_name(name), &request, OnIncomplete::Error).map(drop)
}

fn resolve_name(
    config: &Config,
    name: String,
    request: &Arc<ModelRequest>,
    on_incomplete: OnIncomplete,
) -> Result<Call, PlanError> {
    let single =
        |target: Arc<Target>| Call { on_incomplete, ..Call::single(name.clone(), Arc::clone(request), target) };
    if let Some(model) = config.model(&name) {
        return Ok(single(Arc::clone(model)));
    }
    if let Some(route) = config.route(&name) {
        return Ok(Call {
            candidates: route.models.clone(),
            route: Some(route.policy.clone()),
            on_incomplete: route.on_incomplete.unwrap_or(on_incomplete),
            on_filter: route.on_filter,
            ..single(Arc::clone(&route.models[0]))
        });
    }
    if config.set(&name).is_some() {
        return Err(PlanError::IsSet(name));
    }
    if let Some(target) = config.direct_model(&name) {
        return Ok(single(target));
    }
    let hint = unknown_hint(config, &name);
    Err(PlanError::Unknown { name, kind: "model", hint })
}

fn default_name(config: &Config) -> Result<String, PlanError> {
    if let Some(name) = &config.default {
        return Ok(name.clone());
    }
    match (config.routes.as_slice(), config.models.as_slice()) {
        ([route], _) => Ok(route.name.clone()),
        ([], [model]) => Ok(model.id.0.clone()),
        _ if config.files.is_empty() => Err(PlanError::NoEndpoints),
        _ => {
            let names: Vec<&str> = config.names().collect();
            let hint = if names.is_empty() {
                "choose one with -m ENDPOINT/ID, or add a model to the config".to_owned()
            } else {
                format!("choose one with -m: {}; or set `default` in the config", names.join(", "))
            };
            Err(PlanError::NoDefault { hint })
        }
    }
}

fn unknown_hint(config: &Config, name: &str) -> String {
    if let Some((endpoint, _)) = name.split_once('/') {
        if let (true, Some(vendor)) = (config.files.is_empty(), vendors::by_name(endpoint)) {
            return format!("set {} to use {}", vendor.key_env.join(" or "), vendor.title);
        }
        let endpoints: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        return match closest_name(endpoint, endpoints.iter().copied()) {
            Some(suggestion) if suggestion != endpoint => {
                format!("unknown endpoint \"{endpoint}\"; did you mean \"{suggestion}\"?")
            }
            _ if endpoints.is_empty() => format!("unknown endpoint \"{endpoint}\": no config and no known key is set"),
            _ => format!("unknown endpoint \"{endpoint}\"; available: {}", endpoints.join(", ")),
        };
    }
    match closest_name(name, config.names()) {
        Some(suggestion) => format!("did you mean \"{suggestion}\"?"),
        None => match config.names().collect::<Vec<_>>() {
            names if names.is_empty() => "use ENDPOINT/ID for a model without an entry in the config".to_owned(),
            names => format!("available: {}", names.join(", ")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CONFIG: &str = r#"
[endpoints.openai]
[models.fast]
endpoint = "openai"
model = "m1"
[models.strong]
endpoint = "openai"
model = "m2"
[routes.chat]
models = ["fast", "strong"]
on_incomplete = "buffer"
[sets]
panel = ["fast", "strong"]
"#;

    fn plan_call(name: Option<&str>) -> Result<Call, PlanError> {
        let config = crate::config::resolve(CONFIG, Path::new("c.toml")).expect("valid config");
        resolve_call(&config, name, &Arc::new(ModelRequest::Chat(ChatRequest::default())), OnIncomplete::Error)
    }

    fn upstreams(name: &str) -> Vec<String> {
        plan_call(Some(name)).expect("known name").candidates.iter().map(|target| target.upstream_id.clone()).collect()
    }

    #[test]
    fn models_routes_and_upstream_ids_become_candidates() {
        assert_eq!(upstreams("fast"), ["m1"]);
        assert_eq!(upstreams("chat"), ["m1", "m2"]);
        assert_eq!(upstreams("openai/gpt-9/x"), ["gpt-9/x"]);
        assert_eq!(plan_call(Some("chat")).expect("known name").on_incomplete, OnIncomplete::Buffer);
        assert_eq!(plan_call(Some("fast")).expect("known name").on_incomplete, OnIncomplete::Error);
    }

    #[test]
    fn unknown_names_have_hints() {
        let hint = |name| plan_call(Some(name)).expect_err("unknown name").hint();
        assert!(hint("fats").contains("\"fast\""));
        assert!(hint("opnai/x").contains("\"openai\""));
        assert!(hint("panel").contains("compare"));
        assert!(hint("zzz").contains("strong"));
        assert_eq!(plan_call(None).expect("the only route").name, "chat");
    }
}
