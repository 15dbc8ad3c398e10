//! The engine on a scripted transport and a paused clock: what is asked, in which order, and what comes out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    chat::{Answer, Call, ChatRequest, ErrorClass, FinishReason, Message, Role},
    endpoint::{ConnectOptions, Endpoint, Limits, Timeouts},
    keys::KeyRing,
    plan::Lane,
    route::OnCut,
    secret::{ApiKey, KeySource},
    target::{Target, testing},
    transport::{ByteStream, TransportError, TransportErrorKind},
};

/// One scripted reply.
#[derive(Clone, Debug)]
enum Reply {
    /// A status, headers and a body.
    Status(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// A stream: pieces, each after a wait.
    Pieces(Vec<(Duration, &'static str)>),
    /// As `Pieces`, and then the connection breaks.
    Broken(Vec<(Duration, &'static str)>),
    /// No connection.
    NoConnection(TransportErrorKind),
    /// Nothing, ever.
    Silence,
}

/// Answers requests from a list and remembers them.
#[derive(Debug, Default)]
struct Script {
    replies: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Clone, Debug)]
struct Asked {
    model: String,
    key: Option<String>,
    fresh: bool,
    body: serde_json::Value,
}

impl Transport for Script {
    fn send(
        &self,
        via: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
        let key = request.headers().get("authorization").map(|value| value.to_str().expect("text").to_owned());
        let asked = Asked { model: body["model"].as_str().expect("a model").into(), key, fresh: via.fresh, body };
        self.asked.lock().expect("one thread").push(asked);
        let reply = self.replies.lock().expect("one thread").pop_front().expect("a reply for every request");
        async move {
            let ok = |pieces: Vec<Result<(Duration, &'static str), ()>>| {
                let body: ByteStream = Box::pin(stream::iter(pieces).then(|piece| async move {
                    match piece {
                        Ok((wait, text)) => {
                            sleep(wait).await;
                            Ok(Bytes::from_static(text.as_bytes()))
                        }
                        Err(()) => Err(TransportError::new(TransportErrorKind::Reset, "connection reset")),
                    }
                }));
                Ok(http::Response::new(body))
            };
            match reply {
                Reply::Pieces(pieces) => ok(pieces.into_iter().map(Ok).collect()),
                Reply::Broken(pieces) => ok(pieces.into_iter().map(Ok).chain([Err(())]).collect()),
                Reply::Silence => std::future::pending().await,
                Reply::NoConnection(kind) => Err(TransportError::new(kind, "no connection")),
                Reply::Status(status, headers, text) => {
                    let body: ByteStream =
                        Box::pin(stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) }));
                    let mut reply = http::Response::new(body);
                    *reply.status_mut() = StatusCode::from_u16(status).expect("a status");
                    for (name, value) in headers {
                        reply.headers_mut().insert(name, http::HeaderValue::from_static(value));
                    }
                    Ok(reply)
                }
            }
        }
        .boxed()
    }
}

const HELLO: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
const THOUGHT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const SECOND: Duration = Duration::from_secs(1);

fn answer() -> Reply {
    Reply::Pieces(vec![(Duration::ZERO, HELLO), (Duration::ZERO, STOP)])
}

fn status(code: u16) -> Reply {
    Reply::Status(code, vec![], "{\"error\":{\"message\":\"no\"}}")
}

fn lane(targets: Vec<Target>) -> Lane {
    let messages = vec![Message::text(Role::User, "hi")];
    Lane {
        name: "route".into(),
        call: Call::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }),
        candidates: targets.into_iter().map(Arc::new).collect(),
        on_cut: OnCut::Error,
        filter_goes_on: false,
        deadline: None,
    }
}

fn two() -> Vec<Target> {
    vec![testing::target("a"), testing::target("b")]
}

fn with_endpoint(mut target: Target, change: impl FnOnce(&mut Endpoint)) -> Target {
    change(Arc::make_mut(&mut target.endpoint));
    target
}

/// Everything a run told, and what was asked for it.
struct Ran {
    events: Vec<Event>,
    outcome: LaneOutcome,
    answer: Answer,
    asked: Vec<Asked>,
    took: Duration,
}

impl Ran {
    fn models(&self) -> Vec<&str> {
        self.asked.iter().map(|asked| asked.model.as_str()).collect()
    }

    fn classes(&self) -> Vec<&str> {
        self.outcome.attempts.iter().map(|attempt| attempt.class().map_or("ok", ErrorClass::as_str)).collect()
    }

