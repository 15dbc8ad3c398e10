//! Tests of pass-through and translation of requests and answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn stream_is_forwarded_byte_for_byte_and_event_by_event() {
    let unusual = [
        "data:{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[]}}],\"own\":1e400}\r\n\r\n",
        "id: 7\nretry: 10\nevent: message\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"\\u00e9\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"},{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    ];
    let events = [ROLE, unusual[0], unusual[1], unusual[2], unusual[3], DONE];
    // Event by event, in one read, and split in the middle.
    let joined: &'static str = Box::leak(events.concat().into_boxed_str());
    let (front, back) = joined.split_at(joined.len() / 2);
    for reply in [chunks(&events), chunks(&[joined]), chunks(&[front, back])] {
        let fixture = TestGateway::new("", [reply]).await;
        let response = fixture.chat("one", true).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(read_chunks(response).await, events);
    }
}

#[tokio::test(start_paused = true)]
async fn client_body_is_forwarded_field_for_field() {
    let fixture = TestGateway::new("", [chunks(&[HELLO, STOP, DONE])]).await;
    let body = r#"{"z":1,"model":"one","stream":true,"n":null,"tools":[{"type":"function"}],"big":123456789012345678901234567890,"logit_bias":{"1":-100},"base_url":"http://evil.example","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://h/a.png"}}],"name":"x"}],"seed":7}"#;
    read_text(fixture.post("/v1/chat/completions", &[], body).await).await;
    let sent = fixture.upstream_requests().pop().expect("one upstream request");
    let expected = body.replace("\"one\"", "\"upstream-one\"").trim_end_matches('}').to_owned()
        + r#","temperature":0.5,"stream_options":{"include_usage":true}}"#;
    assert_eq!(String::from_utf8_lossy(sent.body()), expected);
    assert_eq!(sent.uri(), "http://a.example/v1/chat/completions");
}

#[tokio::test(start_paused = true)]
async fn headers_are_passed_on_in_neither_direction() {
    let answer = "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
    let head =
        [("content-type", "application/json"), ("x-other", "1"), ("set-cookie", "a=b"), ("x-request-id", "req-7")];
    let fixture = TestGateway::new("", [MockResponse::Status(200, head.to_vec(), answer)]).await;
    let headers = [("authorization", "Bearer sk-of-a-client"), ("x-other", "1"), ("cookie", "a=b")];
    let response = fixture.post("/v1/chat/completions", &headers, chat("one", false)).await;
    let sent = fixture.upstream_requests().pop().expect("one upstream request");
    assert_eq!(sent.headers()["authorization"], "Bearer sk-of-the-upstream");
    assert!(!sent.headers().contains_key("x-other") && !sent.headers().contains_key("cookie"), "{sent:?}");
    let received = response.headers();
    assert!(!received.contains_key("x-other") && !received.contains_key("set-cookie"), "{received:?}");
    assert_eq!(received["x-request-id"], received["x-mmchat-request-id"]);
    assert_ne!(received["x-request-id"], "req-7");
}

