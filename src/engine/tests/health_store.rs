//! Tests of the store of the health, and of clocks that are set.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::{super::health::AttemptRef, health::connection_refused, *};
use crate::{
    model::clock::Clock,
    routing::health::{HealthError, HealthSnapshot, HealthStore, HealthUpdate},
};

/// A health store in memory.
#[derive(Default)]
pub(super) struct MemoryStore(Mutex<HealthSnapshot>);

impl HealthStore for MemoryStore {
    fn read(&self) -> Result<HealthSnapshot, HealthError> {
        Ok(self.0.lock().clone())
    }

    fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError> {
        act(&mut self.0.lock());
        Ok((self.read()?, None))
    }
}

#[tokio::test(start_paused = true)]
async fn newest_updates_are_kept_while_the_store_cannot_be_written() {
    /// A store that cannot be written at first.
    #[derive(Default)]
    struct RepairedLater(MemoryStore, AtomicBool);
    impl HealthStore for RepairedLater {
        fn read(&self) -> Result<HealthSnapshot, HealthError> {
            self.0.read()
        }
        fn update(&self, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError> {
            if self.1.load(Ordering::Relaxed) { self.0.update(act) } else { Err(HealthError("disk full".into())) }
        }
    }
    let test_engine = TestEngine::new([]);
    let store = Arc::new(RepairedLater::default());
    let engine = Arc::into_inner(test_engine.engine).expect("the only reference");
    let engine = engine.with_health(Arc::clone(&store) as Arc<dyn HealthStore>, Duration::MAX);
    let targets: Vec<_> = (0..300).map(|index| Arc::new(testing::target(&format!("m{index}")))).collect();
    for target in &targets {
        let sent_at = engine.health.now();
        let attempt = AttemptRef {
            target: Arc::clone(target),
            key_index: None,
            sent_at,
            probe: None,
            operation: None,
            health_keys: None,
        };
        engine.health.record_first_delta(attempt, Some(SECOND), &engine.keys);
    }
    store.1.store(true, Ordering::Relaxed);
    engine.health.persist(&engine.keys);
    let snapshot = store.read().expect("readable");
    let is_stored = |index: usize| snapshot.entry(HealthKey::model(&targets[index])).is_some();
    let stored: Vec<usize> = (0..300).filter(|&index| is_stored(index)).collect();
    assert_eq!(stored, (128..300).collect::<Vec<_>>(), "the older half is dropped when 256 updates are pending");
}

#[tokio::test(start_paused = true)]
async fn failures_count_in_memory_if_the_store_is_read_only() {
    /// A store that can be read but not written.
    struct ReadOnly;
    impl HealthStore for ReadOnly {
        fn read(&self) -> Result<HealthSnapshot, HealthError> {
            Ok(HealthSnapshot::default())
        }
        fn update(&self, _: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError> {
            Err(HealthError("read-only".into()))
        }
    }
    let mut test_engine = TestEngine::new([connection_refused(), connection_refused(), answer(), answer()]);
    let engine = Arc::into_inner(test_engine.engine).expect("the only reference");
    test_engine.engine = Arc::new(engine.with_health(Arc::new(ReadOnly), Duration::MAX));
    test_engine.run(call_to(two_targets())).await;
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["b-upstream"], "a is unavailable");
}

/// An engine whose wall clock differs by some seconds from the time of the runtime.
fn engine_with_set_clock(replies: impl IntoIterator<Item = MockResponse>) -> (TestEngine, Arc<AtomicI64>, Clock) {
    let difference = Arc::<AtomicI64>::default();
    let (shared, running) = (Arc::clone(&difference), Clock::default());
    let clock = Clock::new(move || running.now() + jiff::SignedDuration::from_secs(shared.load(Ordering::Relaxed)));
    let test_engine = TestEngine::new(replies);
    let engine = Arc::into_inner(test_engine.engine).expect("not shared yet").with_clock(clock.clone());
    (TestEngine { engine: Arc::new(engine), ..test_engine }, difference, clock)
}

#[tokio::test(start_paused = true)]
async fn clock_that_is_set_back_does_not_prolong_a_cooldown() {
    let (test_engine, difference, _) = engine_with_set_clock([status(429), answer(), answer(), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream", "b-upstream"]);
    difference.store(-2 * 86_400, Ordering::Relaxed);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["b-upstream"], "the cooldown goes on");
    sleep(SECOND * 6).await;
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream"], "5 s have passed");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_dated_by_the_clock_after_a_suspend() {
    let (test_engine, difference, clock) = engine_with_set_clock([answer(), answer(), answer()]);
    for days in [0, 1, -3] {
        difference.store(days * 86_400, Ordering::Relaxed);
        let result = test_engine.run(call_to(vec![testing::target("a")])).await;
        assert_eq!(result.record.attempts[0].sent_at, clock.now(), "{days} days");
        assert_eq!(result.record.started_at, clock.now(), "{days} days");
    }
}
