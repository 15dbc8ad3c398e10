//! What may be spent and what is kept, checked.

use super::Resolver;
use crate::{
    config::{
        History,
        error::Problem,
        file::{ConfigFile, SpendEntry},
        names::normalised,
        values::{AmountEntry, At},
    },
    routing::spend::{Period, SpendLimit, SpendScope},
};

/// A hundred years.
const MOST_DAYS: u32 = 36_500;

impl Resolver {
    pub(super) fn spend(&mut self, entry: &SpendEntry) {
        self.limits_of(&SpendScope::All, entry.day.as_ref(), entry.month.as_ref());
        for (name, limits) in &entry.endpoints.0 {
            let known: Vec<String> = self.config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
            if let Some(name) = self.known("endpoint", name, &known) {
                self.limits_of(&SpendScope::Endpoint(name), limits.day.as_ref(), limits.month.as_ref());
            }
        }
        for (name, limits) in &entry.models.0 {
            let known: Vec<String> = self.config.models.iter().map(|model| model.id.0.clone()).collect();
            let at = name.span.clone();
            let Some(name) = self.known("model", name, &known) else { continue };
            if self.config.model(&name).is_some_and(|model| model.price.is_none()) {
                self.problem(format!("model `{name}` has a spend limit and no price"), &at).help =
                    Some(format!("add price = {{ input = …, output = … }} to [models.{name}]"));
            }
            self.limits_of(&SpendScope::Model(name), limits.day.as_ref(), limits.month.as_ref());
        }
    }

    pub(super) fn history(&mut self, file: &ConfigFile) {
        let sensible = 1..=MOST_DAYS;
        if let Some(days) = file.history_days.as_ref().filter(|days| !sensible.contains(&days.value)) {
            self.problem(format!("history_days must be from 1 to {MOST_DAYS}"), &days.span).help =
                Some("write history = false to keep none".into());
        }
        self.config.history =
            History { on: file.history.unwrap_or(true), days: file.history_days.as_ref().map(|days| days.value) };
    }

    fn known(&mut self, kind: &str, name: &At<String>, known: &[String]) -> Option<String> {
        let wanted = normalised(&name.value);
        if known.contains(&wanted) {
            return Some(wanted);
        }
        let problem = Problem::new(&self.source, format!("unknown {kind} `{wanted}`"), name.span.clone());
        self.push(problem.label("under [spend]").nearest(&wanted, known.iter().map(String::as_str)));
        None
    }

    /// Sums of money, by currency.
    pub(super) fn amounts(&mut self, entry: &At<AmountEntry>) -> Vec<(String, f64)> {
        let mut amounts = Vec::new();
        for (currency, amount) in &entry.value.0 {
            if !(amount.is_finite() && *amount >= 0.0) {
                self.problem("a limit is a number that is not negative", &entry.span);
            }
            let written = At { value: currency.clone(), span: entry.span.clone() };
            amounts.push((self.currency(&written), *amount));
        }
        amounts
    }

    fn limits_of(&mut self, scope: &SpendScope, day: Option<&At<AmountEntry>>, month: Option<&At<AmountEntry>>) {
        for (period, entry) in [(Period::Day, day), (Period::Month, month)] {
            let Some(entry) = entry else { continue };
            for (currency, amount) in self.amounts(entry) {
                self.config.spend.push(SpendLimit { scope: scope.clone(), period, amount, currency });
            }
        }
    }
}
