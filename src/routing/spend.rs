//! What may be spent, and whether it was.
//!
//! Owns the limits and the check before a request is sent. Refuses to know where the record is: [`SpendLedger`] is what
//! looks it up, on a floor above.
//!
//! A limit is in one currency and stops models that are paid in it. What has no price costs nothing that is known, and is
//! not stopped.

use crate::model::target::Target;

/// What a limit is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpendScope {
    /// Everything.
    All,
    /// One endpoint.
    Endpoint(String),
    /// One model.
    Model(String),
}

/// How long a limit lasts, in the person's own time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// From midnight on.
    Day,
    /// From the first of the month on.
    Month,
}

impl Period {
    /// Its name in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct SpendLimit {
    /// What it is about.
    pub scope: SpendScope,
    /// For how long.
    pub period: Period,
    /// How much.
    pub amount: f64,
    /// ISO 4217 code.
    pub currency: String,
}

impl SpendLimit {
    /// Whether it is about `target`.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        let paid = target.price.as_ref().is_some_and(|price| price.currency == self.currency);
        paid && match &self.scope {
            SpendScope::All => true,
            SpendScope::Endpoint(name) => target.endpoint.name == *name,
            SpendScope::Model(name) => target.id.0 == *name,
        }
    }
}

/// A limit that is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Reached {
    /// Which one.
    pub limit: SpendLimit,
    /// What was spent.
    pub spent: f64,
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SpendLimit { scope, period, amount, currency } = &self.limit;
        let whose = match scope {
            SpendScope::All => String::new(),
            SpendScope::Endpoint(name) | SpendScope::Model(name) => format!(" of {name}"),
        };
        let period = period.as_str();
        write!(
            f,
            "{:.4} {currency} were spent this {period}, and the limit{whose} is {amount} {currency} a {period}",
            self.spent
        )
    }
}

/// Knows what was spent.
pub trait SpendLedger: Send + Sync {
    /// The first limit about `target` that is reached.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn reached(&self, target: &Target) -> Result<Option<Reached>, String>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::target::{Price, testing};

    #[test]
    fn a_limit_covers_what_is_paid_in_its_currency() {
        let limit = |scope| SpendLimit { scope, period: Period::Day, amount: 1.0, currency: "USD".into() };
        let price = |currency: &str| Price { input: 1.0, output: 1.0, cached_input: None, currency: currency.into() };
        let paid = Target { price: Some(price("USD")), ..testing::target("a") };
        assert!(limit(SpendScope::All).covers(&paid));
        assert!(
            limit(SpendScope::Model("a".into())).covers(&paid) && !limit(SpendScope::Model("b".into())).covers(&paid)
        );
        assert!(limit(SpendScope::Endpoint("a-endpoint".into())).covers(&paid));
        assert!(!limit(SpendScope::All).covers(&Target { price: Some(price("CNY")), ..testing::target("a") }));
        assert!(!limit(SpendScope::All).covers(&testing::target("a")));
    }
}
