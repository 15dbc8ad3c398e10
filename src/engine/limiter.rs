//! Enforces the configured limits of an endpoint: concurrent requests and requests per minute.
//!
//! A request that waits for longer than the endpoint's `queue` time fails with class `local-limit`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::{
    model::{
        ErrorClass,
        clock::Clock,
        endpoint::{Endpoint, Limits},
    },
    protocol::CallError,
    routing::rate_window::RateWindow,
};

/// One limiter per endpoint.
#[derive(Debug, Default)]
pub(super) struct EndpointLimiters {
    by_endpoint: Mutex<HashMap<String, Arc<EndpointLimiter>>>,
    clock: Clock,
}

#[derive(Debug)]
struct EndpointLimiter {
    limits: Limits,
    semaphore: Option<Arc<Semaphore>>,
    recent_requests: Mutex<RateWindow>,
    /// The number of queued requests.
    queued: AtomicUsize,
}

/// Counts a queued request until dropped.
struct QueuedGuard<'g>(&'g AtomicUsize);

impl<'g> QueuedGuard<'g> {
    fn new(count: &'g AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for QueuedGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Permission for one request to an endpoint; released when dropped.
#[derive(Debug)]
pub(super) struct Permit(#[expect(dead_code, reason = "releases the permit on drop")] Option<OwnedSemaphorePermit>);

impl EndpointLimiters {
    /// Reads the time of `clock`.
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Waits for a permit, for at most the `queue` time of the endpoint, or `default_timeout`.
    pub(super) async fn acquire(&self, endpoint: &Endpoint, default_timeout: Duration) -> Result<Permit, CallError> {
        if endpoint.limits == Limits::default() {
            return Ok(Permit(None));
        }
        let limiter = self.limiter(endpoint);
        let queue_timeout = limiter.limits.queue_timeout.unwrap_or(default_timeout);
        timeout(queue_timeout, limiter.acquire(&self.clock)).await.map_err(|_| {
            let message = format!(
                "no free request slot at endpoint \"{}\" within {:.1} s",
                endpoint.name,
                queue_timeout.as_secs_f64()
            );
            let hint = Some("raise max_concurrency, rpm or queue of the endpoint".into());
            CallError { hint, ..CallError::new(ErrorClass::LocalLimit, message) }
        })
    }

    /// The number of queued requests, by endpoint.
    pub(super) fn queued_by_endpoint(&self) -> Vec<(String, usize)> {
        let limiters = self.by_endpoint.lock();
        limiters.iter().map(|(name, limiter)| (name.clone(), limiter.queued.load(Ordering::Relaxed))).collect()
    }

    fn limiter(&self, endpoint: &Endpoint) -> Arc<EndpointLimiter> {
        let mut limiters = self.by_endpoint.lock();
        let limits = endpoint.limits;
        let existing = limiters.get(&endpoint.name).filter(|limiter| limiter.limits == limits);
        existing.cloned().unwrap_or_else(|| {
            let semaphore = limits.max_concurrency.map(|limit| Arc::new(Semaphore::new(limit)));
            let limiter = Arc::new(EndpointLimiter {
                limits,
                semaphore,
                recent_requests: Mutex::default(),
                queued: AtomicUsize::new(0),
            });
            // Requests admitted under the previous limits release their permits to the previous limiter.
            limiters.insert(endpoint.name.clone(), Arc::clone(&limiter));
            limiter
        })
    }
}

impl EndpointLimiter {
    async fn acquire(&self, clock: &Clock) -> Permit {
        let _queued = QueuedGuard::new(&self.queued);
        let permit = match &self.semaphore {
            Some(semaphore) => {
                Some(Arc::clone(semaphore).acquire_owned().await.expect("the semaphore is never closed"))
            }
            None => None,
        };
        while let Some(wait) = self.try_start_request(clock.now()) {
            sleep(wait).await;
        }
        Permit(permit)
    }

    /// Counts a request under `rpm`, or returns how long to wait.
    fn try_start_request(&self, now: Timestamp) -> Option<Duration> {
        let limit = self.limits.rpm?;
        let mut recent_requests = self.recent_requests.lock();
        let wait = recent_requests.wait(limit, now);
        if wait.is_none() {
            recent_requests.start(now);
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    const QUEUE_TIMEOUT: Duration = Duration::from_secs(30);

    use tokio::time::Instant;

    use super::*;
    use crate::model::endpoint::testing;

    fn endpoint(limits: Limits) -> Endpoint {
        Endpoint { limits, ..testing::endpoint("http://h/v1") }
    }

    #[tokio::test(start_paused = true)]
    async fn request_over_max_concurrency_waits_until_the_queue_timeout() {
        let (limiters, limits) =
            (EndpointLimiters::default(), Limits { max_concurrency: Some(1), ..Limits::default() });
        let endpoint = endpoint(limits);
        let permit = limiters.acquire(&endpoint, QUEUE_TIMEOUT).await.expect("no other request holds the permit");
        assert_eq!(
            limiters.acquire(&endpoint, QUEUE_TIMEOUT).await.expect_err("the only permit is taken").class,
            ErrorClass::LocalLimit
        );
        drop(permit);
        limiters.acquire(&endpoint, QUEUE_TIMEOUT).await.expect("the permit was released");
    }

    #[tokio::test(start_paused = true)]
    async fn request_over_rpm_waits_for_the_next_minute() {
        let limits = Limits { rpm: Some(2), queue_timeout: Some(Duration::from_secs(120)), ..Limits::default() };
        let (limiters, endpoint, started) = (EndpointLimiters::default(), endpoint(limits), Instant::now());
        for _ in 0..3 {
            limiters.acquire(&endpoint, QUEUE_TIMEOUT).await.expect("the queue time is two minutes");
        }
        assert_eq!(started.elapsed(), Duration::from_secs(60));
    }
}
