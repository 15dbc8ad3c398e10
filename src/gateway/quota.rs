//! Limits the requests per minute, the concurrent requests and the daily spend of each client key.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::{Zoned, civil::Date, tz::TimeZone};
use parking_lot::Mutex;

use super::{ServeError, rejection::Rejection};

use crate::{
    config::ClientConfig,
    engine::{AttemptRecord, CallRecord},
    model::clock::Clock,
    routing::rate_window::RateWindow,
    store::record::RecordWriter,
};

/// Usage of all clients, by client name.
#[derive(Debug, Default)]
pub(super) struct ClientQuotas {
    by_client: Mutex<HashMap<String, Arc<SharedUsage>>>,
    clock: Clock,
}

/// Usage of one client.
#[derive(Debug)]
pub(super) struct SharedUsage {
    usage: Mutex<ClientUsage>,
    clock: Clock,
}

#[derive(Debug)]
pub(super) struct ClientUsage {
    recent_requests: RateWindow,
    in_flight: u32,
    /// Spend by day and currency. A few days are kept, because a clock may be set back.
    spent: BTreeMap<Date, HashMap<String, f64>>,
}

/// Days whose spend is kept.
const MAX_DAYS: usize = 3;

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub(super) struct QuotaGuard(Option<Arc<SharedUsage>>);

impl Drop for QuotaGuard {
    fn drop(&mut self) {
        if let Some(shared_usage) = &self.0 {
            shared_usage.update(|usage| usage.in_flight = usage.in_flight.saturating_sub(1));
        }
    }
}

impl QuotaGuard {
    /// Adds the cost of a call to the spend of its client, each attempt in its own currency.
    pub(super) fn charge(&self, record: &CallRecord) {
        let Some(shared_usage) = &self.0 else { return };
        let costs = record.attempts.iter().filter_map(AttemptRecord::cost);
        shared_usage.update(|usage| {
            let spent = usage.spent_on(local_time(&shared_usage.clock).date());
            for (cost, currency) in costs {
                *spent.entry(currency.to_owned()).or_default() += cost;
            }
        });
    }
}

impl SharedUsage {
    fn update<T>(&self, change: impl FnOnce(&mut ClientUsage) -> T) -> T {
        change(&mut self.usage.lock())
    }
}

impl ClientUsage {
    /// The spend of `day`, by currency.
    fn spent_on(&mut self, day: Date) -> &mut HashMap<String, f64> {
        if !self.spent.contains_key(&day) && self.spent.len() >= MAX_DAYS {
            let distance = |other: &Date| (*other - day).get_days().abs();
            let farthest = self.spent.keys().copied().max_by_key(distance);
            farthest.map(|other| self.spent.remove(&other));
        }
        self.spent.entry(day).or_default()
    }

    fn admit(&mut self, client: &ClientConfig, now: &Zoned) -> Result<(), Rejection> {
        let spent = self.spent_on(now.date());
        let exceeded =
            client.spend.iter().find(|(currency, limit)| spent.get(currency).copied().unwrap_or_default() >= *limit);
        if let Some((currency, limit)) = exceeded {
            return Err(Rejection::SpendLimit { client: client.name.clone(), limit: format!("{limit} {currency}") });
        }
        if let Some(limit) = client.max_concurrency.filter(|&limit| self.in_flight >= limit) {
            return Err(Rejection::ConcurrencyLimit { client: client.name.clone(), limit });
        }
        if let Some(limit) = client.rpm {
            if let Some(wait) = self.recent_requests.wait(limit, now.timestamp()) {
                return Err(Rejection::RateLimit { client: client.name.clone(), limit, wait });
            }
            self.recent_requests.start(now.timestamp());
        }
        self.in_flight += 1;
        Ok(())
    }
}

impl ClientQuotas {
    /// No usage; reads the time of `clock`.
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Registers new clients, with today's spend from the record.
    pub(super) fn register(&self, clients: &[ClientConfig], writer: Option<&RecordWriter>) -> Result<(), ServeError> {
        for client in clients {
            if self.usage(&client.name).is_some() {
                continue;
            }
            let now = local_time(&self.clock);
            let spent = match writer.map(|writer| writer.client_spend(&client.name, &now)) {
                Some(Ok(spent)) => spent,
                Some(Err(source)) if !client.spend.is_empty() => {
                    return Err(ServeError::SpendUnavailable { name: client.name.clone(), source });
                }
                // Without a spend limit the record is optional; a limit added later counts from 0.
                Some(Err(_)) | None => Vec::new(),
            };
            let spent = BTreeMap::from([(now.date(), spent.into_iter().collect())]);
            let usage = ClientUsage { recent_requests: RateWindow::default(), in_flight: 0, spent };
            let usage = SharedUsage { usage: Mutex::new(usage), clock: self.clock.clone() };
            let mut usages = self.by_client.lock();
            usages.entry(client.name.clone()).or_insert(Arc::new(usage));
        }
        Ok(())
    }