    fn failovers(&self) -> Vec<Next> {
        let failed = |event: &Event| match &event.kind {
            EventKind::Failed { next, .. } => Some(next.clone()),
            _ => None,
        };
        self.events.iter().filter_map(failed).collect()
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |event: &Event| match &event.kind {
            EventKind::Notice(notice) => Some(notice.clone()),
            _ => None,
        };
        self.events.iter().filter_map(notice).collect()
    }

    fn class(&self) -> ErrorClass {
        self.outcome.result.as_ref().expect_err("a failure").class
    }
}

async fn run(lane: Lane, replies: impl IntoIterator<Item = Reply>) -> Ran {
    let script = Arc::new(Script { replies: Mutex::new(replies.into_iter().collect()), asked: Mutex::default() });
    let engine = Arc::new(Engine::new(Arc::clone(&script) as Arc<dyn Transport>, KeyRing::default()));
    let begun = Instant::now();
    let events: Vec<Event> = engine.run(Plan { lanes: vec![lane] }).collect().await;
    let took = begun.elapsed();
    let mut answer = Answer::default();
    for event in &events {
        match &event.kind {
            EventKind::Deltas(deltas) => deltas.iter().for_each(|delta| answer.add(delta)),
            EventKind::Failed { .. } => answer = Answer::default(),
            _ => {}
        }
    }
    let Some(EventKind::Finished(outcome)) = events.last().map(|event| event.kind.clone()) else {
        panic!("the last event is the end: {events:?}")
    };
    assert!(script.replies.lock().expect("one thread").is_empty(), "a scripted reply was never asked for");
    let asked = script.asked.lock().expect("one thread").clone();
    Ran { events, outcome: *outcome, answer, asked, took }
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_through_whole() {
    let ran = run(lane(two()), [answer()]).await;
    assert_eq!(ran.outcome.result, Ok(Whole { reason: Some(FinishReason::Stop) }));
    assert_eq!((ran.answer.text.as_str(), ran.models()), ("Hello", vec!["a-upstream"]));
}

#[tokio::test(start_paused = true)]
async fn whatever_the_first_does_the_second_answers() {
    let page = Reply::Status(200, vec![], "<html><title>Welcome</title></html>");
    let first_error = Reply::Pieces(vec![(Duration::ZERO, "data: {\"error\":{\"message\":\"x\",\"code\":429}}\n\n")]);
    let rate = Reply::Status(429, vec![("retry-after", "30")], "{}");
    for (reply, repeats, class) in [
        (Reply::NoConnection(TransportErrorKind::Refused), true, "connect"),
        (Reply::NoConnection(TransportErrorKind::Dns), false, "connect"),
        (Reply::NoConnection(TransportErrorKind::Reset), true, "reset"),
        (Reply::Silence, false, "silent"),
        (rate, false, "rate"),
        (status(500), true, "server"),
        (status(503), false, "overloaded"),
        (status(401), false, "auth"),
        (status(402), false, "quota"),
        (status(403), false, "forbidden"),
        (status(404), false, "path"),
        (status(409), true, "conflict"),
        (status(504), false, "gateway-timeout"),
        (status(302), false, "redirect"),
        (page, false, "garbage"),
        (Reply::Pieces(vec![]), true, "garbage"),
        (first_error, false, "rate"),
        (Reply::Broken(vec![(Duration::ZERO, ": ping\n\n")]), true, "reset"),
        (Reply::Pieces(vec![(Duration::ZERO, "data: {oops\n\n")]), false, "garbled"),
        (Reply::Pieces(vec![(Duration::ZERO, "{\"choices\":[{\"mess")]), true, "reset"),
    ] {
        let times = if repeats { 2 } else { 1 };
        let replies = std::iter::repeat_n(reply.clone(), times).chain([answer()]);
        let ran = run(lane(two()), replies).await;
        assert_eq!(ran.answer.text, "Hello", "{reply:?}");
        assert!(ran.outcome.result.is_ok() && !ran.outcome.cut, "{reply:?}");
        assert_eq!(ran.classes()[0], class, "{reply:?}");
        assert_eq!(ran.failovers().last(), Some(&Next::Candidate(ran.outcome.target.expect("b").id.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_is_nobody_elses_to_answer() {
    for (reply, class) in [
        (status(400), ErrorClass::Request),
        (Reply::Status(400, vec![], "{\"error\":{\"code\":\"content_policy_violation\"}}"), ErrorClass::Filter),
    ] {
        let ran = run(lane(two()), [reply]).await;
        assert_eq!((ran.class(), ran.models()), (class, vec!["a-upstream"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_goes_on_where_the_route_says_so() {
    let refusal = Reply::Status(400, vec![], "{\"error\":{\"message\":\"content_filter\"}}");
    let ran = run(Lane { filter_goes_on: true, ..lane(two()) }, [refusal, answer()]).await;
    assert_eq!(ran.answer.text, "Hello");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_too_long_goes_to_larger_models_only() {
    let too_long = Reply::Status(400, vec![], "{\"error\":{\"code\":\"context_length_exceeded\"}}");
    let sized = |name, context| Target { context: Some(context), ..testing::target(name) };
    let targets = vec![sized("a", 8), sized("small", 4), testing::target("unknown"), sized("large", 16)];
    let ran = run(lane(targets), [too_long.clone(), answer()]).await;
    assert_eq!(ran.models(), ["a-upstream", "large-upstream"]);
    assert_eq!(ran.notices().len(), 2);
    let ran = run(lane(vec![sized("a", 8), sized("small", 4)]), [too_long]).await;
    assert_eq!(ran.class(), ErrorClass::Context);
}

#[tokio::test(start_paused = true)]
async fn a_model_the_prompt_does_not_fit_is_passed_over() {
    let sized = |name, context| Target { context: Some(context), ..testing::target(name) };
    let long = |targets| {
        let mut lane = lane(targets);
        let Call::Chat(chat) = &mut lane.call;
        chat.messages = vec![Message::text(Role::User, "word ".repeat(1000))];
        lane
    };
    let ran = run(long(vec![sized("small", 100), sized("large", 10_000)]), [answer()]).await;
    assert_eq!((ran.models(), ran.notices().len()), (vec!["large-upstream"], 1));
    let ran = run(long(vec![sized("small", 100)]), [answer()]).await;
    assert_eq!(ran.models(), ["small-upstream"]);
}

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
    let ran = run(Lane { on_cut: OnCut::Buffer, ..lane(two()) }, [cut, answer()]).await;
    let text = |event: &Event| match &event.kind {
        EventKind::Deltas(deltas) => format!("{deltas:?}"),
        _ => String::new(),
    };
    let shown: String = ran.events.iter().map(text).collect();
    assert!(shown.contains("Hello") && !shown.contains("half"), "{shown}");
    assert!(matches!(ran.failovers().as_slice(), [Next::Candidate(_)]));
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
async fn the_last_candidate_waits_for_a_rate_limit_that_is_short() {
    let rate = |seconds| Reply::Status(429, vec![("retry-after", seconds)], "{}");
    let ran = run(lane(vec![testing::target("a")]), [rate("7"), answer()]).await;
    assert_eq!((ran.answer.text.as_str(), ran.took), ("Hello", 7 * SECOND));
    let ran = run(lane(vec![testing::target("a")]), [rate("20")]).await;
    assert_eq!((ran.class(), ran.took), (ErrorClass::Rate, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn one_repeat_is_all_there_is() {
    let ran = run(lane(two()), [status(500), status(500), status(500)]).await;
    assert_eq!(ran.models(), ["a-upstream", "a-upstream", "b-upstream"]);
    let reset = Reply::NoConnection(TransportErrorKind::Reset);
    let ran = run(lane(vec![testing::target("a")]), [reset, answer()]).await;
    assert_eq!(ran.asked.iter().map(|asked| asked.fresh).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_asked_once() {
    let gateway = with_endpoint(testing::target("a"), |endpoint| endpoint.gateway = true);
    let ran = run(lane(vec![gateway, testing::target("b")]), [status(500), answer()]).await;
    assert_eq!(ran.models(), ["a-upstream", "b-upstream"]);
    let seen = Reply::Status(500, vec![("x-litellm-version", "1")], "{}");
    let ran = run(lane(two()), [seen, answer()]).await;
    assert_eq!(ran.models(), ["a-upstream", "b-upstream"]);
}

#[tokio::test(start_paused = true)]
async fn every_key_of_an_endpoint_is_tried_and_none_is_shown() {
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let refused = Reply::Status(
        401,
        vec![("x-request-id", "id-sk-first-key")],
        "{\"error\":{\"message\":\"wrong key sk-first-key\",\"code\":\"sk-first-key\",\"param\":\"sk-first-key\"}}",
    );
    let ran = run(lane(vec![with_endpoint(testing::target("a"), keys)]), [refused, answer()]).await;
    let sent: Vec<_> = ran.asked.iter().map(|asked| asked.key.as_deref()).collect();
    assert_eq!(sent, [Some("Bearer sk-first-key"), Some("Bearer sk-second-key")]);
    assert!(!format!("{:?}", ran.events).contains("first-key"));
    assert_eq!(ran.outcome.result, Ok(Whole { reason: Some(FinishReason::Stop) }));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_there_goes_on_without_a_request() {
    let unset = |endpoint: &mut Endpoint| endpoint.keys = vec![KeySource::Env("NOT_SET".into())];
    let ran = run(lane(vec![with_endpoint(testing::target("a"), unset), testing::target("b")]), [answer()]).await;
    assert_eq!((ran.models(), ran.classes()), (vec!["b-upstream"], vec!["auth", "ok"]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_parameter_is_sent_once_more_under_its_other_name() {
    let refused = Reply::Status(
        400,
        vec![],
        "{\"error\":{\"message\":\"Use 'max_completion_tokens' instead.\",\"param\":\"max_tokens\",\"code\":\"unsupported_parameter\"}}",
    );
    let mut lane = lane(vec![testing::target("a")]);
    let Call::Chat(chat) = &mut lane.call;
    chat.params.max_tokens = Some(5);
    let ran = run(lane, [refused, answer()]).await;
    assert_eq!(ran.asked[1].body["max_completion_tokens"], 5);
    assert!(ran.asked[1].body.get("max_tokens").is_none());
    assert!(matches!(ran.notices()[0], Notice::Adjusted(..)));
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
async fn when_all_fail_the_most_telling_reason_is_the_headline() {
    let refused = Reply::NoConnection(TransportErrorKind::Dns);
    let ran = run(lane(two()), [status(401), refused]).await;
    assert_eq!((ran.class(), ran.classes()), (ErrorClass::Auth, vec!["auth", "connect"]));
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
    let script = Script { replies: Mutex::new([Reply::Pieces(pieces)].into()), asked: Mutex::default() };
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan { lanes: vec![lane(vec![target])] }));
    let mut last = None;
    while let Some(event) = events.next().await {
        sleep(10 * SECOND).await;
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::Finished(outcome)) if outcome.result.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn lanes_run_at_once_and_one_does_not_hold_another() {
    let replies = [Reply::Silence, answer()];
    let script = Script { replies: Mutex::new(replies.into()), asked: Mutex::default() };
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let plan = Plan { lanes: vec![lane(vec![testing::target("a")]), lane(vec![testing::target("b")])] };
    let begun = Instant::now();
    let mut events = Box::pin(engine.run(plan));
    let finished = async {
        loop {
            let event = events.next().await.expect("two lanes");
            if matches!(event.kind, EventKind::Finished(_)) {
                return event.lane;
            }
        }
    };
    assert_eq!((finished.await, begun.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_stream_drops_the_connection() {
    struct Flag(Arc<Mutex<bool>>);
    impl Drop for Flag {
        fn drop(&mut self) {
            *self.0.lock().expect("one thread") = true;
        }
    }
    struct Endless(Arc<Mutex<bool>>);
    impl Transport for Endless {
        fn send(
            &self,
            _: &ConnectOptions,
            _: http::Request<Bytes>,
        ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
            let flag = Flag(Arc::clone(&self.0));
            let body: ByteStream = Box::pin(stream::repeat(()).then(move |()| {
                let _held = &flag;
                async { Ok(Bytes::from_static(HELLO.as_bytes())) }
            }));
            async { Ok(http::Response::new(body)) }.boxed()
        }
    }
    let dropped = Arc::new(Mutex::new(false));
    let engine = Arc::new(Engine::new(Arc::new(Endless(Arc::clone(&dropped))), KeyRing::default()));
    let mut events = Box::pin(engine.run(Plan { lanes: vec![lane(two())] }));
    for _ in 0..5 {
        events.next().await.expect("endless");
    }
    assert!(!*dropped.lock().expect("one thread"));
    drop(events);
    assert!(*dropped.lock().expect("one thread"));
}

#[tokio::test(start_paused = true)]
async fn our_own_limit_fails_over_without_a_request() {
    let script = Script { replies: Mutex::new([Reply::Silence, answer()].into()), asked: Mutex::default() };
    let engine = Arc::new(Engine::new(Arc::new(script), KeyRing::default()));
    let full = with_endpoint(testing::target("a"), |endpoint| {
        endpoint.limits = Limits { max_concurrency: Some(1), queue: Some(SECOND), ..Limits::default() };
    });
    let plan = Plan { lanes: vec![lane(vec![full.clone()]), lane(vec![full, testing::target("b")])] };
    let mut events = Box::pin(engine.run(plan));
    let outcome = loop {
        let event = events.next().await.expect("lanes end");
        if let EventKind::Finished(outcome) = event.kind {
            break outcome;
        }
    };
    let classes: Vec<_> = outcome.attempts.iter().map(AttemptRecord::class).collect();
    assert_eq!(classes, [Some(ErrorClass::Local), None]);
}
