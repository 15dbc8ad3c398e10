//! Tests of error responses, failover before the first chunk and incomplete answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn failures_before_the_first_chunk_fail_over() {
    for (failure, attempts) in [
        (MockResponse::Status(500, vec![], "{}"), 2),
        (MockResponse::Status(429, vec![("retry-after", "30")], "{}"), 1),
        (MockResponse::Status(401, vec![], "{}"), 1),
        (chunks(&[ROLE, "data: {\"error\":{\"message\":\"no\",\"code\":503}}\n\n"]), 2),
        (chunks(&[ROLE]), 2),
    ] {
        let replies = std::iter::repeat_n(failure, attempts).chain([chunks(&[HELLO, STOP, DONE])]);
        let fixture = TestGateway::new("", replies).await;
        let response = fixture.chat("chat", true).await;
        assert_eq!(fixture.upstream_requests().len(), attempts + 1);
        assert_eq!(
            (response.status(), &response.headers()["x-mmchat-model"]),
            (StatusCode::OK, &"two".parse().expect("valid header value"))
        );
        assert_eq!(read_text(response).await, [HELLO, STOP, DONE].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn incomplete_stream_ends_with_an_error_event_and_no_end_signal() {
    let fixture = TestGateway::new("", [chunks(&[ROLE, HELLO])]).await;
    let got = read_chunks(fixture.chat("chat", true).await).await;
    assert_eq!(got[..2], [ROLE, HELLO]);
    let error: Value = serde_json::from_str(got[2].trim().trim_start_matches("data: ")).expect("valid JSON");
    assert_eq!(error["error"]["code"], "incomplete");
    assert_eq!(error["error"]["mmchat"]["attempts"][0]["class"], "incomplete");
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(!got.concat().contains("[DONE]") && !got.concat().contains("finish_reason\":\"stop"));
    assert_eq!(
        (fixture.last_log_line()["status"].as_u64(), fixture.last_log_line()["class"].as_str()),
        (Some(200), Some("incomplete"))
    );
    // Reasoning already sent cannot be retracted either.
    let fixture = TestGateway::new("", [chunks(&[REASONING])]).await;
    let got = read_chunks(fixture.chat("chat", true).await).await;
    assert!(got.len() == 2 && got[1].contains("\"error\""), "{got:?}");
    assert_eq!(fixture.upstream_requests().len(), 1);
    // One-API writes `[DONE]` itself when its upstream connection breaks.
    let forged = MockResponse::Status(
        200,
        vec![("x-oneapi-request-id", "1")],
        "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\ndata: [DONE]\n\n",
    );
    let fixture = TestGateway::new("", [forged]).await;
    let got = read_text(fixture.chat("chat", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
}

#[tokio::test(start_paused = true)]
async fn upstream_errors_map_to_documented_statuses_and_codes() {
    for (reply, status, code, requests) in [
        (
            MockResponse::Status(401, vec![], "{\"error\":{\"message\":\"Incorrect key sk-of-the-upstream\"}}"),
            502,
            "auth",
            1,
        ),
        (MockResponse::Status(403, vec![], "{\"error\":\"this key may not do that\"}"), 502, "forbidden", 1),
        (MockResponse::Status(403, vec![], "<html>Access denied</html>"), 502, "blocked", 1),
        (MockResponse::Status(402, vec![], "{}"), 502, "quota", 1),
        (MockResponse::Status(429, vec![("retry-after", "30")], "{}"), 429, "rate_limit_exceeded", 1),
        (MockResponse::Status(503, vec![("retry-after", "30")], "{}"), 503, "overloaded", 1),
        (MockResponse::Status(500, vec![], "{}"), 502, "server", 3),
        (
            MockResponse::Status(422, vec![], "{\"error\":{\"message\":\"bad field\",\"param\":\"n\",\"code\":\"x\"}}"),
            422,
            "x",
            1,
        ),
        (
            MockResponse::Status(404, vec![], "{\"error\":{\"message\":\"no model\",\"code\":\"model_not_found\"}}"),
            404,
            "model_not_found",
            1,
        ),
        (
            MockResponse::Status(
                400,
                vec![],
                "{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}",
            ),
            400,
            "context_length_exceeded",
            1,
        ),
    ] {
        for stream in [true, false] {
            let fixture = TestGateway::new("", vec![reply.clone(); requests]).await;
            let response = fixture.chat("one", stream).await;
            assert_eq!(response.status().as_u16(), status, "{reply:?}");
            let should_retry = response.headers().get("x-should-retry").map(http::HeaderValue::as_bytes);
            let may_pass = matches!(code, "rate_limit_exceeded" | "overloaded" | "server");
            assert_eq!(should_retry, (!may_pass).then_some(&b"false"[..]), "{reply:?}");
            let retry_after =
                response.headers().get("retry-after").map(|value| value.to_str().expect("ASCII header").to_owned());
            assert_eq!(retry_after.as_deref(), matches!(status, 429 | 503).then_some("30"), "{reply:?}");
            let body = read_json(response).await;
            assert_eq!(body["error"]["code"], code, "{body}");
            assert_eq!(body["error"]["mmchat"]["attempts"].as_array().map(Vec::len), Some(requests), "{body}");
            assert!(!body.to_string().contains("sk-of-the-upstream"), "{body}");
            assert_eq!(fixture.upstream_requests().len(), requests);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_model_is_404_and_invalid_body_is_400() {
    let fixture = TestGateway::new("", []).await;
    let long = chat(&"x".repeat(1 << 20), false);
    let unknown = chat("unknown", true);
    let (set, unknown_endpoint) = (chat("both", false), chat("nowhere/x", false));
    for (body, status, code) in [
        (unknown.as_str(), 404, "model_not_found"),
        (&unknown_endpoint, 404, "model_not_found"),
        (&set, 404, "model_not_found"),
        (&long, 404, "model_not_found"),
        ("{", 400, "invalid_request"),
        ("[1]", 400, "not a JSON object"),
        ("null", 400, "not a JSON object"),
        ("\u{0}", 400, "invalid_request"),
        ("{\"model\":\"one\"}", 400, "invalid_request"),
    ] {
        let response = fixture.post("/v1/chat/completions", &[], body.to_owned()).await;
        assert_eq!(response.status().as_u16(), status);
        let body = read_text(response).await;
        assert!(body.len() < 2000 && body.contains(code), "{body}");
    }
    let (status, body) = fixture.get("/v1/chat/completions").await;
    assert_eq!((status, body.contains("method_not_allowed")), (StatusCode::METHOD_NOT_ALLOWED, true));
    let (status, body) = fixture.get("/v2/nothing").await;
    assert_eq!((status, body.contains("unknown_url")), (StatusCode::NOT_FOUND, true));
    let fixture = TestGateway::new("[serve]\nmax_body_mb = 1\n", []).await;
    let large = fixture.post("/v1/chat/completions", &[], " ".repeat(1024 * 1024 + 1)).await;
    assert_eq!(
        (large.status(), &large.headers()["connection"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().expect("valid header value"))
    );
}

#[tokio::test(start_paused = true)]
async fn filtered_answer_fails_over_without_visible_output() {
    let filtered = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n";
    let extra_config = "[routes.on]\nmodels = [\"one\", \"two\"]\non_filter = \"next\"\n";
    let fixture =
        TestGateway::new(extra_config, [chunks(&[ROLE, filtered, DONE]), chunks(&[ROLE, HELLO, STOP, DONE])]).await;
    let response = fixture.chat("on", true).await;
    assert_eq!(response.headers()["x-mmchat-model"], "two");
    assert_eq!(read_text(response).await, [ROLE, HELLO, STOP, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn upstream_messages_about_our_key_are_not_sent_to_clients() {
    let fixture = TestGateway::new(
        "",
        [MockResponse::Status(
            401,
            vec![],
            "{\"error\":{\"message\":\"Incorrect API key provided: sk-proj-****abcd\"}}",
        )],
    )
    .await;
    let body = read_json(fixture.chat("one", false).await).await;
    assert!(
        !body.to_string().contains("abcd")
            && body["error"]["message"].as_str().is_some_and(|text| text.contains("rejected")),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn key_that_cannot_be_read_is_named_in_the_log_only() {
    let config = "[endpoints.c]\nbase_url = \"http://c/v1\"\napi_key = { env = \"NOT_SET_ANYWHERE\" }\n";
    let fixture = TestGateway::new(config, []).await;
    let body = read_json(fixture.chat("c/x", false).await).await;
    assert_eq!(body["error"]["message"], "this server could not read its API key for the service", "{body}");
    assert!(!body.to_string().contains("NOT_SET_ANYWHERE"), "{body}");
    let line = fixture.last_log_line();
    assert_eq!(line["notices"][0], "c/x: environment variable NOT_SET_ANYWHERE is not set", "{line}");
}

#[tokio::test(start_paused = true)]
async fn stream_with_an_invalid_chunk_never_ends_like_a_complete_answer() {
    for texts in
        [&[HELLO, "data: {\"choices\":[{\"de\n\n", STOP, DONE][..], &[HELLO, "data: {oops\n\n", HELLO, STOP][..]]
    {
        let fixture = TestGateway::new("", [chunks(texts)]).await;
        let got = read_chunks(fixture.chat("one", true).await).await;
        assert_eq!((got.len(), got[0].as_str()), (2, HELLO), "{got:?}");
        assert!(got[1].contains("\"invalid-chunk\"") && !got.concat().contains("finish_reason"), "{got:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn missing_embeddings_path_does_not_open_the_breaker_for_chat() {
    let answer = json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}");
    for (status, requests) in [(404, 2), (403, 2), (501, 3)] {
        let missing = MockResponse::Status(status, vec![("content-type", "text/html")], "<html>nothing here</html>");
        let fixture = TestGateway::new("", std::iter::repeat_n(missing, requests).chain([answer.clone()])).await;
        let body = "{\"input\":\"x\",\"model\":\"chat\"}";
        assert_eq!(fixture.post("/v1/embeddings", &[], body).await.status(), StatusCode::BAD_GATEWAY, "{status}");
        assert_eq!(fixture.upstream_requests().len(), requests, "{status}");
        assert_eq!(fixture.chat("chat", false).await.headers()["x-mmchat-model"], "one", "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_event_of_an_opaque_request_is_an_invalid_chunk() {
    let image_event = "data: {\"b64_json\":\"AAAA\"}\n\n";
    let fixture = TestGateway::new("", [chunks(&[image_event, "data: {\"b64_json\":\"AA"])]).await;
    let body = "{\"model\":\"one\",\"prompt\":\"a cat\",\"stream\":true}";
    let got = read_chunks(fixture.post("/v1/images/generations", &[], body).await).await;
    assert_eq!((got.len(), got[0].as_str()), (2, image_event), "{got:?}");
    assert!(got[1].contains("\"invalid-chunk\""), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_with_unexpected_json_are_forwarded_unchanged() {
    let values = ["1", "true", "null", "\"hi\"", "[]", "{}", "[\"hi\"]", "[1,true,null,[[]],{}]", "[{\"text\":1}]"];
    let contents = values.iter().map(|value| format!("[{{\"role\":\"user\",\"content\":{value}}}]"));
    let images = values
        .iter()
        .map(|value| format!("[{{\"content\":[{{\"image_url\":{value}}},{{\"image_url\":{{\"url\":{value}}}}}]}}]"));
    for messages in contents.chain(images) {
        let fixture = TestGateway::new("", [chunks(&[HELLO, STOP, DONE])]).await;
        let body = format!("{{\"model\":\"one\",\"stream\":true,\"messages\":{messages}}}");
        assert_eq!(
            read_text(fixture.post("/v1/chat/completions", &[], body).await).await,
            [HELLO, STOP, DONE].concat()
        );
        let sent = fixture.upstream_requests().pop().expect("one upstream request");
        assert!(String::from_utf8_lossy(sent.body()).contains(&messages), "{messages}");
    }
    let long = format!("{{\"model\":\"one\",\"stream\":\"{}\",\"messages\":[]}}", "x".repeat(1 << 20));
    let fixture = TestGateway::new("", []).await;
    let response = fixture.post("/v1/chat/completions", &[], long).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(read_text(response).await.len() < 2000);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_that_of_the_error() {
    let named = |status, seconds| MockResponse::Status(status, vec![("retry-after", seconds)], "{}");
    for (replies, want) in [
        // The first one may get a request again in a second.
        ([MockResponse::Status(429, vec![], "{}"), named(503, "250")], "1"),
        ([named(429, "250"), MockResponse::Status(500, vec![], "{}")], "1"),
        ([named(429, "250"), named(503, "40")], "40"),
    ] {
        let fixture = TestGateway::new("", replies).await;
        let headers = [("x-stainless-retry-count", "1")];
        let response = fixture.post("/v1/chat/completions", &headers, chat("chat", false)).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (429, &want.parse().expect("a value"))
        );
    }
}
