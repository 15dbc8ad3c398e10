//! The health as this process knows it, with what only concerns its own requests.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{PendingUpdate, in_flight::InFlightRequests};
use crate::{
    model::target::{Target, TargetId},
    routing::{
        health::{
            Availability, HealthError, HealthMap, HealthSnapshot, KeyHash, Restriction, RestrictionKind,
            TargetHealthKeys,
        },
        last_resort::RestrictedRequests,
        policies::StallPolicy,
    },
    transport::keys::KeyRing,
};

#[derive(Default)]
pub(super) struct HealthCache {
    pub(super) snapshot: HealthSnapshot,
    pub(super) is_loaded: bool,
    /// Updates not yet written to the store.
    pub(super) pending: Vec<PendingUpdate>,
    pub(super) store_error: Option<HealthError>,
    /// The last write failed: the snapshot in memory has updates that the store lacks, so reads do not replace it.
    pub(super) write_failed: bool,
    /// When the store was last read.
    pub(super) loaded_at: Option<Instant>,
    pub(super) in_flight: InFlightRequests,
    /// Requests to restricted candidates, by key and model.
    pub(super) restricted: HealthMap<RestrictedRequests>,
    /// Health keys by target pointer, cached because hashing an API key may read a file.
    pub(super) keys_by_target: HashMap<usize, (Arc<Target>, Arc<TargetHealthKeys>)>,
    /// How often each target became unavailable.
    pub(super) unavailable_counts: HashMap<TargetId, u64>,
    /// The salt of the key hashes in the cached health keys.
    pub(super) cached_salt: Arc<str>,
}

impl HealthCache {
    /// The availability of a candidate: as the processes share it, and whether its requests wait in this process.
    pub(super) fn availability(&self, stall: &StallPolicy, keys: &TargetHealthKeys, now: Timestamp) -> Availability {
        let availability = self.snapshot.availability(keys, now);
        let p95 = || self.snapshot.entry(keys.model)?.latency.p95();
        if !self.in_flight.is_stalled(stall, keys.model, p95, Instant::now()) {
            return availability;
        }
        let until = now.checked_add(stall.min_wait).unwrap_or(Timestamp::MAX);
        availability.and(Availability::Restricted(Restriction {
            kind: RestrictionKind::Stalled,
            until,
            named: None,
            cause: keys.model,
        }))
    }

    pub(super) fn health_keys(&mut self, target: &Arc<Target>, keys: &KeyRing) -> Arc<TargetHealthKeys> {
        let address = Arc::as_ptr(target).addr();
        if let Some((_, cached)) = self.keys_by_target.get(&address) {
            return Arc::clone(cached);
        }
        let hash = |key| keys.hash(key, &self.cached_salt).map_or(KeyHash::NONE, KeyHash);
        let hashes: Vec<KeyHash> = target.endpoint.keys.iter().map(hash).collect();
        let health_keys =
            TargetHealthKeys { salt: Arc::clone(&self.cached_salt), ..TargetHealthKeys::new(target, &hashes) };
        let health_keys = Arc::new(health_keys);
        self.keys_by_target.insert(address, (Arc::clone(target), Arc::clone(&health_keys)));
        health_keys
    }
}
