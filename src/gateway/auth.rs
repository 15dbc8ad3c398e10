//! Who asks, and whether they may.
//!
//! Owns clients' keys and what each may do: which models, how often, how many at once, for how much a day. Refuses to know
//! what is asked.

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
    error::{Refused, Why},
};
use crate::{
    config::Client,
    store::record::{CallRecord, Scribe},
    transport::keys::KeyRing,
};

/// A key of fewer characters could be found by trying.
pub(super) const SHORTEST_KEY: usize = 8;

const MINUTE: Duration = Duration::from_secs(60);

/// A client, and the hash of its key: hashes are of one length, so that comparing tells nothing.
#[derive(Debug)]
pub(super) struct ClientKey {
    pub(super) client: Client,
    hash: [u8; 32],
}

fn hash(key: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("a digest has 32 bytes")
}

/// Looks up every client's key.
pub(super) async fn resolve(clients: &[Client], ring: &KeyRing) -> Result<Vec<ClientKey>, ServeError> {
    let mut keys: Vec<ClientKey> = Vec::new();
    for client in clients {
        let name = client.name.clone();
        let key = ring.resolve(&client.key).await.map_err(|source| ServeError::Key { name: name.clone(), source })?;
        if key.expose().chars().count() < SHORTEST_KEY {
            return Err(ServeError::ShortKey { name });
        }
        let hash = hash(key.expose());
        if let Some(same) = keys.iter().find(|known| known.hash == hash) {
            return Err(ServeError::SameKey { first: same.client.name.clone(), second: name });
        }
        keys.push(ClientKey { client: client.clone(), hash });
    }
    Ok(keys)
}

/// The key a request brings, under whichever of its names.
fn brought(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| text("x-api-key")).or_else(|| text("api-key"))
}

/// Who brings the key in `headers`; `None`: nobody needs one.
pub(super) fn who<'k>(keys: &'k [ClientKey], headers: &HeaderMap) -> Result<Option<&'k Client>, Refused> {
    if keys.is_empty() {
        return Ok(None);
    }
    let Some(key) = brought(headers) else { return Err(Refused::new(Why::NoKey)) };
    let hash = hash(key);
    // All are compared, whichever it is.
    let found =
        keys.iter().fold(None, |found, known| if bool::from(known.hash.ct_eq(&hash)) { Some(known) } else { found });
    found.map(|known| Some(&known.client)).ok_or_else(|| Refused::new(Why::WrongKey))
}

/// Whether `client` may use what is called `name`.
pub(super) fn may_use(client: Option<&Client>, name: &str) -> bool {
    let models = client.and_then(|client| client.models.as_ref());
    models.is_none_or(|models| models.iter().any(|model| model == name))
}

/// What each client has used of what it may.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<String, Arc<Account>>>);

/// What one client has used.
#[derive(Debug)]
struct Account(Mutex<Used>);

#[derive(Debug)]
struct Used {
    /// When the requests of the last minute began.
    begun: VecDeque<Instant>,
    under_way: u32,
    /// Which day it is, and what was spent on it, by currency.
    day: Date,
    spent: HashMap<String, f64>,
}

/// A request of a client, counted until dropped.
#[derive(Debug)]
pub(super) struct Ticket(Option<Arc<Account>>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            account.with(|used| used.under_way = used.under_way.saturating_sub(1));
        }
    }
}

impl Ticket {
    /// Notes what a call cost, each of its requests in its own money.
    pub(super) fn pay(&self, call: &CallRecord) {
        let Some(account) = &self.0 else { return };
        let costs = call.outcome.attempts.iter().zip(&call.used).filter_map(|(attempt, used)| {
            let price = attempt.target.price.as_ref()?;
            Some((price.currency.clone(), price.cost(used.as_ref()?)?))
        });
        account.with(|used| {
            used.at(today().date());
            for (currency, cost) in costs {
                *used.spent.entry(currency).or_default() += cost;
            }
        });
    }
}

impl Account {
    fn with<T>(&self, act: impl FnOnce(&mut Used) -> T) -> T {
        act(&mut self.0.lock().expect("no code panics while it holds this lock"))
    }
}

impl Used {
    /// A day begins with nothing spent.
    fn at(&mut self, day: Date) {
        if self.day != day {
            self.day = day;
            self.spent.clear();
        }
    }

    fn admit(&mut self, client: &Client, now: Instant, day: Date) -> Result<(), Refused> {
        self.at(day);
        while self.begun.front().is_some_and(|&begun| now.duration_since(begun) >= MINUTE) {
            self.begun.pop_front();
        }
        let over =
            client.spend.iter().find(|(currency, most)| self.spent.get(currency).copied().unwrap_or_default() >= *most);
        if let Some((currency, most)) = over {
            return Err(Refused::new(Why::Spent { name: client.name.clone(), most: format!("{most} {currency}") }));
        }
        if let Some(most) = client.max_concurrency.filter(|&most| self.under_way >= most) {
            return Err(Refused::new(Why::TooMany { name: client.name.clone(), most }));
        }
        if let Some(most) = client.rpm.filter(|&most| self.begun.len() >= most as usize) {
            let oldest = self.begun.front().copied().unwrap_or(now);
            let wait = MINUTE.saturating_sub(now.duration_since(oldest));
            return Err(Refused::new(Why::TooOften { name: client.name.clone(), most, wait }));
        }
        if client.rpm.is_some() {
            self.begun.push_back(now);
        }
        self.under_way += 1;
        Ok(())
    }
}

