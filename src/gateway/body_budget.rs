//! Limits the total memory held by large request bodies to a multiple of `max_body`.
//!
//! A request over the limit gets 503 `too_many_large_bodies`; small requests are never rejected.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{limits::GatewayLimits, rejection::Rejection};

/// The memory budget of all request bodies.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    limits: GatewayLimits,
    /// Bytes reserved by all request bodies.
    reserved: Arc<AtomicUsize>,
}

/// Bytes reserved for one body, released when dropped.
#[derive(Debug)]
pub(super) struct BodyReservation {
    budget: BodyBudget,
    reserved: usize,
}

impl BodyBudget {
    pub(super) fn new(limits: GatewayLimits) -> Self {
        Self { limits, reserved: Arc::default() }
    }

    pub(super) fn new_reservation(&self) -> BodyReservation {
        BodyReservation { budget: self.clone(), reserved: 0 }
    }
}

impl BodyReservation {
    pub(super) fn limits(&self) -> GatewayLimits {
        self.budget.limits
    }

    /// Reserves memory for a body of which `length` bytes have arrived. `max_body`: the largest allowed body.
    pub(super) fn grow_to(&mut self, length: usize, max_body: usize) -> Result<(), Rejection> {
        let limits = &self.budget.limits;
        let additional = length.saturating_sub(limits.exempt_body_bytes).saturating_sub(self.reserved);
        let total_before = self.budget.reserved.fetch_add(additional, Ordering::Relaxed);
        self.reserved += additional;
        if additional > 0 && total_before + additional > max_body.saturating_mul(limits.body_memory_factor) {
            return Err(Rejection::TooManyLargeBodies);
        }
        Ok(())
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_over_the_limit_are_rejected_and_small_ones_never() {
        const MIB: usize = 1024 * 1024;
        let limits = GatewayLimits::default();
        let budget = BodyBudget::new(limits);
        let reservations: Vec<BodyReservation> =
            std::iter::repeat_with(|| budget.new_reservation()).take(limits.body_memory_factor + 3).collect();
        let grown = reservations.into_iter().map(|mut reservation| reservation.grow_to(MIB, MIB).map(|()| reservation));
        let grown: Vec<Result<BodyReservation, Rejection>> = grown.collect();
        // The first quarter of each body is exempt.
        assert_eq!(grown.iter().filter(|reservation| reservation.is_ok()).count(), limits.body_memory_factor + 2);
        budget.new_reservation().grow_to(limits.exempt_body_bytes, MIB).expect("small bodies are exempt");
        drop(grown);
        budget.new_reservation().grow_to(MIB, MIB).expect("all reservations were released");
    }
}
