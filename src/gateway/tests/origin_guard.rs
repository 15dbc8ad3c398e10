//! Who is let in, and what each may do.

use super::*;

#[tokio::test(start_paused = true)]
async fn whoever_has_a_key_may_do_what_it_may() {
    let answer = || pieces(&[HELLO, STOP, USAGE, DONE]);
    let world = World::new(KEYS, [answer(), answer(), Reply::Silence]).await;
    let ask = async |key: Option<&str>, model: &str| {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        let reply = world.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (reply.status().as_u16(), text(reply).await)
    };
    assert_eq!(ask(None, "chat").await.0, 401);
    let (status, body) = ask(Some("sk-of-nobody"), "chat").await;
    assert!(status == 401 && body.contains("invalid_api_key") && !body.contains("sk-of"), "{body}");
    assert_eq!(ask(Some("sk-of-the-team"), "one").await.0, 403);
    assert_eq!(ask(Some("sk-of-the-team"), "chat").await.0, 200);
    assert_eq!(world.line()["client"], "team");
    // It costs 2, and one may spend 1.5.
    assert_eq!(ask(Some("sk-of-the-rich"), "one").await.0, 200);
    let (status, body) = ask(Some("sk-of-the-rich"), "one").await;
    assert!(status == 429 && body.contains("insufficient_quota"), "{body}");
    assert_eq!(world.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.get("/health").await.0, StatusCode::OK);
    // One at once: the second waits for nobody.
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
async fn nobody_is_let_in_by_accident() {
    let serve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("good").serve;
    let everywhere = "0.0.0.0".parse().expect("an address");
    assert!(matches!(check_open(&serve(""), everywhere), Err(ServeError::Open { .. })));
    assert!(check_open(&serve(KEYS.replace("models = [\"chat\"]\n", "").as_str()), everywhere).is_ok());
    assert!(check_open(&serve(""), "127.0.0.1".parse().expect("an address")).is_ok());
    let missing = World::open("[serve.keys.x]\napi_key = { env = \"NOT_SET_ANYWHERE\" }\n", []).await;
    assert!(missing.is_err_and(|error| error.to_string().contains("serve.keys.x")));
    let tls = World::open("[serve]\ncert = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n", []).await;
    assert!(tls.is_err_and(|error| error.to_string().contains("/nowhere/cert.pem")));
}

#[tokio::test(start_paused = true)]
async fn a_web_page_does_not_reach_it_unless_it_is_named() {
    let world = World::new(
        "[serve]\ncors = [\"https://chat.example.com\"]\n",
        [whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")],
    )
    .await;
    let from = async |origin: &str, method: &str| {
        let request = Request::builder()
            .method(method)
            .uri("/v1/chat/completions")
            .header("host", "localhost:8484")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .body(Body::from(chat("one", false)));
        world.gateway.ask(request.expect("a request")).await
    };
    assert_eq!(from("https://evil.example", "POST").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(from("https://evil.example", "OPTIONS").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.asked().len(), 0);
    let asked = from("https://chat.example.com", "OPTIONS").await;
    assert_eq!(asked.status(), StatusCode::NO_CONTENT);
    let reply = from("https://chat.example.com", "POST").await;
    assert_eq!(reply.headers()["access-control-allow-origin"], "https://chat.example.com");
    let twice = Request::get("/v1/models").header("host", "localhost").header("host", "evil.example");
    let twice = twice.body(Body::empty()).expect("a request");
    assert_eq!(world.gateway.ask(twice).await.status(), StatusCode::FORBIDDEN);
    let rebound = Request::get("/v1/models").header("host", "evil.example").body(Body::empty()).expect("a request");
    assert_eq!(world.gateway.ask(rebound).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_others_can_reach_is_never_left_without_keys() {
    let keyless = config::resolve(CONFIG, Path::new("c.toml")).expect("good");
    let world = World::new(KEYS, []).await;
    assert!(matches!(world.gateway.reload(keyless.clone()).await, Err(ServeError::Keyless)));
    assert_eq!(world.get("/v1/models").await.0, StatusCode::UNAUTHORIZED);
    let world = World::new("", []).await;
    world.gateway.reach.get_or_init(|| "0.0.0.0".parse().expect("an address"));
    assert!(matches!(world.gateway.reload(keyless).await, Err(ServeError::Open { .. })));
}

#[tokio::test(start_paused = true)]
async fn no_name_leads_around_a_limit_and_none_of_a_clients_becomes_a_label() {
    let world = World::new(KEYS, [pieces(&[HELLO, STOP, USAGE, DONE])]).await;
    let ask = async |model: &str| {
        let headers = [("authorization", "Bearer sk-of-the-rich")];
        let reply = world.post("/v1/chat/completions", &headers, chat(model, true)).await;
        (reply.status().as_u16(), text(reply).await)
    };
    let (status, body) = ask("a/of-no-known-price").await;
    assert!(status == 403 && body.contains("no price"), "{body}");
    // The same model by another name costs the same.
    assert_eq!(ask("a/upstream-one").await.0, 200);
    assert_eq!(ask("a/made-up-too").await.0, 429);
    let figures = Request::get("/metrics").header("host", "localhost").header("x-api-key", "sk-of-the-rich");
    let metrics = text(world.gateway.ask(figures.body(Body::empty()).expect("a request")).await).await;
    assert!(!metrics.contains("made-up") && !metrics.contains("of-no-known"), "{metrics}");
    // One that may use some models does not read how all of them stand.
    let figures = Request::get("/status").header("host", "localhost").header("x-api-key", "sk-of-the-team");
    let refused = world.gateway.ask(figures.body(Body::empty()).expect("a request")).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
}
