//! Tests of client keys, quotas, and the Host and Origin guard.

use super::*;

#[tokio::test(start_paused = true)]
async fn client_keys_are_required_and_their_limits_enforced() {
    let answer = || chunks(&[HELLO, STOP, USAGE, DONE]);
    let fixture = TestGateway::new(KEYS, [answer(), answer(), MockResponse::NoResponse]).await;
    let ask = async |key: Option<&str>, model: &str| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let response = fixture.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (response.status().as_u16(), read_text(response).await)
    };
    assert_eq!(ask(None, "chat").await.0, 401);
    let (status, body) = ask(Some("sk-of-unknown"), "chat").await;
    assert!(status == 401 && body.contains("invalid_api_key") && !body.contains("sk-of"), "{body}");
    assert_eq!(ask(Some("sk-of-the-team"), "one").await.0, 403);
    assert_eq!(ask(Some("sk-of-the-team"), "chat").await.0, 200);
    assert_eq!(fixture.last_log_line()["client"], "team");
    // The request costs 2 USD and the limit is 1.5 USD: the first one is allowed, the second is not.
    assert_eq!(ask(Some("sk-of-the-rich"), "one").await.0, 200);
    let (status, body) = ask(Some("sk-of-the-rich"), "one").await;
    assert!(status == 429 && body.contains("insufficient_quota"), "{body}");
    assert_eq!(fixture.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(fixture.get("/health").await.0, StatusCode::OK);
    // max_concurrency is 1: the second request is rejected at once.
    let waiting = Box::pin(ask(Some("sk-of-the-team"), "chat"));
    let mut waiting = waiting;
    for _ in 0..20 {
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let (status, body) = ask(Some("sk-of-the-team"), "chat").await;
    assert!(status == 429 && body.contains("concurrency_limit_exceeded"), "{body}");
}

#[tokio::test]
async fn exposed_listener_without_keys_and_unusable_keys_or_certificates_are_errors() {
    let serve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("valid config").serve;
    let unspecified = "0.0.0.0".parse().expect("valid address");
    assert!(matches!(check_exposure(&serve(""), unspecified), Err(ServeError::Exposed { .. })));
    assert!(check_exposure(&serve(KEYS.replace("models = [\"chat\"]\n", "").as_str()), unspecified).is_ok());
    assert!(check_exposure(&serve(""), "127.0.0.1".parse().expect("valid address")).is_ok());
    let missing = TestGateway::try_new("[serve.keys.x]\napi_key = { env = \"NOT_SET_ANYWHERE\" }\n", []).await;
    assert!(missing.is_err_and(|error| error.to_string().contains("serve.keys.x")));
    let tls = TestGateway::try_new("[serve]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n", []).await;
    assert!(tls.is_err_and(|error| error.to_string().contains("/nowhere/cert.pem")));
}

#[tokio::test(start_paused = true)]
async fn foreign_origins_are_403_and_listed_ones_get_cors_headers() {
    let fixture = TestGateway::new(
        "[serve]\ncors = [\"https://chat.example.com\"]\n",
        [json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")],
    )
    .await;
    let from = async |origin: &str, method: &str| {
        let request = Request::builder()
            .method(method)
            .uri("/v1/chat/completions")
            .header("host", "localhost:8484")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "x-stainless-retry-count, openai-organization, x-title")
            .body(Body::from(chat("one", false)));
        fixture.gateway.handle_local(request.expect("valid request")).await
    };
    assert_eq!(from("https://evil.example", "POST").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(from("https://evil.example", "OPTIONS").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(fixture.upstream_requests().len(), 0);
    let preflight = from("https://chat.example.com", "OPTIONS").await;
    let header = |response: &Response<Body>, name: &str| {
        response.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(preflight.status(), StatusCode::OK);
    for (name, part) in [
        ("access-control-allow-origin", "https://chat.example.com"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "x-stainless-retry-count, openai-organization, x-title"),
        ("access-control-max-age", "600"),
    ] {
        assert!(header(&preflight, name).is_some_and(|value| value.contains(part)), "{name}: {preflight:?}");
    }
    let response = from("https://chat.example.com", "POST").await;
    assert_eq!(header(&response, "access-control-allow-origin").as_deref(), Some("https://chat.example.com"));
    assert!(header(&response, "vary").is_some_and(|vary| vary.contains("origin")), "{response:?}");
    let local_app = from("app://obsidian.md", "OPTIONS").await;
    assert_eq!(header(&local_app, "access-control-allow-origin").as_deref(), Some("app://obsidian.md"));
    let two_hosts = Request::get("/v1/models").header("host", "localhost").header("host", "evil.example");
    let two_hosts = two_hosts.body(Body::empty()).expect("valid request");
    assert_eq!(fixture.gateway.handle_local(two_hosts).await.status(), StatusCode::FORBIDDEN);
    let rebound = Request::get("/v1/models").header("host", "evil.example").body(Body::empty()).expect("valid request");
    assert_eq!(fixture.gateway.handle_local(rebound).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn reload_cannot_remove_the_keys_of_an_exposed_server() {
    let keyless = config::resolve(CONFIG, Path::new("c.toml")).expect("valid config");
    let fixture = TestGateway::new(KEYS, []).await;
    assert!(matches!(fixture.gateway.reload(keyless.clone()).await, Err(ServeError::KeysRemoved)));
    assert_eq!(fixture.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    let fixture = TestGateway::new("", []).await;
    fixture.gateway.listen_ip.get_or_init(|| "0.0.0.0".parse().expect("valid address"));
    assert!(matches!(fixture.gateway.reload(keyless).await, Err(ServeError::Exposed { .. })));
}

#[tokio::test(start_paused = true)]
async fn unpriced_names_cannot_bypass_a_spend_limit_or_become_labels() {
    let fixture = TestGateway::new(KEYS, [chunks(&[HELLO, STOP, USAGE, DONE])]).await;
    let ask = async |model: &str| {
        let headers = [("authorization", "Bearer sk-of-the-rich")];
        let response = fixture.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (response.status().as_u16(), read_text(response).await)
    };
    let (status, body) = ask("a/of-no-known-price").await;
    assert!(status == 403 && body.contains("no price"), "{body}");
    // The same model under its `endpoint/id` name has the same price.
    assert_eq!(ask("a/upstream-one").await.0, 200);
    assert_eq!(ask("a/made-up-too").await.0, 429);
    let request = Request::get("/metrics").header("host", "localhost").header("x-api-key", "sk-of-the-rich");
    let metrics =
        read_text(fixture.gateway.handle_local(request.body(Body::empty()).expect("valid request")).await).await;
    assert!(!metrics.contains("made-up") && !metrics.contains("of-no-known"), "{metrics}");
    // A key with a `models` list may not read the status of all models.
    let request = Request::get("/status").header("host", "localhost").header("x-api-key", "sk-of-the-team");
    let response = fixture.gateway.handle_local(request.body(Body::empty()).expect("valid request")).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}
