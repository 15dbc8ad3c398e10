//! Tests of client disconnects, stalled clients, config reloads and body limits.

use super::*;

#[tokio::test(start_paused = true)]
async fn client_disconnect_cancels_the_upstream_request() {
    for (reply, stream) in [
        (MockResponse::NoResponse, true),
        (MockResponse::NoResponse, false),
        (MockResponse::Chunks(vec![(NO_DELAY, HELLO), (3600 * SECOND, STOP)]), true),
    ] {
        let fixture = TestGateway::new("", [reply]).await;
        let body = {
            let mut pending = Box::pin(fixture.chat("one", stream));
            // Polls until the response starts or the upstream blocks.
            let mut response = None;
            for _ in 0..50 {
                response = response.or(pending.as_mut().now_or_never());
                tokio::task::yield_now().await;
                if response.is_some() {
                    break;
                }
            }
            response.map(Response::into_body)
        };
        drop(body);
        assert_eq!(fixture.transport.open_responses.load(Ordering::Relaxed), 0, "no upstream body is open");
        assert_eq!(fixture.last_log_line()["class"], "client-gone");
        assert!(
            fixture
                .gateway
                .metrics
                .export(&fixture.gateway.current().config, &fixture.gateway.deps, 0)
                .contains("mmchat_client_disconnects_total 1")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn reload_applies_to_new_requests_and_an_invalid_config_changes_nothing() {
    let slow = MockResponse::Chunks(vec![(NO_DELAY, HELLO), (SECOND, STOP)]);
    let fixture = TestGateway::new("", [slow, chunks(&[HELLO, STOP, DONE])]).await;
    let in_flight = fixture.chat("one", true).await;
    let renamed = CONFIG.replace("models.one]", "models.first]").replace("\"one\"", "\"first\"");
    let resolve = |text: &str| config::resolve(text, Path::new("c.toml")).expect("valid config");
    fixture.gateway.reload(resolve(&renamed)).await.expect("valid config");
    assert_eq!(fixture.chat("one", true).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(read_text(fixture.chat("first", true).await).await, [HELLO, STOP, DONE].concat());
    assert_eq!(read_text(in_flight).await, [HELLO, STOP, DONE].concat());
    let invalid = resolve(&format!("{renamed}[serve.keys.x]\napi_key = {{ env = \"NOT_SET_ANYWHERE\" }}\n"));
    assert!(fixture.gateway.reload(invalid).await.is_err());
    assert_eq!(fixture.get("/v1/models/first").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn stalled_request_body_times_out_with_408() {
    let fixture = TestGateway::new("", []).await;
    let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    let request =
        Request::post("/v1/chat/completions").header("host", "localhost").body(stalled).expect("valid request");
    let response = fixture.gateway.handle_local(request).await;
    assert_eq!(
        (response.status(), &response.headers()["connection"]),
        (StatusCode::REQUEST_TIMEOUT, &"close".parse().expect("valid header value"))
    );
    let large = chat("one", false).replace("a secret question", &"x".repeat(300 * 1024));
    let fixture = TestGateway::new(
        "",
        [json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")],
    )
    .await;
    assert_eq!(fixture.post("/v1/chat/completions", &[], large).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn stalled_client_is_disconnected_after_the_write_timeout_and_blocks_no_other() {
    let endless = MockResponse::Chunks(std::iter::repeat_n((NO_DELAY, HELLO), 20_000).collect());
    let fixture = TestGateway::new("", [endless, chunks(&[HELLO, STOP, DONE])]).await;
    let (mut client, server) = tokio::io::duplex(4096);
    const WRITE_TIMEOUT: Duration = Duration::from_secs(7);
    let (_stopping, stopping) = tokio::sync::watch::channel(false);
    let (gateway, router) = (Arc::clone(&fixture.gateway), fixture.gateway.routers());
    let conn_info = ConnInfo { loopback: true };
    let server = WriteTimeoutStream::new(server, WRITE_TIMEOUT);
    let pending_write = server.pending_write();
    let serving = tokio::spawn(serve_connection(gateway, (server, pending_write), router, conn_info, stopping));
    let body = chat("one", true);
    let length = body.len();
    let request =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}");
    client.write_all(request.as_bytes()).await.expect("the server reads");
    while fixture.upstream_requests().is_empty() {
        tokio::task::yield_now().await;
    }
    // Other requests are not affected.
    assert_eq!(read_text(fixture.chat("one", true).await).await, [HELLO, STOP, DONE].concat());
    let start = tokio::time::Instant::now();
    serving.await.expect("the connection task does not panic");
    assert!(start.elapsed() >= WRITE_TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(fixture.transport.open_responses.load(Ordering::Relaxed), 0);
    assert_eq!(fixture.last_log_line()["class"], "client-gone");
}

#[tokio::test(start_paused = true)]
async fn compressed_body_is_415() {
    let fixture = TestGateway::new("", []).await;
    for header in [("content-encoding", "gzip"), ("transfer-encoding", "gzip, chunked")] {
        let response = fixture.post("/v1/chat/completions", &[header], chat("one", false)).await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(read_text(response).await.contains("gzip"));
    }
}

#[tokio::test(start_paused = true)]
async fn client_that_is_still_uploading_gets_the_status() {
    let fixture = TestGateway::new(&format!("{KEYS}[serve]\nmax_body_mb = 1\n"), []).await;
    let length = 8 * 1024 * 1024;
    for (path, headers, status) in [
        ("/v1/chat/completions", "authorization: Bearer wrong", "401"),
        ("/v1/nope", "authorization: Bearer sk-of-the-team", "404"),
        ("/v1/chat/completions", "authorization: Bearer sk-of-the-team", "413"),
        ("/v1/chat/completions", "authorization: Bearer sk-of-the-team\r\ncontent-encoding: gzip", "415"),
        ("/v1/chat/completions", "host: evil.example", "403"),
    ] {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (_stopping, stopping) = tokio::sync::watch::channel(false);
        let (gateway, router) = (Arc::clone(&fixture.gateway), fixture.gateway.routers());
        let server = WriteTimeoutStream::new(server, SECOND);
        let pending_write = server.pending_write();
        let conn_info = ConnInfo { loopback: true };
        let serving = tokio::spawn(serve_connection(gateway, (server, pending_write), router, conn_info, stopping));
        let (mut reader, mut writer) = tokio::io::split(client);
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("the server reads");
        writer.write_all(&vec![b' '; length]).await.expect("the server reads the whole body");
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut reader, &mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{path} {headers}");
        serving.abort();
    }
}
