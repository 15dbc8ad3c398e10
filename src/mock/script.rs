//! Script of a mock model: its speed, answer length and fault.
//!
//! A script is written as settings joined with `+`, on the command line (`--model slow=ttft=2s+tps=5`) or in the model
//! name of a request (`fast+tokens=50+fault=cut`).

use std::time::Duration;

use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

use crate::config::parse_duration;

/// Behavior of a scripted model.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Time to the first token.
    pub ttft: Duration,
    /// Tokens per second after the first; 0: unlimited.
    pub tps: f64,
    /// Number of answer tokens.
    pub tokens: u64,
    /// Number of reasoning tokens before the answer.
    pub reasoning: u64,
    /// Whether usage is reported.
    pub usage: bool,
    /// Fault to simulate.
    pub fault: Option<Fault>,
    /// Number of requests that fail before the model answers; `None`: all.
    pub fail_first: Option<u64>,
    /// Value of Retry-After, for faults that send it.
    pub retry_after: Option<String>,
    /// Answer text, instead of a generated one.
    pub text: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(50),
            tps: 100.0,
            tokens: 60,
            reasoning: 0,
            usage: true,
            fault: None,
            fail_first: None,
            retry_after: None,
            text: None,
        }
    }
}

/// Faults: one for each class of `docs/errors.md` that a server can cause, and variants of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// The connection is closed before the response head.
    Reset,
    /// The server never responds.
    #[strum(serialize = "silent")]
    NoResponse,
    /// 500.
    Server,
    /// 502 with an HTML page.
    BadGateway,
    /// 503 with Retry-After.
    Overloaded,
    /// 503 of a One-API gateway without a channel for the model.
    NoChannel,
    /// 504.
    GatewayTimeout,
    /// 429 with Retry-After.
    Rate,
    /// 429 `insufficient_quota`.
    Quota,
    /// 401.
    Auth,
    /// 403.
    Forbidden,
    /// 404 that names the model.
    Model,
    /// 404 with an HTML page.
    Path,
    /// 400 `context_length_exceeded`.
    Context,
    /// 400 `content_policy_violation`.
    Filter,
    /// 400.
    Request,
    /// 409.
    Conflict,
    /// 302 to another host.
    Redirect,
    /// 200 with an HTML page.
    #[strum(serialize = "garbage")]
    HtmlPage,
    /// 200 with an empty body.
    Empty,
    /// 200 whose body is an error.
    ErrorBody,
    /// 200 whose first event is an error.
    InStream,
    /// The connection breaks in the middle of the answer.
    #[strum(serialize = "cut")]
    BrokenConnection,
    /// The stream ends cleanly in the middle of the answer, without an end signal.
    #[strum(serialize = "cut-clean")]
    MissingEnd,
    /// Like `cut-clean`, but with a `[DONE]` that a One-API gateway adds to an incomplete answer.
    #[strum(serialize = "cut-forged")]
    FalseDone,
    /// An error event in the middle of the answer.
    #[strum(serialize = "cut-error")]
    ErrorEvent,
    /// The answer stops in the middle and the connection stays open.
    Stall,
    /// A frame in the middle is not JSON.
    #[strum(serialize = "garbled")]
    InvalidChunk,
    /// The answer is complete, with `[DONE]` but no finish reason.
    DoneOnly,
    /// The answer is complete and the connection stays open after `[DONE]`.
    Lingering,
    /// Requests with `max_tokens` are rejected, as newer models do.
    MaxTokens,
}

impl Fault {
    /// Whether it occurs only after the answer has started.
    #[must_use]
    pub fn is_midway(self) -> bool {
        matches!(
            self,
            Self::BrokenConnection
                | Self::MissingEnd
                | Self::FalseDone
                | Self::ErrorEvent
                | Self::Stall
                | Self::InvalidChunk
                | Self::DoneOnly
                | Self::Lingering
        )
    }
}

/// Maximum number of generated tokens.
const MAX_TOKENS: u64 = 1_000_000;

impl Script {
    /// Returns this script with the settings in `text` (`ttft=1s+tps=20+fault=cut`) applied. A fault name alone sets
    /// the fault.
    ///
    /// # Errors
    /// A message that names the invalid setting.
    pub fn with_settings(&self, text: &str) -> Result<Self, String> {
        let mut script = self.clone();
        for setting in text.split('+').filter(|setting| !setting.is_empty()) {
            script.apply_setting(setting)?;
        }
        Ok(script)
    }

