//! What a client is told when it gets no answer, or half of one.

use super::*;

#[tokio::test(start_paused = true)]
async fn until_the_first_piece_everything_fails_over_unseen() {
    for (failure, times) in [
        (Reply::Status(500, vec![], "{}"), 2),
        (Reply::Status(429, vec![("retry-after", "30")], "{}"), 1),
        (Reply::Status(401, vec![], "{}"), 1),
        (pieces(&[ROLE, "data: {\"error\":{\"message\":\"no\",\"code\":503}}\n\n"]), 1),
        (pieces(&[ROLE]), 2),
    ] {
        let replies = std::iter::repeat_n(failure, times).chain([pieces(&[HELLO, STOP, DONE])]);
        let world = World::new("", replies).await;
        let reply = world.chat("chat", true).await;
        assert_eq!(
            (reply.status(), &reply.headers()["x-mmchat-model"]),
            (StatusCode::OK, &"two".parse().expect("a value"))
        );
        assert_eq!(text(reply).await, [HELLO, STOP, DONE].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_ends_in_an_error_and_nothing_is_forged() {
    let world = World::new("", [pieces(&[ROLE, HELLO])]).await;
    let got = frames(world.chat("chat", true).await).await;
    assert_eq!(got[..2], [ROLE, HELLO]);
    let error: Value = serde_json::from_str(got[2].trim().trim_start_matches("data: ")).expect("JSON");
    assert_eq!(error["error"]["code"], "cut");
    assert_eq!(error["error"]["mmchat"]["attempts"][0]["class"], "cut");
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(!got.concat().contains("[DONE]") && !got.concat().contains("finish_reason\":\"stop"));
    assert_eq!((world.line()["status"].as_u64(), world.line()["class"].as_str()), (Some(200), Some("cut")));
    // Thinking that was passed on cannot be taken back either.
    let world = World::new("", [pieces(&[THOUGHT])]).await;
    let got = frames(world.chat("chat", true).await).await;
    assert!(got.len() == 2 && got[1].contains("\"error\""), "{got:?}");
    assert_eq!(world.asked().len(), 1);
    // One-API writes its mark itself when its upstream breaks off.
    let forged = Reply::Status(
        200,
        vec![("x-oneapi-request-id", "1")],
        "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\ndata: [DONE]\n\n",
    );
    let world = World::new("", [forged]).await;
    let got = text(world.chat("chat", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn failures_have_the_status_that_is_the_truth() {
    for (reply, status, code, asked) in [
        (Reply::Status(401, vec![], "{\"error\":{\"message\":\"Incorrect key sk-of-the-upstream\"}}"), 502, "auth", 1),
        (Reply::Status(403, vec![], "{}"), 502, "forbidden", 1),
        (Reply::Status(402, vec![], "{}"), 502, "quota", 1),
        (Reply::Status(429, vec![("retry-after", "30")], "{}"), 429, "rate_limit_exceeded", 1),
        (Reply::Status(503, vec![("retry-after", "30")], "{}"), 503, "overloaded", 1),
        (Reply::Status(500, vec![], "{}"), 502, "server", 2),
        (
            Reply::Status(422, vec![], "{\"error\":{\"message\":\"bad field\",\"param\":\"n\",\"code\":\"x\"}}"),
            422,
            "x",
            1,
        ),
        (
            Reply::Status(404, vec![], "{\"error\":{\"message\":\"no model\",\"code\":\"model_not_found\"}}"),
            404,
            "model_not_found",
            1,
        ),
        (
            Reply::Status(400, vec![], "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}"),
            400,
            "context_length_exceeded",
            1,
        ),
    ] {
        for stream in [true, false] {
            let world = World::new("", vec![reply.clone(); asked]).await;
            let got = world.chat("one", stream).await;
            assert_eq!(
                (got.status().as_u16(), &got.headers()["x-should-retry"]),
                (status, &"false".parse().expect("a value")),
                "{reply:?}"
            );
            let after = got.headers().get("retry-after").map(|after| after.to_str().expect("text").to_owned());
            assert_eq!(after.as_deref(), matches!(status, 429 | 503).then_some("30"), "{reply:?}");
            let body = json_of(got).await;
            assert_eq!(body["error"]["code"], code, "{body}");
            assert_eq!(body["error"]["mmchat"]["attempts"].as_array().map(Vec::len), Some(asked), "{body}");
            assert!(!body.to_string().contains("sk-of-the-upstream"), "{body}");
            assert_eq!(world.asked().len(), asked);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_is_not_found_and_what_is_no_request_is_refused() {
    let world = World::new("", []).await;
    let long = chat(&"x".repeat(1 << 20), false);
    let unknown = chat("nobody", true);
    let (set, unknown_endpoint) = (chat("both", false), chat("nowhere/x", false));
    for (body, status, code) in [
        (unknown.as_str(), 404, "model_not_found"),
        (&unknown_endpoint, 404, "model_not_found"),
        (&set, 404, "model_not_found"),
        (&long, 404, "model_not_found"),
        ("{", 400, "invalid_request"),
        ("[1]", 400, "no JSON object"),
        ("null", 400, "no JSON object"),
        ("\u{0}", 400, "invalid_request"),
        ("{\"model\":\"one\"}", 400, "invalid_request"),
    ] {
        let reply = world.post("/v1/chat/completions", &[], body.to_owned()).await;
        assert_eq!(reply.status().as_u16(), status);
        let body = text(reply).await;
        assert!(body.len() < 2000 && body.contains(code), "{body}");
    }
    let (status, body) = world.get("/v1/chat/completions").await;
    assert_eq!((status, body.contains("method_not_allowed")), (StatusCode::METHOD_NOT_ALLOWED, true));
    let (status, body) = world.get("/v2/nothing").await;
    assert_eq!((status, body.contains("unknown_url")), (StatusCode::NOT_FOUND, true));
    let world = World::new("[serve]\nmax_body_mb = 1\n", []).await;
    let large = world.post("/v1/chat/completions", &[], " ".repeat(1024 * 1024 + 1)).await;
    assert_eq!(
        (large.status(), &large.headers()["connection"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().expect("a value"))
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_withheld_is_not_told_before_another_one_answers() {
    let withheld = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n";
    let more = "[routes.on]\nmodels = [\"one\", \"two\"]\non_filter = \"next\"\n";
    let world = World::new(more, [pieces(&[ROLE, withheld, DONE]), pieces(&[ROLE, HELLO, STOP, DONE])]).await;
    let reply = world.chat("on", true).await;
    assert_eq!(reply.headers()["x-mmchat-model"], "two");
    assert_eq!(text(reply).await, [ROLE, HELLO, STOP, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn what_services_say_of_our_key_stays_here() {
    let world = World::new(
        "",
        [Reply::Status(401, vec![], "{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-****abcd\"}}")],
    )
    .await;
    let body = json_of(world.chat("one", false).await).await;
    assert!(
        !body.to_string().contains("abcd")
            && body["error"]["message"].as_str().is_some_and(|text| text.contains("refused")),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn behind_a_piece_that_is_lost_nothing_looks_like_the_end_of_an_answer() {
    for pieces_of_it in
        [&[HELLO, "data: {\"choices\":[{\"de\n\n", STOP, DONE][..], &[HELLO, "data: {oops\n\n", HELLO, STOP][..]]
    {
        let world = World::new("", [pieces(pieces_of_it)]).await;
        let got = frames(world.chat("one", true).await).await;
        assert_eq!((got.len(), got[0].as_str()), (2, HELLO), "{got:?}");
        assert!(got[1].contains("\"garbled\"") && !got.concat().contains("finish_reason"), "{got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_lacks_another_address_is_asked_for_chats_all_the_same() {
    let answer = whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}");
    for (status, times) in [(404, 2), (403, 2), (501, 3)] {
        let lacking = Reply::Status(status, vec![("content-type", "text/html")], "<html>nothing here</html>");
        let world = World::new("", std::iter::repeat_n(lacking, times).chain([answer.clone()])).await;
        let body = "{\"input\":\"x\",\"model\":\"chat\"}";
        assert_eq!(world.post("/v1/embeddings", &[], body).await.status(), StatusCode::BAD_GATEWAY, "{status}");
        assert_eq!(world.asked().len(), times, "{status}");
        assert_eq!(world.chat("chat", false).await.headers()["x-mmchat-model"], "one", "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_an_event_of_another_service_is_no_answer() {
    let picture = "data: {\"b64_json\":\"AAAA\"}\n\n";
    let world = World::new("", [pieces(&[picture, "data: {\"b64_json\":\"AA"])]).await;
    let body = "{\"model\":\"one\",\"prompt\":\"a cat\",\"stream\":true}";
    let got = frames(world.post("/v1/images/generations", &[], body).await).await;
    assert_eq!((got.len(), got[0].as_str()), (2, picture), "{got:?}");
    assert!(got[1].contains("\"garbled\""), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn whatever_json_a_message_holds_is_the_services_affair_and_no_panic() {
    let values = ["1", "true", "null", "\"hi\"", "[]", "{}", "[\"hi\"]", "[1,true,null,[[]],{}]", "[{\"text\":1}]"];
    let contents = values.iter().map(|value| format!("[{{\"role\":\"user\",\"content\":{value}}}]"));
    let images = values
        .iter()
        .map(|value| format!("[{{\"content\":[{{\"image_url\":{value}}},{{\"image_url\":{{\"url\":{value}}}}}]}}]"));
    for messages in contents.chain(images) {
        let world = World::new("", [pieces(&[HELLO, STOP, DONE])]).await;
        let body = format!("{{\"model\":\"one\",\"stream\":true,\"messages\":{messages}}}");
        assert_eq!(text(world.post("/v1/chat/completions", &[], body).await).await, [HELLO, STOP, DONE].concat());
        let asked = world.asked().pop().expect("one");
        assert!(String::from_utf8_lossy(asked.body()).contains(&messages), "{messages}");
    }
    let long = format!("{{\"model\":\"one\",\"stream\":\"{}\",\"messages\":[]}}", "x".repeat(1 << 20));
    let world = World::new("", []).await;
    let refused = world.post("/v1/chat/completions", &[], long).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(text(refused).await.len() < 2000);
}
