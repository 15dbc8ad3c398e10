//! Authenticates clients and enforces their limits: allowed models, requests per minute, concurrency and daily spend.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, header::AUTHORIZATION};
use jiff::{Timestamp, Zoned, civil::Date, tz::TimeZone};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::{
    ServeError,
    rejection::{Rejection, RejectionKind},
};
use crate::{
    config::ClientConfig,
    store::record::{BatchWriter, CallRecord},
    transport::keys::KeyRing,
};

/// Shorter keys could be guessed.
pub(super) const MIN_KEY_LENGTH: usize = 8;

const RATE_WINDOW: Duration = Duration::from_secs(60);

/// A client and the SHA-256 hash of its key. Hashes have one length, so that comparing them reveals nothing.
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
    ring: &KeyRing,
) -> Result<Vec<ClientKey>, ServeError> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for client in clients {
        let name = client.name.clone();
        let key = ring.resolve(&client.key).await.map_err(|source| ServeError::Key { name: name.clone(), source })?;
        if key.expose().chars().count() < MIN_KEY_LENGTH {
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

/// Key of a request: `Authorization: Bearer`, `x-api-key` or `api-key`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text("x-api-key")).or_else(|| text("api-key"))
}

/// Client whose key is in `headers`; `None` if no client keys are configured.
pub(super) fn authenticate<'k>(
    keys: &'k [ClientKey],
    headers: &HeaderMap,
) -> Result<Option<&'k ClientConfig>, Rejection> {
    if keys.is_empty() {
        return Ok(None);
    }
    let Some(key) = presented_key(headers) else { return Err(Rejection::new(RejectionKind::MissingKey)) };
    let hash = hash_key(key);
    // All keys are compared, so that the time does not depend on the position of the match.
    let matching =
        keys.iter().fold(None, |found, key| if bool::from(key.hash.ct_eq(&hash)) { Some(key) } else { found });
    matching.map(|key| Some(&key.client)).ok_or_else(|| Rejection::new(RejectionKind::UnknownKey))
}

/// Whether `client` may use the model or route `name`.
pub(super) fn is_model_allowed(client: Option<&ClientConfig>, name: &str) -> bool {
    let models = client.and_then(|client| client.models.as_ref());
    models.is_none_or(|models| models.iter().any(|model| model == name))
}

/// Usage of all clients, by client name.
#[derive(Debug, Default)]
pub(super) struct ClientQuotas(Mutex<HashMap<String, Arc<SharedUsage>>>);

/// Usage of one client.
#[derive(Debug)]
struct SharedUsage(Mutex<ClientUsage>);

#[derive(Debug)]
struct ClientUsage {
    /// Start times of the requests of the last minute, the oldest first.
    recent_starts: VecDeque<Instant>,
    in_flight: u32,
    /// Day to which `spent` applies.
    day: Date,
    /// Spend of that day, by currency.
    spent: HashMap<String, f64>,
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub(super) struct QuotaGuard(Option<Arc<SharedUsage>>);

impl Drop for QuotaGuard {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.update(|used| used.in_flight = used.in_flight.saturating_sub(1));
        }
    }
}

impl QuotaGuard {
    /// Adds the cost of a call to the spend of its client, each attempt in its own currency.
    pub(super) fn charge(&self, call: &CallRecord) {
        let Some(account) = &self.0 else { return };
        let costs = call.outcome.attempts.iter().zip(&call.attempt_usage).filter_map(|(attempt, used)| {
            let price = attempt.target.price.as_ref()?;
            Some((price.currency.clone(), price.cost(used.as_ref()?)?))
        });
        account.update(|used| {
            used.roll_day(today().date());
            for (currency, cost) in costs {
                *used.spent.entry(currency).or_default() += cost;
            }
        });
    }
}

impl SharedUsage {
    fn update<T>(&self, act: impl FnOnce(&mut ClientUsage) -> T) -> T {
        act(&mut self.0.lock().expect("no code panics while it holds this lock"))
    }
}

impl ClientUsage {
    /// Resets the spend when the day has changed.
    fn roll_day(&mut self, day: Date) {
        if self.day != day {
            self.day = day;
            self.spent.clear();
        }
    }

