//! Tests of half-open probes and of hedge requests.

use super::{
    health::{connection_refused, finished, target_with_keys, targets_of},
    health_store::MemoryStore,
    *,
};
use crate::routing::health::{HealthKey, TargetHealthKeys};

/// An engine for which `a` is unreachable and half-open.
async fn engine_with_half_open() -> TestEngine {
    let test_engine = TestEngine::server([connection_refused(), connection_refused(), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream", "a-upstream", "b-upstream"]);
    sleep(SECOND * 6).await;
    test_engine
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
    // Both fail: each is tried again if its own error may pass.
    let rejected = || MockResponse::Status(401, vec![], "{}");
    let test_engine = TestEngine::new([MockResponse::DelayedStatus(SECOND * 2, 503), rejected(), answer()]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!(result.models(), ["a-upstream", "b-upstream", "a-upstream"]);
    let test_engine = TestEngine::new([MockResponse::DelayedStatus(SECOND * 2, 401), status(503), answer()]);
    let result = test_engine.run(hedged(SECOND)).await;
    assert_eq!(result.models(), ["a-upstream", "b-upstream", "b-upstream"]);
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
async fn slow_probe_is_hedged_after_a_second_and_still_closes_the_breaker() {
    let test_engine = engine_with_half_open().await;
    let slow = MockResponse::Chunks(vec![(SECOND * 3, HELLO), (Duration::ZERO, STOP)]);
    test_engine.add_replies([slow, answer()]);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!((result.models(), result.took), (vec!["a-upstream", "b-upstream"], SECOND));
    let usage = result.record.attempts[0].usage.expect("the prompt of the probe is billed");
    assert!(usage.estimated && usage.input.is_some_and(|tokens| tokens > 0), "{usage:?}");
    test_engine.add_replies([answer()]);
    let next = test_engine.run(call_to(two_targets())).await;
    assert_eq!((next.models(), next.took), (vec!["b-upstream"], Duration::ZERO), "the probe still runs");
    sleep(SECOND * 3).await;
    test_engine.add_replies([answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream"], "its first delta arrived");
}

#[tokio::test(start_paused = true)]
async fn probe_that_stays_silent_opens_the_breaker_again() {
    let test_engine = engine_with_half_open().await;
    test_engine.add_replies([MockResponse::NoResponse, answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.took, SECOND);
    sleep(SECOND * 10).await;
    for _ in 0..3 {
        test_engine.add_replies([answer()]);
        let result = test_engine.run(call_to(two_targets())).await;
        assert_eq!((result.models(), result.took), (vec!["b-upstream"], Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn candidate_probed_by_another_request_does_not_delay_failover() {
    let test_engine = engine_with_half_open().await;
    test_engine.add_replies([
        MockResponse::Chunks(vec![(SECOND / 2, HELLO), (Duration::ZERO, STOP)]),
        answer(),
        answer(),
    ]);
    let calls = (0..3).map(|_| call_to(two_targets())).collect();
    assert_eq!(targets_of(&finished(&test_engine, calls).await), ["a", "b", "b"]);
}

#[tokio::test(start_paused = true)]
async fn lease_of_a_slow_probe_is_renewed() {
    let test_engine = engine_with_half_open().await;
    // The only candidate: its first token takes 300 s.
    test_engine.add_replies([MockResponse::Chunks(vec![(SECOND * 300, HELLO), (Duration::ZERO, STOP)])]);
    let only = call_to(vec![testing::target("a")]);
    let first = tokio::spawn(test_engine.engine.run(Plan::single(only)).collect::<Vec<Event>>());
    sleep(SECOND * 200).await;
    let a = testing::target("a");
    let leased_until = || {
        let now = test_engine.engine.health.now();
        let keys = TargetHealthKeys::new(&a, &[]);
        test_engine
            .engine
            .health
            .with_snapshot(|snapshot| snapshot.probe_expiry(&keys, now))
            .filter(|until| *until > now)
    };
    assert!(leased_until().is_some() && !first.is_finished());
    first.await.expect("the task does not panic");
    assert_eq!(leased_until(), None);
}

#[tokio::test(start_paused = true)]
async fn dropped_probe_releases_its_lease() {
    let mut test_engine = TestEngine::server([connection_refused(), connection_refused(), answer()]);
    let store: Arc<dyn HealthStore> = Arc::new(MemoryStore::default());
    test_engine.engine = Arc::new(
        Arc::into_inner(test_engine.engine).expect("the only reference").with_health(Arc::clone(&store), Duration::MAX),
    );
    assert!(test_engine.run(call_to(two_targets())).await.record.result.is_ok());
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
        tokio::select! { _ = events.next() => {}, () = sleep(SECOND / 2) => {} }
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
async fn probe_tries_all_keys_with_one_lease() {
    let test_engine = TestEngine::server([connection_refused(), connection_refused(), answer()]);
    let targets = || vec![target_with_keys("a"), testing::target("b")];
    assert!(test_engine.run(call_to(targets())).await.record.result.is_ok());
    sleep(SECOND * 6).await;
    // The first key is rejected and the second answers after half a second: no other request probes in the meantime.
    test_engine.add_replies([
        status(401),
        MockResponse::Chunks(vec![(SECOND / 2, HELLO), (Duration::ZERO, STOP)]),
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
