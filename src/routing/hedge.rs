//! Limits hedge requests to one in twenty requests, plus one at the start of the process.
//!
//! Without the limit, a service that is slow for all clients would get twice the load.

/// The number of hedge requests that each request adds to the budget.
const PER_REQUEST: f64 = 0.05;
/// Maximum budget, in hedge requests.
const MAX_BUDGET: f64 = 1.0;

/// The budget for hedge requests; sending one takes 1 from it.
#[derive(Clone, Copy, Debug)]
pub struct HedgeBudget(f64);

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(MAX_BUDGET)
    }
}

impl HedgeBudget {
    /// Records a request.
    pub fn record_request(&mut self) {
        self.0 = (self.0 + PER_REQUEST).min(MAX_BUDGET);
    }

    /// Takes a hedge request if the budget allows one; returns whether it does.
    #[must_use]
    pub fn try_take(&mut self) -> bool {
        // In floating point, twenty times 0.05 is slightly less than 1.
        let is_allowed = self.0 >= MAX_BUDGET - 1e-9;
        if is_allowed {
            self.0 = (self.0 - MAX_BUDGET).max(0.0);
        }
        is_allowed
    }

    /// Returns a hedge request that was taken but not sent.
    pub fn refund(&mut self) {
        self.0 = (self.0 + MAX_BUDGET).min(MAX_BUDGET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_requests_is_hedged() {
        let mut budget = HedgeBudget::default();
        let mut hedge_count = 0;
        for _ in 0..200 {
            budget.record_request();
            hedge_count += u32::from(budget.try_take());
        }
        assert_eq!(hedge_count, 10);
        assert!(!budget.try_take());
        budget.refund();
        assert!(budget.try_take() && !budget.try_take());
    }
}
