//! What is wrong with an endpoint, and what to change.
//!
//! Owns the checks, in the order in which one failure makes the next pointless: is it there, what is it, is the key
//! right, is the model there, does it answer, does the answer stream, is it whole, does its clock agree. Each gives a
//! [`Finding`]. Refuses to print.

mod answer;
mod kind;
mod quota;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use url::Url;

pub use kind::{Kind, Recognised};

use crate::{
    config::{direct_target, nearest, vendors},
    engine::{Engine, Event, Fetched, plan::Plan},
    model::{ErrorClass, api_key::masked_url, endpoint::Endpoint, target::Target},
    protocol::{ApiError, ModelInfo},
};

/// Clocks that are further apart than this make dates of rate limits and signatures wrong.
const CLOCK: i64 = 30;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but should be known.
    Note,
    /// It does not work.
    Bad,
    /// It could not be told.
    Unknown,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "BAD",
            Self::Unknown => "?",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to change.
    pub advice: Option<String>,
    /// The class of the failure, if one was behind it.
    pub class: Option<ErrorClass>,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, seen: impl Into<String>) -> Self {
        Self { what, verdict, seen: seen.into(), advice: None, class: None }
    }

    fn failed(what: &'static str, error: &ApiError) -> Self {
        let status = error.status.map(|status| format!(" {status}")).unwrap_or_default();
        let seen = format!("{}{status}: {}", error.class, error.message);
        Self { class: Some(error.class), advice: error.hint.clone(), ..Self::new(what, Verdict::Bad, seen) }
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The model that is asked; `None`: nobody is.
    pub model: Option<Arc<Target>>,
    /// Whether anybody is to be asked.
    pub asks: bool,
    /// How long each step may take.
    pub limit: Duration,
}

impl Checkup {
    /// Looks at everything. `now` is our own clock; `told` is what is asked and what comes of it, for the record.
    pub async fn run(&self, engine: &Arc<Engine>, now: Timestamp, told: &dyn Told) -> Vec<Finding> {
        let mut findings = Vec::new();
        let seen = kind::look(engine, &self.endpoint, self.limit).await;
        let listed = engine.list_models(&direct_target(&self.endpoint, ""), self.limit).await;
        findings.push(self.reachable(&seen, &listed));
        if findings.iter().any(|finding| finding.verdict == Verdict::Bad) && !seen.any() {
            return findings;
        }
        let kind = kind::recognise(&seen, listed.as_deref().unwrap_or_default());
        findings.push(self.kind(kind.as_ref()));
        findings.push(self.address(engine, &listed).await);
        let refused = if listed.is_ok() { engine.refused_keys(&self.endpoint, self.limit).await } else { Vec::new() };
        if refused.is_empty() {
            findings.extend(self.key(&listed, kind.as_ref()));
        }
        findings.extend(refused.iter().map(|(place, error)| self.refused(*place, error)));
        findings.extend(self.model(&listed));
        match &self.model {
            Some(model) => findings.extend(answer::ask(engine, model, self.limit, told).await),
            None if self.asks => {
                let advice = format!("name one: mmchat doctor {}/ID", self.endpoint.name);
                findings.push(Finding::new("answer", Verdict::Unknown, "no model to ask").advice(advice));
            }
            None => {}
        }
        for finding in findings.iter_mut().filter(|finding| finding.verdict == Verdict::Bad && finding.advice.is_none())
        {
            finding.advice = finding.class.map(|class| advice_for(class).to_owned());
        }
        findings.extend(seen.date().map(|date| clock(date, now)));
        if let Some(kind) = kind.filter(|kind| matches!(kind.kind, Kind::OneApi | Kind::NewApi)) {
            findings.push(quota::read(engine, &self.endpoint, &kind, self.limit).await);
        }
        findings
    }

