//! Which key a request is sent with.
//!
//! Owns the rotation over an endpoint's keys: each request starts at the next one, so that several keys share the
//! load of a long-lived process. Refuses to read keys: that is the ring's work.

use std::{collections::HashMap, sync::Mutex};

use percent_encoding::percent_decode_str;

use crate::{
    engine::attempt::Credentials,
    model::{
        ErrorClass,
        api_key::{ApiKey, KeySource},
        endpoint::Endpoint,
    },
    protocol::ApiError,
    routing::backoff::drawn,
    transport::keys::{KeyError, KeyRing},
};

/// Where each endpoint's rotation stands.
#[derive(Debug, Default)]
pub(super) struct Rotation(Mutex<HashMap<String, usize>>);

impl Rotation {
    /// The places of the endpoint's keys, beginning with the one whose turn it is: the next in a process that lives, any
    /// in one that asks once.
    pub(super) fn order(&self, endpoint: &Endpoint, resident: bool, chance: impl FnOnce() -> f64) -> Vec<usize> {
        let count = endpoint.keys.len();
        if count < 2 {
            return (0..count).collect();
        }
        let first = if resident {
            let mut turns = self.0.lock().expect("no code panics while it holds this lock");
            let turn = turns.entry(endpoint.name.clone()).or_default();
            std::mem::replace(turn, turn.wrapping_add(1)) % count
        } else {
            drawn(count, chance())
        };
        (first..count).chain(0..first).collect()
    }
}

/// The secrets for one request, read.
pub(super) async fn resolve(
    ring: &KeyRing,
    endpoint: &Endpoint,
    key: Option<&KeySource>,
) -> Result<Credentials, ApiError> {
    let mut credentials = Credentials { address: secrets_in(&endpoint.base_url), ..Credentials::default() };
    if let Some(source) = key {
        credentials.key = Some(ring.resolve(source).await.map_err(|error| no_key(&error, endpoint))?);
    }
    for (name, source) in &endpoint.headers {
        let value = ring.resolve(source).await.map_err(|error| no_key(&error, endpoint))?;
        credentials.headers.push((name.clone(), value));
    }
    Ok(credentials)
}

/// What in an address is for its service alone.
fn secrets_in(address: &url::Url) -> Vec<ApiKey> {
    let query = address.query().into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
    // Versions are no secrets, and messages are about them.
    let values = query.filter(|(name, _)| *name != "api-version").map(|(_, value)| value);
    // As they stand in the address, and as they are meant.
    let meant = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
    address
        .password()
        .into_iter()
        .chain(values)
        .flat_map(|value| [ApiKey::new(value), ApiKey::new(&meant(value))])
        .collect()
}

fn no_key(error: &KeyError, endpoint: &Endpoint) -> ApiError {
    let message = format!("no key for endpoint {}: {error}", endpoint.name);
    ApiError { hint: error.hint(), ..ApiError::new(ErrorClass::Auth, message) }
}
