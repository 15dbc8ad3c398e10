//! The attempt that an outcome is recorded for, with the health keys that it affects.

use jiff::Timestamp;

use super::entry::{HealthKey, KeyHash, TargetHealthKeys, api_key_health_keys};
use crate::model::{Operation, target::Target};

/// The attempt that an outcome is recorded for.
#[derive(Clone, Debug)]
pub struct AttemptInfo<'a> {
    /// The target it was sent to.
    pub target: &'a Target,
    /// The index of the key at the endpoint; `None` without a key.
    pub key_index: Option<usize>,
    /// The time it was sent.
    pub sent_at: Timestamp,
    /// The owner id of its probe lease, if it is the probe.
    pub probe: Option<u64>,
    /// The operation; `None` for a chat.
    pub operation: Option<Operation>,
    /// The health keys that it affects.
    pub health_keys: AttemptHealthKeys<'a>,
}

/// The health keys of an attempt.
#[derive(Clone, Copy, Debug)]
pub enum AttemptHealthKeys<'a> {
    /// Those of the target. Hashing them again costs more than the rest of an update.
    Known(&'a TargetHealthKeys),
    /// They are computed with this hash of the API key.
    WithKey(KeyHash),
}

impl AttemptInfo<'_> {
    pub(super) fn endpoint_key(&self) -> HealthKey {
        match self.health_keys {
            AttemptHealthKeys::Known(keys) => keys.endpoint,
            AttemptHealthKeys::WithKey(_) => HealthKey::endpoint(&self.target.endpoint),
        }
    }

    pub(super) fn model_key(&self) -> HealthKey {
        match self.health_keys {
            AttemptHealthKeys::Known(keys) => keys.model,
            AttemptHealthKeys::WithKey(_) => HealthKey::model(self.target),
        }
    }

    /// The health key of the operation; `None` for a chat.
    pub(super) fn operation_key(&self) -> Option<HealthKey> {
        let operation = self.operation?;
        match self.health_keys {
            AttemptHealthKeys::Known(TargetHealthKeys { operation: Some(known), .. }) => Some(*known),
            _ => Some(HealthKey::operation(&self.target.endpoint, operation)),
        }
    }

    /// The health keys of the API key: for every model, and for this model.
    pub(super) fn api_key_keys(&self) -> (HealthKey, HealthKey) {
        match self.health_keys {
            AttemptHealthKeys::Known(keys) => keys.keys[self.key_index.unwrap_or_default()],
            AttemptHealthKeys::WithKey(key) => api_key_health_keys(self.target, key),
        }
    }

    /// All health keys that the attempt affects.
    pub(super) fn all_keys(&self) -> impl Iterator<Item = HealthKey> + use<> {
        let (any_model, this_model) = self.api_key_keys();
        [self.endpoint_key(), self.model_key(), any_model, this_model].into_iter().chain(self.operation_key())
    }
}
