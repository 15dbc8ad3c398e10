//! What a scripted model does: its speed, its length, and how it fails.
//!
//! A model is described by words joined with `+`, on the command line (`--model slow=ttft=2s+tps=5`) or right in the
//! name that is asked for (`fast+tokens=50+fault=cut`). Owns that little language.

use std::time::Duration;

use crate::config::parse_duration;

/// What a scripted model does.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Time to the first token.
    pub ttft: Duration,
    /// Tokens a second after it; 0: as fast as they can be written.
    pub tps: f64,
    /// Tokens of the answer.
    pub tokens: u64,
    /// Tokens of thinking before it.
    pub reasoning: u64,
    /// Whether usage is reported.
    pub usage: bool,
    /// How it fails.
    pub fault: Option<Fault>,
    /// It fails only so many times, then answers; `None`: always.
    pub fail_first: Option<u64>,
    /// What Retry-After says, for the faults that send one.
    pub retry_after: Option<String>,
    /// The answer's text, in place of a generated one.
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

/// How a model fails: one for each class of `docs/errors.md` that a server can cause, and some it hides behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed before the reply's head.
    Reset,
    /// Nothing is ever said.
    Silent,
    /// 500.
    Server,
    /// 502 with a page.
    BadGateway,
    /// 503 with Retry-After.
    Overloaded,
    /// 503 of a One-API without a channel.
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
    /// 404 with a page.
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
    /// 200 with a page.
    Garbage,
    /// 200 with nothing.
    Empty,
    /// 200 whose body is an error.
    ErrorBody,
    /// 200 whose first event is an error.
    InStream,
    /// The connection breaks in the middle of the answer.
    Cut,
    /// The stream ends cleanly in the middle of the answer, without an end signal.
    CutClean,
    /// As `cut-clean`, but a `[DONE]` is forged, by a One-API.
    CutForged,
    /// An error event in the middle of the answer.
    CutError,
    /// The answer stops in the middle and the connection stays open.
    Stall,
    /// A frame in the middle is not JSON.
    Garbled,
    /// The answer is whole, with `[DONE]` but no finish reason.
    DoneOnly,
    /// The answer is whole and the connection stays open after `[DONE]`.
    Lingering,
    /// The first parameter that newer models refuse (`max_tokens`) is refused.
    MaxTokens,
}

impl Fault {
    /// Every fault by its name.
    pub const NAMES: [(&'static str, Self); 31] = [
        ("reset", Self::Reset),
        ("silent", Self::Silent),
        ("server", Self::Server),
        ("bad-gateway", Self::BadGateway),
        ("overloaded", Self::Overloaded),
        ("no-channel", Self::NoChannel),
        ("gateway-timeout", Self::GatewayTimeout),
        ("rate", Self::Rate),
        ("quota", Self::Quota),
        ("auth", Self::Auth),
        ("forbidden", Self::Forbidden),
        ("model", Self::Model),
        ("path", Self::Path),
        ("context", Self::Context),
        ("filter", Self::Filter),
        ("request", Self::Request),
        ("conflict", Self::Conflict),
        ("redirect", Self::Redirect),
        ("garbage", Self::Garbage),
        ("empty", Self::Empty),
        ("error-body", Self::ErrorBody),
        ("in-stream", Self::InStream),
        ("cut", Self::Cut),
        ("cut-clean", Self::CutClean),
        ("cut-forged", Self::CutForged),
        ("cut-error", Self::CutError),
        ("stall", Self::Stall),
        ("garbled", Self::Garbled),
        ("done-only", Self::DoneOnly),
        ("lingering", Self::Lingering),
        ("max-tokens", Self::MaxTokens),
    ];

    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, fault)| fault)
    }

    /// Whether it shows only once the answer is under way.
    #[must_use]
    pub fn is_midway(self) -> bool {
        matches!(
            self,
            Self::Cut
                | Self::CutClean
                | Self::CutForged
                | Self::CutError
                | Self::Stall
                | Self::Garbled
                | Self::DoneOnly
                | Self::Lingering
        )
    }
}

/// The longest text a mock makes up.
const MOST_TOKENS: u64 = 1_000_000;

