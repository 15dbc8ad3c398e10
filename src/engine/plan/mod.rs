//! From the names a person asked for to what is run: lanes, each a call and the targets that may answer it.
//!
//! Owns the look-up of names. Refuses to know how lanes run or what they print.

use std::{sync::Arc, time::Duration};

pub mod cost;
mod select;

pub use select::{Selected, Selection};

use crate::{
    config::{Config, nearest, normalised, vendors},
    model::{Call, ChatRequest, target::Target},
    routing::{OnCut, Policy},
};

/// Everything one command asks for at once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One answer each.
    pub lanes: Vec<Lane>,
    /// How many of them are under way at once, at most; `None`: all.
    pub at_once: Option<usize>,
}

impl Plan {
    /// A plan of one answer.
    #[must_use]
    pub fn of(lane: Lane) -> Self {
        Self { lanes: vec![lane], at_once: None }
    }
}

/// More lanes under way at once would leave no file handles on some systems.
pub const AT_ONCE: usize = 200;

/// One answer to be produced.
#[derive(Clone, Debug)]
pub struct Lane {
    /// What it was asked for as: a model, a route, or `endpoint/id`.
    pub name: String,
    /// Which of several answers of the same it is, from 1; `None`: it is asked once.
    pub sample: Option<usize>,
    /// The request; lanes that ask the same share it.
    pub call: Arc<Call>,
    /// The tokens of its prompt, roughly: reading a long one takes a while.
    pub prompt_tokens: u64,
    /// The targets that may answer, in the config's order; never empty.
    pub candidates: Vec<Arc<Target>>,
    /// How they are chosen among; `None`: it is the one that was named.
    pub route: Option<Policy>,
    /// What happens when an answer breaks off after it was shown.
    pub on_cut: OnCut,
    /// A filter's refusal goes on to the next candidate.
    pub filter_goes_on: bool,
    /// For the whole lane; only time spent waiting for the network counts.
    pub deadline: Option<Duration>,
    /// Whoever asked gets the reply as it comes, frame by frame: the frames are kept, and thinking that was passed on is
    /// not taken back.
    pub verbatim: bool,
    /// What a client calls the requests that belong together; `None`: the call itself tells.
    pub session: Option<String>,
}

impl Lane {
    /// The lane in which `target` alone answers `call`.
    #[must_use]
    pub fn alone(name: impl Into<String>, call: Arc<Call>, target: Arc<Target>) -> Self {
        Self {
            name: name.into(),
            sample: None,
            prompt_tokens: call.estimated_tokens(),
            call,
            candidates: vec![target],
            route: None,
            on_cut: OnCut::Error,
            filter_goes_on: false,
            deadline: None,
            verbatim: false,
            session: None,
        }
    }

    /// What it is called among the others: `fast`, or `fast#2` of several samples.
    #[must_use]
    pub fn label(&self) -> String {
        match self.sample {
            None => self.name.clone(),
            Some(sample) => format!("{}#{sample}", self.name),
        }
    }

    /// Asks something else, or for something else.
    pub fn change(&mut self, change: impl FnOnce(&mut Call)) {
        change(Arc::make_mut(&mut self.call));
        self.prompt_tokens = self.call.estimated_tokens();
    }

    /// So many lanes that ask the same.
    pub fn sampled(self, samples: usize) -> impl Iterator<Item = Self> {
        (1..=samples).map(move |sample| Self { sample: (samples > 1).then_some(sample), ..self.clone() })
    }
}

/// A name that leads to no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Nothing is called so.
    #[error("unknown {kind} `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
        /// A model or a set.
        kind: &'static str,
        /// What to do.
        hint: String,
    },
    /// It is a set, which gives several answers.
    #[error("`{0}` is a set: it gives several answers")]
    IsSet(String),
    /// It would have to look at pictures.
    #[error("`{0}` does not look at pictures, says its entry in the config")]
    Blind(String),
    /// No model has this label.
    #[error("no model has the tag `{tag}`")]
    NoTag {
        /// What was asked for.
        tag: String,
        /// What to do.
        hint: String,
    },
    /// There is no config, no known key, and no server on this machine.
    #[error("there is no config, no known key in the environment, and no server that answers on this machine")]
    NoKey,
    /// Nobody was chosen, and the config does not choose.
    #[error("nobody was chosen to compare")]
    Nobody {
        /// What to do.
        hint: String,
    },
    /// Nothing was asked for, and nothing is the default.
    #[error("no model was named and the config has no default")]
    Nothing {
        /// What to do.
        hint: String,
    },
}

impl PlanError {
    /// What the reader may do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { hint, .. } | Self::Nothing { hint } | Self::Nobody { hint } | Self::NoTag { hint, .. } => {
                hint.clone()
            }
            Self::Blind(_) => "ask another model, or add \"images\" to its capabilities".into(),
            Self::NoKey => "set a key such as OPENAI_API_KEY, or write a config: mmchat config path says where".into(),
            Self::IsSet(name) => format!("use compare: mmchat compare --set {name}, or name one of its models"),
        }
    }
}