impl Clients {
    /// Opens an account for each, with what the record says it spent today.
    pub(super) fn know(&self, clients: &[Client], scribe: Option<&Scribe>) -> Result<(), ServeError> {
        for client in clients {
            if self.account(&client.name).is_some() {
                continue;
            }
            let now = today();
            let spent = match scribe.map(|scribe| scribe.spent_with(&client.name, &now)) {
                Some(Ok(spent)) => spent,
                Some(Err(source)) if !client.spend.is_empty() => {
                    return Err(ServeError::Spent { name: client.name.clone(), source });
                }
                // A limit may come later.
                Some(Err(_)) | None => Vec::new(),
            };
            let (day, spent) = (now.date(), spent.into_iter().collect());
            let account = Account(Mutex::new(Used { begun: VecDeque::new(), under_way: 0, day, spent }));
            let mut accounts = self.0.lock().expect("no code panics while it holds this lock");
            accounts.entry(client.name.clone()).or_insert(Arc::new(account));
        }
        Ok(())
    }

    fn account(&self, name: &str) -> Option<Arc<Account>> {
        self.0.lock().expect("no code panics while it holds this lock").get(name).cloned()
    }

    /// Counts a request of `client`, if it may make one now.
    pub(super) fn admit(&self, client: Option<&Client>) -> Result<Ticket, Refused> {
        let Some(client) = client else { return Ok(Ticket(None)) };
        let account = self.account(&client.name).expect("every client has an account");
        account.with(|used| used.admit(client, Instant::now(), today().date()))?;
        Ok(Ticket(Some(account)))
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

    fn client(name: &str, key: &str) -> Client {
        Client {
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
        let name: http::HeaderName = name.parse().expect("a name");
        [(name, value.parse().expect("a value"))].into_iter().collect()
    }

    #[tokio::test]
    async fn whoever_brings_a_key_is_known_by_it() {
        let ring = KeyRing::new(Environment::default());
        let keys = resolve(&[client("a", "sk-first-key"), client("b", "sk-other-key")], &ring).await.expect("keys");
        let name = |name, value| who(&keys, &headers(name, value)).map(|client| client.map(|client| &client.name));
        assert_eq!(name("authorization", "Bearer sk-other-key").expect("known"), Some(&"b".to_owned()));
        assert_eq!(name("authorization", "bearer  sk-first-key").expect("known"), Some(&"a".to_owned()));
        assert_eq!(name("x-api-key", "sk-first-key").expect("known"), Some(&"a".to_owned()));
        for (header, value) in
            [("authorization", "Bearer sk-first-keyx"), ("authorization", "sk-first-key"), ("x-other", "1")]
        {
            assert!(name(header, value).is_err(), "{header}: {value}");
        }
        assert!(who(&[], &HeaderMap::new()).expect("nobody needs one").is_none());
    }

    #[tokio::test]
    async fn keys_that_tell_nobody_apart_are_refused() {
        let ring = KeyRing::new(Environment::default());
        let same = resolve(&[client("a", "sk-the-same"), client("b", "sk-the-same")], &ring).await;
        assert!(matches!(same, Err(ServeError::SameKey { .. })));
        assert!(matches!(resolve(&[client("a", "short")], &ring).await, Err(ServeError::ShortKey { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_held_to_what_it_may() {
        let limited = Client { rpm: Some(2), max_concurrency: Some(1), ..client("a", "sk-first-key") };
        let clients = Clients::default();
        clients.know(std::slice::from_ref(&limited), None).expect("nothing is read");
        let ticket = clients.admit(Some(&limited)).expect("free");
        assert!(matches!(clients.admit(Some(&limited)).expect_err("one at once").why, Why::TooMany { most: 1, .. }));
        drop(ticket);
        drop(clients.admit(Some(&limited)).expect("the second"));
        let Why::TooOften { wait, .. } = clients.admit(Some(&limited)).expect_err("two a minute").why else {
            panic!("another reason")
        };
        assert_eq!(wait, MINUTE);
        tokio::time::advance(MINUTE).await;
        drop(clients.admit(Some(&limited)).expect("a minute later"));
    }

    #[test]
    fn what_was_spent_counts_until_the_day_is_over() {
        let limited = Client { spend: vec![("USD".into(), 1.0)], ..client("a", "sk-first-key") };
        let day = |day| Date::new(2026, 1, day).expect("a date");
        let spent = HashMap::from([("USD".to_owned(), 1.0)]);
        let mut used = Used { begun: VecDeque::new(), under_way: 0, day: day(1), spent };
        let refused = used.admit(&limited, Instant::now(), day(1)).expect_err("spent");
        assert!(matches!(refused.why, Why::Spent { .. }));
        used.admit(&limited, Instant::now(), day(2)).expect("another day");
    }
}