impl Script {
    /// This script changed by `words` (`ttft=1s+tps=20+fault=cut`). A bare fault name is a fault.
    ///
    /// # Errors
    /// What is wrong with which word.
    pub fn changed(&self, words: &str) -> Result<Self, String> {
        let mut script = self.clone();
        for word in words.split('+').filter(|word| !word.is_empty()) {
            script.word(word)?;
        }
        Ok(script)
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        let number = |value: &str| value.parse::<u64>().map_err(|_| format!("`{word}`: not a whole number"));
        let length = |value: &str| {
            number(value).and_then(|tokens| {
                let fits = tokens <= MOST_TOKENS;
                fits.then_some(tokens).ok_or(format!("`{word}`: at most {MOST_TOKENS} tokens"))
            })
        };
        match word.split_once('=') {
            Some(("ttft", value)) => self.ttft = parse_duration(value)?,
            Some(("tps", value)) => {
                let tps: f64 = value.parse().map_err(|_| format!("`{word}`: not a number"))?;
                self.tps =
                    Some(tps).filter(|tps| tps.is_finite() && *tps >= 0.0).ok_or(format!("`{word}`: not a speed"))?;
            }
            Some(("tokens", value)) => self.tokens = length(value)?,
            Some(("reasoning", value)) => self.reasoning = length(value)?,
            Some(("usage", "on")) => self.usage = true,
            Some(("usage", "off")) => self.usage = false,
            Some(("fail-first", value)) => self.fail_first = Some(number(value)?),
            Some(("retry-after", value)) => self.retry_after = Some(value.to_owned()),
            Some(("text", value)) => self.text = Some(value.to_owned()),
            Some(("fault", name)) => self.fault = Some(fault(name)?),
            None => self.fault = Some(fault(word)?),
            Some((key, _)) => {
                return Err(format!(
                    "unknown word `{key}`: known are ttft, tps, tokens, reasoning, usage=on|off, fault, fail-first, retry-after, text"
                ));
            }
        }
        Ok(())
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| {
        let known: Vec<_> = Fault::NAMES.iter().map(|(name, _)| *name).collect();
        format!("unknown fault `{name}`: known are {}", known.join(", "))
    })
}

/// The models there are without any flags: their names and what they do.
#[must_use]
pub fn built_in(base: &Script) -> Vec<(String, Script)> {
    let slow = Script { ttft: Duration::from_millis(1500), tps: 20.0, reasoning: 40, ..base.clone() };
    let strong = Script { ttft: Duration::from_millis(400), tps: 40.0, tokens: 120, reasoning: 20, ..base.clone() };
    let instant = Script { ttft: Duration::ZERO, tps: 0.0, ..base.clone() };
    let mut models = vec![
        ("fast".to_owned(), base.clone()),
        ("strong".to_owned(), strong),
        ("slow".to_owned(), slow),
        ("instant".to_owned(), instant),
    ];
    for (name, fault) in Fault::NAMES {
        models.push((name.to_owned(), Script { fault: Some(fault), ..base.clone() }));
    }
    models
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_change_a_script() {
        let script =
            Script::default().changed("ttft=2s+tps=0+tokens=5+usage=off+cut+fail-first=1").expect("known words");
        assert_eq!((script.ttft, script.tokens, script.usage), (Duration::from_secs(2), 5, false));
        assert_eq!((script.fault, script.fail_first), (Some(Fault::Cut), Some(1)));
    }

    #[test]
    fn unknown_words_are_named() {
        for words in ["speed=1", "fault=nonsense", "tps=-1", "tokens=x", "tokens=9999999999", "nonsense"] {
            let problem = Script::default().changed(words).expect_err("unknown");
            assert!(words.split('=').any(|part| problem.contains(part)), "{words}: {problem}");
        }
    }

    #[test]
    fn every_fault_is_a_model_and_every_name_is_used_once() {
        let models = built_in(&Script::default());
        let names: std::collections::BTreeSet<_> = models.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), models.len());
        for (name, fault) in Fault::NAMES {
            assert!(models.iter().any(|(model, script)| model == name && script.fault == Some(fault)));
        }
    }
}