    fn usage(&self, name: &str) -> Option<Arc<SharedUsage>> {
        self.by_client.lock().get(name).cloned()
    }

    /// Admits and counts a request of `client`, or rejects it if a limit is reached.
    pub(super) fn admit(&self, client: Option<&ClientConfig>) -> Result<QuotaGuard, Rejection> {
        let Some(client) = client else { return Ok(QuotaGuard(None)) };
        let shared_usage = self.usage(&client.name).expect("all clients of the config are registered");
        shared_usage.update(|usage| usage.admit(client, &local_time(&self.clock)))?;
        Ok(QuotaGuard(Some(shared_usage)))
    }
}

/// The time of `clock` in the time zone of the system, where a day begins at midnight.
fn local_time(clock: &Clock) -> Zoned {
    clock.now().to_zoned(TimeZone::system())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::model::api_key::{ApiKey, KeySource};

    fn client() -> ClientConfig {
        ClientConfig {
            name: "a".into(),
            key: KeySource::Literal(ApiKey::new("sk-first-key")),
            models: None,
            rpm: None,
            max_concurrency: None,
            spend: Vec::new(),
            metrics: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rpm_and_concurrency_limits_are_enforced() {
        let limited = ClientConfig { rpm: Some(2), max_concurrency: Some(1), ..client() };
        let quotas = ClientQuotas::default();
        quotas.register(std::slice::from_ref(&limited), None).expect("no record to read");
        let guard = quotas.admit(Some(&limited)).expect("below both limits");
        assert!(matches!(
            quotas.admit(Some(&limited)).expect_err("concurrency limit is reached"),
            Rejection::ConcurrencyLimit { limit: 1, .. }
        ));
        drop(guard);
        drop(quotas.admit(Some(&limited)).expect("second request of the minute"));
        let Rejection::RateLimit { wait, .. } = quotas.admit(Some(&limited)).expect_err("rpm limit is reached") else {
            panic!("wrong rejection kind")
        };
        assert_eq!(wait, Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(quotas.admit(Some(&limited)).expect("the minute is over"));
    }

    #[test]
    fn daily_spend_is_reset_on_the_next_day_and_not_by_a_clock_that_is_set() {
        let limited = ClientConfig { spend: vec![("USD".into(), 1.0)], ..client() };
        let day = |day| Date::new(2026, 1, day).expect("valid date");
        let spent = BTreeMap::from([(day(1), HashMap::from([("USD".to_owned(), 1.0)]))]);
        let mut usage = ClientUsage { recent_requests: RateWindow::default(), in_flight: 0, spent };
        let mut admit = |number| usage.admit(&limited, &day(number).to_zoned(TimeZone::UTC).expect("valid time"));
        assert!(matches!(admit(1).expect_err("spend limit is reached"), Rejection::SpendLimit { .. }));
        admit(2).expect("spend was reset");
        admit(1).expect_err("the clock was set back");
        for later in 3..20 {
            admit(later).expect("nothing was spent");
        }
        assert_eq!(usage.spent.len(), MAX_DAYS);
    }

    #[test]
    fn limits_follow_the_clock_of_the_moment() {
        let hours = Arc::new(AtomicI64::new(0));
        let start: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().expect("valid timestamp");
        let shown = Arc::clone(&hours);
        let clock = Clock::new(move || start + jiff::SignedDuration::from_hours(shown.load(Ordering::Relaxed)));
        let quotas = ClientQuotas::new(clock);
        let limited = ClientConfig { rpm: Some(1), spend: vec![("USD".into(), 1.0)], ..client() };
        quotas.register(std::slice::from_ref(&limited), None).expect("no record to read");
        let shared = quotas.usage("a").expect("registered");
        let spend = || {
            shared.update(|usage| {
                usage.spent_on(local_time(&shared.clock).date()).insert("USD".into(), 1.0);
            });
        };
        drop(quotas.admit(Some(&limited)).expect("the first request"));
        assert!(matches!(quotas.admit(Some(&limited)), Err(Rejection::RateLimit { .. })));
        // The machine was suspended.
        hours.store(1, Ordering::Relaxed);
        drop(quotas.admit(Some(&limited)).expect("the minute is over"));
        spend();
        assert!(matches!(quotas.admit(Some(&limited)), Err(Rejection::SpendLimit { .. })));
        hours.store(49, Ordering::Relaxed);
        drop(quotas.admit(Some(&limited)).expect("another day"));
    }
}