    fn reachable(&self, seen: &kind::Seen, listed: &Result<Vec<ModelInfo>, ApiError>) -> Finding {
        let at = masked_url(&self.endpoint.base_url);
        match listed {
            Err(error)
                if matches!(error.class, ErrorClass::Connect | ErrorClass::Silent | ErrorClass::Reset)
                    && !seen.any() =>
            {
                let finding = Finding::failed("reachable", error);
                let advice = finding.advice.clone().unwrap_or_else(|| {
                    format!("is it running, and is {at} its address? A proxy or a firewall may be in between")
                });
                finding.advice(advice)
            }
            _ => {
                let took = seen.fastest().map(|took| format!(" in {} ms", took.as_millis())).unwrap_or_default();
                Finding::new("reachable", Verdict::Good, format!("{at} answers{took}"))
            }
        }
    }

    fn kind(&self, kind: Option<&Recognised>) -> Finding {
        let Some(kind) = kind else {
            let vendor = vendors::at(&self.endpoint.base_url);
            return match vendor.filter(|_| !self.endpoint.connect.loopback) {
                Some(vendor) => Finding::new("kind", Verdict::Good, vendor.title.clone()),
                None => Finding::new("kind", Verdict::Unknown, "no server that is known by its answers"),
            };
        };
        let finding = Finding::new("kind", Verdict::Good, kind.to_string());
        let gateway = matches!(kind.kind, Kind::OneApi | Kind::NewApi | Kind::LiteLlm);
        if gateway && !self.endpoint.gateway {
            let why = "it retries by itself; with gateway = true it is asked once even before its headers tell";
            return Finding { verdict: Verdict::Note, ..finding }
                .advice(format!("{why}: [endpoints.{}]", self.endpoint.name));
        }
        finding
    }

    /// Whether the address is the one below which the API is; if not, where it is.
    async fn address(&self, engine: &Arc<Engine>, listed: &Result<Vec<ModelInfo>, ApiError>) -> Finding {
        let what = "base_url";
        let base = &self.endpoint.base_url;
        match listed {
            Ok(models) => {
                return Finding::new(
                    what,
                    Verdict::Good,
                    format!("{} lists {} models", masked_url(base), models.len()),
                );
            }
            // The key has a finding of its own.
            Err(error) if error.class == ErrorClass::Auth => {
                return Finding::new(what, Verdict::Good, "the API answers");
            }
            // The API is there; a key may be allowed to ask and not to list.
            Err(error) if is_answer(error.class) => {
                return Finding::new(
                    what,
                    Verdict::Note,
                    format!("the API answers, but refuses its list of models: {error}"),
                );
            }
            Err(error) if !matches!(error.class, ErrorClass::Path | ErrorClass::Garbage | ErrorClass::Redirect) => {
                return Finding::failed(what, error);
            }
            Err(_) => {}
        }
        for path in ["/v1", "/api/v1", "/openai/v1", "/api", ""] {
            let mut other = base.clone();
            other.set_path(path);
            if other.path() == base.path() {
                continue;
            }
            let endpoint = Arc::new(Endpoint { base_url: other.clone(), ..(*self.endpoint).clone() });
            let found = engine.list_models(&direct_target(&endpoint, ""), self.limit).await;
            // A refused key says as much: the API is there.
            if found.is_ok() || found.is_err_and(|error| error.class == ErrorClass::Auth) {
                let finding = Finding::new(what, Verdict::Bad, format!("there is no API below {}", masked_url(base)));
                return Finding { class: Some(ErrorClass::Path), ..finding }
                    .advice(format!("base_url = \"{}\"", masked_url(&other)));
            }
        }
        match listed {
            // A page is what a browser wants, not what an API gives.
            Err(error) if error.class == ErrorClass::Garbage => {
                Finding::failed(what, error).advice("what answers there is no API: is it the right host and port?")
            }
            _ => Finding::new(what, Verdict::Unknown, "it gives no list of models, which not every service does"),
        }
    }

