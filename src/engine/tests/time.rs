//! Deadlines, silence and pauses, on a paused clock.

use super::*;

#[tokio::test(start_paused = true)]
async fn silence_lasts_ten_seconds_where_another_is_left_and_to_the_end_where_none_is() {
    let ran = run(lane(two()), [Reply::Silence, answer()]).await;
    assert_eq!(ran.took, 10 * SECOND);
    let reasoning = Target { reasons: true, ..testing::target("a") };
    let ran = run(lane(vec![reasoning, testing::target("b")]), [Reply::Silence, answer()]).await;
    assert_eq!(ran.took, 60 * SECOND);
    let ran = run(lane(vec![testing::target("a")]), [Reply::Silence]).await;
    assert_eq!((ran.took, ran.class()), (600 * SECOND, ErrorClass::Silent));
    assert!(matches!(ran.notices()[0], Notice::Waiting(_, after) if after == 30 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn comments_keep_a_stream_alive_but_are_no_first_token() {
    let pings = vec![(4 * SECOND, ": ping\n\n"); 5];
    let ran = run(lane(two()), [Reply::Pieces(pings), answer()]).await;
    assert_eq!((ran.classes(), ran.took), (vec!["silent", "ok"], 10 * SECOND));
    let mut slow = vec![(Duration::ZERO, HELLO)];
    slow.extend(vec![(50 * SECOND, ": ping\n\n"); 3]);
    slow.push((50 * SECOND, STOP));
    let ran = run(lane(two()), [Reply::Pieces(slow)]).await;
    assert!(ran.outcome.result.is_ok(), "{:?}", ran.outcome.result);
}

#[tokio::test(start_paused = true)]
async fn the_last_candidate_waits_for_a_rate_limit_that_is_short() {
    let rate = |seconds| Reply::Status(429, vec![("retry-after", seconds)], "{}");
    let ran = run(lane(vec![testing::target("a")]), [rate("7"), answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 7 * SECOND));
    let ran = run(lane(vec![testing::target("a")]), [rate("20")]).await;
    assert_eq!((ran.class(), ran.took), (ErrorClass::Rate, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_lane() {
    let lane = |targets| Lane { deadline: Some(3 * SECOND), ..lane(targets) };
    // A silent candidate leaves the others their share.
    let ran = run(lane(two()), [Reply::Silence, answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 3 * SECOND / 2));
    let ran = run(lane(two()), [Reply::Silence, Reply::Silence]).await;
    assert!(ran.outcome.deadline_passed);
    assert_eq!((ran.took, ran.class()), (3 * SECOND, ErrorClass::Silent));
}

#[tokio::test(start_paused = true)]
async fn explicit_timeouts_win() {
    let timeouts = Timeouts { first_token: Some(2 * SECOND), idle: Some(3 * SECOND), ..Timeouts::default() };
    let target = Target { timeouts, ..testing::target("a") };
    let ran = run(lane(vec![target.clone()]), [Reply::Silence]).await;
    assert_eq!((ran.took, ran.class()), (2 * SECOND, ErrorClass::Silent));
    let stalled = Reply::Pieces(vec![(SECOND, HELLO), (10 * SECOND, STOP)]);
    let ran = run(lane(vec![target]), [stalled]).await;
    assert_eq!((ran.took, ran.class()), (4 * SECOND, ErrorClass::Cut));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_costs_the_model_nothing() {
    let timeouts = Timeouts { idle: Some(2 * SECOND), total: Some(5 * SECOND), ..Timeouts::default() };
    let target = Target { timeouts, ..testing::target("a") };
    let pieces = vec![(SECOND, HELLO), (SECOND, HELLO), (SECOND, STOP)];
    let script = Script::of([Reply::Pieces(pieces)]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan::of(lane(vec![target]))));
    let mut last = None;
    while let Some(event) = events.next().await {
        sleep(10 * SECOND).await;
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::Finished(outcome)) if outcome.result.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_and_nothing_waited_for_beyond_the_deadline() {
    let rate = || Reply::Status(429, vec![("retry-after", "7")], "{}");
    let lane = |targets| Lane { deadline: Some(3 * SECOND), ..lane(targets) };
    let ran = run(lane(vec![testing::target("a")]), [rate()]).await;
    assert_eq!((ran.class(), ran.took), (ErrorClass::Rate, Duration::ZERO), "a wait that is too long is none");
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let late = Reply::Slow(3 * SECOND, 401);
    let ran = run(lane(vec![with_endpoint(testing::target("a"), keys)]), [late]).await;
    assert_eq!((ran.took, ran.asked.len(), ran.outcome.deadline_passed), (3 * SECOND, 1, true));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_for_places_and_bodies_of_errors_too() {
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { rpm: Some(1), ..Limits::default() };
    });
    let script = Script::of([Reply::Silence, answer()]);
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let first = Lane { deadline: Some(SECOND), ..lane(vec![full.clone()]) };
    let second = Lane { deadline: Some(4 * SECOND), ..lane(vec![full, testing::target("b")]) };
    let begun = Instant::now();
    let events: Vec<Event> = engine.run(Plan { lanes: vec![first, second], at_once: None }).collect().await;
    assert_eq!(begun.elapsed(), 2 * SECOND, "half of it is the second candidate's");
    let Some(EventKind::Finished(outcome)) = events.last().map(|event| event.kind.clone()) else { panic!("the end") };
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    let ran = run(Lane { deadline: Some(SECOND), ..lane(vec![testing::target("a")]) }, [Reply::Unended(500)]).await;
    assert_eq!((ran.took, ran.outcome.deadline_passed), (SECOND, true));
}

#[tokio::test(start_paused = true)]
async fn the_search_leaves_every_candidate_its_turn() {
    let slow = |name| Target { reasons: true, ..testing::target(name) };
    let ran = run(lane(vec![slow("a"), slow("b"), slow("c")]), [Reply::Silence, Reply::Silence, answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 80 * SECOND));
    let long = vec![(70 * SECOND / 2, HELLO); 4];
    let ran = run(Lane { on_cut: OnCut::Restart, ..lane(vec![slow("a"), slow("b")]) }, [Reply::Broken(long), answer()]);
    assert!(ran.await.outcome.result.is_ok(), "time in which an answer came is no search");
}

#[tokio::test(start_paused = true)]
async fn with_a_deadline_no_candidate_takes_the_others_share() {
    let timeouts = Timeouts { first_token: Some(20 * SECOND), ..Timeouts::default() };
    let patient = || Target { timeouts, ..testing::target("a") };
    let lane = |targets| Lane { deadline: Some(4 * SECOND), ..lane(targets) };
    let ran = run(lane(vec![patient(), testing::target("b")]), [Reply::Silence, answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 2 * SECOND));
    let mut whole = lane(two());
    let chat = Arc::make_mut(&mut whole.call).chat_mut().expect("a chat");
    chat.stream = false;
    let ran = run(whole, [Reply::Silence, answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn pings_are_no_word_to_who_waits() {
    let pings = std::iter::repeat_n((SECOND, ": ping\n\n"), 70).chain([(SECOND, HELLO), (SECOND, STOP)]);
    let ran = run(lane(vec![testing::target("a")]), [Reply::Pieces(pings.collect())]).await;
    let waits: Vec<_> = ran.notices();
    assert!(
        matches!(waits.as_slice(), [Notice::Waiting(_, first), Notice::Waiting(_, second)]
        if (*first, *second) == (30 * SECOND, 60 * SECOND)),
        "{waits:?}"
    );
}
