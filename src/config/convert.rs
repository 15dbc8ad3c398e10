//! Converts entries of the config file into model types.

use crate::{
    config::file::{ParamsEntry, TimeoutsEntry},
    model::{Params, endpoint::Timeouts},
};

pub(super) fn timeouts(entry: Option<TimeoutsEntry>) -> Timeouts {
    let entry = entry.unwrap_or_default();
    Timeouts {
        connect: entry.connect.map(|time| time.0),
        first_token: entry.first_token.map(|time| time.0),
        idle: entry.idle.map(|time| time.0),
        total: entry.total.map(|time| time.0),
    }
}

pub(super) fn params(entry: &ParamsEntry) -> Params {
    Params {
        temperature: entry.temperature,
        top_p: entry.top_p,
        max_tokens: entry.max_tokens,
        seed: entry.seed,
        stop: entry.stop.clone(),
        reasoning_effort: entry.reasoning_effort.clone(),
        extra: serde_json::Map::new(),
    }
}
