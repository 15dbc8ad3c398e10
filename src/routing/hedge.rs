//! How often a slow request may be asked a second time elsewhere before it has said anything.
//!
//! Owns the allowance: one in twenty requests, and one to begin with. Without it a service that is slow for everybody
//! would be asked twice by everybody.

/// What one request adds to the allowance.
const EACH: f64 = 0.05;
/// The most that is saved up.
const BURST: f64 = 1.0;

/// The allowance left.
#[derive(Clone, Copy, Debug)]
pub struct Hedges(f64);

impl Default for Hedges {
    fn default() -> Self {
        Self(BURST)
    }
}

impl Hedges {
    /// Notes a request.
    pub fn request(&mut self) {
        self.0 = (self.0 + EACH).min(BURST);
    }

    /// Takes a second request, if one is allowed.
    #[must_use]
    pub fn take(&mut self) -> bool {
        // Twenty twentieths are a little less than one, in floating point.
        let allowed = self.0 >= BURST - 1e-9;
        if allowed {
            self.0 = (self.0 - BURST).max(0.0);
        }
        allowed
    }

    /// The one that was taken was not sent.
    pub fn give_back(&mut self) {
        self.0 = (self.0 + BURST).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty_is_asked_twice() {
        let mut hedges = Hedges::default();
        let mut taken = 0;
        for _ in 0..200 {
            hedges.request();
            taken += u32::from(hedges.take());
        }
        assert_eq!(taken, 10);
        assert!(!hedges.take());
        hedges.give_back();
        assert!(hedges.take() && !hedges.take());
    }
}