/// The lane that answers `call` under `name`: a model, a route or `endpoint/id`; without a name, the only model there
/// is. `on_cut` is what the command finds right where the route does not say.
pub fn lane(config: &Config, name: Option<&str>, call: &Arc<Call>, on_cut: OnCut) -> Result<Lane, PlanError> {
    let name = match name {
        Some(name) => normalised(name),
        None => only_choice(config)?,
    };
    let lane = named(config, name, call, on_cut)?;
    if call.has_images() && lane.candidates.iter().all(|target| target.images == Some(false)) {
        return Err(PlanError::Blind(lane.name));
    }
    Ok(lane)
}

/// Whether `name` leads to an answer.
pub fn check(config: &Config, name: &str) -> Result<(), PlanError> {
    let call = Arc::new(Call::Chat(ChatRequest::default()));
    named(config, normalised(name), &call, OnCut::Error).map(drop)
}

fn named(config: &Config, name: String, call: &Arc<Call>, on_cut: OnCut) -> Result<Lane, PlanError> {
    let single = |target: Arc<Target>| Lane { on_cut, ..Lane::alone(name.clone(), Arc::clone(call), target) };
    if let Some(model) = config.model(&name) {
        return Ok(single(Arc::clone(model)));
    }
    if let Some(route) = config.route(&name) {
        return Ok(Lane {
            candidates: route.models.clone(),
            route: Some(route.policy.clone()),
            on_cut: route.on_cut.unwrap_or(on_cut),
            filter_goes_on: route.filter_goes_on,
            ..single(Arc::clone(&route.models[0]))
        });
    }
    if config.set(&name).is_some() {
        return Err(PlanError::IsSet(name));
    }
    if let Some(target) = config.direct(&name) {
        return Ok(single(target));
    }
    let hint = unknown_hint(config, &name);
    Err(PlanError::Unknown { name, kind: "model", hint })
}

fn only_choice(config: &Config) -> Result<String, PlanError> {
    match (config.routes.as_slice(), config.models.as_slice()) {
        ([route], _) => Ok(route.name.clone()),
        ([], [model]) => Ok(model.id.0.clone()),
        _ if config.path.is_none() => Err(PlanError::NoKey),
        _ => {
            let known: Vec<&str> = config.names().collect();
            let hint = if known.is_empty() {
                "name one as endpoint/id with -m, or add a model to the config".to_owned()
            } else {
                format!("name one with -m: {}; or set `default` in the config", known.join(", "))
            };
            Err(PlanError::Nothing { hint })
        }
    }
}

fn unknown_hint(config: &Config, name: &str) -> String {
    if let Some((endpoint, _)) = name.split_once('/') {
        if let (None, Some(vendor)) = (&config.path, vendors::named(endpoint)) {
            return format!("set {} to use {}", vendor.key_env.join(" or "), vendor.title);
        }
        let known: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        return match nearest(endpoint, known.iter().copied()) {
            Some(near) if near != endpoint => format!("no endpoint `{endpoint}`; did you mean `{near}`?"),
            _ if known.is_empty() => format!("no endpoint `{endpoint}`: there is no config and no known key is set"),
            _ => format!("no endpoint `{endpoint}`; there are: {}", known.join(", ")),
        };
    }
    match nearest(name, config.names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => match config.names().collect::<Vec<_>>() {
            known if known.is_empty() => "a model without an entry is named as endpoint/id".to_owned(),
            known => format!("there are: {}", known.join(", ")),
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
on_cut = "buffer"
[sets]
panel = ["fast", "strong"]
"#;

    fn ask(name: Option<&str>) -> Result<Lane, PlanError> {
        let config = crate::config::resolve(CONFIG, Path::new("c.toml")).expect("good");
        lane(&config, name, &Arc::new(Call::Chat(ChatRequest::default())), OnCut::Error)
    }

    fn upstreams(name: &str) -> Vec<String> {
        ask(Some(name)).expect("known").candidates.iter().map(|target| target.upstream.clone()).collect()
    }

    #[test]
    fn models_routes_and_upstream_ids_become_candidates() {
        assert_eq!(upstreams("fast"), ["m1"]);
        assert_eq!(upstreams("chat"), ["m1", "m2"]);
        assert_eq!(upstreams("openai/gpt-9/x"), ["gpt-9/x"]);
        assert_eq!(ask(Some("chat")).expect("known").on_cut, OnCut::Buffer);
        assert_eq!(ask(Some("fast")).expect("known").on_cut, OnCut::Error);
    }

    #[test]
    fn what_leads_nowhere_says_where_to_go() {
        let hint = |name| ask(Some(name)).expect_err("unknown").hint();
        assert!(hint("fats").contains("`fast`"));
        assert!(hint("opnai/x").contains("`openai`"));
        assert!(hint("panel").contains("compare"));
        assert!(hint("zzz").contains("strong"));
        assert_eq!(ask(None).expect("the only route").name, "chat");
    }
}
