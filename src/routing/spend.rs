//! Spend limits, checked before a request is sent.
//!
//! A limit is in one currency and applies to models priced in that currency. Models without a price are not limited.
//! The amount already spent comes from a [`SpendLedger`], which `store` implements.

use crate::model::target::Target;

/// What a limit applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpendScope {
    /// All models.
    All,
    /// One endpoint.
    Endpoint(String),
    /// One model.
    Model(String),
}

/// The period of a limit, in the user's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Period {
    /// Starts at midnight.
    Day,
    /// Starts on the first of the month.
    Month,
}

impl Period {
    /// The name in the config.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A spend limit.
#[derive(Clone, Debug, PartialEq)]
pub struct SpendLimit {
    /// What it applies to.
    pub scope: SpendScope,
    /// The period.
    pub period: Period,
    /// The amount, in units of `currency`.
    pub amount: f64,
    /// The ISO 4217 currency code.
    pub currency: String,
}

impl SpendLimit {
    /// Whether it applies to `target`.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        let same_currency = target.price.as_ref().is_some_and(|price| price.currency == self.currency);
        same_currency
            && match &self.scope {
                SpendScope::All => true,
                SpendScope::Endpoint(name) => target.endpoint.name == *name,
                SpendScope::Model(name) => target.id.0 == *name,
            }
    }
}

/// A limit that has been reached.
#[derive(Clone, Debug, PartialEq)]
pub struct ReachedLimit {
    /// The limit.
    pub limit: SpendLimit,
    /// The amount spent in its period, in the currency of the limit.
    pub spent: f64,
}

impl std::fmt::Display for ReachedLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SpendLimit { scope, period, amount, currency } = &self.limit;
        let name = match scope {
            SpendScope::All => String::new(),
            SpendScope::Endpoint(name) | SpendScope::Model(name) => format!(" for \"{name}\""),
        };
        let period = period.as_str();
        write!(f, "spend limit per {period}{name} reached: spent {:.4} of {amount} {currency}", self.spent)
    }
}

/// Looks up the amounts spent.
pub trait SpendLedger: Send + Sync {
    /// The first limit for `target` that has been reached.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn reached_limit(&self, target: &Target) -> Result<Option<ReachedLimit>, String>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::target::{Price, testing};

    #[test]
    fn limit_covers_only_targets_priced_in_its_currency() {
        let limit = |scope| SpendLimit { scope, period: Period::Day, amount: 1.0, currency: "USD".into() };
        let price = |currency: &str| Price { input: 1.0, output: 1.0, cached_input: None, currency: currency.into() };
        let priced = Target { price: Some(price("USD")), ..testing::target("a") };
        assert!(limit(SpendScope::All).covers(&priced));
        assert!(
            limit(SpendScope::Model("a".into())).covers(&priced)
                && !limit(SpendScope::Model("b".into())).covers(&priced)
        );
        assert!(limit(SpendScope::Endpoint("a-endpoint".into())).covers(&priced));
        assert!(!limit(SpendScope::All).covers(&Target { price: Some(price("CNY")), ..testing::target("a") }));
        assert!(!limit(SpendScope::All).covers(&testing::target("a")));
    }
}
