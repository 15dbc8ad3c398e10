//! What is passed on: requests to the upstream, its answers to the client.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stream_is_passed_on_byte_for_byte_and_event_by_event() {
    let odd = [
        "data:{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[]}}],\"own\":1e400}\r\n\r\n",
        "id: 7\nretry: 10\nevent: message\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"\\u00e9\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"},{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    ];
    let all = [ROLE, odd[0], odd[1], odd[2], odd[3], DONE];
    // In one read, event by event, and cut anywhere.
    let joined: &'static str = Box::leak(all.concat().into_boxed_str());
    let (front, back) = joined.split_at(joined.len() / 2);
    for reply in [pieces(&all), pieces(&[joined]), pieces(&[front, back])] {
        let world = World::new("", [reply]).await;
        let reply = world.chat("one", true).await;
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        assert_eq!(frames(reply).await, all);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_sends_reaches_the_upstream_field_for_field() {
    let world = World::new("", [pieces(&[HELLO, STOP, DONE])]).await;
    let body = r#"{"z":1,"model":"one","stream":true,"n":null,"tools":[{"type":"function"}],"big":123456789012345678901234567890,"logit_bias":{"1":-100},"base_url":"http://evil.example","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://h/a.png"}}],"name":"x"}],"seed":7}"#;
    let headers = [("authorization", "Bearer sk-of-a-client"), ("x-other", "1"), ("cookie", "a=b")];
    text(world.post("/v1/chat/completions", &headers, body).await).await;
    let asked = world.asked().pop().expect("one");
    let want = body.replace("\"one\"", "\"upstream-one\"").trim_end_matches('}').to_owned()
        + r#","temperature":0.5,"stream_options":{"include_usage":true}}"#;
    assert_eq!(String::from_utf8_lossy(asked.body()), want);
    assert_eq!(asked.uri(), "http://a.example/v1/chat/completions");
    assert_eq!(asked.headers()["authorization"], "Bearer sk-of-the-upstream");
    assert!(!asked.headers().contains_key("x-other") && !asked.headers().contains_key("cookie"));
}

#[tokio::test(start_paused = true)]
async fn usage_is_told_to_whoever_asked_for_it_and_kept_in_any_case() {
    let replies = || [pieces(&[HELLO, STOP, USAGE, DONE])];
    let world = World::new("", replies()).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!((world.line()["input"].as_u64(), world.line()["cost"].as_f64()), (Some(1_000_000), Some(2.0)));
    let world = World::new("", replies()).await;
    let body =
        chat("one", true).replace("\"stream\":true", "\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    let reply = world.post("/v1/chat/completions", &[], body).await;
    assert_eq!(text(reply).await, [HELLO, STOP, USAGE, DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn a_reply_in_one_piece_is_passed_on_as_it_is_and_says_who_served_it() {
    let body = "{\"choices\":[ {\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"model\":\"m-2026\",\"own\":1e400}";
    let world = World::new("", [Reply::Status(503, vec![], "{}"), whole(body)]).await;
    let reply = world.chat("chat", false).await;
    let header = |name: &str| reply.headers()[name].to_str().expect("text").to_owned();
    assert_eq!((header("x-mmchat-endpoint"), header("x-mmchat-model")), ("b".into(), "two".into()));
    assert_eq!((header("x-mmchat-route"), header("x-mmchat-attempts")), ("chat".into(), "2".into()));
    assert_eq!(header("x-mmchat-request-id"), world.line()["request_id"].as_str().expect("an id"));
    assert_eq!(text(reply).await, body);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_in_the_other_shape_is_translated() {
    let body = "{\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}";
    let world = World::new("", [whole(body)]).await;
    let frames = frames(world.chat("one", true).await).await;
    let chunk =
        |at: usize| serde_json::from_str::<Value>(frames[at].trim().trim_start_matches("data: ")).expect("JSON");
    assert_eq!(chunk(1)["choices"][0]["delta"]["content"], "hi");
    assert_eq!(chunk(2)["choices"][0]["finish_reason"], "stop");
    assert_eq!((frames.len(), frames[3].as_str()), (4, DONE), "{frames:?}");
    let world = World::new("", [pieces(&[ROLE, HELLO, STOP, USAGE, DONE])]).await;
    let whole = json_of(world.chat("one", false).await).await;
    assert_eq!(whole["choices"][0]["message"]["content"], "Hello");
    assert_eq!(whole["usage"]["prompt_tokens"], 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_without_an_end_mark_gets_one() {
    let world = World::new("", [pieces(&[HELLO, STOP])]).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let unfinished = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let world = World::new("", [pieces(&[HELLO, unfinished])]).await;
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, unfinished, "\n\n", DONE].concat());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_until_it_is_whole_begins_again_unseen() {
    let replies = || [pieces(&[ROLE, HELLO]), pieces(&[ROLE, HELLO, STOP, DONE])];
    for (model, headers) in [("whole", &[][..]), ("chat", &[("x-mmchat-buffer", "1")])] {
        let world = World::new("", replies()).await;
        let reply = world.post("/v1/chat/completions", headers, chat(model, true)).await;
        assert_eq!(reply.headers()["x-mmchat-attempts"], "2");
        assert_eq!(text(reply).await, [ROLE, HELLO, STOP, DONE].concat());
    }
    let world = World::new("", [pieces(&[HELLO]), pieces(&[HELLO])]).await;
    let reply = world.post("/v1/chat/completions", &[], chat("whole", true)).await;
    assert_eq!(reply.status(), StatusCode::BAD_GATEWAY);
    assert!(!text(reply).await.contains("Hello"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_slow_to_begin_begins_without_its_first_piece() {
    let late = |then: &[&'static str]| {
        let mut pieces = vec![(20 * SECOND, HELLO)];
        pieces.extend(then.iter().map(|text| (NOW, *text)));
        Reply::Pieces(pieces)
    };
    let begun = tokio::time::Instant::now();
    let world = World::new("", [late(&[STOP, DONE])]).await;
    let reply = world.chat("one", true).await;
    assert_eq!((reply.status(), begun.elapsed()), (StatusCode::OK, 15 * SECOND));
    assert_eq!(text(reply).await, [HELLO, STOP, DONE].concat());
    // A failure after that is an event.
    let world = World::new("[serve]\nhold = \"5s\"\n", [Reply::Slow(7 * SECOND, 400)]).await;
    let begun = tokio::time::Instant::now();
    let reply = world.chat("one", true).await;
    assert_eq!((reply.status(), begun.elapsed()), (StatusCode::OK, 5 * SECOND));
    let got = text(reply).await;
    assert!(got.starts_with("data: {\"error\"") && !got.contains("[DONE]"), "{got}");
    // Whoever waits long is told that it is not forgotten.
    let pieces = vec![(NOW, HELLO), (40 * SECOND, STOP)];
    let world = World::new("", [Reply::Pieces(pieces)]).await;
    let comment = ": waiting\n\n";
    assert_eq!(frames(world.chat("one", true).await).await, [HELLO, comment, comment, STOP, DONE]);
}

#[tokio::test(start_paused = true)]
async fn models_and_routes_are_listed_one_by_one_too() {
    let world = World::new("", []).await;
    let list: Value = serde_json::from_str(&world.get("/v1/models").await.1).expect("JSON");
    let ids: Vec<_> =
        list["data"].as_array().expect("a list").iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["chat", "whole", "one", "two"]);
    for (id, status) in [("one", 200), ("chat", 200), ("a/anything/at:all", 200), ("nobody", 404), ("both", 404)] {
        assert_eq!(world.get(&format!("/v1/models/{id}")).await.0.as_u16(), status, "{id}");
    }
    for (path, word) in
        [("/health", "ok"), ("/ready", "ready"), ("/status", "generation"), ("/metrics", "mmchat_build")]
    {
        let (status, body) = world.get(path).await;
        assert!(status == StatusCode::OK && body.contains(word), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_services_are_passed_on_by_their_model() {
    let vectors = "{\"data\":[{\"embedding\":\"AACAPw==\"}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}";
    for path in ["/v1/embeddings", "/v1/rerank", "/v1/images/generations"] {
        let world = World::new("", [Reply::Status(503, vec![], "{}"), whole(vectors)]).await;
        let body = "{\"input\":[[1,2,3],[4]],\"model\":\"chat\",\"encoding_format\":\"base64\",\"user\":null}";
        let reply = world.post(path, &[], body).await;
        assert_eq!(reply.headers()["x-mmchat-model"], "two");
        assert_eq!(text(reply).await, vectors);
        let asked = world.asked().pop().expect("two");
        assert_eq!(asked.uri().path(), path);
        assert_eq!(String::from_utf8_lossy(asked.body()), body.replace("\"chat\"", "\"upstream-two\""));
        assert_eq!(world.line()["input"], 3);
    }
    let completion = "data: {\"choices\":[{\"text\":\"on\",\"index\":0}]}\n\n";
    let stop = "data: {\"choices\":[{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n";
    let world = World::new("", [pieces(&[completion, stop, DONE]), pieces(&[completion])]).await;
    let body = "{\"model\":\"one\",\"prompt\":[1,2],\"stream\":true}";
    assert_eq!(text(world.post("/v1/completions", &[], body).await).await, [completion, stop, DONE].concat());
    assert!(text(world.post("/v1/completions", &[], body).await).await.contains("\"error\""));
}

#[tokio::test(start_paused = true)]
async fn of_several_choices_one_that_breaks_off_spoils_the_answer() {
    let second = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"half\"}}]}\n\n";
    let world = World::new("", [pieces(&[HELLO, second, STOP])]).await;
    let got = text(world.chat("one", true).await).await;
    assert!(got.contains("\"error\"") && !got.contains("[DONE]"), "{got}");
    let both = "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let world = World::new("", [pieces(&[HELLO, second, STOP, both, DONE])]).await;
    let whole = json_of(world.chat("one", false).await).await;
    let contents: Vec<_> =
        whole["choices"].as_array().expect("a list").iter().map(|choice| &choice["message"]["content"]).collect();
    assert_eq!(contents, ["Hello", "half"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_to_one_model_and_a_slow_one_is_asked_beside_another() {
    let more = "[routes.kept]\nmodels = [\"one\", \"two\"]\nsticky = true\n[routes.hedged]\nmodels = [\"one\", \"two\"]\nhedge_after = \"1s\"\n";
    let world = World::new(more, (0..6).map(|_| pieces(&[HELLO, STOP, DONE]))).await;
    for session in ["first", "second", "third"] {
        let served = async || {
            let reply = world.post("/v1/chat/completions", &[("x-mmchat-session", session)], chat("kept", true)).await;
            let model = reply.headers()["x-mmchat-model"].clone();
            text(reply).await;
            model
        };
        assert_eq!(served().await, served().await);
    }
    let world = World::new(more, [Reply::Silence, pieces(&[HELLO, STOP, DONE])]).await;
    let reply = world.chat("hedged", true).await;
    assert_eq!(
        (&reply.headers()["x-mmchat-model"], &reply.headers()["x-mmchat-attempts"]),
        (&"two".parse().expect("a value"), &"2".parse().expect("a value"))
    );
    let overhead: u64 = reply.headers()["x-mmchat-overhead-us"].to_str().expect("text").parse().expect("a number");
    assert!(overhead < 1_000_000, "waiting for the first one is no time of ours: {overhead}");
    text(reply).await;
    assert_eq!(world.line()["attempts"].as_array().map(Vec::len), Some(2));
    assert!(world.line()["notices"][0].as_str().is_some_and(|text| text.contains("asked as well")));
}

#[tokio::test(start_paused = true)]
async fn no_other_spelling_names_another_model() {
    let answer = || whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}");
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let world = World::new("", [answer()]).await;
        let body = "{\"model\":\"one\",\"messages\":[],\"Model\":\"dear\",\"\\u004dODEL\":\"dear\"}";
        world.post(path, &[], body).await;
        let asked = String::from_utf8_lossy(world.asked().pop().expect("one").body()).into_owned();
        assert!(asked.contains("\"upstream-one\"") && !asked.contains("dear"), "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_transfer_cannot_be_seen_to_break_off_a_stream_is_held_back() {
    let old = async |world: &World| {
        let request = Request::post("/v1/chat/completions").version(http::Version::HTTP_10).header("host", "localhost");
        world.gateway.ask(request.body(Body::from(chat("chat", true))).expect("a request")).await
    };
    let world = World::new("", [pieces(&[HELLO]), pieces(&[HELLO, STOP, DONE])]).await;
    assert_eq!(text(old(&world).await).await, [HELLO, STOP, DONE].concat());
    let world = World::new("", [pieces(&[HELLO]), pieces(&[HELLO])]).await;
    let reply = old(&world).await;
    assert_eq!(reply.status(), StatusCode::BAD_GATEWAY);
    assert!(!text(reply).await.contains("Hello"));
}
