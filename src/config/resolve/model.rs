//! What a model's entry says: what it is sent, what it can, what it costs.

use std::sync::Arc;

use super::{Resolver, direct_target};
use crate::{
    config::{
        Problem,
        file::{ModelEntry, ParamsEntry, PriceEntry, TimeoutsEntry},
        names::normalised,
        values::At,
    },
    model::{
        Params,
        endpoint::Timeouts,
        target::{DecodeOptions, Price, TargetId},
    },
};

impl Resolver {
    pub(super) fn model(&mut self, name: &At<String>, entry: &ModelEntry) {
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
}

pub(super) fn timeouts(entry: Option<TimeoutsEntry>) -> Timeouts {
    let entry = entry.unwrap_or_default();
    Timeouts {
        connect: entry.connect.map(|time| time.0),
        first_token: entry.first_token.map(|time| time.0),
        idle: entry.idle.map(|time| time.0),
        total: entry.total.map(|time| time.0),
    }
}

pub(in crate::config) fn params(entry: &ParamsEntry) -> Params {
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
