//! Limits hedge requests to one in twenty requests, plus one at the start of the process.
//!
//! Without the limit, a service that is slow for all clients would get twice the load.

/// What each request adds to the budget.
const PER_REQUEST: f64 = 0.05;
/// Maximum budget.
const MAX_BUDGET: f64 = 1.0;

/// The budget for hedge requests.
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
        // Twenty times 0.05 is slightly less than 1 in floating point.
        let allowed = self.0 >= MAX_BUDGET - 1e-9;
        if allowed {
            self.0 = (self.0 - MAX_BUDGET).max(0.0);
        }
        allowed
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
        let mut hedges = HedgeBudget::default();
        let mut taken = 0;
        for _ in 0..200 {
            hedges.record_request();
            taken += u32::from(hedges.try_take());
        }
        assert_eq!(taken, 10);
        assert!(!hedges.try_take());
        hedges.refund();
        assert!(hedges.try_take() && !hedges.try_take());
    }
}
