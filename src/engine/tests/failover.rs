//! Who is asked next, and when nobody is.

use super::*;

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
        let messages = vec![Message::text(Role::User, "word ".repeat(1000))];
        lane.change(|call| call.chat_mut().expect("a chat").messages = messages);
        lane
    };
    let ran = run(long(vec![sized("small", 100), sized("large", 10_000)]), [answer()]).await;
    assert_eq!((ran.models(), ran.notices().len()), (vec!["large-upstream"], 1));
    let ran = run(long(vec![sized("small", 100)]), [answer()]).await;
    assert_eq!(ran.models(), ["small-upstream"]);
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
    let keys = |endpoint: &mut Endpoint| endpoint.keys = vec![KeySource::Literal(ApiKey::new("sk-first-key"))];
    let late = "data: {\"error\":{\"message\":\"bad key sk-first-key\"}}\n\n";
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":\"stop\"}]}\n\n";
    let reply = Reply::Pieces(vec![(Duration::ZERO, finish), (Duration::ZERO, late)]);
    let warned = run(lane(vec![with_endpoint(testing::target("a"), keys)]), [reply]).await;
    assert!(warned.notices().len() == 1 && !format!("{:?}", warned.events).contains("first-key"));
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
    let chat = Arc::make_mut(&mut lane.call).chat_mut().expect("a chat");
    chat.params.max_tokens = Some(5);
    let ran = run(lane, [refused, answer()]).await;
    assert_eq!(ran.asked[1].body["max_completion_tokens"], 5);
    assert!(ran.asked[1].body.get("max_tokens").is_none());
    assert!(matches!(ran.notices()[0], Notice::Adjusted(..)));
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_most_telling_reason_is_the_headline() {
    let refused = Reply::NoConnection(TransportErrorKind::Dns);
    let ran = run(lane(two()), [status(401), refused]).await;
    assert_eq!((ran.class(), ran.classes()), (ErrorClass::Auth, vec!["auth", "connect"]));
}

#[tokio::test(start_paused = true)]
async fn a_ninth_candidate_is_told_of_and_not_asked() {
    let targets: Vec<_> = (0..9).map(|number| testing::target(&number.to_string())).collect();
    let ran = run(lane(targets), vec![status(401); 8]).await;
    assert_eq!((ran.asked.len(), ran.failovers().len()), (8, 7));
    assert!(matches!(ran.notices().as_slice(), [Notice::PassedOver(id, _)] if id.0 == "8"), "{:?}", ran.notices());
}

#[tokio::test(start_paused = true)]
async fn a_model_may_have_less_time_to_connect() {
    let timeouts = Timeouts { connect: Some(SECOND), ..Timeouts::default() };
    let ran = run(lane(vec![Target { timeouts, ..testing::target("a") }]), [answer()]).await;
    assert_eq!(ran.asked[0].connect, Some(SECOND));
}
