//! Clients that leave or stall, and a config that changes meanwhile.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_its_upstream_at_once() {
    for (reply, stream) in [
        (Reply::Silence, true),
        (Reply::Silence, false),
        (Reply::Pieces(vec![(NOW, HELLO), (3600 * SECOND, STOP)]), true),
    ] {
        let world = World::new("", [reply]).await;
        let body = {
            let mut asking = Box::pin(world.chat("one", stream));
            // As far as it goes.
            let mut reply = None;
            for _ in 0..50 {
                reply = reply.or(asking.as_mut().now_or_never());
                tokio::task::yield_now().await;
                if reply.is_some() {
                    break;
                }
            }
            reply.map(Response::into_body)
        };
        drop(body);
        assert_eq!(world.script.open.load(Ordering::Relaxed), 0, "nothing is read any more");
        assert_eq!(world.line()["class"], "client-gone");
        assert!(
            world
                .gateway
                .metrics
                .text(&world.gateway.current().config, &world.gateway.outside)
                .contains("mmchat_client_disconnects_total 1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_config_holds_for_new_requests_and_a_bad_one_for_none() {
    let slow = Reply::Pieces(vec![(NOW, HELLO), (SECOND, STOP)]);
    let world = World::new("", [slow, pieces(&[HELLO, STOP, DONE])]).await;
    let under_way = world.chat("one", true).await;
    let renamed = CONFIG.replace("models.one]", "models.first]").replace("\"one\"", "\"first\"");
    let resolve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("good");
    world.gateway.reload(resolve(&renamed)).await.expect("good");
    assert_eq!(world.chat("one", true).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(text(world.chat("first", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!(text(under_way).await, [HELLO, STOP, DONE].concat());
    let bad = resolve(&format!("{renamed}[serve.keys.x]\napi_key = {{ env = \"NOT_SET_ANYWHERE\" }}\n"));
    assert!(world.gateway.reload(bad).await.is_err());
    assert_eq!(world.get("/v1/models/first").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let world = World::new("", []).await;
    let stuck = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let request = Request::post("/v1/chat/completions").header("host", "localhost").body(stuck).expect("a request");
    let reply = world.gateway.ask(request).await;
    assert_eq!(
        (reply.status(), &reply.headers()["connection"]),
        (StatusCode::REQUEST_TIMEOUT, &"close".parse().expect("a value"))
    );
    let large = chat("one", false).replace("a secret question", &"x".repeat(300 * 1024));
    let world =
        World::new("", [whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")]).await;
    assert_eq!(world.post("/v1/chat/completions", &[], large).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_holds_up_its_own_upstream_alone_and_not_for_ever() {
    let endless = Reply::Pieces(std::iter::repeat_n((NOW, HELLO), 20_000).collect());
    let world = World::new("", [endless, pieces(&[HELLO, STOP, DONE])]).await;
    let (mut client, server) = tokio::io::duplex(4096);
    let (_stopping, stopping) = tokio::sync::watch::channel(false);
    let (gateway, router) = (Arc::clone(&world.gateway), world.gateway.router());
    let arrived = Arrived { loopback: true };
    let server = Impatient::new(server);
    let unsent = server.unsent();
    let serving = tokio::spawn(speak(gateway, (server, unsent), router, arrived, stopping));
    let body = chat("one", true);
    let length = body.len();
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
    client.write_all(request.as_bytes()).await.expect("it reads");
    while world.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    // Nobody else notices.
    assert_eq!(text(world.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let begun = tokio::time::Instant::now();
    serving.await.expect("it ends");
    assert!(begun.elapsed() >= STALLED, "{:?}", begun.elapsed());
    assert_eq!(world.script.open.load(Ordering::Relaxed), 0);
    assert_eq!(world.line()["class"], "client-gone");
}

#[tokio::test(start_paused = true)]
async fn a_packed_body_is_refused_for_what_it_is() {
    let world = World::new("", []).await;
    for header in [("content-encoding", "gzip"), ("transfer-encoding", "gzip, chunked")] {
        let reply = world.post("/v1/chat/completions", &[header], chat("one", false)).await;
        assert_eq!(reply.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(text(reply).await.contains("gzip"));
    }
}

#[tokio::test(start_paused = true)]
async fn large_bodies_under_way_have_a_common_limit_and_small_ones_go_on() {
    let world = World::new("[serve]\nmax_body_mb = 1\n", std::iter::repeat_n(Reply::Silence, 20)).await;
    let large = || chat("one", false).replace("a secret question", &"x".repeat(900 * 1024));
    let mut under_way: Vec<_> = (0..20).map(|_| Box::pin(world.post("/v1/chat/completions", &[], large()))).collect();
    let mut refused = 0;
    for asking in &mut under_way {
        // Long bodies are read on another thread.
        let answered = tokio::time::timeout(SECOND, asking).await;
        refused += usize::from(answered.is_ok_and(|reply| reply.status() == StatusCode::SERVICE_UNAVAILABLE));
    }
    // Of each body 256 KB count for nothing, and 8 MB is what there is for the rest.
    assert_eq!(refused, 8);
    let mut small = Box::pin(world.chat("one", false));
    assert!(tokio::time::timeout(SECOND, &mut small).await.is_err(), "it is asked");
}
