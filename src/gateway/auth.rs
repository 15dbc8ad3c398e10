//! Authenticates clients by their key, and checks which models a client may use.

use http::{HeaderMap, header::AUTHORIZATION};
use subtle::ConstantTimeEq;

use super::{ServeError, rejection::Rejection};
use crate::{
    config::{ClientConfig, ServeConfig},
    transport::keys::KeyRing,
};

/// A client and the SHA-256 hash of its key. All hashes have the same length, so that a comparison does not reveal the
/// length of the key.
#[derive(Debug)]
pub(super) struct ClientKey {
    pub(super) client: ClientConfig,
    hash: [u8; 32],
}

fn hash_key(key: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// Resolves the keys of all clients.
pub(super) async fn resolve_client_keys(
    clients: &[ClientConfig],
    key_ring: &KeyRing,
) -> Result<Vec<ClientKey>, ServeError> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for client in clients {
        let name = client.name.clone();
        let key =
            key_ring.resolve(&client.key).await.map_err(|source| ServeError::Key { name: name.clone(), source })?;
        if key.expose().chars().count() < ServeConfig::MIN_KEY_CHARS {
            return Err(ServeError::ShortKey { name });
        }
        let hash = hash_key(key.expose());
        if let Some(duplicate) = keys.iter().find(|known| known.hash == hash) {
            return Err(ServeError::DuplicateKey { first: duplicate.client.name.clone(), second: name });
        }
        keys.push(ClientKey { client: client.clone(), hash });
    }
    Ok(keys)
}

/// Key that a request presents: `Authorization: Bearer`, `x-api-key` or `api-key`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = header(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| header("x-api-key")).or_else(|| header("api-key"))
}

/// Client whose key is in `headers`; `None` if no client keys are configured.
pub(super) fn authenticate<'k>(
    keys: &'k [ClientKey],
    headers: &HeaderMap,
) -> Result<Option<&'k ClientConfig>, Rejection> {
    if keys.is_empty() {
        return Ok(None);
    }
    let Some(key) = presented_key(headers) else { return Err(Rejection::MissingKey) };
    let hash = hash_key(key);
    // All keys are compared, so that the time does not depend on the position of the match.
    let matching =
        keys.iter().fold(None, |found, known| if bool::from(known.hash.ct_eq(&hash)) { Some(known) } else { found });
    matching.map(|known| Some(&known.client)).ok_or(Rejection::UnknownKey)
}

/// Whether `client` may use the model or route `name`.
pub(super) fn is_model_allowed(client: Option<&ClientConfig>, name: &str) -> bool {
    let models = client.and_then(|client| client.models.as_ref());
    models.is_none_or(|models| models.iter().any(|model| model == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        api_key::{ApiKey, KeySource},
        environment::Environment,
    };

    fn client(name: &str, key: &str) -> ClientConfig {
        ClientConfig {
            name: name.into(),
            key: KeySource::Literal(ApiKey::new(key)),
            models: None,
            rpm: None,
            max_concurrency: None,
            spend: Vec::new(),
            metrics: true,
        }
    }

    fn headers(name: &str, value: &str) -> HeaderMap {
        let name: http::HeaderName = name.parse().expect("valid header name");
        [(name, value.parse().expect("valid header value"))].into_iter().collect()
    }

    #[tokio::test]
    async fn client_is_identified_by_bearer_x_api_key_or_api_key() {
        let ring = KeyRing::new(Environment::default());
        let keys = resolve_client_keys(&[client("a", "sk-first-key"), client("b", "sk-other-key")], &ring)
            .await
            .expect("valid keys");
        let name =
            |name, value| authenticate(&keys, &headers(name, value)).map(|client| client.map(|client| &client.name));
        assert_eq!(name("authorization", "Bearer sk-other-key").expect("valid key"), Some(&"b".to_owned()));
        assert_eq!(name("authorization", "bearer  sk-first-key").expect("valid key"), Some(&"a".to_owned()));
        assert_eq!(name("x-api-key", "sk-first-key").expect("valid key"), Some(&"a".to_owned()));
        for (header, value) in
            [("authorization", "Bearer sk-first-keyx"), ("authorization", "sk-first-key"), ("x-other", "1")]
        {
            assert!(name(header, value).is_err(), "{header}: {value}");
        }
        assert!(authenticate(&[], &HeaderMap::new()).expect("no keys are configured").is_none());
    }

    #[tokio::test]
    async fn duplicate_and_short_client_keys_are_rejected() {
        let ring = KeyRing::new(Environment::default());
        let duplicate = resolve_client_keys(&[client("a", "sk-the-same"), client("b", "sk-the-same")], &ring).await;
        assert!(matches!(duplicate, Err(ServeError::DuplicateKey { .. })));
        assert!(matches!(resolve_client_keys(&[client("a", "short")], &ring).await, Err(ServeError::ShortKey { .. })));
    }
}
