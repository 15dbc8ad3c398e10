//! Validates the spend limits and the history settings.

use super::Resolver;
use crate::{
    config::{
        History,
        error::Problem,
        file::{ConfigFile, SpendEntry},
        names::normalize_name,
        values::{MoneyEntry, Spanned},
    },
    routing::spend::{Period, SpendLimit, SpendScope},
};

/// 100 years.
const MAX_HISTORY_DAYS: u32 = 36_500;

impl Resolver {
    pub(super) fn resolve_spend(&mut self, entry: &SpendEntry) {
        self.push_spend_limits(&SpendScope::All, entry.day.as_ref(), entry.month.as_ref());
        for (name, limits) in &entry.endpoints.0 {
            let known: Vec<String> = self.config.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
            if let Some(name) = self.check_known("endpoint", name, &known) {
                self.push_spend_limits(&SpendScope::Endpoint(name), limits.day.as_ref(), limits.month.as_ref());
            }
        }
        for (name, limits) in &entry.models.0 {
            let known: Vec<String> = self.config.models.iter().map(|model| model.id.0.clone()).collect();
            let span = name.span.clone();
            let Some(name) = self.check_known("model", name, &known) else { continue };
            if self.config.model(&name).is_some_and(|model| model.price.is_none()) {
                self.add_problem(format!("model \"{name}\" has a spend limit but no price"), &span).help =
                    Some(format!("add price = {{ input = …, output = … }} to [models.{name}]"));
            }
            self.push_spend_limits(&SpendScope::Model(name), limits.day.as_ref(), limits.month.as_ref());
        }
    }

    pub(super) fn resolve_history(&mut self, file: &ConfigFile) {
        let valid = 1..=MAX_HISTORY_DAYS;
        if let Some(days) = file.history_days.as_ref().filter(|days| !valid.contains(&days.value)) {
            self.add_problem(format!("history_days must be from 1 to {MAX_HISTORY_DAYS}"), &days.span).help =
                Some("set history = false to store no prompts and answers".into());
        }
        self.config.history = History {
            store_content: file.history.unwrap_or(true),
            retention_days: file.history_days.as_ref().map(|days| days.value),
        };
    }

    fn check_known(&mut self, kind: &str, name: &Spanned<String>, known: &[String]) -> Option<String> {
        let normalized = normalize_name(&name.value);
        if known.contains(&normalized) {
            return Some(normalized);
        }
        let problem = Problem::new(&self.source, format!("unknown {kind} \"{normalized}\""), name.span.clone());
        let problem =
            problem.with_primary_label("in [spend]").with_suggestion(&normalized, known.iter().map(String::as_str));
        self.push_unknown_name(&normalized, problem);
        None
    }

    /// Checks amounts of money, by currency.
    pub(super) fn check_amounts(&mut self, entry: &Spanned<MoneyEntry>) -> Vec<(String, f64)> {
        let mut amounts: Vec<(String, f64)> = Vec::new();
        for (currency, amount) in &entry.value.0 {
            if !(amount.is_finite() && *amount >= 0.0) {
                self.add_problem("a spend limit must be a finite number, 0 or more", &entry.span);
            }
            let code = Spanned { value: currency.clone(), span: entry.span.clone() };
            let code = self.currency_code(&code);
            if amounts.iter().any(|(known, _)| *known == code) {
                self.add_problem(format!("two amounts in {code}"), &entry.span);
            }
            amounts.push((code, *amount));
        }
        amounts
    }

    fn push_spend_limits(
        &mut self,
        scope: &SpendScope,
        day: Option<&Spanned<MoneyEntry>>,
        month: Option<&Spanned<MoneyEntry>>,
    ) {
        for (period, entry) in [(Period::Day, day), (Period::Month, month)] {
            let Some(entry) = entry else { continue };
            for (currency, amount) in self.check_amounts(entry) {
                self.config.spend.push(SpendLimit { scope: scope.clone(), period, amount, currency });
            }
        }
    }
}
