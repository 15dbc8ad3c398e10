//! Limits the total memory held by request bodies larger than 256 KiB to 8 × `max_body`.
//!
//! A request over the limit gets 503 `too_many_large_bodies`; small requests are never rejected.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::rejection::{Rejection, RejectionKind};

/// Bytes of each body that are exempt from the limit, so that ordinary requests are always accepted.
const EXEMPT_BYTES: usize = 256 * 1024;
/// Total limit, as a multiple of the largest allowed body.
const MAX_LARGE_BODIES: usize = 8;

/// Bytes reserved by all request bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyBudget(Arc<AtomicUsize>);

/// Bytes reserved for one body, released when dropped.
#[derive(Debug)]
pub(super) struct BodyReservation {
    budget: BodyBudget,
    reserved: usize,
}

impl BodyBudget {
    pub(super) fn new_reservation(&self) -> BodyReservation {
        BodyReservation { budget: self.clone(), reserved: 0 }
    }
}

impl BodyReservation {
    /// Reserves memory for a body of which `length` bytes have arrived. `max_body`: the largest allowed body.
    pub(super) fn grow_to(&mut self, length: usize, max_body: usize) -> Result<(), Rejection> {
        let additional = length.saturating_sub(EXEMPT_BYTES).saturating_sub(self.reserved);
        let total_before = self.budget.0.fetch_add(additional, Ordering::Relaxed);
        self.reserved += additional;
        if additional > 0 && total_before + additional > max_body.saturating_mul(MAX_LARGE_BODIES) {
            return Err(Rejection::new(RejectionKind::TooManyLargeBodies));
        }
        Ok(())
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_over_the_limit_are_rejected_and_small_ones_never() {
        const MEGABYTE: usize = 1024 * 1024;
        let budget = BodyBudget::default();
        let reservations: Vec<BodyReservation> =
            std::iter::repeat_with(|| budget.new_reservation()).take(MAX_LARGE_BODIES + 3).collect();
        let grown = reservations
            .into_iter()
            .map(|mut reservation| reservation.grow_to(MEGABYTE, MEGABYTE).map(|()| reservation));
        let grown: Vec<Result<BodyReservation, Rejection>> = grown.collect();
        // The first quarter of each body is exempt.
        assert_eq!(grown.iter().filter(|reservation| reservation.is_ok()).count(), MAX_LARGE_BODIES + 2);
        budget.new_reservation().grow_to(EXEMPT_BYTES, MEGABYTE).expect("small bodies are exempt");
        drop(grown);
        budget.new_reservation().grow_to(MEGABYTE, MEGABYTE).expect("all reservations were released");
    }
}
