//! Tests of incomplete answers, and of complete ones that look incomplete.

use super::*;
use crate::routing::OnFilter;

#[tokio::test(start_paused = true)]
async fn answer_without_an_end_is_incomplete() {
    for reply in [
        MockResponse::Chunks(vec![(Duration::ZERO, HELLO)]),
        MockResponse::ChunksThenReset(vec![(Duration::ZERO, HELLO)]),
        MockResponse::Chunks(vec![(Duration::ZERO, HELLO), (100 * SECOND, STOP)]),
        MockResponse::Chunks(vec![(Duration::ZERO, HELLO), (Duration::ZERO, "data: {\"error\":\"x\"}\n\n")]),
    ] {
        let result = run(call_to(two_targets()), [reply]).await;
        assert!(result.record.incomplete && result.answer.text == "Hello", "{:?}", result.record);
        assert_eq!(result.class(), ErrorClass::Incomplete);
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_reasoning_fails_over() {
    let result =
        run(call_to(two_targets()), [MockResponse::ChunksThenReset(vec![(Duration::ZERO, REASONING)]), answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.answer.reasoning.as_str()), ("Hello", ""));
    assert_eq!(result.classes(), ["incomplete", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn incomplete_answer_is_restarted_or_buffered_by_on_incomplete() {
    let incomplete =
        MockResponse::Chunks(vec![(Duration::ZERO, "data: {\"choices\":[{\"delta\":{\"content\":\"partial\"}}]}\n\n")]);
    let result =
        run(Call { on_incomplete: OnIncomplete::Restart, ..call_to(two_targets()) }, [incomplete.clone(), answer()])
            .await;
    assert_eq!(result.answer.text, "Hello");
    assert!(matches!(result.failovers().as_slice(), [NextStep::RestartOutput(_)]));
    let result =
        run(Call { on_incomplete: OnIncomplete::Buffer, ..call_to(two_targets()) }, [incomplete.clone(), answer()])
            .await;
    assert!(
        !result.events.iter().any(|event| matches!(event.kind, EventKind::Deltas(_))),
        "buffered deltas are not shown"
    );
    assert_eq!(result.answer.text, "Hello");
    assert!(matches!(result.failovers().as_slice(), [NextStep::Failover(_)]));
    let result =
        run(Call { on_incomplete: OnIncomplete::Buffer, ..call_to(two_targets()) }, [incomplete, status(401)]).await;
    assert!(
        result.record.incomplete && result.answer.text == "partial",
        "the partial answer is kept: {:?}",
        result.record
    );
    let empty = MockResponse::Chunks(vec![(Duration::ZERO, STOP)]);
    let partial = MockResponse::Chunks(vec![(Duration::ZERO, HELLO)]);
    let result = run(Call { on_incomplete: OnIncomplete::Buffer, ..call_to(two_targets()) }, [partial, empty]).await;
    assert!(result.record.result.is_ok() && result.answer.text.is_empty(), "a complete answer without text counts");
    let last = Call { on_incomplete: OnIncomplete::Buffer, ..call_to(vec![testing::target("a")]) };
    let result = run(last, [MockResponse::Chunks(vec![(Duration::ZERO, HELLO)])]).await;
    assert!(
        result.record.incomplete && result.answer.text == "Hello",
        "the partial answer is kept: {:?}",
        result.record
    );
}

#[tokio::test(start_paused = true)]
async fn complete_answer_stays_complete_whatever_follows() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let lingering = MockResponse::Chunks(vec![(Duration::ZERO, finish), (100 * SECOND, "")]);
    let result = run(call_to(two_targets()), [lingering]).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 10 * SECOND), "usage was asked for");
    let without_usage = with_endpoint(testing::target("a"), |endpoint| endpoint.no_stream_options = true);
    let lingering = MockResponse::Chunks(vec![(Duration::ZERO, finish), (100 * SECOND, "")]);
    assert_eq!(run(call_to(vec![without_usage]), [lingering]).await.took, SECOND);
    let blank = MockResponse::Chunks(vec![(Duration::ZERO, finish), (Duration::ZERO, "data:\n\n"), (100 * SECOND, "")]);
    assert!(run(call_to(two_targets()), [blank]).await.record.result.is_ok(), "an empty event is ignored");
    let error =
        MockResponse::Chunks(vec![(Duration::ZERO, finish), (Duration::ZERO, "data: {\"error\":\"late\"}\n\n")]);
    let result = run(call_to(two_targets()), [error]).await;
    assert!(result.record.result.is_ok() && matches!(result.notices()[0], Notice::ErrorAfterEnd(..)));
    let result = run(call_to(two_targets()), [MockResponse::ChunksThenReset(vec![(Duration::ZERO, finish)])]).await;
    assert!(result.record.result.is_ok(), "{:?}", result.record.result);
    let after_done = MockResponse::Chunks(vec![(Duration::ZERO, HELLO), (Duration::ZERO, STOP), (100 * SECOND, "x")]);
    assert_eq!(run(call_to(two_targets()), [after_done]).await.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn attempts_after_a_restart_follow_the_usual_rules() {
    let incomplete = || MockResponse::Chunks(vec![(Duration::ZERO, HELLO)]);
    let restart = |targets| Call { on_incomplete: OnIncomplete::Restart, ..call_to(targets) };
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let targets = vec![testing::target("a"), with_endpoint(testing::target("b"), keys)];
    let result = run(restart(targets), [incomplete(), status(401), answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.failovers().last()), ("Hello", Some(&NextStep::RotateKey)));
    let three = vec![testing::target("a"), testing::target("b"), testing::target("c")];
    let result = run(restart(three.clone()), [incomplete(), status(500), status(500), answer()]).await;
    assert_eq!(result.classes(), ["incomplete", "server", "server", "ok"]);
    assert_eq!(result.failovers()[2], NextStep::Failover(three[2].id.clone()), "nothing of b was shown");
    let result = run(restart(three), [incomplete(), status(400)]).await;
    assert_eq!(result.classes(), ["incomplete", "request"], "an invalid request does not fail over");
    assert!(result.record.incomplete && result.class() == ErrorClass::Incomplete);
    assert_eq!(
        result.record.target.as_ref().map(|target| target.id.to_string()),
        Some("a".into()),
        "the target of the incomplete answer"
    );
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_extend_a_complete_answer() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let mut chunks = vec![(5 * SECOND, finish)];
    chunks.extend(vec![(SECOND / 4, ": ping\n\n"); 100]);
    let result = run(call_to(two_targets()), [MockResponse::Chunks(chunks)]).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 15 * SECOND));
    let late = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    let chunks = vec![(SECOND, finish), (SECOND / 2, ": ping\n\n"), (SECOND / 4, late), (SECOND * 3 / 4, STOP)];
    let result = run(call_to(two_targets()), [MockResponse::Chunks(chunks)]).await;
    assert_eq!((result.answer.usage.and_then(|usage| usage.output), result.took), (Some(2), SECOND * 5 / 2));
}

#[tokio::test(start_paused = true)]
async fn filtered_reasoning_fails_over_only_with_on_filter_next() {
    let refusal = "data: {\"error\":{\"code\":\"content_filter\",\"message\":\"no\"}}\n\n";
    let reply = || MockResponse::Chunks(vec![(Duration::ZERO, REASONING), (Duration::ZERO, refusal)]);
    assert_eq!(run(call_to(two_targets()), [reply()]).await.class(), ErrorClass::Filter);
    let result = run(Call { on_filter: OnFilter::Next, ..call_to(two_targets()) }, [reply(), answer()]).await;
    assert_eq!(result.answer.text, "Hello");
}

#[tokio::test(start_paused = true)]
async fn filtered_empty_answer_fails_over_only_with_on_filter_next() {
    let filtered = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n";
    let reply = || MockResponse::Chunks(vec![(Duration::ZERO, filtered)]);
    let result = run(Call { on_filter: OnFilter::Next, ..call_to(two_targets()) }, [reply(), answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.classes()), ("Hello", vec!["filter", "ok"]));
    let result = run(call_to(two_targets()), [reply()]).await;
    assert_eq!(result.record.result, Ok(Completion { finish_reason: Some(FinishReason::ContentFilter) }));
}

#[tokio::test(start_paused = true)]
async fn answer_over_the_size_limit_is_incomplete() {
    static LONG: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| HELLO.replace("Hello", &"x".repeat(1 << 20)));
    let result = run(call_to(two_targets()), [MockResponse::Chunks(vec![(Duration::ZERO, LONG.as_str()); 200])]).await;
    assert!(result.record.incomplete && result.answer.text.len() < 140 << 20, "{:?}", result.record.result);
}