    fn admit(&mut self, client: &ClientConfig, now: Instant, day: Date) -> Result<(), Rejection> {
        self.roll_day(day);
        while self.recent_starts.front().is_some_and(|&begun| now.duration_since(begun) >= RATE_WINDOW) {
            self.recent_starts.pop_front();
        }
        let exceeded = client
            .spend
            .iter()
            .find(|(currency, limit)| self.spent.get(currency).copied().unwrap_or_default() >= *limit);
        if let Some((currency, limit)) = exceeded {
            return Err(Rejection::new(RejectionKind::SpendLimit {
                name: client.name.clone(),
                limit: format!("{limit} {currency}"),
            }));
        }
        if let Some(limit) = client.max_concurrency.filter(|&limit| self.in_flight >= limit) {
            return Err(Rejection::new(RejectionKind::ConcurrencyLimit { name: client.name.clone(), limit }));
        }
        if let Some(limit) = client.rpm.filter(|&limit| self.recent_starts.len() >= limit as usize) {
            let oldest = self.recent_starts.front().copied().unwrap_or(now);
            let wait = RATE_WINDOW.saturating_sub(now.duration_since(oldest));
            return Err(Rejection::new(RejectionKind::RateLimit { name: client.name.clone(), limit, wait }));
        }
        if client.rpm.is_some() {
            self.recent_starts.push_back(now);
        }
        self.in_flight += 1;
        Ok(())
    }
}

impl ClientQuotas {
    /// Registers new clients, with today's spend from the record.
    pub(super) fn register(&self, clients: &[ClientConfig], scribe: Option<&BatchWriter>) -> Result<(), ServeError> {
        for client in clients {
            if self.usage(&client.name).is_some() {
                continue;
            }
            let now = today();
            let spent = match scribe.map(|scribe| scribe.client_spend(&client.name, &now)) {
                Some(Ok(spent)) => spent,
                Some(Err(source)) if !client.spend.is_empty() => {
                    return Err(ServeError::SpendUnavailable { name: client.name.clone(), source });
                }
                // Without a spend limit the record is optional; a limit added later counts from 0.
                Some(Err(_)) | None => Vec::new(),
            };
            let (day, spent) = (now.date(), spent.into_iter().collect());
            let account =
                SharedUsage(Mutex::new(ClientUsage { recent_starts: VecDeque::new(), in_flight: 0, day, spent }));
            let mut accounts = self.0.lock().expect("no code panics while it holds this lock");
            accounts.entry(client.name.clone()).or_insert(Arc::new(account));
        }
        Ok(())
    }

    fn usage(&self, name: &str) -> Option<Arc<SharedUsage>> {
        self.0.lock().expect("no code panics while it holds this lock").get(name).cloned()
    }

    /// Counts a request of `client` if its limits allow one now.
    pub(super) fn admit(&self, client: Option<&ClientConfig>) -> Result<QuotaGuard, Rejection> {
        let Some(client) = client else { return Ok(QuotaGuard(None)) };
        let account = self.usage(&client.name).expect("all clients of the config are registered");
        account.update(|used| used.admit(client, Instant::now(), today().date()))?;
        Ok(QuotaGuard(Some(account)))
    }
}

fn today() -> Zoned {
    Timestamp::now().to_zoned(TimeZone::system())
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

    #[tokio::test(start_paused = true)]
    async fn rpm_and_concurrency_limits_are_enforced() {
        let limited = ClientConfig { rpm: Some(2), max_concurrency: Some(1), ..client("a", "sk-first-key") };
        let clients = ClientQuotas::default();
        clients.register(std::slice::from_ref(&limited), None).expect("no record to read");
        let guard = clients.admit(Some(&limited)).expect("below both limits");
        assert!(matches!(
            clients.admit(Some(&limited)).expect_err("concurrency limit is reached").kind,
            RejectionKind::ConcurrencyLimit { limit: 1, .. }
        ));
        drop(guard);
        drop(clients.admit(Some(&limited)).expect("second request of the minute"));
        let RejectionKind::RateLimit { wait, .. } =
            clients.admit(Some(&limited)).expect_err("rpm limit is reached").kind
        else {
            panic!("wrong rejection kind")
        };
        assert_eq!(wait, RATE_WINDOW);
        tokio::time::advance(RATE_WINDOW).await;
        drop(clients.admit(Some(&limited)).expect("the minute is over"));
    }

    #[test]
    fn daily_spend_is_reset_on_the_next_day() {
        let limited = ClientConfig { spend: vec![("USD".into(), 1.0)], ..client("a", "sk-first-key") };
        let day = |day| Date::new(2026, 1, day).expect("valid date");
        let spent = HashMap::from([("USD".to_owned(), 1.0)]);
        let mut used = ClientUsage { recent_starts: VecDeque::new(), in_flight: 0, day: day(1), spent };
        let rejection = used.admit(&limited, Instant::now(), day(1)).expect_err("spend limit is reached");
        assert!(matches!(rejection.kind, RejectionKind::SpendLimit { .. }));
        used.admit(&limited, Instant::now(), day(2)).expect("spend was reset");
    }
}
