//! Diagnoses an endpoint and suggests changes.
//!
//! The checks run in this order, because a failed check makes the later ones pointless: reachability, server software,
//! base URL, key, model, answer, streaming, completeness, clock. Each check returns a [`Finding`].

mod answer;
mod quota;
mod server_software;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use url::Url;

pub(crate) use server_software::{RecognizedServer, ServerSoftware};

use crate::{
    config::{closest_name, direct_target, vendors},
    engine::{Engine, Event, FetchResponse, plan::Plan},
    model::{ErrorClass, api_key::redact_url, endpoint::Endpoint, plural, target::Target},
    protocol::{CallError, ModelInfo},
};

/// Maximum difference between the local and the server's clock, in seconds. With a larger one, Retry-After dates and
/// request signatures are wrong.
const MAX_CLOCK_SKEW_SECS: i64 = 30;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub(crate) enum Verdict {
    /// Passed.
    #[strum(serialize = "ok")]
    Pass,
    /// Works, but the user should know about it.
    #[strum(serialize = "note")]
    Note,
    /// Failed.
    #[strum(serialize = "BAD")]
    Fail,
    /// Could not be determined.
    #[strum(serialize = "?")]
    Unknown,
}

impl Verdict {
    /// Name, as shown.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Result of one check, with details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// Result.
    pub verdict: Verdict,
    /// Details.
    pub detail: String,
    /// Suggested change.
    pub hint: Option<String>,
    /// Class of the error that caused it, if any.
    pub class: Option<ErrorClass>,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { check, verdict, detail: detail.into(), hint: None, class: None }
    }

    fn from_error(check: &'static str, error: &CallError) -> Self {
        let status = error.status.map(|status| format!(" {status}")).unwrap_or_default();
        let detail = format!("{}{status}: {}", error.class, error.message);
        Self { class: Some(error.class), hint: error.hint.clone(), ..Self::new(check, Verdict::Fail, detail) }
    }

    fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Checks for one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Diagnosis {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Model to send a test request to; `None`: no test request.
    pub model: Option<Arc<Target>>,
    /// Whether a test request is sent. Without a model, this is reported as unknown.
    pub sends_test_request: bool,
    /// Timeout of each step.
    pub step_timeout: Duration,
}

impl Diagnosis {
    /// Runs all checks. `now` is the time of the local clock; `observer` receives the events of test requests.
    pub(crate) async fn run(
        &self,
        engine: &Arc<Engine>,
        now: Timestamp,
        observer: &dyn DoctorObserver,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let probes = server_software::probe(engine, &self.endpoint, self.step_timeout).await;
        let model_list = engine.list_models(&direct_target(&self.endpoint, ""), self.step_timeout).await;
        findings.push(self.check_reachability(&probes, &model_list));
        if findings.iter().any(|finding| finding.verdict == Verdict::Fail) && !probes.has_responses() {
            return findings;
        }
        let server = server_software::recognize(&probes, model_list.as_deref().unwrap_or_default());
        findings.push(self.check_server_software(server.as_ref()));
        findings.push(self.check_base_url(engine, &model_list).await);
        let rejected =
            if model_list.is_ok() { engine.rejected_keys(&self.endpoint, self.step_timeout).await } else { Vec::new() };
        if rejected.is_empty() {
            findings.extend(self.check_key(&model_list, server.as_ref()));
        }
        findings.extend(rejected.iter().map(|(index, error)| self.rejected_key(*index, error)));
        findings.extend(self.check_model(&model_list));
        match &self.model {
            Some(model) => findings.extend(answer::check_answer(engine, model, self.step_timeout, observer).await),
            None if self.sends_test_request => {
                let hint = format!("run \"mmchat doctor {}/ID\"", self.endpoint.name);
                findings.push(Finding::new("answer", Verdict::Unknown, "no model configured").with_hint(hint));
            }
            None => {}
        }
        for finding in findings.iter_mut().filter(|finding| finding.verdict == Verdict::Fail && finding.hint.is_none())
        {
            finding.hint = finding.class.map(|class| default_hint(class, &self.endpoint.name));
        }
        findings.extend(probes.server_time().map(|date| check_clock(date, now)));
        if let Some(server) =
            server.filter(|server| matches!(server.software, ServerSoftware::OneApi | ServerSoftware::NewApi))
        {
            findings.push(quota::check_quota(engine, &self.endpoint, &server, self.step_timeout).await);
        }
        findings
    }

