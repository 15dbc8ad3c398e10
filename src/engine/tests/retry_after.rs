//! Tests of the Retry-After of errors.

use super::*;

#[tokio::test(start_paused = true)]
async fn error_has_the_soonest_retry_after_of_all_candidates() {
    let named = |status, seconds| MockResponse::Status(status, vec![("retry-after", seconds)], "{}");
    let test_engine = TestEngine::server([named(429, "250"), named(503, "40")]);
    test_engine.run(call_to(two_targets())).await;
    let result = test_engine.run(call_to(two_targets())).await;
    let error = result.record.result.as_ref().expect_err("a failed call");
    let wait = error.retry_after.as_ref().map(|retry_after| retry_after.delay_from(test_engine.engine.health.now()));
    assert!((error.class, error.remembered) == (ErrorClass::Rate, true) && result.requests.is_empty(), "{error:?}");
    assert!(wait.is_some_and(|wait| wait <= SECOND * 40), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_an_error_is_not_that_of_an_earlier_one_or_of_another_class() {
    let named = |status, seconds| MockResponse::Status(status, vec![("retry-after", seconds)], "{}");
    let retry_after = |result: &CallResult| {
        let error = result.record.result.as_ref().expect_err("a failed call");
        error.retry_after.as_ref().map(|retry_after| retry_after.raw.clone())
    };
    let once = |targets| Call { client_retries: true, ..call_to(targets) };
    let test_engine = TestEngine::server([named(429, "5"), named(429, "300")]);
    test_engine.run(once(vec![testing::target("a")])).await;
    let waited = test_engine.run(once(vec![testing::target("a")])).await.assert_all_replies_used();
    assert!(waited.took >= SECOND * 5 && retry_after(&waited).as_deref() == Some("300"), "{:?}", waited.took);
    // The same within one call.
    let test_engine = TestEngine::server([named(429, "5"), named(429, "300")]);
    let waited = test_engine.run(call_to(vec![testing::target("a")])).await.assert_all_replies_used();
    assert!(waited.took >= SECOND * 5 && retry_after(&waited).as_deref() == Some("300"), "{:?}", waited.took);
    // The time of a lone model is passed on, although health uses at most five minutes of it.
    let test_engine = TestEngine::server([named(429, "3600")]);
    let result = test_engine.run(call_to(vec![testing::target("a")])).await;
    assert_eq!(retry_after(&result).as_deref(), Some("3600"));
    // A hard restriction does not count.
    let test_engine = TestEngine::server([named(429, "250"), status(404)]);
    test_engine.run(once(two_targets())).await;
    let result = test_engine.run(once(two_targets())).await;
    assert!(result.requests.is_empty() && retry_after(&result).as_deref() == Some("250"), "{:?}", retry_after(&result));
    // `a` names no time, and that of `b` says nothing about it.
    let test_engine = TestEngine::server([named(503, "250"), status(429)]);
    test_engine.run(once(vec![testing::target("b")])).await;
    let result = test_engine.run(once(two_targets())).await;
    assert_eq!((result.models(), retry_after(&result)), (vec!["a-upstream"], None));
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_candidate_counts_for_which_no_attempt_is_left() {
    let named = |seconds| MockResponse::Status(429, vec![("retry-after", seconds)], "{}");
    let once = |names: &[&str]| {
        let targets = names.iter().map(|name| testing::target(name)).collect();
        Call { client_retries: true, ..call_to(targets) }
    };
    let test_engine = TestEngine::server([named("200"), named("200")]);
    test_engine.run(once(&["a", "b"])).await.assert_all_replies_used();
    sleep(SECOND * 7).await;
    test_engine.add_replies([named("30")]);
    test_engine.run(once(&["c"])).await;
    sleep(SECOND * 5).await;
    // One request in ten seconds ignores the named time, and this one makes two attempts.
    test_engine.add_replies([named("200"), named("200")]);
    let result = test_engine.run(once(&["a", "b", "c"])).await.assert_all_replies_used();
    assert_eq!(result.models(), ["a-upstream", "b-upstream"]);
    let error = result.record.result.as_ref().expect_err("a failed call");
    let wait = error.retry_after.as_ref().map(|retry_after| retry_after.delay_from(test_engine.engine.health.now()));
    assert!(wait.is_some_and(|wait| wait <= SECOND * 25), "{wait:?}");
}
