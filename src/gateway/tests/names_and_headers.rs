//! Tests of the names that clients send, and of the headers that are passed on.

use super::*;

#[tokio::test(start_paused = true)]
async fn aliases_are_listed_and_limited_by_what_they_stand_for() {
    let aliases = "\n[serve.aliases]\ngpt-4o = \"chat\"\n\"one-*\" = \"one\"\n\"vendor/*\" = \"b/*\"\n";
    let answer = || chunks(&[HELLO, STOP, DONE]);
    let fixture = TestGateway::new(&format!("{KEYS}{aliases}"), [answer()]).await;
    let request = |name: &'static str, key: &'static str| {
        let authorization = format!("Bearer {key}");
        let fixture = &fixture;
        async move { fixture.post("/v1/chat/completions", &[("authorization", &authorization)], chat(name, true)).await }
    };
    assert_eq!(request("gpt-4o", "sk-of-the-team").await.status(), StatusCode::OK);
    assert_eq!(request("one-more", "sk-of-the-team").await.status(), StatusCode::FORBIDDEN);

    let open = TestGateway::new(aliases, [answer()]).await;
    assert_eq!(read_chunks(open.chat("vendor/m:1", true).await).await.last().map(String::as_str), Some(DONE));
    let line = open.last_log_line();
    assert_eq!((line["asked"].as_str(), line["alias"].as_str()), (Some("b/m:1"), Some("vendor/m:1")));
    let sent: Value = serde_json::from_slice(open.upstream_requests()[0].body()).expect("valid JSON");
    assert_eq!(sent["model"], "m:1");
    let list: Value = serde_json::from_str(&open.get("/v1/models").await.1).expect("valid JSON");
    assert_eq!(list["data"][4]["id"], "gpt-4o");
    assert_eq!(open.get("/v1/models/one-more").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn only_listed_headers_are_passed_on() {
    let limits = vec![
        ("retry-after", "300"),
        ("x-ratelimit-remaining-requests", "9"),
        ("x-ratelimit-key", "sk-of-the-upstream"),
        ("set-cookie", "a=b"),
        ("content-type", "application/json"),
    ];
    let body = "{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}";
    let fixture = TestGateway::new(
        "[serve]\nrequest_headers = [\"openai-*\"]\n",
        [MockResponse::Status(200, limits.clone(), body), MockResponse::Status(429, limits, "{}")],
    )
    .await;
    let headers = [
        ("openai-beta", "x=1"),
        ("x-request-id", "trace-1"),
        ("authorization", "Bearer sk-of-a-client"),
        ("cookie", "c=d"),
        ("x-title", "app"),
    ];
    let response = fixture.post("/v1/chat/completions", &headers, chat("one", false)).await;
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "9");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    assert_eq!(response.headers()["x-request-id"], "trace-1");
    for name in ["x-ratelimit-key", "set-cookie"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let sent = fixture.upstream_requests().remove(0);
    assert_eq!(sent.headers()["openai-beta"], "x=1");
    assert_eq!(sent.headers()["x-request-id"], "trace-1");
    assert_eq!(sent.headers()["authorization"], "Bearer sk-of-the-upstream");
    assert!(!sent.headers().contains_key("cookie") && !sent.headers().contains_key("x-title"), "{:?}", sent.headers());
    let refused = fixture.chat("one", false).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["x-ratelimit-remaining-requests"], "9", "of a failed call, too");
    assert!(!refused.headers().contains_key("x-ratelimit-key") && !refused.headers().contains_key("set-cookie"));
    assert!(!fixture.upstream_requests()[1].headers().contains_key("x-request-id"));
}
