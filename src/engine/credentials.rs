//! Which key a request is sent with.
//!
//! Owns the rotation over an endpoint's keys: each request starts at the next one, so that several keys share the
//! load of a long-lived process. Refuses to read keys: that is the ring's work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{
    attempt::Credentials,
    chat::ErrorClass,
    endpoint::Endpoint,
    keys::{KeyError, KeyRing},
    protocol::ApiError,
    secret::KeySource,
};

/// Where each endpoint's rotation stands.
#[derive(Debug, Default)]
pub(super) struct Rotation(Mutex<HashMap<String, usize>>);

impl Rotation {
    /// The endpoint's keys, beginning with the one whose turn it is. Without keys: one try without any.
    pub(super) fn keys(&self, endpoint: &Arc<Endpoint>) -> Vec<Option<KeySource>> {
        if endpoint.keys.len() < 2 {
            return vec![endpoint.keys.first().cloned()];
        }
        let mut turns = self.0.lock().expect("no code panics while it holds this lock");
        let turn = turns.entry(endpoint.name.clone()).or_default();
        let first = *turn % endpoint.keys.len();
        *turn = turn.wrapping_add(1);
        endpoint.keys[first..].iter().chain(&endpoint.keys[..first]).cloned().map(Some).collect()
    }
}

/// The secrets for one request, read.
pub(super) async fn resolve(
    ring: &KeyRing,
    endpoint: &Endpoint,
    key: Option<&KeySource>,
) -> Result<Credentials, ApiError> {
    let mut credentials = Credentials::default();
    if let Some(source) = key {
        credentials.key = Some(ring.resolve(source).await.map_err(|error| no_key(&error, endpoint))?);
    }
    for (name, source) in &endpoint.headers {
        let value = ring.resolve(source).await.map_err(|error| no_key(&error, endpoint))?;
        credentials.headers.push((name.clone(), value));
    }
    Ok(credentials)
}

fn no_key(error: &KeyError, endpoint: &Endpoint) -> ApiError {
    let message = format!("no key for endpoint {}: {error}", endpoint.name);
    ApiError { hint: error.hint(), ..ApiError::new(ErrorClass::Auth, message) }
}
