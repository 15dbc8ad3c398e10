//! Our own limits towards an endpoint: requests at once, and requests a minute.
//!
//! Owns the waiting line. What does not get its turn within the endpoint's `queue` time fails as `local`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    model::{
        ErrorClass,
        endpoint::{Endpoint, Limits},
    },
    protocol::ApiError,
};

const QUEUE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

/// One gate per endpoint.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<String, Arc<Gate>>>);

#[derive(Debug)]
struct Gate {
    limits: Limits,
    places: Option<Arc<Semaphore>>,
    /// When the requests of the last minute began.
    begun: Mutex<VecDeque<Instant>>,
    /// How many requests wait for their turn.
    waiting: AtomicUsize,
}

/// One more that waits, until dropped.
struct Waiting<'g>(&'g AtomicUsize);

impl<'g> Waiting<'g> {
    fn begin(count: &'g AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place at an endpoint; given back when dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Gates {
    /// Waits for a place.
    pub(super) async fn enter(&self, endpoint: &Endpoint) -> Result<Place, ApiError> {
        if endpoint.limits == Limits::default() {
            return Ok(Place(None));
        }
        let gate = self.gate(endpoint);
        let queue = gate.limits.queue.unwrap_or(QUEUE);
        timeout(queue, gate.enter()).await.map_err(|_| {
            let message = format!("no place at endpoint {} within {:.1} s", endpoint.name, queue.as_secs_f64());
            let hint = Some("raise max_concurrency, rpm or queue of the endpoint".into());
            ApiError { hint, ..ApiError::new(ErrorClass::Local, message) }
        })
    }

    /// How many requests wait for a place, by endpoint.
    pub(super) fn waiting(&self) -> Vec<(String, usize)> {
        let gates = self.0.lock().expect("no code panics while it holds this lock");
        gates.iter().map(|(name, gate)| (name.clone(), gate.waiting.load(Ordering::Relaxed))).collect()
    }

    fn gate(&self, endpoint: &Endpoint) -> Arc<Gate> {
        let mut gates = self.0.lock().expect("no code panics while it holds this lock");
        let limits = endpoint.limits;
        let known = gates.get(&endpoint.name).filter(|gate| gate.limits == limits);
        known.cloned().unwrap_or_else(|| {
            let places = limits.max_concurrency.map(|most| Arc::new(Semaphore::new(most)));
            let gate = Arc::new(Gate { limits, places, begun: Mutex::default(), waiting: AtomicUsize::new(0) });
            // Whoever entered by the one before, whose limits were others, leaves by it.
            gates.insert(endpoint.name.clone(), Arc::clone(&gate));
            gate
        })
    }
}

impl Gate {
    async fn enter(&self) -> Place {
        let _waiting = Waiting::begin(&self.waiting);
        let permit = match &self.places {
            Some(places) => Some(Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed")),
            None => None,
        };
        while let Some(turn) = self.turn() {
            sleep_until(turn).await;
        }
        Place(permit)
    }

    /// Takes a turn under `rpm` now, or says when to ask again.
    fn turn(&self) -> Option<Instant> {
        let most = self.limits.rpm?;
        let now = Instant::now();
        let mut begun = self.begun.lock().expect("no code panics while it holds this lock");
        while begun.front().is_some_and(|&time| now.duration_since(time) >= MINUTE) {
            begun.pop_front();
        }
        if begun.len() < most as usize {
            begun.push_back(now);
            return None;
        }
        begun.front().map(|&oldest| oldest + MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::endpoint::testing;

    fn endpoint(limits: Limits) -> Endpoint {
        Endpoint { limits, ..testing::endpoint("http://h/v1") }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_endpoint_is_waited_for_and_not_forever() {
        let (gates, limits) = (Gates::default(), Limits { max_concurrency: Some(1), ..Limits::default() });
        let endpoint = endpoint(limits);
        let place = gates.enter(&endpoint).await.expect("free");
        assert_eq!(gates.enter(&endpoint).await.expect_err("taken").class, ErrorClass::Local);
        drop(place);
        gates.enter(&endpoint).await.expect("free again");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_a_minute_are_spread() {
        let limits = Limits { rpm: Some(2), queue: Some(MINUTE * 2), ..Limits::default() };
        let (gates, endpoint, begun) = (Gates::default(), endpoint(limits), Instant::now());
        for _ in 0..3 {
            gates.enter(&endpoint).await.expect("in time");
        }
        assert_eq!(begun.elapsed(), MINUTE);
    }
}
