//! A target: one way to ask one model.
//!
//! Owns what an attempt needs to know: endpoint, upstream id, parameters, price, limits. Refuses to know how several
//! targets are ordered (`route`) or where they were written down (`config`).

use std::sync::Arc;

use crate::model::{
    Params,
    endpoint::{Endpoint, Timeouts},
};

/// The name a target goes by in messages and records: the user's model name, or `endpoint/upstream-id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub String);

impl std::fmt::Display for TargetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way to ask one model.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// Where it is asked.
    pub endpoint: Arc<Endpoint>,
    /// What the service calls the model.
    pub upstream: String,
    /// Parameters of the model's entry; those of the request lie on top.
    pub params: Params,
    /// What it costs, if known.
    pub price: Option<Price>,
    /// How many tokens it reads and writes together, if known.
    pub context: Option<u64>,
    /// The user's labels.
    pub tags: Vec<String>,
    /// How its replies are to be read.
    pub decode: DecodeOptions,
    /// The endpoint's timeouts with the model's own on top.
    pub timeouts: Timeouts,
    /// It thinks before it answers, so silence lasts longer.
    pub reasons: bool,
    /// Whether it looks at pictures; `None`: nobody said.
    pub images: Option<bool>,
    /// Whether it calls tools; `None`: nobody said.
    pub tools: Option<bool>,
}

impl Target {
    /// Whether a prompt of about so many tokens may fit; the estimate may be off by a quarter either way.
    #[must_use]
    pub fn fits(&self, estimated: u64) -> bool {
        self.context.is_none_or(|context| context >= estimated * 4 / 5)
    }

    /// What a prompt of so many tokens costs, with an answer of `most` or of common length; `None`: it has no price.
    #[must_use]
    pub fn expected_cost(&self, prompt_tokens: u64, most: Option<u64>) -> Option<f64> {
        /// As long as answers commonly are, for comparing prices.
        const ANSWER: u64 = 500;
        let output = most.map_or(ANSWER, |most| most.min(ANSWER));
        let usage = crate::model::Usage { input: Some(prompt_tokens), output: Some(output), ..Default::default() };
        self.price.as_ref()?.cost(&usage)
    }
}

/// Settings that no reply tells by itself; never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The prompt template already opened `<think>`: text before `</think>` is reasoning.
    pub think_prefilled: bool,
    /// Every delta repeats the whole text so far.
    pub cumulative_deltas: bool,
}

/// Price per million tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Of input, in `currency`.
    pub input: f64,
    /// Of output, in `currency`.
    pub output: f64,
    /// Of input read from a cache, if it differs.
    pub cached_input: Option<f64>,
    /// ISO 4217 code.
    pub currency: String,
}

impl Price {
    /// What `usage` costs, in `currency`; `None` when a figure is missing.
    #[must_use]
    pub fn cost(&self, usage: &crate::model::Usage) -> Option<f64> {
        let cached = usage.cached.unwrap_or(0).min(usage.input?);
        let fresh = usage.input? - cached;
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let price = fresh as f64 * self.input
            + cached as f64 * self.cached_input.unwrap_or(self.input)
            + usage.output? as f64 * self.output;
        Some(price / 1e6)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Targets for tests of the floors above.

    use super::*;
    use crate::model::endpoint::testing::endpoint;

    pub(crate) fn target(name: &str) -> Target {
        let mut endpoint = endpoint(&format!("https://{name}.example.com/v1"));
        endpoint.name = format!("{name}-endpoint");
        Target {
            id: TargetId(name.into()),
            endpoint: Arc::new(endpoint),
            upstream: format!("{name}-upstream"),
            params: Params::default(),
            price: None,
            context: None,
            tags: Vec::new(),
            decode: DecodeOptions::default(),
            timeouts: Timeouts::default(),
            reasons: false,
            images: None,
            tools: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Usage;

    #[test]
    fn cached_tokens_are_part_of_the_input_and_cost_less() {
        let price = Price { input: 2.0, output: 10.0, cached_input: Some(1.0), currency: "USD".into() };
        let usage = Usage { input: Some(1_000_000), cached: Some(500_000), output: Some(100_000), ..Usage::default() };
        assert_eq!(price.cost(&usage), Some(2.5));
        assert_eq!(price.cost(&Usage::default()), None);
    }
}
