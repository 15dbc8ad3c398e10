//! A target: one model at one endpoint, with the parameters, price and timeouts that an attempt needs.
//!
//! `routing` orders several targets; `config` creates them.

use std::sync::Arc;

use crate::model::{
    ParamWorkaround, Params,
    endpoint::{Endpoint, Timeouts},
};

/// Name of a target in messages and records: the model name in the config, or `endpoint/id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub String);

impl std::fmt::Display for TargetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One model at one endpoint.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name.
    pub id: TargetId,
    /// Endpoint that serves it.
    pub endpoint: Arc<Endpoint>,
    /// Model id sent to the service.
    pub upstream_id: String,
    /// Parameters from the model's config; those of the request override them.
    pub params: Params,
    /// Price, if known.
    pub price: Option<Price>,
    /// Context window in tokens, input and output together, if known.
    pub context_window: Option<u64>,
    /// Tags from the config.
    pub tags: Vec<String>,
    /// Decoding options for its responses.
    pub decode_options: DecodeOptions,
    /// Timeouts of the endpoint, overridden by those of the model.
    pub timeouts: Timeouts,
    /// Whether it is a reasoning model, which takes longer to send the first token.
    pub is_reasoning: bool,
    /// Whether it supports image input; `None`: unknown.
    pub supports_images: Option<bool>,
    /// Whether it supports tool calling; `None`: unknown.
    pub supports_tools: Option<bool>,
    /// Changes to every request: `drop`, `stream` and `system` in the config.
    pub workarounds: Vec<ParamWorkaround>,
}

impl Target {
    /// Whether a prompt of `estimated_tokens` may fit, allowing for an estimate that is up to a quarter too high.
    #[must_use]
    pub fn fits_context(&self, estimated_tokens: u64) -> bool {
        self.context_window.is_none_or(|context_window| context_window >= estimated_tokens * 4 / 5)
    }

    /// Expected cost of a request, with an answer of typical length or `max_tokens` if that is less; `None`: the price
    /// is unknown.
    #[must_use]
    pub fn expected_cost(&self, prompt_tokens: u64, max_tokens: Option<u64>) -> Option<f64> {
        /// Typical answer length in tokens, for comparing prices.
        const TYPICAL_OUTPUT: u64 = 500;
        let output = max_tokens.map_or(TYPICAL_OUTPUT, |max_tokens| max_tokens.min(TYPICAL_OUTPUT));
        let usage = crate::model::Usage { input: Some(prompt_tokens), output: Some(output), ..Default::default() };
        self.price.as_ref()?.cost(&usage)
    }
}

/// Decoding settings that cannot be detected from a response. They come from the config and are never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The prompt template already contains `<think>`: text before `</think>` is reasoning.
    pub think_prefilled: bool,
    /// Every delta repeats the complete text so far.
    pub cumulative_deltas: bool,
}

/// Price per million tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// Input price in `currency`.
    pub input: f64,
    /// Output price in `currency`.
    pub output: f64,
    /// Price of input read from a cache, if it differs.
    pub cached_input: Option<f64>,
    /// ISO 4217 currency code.
    pub currency: String,
}

impl Price {
    /// Cost of `usage` in `currency`; `None` when a token count is missing.
    #[must_use]
    pub fn cost(&self, usage: &crate::model::Usage) -> Option<f64> {
        let cached = usage.cached.unwrap_or(0).min(usage.input?);
        let uncached = usage.input? - cached;
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let price_sum = uncached as f64 * self.input
            + cached as f64 * self.cached_input.unwrap_or(self.input)
            + usage.output? as f64 * self.output;
        Some(price_sum / 1e6)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Targets for tests of the layers above.

    use super::*;
    use crate::model::endpoint::testing::endpoint;

    pub(crate) fn target(name: &str) -> Target {
        let mut endpoint = endpoint(&format!("https://{name}.example.com/v1"));
        endpoint.name = format!("{name}-endpoint");
        Target {
            id: TargetId(name.into()),
            endpoint: Arc::new(endpoint),
            upstream_id: format!("{name}-upstream"),
            params: Params::default(),
            price: None,
            context_window: None,
            tags: Vec::new(),
            decode_options: DecodeOptions::default(),
            timeouts: Timeouts::default(),
            is_reasoning: false,
            supports_images: None,
            supports_tools: None,
            workarounds: Vec::new(),
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