    fn key(&self, listed: &Result<Vec<ModelInfo>, ApiError>, kind: Option<&Recognised>) -> Option<Finding> {
        let what = "key";
        let none = self.endpoint.keys.is_empty();
        match listed {
            Err(error) if error.class == ErrorClass::Auth => {
                let advice = match (none, error.status) {
                    (true, _) => format!("it wants a key: mmchat key set {}", self.endpoint.name),
                    (false, None) => error.hint.clone().unwrap_or_else(|| "see mmchat key list".into()),
                    (false, Some(_)) => format!("the key is refused: mmchat key set {}", self.endpoint.name),
                };
                Some(Finding::failed(what, error).advice(advice))
            }
            Ok(_) if none => Some(Finding::new(what, Verdict::Good, "none is needed for the list")),
            // It lists models for anybody, so that says nothing of the key.
            Ok(_) if kind.is_some_and(|kind| kind.kind == Kind::LlamaCpp) => None,
            Ok(_) => Some(Finding::new(what, Verdict::Good, "accepted")),
            Err(_) => None,
        }
    }

    /// One of several keys is no good: requests find that out, one by one.
    fn refused(&self, place: usize, error: &ApiError) -> Finding {
        let finding = Finding::failed("key", error);
        let seen = format!("key {} of {}: {}", place + 1, self.endpoint.keys.len(), finding.seen);
        let advice = finding.advice.clone();
        let advice = advice.unwrap_or_else(|| "mmchat key list says where it is; replace it or take it out".to_owned());
        Finding { seen, ..finding }.advice(advice)
    }

    fn model(&self, listed: &Result<Vec<ModelInfo>, ApiError>) -> Option<Finding> {
        let (model, listed) = (self.model.as_ref()?, listed.as_ref().ok()?);
        let what = "model";
        if listed.iter().any(|known| known.id == model.upstream) {
            return Some(Finding::new(what, Verdict::Good, format!("{} is listed", model.upstream)));
        }
        let finding = Finding::new(what, Verdict::Note, format!("{} is not listed", model.upstream));
        let near = nearest(&model.upstream, listed.iter().map(|known| known.id.as_str()));
        Some(match near {
            Some(near) => finding.advice(format!("did you mean {near}?")),
            None => finding.advice(format!("mmchat models available {}", self.endpoint.name)),
        })
    }
}

/// Hears of what the doctor asks, since that is billed.
pub trait Told: Sync {
    /// This is about to be asked.
    fn begins(&self, plan: &Plan);
    /// This came of it.
    fn event(&self, plan: &Plan, event: &Event);
}

/// What to do about a failure that says nothing more particular itself.
fn advice_for(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Quota => "the account is out of money or quota: see its console",
        ErrorClass::Rate => "too many requests: wait, or ask for a higher limit",
        ErrorClass::Forbidden => "the key may not do this: see its rights in the service's console",
        ErrorClass::Silent => "it takes longer than --timeout; is the server overloaded?",
        ErrorClass::Auth => "another key: mmchat key set, or see this one's rights in the service's console",
        ErrorClass::Model => "name one that is there: mmchat models available",
        ErrorClass::Cut => "answers break off: see the time limits of proxies on the way, and the server's own log",
        ErrorClass::Overloaded | ErrorClass::NoChannel => {
            "the service has no room, or nobody behind it: ask again later"
        }
        _ => "see the server's own log",
    }
}

fn clock(date: Timestamp, now: Timestamp) -> Finding {
    let apart = now.duration_since(date).as_secs();
    if apart.abs() <= CLOCK {
        return Finding::new("clock", Verdict::Good, format!("within {CLOCK} s of the server's"));
    }
    let side = if apart > 0 { "ahead of" } else { "behind" };
    Finding::new("clock", Verdict::Note, format!("ours is {} s {side} the server's", apart.abs()))
        .advice("set the clock of this machine; dates in Retry-After are read wrong otherwise")
}

/// An address at the root of the endpoint's server.
fn at_root(endpoint: &Endpoint, path: &str) -> Url {
    let mut url = endpoint.base_url.clone();
    url.set_path(path);
    url.set_query(None);
    url
}

/// The body as JSON; servers give a page for whatever they do not know.
fn json(fetched: &Fetched) -> Option<serde_json::Value> {
    serde_json::from_str(&fetched.body).ok()
}

/// Whether a refusal of this class comes of an API that works.
fn is_answer(class: ErrorClass) -> bool {
    use ErrorClass as C;
    matches!(class, C::Forbidden | C::Rate | C::Quota | C::Request | C::Model | C::NoChannel)
}
