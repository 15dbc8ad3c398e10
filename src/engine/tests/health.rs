//! Tests of health shared between requests: unavailable candidates, probes, keys, latencies, hedging and spend limits.

use proptest::prelude::{any, prop_assert, proptest};

use super::*;
pub(super) fn connection_refused() -> MockResponse {
    MockResponse::ConnectError(TransportErrorKind::Refused)
}

/// An error response with this status and body.
fn error_reply(status: u16, body: &'static str) -> MockResponse {
    MockResponse::Status(status, vec![], body)
}

pub(super) fn target_with_keys(name: &str) -> Target {
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
async fn request_is_sent_at_once_although_all_breakers_are_open() {
    let test_engine = open_breakers(TestEngine::server([])).await;
    test_engine.add_replies([status(500), answer()]);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert!(result.record.result.is_ok() && result.took.is_zero(), "{:?}", result.took);
    let tried: Vec<String> = result.models().into_iter().map(str::to_owned).collect();
    assert!(tried.len() == 2 && tried[0] != tried[1], "{tried:?}");
    test_engine.add_replies([answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), [&*tried[1]], "its answer closed its breaker");
}

#[tokio::test(start_paused = true)]
async fn request_makes_two_attempts_while_all_breakers_are_open() {
    let test_engine = open_breakers(TestEngine::server([])).await;
    for _ in 0..20 {
        test_engine.add_replies([status(500), status(500)]);
        let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
        assert_eq!((result.requests.len(), result.took), (2, Duration::ZERO));
        sleep(SECOND).await;
    }
}

/// Opens the breakers of both targets.
async fn open_breakers(test_engine: TestEngine) -> TestEngine {
    let is_restricted =
        |name: &str| test_engine.engine.availability(&Arc::new(testing::target(name))).restriction().is_some();
    while !(is_restricted("a") && is_restricted("b")) {
        test_engine.transport.responses.lock().clear();
        test_engine.add_replies(vec![status(500); 9]);
        test_engine.run(call_to(two_targets())).await;
    }
    test_engine.transport.responses.lock().clear();
    test_engine
}

#[tokio::test(start_paused = true)]
async fn one_failure_of_each_candidate_delays_no_request() {
    for reply in [status(503), status(429), MockResponse::ConnectError(TransportErrorKind::Reset)] {
        let test_engine = TestEngine::server([reply.clone(), reply, answer()]);
        let result = test_engine.run(call_to(two_targets())).await;
        assert!(result.record.result.is_ok() && result.took < SECOND, "{:?}", result.took);
        test_engine.transport.responses.lock().clear();
        for _ in 0..5 {
            test_engine.add_replies([answer()]);
            let result = test_engine.run(call_to(two_targets())).await;
            assert!(result.record.result.is_ok() && result.took.is_zero(), "{:?}", result.took);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limited_model_gets_one_request_in_a_second_and_the_others_its_last_error() {
    let test_engine = TestEngine::server(vec![status(429); 3]);
    let one = || call_to(vec![testing::target("a")]);
    let first = test_engine.run(one()).await;
    assert_eq!((first.class(), first.requests.len()), (ErrorClass::Rate, 3), "two further attempts");
    assert!(first.took >= SECOND, "the last one waits until the second is over: {:?}", first.took);
    let sent = test_engine.transport.requests.lock().len();
    for _ in 0..5 {
        let result = test_engine.run(one()).await;
        let error = result.record.result.as_ref().expect_err("a failed call");
        assert!(error.remembered && error.class == ErrorClass::Rate && error.retry_after.is_some(), "{error:?}");
        assert!(error.message.contains("a is not available: rate 429"), "{error}");
        assert!(result.took.is_zero(), "{:?}", result.took);
    }
    assert_eq!(test_engine.transport.requests.lock().len(), sent);
    sleep(SECOND).await;
    test_engine.transport.responses.lock().clear();
    test_engine.add_replies([answer()]);
    assert!(test_engine.run(one()).await.record.result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn refused_key_gets_one_request_in_five_seconds_from_a_server_and_all_from_a_person() {
    let one = || call_to(vec![target_with_keys("a")]);
    let refused = || [status(401), status(401)];
    let test_engine = TestEngine::server(refused());
    assert_eq!(test_engine.run(one()).await.assert_all_replies_used().requests.len(), 2, "each key once");
    for _ in 0..3 {
        let result = test_engine.run(one()).await;
        assert!(result.requests.is_empty(), "{:?}", result.models());
        assert!(result.record.result.as_ref().is_err_and(|error| error.remembered && error.class == ErrorClass::Auth));
    }
    sleep(SECOND * 5).await;
    test_engine.add_replies([answer()]);
    assert!(test_engine.run(one()).await.record.result.is_ok());
    let person = TestEngine::new(refused());
    person.run(one()).await;
    person.add_replies([answer()]);
    assert!(person.run(one()).await.record.result.is_ok());
}

#[tokio::test(start_paused = true)]
async fn hard_restricted_backup_is_not_tried_when_the_first_candidate_fails() {
    let test_engine = TestEngine::server([status(503), status(503), status(401), answer()]);
    assert_eq!(
        test_engine.run(call_to(two_targets())).await.models(),
        ["a-upstream", "a-upstream", "b-upstream", "a-upstream"]
    );
    test_engine.add_replies([status(500), answer()]);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!((result.models(), result.record.result.is_ok()), (vec!["a-upstream", "a-upstream"], true));
}

#[tokio::test(start_paused = true)]
async fn further_attempt_goes_to_another_candidate_if_the_first_may_not_be_tried() {
    let test_engine = TestEngine::server(vec![status(503); 3]);
    let waiting = tokio::spawn(test_engine.engine.run(Plan::single(call_to(two_targets()))).collect::<Vec<Event>>());
    while test_engine.transport.requests.lock().len() < 3 {
        sleep(Duration::from_millis(1)).await;
    }
    // Before the further attempt, another request finds that the key of `a` is refused.
    test_engine.add_replies([status(401), answer()]);
    let other = test_engine.run(call_to(vec![testing::target("a")])).await;
    assert_eq!((other.class(), other.requests.len()), (ErrorClass::Auth, 1));
    let events = waiting.await.expect("the task does not panic");
    let Some(EventKind::Finished(record)) = events.last().map(|event| &event.kind) else { panic!("{events:?}") };
    let tried: Vec<&str> = record.attempts.iter().map(|attempt| attempt.target.id.0.as_str()).collect();
    assert_eq!((tried, record.result.is_ok()), (vec!["a", "a", "b", "b"], true));
}

/// Runs a call to `a`, which fails with 429 each time, and `b`; returns the candidates that it tried.
async fn tried_with_rate_limited_a(test_engine: &TestEngine, replies: Vec<MockResponse>) -> (Vec<String>, Duration) {
    test_engine.add_replies(replies);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    (result.models().into_iter().map(str::to_owned).collect(), result.took)
}

#[tokio::test(start_paused = true)]
async fn rate_limited_model_is_tried_as_often_beside_a_restricted_one_as_alone() {
    let fail_b = async |reply: MockResponse| {
        let test_engine = TestEngine::server([reply]);
        let once = || Call { client_retries: true, ..call_to(vec![testing::target("b")]) };
        assert!(test_engine.run(once()).await.record.result.is_err());
        test_engine
    };
    let limited = || vec![status(429), status(429), answer()];
    let (tried, took) = tried_with_rate_limited_a(&fail_b(status(401)).await, limited()).await;
    assert_eq!(tried, ["a-upstream"; 3], "the key of b is refused");
    assert!((SECOND..SECOND * 2).contains(&took), "{took:?}");
    let named = MockResponse::Status(429, vec![("retry-after", "15")], "{}");
    let (tried, took) = tried_with_rate_limited_a(&fail_b(named).await, limited()).await;
    assert_eq!(tried, ["a-upstream"; 3], "b is expected later");
    assert!((SECOND..SECOND * 2).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn result_of_a_request_to_an_untried_candidate_is_awaited_before_the_rate_interval_of_another() {
    let test_engine = TestEngine::server([status(429), status(429)]);
    let once = |name: &str| Call { client_retries: true, ..call_to(vec![testing::target(name)]) };
    for name in ["a", "b"] {
        test_engine.run(once(name)).await;
    }
    sleep(SECOND).await;
    test_engine.add_replies([MockResponse::Chunks(vec![(SECOND / 2, HELLO), (Duration::ZERO, STOP)])]);
    let in_flight = tokio::spawn(test_engine.engine.run(Plan::single(once("b"))).collect::<Vec<Event>>());
    sleep(SECOND / 10).await;
    test_engine.add_replies([status(429), answer()]);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!(result.models(), ["a-upstream", "b-upstream"]);
    assert!(result.took < SECOND, "not the interval of a: {:?}", result.took);
    in_flight.await.expect("the task does not panic");
}

#[tokio::test(start_paused = true)]
async fn silent_model_gets_one_request_at_a_time() {
    let timeouts = Timeouts { first_token: Some(SECOND), ..Timeouts::default() };
    let one = || call_to(vec![Target { timeouts, ..testing::target("a") }]);
    let test_engine = TestEngine::server(vec![MockResponse::NoResponse; 3]);
    for _ in 0..3 {
        assert_eq!(test_engine.run(one()).await.class(), ErrorClass::Timeout);
    }
    // The first of three calls is sent. The second and third wait for its result, and are sent when it answers.
    let late_answer = MockResponse::Chunks(vec![(SECOND / 2, HELLO), (Duration::ZERO, STOP)]);
    test_engine.add_replies([late_answer, answer(), answer()]);
    let calls = (0..3).map(|_| one()).collect();
    let outcomes = finished(&test_engine, calls).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| outcome.total <= SECOND / 2), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_are_sent_when_the_named_time_has_passed() {
    let rate = MockResponse::Status(429, vec![("retry-after", "10")], "{}");
    let test_engine = TestEngine::server([rate, answer(), answer(), answer()]);
    let started_at = Instant::now();
    let calls = (0..3).map(|_| call_to(vec![testing::target("a")])).collect();
    let outcomes = finished(&test_engine, calls).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert!((SECOND * 10..=SECOND * 12).contains(&started_at.elapsed()), "{:?}", started_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn candidate_without_a_named_time_is_tried_while_the_call_waits_for_another() {
    let named = MockResponse::Status(429, vec![("retry-after", "15")], "{}");
    let test_engine = TestEngine::server([named, status(429), status(429)]);
    let once = || Call { client_retries: true, ..call_to(two_targets()) };
    let first = test_engine.run(once()).await;
    assert_eq!(first.models(), ["a-upstream", "b-upstream"]);
    let waiting = tokio::spawn(test_engine.engine.run(Plan::single(once())).collect::<Vec<Event>>());
    sleep(SECOND / 10).await;
    test_engine.add_replies([answer()]);
    let result = test_engine.run(once()).await;
    assert_eq!(result.models(), ["b-upstream"]);
    assert!((SECOND / 2..SECOND * 2).contains(&result.took), "one request per second: {:?}", result.took);
    waiting.abort();
    sleep(SECOND).await;
    test_engine.add_replies([status(429), answer()]);
    let result = test_engine.run(once()).await;
    assert_eq!(result.models().last(), Some(&"a-upstream"), "after the other one has failed, the call still waits");
}

#[tokio::test(start_paused = true)]
async fn only_calls_that_may_be_sent_again_wait_for_a_named_time() {
    let named = || MockResponse::Status(429, vec![("retry-after", "12")], "{}");
    let test_engine = TestEngine::server((0..50).map(|_| named()));
    let calls = (0..50).map(|_| call_to(vec![testing::target("a")])).collect();
    let run = test_engine.engine.run(Plan { calls, max_concurrent: None });
    let outcomes = tokio::spawn(run.collect::<Vec<Event>>());
    sleep(SECOND).await;
    test_engine.add_replies((0..50).map(|_| answer()));
    let events = outcomes.await.expect("the task does not panic");
    let records = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Finished(record) => Some(record),
        _ => None,
    });
    let (waited, failed): (Vec<_>, Vec<_>) = records.partition(|record| record.total >= SECOND * 12);
    assert!(!waited.is_empty() && waited.iter().all(|record| record.result.is_ok()), "{}", waited.len());
    assert!(failed.iter().all(|record| record.result.is_err() && record.total < SECOND));
}

#[tokio::test(start_paused = true)]
async fn call_that_was_interrupted_in_its_wait_by_another_candidate_waits_again() {
    let test_engine = TestEngine::server([status(429)]);
    let once = Call { client_retries: true, ..call_to(vec![testing::target("b")]) };
    test_engine.run(once.clone()).await;
    sleep(SECOND).await;
    // One request to `b` in this second.
    test_engine.add_replies([status(429)]);
    test_engine.run(once).await;
    let named = MockResponse::Status(429, vec![("retry-after", "10")], "{}");
    test_engine.add_replies([named, status(401), answer()]);
    let result = test_engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!(result.models(), ["a-upstream", "b-upstream", "a-upstream"]);
    assert!(result.took >= SECOND * 10, "{:?}", result.took);
}

#[tokio::test(start_paused = true)]
async fn one_request_in_ten_seconds_ignores_the_named_time() {
    let rate = MockResponse::Status(429, vec![("retry-after", "300")], "{}");
    let test_engine = TestEngine::server([rate]);
    let one = || call_to(vec![testing::target("a")]);
    assert_eq!(test_engine.run(one()).await.class(), ErrorClass::Rate);
    sleep(SECOND * 9).await;
    assert!(test_engine.run(one()).await.record.result.as_ref().is_err_and(|error| error.remembered));
    sleep(SECOND).await;
    test_engine.add_replies([answer(), answer()]);
    assert!(test_engine.run(one()).await.record.result.is_ok());
    assert!(test_engine.run(one()).await.record.result.is_ok(), "the answer ended the cooldown");
}

#[tokio::test(start_paused = true)]
async fn stalled_model_is_tried_after_the_others() {
    let test_engine = TestEngine::server(vec![MockResponse::NoResponse; 3]);
    let silent = |_| {
        let run = test_engine.engine.run(Plan::single(call_to(vec![testing::target("a")])));
        tokio::spawn(run.collect::<Vec<Event>>())
    };
    let waiting: Vec<_> = (0..3).map(silent).collect();
    sleep(SECOND).await;
    test_engine.add_replies([answer()]);
    sleep(SECOND / 10).await;
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["b-upstream"]);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(SECOND / 10).await;
    test_engine.add_replies([answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream"], "nothing waits any more");
}

#[tokio::test(start_paused = true)]
async fn retries_of_one_model_do_not_use_up_those_of_another() {
    let test_engine = TestEngine::server([]);
    for number in 0..8 {
        test_engine.add_replies([status(500), answer()]);
        let result = test_engine.run(call_to(vec![testing::target(&number.to_string())])).await;
        assert!(result.record.result.is_ok(), "model {number}");
    }
    let mut sent = Vec::new();
    for _ in 0..8 {
        test_engine.transport.responses.lock().clear();
        test_engine.add_replies(vec![status(504); 3]);
        let result = test_engine.run(call_to(vec![testing::target("one")])).await;
        sent.push(result.requests.len());
    }
    assert!(sent[0] == 3 && sent[7] == 1, "three retries are always allowed: {sent:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_candidate_keeps_its_time_if_the_others_are_unavailable() {
    let test_engine = TestEngine::new([status(403), answer()]);
    assert_eq!(test_engine.run(call_to(two_targets())).await.models(), ["a-upstream", "b-upstream"]);
    test_engine.add_replies([MockResponse::Chunks(vec![(SECOND * 50, HELLO), (Duration::ZERO, STOP)])]);
    let result = test_engine.run(call_to(two_targets())).await;
    assert_eq!((result.models(), result.took), (vec!["b-upstream"], SECOND * 50));
}

/// Runs calls concurrently and returns their outcomes.
pub(super) async fn finished(test_engine: &TestEngine, calls: Vec<Call>) -> Vec<Arc<CallRecord>> {
    let outcomes =
        test_engine.engine.run(Plan { calls, max_concurrent: None }).filter_map(async |event| match event.kind {
            EventKind::Finished(outcome) => Some(outcome),
            _ => None,
        });
    outcomes.collect().await
}

pub(super) fn targets_of(outcomes: &[Arc<CallRecord>]) -> Vec<&str> {
    let targets = outcomes.iter().map(|outcome| outcome.target.as_ref().expect("a target was tried").id.0.as_str());
    let mut targets: Vec<&str> = targets.collect();
    targets.sort_unstable();
    targets
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
            // Each candidate once with each of its two keys, one repeat, and two further attempts with both keys.
            prop_assert!(tried <= 8 && requests <= tried * 2 + 5, "{requests} requests to {tried} candidates");
            prop_assert!(tried >= 1, "no candidate was tried");
        }
    }
}
