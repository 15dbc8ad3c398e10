//! Validates the models of the config file: parameters, capabilities, timeouts and prices.

use std::sync::Arc;

use super::{Resolver, direct_target};

use crate::{
    config::{
        Problem,
        convert::{params, timeouts},
        file::{ModelEntry, PriceEntry},
        names::normalize_name,
        values::Spanned,
    },
    model::{
        ParamWorkaround, SystemRole,
        target::{DecodeOptions, Price, TargetId},
    },
};

impl Resolver {
    pub(super) fn add_model(&mut self, name: &Spanned<String>, entry: &ModelEntry) {
        let endpoint_name = normalize_name(&entry.endpoint.value);
        let Some(endpoint) = self.config.endpoint(&endpoint_name).cloned() else {
            let known = self.config.endpoints.iter().map(|endpoint| endpoint.name.as_str());
            let problem = Problem::new(
                &self.source,
                format!("unknown endpoint \"{endpoint_name}\""),
                entry.endpoint.span.clone(),
            );
            let problem = problem
                .with_primary_label("no entry with this name in [endpoints]")
                .with_suggestion(&endpoint_name, known);
            self.push_unknown_name(&endpoint_name, problem);
            return self.skipped_names.push(normalize_name(&name.value));
        };
        if entry.model.value.is_empty() {
            self.add_problem("the upstream model ID is empty", &entry.model.span);
        }
        let mut target = direct_target(&endpoint, &entry.model.value);
        target.id = TargetId(normalize_name(&name.value));
        target.params = params(&entry.params);
        if let Some(field) = ["model", "messages", "stream"].iter().find(|field| entry.extra.contains_key(**field)) {
            self.add_problem(format!("`extra` of model \"{}\" would replace `{field}`", name.value), &name.span).help =
                Some("remove it; mmchat sets this field in every request".into());
        }
        match serde_json::to_value(&entry.extra) {
            Ok(serde_json::Value::Object(extra)) => target.params.extra = extra,
            _ => {
                self.add_problem("`extra` contains a value that JSON cannot represent", &name.span);
            }
        }
        target.price = entry.price.as_ref().map(|price| self.price(price));
        target.context_window = entry.context;
        target.tags.clone_from(&entry.tags);
        target.timeouts = endpoint.timeouts.with_overrides(timeouts(entry.timeouts));
        target.decode_options =
            DecodeOptions { think_prefilled: entry.think_prefilled, cumulative_deltas: entry.cumulative_deltas };
        for capability in &entry.capabilities {
            const KNOWN: [&str; 3] = ["reasoning", "images", "tools"];
            if !KNOWN.contains(&capability.value.as_str()) {
                let message = format!("unknown capability \"{}\"", capability.value);
                let problem = Problem::new(&self.source, message, capability.span.clone());
                self.push_problem(problem.help(format!("available: {}", KNOWN.join(", "))));
            }
        }
        let has_capability = |name: &str| entry.capabilities.iter().any(|capability| capability.value == name);
        target.supports_images = (!entry.capabilities.is_empty()).then(|| has_capability("images"));
        target.supports_tools = (!entry.capabilities.is_empty()).then(|| has_capability("tools"));
        target.workarounds = self.workarounds(entry);
        target.is_reasoning |= has_capability("reasoning") || entry.tags.iter().any(|tag| tag == "reasoning");
        self.config.models.push(Arc::new(target));
    }

    /// The changes to every request to the model.
    fn workarounds(&mut self, entry: &ModelEntry) -> Vec<ParamWorkaround> {
        const REQUIRED: [&str; 3] = ["model", "messages", "stream"];
        let mut workarounds = Vec::new();
        for field in &entry.drop {
            if REQUIRED.contains(&field.value.as_str()) {
                self.add_problem(format!("`{}` cannot be dropped", field.value), &field.span).help =
                    Some("remove it; without this field, there is no request".into());
            }
            workarounds.push(ParamWorkaround::Omit(field.value.clone()));
        }
        workarounds.extend(entry.stream.map(ParamWorkaround::Stream));
        let system = entry.system.as_ref().and_then(|role| self.parse_keyword::<SystemRole>("system", role));
        workarounds.extend(system.map(ParamWorkaround::System));
        workarounds
    }

    fn price(&mut self, entry: &PriceEntry) -> Price {
        for amount in [Some(&entry.input), Some(&entry.output), entry.cached_input.as_ref()].into_iter().flatten() {
            if !(amount.value.is_finite() && amount.value >= 0.0) {
                self.add_problem("a price must be a finite number, 0 or more", &amount.span);
            }
        }
        Price {
            input: entry.input.value,
            output: entry.output.value,
            cached_input: entry.cached_input.as_ref().map(|price| price.value),
            currency: entry.currency.as_ref().map_or_else(|| "USD".into(), |code| self.currency_code(code)),
        }
    }
}
