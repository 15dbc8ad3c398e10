//! Answers that break off, and answers that only seem to.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cut_after_the_first_byte_is_a_cut() {
    for reply in [
        Reply::Pieces(vec![(Duration::ZERO, HELLO)]),
        Reply::Broken(vec![(Duration::ZERO, HELLO)]),
        Reply::Pieces(vec![(Duration::ZERO, HELLO), (100 * SECOND, STOP)]),
        Reply::Pieces(vec![(Duration::ZERO, HELLO), (Duration::ZERO, "data: {\"error\":\"x\"}\n\n")]),
    ] {
        let ran = run(lane(two()), [reply]).await;
        assert!(ran.outcome.cut && ran.answer.text == "Hello", "{:?}", ran.outcome);
        assert_eq!(ran.class(), ErrorClass::Cut);
    }
}

#[tokio::test(start_paused = true)]
async fn thinking_that_breaks_off_starts_again_elsewhere() {
    let ran = run(lane(two()), [Reply::Broken(vec![(Duration::ZERO, THOUGHT)]), answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.answer.reasoning.as_str()), ("Hello", ""));
    assert_eq!(ran.classes(), ["cut", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_starts_again_or_is_held_back_where_that_is_wanted() {
    let cut = Reply::Pieces(vec![(Duration::ZERO, "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n")]);
    let ran = run(Lane { on_cut: OnCut::Restart, ..lane(two()) }, [cut.clone(), answer()]).await;
    assert_eq!(ran.answer.text, "Hello");
    assert!(matches!(ran.failovers().as_slice(), [Next::Restart(_)]));
    let ran = run(Lane { on_cut: OnCut::Buffer, ..lane(two()) }, [cut.clone(), answer()]).await;
    assert!(!ran.events.iter().any(|event| matches!(event.kind, EventKind::Deltas(_))), "nothing is to be shown yet");
    assert_eq!(ran.answer.text, "Hello");
    assert!(matches!(ran.failovers().as_slice(), [Next::Candidate(_)]));
    let ran = run(Lane { on_cut: OnCut::Buffer, ..lane(two()) }, [cut, status(401)]).await;
    assert!(ran.outcome.cut && ran.answer.text == "half", "what arrived is kept: {:?}", ran.outcome);
    let wordless = Reply::Pieces(vec![(Duration::ZERO, STOP)]);
    let half = Reply::Pieces(vec![(Duration::ZERO, HELLO)]);
    let ran = run(Lane { on_cut: OnCut::Buffer, ..lane(two()) }, [half, wordless]).await;
    assert!(ran.outcome.result.is_ok() && ran.answer.text.is_empty(), "an answer without a word is the answer");
    let last = Lane { on_cut: OnCut::Buffer, ..lane(vec![testing::target("a")]) };
    let ran = run(last, [Reply::Pieces(vec![(Duration::ZERO, HELLO)])]).await;
    assert!(ran.outcome.cut && ran.answer.text == "Hello", "what arrived is kept: {:?}", ran.outcome);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_complete_stays_so_whatever_follows() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let lingering = Reply::Pieces(vec![(Duration::ZERO, finish), (100 * SECOND, "")]);
    let ran = run(lane(two()), [lingering]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", SECOND));
    let blank = Reply::Pieces(vec![(Duration::ZERO, finish), (Duration::ZERO, "data:\n\n"), (100 * SECOND, "")]);
    assert!(run(lane(two()), [blank]).await.outcome.result.is_ok(), "an empty event takes nothing back");
    let error = Reply::Pieces(vec![(Duration::ZERO, finish), (Duration::ZERO, "data: {\"error\":\"late\"}\n\n")]);
    let ran = run(lane(two()), [error]).await;
    assert!(ran.outcome.result.is_ok() && matches!(ran.notices()[0], Notice::AfterEnd(..)));
    let ran = run(lane(two()), [Reply::Broken(vec![(Duration::ZERO, finish)])]).await;
    assert!(ran.outcome.result.is_ok(), "{:?}", ran.outcome.result);
    let after_done = Reply::Pieces(vec![(Duration::ZERO, HELLO), (Duration::ZERO, STOP), (100 * SECOND, "x")]);
    assert_eq!(run(lane(two()), [after_done]).await.took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_rules_are_those_of_any_attempt() {
    let cut = || Reply::Pieces(vec![(Duration::ZERO, HELLO)]);
    let restart = |targets| Lane { on_cut: OnCut::Restart, ..lane(targets) };
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let targets = vec![testing::target("a"), with_endpoint(testing::target("b"), keys)];
    let ran = run(restart(targets), [cut(), status(401), answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.failovers().last()), ("Hello", Some(&Next::Key)));
    let three = vec![testing::target("a"), testing::target("b"), testing::target("c")];
    let ran = run(restart(three.clone()), [cut(), status(500), status(500), answer()]).await;
    assert_eq!(ran.classes(), ["cut", "server", "server", "ok"]);
    assert_eq!(ran.failovers()[2], Next::Candidate(three[2].id.clone()), "nothing of b was shown");
    let ran = run(restart(three), [cut(), status(400)]).await;
    assert_eq!(ran.classes(), ["cut", "request"], "a wrong request is nobody else's to answer");
    assert!(ran.outcome.cut && ran.class() == ErrorClass::Cut);
    assert_eq!(ran.outcome.target.map(|target| target.id.to_string()), Some("a".into()), "the one that was cut");
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_hold_a_complete_answer_open() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let mut pieces = vec![(5 * SECOND, finish)];
    pieces.extend(vec![(SECOND / 4, ": ping\n\n"); 100]);
    let ran = run(lane(two()), [Reply::Pieces(pieces)]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 6 * SECOND));
    let late = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n";
    let pieces = vec![(SECOND, finish), (SECOND / 2, ": ping\n\n"), (SECOND / 4, late), (SECOND * 3 / 4, STOP)];
    let ran = run(lane(two()), [Reply::Pieces(pieces)]).await;
    assert_eq!((ran.answer.usage.and_then(|usage| usage.output), ran.took), (Some(2), SECOND * 5 / 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_among_thoughts_is_nobody_elses_to_answer() {
    let refusal = "data: {\"error\":{\"code\":\"content_filter\",\"message\":\"no\"}}\n\n";
    let reply = || Reply::Pieces(vec![(Duration::ZERO, THOUGHT), (Duration::ZERO, refusal)]);
    assert_eq!(run(lane(two()), [reply()]).await.class(), ErrorClass::Filter);
    let ran = run(Lane { filter_goes_on: true, ..lane(two()) }, [reply(), answer()]).await;
    assert_eq!(ran.answer.text, "Hello");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_word_from_a_filter_goes_on_where_the_route_says_so() {
    let withheld = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n";
    let reply = || Reply::Pieces(vec![(Duration::ZERO, withheld)]);
    let ran = run(Lane { filter_goes_on: true, ..lane(two()) }, [reply(), answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.classes()), ("Hello", vec!["filter", "ok"]));
    let ran = run(lane(two()), [reply()]).await;
    assert_eq!(ran.outcome.result, Ok(Whole { reason: Some(FinishReason::ContentFilter) }));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_is_cut() {
    static LONG: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| HELLO.replace("Hello", &"x".repeat(1 << 20)));
    let ran = run(lane(two()), [Reply::Pieces(vec![(Duration::ZERO, LONG.as_str()); 200])]).await;
    assert!(ran.outcome.cut && ran.answer.text.len() < 140 << 20, "{:?}", ran.outcome.result);
}
