//! The order in which a route's candidates are asked, from what this process knows.
//!
//! Owns what `route::strategy` is told of each candidate, and the same for a person who wants to know before anything is
//! asked. Refuses the rules.

use std::sync::Arc;

use super::Engine;
use crate::{
    engine::plan::Lane,
    model::target::Target,
    routing::{
        Policy,
        health::{PlaceId, Places, Standing},
        strategy::{Choosing, Seat},
    },
};

/// One candidate of a route, for a person who asks why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Who.
    pub target: Arc<Target>,
    /// What is known of it.
    pub seat: Seat,
    /// Why it is left alone, when it is.
    pub blame: Option<String>,
    /// The spend limit that is reached.
    pub spent: Option<String>,
    /// Why its spend limits could not be checked; it is asked all the same.
    pub unchecked: Option<String>,
}

impl Engine {
    /// The candidates of `lane` in the order they would be asked now.
    #[must_use]
    pub fn explain(&self, lane: &Lane) -> Vec<Explained> {
        let (places, seats, order) = self.chosen(lane);
        let mut explained: Vec<Explained> = order
            .into_iter()
            .map(|at| {
                let (target, seat) = (Arc::clone(&lane.candidates[at]), seats[at]);
                let blamed = if let Standing::Aside(_, place) = seat.standing { place } else { places[at].model };
                let blame = self.health.look(|snapshot| Some(snapshot.place(blamed)?.error.as_ref()?.to_string()));
                let reached = self.ledger.as_ref().map(|ledger| ledger.reached(&target));
                let (spent, unchecked) = match reached {
                    Some(Ok(Some(reached))) => (Some(reached.to_string()), None),
                    Some(Err(trouble)) => (None, Some(trouble)),
                    _ => (None, None),
                };
                Explained { target, seat, blame: blame.filter(|_| seat.standing != Standing::Free), spent, unchecked }
            })
            .collect();
        explained.sort_by_key(|candidate| candidate.spent.is_some());
        explained
    }

    /// The places of `lane`'s candidates in the order they would be asked now.
    #[must_use]
    pub fn choose(&self, lane: &Lane) -> Vec<usize> {
        self.chosen(lane).2
    }

    fn chosen(&self, lane: &Lane) -> (Vec<Places>, Vec<Seat>, Vec<usize>) {
        self.health.read(&self.keys);
        let policy = lane.route.clone().unwrap_or_default();
        let places = self.health.places(&lane.candidates, &self.keys);
        let seats = self.seats(lane, &policy, &lane.candidates, &places);
        let thread = policy.sticky.then(|| lane.call.thread());
        let order = self.order(&policy, &lane.name, thread.as_deref(), &seats);
        (places, seats, order)
    }

    /// What is known of `candidates`, which are some of the lane's in their order there, at their `places`.
    pub(super) fn seats(
        &self,
        lane: &Lane,
        policy: &Policy,
        candidates: &[Arc<Target>],
        places: &[Places],
    ) -> Vec<Seat> {
        let (tokens, most) = (lane.prompt_tokens, lane.call.max_tokens());
        let mut weights = lane.candidates.iter().zip(policy.weights.iter().copied().chain(std::iter::repeat(1)));
        let mut weight = |target| weights.find(|(known, _)| Arc::ptr_eq(known, target)).map_or(1, |(_, weight)| weight);
        let seen = self.health.seen(places.iter());
        let candidates = candidates.iter().zip(places).zip(seen);
        candidates
            .map(|((target, places), seen)| Seat {
                standing: seen.standing,
                weight: weight(target),
                busy: seen.busy,
                latency: seen.latency,
                cost: target.expected_cost(tokens, most),
                id: places.model.number(),
            })
            .collect()
    }

    /// The order in which `seats` are asked.
    pub(super) fn order(&self, policy: &Policy, route: &str, thread: Option<&str>, seats: &[Seat]) -> Vec<usize> {
        let mut chance = || self.chance();
        let mut wheels = self.wheels.lock().expect("no code panics while it holds this lock");
        let wheel = self.resident.then(|| wheels.entry(route.to_owned()).or_default());
        Choosing { strategy: policy.strategy, sticky: thread, wheel, chance: &mut chance }.order(seats)
    }

    /// How long this model takes to begin, as a rule: its own 95th percentile.
    pub(super) fn usual_silence(&self, model: PlaceId) -> Option<std::time::Duration> {
        self.health.look(|snapshot| snapshot.place(model)?.latency.p95())
    }
}
