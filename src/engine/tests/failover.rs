//! Tests of repeats, key rotation and failover, and of the errors that end a call.

use super::*;
use crate::routing::{
    OnFilter,
    policies::{AttemptPolicy, BreakerPolicy, HealthPolicy, TimeoutPolicy, TripPolicy},
};

#[tokio::test(start_paused = true)]
async fn complete_answer_is_returned() {
    let result = run(call_to(two_targets()), [answer()]).await;
    assert_eq!(result.record.result, Ok(Completion { finish_reason: Some(FinishReason::Stop) }));
    assert_eq!((result.answer.text.as_str(), result.models()), ("Hello", vec!["a-upstream"]));
}

#[tokio::test(start_paused = true)]
async fn failure_of_the_first_candidate_fails_over_to_the_second() {
    let page = MockResponse::Status(200, vec![], "<html><title>Welcome</title></html>");
    let first_error =
        MockResponse::Chunks(vec![(Duration::ZERO, "data: {\"error\":{\"message\":\"x\",\"code\":429}}\n\n")]);
    let rate = MockResponse::Status(429, vec![("retry-after", "30")], "{}");
    for (reply, is_retried, class) in [
        (MockResponse::ConnectError(TransportErrorKind::Refused), true, "connect"),
        (MockResponse::ConnectError(TransportErrorKind::Dns), false, "connect"),
        (MockResponse::ConnectError(TransportErrorKind::Reset), true, "reset"),
        (MockResponse::NoResponse, false, "timeout"),
        (rate, false, "rate"),
        (status(500), true, "server"),
        (status(503), true, "overloaded"),
        (MockResponse::Status(503, vec![("retry-after", "1")], "{}"), false, "overloaded"),
        (status(401), false, "auth"),
        (status(402), false, "quota"),
        (status(403), false, "forbidden"),
        (status(404), false, "model"),
        (MockResponse::Status(404, vec![], "404 page not found"), false, "path"),
        (status(409), true, "conflict"),
        (status(504), false, "gateway-timeout"),
        (status(302), false, "redirect"),
        (page, false, "invalid-response"),
        (MockResponse::Chunks(vec![]), true, "invalid-response"),
        (first_error, false, "rate"),
        (MockResponse::ChunksThenReset(vec![(Duration::ZERO, ": ping\n\n")]), true, "reset"),
        (MockResponse::Chunks(vec![(Duration::ZERO, "data: {oops\n\n")]), false, "invalid-chunk"),
        (MockResponse::Chunks(vec![(Duration::ZERO, "{\"choices\":[{\"mess")]), true, "reset"),
    ] {
        let times = if is_retried { 2 } else { 1 };
        let replies = std::iter::repeat_n(reply.clone(), times).chain([answer()]);
        let result = TestEngine::new(replies).run(call_to(two_targets())).await;
        assert_eq!(result.unused_replies, 0, "{reply:?}");
        assert_eq!(result.answer.text, "Hello", "{reply:?}");
        assert!(result.record.result.is_ok() && !result.record.incomplete, "{reply:?}");
        assert_eq!(result.classes()[0], class, "{reply:?}");
        assert_eq!(
            result.failovers().last(),
            Some(&NextStep::Failover(result.record.target.as_ref().expect("b answered").id.clone()))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_request_does_not_fail_over() {
    for (reply, class) in [
        (status(400), ErrorClass::Request),
        (MockResponse::Status(400, vec![], "{\"error\":{\"code\":\"content_policy_violation\"}}"), ErrorClass::Filter),
    ] {
        let result = run(call_to(two_targets()), [reply]).await;
        assert_eq!((result.class(), result.models()), (class, vec!["a-upstream"]));
    }
}

#[tokio::test(start_paused = true)]
async fn content_filter_fails_over_with_on_filter_next() {
    let refusal = MockResponse::Status(400, vec![], "{\"error\":{\"message\":\"content_filter\"}}");
    let result = run(Call { on_filter: OnFilter::Next, ..call_to(two_targets()) }, [refusal, answer()]).await;
    assert_eq!(result.answer.text, "Hello");
}

#[tokio::test(start_paused = true)]
async fn context_error_fails_over_to_larger_contexts_only() {
    let too_long = MockResponse::Status(400, vec![], "{\"error\":{\"code\":\"context_length_exceeded\"}}");
    let sized = |name, context| Target { context_window: Some(context), ..testing::target(name) };
    let targets = vec![sized("a", 8), sized("small", 4), testing::target("unknown"), sized("large", 16)];
    let result = run(call_to(targets), [too_long.clone(), answer()]).await;
    assert_eq!(result.models(), ["a-upstream", "unknown-upstream"], "an unknown context may be larger");
    assert_eq!(result.notices().len(), 1, "the smaller one is skipped");
    let result = run(call_to(vec![sized("a", 8), sized("small", 4)]), [too_long]).await;
    assert_eq!(result.class(), ErrorClass::Context);
}

#[tokio::test(start_paused = true)]
async fn candidate_with_too_small_context_is_skipped() {
    let sized = |name, context| Target { context_window: Some(context), ..testing::target(name) };
    let long = |targets| {
        let mut call = call_to(targets);
        let messages = vec![Message::text(Role::User, "word ".repeat(1000))];
        call.update_request(|request| request.as_chat_mut().expect("a chat request").messages = messages);
        call
    };
    let result = run(long(vec![sized("small", 100), sized("large", 10_000)]), [answer()]).await;
    assert_eq!((result.models(), result.notices().len()), (vec!["large-upstream"], 1));
    let result = run(long(vec![sized("small", 100)]), [answer()]).await;
    assert_eq!(result.models(), ["small-upstream"]);
}

#[tokio::test(start_paused = true)]
async fn candidate_is_retried_once_and_after_all_have_failed_twice_more() {
    let result = run(call_to(two_targets()), vec![status(500); 5]).await;
    assert_eq!(result.models(), ["a-upstream", "a-upstream", "b-upstream", "a-upstream", "b-upstream"]);
    assert!(result.took <= SECOND * 2, "{:?}", result.took);
    let result = run(call_to(vec![testing::target("a")]), vec![status(500); 3]).await;
    assert_eq!((result.models().len(), result.class()), (3, ErrorClass::Server), "as the official libraries do");
    let result = run(call_to(vec![testing::target("a")]), [status(502), answer()]).await;
    assert_eq!(result.answer.text, "Hello");
    let backup_with_refused_key = run(call_to(two_targets()), [status(504), status(401), answer()]).await;
    assert_eq!(backup_with_refused_key.models(), ["a-upstream", "b-upstream", "a-upstream"]);
    let client_retries = Call { client_retries: true, ..call_to(vec![testing::target("a")]) };
    assert_eq!(run(client_retries, [status(500)]).await.requests.len(), 1, "the client retries itself");
    let reset = MockResponse::ConnectError(TransportErrorKind::Reset);
    let result = run(call_to(vec![testing::target("a")]), [reset, answer()]).await;
    assert_eq!(result.requests.iter().map(|request| request.new_connection).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn gateway_is_not_retried() {
    let gateway = with_endpoint(testing::target("a"), |endpoint| endpoint.gateway = true);
    let result = run(call_to(vec![gateway, testing::target("b")]), [status(500), answer()]).await;
    assert_eq!(result.models(), ["a-upstream", "b-upstream"]);
    let detected = MockResponse::Status(500, vec![("x-litellm-version", "1")], "{}");
    let result = run(call_to(two_targets()), [detected, answer()]).await;
    assert_eq!(result.models(), ["a-upstream", "b-upstream"]);
}

#[tokio::test(start_paused = true)]
async fn all_keys_of_an_endpoint_are_tried_and_masked_in_events() {
    let keys = |endpoint: &mut Endpoint| {
        endpoint.keys = ["sk-first-key", "sk-second-key"].map(|key| KeySource::Literal(ApiKey::new(key))).to_vec();
    };
    let rejected = MockResponse::Status(
        401,
        vec![("x-request-id", "id-sk-first-key")],
        "{\"error\":{\"message\":\"wrong key sk-first-key\",\"code\":\"sk-first-key\",\"param\":\"sk-first-key\"}}",
    );
    let result = run(call_to(vec![with_endpoint(testing::target("a"), keys)]), [rejected, answer()]).await;
    let sent: Vec<_> = result.requests.iter().map(|request| request.key.as_deref()).collect();
    assert_eq!(sent, [Some("Bearer sk-first-key"), Some("Bearer sk-second-key")]);
    assert!(!format!("{:?}", result.events).contains("first-key"));
    let keys = |endpoint: &mut Endpoint| endpoint.keys = vec![KeySource::Literal(ApiKey::new("sk-first-key"))];
    let late = "data: {\"error\":{\"message\":\"bad key sk-first-key\"}}\n\n";
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let reply = MockResponse::Chunks(vec![(Duration::ZERO, finish), (Duration::ZERO, late)]);
    let warned = run(call_to(vec![with_endpoint(testing::target("a"), keys)]), [reply]).await;
    assert!(warned.notices().len() == 1 && !format!("{:?}", warned.events).contains("first-key"));
    assert_eq!(result.record.result, Ok(Completion { finish_reason: Some(FinishReason::Stop) }));
}

#[tokio::test(start_paused = true)]
async fn missing_key_fails_over_without_a_request() {
    let unset = |endpoint: &mut Endpoint| endpoint.keys = vec![KeySource::Env("NOT_SET".into())];
    let result = run(call_to(vec![with_endpoint(testing::target("a"), unset), testing::target("b")]), [answer()]).await;
    assert_eq!((result.models(), result.classes()), (vec!["b-upstream"], vec!["auth", "ok"]));
}

#[tokio::test(start_paused = true)]
async fn rejected_parameter_is_renamed_and_retried() {
    let rejected = MockResponse::Status(
        400,
        vec![],
        "{\"error\":{\"message\":\"Use 'max_completion_tokens' instead.\",\"param\":\"max_tokens\",\"code\":\"unsupported_parameter\"}}",
    );
    let mut call = call_to(vec![testing::target("a")]);
    let chat = Arc::make_mut(&mut call.request).as_chat_mut().expect("a chat request");
    chat.params.max_tokens = Some(5);
    let result = run(call, [rejected, answer()]).await;
    assert_eq!(result.requests[1].body["max_completion_tokens"], 5);
    assert!(result.requests[1].body.get("max_tokens").is_none());
    assert!(matches!(result.notices()[0], Notice::WorkaroundApplied(..)));
}

fn refusal(message: &'static str) -> MockResponse {
    MockResponse::Status(400, vec![], message)
}

#[tokio::test(start_paused = true)]
async fn every_refused_parameter_is_changed_and_the_changes_are_remembered() {
    let call = || {
        let mut call = call_to(vec![testing::target("a")]);
        let chat = Arc::make_mut(&mut call.request).as_chat_mut().expect("a chat request");
        chat.messages.insert(0, Message::text(Role::System, "be brief"));
        chat.params.max_tokens = Some(5);
        chat.params.temperature = Some(0.3);
        call
    };
    let engine = TestEngine::new([
        refusal(
            "{\"error\":{\"message\":\"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.\"}}",
        ),
        refusal(
            "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"stream_options\"],\"msg\":\"Extra inputs are not permitted\"}]}",
        ),
        refusal("{\"error\":{\"message\":\"invalid temperature: only 1 is allowed for this model\"}}"),
        refusal("{\"error\":{\"message\":\"System role not supported\"}}"),
        refusal("{\"error\":{\"message\":\"Your organization must be verified to stream this model.\"}}"),
        MockResponse::Status(
            200,
            vec![],
            "{\"choices\":[{\"message\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}",
        ),
    ]);
    let result = engine.run(call()).await.assert_all_replies_used();
    assert_eq!((result.answer.text.as_str(), result.requests.len()), ("Hello", 6));
    assert_eq!(result.notices().len(), 5, "each change is a notice: {:?}", result.notices());
    let accepted = result.requests[5].body.clone();
    assert_eq!(
        accepted,
        serde_json::json!({
            "model": "a-upstream",
            "messages": [{"role": "user", "content": "be brief\n\nhi"}],
            "max_completion_tokens": 5,
        })
    );
    engine.add_replies([answer()]);
    let next = engine.run(call()).await.assert_all_replies_used();
    assert_eq!((next.requests.len(), &next.requests[0].body), (1, &accepted), "the next request is right at once");
    assert!(next.notices().is_empty(), "{:?}", next.notices());
    sleep(SECOND * 24 * 3600).await;
    engine.add_replies([answer()]);
    assert_eq!(engine.run(call()).await.requests[0].body["temperature"], 0.3, "a service may lift its limit");
}

#[tokio::test(start_paused = true)]
async fn change_that_did_not_help_is_not_remembered_and_five_are_the_limit() {
    let mut call = call_to(vec![testing::target("a")]);
    let chat = Arc::make_mut(&mut call.request).as_chat_mut().expect("a chat request");
    let names = ["p1", "p2", "p3", "p4", "p5", "p6"];
    chat.params.extra = names.iter().map(|name| ((*name).to_owned(), 1.into())).collect();
    let refusals =
        names.map(|name| &*format!("{{\"error\":{{\"message\":\"Unsupported parameter: '{name}'\"}}}}").leak());
    let engine = TestEngine::new(refusals.map(refusal));
    let result = engine.run(call.clone()).await.assert_all_replies_used();
    assert_eq!((result.requests.len(), result.class()), (6, ErrorClass::Request));
    engine.add_replies([answer()]);
    assert_eq!(engine.run(call).await.requests[0].body["p1"], 1);
}

#[tokio::test(start_paused = true)]
async fn changes_in_the_config_are_made_at_once() {
    use crate::model::{ParamWorkaround as Change, SystemRole};
    let workarounds =
        vec![Change::Omit("stream_options".into()), Change::Stream(false), Change::System(SystemRole::Developer)];
    let mut call = call_to(vec![Target { workarounds, ..testing::target("a") }]);
    let chat = Arc::make_mut(&mut call.request).as_chat_mut().expect("a chat request");
    chat.messages.insert(0, Message::text(Role::System, "be brief"));
    let body = run(call, [answer()]).await.requests.remove(0).body;
    assert_eq!((body.get("stream"), body.get("stream_options")), (None, None));
    assert_eq!(body["messages"][0]["role"], "developer");
}

#[tokio::test(start_paused = true)]
async fn representative_error_is_returned_when_all_candidates_fail() {
    let unreachable = MockResponse::ConnectError(TransportErrorKind::Dns);
    let result = run(call_to(two_targets()), [status(401), unreachable]).await;
    assert_eq!((result.class(), result.classes()), (ErrorClass::Connect, vec!["auth", "connect"]));
}

#[tokio::test(start_paused = true)]
async fn ninth_candidate_is_skipped_with_a_notice() {
    let targets: Vec<_> = (0..9).map(|number| testing::target(&number.to_string())).collect();
    let result = run(call_to(targets), vec![status(401); 8]).await;
    assert_eq!((result.requests.len(), result.failovers().len()), (8, 7));
    assert!(matches!(result.notices().as_slice(), [Notice::Skipped(id, _)] if id.0 == "8"), "{:?}", result.notices());
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_of_a_model_is_used() {
    let timeouts = Timeouts { connect: Some(SECOND), ..Timeouts::default() };
    let result = run(call_to(vec![Target { timeouts, ..testing::target("a") }]), [answer()]).await;
    assert_eq!(result.requests[0].connect_timeout, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn policies_of_the_engine_limit_attempts_retries_and_waiting() {
    let attempts = AttemptPolicy { max_candidates: 1, retries: 0, further_attempts: 0, ..AttemptPolicy::default() };
    let engine = TestEngine::with_policies([status(500)], Policies { attempts, ..Policies::default() });
    let result = engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!((result.models().len(), result.class()), (1, ErrorClass::Server), "one candidate, no retry");

    let timeouts = TimeoutPolicy { first_token: 2 * SECOND, ..TimeoutPolicy::default() };
    let no_response = || MockResponse::Chunks(vec![(600 * SECOND, HELLO)]);
    let engine = TestEngine::with_policies([no_response(), answer()], Policies { timeouts, ..Policies::default() });
    let result = engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!((result.took, result.classes()), (2 * SECOND, vec!["timeout", "ok"]));

    let trip = TripPolicy { consecutive_failures: 1, window_failures: None };
    let breaker = BreakerPolicy { model: trip, ..BreakerPolicy::default() };
    let health = HealthPolicy { breaker, ..HealthPolicy::default() };
    let policies =
        Policies { health, attempts: AttemptPolicy { retries: 0, ..AttemptPolicy::default() }, ..Policies::default() };
    let engine = TestEngine::with_policies([status(500), answer(), answer()], policies);
    engine.run(call_to(two_targets())).await;
    let result = engine.run(call_to(two_targets())).await.assert_all_replies_used();
    assert_eq!(result.models(), ["b-upstream"], "one failure made the first model unavailable");
}

#[tokio::test(start_paused = true)]
async fn error_of_a_call_keeps_its_cause() {
    let result = run(call_to(vec![testing::target("a")]), [MockResponse::ConnectError(TransportErrorKind::Dns)]).await;
    let error = result.record.result.as_ref().expect_err("no connection");
    let cause = std::error::Error::source(error).expect("the transport error");
    assert_eq!(cause.to_string(), "no connection");
}
