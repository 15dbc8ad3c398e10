//! Limits hedge requests to a share of the calls, by default one in twenty, plus one at the start of the process.
//!
//! Without the limit, a service that is slow for all clients would get twice the load.

/// The limit of hedge requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgePolicy {
    /// The hedge requests that calls add to the budget, in percent of the calls.
    pub percent: u32,
    /// Maximum budget, in hedge requests; also the budget at the start of the process.
    pub max_budget: f64,
}

impl Default for HedgePolicy {
    fn default() -> Self {
        Self { percent: 5, max_budget: 1.0 }
    }
}

/// The budget for hedge requests; sending one takes 1 from it.
#[derive(Clone, Copy, Debug)]
pub struct HedgeBudget {
    policy: HedgePolicy,
    available: f64,
}

impl HedgeBudget {
    /// The budget at the start of the process.
    #[must_use]
    pub fn new(policy: HedgePolicy) -> Self {
        Self { policy, available: policy.max_budget }
    }

    /// Adds the share of one call to the budget.
    pub fn record_call(&mut self) {
        self.available = (self.available + f64::from(self.policy.percent) / 100.0).min(self.policy.max_budget);
    }

    /// Takes one hedge request from the budget; returns false if the budget is used up.
    #[must_use]
    pub fn try_take(&mut self) -> bool {
        // In floating point, twenty times 0.05 is slightly less than 1.
        let is_allowed = self.available >= 1.0 - 1e-9;
        if is_allowed {
            self.available = (self.available - 1.0).max(0.0);
        }
        is_allowed
    }

    /// Returns a hedge request that was taken but not sent.
    pub fn refund(&mut self) {
        self.available = (self.available + 1.0).min(self.policy.max_budget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_calls_is_hedged() {
        let mut budget = HedgeBudget::new(HedgePolicy::default());
        let mut hedge_count = 0;
        for _ in 0..200 {
            budget.record_call();
            hedge_count += u32::from(budget.try_take());
        }
        assert_eq!(hedge_count, 10);
        assert!(!budget.try_take());
        budget.refund();
        assert!(budget.try_take() && !budget.try_take());
    }

    #[test]
    fn larger_budget_allows_several_hedges_at_once() {
        let mut budget = HedgeBudget::new(HedgePolicy { percent: 50, max_budget: 2.0 });
        assert!(budget.try_take() && budget.try_take() && !budget.try_take());
        budget.record_call();
        assert!(!budget.try_take());
        budget.record_call();
        assert!(budget.try_take());
    }
}
