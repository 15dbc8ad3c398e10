//! Selects and resolves the key of a request.
//!
//! In a long-lived process each request starts with the endpoint's next key, so that the keys share the load.

use std::collections::HashMap;

use http::HeaderName;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use crate::{
    model::{
        ErrorClass,
        api_key::{ApiKey, KeySource},
        endpoint::Endpoint,
    },
    protocol::CallError,
    routing::backoff::random_index,
    transport::keys::{KeyError, KeyRing},
};

/// The resolved secrets of one request.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The API key; `None`: the endpoint needs none.
    pub key: Option<ApiKey>,
    /// Additional headers.
    pub headers: Vec<(HeaderName, ApiKey)>,
    /// Secret parts of the URL itself.
    pub url_secrets: Vec<ApiKey>,
}

impl Credentials {
    /// Masks these secrets in `text`: services quote keys in their errors.
    #[must_use]
    pub fn masked_in(&self, text: &str) -> String {
        let headers = self.headers.iter().map(|(_, value)| value);
        let secrets = self.key.iter().chain(headers).chain(&self.url_secrets);
        secrets.fold(text.to_owned(), |text, secret| {
            let text = secret.redact_in(&text);
            secret.without_scheme().map_or(text.clone(), |bare_secret| bare_secret.redact_in(&text))
        })
    }
}

/// The position of the key rotation, by endpoint.
#[derive(Debug, Default)]
pub(super) struct KeyRotation(Mutex<HashMap<String, usize>>);

impl KeyRotation {
    /// The indices of the endpoint's keys in the order they are tried. The first one is the next in rotation in a
    /// long-lived process, else random.
    pub(super) fn order(&self, endpoint: &Endpoint, is_long_lived: bool, random: impl FnOnce() -> f64) -> Vec<usize> {
        let count = endpoint.keys.len();
        if count < 2 {
            return (0..count).collect();
        }
        let first = if is_long_lived {
            let mut positions = self.0.lock();
            let position = positions.entry(endpoint.name.clone()).or_default();
            std::mem::replace(position, position.wrapping_add(1)) % count
        } else {
            random_index(count, random())
        };
        (first..count).chain(0..first).collect()
    }
}

/// Resolves the secrets of one request.
pub(super) async fn resolve_credentials(
    keys: &KeyRing,
    endpoint: &Endpoint,
    key: Option<&KeySource>,
) -> Result<Credentials, CallError> {
    let mut credentials = Credentials { url_secrets: url_secrets(&endpoint.base_url), ..Credentials::default() };
    if let Some(source) = key {
        credentials.key = Some(keys.resolve(source).await.map_err(|error| key_error(error, endpoint))?);
    }
    for (name, source) in &endpoint.headers {
        let value = keys.resolve(source).await.map_err(|error| key_error(error, endpoint))?;
        credentials.headers.push((name.clone(), value));
    }
    Ok(credentials)
}

/// The secret parts of a URL: the password and the query values.
fn url_secrets(url: &url::Url) -> Vec<ApiKey> {
    let query = url.query().into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
    // The API version is not secret, and error messages mention it.
    let values = query.filter(|(name, _)| *name != "api-version").map(|(_, value)| value);
    // Masked in both forms, percent-encoded and decoded.
    let decoded = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
    url.password()
        .into_iter()
        .chain(values)
        .flat_map(|value| [ApiKey::new(value), ApiKey::new(&decoded(value))])
        .collect()
}

fn key_error(error: KeyError, endpoint: &Endpoint) -> CallError {
    let (message, hint) = (format!("no key for endpoint \"{}\": {error}", endpoint.name), error.hint());
    CallError { hint, ..CallError::new(ErrorClass::Auth, message).caused_by(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_value_quoted_without_its_scheme_is_masked() {
        let header = (http::header::AUTHORIZATION, ApiKey::new("Bearer sk-in-a-header"));
        let credentials = Credentials {
            key: Some(ApiKey::new("sk-the-key")),
            headers: vec![header],
            url_secrets: vec![ApiKey::new("in-the-address")],
        };
        let quoted = credentials.masked_in("sk-in-a-header, Bearer sk-in-a-header, sk-the-key, in-the-address");
        assert_eq!(quoted, "[redacted], [redacted], [redacted], [redacted]");
    }
}
