//! Tests of health shared between requests: unavailable candidates, probes, keys, latencies, hedging and spend limits.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::{any, prop_assert, proptest};

use super::{super::health::AttemptRef, *};
use crate::routing::health::{HealthError, HealthKey, HealthSnapshot, HealthStore, HealthUpdate, TargetHealthKeys};

fn connection_refused() -> MockResponse {
    MockResponse::ConnectError(TransportErrorKind::Refused)
}

/// An error response with this status and body.
fn error_reply(status: u16, body: &'static str) -> MockResponse {
    MockResponse::Status(status, vec![], body)
}

fn target_with_keys(name: &str) -> Target {
    with_endpoint(testing::target(name), |endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    })
}

#[tokio::test(start_paused = true)]
async fn failed_endpoint_is_skipped_until_its_cooldown_ends_and_then_probed_once() {
    let test_engine = TestEngine::new([connection_refused(), connection_refused(), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream", "a-upstream", "b-upstream"]);
    test_engine.add_replies([answer(), connection_refused(), answer(), answer(), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["b-upstream"], "a is unavailable");
    sleep(SECOND * 7).await;
    let probed = test_engine.run(call_to(two_targets())).await;
    assert_eq!(probed.models(), ["a-upstream", "b-upstream"], "a probe is a single request");
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["b-upstream"]);
    sleep(SECOND * 13).await;
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream"], "a has recovered");
}

#[tokio::test(start_paused = true)]
async fn single_model_is_always_tried() {
    let test_engine = TestEngine::new((0..20).map(|_| MockResponse::Status(500, vec![], "{}")));
    for _ in 0..10 {
        let result = test_engine.run(call_to(vec![testing::target("a")])).await;
        assert!(!result.requests.is_empty() && result.took < SECOND * 2, "{:?}", result.took);
    }
}

#[tokio::test(start_paused = true)]
async fn first_due_candidate_is_tried_when_all_are_unavailable() {
    let test_engine = TestEngine::new([connection_refused(), connection_refused(), connection_refused()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.class(), ErrorClass::Connect);
    test_engine.add_replies([connection_refused(), connection_refused(), answer()]);
    // The second one failed only once, so it is still available; as the last available one it is repeated.
    let result = test_engine.run(call_to(two_targets())).await;
    assert_eq!(result.models(), ["b-upstream", "b-upstream", "a-upstream"]);
    assert!(
        result.notices().iter().any(|notice| matches!(notice, Notice::AllUnavailable(..))),
        "{:?}",
        result.notices()
    );
    assert!(result.record.result.is_ok() && result.took <= SECOND * 5, "{:?}", result.took);
}

#[tokio::test(start_paused = true)]
async fn slow_candidate_keeps_its_time_if_the_others_are_unavailable() {
    let test_engine = TestEngine::new([status(403), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream", "b-upstream"]);
    test_engine.add_replies([MockResponse::Chunks(vec![(SECOND * 50, HELLO), (Duration::ZERO, STOP)])]);
    let result = test_engine.run(call_to(two_targets())).await;
    assert_eq!((result.models(), result.took), (vec!["b-upstream"], SECOND * 50));
}

/// An engine for which `a` is unreachable and due for a probe, and `b` is unavailable after a 403.
async fn engine_with_probe_due() -> TestEngine {
    let test_engine = TestEngine::new([connection_refused(), connection_refused(), status(403)]);
    assert!(test_engine.run(call_to(two_targets())).await.record.result.is_err());
    sleep(SECOND * 6).await;
    test_engine
}

/// Runs three calls concurrently and returns their outcomes.
async fn run_three_calls(test_engine: &TestEngine) -> Vec<Arc<CallRecord>> {
    let calls = (0..3).map(|_| call_to(two_targets())).collect();
    let outcomes =
        test_engine.engine.run(Plan { calls, max_concurrent: None }).filter_map(async |event| match event.kind {
            EventKind::Finished(outcome) => Some(outcome),
            _ => None,
        });
    outcomes.collect().await
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_result_of_the_probe_of_another() {
    let test_engine = engine_with_probe_due().await;
    // The first call becomes the probe; its first token takes 3 s.
    test_engine.add_replies([
        MockResponse::Chunks(vec![(SECOND * 3, HELLO), (Duration::ZERO, STOP)]),
        answer(),
        answer(),
    ]);
    let outcomes = run_three_calls(&test_engine).await;
    let results: Vec<_> = outcomes.iter().map(|outcome| (outcome.result.is_ok(), outcome.attempts.len())).collect();
    assert_eq!(results, [(true, 1); 3]);
}

/// A health store in memory.
#[derive(Default)]
struct MemoryStore(Mutex<HealthSnapshot>);

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
async fn candidate_probed_by_another_request_does_not_delay_failover() {
    let test_engine = engine_with_probe_due().await;
    test_engine.add_replies([
        MockResponse::Chunks(vec![(SECOND * 30, HELLO), (Duration::ZERO, STOP)]),
        answer(),
        answer(),
    ]);
    let outcomes = run_three_calls(&test_engine).await;
    let mut tried: Vec<_> =
        outcomes.iter().map(|outcome| outcome.target.as_ref().expect("a target was tried").id.0.as_str()).collect();
    tried.sort_unstable();
    assert_eq!(tried, ["a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn lease_of_a_slow_probe_is_renewed() {
    let test_engine = engine_with_probe_due().await;
    // The first call has no other candidate; its first token takes 300 s.
    test_engine.add_replies([
        MockResponse::Chunks(vec![(SECOND * 300, HELLO), (Duration::ZERO, STOP)]),
        answer(),
        answer(),
    ]);
    let first = tokio::spawn(test_engine.engine.run(Plan::single(call_to(two_targets()))).collect::<Vec<Event>>());
    sleep(SECOND * 200).await;
    let (a, now) = (testing::target("a"), test_engine.engine.health.now());
    let leased_until =
        test_engine.engine.health.with_snapshot(|snapshot| snapshot.probe_expiry(&TargetHealthKeys::new(&a, &[]), now));
    assert!(leased_until.is_some_and(|until| until > now), "{leased_until:?}");
    assert!(!first.is_finished());
    first.await.expect("the task does not panic");
    let now = test_engine.engine.health.now();
    let leased_until =
        test_engine.engine.health.with_snapshot(|snapshot| snapshot.probe_expiry(&TargetHealthKeys::new(&a, &[]), now));
    assert_eq!(leased_until, None);
}

#[tokio::test(start_paused = true)]
async fn dropped_probe_releases_its_lease() {
    let mut test_engine = TestEngine::new([connection_refused(), connection_refused(), connection_refused()]);
    let store: Arc<dyn HealthStore> = Arc::new(MemoryStore::default());
    test_engine.engine = Arc::new(
        Arc::into_inner(test_engine.engine).expect("the only reference").with_health(Arc::clone(&store), Duration::MAX),
    );
    assert!(test_engine.run(call_to(two_targets())).await.record.result.is_err());
    sleep(SECOND * 6).await;
    test_engine.add_replies([MockResponse::NoResponse, answer()]);
    {
        let mut events = Box::pin(test_engine.engine.run(Plan::single(call_to(two_targets()))));
        while let Some(event) = events.next().await {
            if matches!(event.kind, EventKind::Started(_)) {
                break;
            }
        }
        // The request is in flight.
        tokio::select! { _ = events.next() => {}, () = sleep(SECOND) => {} }
    }
    let snapshot = store.read().expect("readable");
    let a = testing::target("a");
    assert_eq!(
        snapshot.probe_expiry(&TargetHealthKeys::new(&a, &[]), jiff::Timestamp::now()),
        None,
        "other requests may probe it"
    );
    assert!(snapshot.entry(HealthKey::endpoint(&a.endpoint)).is_some(), "its failure is in the store");
    let result = test_engine.run(call_to(two_targets())).await;
    assert_eq!((result.models(), result.took), (vec!["a-upstream"], Duration::ZERO));
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
        let attempt = AttemptRef { target: Arc::clone(target), key_index: None, sent_at, probe: None };
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
    let mut test_engine = TestEngine::new([connection_refused(), connection_refused(), status(403)]);
    let engine = Arc::into_inner(test_engine.engine).expect("the only reference");
    test_engine.engine = Arc::new(engine.with_health(Arc::new(ReadOnly), Duration::MAX));
    assert!(test_engine.run(call_to(two_targets())).await.record.result.is_err());
    test_engine.add_replies([answer()]);
    let result = test_engine.run(call_to(two_targets())).await;
    assert!(result.took > SECOND * 3, "both are unavailable: {:?}", result.took);
}

#[tokio::test(start_paused = true)]
async fn probe_tries_all_keys_with_one_lease() {
    let test_engine = TestEngine::new([connection_refused(), connection_refused(), connection_refused()]);
    let targets = || vec![target_with_keys("a"), testing::target("b")];
    assert!(test_engine.run(call_to(targets())).await.record.result.is_err());
    sleep(SECOND * 6).await;
    // The first key is rejected and the second answers after 3 s: no other request probes in the meantime.
    test_engine.add_replies([
        status(401),
        MockResponse::Chunks(vec![(SECOND * 3, HELLO), (Duration::ZERO, STOP)]),
        answer(),
    ]);
    let calls = (0..2).map(|_| call_to(targets())).collect();
    let events: Vec<Event> = test_engine.engine.run(Plan { calls, max_concurrent: None }).collect().await;
    let tried: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(outcome) => Some(outcome.attempts.iter().map(|attempt| attempt.target.id.0.clone())),
            _ => None,
        })
        .collect();
    let mut tried: Vec<Vec<_>> = tried.into_iter().map(Iterator::collect).collect();
    tried.sort();
    assert_eq!(tried, [vec!["a", "a"], vec!["b"]]);
}

#[tokio::test(start_paused = true)]
async fn rejected_key_is_not_used_by_the_next_request() {
    let test_engine = TestEngine::new([status(401), answer()]);
    let keys =
        |result: &CallResult| result.requests.iter().filter_map(|request| request.key.clone()).collect::<Vec<_>>();
    let first = test_engine.run(call_to(vec![target_with_keys("a")])).await;
    assert_eq!(keys(&first), ["Bearer sk-first-key", "Bearer sk-second-key"]);
    let recorded: Vec<_> = first.record.attempts.iter().map(|attempt| attempt.key_index).collect();
    assert_eq!(recorded, [Some(0), Some(1)]);
    for _ in 0..3 {
        test_engine.add_replies([answer()]);
        assert_eq!(keys(&test_engine.run(call_to(vec![target_with_keys("a")])).await), ["Bearer sk-second-key"]);
    }
    test_engine.add_replies([error_reply(402, "{}")]);
    assert_eq!(test_engine.run(call_to(vec![target_with_keys("a")])).await.class(), ErrorClass::Quota);
    test_engine.add_replies([answer()]);
    let result = test_engine.run(call_to(vec![target_with_keys("a")])).await;
    assert_eq!(result.answer.text, "Hello", "a key is tried although all are unavailable");
}

#[tokio::test(start_paused = true)]
async fn keys_rotate_between_requests() {
    let test_engine = TestEngine::new((0..4).map(|_| answer()));
    let mut used = Vec::new();
    for _ in 0..4 {
        used.extend(
            test_engine
                .run(call_to(vec![target_with_keys("a")]))
                .await
                .record
                .attempts
                .iter()
                .filter_map(|attempt| attempt.key_index),
        );
    }
    assert_eq!(used, [0, 1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn first_token_timeout_adapts_to_slow_models() {
    let slow = || MockResponse::Chunks(vec![(SECOND * 5, HELLO), (Duration::ZERO, STOP)]);
    let test_engine = TestEngine::new([slow()]);
    assert_eq!(test_engine.run(call_to(vec![testing::target("a")])).await.record.ttft, Some(SECOND * 5));
    test_engine.add_replies([MockResponse::Chunks(vec![(SECOND * 14, HELLO), (Duration::ZERO, STOP)])]);
    assert_eq!(
        test_engine.run(call_to(two_targets())).await.models(),
        ["a-upstream"],
        "within three times the 95th percentile"
    );
    test_engine.add_replies([MockResponse::NoResponse, answer()]);
    let result = test_engine.run(call_to(two_targets())).await;
    assert_eq!((result.classes(), result.took), (vec!["timeout", "ok"], SECOND * 42));
}

#[tokio::test(start_paused = true)]
async fn slow_request_is_hedged_and_the_first_to_answer_wins() {
    let hedged = |after| {
        let policy = RoutePolicy { hedge_after: Some(after), ..RoutePolicy::default() };
        Call { route: Some(policy), ..call_to(two_targets()) }
    };
    let late = |seconds| MockResponse::Chunks(vec![(SECOND * seconds, HELLO), (Duration::ZERO, STOP)]);
    let test_engine = TestEngine::new([late(9), answer()]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!((result.models(), result.classes()), (vec!["a-upstream", "b-upstream"], vec!["local-limit", "ok"]));
    assert_eq!(
        (result.took, result.record.target.as_ref().map(|target| target.id.0.clone())),
        (SECOND, Some("b".into()))
    );
    test_engine.add_replies([late(2)]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!(result.models(), ["a-upstream"], "the hedge budget is used up");
    let test_engine = TestEngine::new([late(3), late(9)]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!(
        (result.took, result.record.target.as_ref().map(|target| target.id.0.clone())),
        (SECOND * 3, Some("a".into()))
    );
    let test_engine = TestEngine::new([MockResponse::DelayedStatus(SECOND * 2, 500), late(3)]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!((result.answer.text.as_str(), result.classes()), ("Hello", vec!["server", "ok"]));
    // The winner's answer is incomplete: the other one, which had no output, is tried again.
    let test_engine =
        TestEngine::new([late(9), MockResponse::ChunksThenReset(vec![(Duration::ZERO, HELLO)]), answer()]);
    let result = test_engine.run(Call { on_incomplete: OnIncomplete::Restart, ..hedged(SECOND) }).await;
    assert_eq!(
        (result.models(), result.classes()),
        (vec!["a-upstream", "b-upstream", "a-upstream"], vec!["local-limit", "incomplete", "ok"])
    );
    assert_eq!((result.answer.text.as_str(), result.record.result.is_ok()), ("Hello", true));
}

#[tokio::test(start_paused = true)]
async fn model_over_its_spend_limit_is_skipped() {
    #[derive(Debug)]
    struct SpentLedger;
    impl crate::routing::spend::SpendLedger for SpentLedger {
        fn reached_limit(&self, target: &Target) -> Result<Option<crate::routing::spend::ReachedLimit>, String> {
            use crate::routing::spend::{Period, ReachedLimit, SpendLimit, SpendScope};
            let scope = SpendScope::Model("a".into());
            let limit = SpendLimit { scope, period: Period::Day, amount: 1.0, currency: "USD".into() };
            Ok((target.id.0 == "a").then_some(ReachedLimit { limit, spent: 1.5 }))
        }
    }
    let transport = Arc::new(MockTransport::new([answer()]));
    let engine = Engine::new(Arc::clone(&transport) as Arc<dyn Transport>, KeyRing::default());
    let engine = Arc::new(engine.with_ledger(Arc::new(SpentLedger)));
    let result = run_call(&engine, &transport, call_to(two_targets())).await;
    assert_eq!(result.models(), ["b-upstream"]);
    assert!(
        matches!(result.notices().as_slice(), [Notice::Skipped(id, reason)] if id.0 == "a" && reason.contains("1.5"))
    );
    let rejected = run_call(&engine, &transport, call_to(vec![testing::target("a")])).await;
    assert_eq!((rejected.class(), rejected.requests.len()), (ErrorClass::Spend, 0));
}

/// A reply of each kind.
fn reply_of_kind(kind: u8) -> MockResponse {
    match kind {
        0 => connection_refused(),
        1 => MockResponse::ConnectError(TransportErrorKind::Reset),
        2 => MockResponse::ConnectError(TransportErrorKind::Dns),
        3 => status(401),
        4 => status(402),
        5 => error_reply(429, "{}"),
        6 => MockResponse::Status(429, vec![("retry-after", "2")], "{}"),
        7 => MockResponse::Status(503, vec![("retry-after", "1")], "{}"),
        8 => status(404),
        9 => status(409),
        10 => MockResponse::Chunks(vec![]),
        11 => MockResponse::Chunks(vec![(Duration::ZERO, HELLO)]),
        12 => MockResponse::NoResponse,
        13 => answer(),
        _ => status(500),
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]
    #[test]
    fn no_sequence_of_failures_exceeds_the_attempt_budget(
        kinds in proptest::collection::vec(0u8..20, 400),
        candidates in 1usize..12,
        requests in 1usize..12,
        hedged in any::<bool>(),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        let counts: Vec<(usize, usize, bool)> = runtime.block_on(async {
            let test_engine = TestEngine::new(kinds.into_iter().map(reply_of_kind));
            let mut counts = Vec::new();
            for _ in 0..requests {
                let targets: Vec<Target> = (0..candidates).map(|number| target_with_keys(&number.to_string())).collect();
                let policy = RoutePolicy { hedge_after: hedged.then_some(SECOND), ..RoutePolicy::default() };
                let route = (candidates > 1).then_some(policy);
                let result = test_engine.run(Call { route, on_incomplete: OnIncomplete::Restart, ..call_to(targets) }).await;
                let mut tried: Vec<&str> = result.models();
                tried.sort_unstable();
                tried.dedup();
                let tried = tried.len();
                let complete = result.record.result.is_ok();
                counts.push((result.requests.len(), tried, complete));
            }
            counts
        });
        for (requests, tried, _) in counts {
            // Each candidate once with each of its two keys, and one repeat.
            prop_assert!(tried <= 8 && requests <= tried * 2 + 1, "{requests} requests to {tried} candidates");
            prop_assert!(tried >= 1, "no candidate was tried");
        }
    }
}
