//! Tests of deadlines, timeouts and pauses, with a paused clock.

use super::*;

#[tokio::test(start_paused = true)]
async fn first_token_timeout_depends_on_the_remaining_candidates() {
    let result = run(call_to(two_targets()), [MockResponse::NoResponse, answer()]).await;
    assert_eq!(result.took, 10 * SECOND);
    let reasoning = Target { is_reasoning: true, ..testing::target("a") };
    let result = run(call_to(vec![reasoning, testing::target("b")]), [MockResponse::NoResponse, answer()]).await;
    assert_eq!(result.took, 60 * SECOND);
    let result = run(call_to(vec![testing::target("a")]), [MockResponse::NoResponse]).await;
    assert_eq!((result.took, result.class()), (600 * SECOND, ErrorClass::Timeout));
    assert!(matches!(result.notices()[0], Notice::WaitingForFirstToken(_, after) if after == 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn comments_count_for_the_idle_timeout_but_not_as_first_token() {
    let pings = vec![(4 * SECOND, ": ping\n\n"); 5];
    let result = run(call_to(two_targets()), [MockResponse::Chunks(pings), answer()]).await;
    assert_eq!((result.classes(), result.took), (vec!["timeout", "ok"], 10 * SECOND));
    let mut slow = vec![(Duration::ZERO, HELLO)];
    slow.extend(vec![(50 * SECOND, ": ping\n\n"); 3]);
    slow.push((50 * SECOND, STOP));
    let result = run(call_to(two_targets()), [MockResponse::Chunks(slow)]).await;
    assert!(result.record.result.is_ok(), "{:?}", result.record.result);
}

#[tokio::test(start_paused = true)]
async fn images_and_reasoning_details_end_the_wait_for_the_first_token() {
    const ROLE: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"name\":\"Mini\",\"images\":[]}}]}\n\n";
    const IMAGE: &str = "data: {\"choices\":[{\"delta\":{\"images\":[{\"image_url\":{\"url\":\"data:x\"}}]}}]}\n\n";
    const AUDIO: &str = "data: {\"choices\":[{\"delta\":{\"audio\":{\"data\":\"AA\"}}}]}\n\n";
    const DETAILS: &str = "data: {\"choices\":[{\"delta\":{\"reasoning_details\":[{\"data\":\"AA\"}]}}]}\n\n";
    const BLOCKS: &str = "data: {\"choices\":[{\"delta\":{\"thinking_blocks\":[{\"thinking\":\"hm\"}]}}]}\n\n";
    for (output, is_answer) in [(IMAGE, true), (AUDIO, true), (DETAILS, false), (BLOCKS, false)] {
        let chunks = vec![(SECOND, ROLE), (SECOND * 8, output), (SECOND * 50, output), (SECOND, STOP)];
        let test_engine = TestEngine::new([MockResponse::Chunks(chunks)]);
        let result = test_engine.run(call_to(two_targets())).await;
        assert_eq!((result.models(), result.record.ttft), (vec!["a-upstream"], Some(SECOND * 9)), "{output}");
        // After reasoning only, an error of the request still keeps its class.
        let error = "data: {\"error\":{\"message\":\"content filter\",\"code\":\"content_filter\"}}\n\n";
        let test_engine = TestEngine::new([MockResponse::Chunks(vec![(SECOND, output), (SECOND, error)])]);
        let class = test_engine.run(call_to(vec![testing::target("a")])).await.class();
        assert_eq!(class, if is_answer { ErrorClass::Incomplete } else { ErrorClass::Filter }, "{output}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_the_last_candidate_is_waited_for_once() {
    let rate = |seconds| MockResponse::Status(429, vec![("retry-after", seconds)], "{}");
    let one = || call_to(vec![testing::target("a")]);
    let within = |took: Duration, seconds| SECOND * seconds <= took && took <= (SECOND * seconds).mul_f64(1.2);
    let result = run(one(), [rate("7"), answer()]).await;
    assert!(result.answer.text == "Hello" && within(result.took, 7), "{:?}", result.took);
    let result = run(one(), [rate("7"), rate("7")]).await;
    assert!(result.class() == ErrorClass::Rate && within(result.took, 7), "{:?}", result.took);
    let result = run(one(), [rate("50"), answer()]).await;
    assert!(within(result.took, 50), "a person waits up to a minute: {:?}", result.took);
    for (engine, seconds) in
        [(TestEngine::new([rate("60"), answer()]), 60), (TestEngine::server([rate("20"), answer()]), 20)]
    {
        let result = engine.run(one()).await.assert_all_replies_used();
        assert!(result.answer.text == "Hello" && within(result.took, seconds), "{:?}", result.took);
    }
    for (engine, seconds) in [(TestEngine::new([rate("61")]), "61"), (TestEngine::server([rate("21")]), "21")] {
        let result = engine.run(one()).await.assert_all_replies_used();
        let error = result.record.result.as_ref().expect_err("a failed call");
        assert_eq!((error.class, result.took), (ErrorClass::Rate, Duration::ZERO), "{seconds}");
        assert_eq!(error.retry_after.as_ref().map(|retry_after| retry_after.raw.as_str()), Some(seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_the_call() {
    let with_deadline = |targets| Call { deadline: Some(3 * SECOND), ..call_to(targets) };
    // A candidate without output leaves the others their share of the time.
    let result = run(with_deadline(two_targets()), [MockResponse::NoResponse, answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 3 * SECOND / 2));
    let result = run(with_deadline(two_targets()), [MockResponse::NoResponse, MockResponse::NoResponse]).await;
    assert!(result.record.deadline_passed);
    assert_eq!((result.took, result.class()), (3 * SECOND, ErrorClass::Timeout));
}

#[tokio::test(start_paused = true)]
async fn explicit_timeouts_override_the_defaults() {
    let timeouts = Timeouts { first_token: Some(2 * SECOND), idle: Some(3 * SECOND), ..Timeouts::default() };
    let target = Target { timeouts, ..testing::target("a") };
    let result = run(call_to(vec![target.clone()]), [MockResponse::NoResponse]).await;
    assert_eq!((result.took, result.class()), (2 * SECOND, ErrorClass::Timeout));
    let stalled = MockResponse::Chunks(vec![(SECOND, HELLO), (10 * SECOND, STOP)]);
    let result = run(call_to(vec![target]), [stalled]).await;
    assert_eq!((result.took, result.class()), (4 * SECOND, ErrorClass::Incomplete));
}

#[tokio::test(start_paused = true)]
async fn slow_consumer_uses_up_no_timeout() {
    let timeouts = Timeouts { idle: Some(2 * SECOND), total: Some(5 * SECOND), ..Timeouts::default() };
    let target = Target { timeouts, ..testing::target("a") };
    let chunks = vec![(SECOND, HELLO), (SECOND, HELLO), (SECOND, STOP)];
    let transport = MockTransport::new([MockResponse::Chunks(chunks)]);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan::single(call_to(vec![target]))));
    let mut last = None;
    while let Some(event) = events.next().await {
        sleep(10 * SECOND).await;
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::Finished(record)) if record.result.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn no_request_or_wait_starts_beyond_the_deadline() {
    let rate = || MockResponse::Status(429, vec![("retry-after", "7")], "{}");
    let with_deadline = |targets| Call { deadline: Some(3 * SECOND), ..call_to(targets) };
    let result = run(with_deadline(vec![testing::target("a")]), [rate()]).await;
    assert_eq!(
        (result.class(), result.took),
        (ErrorClass::Rate, Duration::ZERO),
        "a wait beyond the deadline is not started"
    );
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let late = MockResponse::DelayedStatus(3 * SECOND, 401);
    let result = run(with_deadline(vec![with_endpoint(testing::target("a"), keys)]), [late]).await;
    assert_eq!((result.took, result.requests.len(), result.record.deadline_passed), (3 * SECOND, 1, true));
}

#[tokio::test(start_paused = true)]
async fn deadline_covers_permits_and_error_bodies() {
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { rpm: Some(1), ..Limits::default() };
    });
    let transport = MockTransport::new([MockResponse::NoResponse, answer()]);
    let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()));
    let first = Call { deadline: Some(SECOND), ..call_to(vec![full.clone()]) };
    let second = Call { deadline: Some(4 * SECOND), ..call_to(vec![full, testing::target("b")]) };
    let started_at = Instant::now();
    let events: Vec<Event> = engine.run(Plan { calls: vec![first, second], max_concurrent: None }).collect().await;
    assert_eq!(started_at.elapsed(), 2 * SECOND, "half of the 4 s is left for the second candidate");
    let Some(EventKind::Finished(record)) = events.last().map(|event| event.kind.clone()) else {
        panic!("the last event is not `Finished`")
    };
    assert!(record.result.is_ok(), "{:?}", record.result);
    let result =
        run(Call { deadline: Some(SECOND), ..call_to(vec![testing::target("a")]) }, [MockResponse::EndlessBody(500)])
            .await;
    assert_eq!((result.took, result.record.deadline_passed), (SECOND, true));
}

#[tokio::test(start_paused = true)]
async fn search_limit_leaves_every_candidate_a_share() {
    let slow = |name| Target { is_reasoning: true, ..testing::target(name) };
    let result = run(
        call_to(vec![slow("a"), slow("b"), slow("c")]),
        [MockResponse::NoResponse, MockResponse::NoResponse, answer()],
    )
    .await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 80 * SECOND));
    let long = vec![(70 * SECOND / 2, HELLO); 4];
    let result = run(
        Call { on_incomplete: OnIncomplete::Restart, ..call_to(vec![slow("a"), slow("b")]) },
        [MockResponse::ChunksThenReset(long), answer()],
    );
    assert!(result.await.record.result.is_ok(), "time with output does not count as search");
}

#[tokio::test(start_paused = true)]
async fn explicit_timeouts_are_limited_to_the_share_of_the_deadline() {
    let timeouts = Timeouts { first_token: Some(20 * SECOND), ..Timeouts::default() };
    let slow_target = || Target { timeouts, ..testing::target("a") };
    let with_deadline = |targets| Call { deadline: Some(4 * SECOND), ..call_to(targets) };
    let result =
        run(with_deadline(vec![slow_target(), testing::target("b")]), [MockResponse::NoResponse, answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 2 * SECOND));
    let mut unstreamed = with_deadline(two_targets());
    let chat = Arc::make_mut(&mut unstreamed.request).as_chat_mut().expect("a chat request");
    chat.stream = false;
    let result = run(unstreamed, [MockResponse::NoResponse, answer()]).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_stop_waiting_notices() {
    let pings = std::iter::repeat_n((SECOND, ": ping\n\n"), 70).chain([(SECOND, HELLO), (SECOND, STOP)]);
    let result = run(call_to(vec![testing::target("a")]), [MockResponse::Chunks(pings.collect())]).await;
    let waits: Vec<_> = result.notices();
    assert!(
        matches!(waits.as_slice(), [Notice::WaitingForFirstToken(_, first), Notice::WaitingForFirstToken(_, second)]
        if (*first, *second) == (30 * SECOND, 60 * SECOND)),
        "{waits:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn server_waits_a_minute_in_silence_for_an_answer_in_one_piece() {
    const ANSWER: [&str; 2] = ["{\"choices\":[{\"message\":{\"content\":", "\"Hello\"},\"finish_reason\":\"stop\"}]}"];
    let one_piece = |delay: Duration| MockResponse::Chunks(ANSWER.map(|part| (delay, part)).to_vec());
    let call = |targets| {
        let request = Arc::new(ModelRequest::Chat(ChatRequest {
            messages: vec![Message::text(Role::User, "hi")],
            ..ChatRequest::default()
        }));
        Call { request, ..call_to(targets) }
    };
    let server = TestEngine::server([MockResponse::NoResponse, one_piece(Duration::ZERO)]);
    let result = server.run(call(two_targets())).await;
    assert_eq!((result.classes(), result.took), (vec!["timeout", "ok"], 60 * SECOND));
    server.add_replies([one_piece(50 * SECOND)]);
    let result = server.run(call(two_targets())).await;
    assert_eq!((result.answer.text.as_str(), result.took), ("Hello", 100 * SECOND), "it is not silent for a minute");
    server.add_replies([one_piece(140 * SECOND)]);
    assert_eq!(server.run(call(two_targets())).await.took, 280 * SECOND, "it has taken 100 s before");
    server.add_replies([one_piece(200 * SECOND)]);
    assert_eq!(server.run(call(vec![testing::target("b")])).await.took, 400 * SECOND, "no other candidate is left");
    let person = run(call(two_targets()), [one_piece(200 * SECOND)]).await;
    assert_eq!(person.took, 400 * SECOND);
}