    fn apply_setting(&mut self, setting: &str) -> Result<(), String> {
        let number = |value: &str| {
            value.parse::<u64>().map_err(|_| format!("invalid setting \"{setting}\": expected a whole number"))
        };
        let length = |value: &str| {
            number(value).and_then(|tokens| {
                let fits = tokens <= MAX_TOKENS;
                fits.then_some(tokens).ok_or(format!("invalid setting \"{setting}\": at most {MAX_TOKENS} tokens"))
            })
        };
        match setting.split_once('=') {
            Some(("ttft", value)) => {
                self.ttft =
                    parse_duration(value).map_err(|expected| format!("invalid setting \"{setting}\": {expected}"))?;
            }
            Some(("tps", value)) => {
                let tps: f64 =
                    value.parse().map_err(|_| format!("invalid setting \"{setting}\": expected a number"))?;
                self.tps = Some(tps)
                    .filter(|tps| tps.is_finite() && *tps >= 0.0)
                    .ok_or(format!("invalid setting \"{setting}\": expected 0 or more"))?;
            }
            Some(("tokens", value)) => self.tokens = length(value)?,
            Some(("reasoning", value)) => self.reasoning = length(value)?,
            Some(("usage", "on")) => self.usage = true,
            Some(("usage", "off")) => self.usage = false,
            Some(("fail-first", value)) => self.fail_first = Some(number(value)?),
            Some(("retry-after", value)) => self.retry_after = Some(value.to_owned()),
            Some(("text", value)) => self.text = Some(value.to_owned()),
            Some(("fault", name)) => self.fault = Some(parse_fault(name)?),
            None => self.fault = Some(parse_fault(setting)?),
            Some((key, _)) => {
                return Err(format!(
                    "unknown setting \"{key}\": expected ttft, tps, tokens, reasoning, usage=on|off, fault, fail-first, retry-after, text"
                ));
            }
        }
        Ok(())
    }
}

fn parse_fault(name: &str) -> Result<Fault, String> {
    name.parse()
        .map_err(|_| format!("unknown fault \"{name}\"; available: {}", <Fault as VariantNames>::VARIANTS.join(", ")))
}

/// Built-in models: their names and scripts.
#[must_use]
pub fn built_in_models(base: &Script) -> Vec<(String, Script)> {
    let slow = Script { ttft: Duration::from_millis(1500), tps: 20.0, reasoning: 40, ..base.clone() };
    let strong = Script { ttft: Duration::from_millis(400), tps: 40.0, tokens: 120, reasoning: 20, ..base.clone() };
    let instant = Script { ttft: Duration::ZERO, tps: 0.0, ..base.clone() };
    let mut models = vec![
        ("fast".to_owned(), base.clone()),
        ("strong".to_owned(), strong),
        ("slow".to_owned(), slow),
        ("instant".to_owned(), instant),
    ];
    for fault in <Fault as VariantArray>::VARIANTS {
        models.push((<&str>::from(fault).to_owned(), Script { fault: Some(*fault), ..base.clone() }));
    }
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_a_script() {
        let script = Script::default()
            .with_settings("ttft=2s+tps=0+tokens=5+usage=off+cut+fail-first=1")
            .expect("valid settings");
        assert_eq!((script.ttft, script.tokens, script.usage), (Duration::from_secs(2), 5, false));
        assert_eq!((script.fault, script.fail_first), (Some(Fault::BrokenConnection), Some(1)));
    }

    #[test]
    fn error_names_the_invalid_setting() {
        for setting in ["speed=1", "fault=nonsense", "tps=-1", "tokens=x", "tokens=9999999999", "nonsense"] {
            let error = Script::default().with_settings(setting).expect_err("invalid setting");
            assert!(setting.split('=').any(|part| error.contains(part)), "{setting}: {error}");
        }
    }

    #[test]
    fn every_fault_has_a_model_and_names_are_unique() {
        let models = built_in_models(&Script::default());
        let names: std::collections::BTreeSet<_> = models.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), models.len());
        for fault in <Fault as VariantArray>::VARIANTS {
            assert!(models.iter().any(|(model, script)| model == <&str>::from(fault) && script.fault == Some(*fault)));
        }
    }
}