    fn check_reachability(
        &self,
        probes: &server_software::ProbeResponses,
        model_list: &Result<Vec<ModelInfo>, CallError>,
    ) -> Finding {
        let url = redact_url(&self.endpoint.base_url);
        match model_list {
            Err(error)
                if matches!(error.class, ErrorClass::Connect | ErrorClass::Timeout | ErrorClass::Reset)
                    && !probes.has_responses() =>
            {
                let finding = Finding::from_error("reachable", error);
                let hint = finding.hint.clone().unwrap_or_else(|| {
                    format!("check that it is running at {url} and that no proxy or firewall blocks it")
                });
                finding.with_hint(hint)
            }
            _ => {
                let timing =
                    probes.fastest_response().map(|took| format!(" in {} ms", took.as_millis())).unwrap_or_default();
                Finding::new("reachable", Verdict::Pass, format!("{url} responded{timing}"))
            }
        }
    }

    fn check_server_software(&self, server: Option<&RecognizedServer>) -> Finding {
        let Some(server) = server else {
            let vendor = vendors::by_url(&self.endpoint.base_url);
            return match vendor.filter(|_| !self.endpoint.connect.loopback) {
                Some(vendor) => Finding::new("kind", Verdict::Pass, vendor.title.clone()),
                None => Finding::new("kind", Verdict::Unknown, "unknown server software"),
            };
        };
        let finding = Finding::new("kind", Verdict::Pass, server.to_string());
        let is_gateway =
            matches!(server.software, ServerSoftware::OneApi | ServerSoftware::NewApi | ServerSoftware::LiteLlm);
        if is_gateway && !self.endpoint.gateway {
            let reason = "it does its own retries, and its headers identify it only after the first response";
            return Finding { verdict: Verdict::Note, ..finding }
                .with_hint(format!("set gateway = true in [endpoints.{}]: {reason}", self.endpoint.name));
        }
        finding
    }

    /// Checks whether `base_url` is the base of the API; if not, finds the right one.
    async fn check_base_url(&self, engine: &Arc<Engine>, model_list: &Result<Vec<ModelInfo>, CallError>) -> Finding {
        let check = "base_url";
        let base = &self.endpoint.base_url;
        match model_list {
            Ok(models) => {
                return Finding::new(
                    check,
                    Verdict::Pass,
                    format!("{} lists {}", redact_url(base), plural(models.len(), "model")),
                );
            }
            // The key has a separate finding.
            Err(error) if error.class == ErrorClass::Auth => {
                return Finding::new(check, Verdict::Pass, "the API responds");
            }
            // The API is there; the key may permit requests but not listing models.
            Err(error) if proves_api_works(error.class) => {
                return Finding::new(
                    check,
                    Verdict::Note,
                    format!("the API responds, but does not list its models: {error}"),
                );
            }
            Err(error)
                if !matches!(error.class, ErrorClass::Path | ErrorClass::InvalidResponse | ErrorClass::Redirect) =>
            {
                return Finding::from_error(check, error);
            }
            Err(_) => {}
        }
        for path in ["/v1", "/api/v1", "/openai/v1", "/api", ""] {
            let mut candidate = base.clone();
            candidate.set_path(path);
            if candidate.path() == base.path() {
                continue;
            }
            let endpoint = Arc::new(Endpoint { base_url: candidate.clone(), ..(*self.endpoint).clone() });
            let result = engine.list_models(&direct_target(&endpoint, ""), self.step_timeout).await;
            // A rejected key also proves that the API is there.
            if result.is_ok() || result.is_err_and(|error| error.class == ErrorClass::Auth) {
                let finding = Finding::new(check, Verdict::Fail, format!("no API at {}", redact_url(base)));
                return Finding { class: Some(ErrorClass::Path), ..finding }
                    .with_hint(format!("set base_url = \"{}\"", redact_url(&candidate)));
            }
        }
        match model_list {
            // An HTML page instead of JSON: a web server, not an API.
            Err(error) if error.class == ErrorClass::InvalidResponse => Finding::from_error(check, error)
                .with_hint("the response is not from an API; check host, port and path of base_url"),
            _ => Finding::new(check, Verdict::Unknown, "no model list; not every service has one"),
        }
    }

