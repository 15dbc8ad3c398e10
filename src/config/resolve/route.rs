//! What a route says, and whether it makes sense.

use std::sync::Arc;

use super::Resolver;
use crate::{
    config::{Route, file::RouteEntry, names::normalised, values::At},
    model::target::Target,
    routing::{OnCut, Policy, strategy::Strategy},
};

impl Resolver {
    pub(super) fn route(&mut self, name: &At<String>, entry: &RouteEntry) {
        let strategy = entry.strategy.as_ref().and_then(|word| self.one_of("strategy", word, &Strategy::NAMES));
        let strategy = strategy.unwrap_or_default();
        if entry.models.is_empty() {
            self.problem(format!("route `{}` has no models", name.value), &name.span);
        }
        let (mut models, mut weights): (Vec<Arc<Target>>, Vec<u32>) = (Vec::new(), Vec::new());
        for member in &entry.models {
            let wanted = At { value: member.value.name.clone(), span: member.span.clone() };
            let Some(target) = self.target(&wanted, &format!("route `{}`", name.value)) else { continue };
            if models.iter().any(|known| known.id == target.id) {
                self.problem(format!("`{}` is in route `{}` twice", wanted.value, name.value), &wanted.span);
            }
            models.push(target);
            weights.push(member.value.weight.unwrap_or(1));
        }
        if !weights.is_empty() && weights.iter().all(|&weight| weight == 0) {
            self.problem(format!("all weights of route `{}` are 0", name.value), &name.span).help =
                Some("give at least one model a weight of 1 or more".into());
        }
        if strategy != Strategy::Weighted && entry.models.iter().any(|member| member.value.weight.is_some()) {
            self.config.warnings.push(format!(
                "route {}: weights are only for `strategy = \"weighted\"`, and it is `{}`",
                name.value,
                strategy.as_str()
            ));
        }
        if entry.sticky && entry.strategy.is_some() && strategy != Strategy::Weighted {
            self.config.warnings.push(format!(
                "route {}: `sticky` chooses by who asks, so `strategy = \"{}\"` has no say",
                name.value,
                strategy.as_str()
            ));
        }
        if strategy == Strategy::Cheapest {
            self.comparable_prices(name, &models);
        }
        let on_cut = entry.on_cut.as_ref().and_then(|word| {
            let known = [("error", OnCut::Error), ("restart", OnCut::Restart), ("buffer", OnCut::Buffer)];
            self.one_of("on_cut", word, &known)
        });
        let on_filter = entry.on_filter.as_ref();
        let filter_goes_on = on_filter
            .and_then(|word| self.one_of("on_filter", word, &[("stop", false), ("next", true)]))
            .unwrap_or(false);
        let hedge_after = entry.hedge_after.map(|time| time.0);
        let policy = Policy { strategy, weights, sticky: entry.sticky, hedge_after };
        let hold = entry.hold.map(|time| time.0);
        self.config.routes.push(Route { name: normalised(&name.value), policy, models, on_cut, hold, filter_goes_on });
    }

    /// The money a route's models are paid in is one, where they are chosen by it.
    fn comparable_prices(&mut self, name: &At<String>, models: &[Arc<Target>]) {
        let mut currencies: Vec<&str> =
            models.iter().filter_map(|model| model.price.as_ref()).map(|price| price.currency.as_str()).collect();
        currencies.sort_unstable();
        currencies.dedup();
        if currencies.len() > 1 {
            let message = format!("route `{}` compares prices in {}", name.value, currencies.join(" and "));
            self.problem(message, &name.span).help = Some("give the prices of its models in one currency".into());
        }
        for model in models.iter().filter(|model| model.price.is_none()) {
            self.config.warnings.push(format!(
                "route {}: {} has no price, so the strategy `cheapest` asks it last",
                name.value, model.id
            ));
        }
    }
}
