//! Validates the routes of the config file.

use std::sync::Arc;

use super::Resolver;
use crate::{
    config::{
        Route,
        file::RouteEntry,
        names::normalize_name,
        values::{RouteMember, Spanned},
    },
    model::target::Target,
    routing::{RoutePolicy, strategy::Strategy},
};

impl Resolver {
    pub(super) fn add_route(&mut self, name: &Spanned<String>, entry: &RouteEntry) {
        let strategy = entry.strategy.as_ref().and_then(|keyword| self.parse_keyword::<Strategy>("strategy", keyword));
        let strategy = strategy.unwrap_or_default();
        if entry.models.is_empty() {
            self.add_problem(format!("route \"{}\" has no models", name.value), &name.span);
        }
        let (mut models, mut weights): (Vec<Arc<Target>>, Vec<u32>) = (Vec::new(), Vec::new());
        for member in &entry.models {
            let reference = Spanned { value: member.value.name.clone(), span: member.span.clone() };
            let Some(target) = self.find_target(&reference, &format!("route \"{}\"", name.value)) else { continue };
            if models.iter().any(|known| known.id == target.id) {
                self.add_problem(
                    format!("\"{}\" is listed twice in route \"{}\"", reference.value, name.value),
                    &reference.span,
                );
            }
            models.push(target);
            weights.push(member.value.weight.unwrap_or(1));
        }
        // Also the weights of members with errors: one of them may be above 0.
        let has_weight_0 = |member: &Spanned<RouteMember>| member.value.weight == Some(0);
        if !entry.models.is_empty() && entry.models.iter().all(has_weight_0) {
            self.add_problem(format!("all weights of route \"{}\" are 0", name.value), &name.span).help =
                Some("set the weight of at least one model to 1 or more".into());
        }
        if strategy != Strategy::Weighted && entry.models.iter().any(|member| member.value.weight.is_some()) {
            self.config.warnings.push(format!(
                "route \"{}\": weights only apply to `strategy = \"weighted\"`, but the strategy is \"{}\"",
                name.value,
                strategy.as_str()
            ));
        }
        if entry.sticky && entry.strategy.is_some() && strategy != Strategy::Weighted {
            self.config.warnings.push(format!(
                "route \"{}\": `sticky` selects the model by user or conversation, so `strategy = \"{}\"` has no effect",
                name.value,
                strategy.as_str()
            ));
        }
        if strategy == Strategy::Cheapest {
            self.check_prices(name, &models);
        }
        let on_incomplete =
            entry.on_incomplete.as_ref().and_then(|keyword| self.parse_keyword("on_incomplete", keyword));
        let on_filter = entry.on_filter.as_ref();
        let on_filter = on_filter.and_then(|keyword| self.parse_keyword("on_filter", keyword)).unwrap_or_default();
        let hedge_after = entry.hedge_after.map(|duration| duration.0);
        let policy = RoutePolicy { strategy, weights, sticky: entry.sticky, hedge_after };
        let hold = entry.hold.map(|duration| duration.0);
        self.config.routes.push(Route {
            name: normalize_name(&name.value),
            policy,
            models,
            on_incomplete,
            hold,
            on_filter,
        });
    }

    /// With the strategy `cheapest`, all prices of a route must be in one currency.
    fn check_prices(&mut self, name: &Spanned<String>, models: &[Arc<Target>]) {
        let mut currencies: Vec<&str> =
            models.iter().filter_map(|model| model.price.as_ref()).map(|price| price.currency.as_str()).collect();
        currencies.sort_unstable();
        currencies.dedup();
        if currencies.len() > 1 {
            let message = format!("route \"{}\" compares prices in {}", name.value, currencies.join(" and "));
            self.add_problem(message, &name.span).help = Some("use one currency for the prices of its models".into());
        }
        for model in models.iter().filter(|model| model.price.is_none()) {
            self.config.warnings.push(format!(
                "route \"{}\": model \"{}\" has no price, so the strategy \"cheapest\" tries it last",
                name.value, model.id
            ));
        }
    }
}