    fn check_key(
        &self,
        model_list: &Result<Vec<ModelInfo>, CallError>,
        server: Option<&RecognizedServer>,
    ) -> Option<Finding> {
        let check = "key";
        let no_keys = self.endpoint.keys.is_empty();
        match model_list {
            Err(error) if error.class == ErrorClass::Auth => {
                let hint = match (no_keys, error.status) {
                    (true, _) => format!("no key is configured; run \"mmchat key set {}\"", self.endpoint.name),
                    (false, None) => error.hint.clone().unwrap_or_else(|| "run \"mmchat key list\"".into()),
                    (false, Some(_)) => {
                        let name = &self.endpoint.name;
                        format!("the service rejected this key; run \"mmchat key set {name}\" to replace it")
                    }
                };
                Some(Finding::from_error(check, error).with_hint(hint))
            }
            Ok(_) if no_keys => Some(Finding::new(check, Verdict::Pass, "listing models needs no key")),
            // llama.cpp lists models without a key, so a list does not prove that the key is valid.
            Ok(_) if server.is_some_and(|server| server.software == ServerSoftware::LlamaCpp) => None,
            Ok(_) => Some(Finding::new(check, Verdict::Pass, "accepted")),
            Err(_) => None,
        }
    }

    /// The finding for one rejected key of several. A request uses only one key and would not discover the others.
    fn rejected_key(&self, index: usize, error: &CallError) -> Finding {
        let finding = Finding::from_error("key", error);
        let detail = format!("key {} of {}: {}", index + 1, self.endpoint.keys.len(), finding.detail);
        let hint = finding.hint.clone();
        let hint = hint.unwrap_or_else(|| "replace or remove it; \"mmchat key list\" shows its source".to_owned());
        Finding { detail, ..finding }.with_hint(hint)
    }

    fn check_model(&self, model_list: &Result<Vec<ModelInfo>, CallError>) -> Option<Finding> {
        let (model, model_list) = (self.model.as_ref()?, model_list.as_ref().ok()?);
        let check = "model";
        if model_list.iter().any(|known| known.id == model.upstream_id) {
            return Some(Finding::new(check, Verdict::Pass, format!("\"{}\" is listed", model.upstream_id)));
        }
        let finding = Finding::new(check, Verdict::Note, format!("\"{}\" is not listed", model.upstream_id));
        let closest = closest_name(&model.upstream_id, model_list.iter().map(|known| known.id.as_str()));
        Some(match closest {
            Some(closest) => finding.with_hint(format!("did you mean \"{closest}\"?")),
            None => finding.with_hint(format!("run \"mmchat models available {}\"", self.endpoint.name)),
        })
    }
}

/// Receives the events of test requests, so that their cost can be recorded.
pub(crate) trait DoctorObserver: Sync {
    /// A test request is about to be sent.
    fn on_start(&self, plan: &Plan);
    /// An event of the test request.
    fn on_event(&self, plan: &Plan, event: &Event);
}

/// Default hint for an error that has no specific one.
fn default_hint(class: ErrorClass, endpoint: &str) -> String {
    let hint = match class {
        ErrorClass::Quota => "check the account's balance and quota in the service's console",
        ErrorClass::Rate => "wait, or request a higher rate limit",
        ErrorClass::Forbidden => "check the key's permissions in the service's console",
        ErrorClass::Timeout => "raise --timeout, or check whether the server is overloaded",
        ErrorClass::Auth => {
            let console = "check the key's permissions in the service's console";
            return format!("run \"mmchat key set {endpoint}\", or {console}");
        }
        ErrorClass::Model => return format!("run \"mmchat models available {endpoint}\" and choose a listed model"),
        ErrorClass::Incomplete => "check the timeouts of proxies in between, and the server's log",
        ErrorClass::Overloaded | ErrorClass::NoChannel => {
            "try again later: the service is overloaded or has no upstream for the model"
        }
        _ => "check the server's log",
    };
    hint.to_owned()
}

fn check_clock(date: Timestamp, now: Timestamp) -> Finding {
    let difference = now.duration_since(date).as_secs();
    if difference.abs() <= MAX_CLOCK_SKEW_SECS {
        return Finding::new("clock", Verdict::Pass, format!("within {MAX_CLOCK_SKEW_SECS} s of the server's clock"));
    }
    let side = if difference > 0 { "ahead of" } else { "behind" };
    Finding::new("clock", Verdict::Note, format!("local clock is {} s {side} the server's", difference.abs()))
        .with_hint("correct the local clock: Retry-After dates depend on it")
}

/// URL of `path` at the root of the endpoint's server.
fn root_url(endpoint: &Endpoint, path: &str) -> Url {
    let mut url = endpoint.base_url.clone();
    url.set_path(path);
    url.set_query(None);
    url
}

/// The body as JSON; `None`: not JSON, as servers return an HTML page for unknown paths.
fn parse_json(response: &FetchResponse) -> Option<serde_json::Value> {
    serde_json::from_str(&response.body).ok()
}

/// Whether an error of this class proves that the API works.
fn proves_api_works(class: ErrorClass) -> bool {
    use ErrorClass as C;
    matches!(class, C::Forbidden | C::Rate | C::Quota | C::Request | C::Model | C::NoChannel)
}
