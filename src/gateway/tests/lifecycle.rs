//! Tests of client disconnects, stalled clients, config reloads and body limits.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, DuplexStream},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::gateway::{Workers, listen, phase::Phase};

/// What the server sends within a second.
async fn read_part(client: &mut DuplexStream) -> String {
    let mut buffer = [0; 4096];
    let length = timeout(SECOND, client.read(&mut buffer)).await.map_or(0, |length| length.expect("a connection"));
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

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
async fn client_that_leaves_before_an_answer_in_one_piece_is_sent_is_recorded_as_gone() {
    let reply = || MockResponse::Chunks(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP), (3600 * SECOND, USAGE)]);
    let fixture = TestGateway::new("", [reply(), reply()]).await;
    for stream in [false, true] {
        let buffer = [("x-mmchat-buffer", "1")];
        let request = fixture.post("/v1/chat/completions", &buffer, chat("one", stream));
        assert!(timeout(SECOND / 2, request).await.is_err(), "the usage is awaited");
        let line = fixture.last_log_line();
        assert_eq!((line["class"].as_str(), line["status"].as_u64()), (Some("client-gone"), Some(499)));
        assert_eq!((line["output"].is_u64(), fixture.log_lines.lock().len()), (true, 1 + usize::from(stream)));
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
    assert!(!response.headers().contains_key("x-should-retry"), "the client may send it again");
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
    const WRITE_TIMEOUT: Duration = Duration::from_secs(7);
    let (mut client, serving) = fixture.connect(4096, WRITE_TIMEOUT);
    client.write_all(raw_chat("one", true).as_bytes()).await.expect("the server reads");
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
    let config = format!("{KEYS}[serve]\nmax_body_mb = 1\n");
    let fixture = TestGateway::new(&config, [chunks(&[HELLO, STOP, USAGE, DONE])]).await;
    let length = 8 * 1024 * 1024;
    // Its cost is more than the key may spend.
    let spending = [("authorization", "Bearer sk-of-the-rich")];
    read_text(fixture.post("/v1/chat/completions", &spending, chat("one", true)).await).await;
    for (path, headers, status) in [
        ("/v1/chat/completions", "authorization: Bearer wrong", "401"),
        ("/v1/nope", "authorization: Bearer sk-of-the-team", "404"),
        ("/v1/chat/completions", "authorization: Bearer sk-of-the-team", "413"),
        ("/v1/chat/completions", "authorization: Bearer sk-of-the-team\r\ncontent-encoding: gzip", "415"),
        ("/v1/chat/completions", "host: evil.example", "403"),
        ("/v1/chat/completions", "authorization: Bearer sk-of-the-rich", "429"),
    ] {
        let (client, serving) = fixture.connect(64 * 1024, SECOND);
        let (mut reader, mut writer) = tokio::io::split(client);
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("the server reads");
        writer.write_all(&vec![b' '; length]).await.expect("the server reads the whole body");
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{path} {headers}");
        serving.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_in_flight_when_the_server_ends_get_an_error() {
    let started = MockResponse::Chunks(vec![(NO_DELAY, HELLO), (3600 * SECOND, STOP)]);
    for (reply, stream, status, output) in [
        (MockResponse::NoResponse, false, "HTTP/1.1 503", ""),
        (MockResponse::NoResponse, true, "HTTP/1.1 503", ""),
        (started, true, "HTTP/1.1 200", "Hello"),
    ] {
        let fixture = TestGateway::new("", [reply]).await;
        let (mut client, serving) = fixture.connect(4096, SECOND);
        client.write_all(raw_chat("one", stream).as_bytes()).await.expect("the server reads");
        let mut text = String::new();
        while fixture.upstream_requests().is_empty() || !text.contains(output) {
            text += &read_part(&mut client).await;
        }
        fixture.gateway.phase.enter(Phase::Draining);
        assert!(timeout(SECOND, client.read_u8()).await.is_err(), "the request may finish");
        fixture.gateway.end_requests();
        while let part = read_part(&mut client).await
            && !part.is_empty()
        {
            text += &part;
        }
        assert!(text.starts_with(status), "{text}");
        assert!(text.contains("the server was stopped") && !text.contains("[DONE]"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n"), "an incomplete stream has no regular end: {text}");
        serving.await.expect("the connection task does not panic");
        let line = fixture.last_log_line();
        assert_eq!((line["class"].as_str(), line["status"].as_u64()), (Some("local-limit"), status[9..].parse().ok()));
    }
}

#[tokio::test(start_paused = true)]
async fn transfer_breaks_off_some_time_after_the_error_event() {
    let reply = MockResponse::ChunksThenReset(vec![(NO_DELAY, HELLO)]);
    let fixture = TestGateway::new("", [reply]).await;
    let mut body = fixture.chat("one", true).await.into_body();
    let mut text = String::new();
    while !text.contains("\"error\"") {
        let frame = body.frame().await.expect("an error event").expect("the transfer has not broken off");
        text += &String::from_utf8_lossy(&frame.into_data().expect("data"));
    }
    let event_at = tokio::time::Instant::now();
    assert!(body.frame().await.expect("a break").is_err());
    // A runtime that drops unread data on a reset needs some time to read it.
    assert_eq!(event_at.elapsed(), fixture.gateway.deps.limits.break_delay);
    assert!(!event_at.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn answer_that_only_waits_for_its_usage_is_complete_when_the_server_ends() {
    let reply = MockResponse::Chunks(vec![(NO_DELAY, HELLO), (NO_DELAY, STOP), (3600 * SECOND, USAGE)]);
    let fixture = TestGateway::new("", [reply]).await;
    let (mut client, _serving) = fixture.connect(4096, SECOND);
    client.write_all(raw_chat("one", true).as_bytes()).await.expect("the server reads");
    let mut text = String::new();
    while !text.contains("stop") {
        text += &read_part(&mut client).await;
    }
    fixture.gateway.phase.enter(Phase::Draining);
    fixture.gateway.end_requests();
    while let part = read_part(&mut client).await
        && !part.is_empty()
    {
        text += &part;
    }
    assert!(text.contains("[DONE]") && text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(fixture.last_log_line()["class"], "ok");
}

#[tokio::test(start_paused = true)]
async fn body_that_is_uploaded_when_the_server_ends_is_rejected() {
    let fixture = TestGateway::new("", []).await;
    let (mut client, _serving) = fixture.connect(4096, SECOND);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    client.write_all(head.as_bytes()).await.expect("the server reads");
    assert_eq!(read_part(&mut client).await, "");
    fixture.gateway.end_requests();
    let text = read_part(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("shutting_down"), "{text}");
}

/// Serves at most `max_connections` on a loopback address until `client` has ended; returns the log.
async fn with_server<F: Future<Output = ()>>(
    config: &str,
    max_connections: usize,
    client: impl FnOnce(SocketAddr) -> F,
) -> String {
    let fixture = TestGateway::new(config, []).await;
    let (listener, address) = listen("127.0.0.1:0").await.expect("a free port");
    let workers = Workers::start(1).expect("threads");
    tokio::select! {
        _ = fixture.gateway.serve(listener, &workers, max_connections, std::future::pending()) => {}
        () = client(address) => {}
    }
    fixture.log_lines.lock().iter().map(Value::to_string).collect()
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("the server accepts")
}

/// Sends a request, and reads the answer.
async fn request_health(socket: &mut TcpStream) -> String {
    socket.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.expect("the server reads");
    let mut answer = [0; 2000];
    let length = socket.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn idle_connections_are_closed_for_new_ones() {
    let log = with_server("", 2, async |address| {
        let (mut first, mut second) = (connect(address).await, connect(address).await);
        assert!(request_health(&mut first).await.starts_with("HTTP/1.1 200"));
        assert!(request_health(&mut second).await.starts_with("HTTP/1.1 200"));
        let mut third = connect(address).await;
        assert!(request_health(&mut third).await.starts_with("HTTP/1.1 200"), "it does not wait for the idle time");
        assert_eq!(first.read(&mut [0]).await.expect("a regular end"), 0);
    })
    .await;
    assert!(log.contains("connection-limit") && log.contains("2 connections are open"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn connection_that_sends_no_request_is_closed_after_the_idle_time() {
    let fixture = TestGateway::new("[serve]\nidle = \"7s\"\n", []).await;
    let (mut client, serving) = fixture.connect(4096, SECOND);
    client.write_all(b"GET /health HTTP/1.1\r\n\r\n").await.expect("the server reads");
    assert!(read_part(&mut client).await.starts_with("HTTP/1.1 200"));
    let idle_since = tokio::time::Instant::now();
    serving.await.expect("the connection task does not panic");
    assert_eq!(idle_since.elapsed(), 7 * SECOND);
}

#[tokio::test]
async fn connections_of_an_address_are_limited() {
    let log = with_server("[serve]\nmax_connections_per_address = 1\n", 99, async |address| {
        let mut first = connect(address).await;
        assert!(request_health(&mut first).await.starts_with("HTTP/1.1 200"));
        assert!(request_health(&mut connect(address).await).await.starts_with("HTTP/1.1 200"), "health is not limited");
        let mut second = connect(address).await;
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n\r\n";
        second.write_all(head.as_bytes()).await.expect("the server reads");
        second.write_all(&vec![b'x'; 4_000_000]).await.expect("the server reads on");
        let mut refused = String::new();
        second.read_to_string(&mut refused).await.expect("the whole answer");
        assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n") && refused.contains("too_many_connections"), "{refused}");
        assert!(refused.contains("connection: close\r\n"), "{refused}");
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(connect(address).await);
        }
        let mut further = connect(address).await;
        let closed = timeout(SECOND, further.read(&mut [0])).await.expect("it is closed at once");
        assert_eq!(closed.unwrap_or_default(), 0, "without an answer");
    })
    .await;
    assert!(log.contains("connection-limit") && log.contains("127.0.0.1 has 1 connection"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn reload_uses_a_rejected_key_again() {
    let complete = || json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}");
    let rejected = MockResponse::Status(401, vec![], "{\"error\":{\"message\":\"invalid api key\"}}");
    let fixture = TestGateway::new("", [rejected, complete(), complete(), complete()]).await;
    let served_by = async || fixture.chat("chat", false).await.headers()["x-mmchat-model"].clone();
    assert_eq!(served_by().await, "two");
    assert_eq!(served_by().await, "two");
    let config = config::resolve(CONFIG, Path::new("c.toml")).expect("valid config");
    fixture.gateway.reload(config).await.expect("valid config");
    assert_eq!(served_by().await, "one");
}
