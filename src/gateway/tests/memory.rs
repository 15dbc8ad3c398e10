//! Tests of the memory that requests and answers may take.

use super::*;

const MIB: usize = 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn large_bodies_share_a_memory_limit_and_small_ones_are_accepted() {
    let config = "[serve]\nmax_body_mb = 1\nmemory_mb = 16\n";
    let fixture = TestGateway::new(config, std::iter::repeat_n(MockResponse::NoResponse, 20)).await;
    let large = || chat("one", false).replace("a secret question", &"x".repeat(900 * 1024));
    let mut in_flight: Vec<_> = (0..20).map(|_| Box::pin(fixture.post("/v1/chat/completions", &[], large()))).collect();
    let mut rejected = 0;
    for request in &mut in_flight {
        // Large bodies are parsed on another thread.
        let response = tokio::time::timeout(SECOND, request).await;
        rejected += usize::from(response.is_ok_and(|response| response.status() == StatusCode::SERVICE_UNAVAILABLE));
    }
    // Each takes about 1.8 MiB, as it came and as it is sent; together they may take 12 MiB.
    assert_eq!(rejected, 14);
    let mut small = Box::pin(fixture.chat("one", false));
    assert!(tokio::time::timeout(SECOND, &mut small).await.is_err(), "the request is sent upstream");
}

/// Answers with a stream of `mebibytes` MiB that never ends.
fn unfinished_answer(mebibytes: usize) -> MockResponse {
    let event =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(MIB / 16));
    let event: &'static str = event.leak();
    let events = std::iter::repeat_n((NO_DELAY, event), mebibytes * 16);
    MockResponse::Chunks(events.chain([(3600 * SECOND, STOP)]).collect())
}

#[tokio::test(start_paused = true)]
async fn largest_held_answer_ends_and_other_clients_are_served() {
    let answers = [3, 5, 2, 4].map(unfinished_answer);
    let fixture = TestGateway::new(
        "[serve]\nmax_body_mb = 1\nmemory_mb = 16\n",
        answers.into_iter().chain([chunks(&[HELLO, STOP, DONE])]),
    )
    .await;
    let held = |stream| {
        let headers: &[_] = if stream { &[("x-mmchat-buffer", "1")] } else { &[] };
        tokio::time::timeout(SECOND, fixture.post("/v1/chat/completions", headers, chat("one", stream)))
    };
    let responses = futures_util::future::join_all([held(true), held(true), held(false), held(false)]).await;
    // The others may have to end, too, since events are held as they came and as text.
    let has_ended: Vec<bool> = responses.iter().map(Result::is_ok).collect();
    assert!(has_ended[1] && !has_ended[2], "the largest answer ends, and the smallest does not: {has_ended:?}");
    let (ended, unfinished): (Vec<_>, Vec<_>) = responses.into_iter().partition(Result::is_ok);
    for response in ended.into_iter().flatten() {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        assert!(read_text(response).await.contains("the memory for requests and answers is used up"));
    }
    assert_eq!(read_text(fixture.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    drop(unfinished);
    assert_eq!(fixture.gateway.memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn answer_over_its_limit_ends_whatever_it_consists_of() {
    let roles = MockResponse::Chunks(std::iter::repeat_n((NO_DELAY, ROLE), MIB / ROLE.len() + 1).collect());
    let replies = [unfinished_answer(2), unfinished_answer(2), roles];
    let fixture = TestGateway::new("max_answer_mb = 1\n", replies).await;
    for headers in [&[("x-mmchat-buffer", "1")][..], &[]] {
        let text = read_text(fixture.post("/v1/chat/completions", headers, chat("one", true)).await).await;
        assert!(text.contains("longer than 1 MiB"), "{}", &text[text.len().saturating_sub(400)..]);
    }
    let text = read_text(fixture.chat("one", true).await).await;
    assert!(text.contains("longer than 1 MiB") && !text.contains("data:"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn conversion_of_an_answer_needs_memory() {
    let tokens = vec![json!({"token": "t", "logprob": -1.5, "bytes": [116], "top_logprobs": []}); 4000];
    let message = json!({"role": "assistant", "content": "Hello"});
    let logprobs = json!({"content": tokens});
    let object = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}]});
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop", "logprobs": logprobs}]});
    let object: &'static str = object.to_string().leak();
    let stream: &'static str = format!("data: {chunk}\n\ndata: [DONE]\n\n").leak();
    for (memory, status, is_complete) in [(3, StatusCode::SERVICE_UNAVAILABLE, false), (64, StatusCode::OK, true)] {
        let config = format!("[serve]\nmax_body_mb = 1\nmemory_mb = {memory}\n");
        let fixture = TestGateway::new(&config, [chunks(&[stream]), json_reply(object)]).await;
        let response = fixture.chat("one", false).await;
        assert_eq!(response.status(), status);
        let logged = || fixture.last_log_line()["class"] == if is_complete { "ok" } else { "local-limit" };
        assert!(logged(), "{}", fixture.last_log_line());
        let answer = read_json(response).await;
        assert_eq!(
            answer["choices"][0]["logprobs"]["content"].as_array().is_some_and(|list| list.len() == 4000),
            is_complete
        );
        let text = read_text(fixture.chat("one", true).await).await;
        assert_eq!(text.contains("[DONE]") && text.matches("\"logprob\"").count() == 4000, is_complete);
        assert_eq!(text.contains("memory_full"), !is_complete);
        assert!(logged(), "{}", fixture.last_log_line());
        assert_eq!(fixture.gateway.memory.used(), 0);
    }
}