#[tokio::test(start_paused = true)]
async fn usage_is_sent_only_on_request_but_always_recorded() {
    let replies = || [chunks(&[HELLO, STOP, USAGE, DONE])];
    let fixture = TestGateway::new("", replies()).await;
    assert_eq!(read_text(fixture.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!(
        (fixture.last_log_line()["input"].as_u64(), fixture.last_log_line()["cost"].as_f64()),
        (Some(1_000_000), Some(2.0))
    );
    let fixture = TestGateway::new("", replies()).await;
    let body =
        chat("one", true).replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let response = fixture.post("/v1/chat/completions", &[], body).await;
    assert_eq!(read_text(response).await, [HELLO, STOP, USAGE, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn json_response_is_forwarded_unchanged_with_headers_for_the_target() {
    let body = "{\"choices\":[ {\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"model\":\"m-2026\",\"own\":1e400}";
    let fixture =
        TestGateway::new("", [MockResponse::Status(503, vec![("retry-after", "1")], "{}"), json_reply(body)]).await;
    let response = fixture.chat("chat", false).await;
    let header = |name: &str| response.headers()[name].to_str().expect("ASCII header").to_owned();
    assert_eq!((header("x-mmchat-endpoint"), header("x-mmchat-model")), ("b".into(), "two".into()));
    assert_eq!((header("x-mmchat-route"), header("x-mmchat-attempts")), ("chat".into(), "2".into()));
    assert_eq!(header("x-mmchat-request-id"), fixture.last_log_line()["request_id"].as_str().expect("request id"));
    assert_eq!(read_text(response).await, body);
}

#[tokio::test(start_paused = true)]
async fn stream_and_json_responses_are_converted_to_the_requested_shape() {
    let body = "{\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}";
    let fixture = TestGateway::new("", [json_reply(body)]).await;
    let frames = read_chunks(fixture.chat("one", true).await).await;
    let chunk =
        |at: usize| serde_json::from_str::<Value>(frames[at].trim().trim_start_matches("data: ")).expect("valid JSON");
    assert_eq!(chunk(1)["choices"][0]["delta"]["content"], "hi");
    assert_eq!(chunk(2)["choices"][0]["finish_reason"], "stop");
    assert_eq!((frames.len(), frames[3].as_str()), (4, DONE), "{frames:?}");
    let fixture = TestGateway::new("", [chunks(&[ROLE, HELLO, STOP, USAGE, DONE])]).await;
    let body = read_json(fixture.chat("one", false).await).await;
    assert_eq!(body["choices"][0]["message"]["content"], "Hello");
    assert_eq!(body["usage"]["prompt_tokens"], 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn complete_answer_without_done_gets_one() {
    let fixture = TestGateway::new("", [chunks(&[HELLO, STOP])]).await;
    assert_eq!(read_text(fixture.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let unfinished = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let fixture = TestGateway::new("", [chunks(&[HELLO, unfinished])]).await;
    assert_eq!(read_text(fixture.chat("one", true).await).await, [HELLO, unfinished, "\n\n", DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn buffered_stream_fails_over_without_visible_output() {
    let replies = || [chunks(&[ROLE, HELLO]), chunks(&[ROLE, HELLO, STOP, DONE])];
    for (model, headers) in [("buffered", &[][..]), ("chat", &[("x-mmchat-buffer", "1")])] {
        let fixture = TestGateway::new("", replies()).await;
        let response = fixture.post("/v1/chat/completions", headers, chat(model, true)).await;
        assert_eq!(response.headers()["x-mmchat-attempts"], "2");
        assert_eq!(read_text(response).await, [ROLE, HELLO, STOP, DONE].concat());
    }
    let fixture = TestGateway::new("", [chunks(&[HELLO]), chunks(&[HELLO])]).await;
    let response = fixture.post("/v1/chat/completions", &[], chat("buffered", true)).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!read_text(response).await.contains("Hello"));
}

#[tokio::test(start_paused = true)]
async fn slow_stream_starts_after_hold_without_its_first_chunk() {
    let late = |rest: &[&'static str]| {
        let mut chunks = vec![(20 * SECOND, HELLO)];
        chunks.extend(rest.iter().map(|text| (NO_DELAY, *text)));
        MockResponse::Chunks(chunks)
    };
    let start = tokio::time::Instant::now();
    let fixture = TestGateway::new("", [late(&[STOP, DONE])]).await;
    let response = fixture.chat("one", true).await;
    assert_eq!((response.status(), start.elapsed()), (StatusCode::OK, 15 * SECOND));
    assert_eq!(read_text(response).await, [HELLO, STOP, DONE].concat());
    // A failure after `hold` is an error event.
    let fixture = TestGateway::new("[serve]\nhold = \"5s\"\n", [MockResponse::DelayedStatus(7 * SECOND, 400)]).await;
    let start = tokio::time::Instant::now();
    let response = fixture.chat("one", true).await;
    assert_eq!((response.status(), start.elapsed()), (StatusCode::OK, 5 * SECOND));
    let got = read_text(response).await;
    assert!(got.starts_with("data: {\"error\"") && !got.contains("[DONE]"), "{got}");
    // Comments are sent while no chunk arrives.
    let chunks = vec![(NO_DELAY, HELLO), (40 * SECOND, STOP)];
    let fixture = TestGateway::new("", [MockResponse::Chunks(chunks)]).await;
    let comment = ": waiting\n\n";
    assert_eq!(read_chunks(fixture.chat("one", true).await).await, [HELLO, comment, comment, STOP, DONE]);
}

#[tokio::test(start_paused = true)]
async fn models_and_routes_are_listed_and_can_be_queried_one_by_one() {
    let fixture = TestGateway::new("", []).await;
    let list: Value = serde_json::from_str(&fixture.get("/v1/models").await.1).expect("valid JSON");
    let ids: Vec<_> =
        list["data"].as_array().expect("JSON array").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["chat", "buffered", "one", "two"]);
    for (id, status) in [("one", 200), ("chat", 200), ("a/anything/at:all", 200), ("unknown", 404), ("both", 404)] {
        assert_eq!(fixture.get(&format!("/v1/models/{id}")).await.0.as_u16(), status, "{id}");
    }
    for (path, word) in
        [("/health", "ok"), ("/ready", "ready"), ("/status", "generation"), ("/metrics", "mmchat_build")]
    {
        let (status, body) = fixture.get(path).await;
        assert!(status == StatusCode::OK && body.contains(word), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn opaque_requests_are_routed_by_model() {
    let vectors = "{\"data\":[{\"embedding\":\"AACAPw==\"}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}";
    for path in ["/v1/embeddings", "/v1/rerank", "/v1/images/generations"] {
        let fixture =
            TestGateway::new("", [MockResponse::Status(503, vec![("retry-after", "1")], "{}"), json_reply(vectors)])
                .await;
        let body = "{\"input\":[[1,2,3],[4]],\"model\":\"chat\",\"encoding_format\":\"base64\",\"user\":null}";
        let response = fixture.post(path, &[], body).await;
        assert_eq!(response.headers()["x-mmchat-model"], "two");
        assert_eq!(read_text(response).await, vectors);
        let sent = fixture.upstream_requests().pop().expect("two upstream requests");
        assert_eq!(sent.uri().path(), path);
        assert_eq!(String::from_utf8_lossy(sent.body()), body.replace("\"chat\"", "\"upstream-two\""));
        assert_eq!(fixture.last_log_line()["input"], 3);
    }
    let completion = "data: {\"choices\":[{\"text\":\"on\",\"index\":0}]}\n\n";
    let stop = "data: {\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n";
    let fixture = TestGateway::new("", [chunks(&[completion, stop, DONE]), chunks(&[completion])]).await;
    let body = "{\"model\":\"one\",\"prompt\":[1,2],\"stream\":true}";
    assert_eq!(read_text(fixture.post("/v1/completions", &[], body).await).await, [completion, stop, DONE].concat());
    assert!(read_text(fixture.post("/v1/completions", &[], body).await).await.contains("\"error\""));
}

#[tokio::test(start_paused = true)]
async fn answer_with_one_incomplete_choice_is_incomplete() {
    let second_choice = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"half\"}}]}\n\n";
    let fixture = TestGateway::new("", [chunks(&[HELLO, second_choice, STOP])]).await;
    let got = read_text(fixture.chat("one", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
    let second_stop = "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let fixture = TestGateway::new("", [chunks(&[HELLO, second_choice, STOP, second_stop, DONE])]).await;
    let body = read_json(fixture.chat("one", false).await).await;
    let contents: Vec<_> =
        body["choices"].as_array().expect("JSON array").iter().map(|choice| &choice["message"]["content"]).collect();
    assert_eq!(contents, ["Hello", "half"]);
}

#[tokio::test(start_paused = true)]
async fn sticky_session_keeps_its_model_and_a_slow_model_is_hedged() {
    let extra_config = "[routes.sticky]\nmodels = [\"one\", \"two\"]\nsticky = true\n[routes.hedged]\nmodels = [\"one\", \"two\"]\nhedge_after = \"1s\"\n";
    let fixture = TestGateway::new(extra_config, (0..6).map(|_| chunks(&[HELLO, STOP, DONE]))).await;
    for session in ["first", "second", "third"] {
        let served = async || {
            let response =
                fixture.post("/v1/chat/completions", &[("x-mmchat-session", session)], chat("sticky", true)).await;
            let model = response.headers()["x-mmchat-model"].clone();
            read_text(response).await;
            model
        };
        assert_eq!(served().await, served().await);
    }
    let fixture = TestGateway::new(extra_config, [MockResponse::NoResponse, chunks(&[HELLO, STOP, DONE])]).await;
    let response = fixture.chat("hedged", true).await;
    assert_eq!(
        (&response.headers()["x-mmchat-model"], &response.headers()["x-mmchat-attempts"]),
        (&"two".parse().expect("valid header value"), &"2".parse().expect("valid header value"))
    );
    let overhead: u64 =
        response.headers()["x-mmchat-overhead-us"].to_str().expect("ASCII header").parse().expect("a number");
    assert!(overhead < 1_000_000, "waiting for the first model is not overhead: {overhead}");
    read_text(response).await;
    assert_eq!(fixture.last_log_line()["attempts"].as_array().map(Vec::len), Some(2));
    assert!(fixture.last_log_line()["notices"][0].as_str().is_some_and(|text| text.contains("also trying")));
}

#[tokio::test(start_paused = true)]
async fn other_spellings_of_the_model_field_are_removed() {
    let answer = || json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}");
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let fixture = TestGateway::new("", [answer()]).await;
        let body = "{\"model\":\"one\",\"messages\":[],\"Model\":\"expensive\",\"\\u004dODEL\":\"expensive\"}";
        fixture.post(path, &[], body).await;
        let sent = String::from_utf8_lossy(fixture.upstream_requests().pop().expect("one upstream request").body())
            .into_owned();
        assert!(sent.contains("\"upstream-one\"") && !sent.contains("expensive"), "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_1_0_streams_are_buffered() {
    let chat_over_http_1_0 = async |fixture: &TestGateway| {
        let request = Request::post("/v1/chat/completions").version(http::Version::HTTP_10).header("host", "localhost");
        fixture.gateway.handle_local(request.body(Body::from(chat("chat", true))).expect("valid request")).await
    };
    let fixture = TestGateway::new("", [chunks(&[HELLO]), chunks(&[HELLO, STOP, DONE])]).await;
    assert_eq!(read_text(chat_over_http_1_0(&fixture).await).await, [HELLO, STOP, DONE].concat());
    let fixture = TestGateway::new("", [chunks(&[HELLO]), chunks(&[HELLO])]).await;
    let response = chat_over_http_1_0(&fixture).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(!read_text(response).await.contains("Hello"));
}

#[tokio::test(start_paused = true)]
async fn health_is_answered_on_any_host_and_base_urls_may_lack_the_version() {
    let fixture = TestGateway::new(KEYS, []).await;
    for (host, path, status) in [
        (None, "/health", 200),
        (Some("mm"), "/health", 200),
        (Some("mm"), "/ready", 200),
        (Some("mm"), "/v1/models", 403),
    ] {
        let request = Request::get(path);
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        let response = fixture.gateway.handle_local(request.body(Body::empty()).expect("valid request")).await;
        assert_eq!(response.status(), status, "{host:?} {path}");
    }
    let fixture = TestGateway::new("", std::iter::repeat_n(chunks(&[HELLO, STOP, DONE]), 3)).await;
    for path in ["/chat/completions", "//v1//chat/completions", "/v1/v1/chat/completions?a=b"] {
        assert_eq!(fixture.post(path, &[], chat("one", true)).await.status(), StatusCode::OK, "{path}");
        assert_eq!(fixture.last_log_line()["path"], "/v1/chat/completions");
    }
    assert_eq!(fixture.get("/models/one").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_are_logged_with_the_client_and_unknown_models_list_no_names() {
    let fixture = TestGateway::new(KEYS, []).await;
    let headers = [("authorization", "Bearer sk-of-the-rich"), ("x-request-id", "trace-429")];
    let response = fixture.post("/v1/made/up", &headers, "").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["x-request-id"], "trace-429");
    let line = fixture.last_log_line();
    assert_eq!((&line["path"], &line["client"]), (&json!("/v1/made/up"), &json!("rich")));
    assert_eq!(line["client_request_id"], "trace-429");
    let response = fixture.post("/v1/chat/completions", &headers, chat("gpt-4290", false)).await;
    let text = read_text(response).await;
    assert!(!text.contains("buffered") && text.contains("GET /v1/models") && text.contains("gpt-4290"), "{text}");
    let without_name = text.replace("gpt-4290", "");
    assert!(!["429", "500", "502", "503", "529"].iter().any(|status| without_name.contains(status)), "{text}");
    let suggestion = read_text(fixture.post("/v1/chat/completions", &headers, chat("on", false)).await).await;
    assert!(suggestion.contains("did you mean"), "{suggestion}");
}

#[tokio::test(start_paused = true)]
async fn listed_models_have_a_context_and_a_time() {
    let context = "[models.big]\nendpoint = \"a\"\nmodel = \"big\"\ncontext = 128000\n";
    let fixture = TestGateway::new(context, []).await;
    let list: Value = serde_json::from_str(&fixture.get("/v1/models").await.1).expect("valid JSON");
    let models = list["data"].as_array().expect("a list");
    let model = |id: &str| models.iter().find(|model| model["id"] == id).expect("a model");
    assert_eq!((&model("big")["context"], &model("one")["context"]), (&json!(128_000), &Value::Null));
    assert!(models.iter().all(|model| model["created"].as_i64().is_some_and(|created| created > 0)), "{list}");
}

#[tokio::test(start_paused = true)]
async fn all_requested_choices_are_awaited() {
    let second_choice =
        "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"B\"},\"finish_reason\":\"stop\"}]}\n\n";
    let late = || {
        let chunks = [(NO_DELAY, HELLO), (NO_DELAY, STOP), (SECOND * 5, second_choice), (NO_DELAY, DONE)];
        MockResponse::Chunks(chunks.to_vec())
    };
    let with_n = |stream| chat("one", stream).replace("\"stream\"", "\"n\":2,\"stream\"");
    let fixture = TestGateway::new("", [late(), late()]).await;
    let got = read_text(fixture.post("/v1/chat/completions", &[], with_n(true)).await).await;
    assert_eq!(got, [HELLO, STOP, second_choice, DONE].concat());
    let body = read_json(fixture.post("/v1/chat/completions", &[], with_n(false)).await).await;
    assert_eq!(body["choices"].as_array().map(Vec::len), Some(2), "{body}");
    // The parameters of a model may set it, too.
    let model = "[models.double]\nendpoint = \"a\"\nmodel = \"upstream\"\nextra = { n = 2 }\n";
    let fixture = TestGateway::new(model, [late()]).await;
    assert_eq!(read_text(fixture.chat("double", true).await).await, [HELLO, STOP, second_choice, DONE].concat());
    // A service may ignore `n` and leave the connection open; a broken one is incomplete.
    let open = MockResponse::Chunks(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP), (SECOND * 900, DONE)]);
    let broken = MockResponse::ChunksThenReset(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP)]);
    let fixture = TestGateway::new("", [open, broken]).await;
    let got = read_text(fixture.post("/v1/chat/completions", &[], with_n(true)).await).await;
    assert_eq!(got.replace(": waiting\n\n", ""), [HELLO, STOP, DONE].concat());
    let got = read_text(fixture.post("/v1/chat/completions", &[], with_n(true)).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
    let completion =
        |index, text| format!("{{\"choices\":[{{\"index\":{index},\"text\":\"{text}\",\"finish_reason\":\"stop\"}}]}}");
    let events: Vec<&'static str> =
        [completion(0, "a"), completion(1, "b")].map(|json| &*format!("data: {json}\n\n").leak()).to_vec();
    let slow = MockResponse::Chunks(vec![(NO_DELAY, events[0]), (SECOND * 5, events[1]), (NO_DELAY, DONE)]);
    let fixture = TestGateway::new("", [slow]).await;
    let body = "{\"model\":\"one\",\"prompt\":[\"x\",\"y\"],\"stream\":true}";
    let got = read_text(fixture.post("/v1/completions", &[], body).await).await;
    assert_eq!(got, [events[0], events[1], DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn usage_and_citations_after_the_finish_reason_are_awaited() {
    let citations = "data: {\"choices\":[],\"citations\":[\"https://h\"]}\n\n";
    let chunks = vec![
        (NO_DELAY, HELLO),
        (NO_DELAY, STOP),
        (SECOND * 4, ": ping\n\n"),
        (SECOND * 4, citations),
        (SECOND, USAGE),
        (SECOND * 900, DONE),
    ];
    let fixture = TestGateway::new("", [MockResponse::Chunks(chunks)]).await;
    let body =
        chat("one", true).replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let got = read_text(fixture.post("/v1/chat/completions", &[], body).await).await;
    assert!(got.contains(citations) && got.contains(USAGE) && got.ends_with(DONE), "{got}");
    assert_eq!(fixture.last_log_line()["input"], 1_000_000);
    let silent = MockResponse::Chunks(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP), (SECOND * 900, USAGE)]);
    let fixture = TestGateway::new("", [silent]).await;
    let started = tokio::time::Instant::now();
    read_text(fixture.chat("one", true).await).await;
    assert_eq!(started.elapsed(), SECOND * 10, "a service that sends no usage is waited for ten seconds");
}

#[tokio::test(start_paused = true)]
async fn client_that_retries_itself_gets_no_further_attempts() {
    let fixture = TestGateway::new("", std::iter::repeat_n(MockResponse::Status(500, vec![], "{}"), 4)).await;
    for (count, requests) in [("0", 3), ("1", 4)] {
        let headers = [("x-stainless-retry-count", count)];
        fixture.post("/v1/chat/completions", &headers, chat("one", false)).await;
        assert_eq!(fixture.upstream_requests().len(), requests, "retry count {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_choose_models_are_removed_for_clients_that_may_use_some() {
    let body = "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
    let fixture = TestGateway::new(KEYS, [json_reply(body), json_reply(body)]).await;
    let request = r#"{"model":"chat","models":["gpt-5-pro"],"Fallbacks":["gpt-5-pro"],"MODEL":"gpt-5-pro",
        "provider":{"order":["x"]},"api_base":"http://169.254.169.254/","user":"u","messages":[{"role":"user","content":"hi"}]}"#;
    for (key, is_restricted) in [("Bearer sk-of-the-team", true), ("Bearer sk-of-the-rich", false)] {
        let request = request.replace("\"chat\"", if is_restricted { "\"chat\"" } else { "\"one\"" });
        let response = fixture.post("/v1/chat/completions", &[("authorization", key)], request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let sent = fixture.upstream_requests().pop().expect("a request");
        let sent: Value = serde_json::from_slice(sent.body()).expect("JSON");
        let mut names: Vec<_> = sent.as_object().expect("an object").keys().map(String::as_str).collect();
        names.retain(|name| !matches!(*name, "model" | "messages" | "user" | "temperature"));
        let notices = &fixture.last_log_line()["notices"];
        if is_restricted {
            assert!(names.is_empty(), "{names:?}");
            assert!(notices.to_string().contains("models, Fallbacks, provider, api_base"), "{notices}");
        } else {
            assert_eq!(names, ["models", "Fallbacks", "provider", "api_base"]);
            assert!(notices.is_null(), "{notices}");
        }
        assert_eq!((&sent["model"], &sent["user"]), (&json!("upstream-one"), &json!("u")));
    }
}

#[tokio::test(start_paused = true)]
async fn usage_is_awaited_only_if_it_was_asked_for() {
    let reply = || MockResponse::Chunks(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP), (3600 * SECOND, DONE)]);
    let fixture = TestGateway::new("", [reply(), reply()]).await;
    for (option, seconds) in [("", 10), (",\"stream_options\":{\"include_usage\":false}", 1)] {
        let body = chat("one", true).replace("\"stream\":true", &format!("\"stream\":true{option}"));
        let start = tokio::time::Instant::now();
        let text = read_text(fixture.post("/v1/chat/completions", &[], body).await).await;
        assert!(text.ends_with(DONE), "{text}");
        assert_eq!(start.elapsed().as_secs(), seconds, "{option}");
    }
}

#[tokio::test(start_paused = true)]
async fn completions_in_the_other_shape_are_converted() {
    let object = "{\"id\":\"c\",\"choices\":[{\"index\":0,\"text\":\"Hello\",\"finish_reason\":\"stop\"}],\"own\":1}";
    let chunks_of_text = [
        "data: {\"choices\":[{\"index\":0,\"text\":\"Hel\"}],\"own\":1}\n\n",
        "data: {\"choices\":[{\"index\":0,\"text\":\"lo\",\"finish_reason\":\"stop\"}]}\n\n",
        DONE,
    ];
    let fixture = TestGateway::new("", [chunks(&chunks_of_text), json_reply(object)]).await;
    let ask = async |stream| {
        let body = format!("{{\"model\":\"one\",\"prompt\":\"x\",\"stream\":{stream}}}");
        fixture.post("/v1/completions", &[], body).await
    };
    let answer = read_json(ask(false).await).await;
    assert_eq!((&answer["object"], &answer["own"]), (&json!("text_completion"), &json!(1)));
    assert_eq!(answer["choices"], json!([{"index": 0, "text": "Hello", "finish_reason": "stop"}]));
    let text = read_text(ask(true).await).await;
    let (first, rest) = text.split_once("\n\n").expect("an event");
    let event: Value = serde_json::from_str(first.strip_prefix("data: ").expect("an event")).expect("valid JSON");
    assert_eq!(event["choices"], answer["choices"]);
    assert_eq!((&event["id"], &event["own"], rest), (&json!("c"), &json!(1), DONE));
}
