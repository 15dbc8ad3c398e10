//! `serve` through the binary: startup, signals, config reload and malformed requests.
//!
//! Responses are tested in `src/gateway/tests`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use crate::common::{
    CommandResult, MockProcess, STREAM, ScriptedServer, ServerProcess, ServerStep, TestEnv, answer, content_event,
};
use serde_json::Value;

/// A `serve` process and its log.
struct GatewayProcess {
    process: ServerProcess,
    log_lines: Receiver<Value>,
}

impl GatewayProcess {
    fn start(env: &TestEnv) -> Self {
        Self::spawn(env.command())
    }

    fn spawn(mut command: Command) -> Self {
        command.args(["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
        let mut process = ServerProcess::start(&mut command);
        let (sender, log_lines) = channel();
        let stderr = BufReader::new(process.child.stderr.take().expect("piped"));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                // The test may have ended.
                let _ = sender.send(event);
            }
        });
        let mut gateway = Self { process, log_lines };
        gateway.wait_for_event("listening");
        gateway
    }

    /// Waits for a log line with this event.
    fn wait_for_event(&mut self, event: &str) -> Value {
        self.wait_for_line(|line| line["event"] == event)
    }

    fn wait_for_line(&mut self, matches: impl Fn(&Value) -> bool) -> Value {
        loop {
            // Only a failing test waits that long.
            let line = self.log_lines.recv_timeout(Duration::from_secs(30)).expect("matching log line");
            if matches(&line) {
                return line;
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.process.url.split("//").nth(1).expect("URL").trim_end_matches("/v1").parse().expect("socket address")
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.child.id().to_string()]).status();
        assert!(status.expect("kill starts").success());
    }

    /// Waits for the process to exit.
    fn wait_for_exit(&mut self) -> Option<i32> {
        self.process.child.wait().expect("own child").code()
    }

    /// Sends these bytes, closes the sending side if `shut_down`, and reads everything until the server closes.
    fn send(&self, bytes: &[u8], shut_down: bool) -> String {
        let mut socket = TcpStream::connect(self.address()).expect("listening server");
        // The server may close the connection before it has read everything.
        let _ = socket.write_all(bytes);
        if shut_down {
            let _ = socket.shutdown(Shutdown::Write);
        }
        let mut reply = Vec::new();
        let _ = socket.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn ask(&self, key: Option<&str>, model: &str) -> String {
        self.send_and_read(&chat_request(key, model))
    }

    /// Sends this text and reads until the server closes.
    fn send_and_read(&self, bytes: &str) -> String {
        let mut socket = TcpStream::connect(self.address()).expect("listening server");
        socket.write_all(bytes.as_bytes()).expect("open connection");
        let mut reply = String::new();
        socket.read_to_string(&mut reply).expect("UTF-8 response");
        reply
    }

    fn get(&self, path: &str) -> String {
        self.send_and_read(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }
}

fn chat_request(key: Option<&str>, model: &str) -> String {
    request_with_fields(key, &format!("\"model\":\"{model}\""))
}

fn stream_request(model: &str) -> String {
    request_with_fields(None, &format!("\"stream\":true,\"model\":\"{model}\""))
}

fn request_with_fields(key: Option<&str>, fields: &str) -> String {
    let body = format!("{{{fields},\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}");
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}content-length: {length}\r\n\r\n{body}"
    )
}

/// An environment with this mock, whose route tries a closed port first.
fn gateway_env(mock: &MockProcess) -> TestEnv {
    TestEnv::with_config(&gateway_config(mock, ""))
}

fn gateway_config(mock: &MockProcess, more: &str) -> String {
    format!(
        "[endpoints.m]\nbase_url = \"{}\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [models.fast]\nendpoint = \"m\"\nmodel = \"instant\"\nprice = {{ input = 1.0, output = 2.0 }}\n\
         [models.gone]\nendpoint = \"dead\"\nmodel = \"x\"\n[routes.chat]\nmodels = [\"gone\", \"fast\"]\n{more}",
        mock.url
    )
}

#[expect(clippy::float_cmp, clippy::cast_precision_loss, reason = "counts")]
#[test]
fn log_metrics_and_record_agree() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let env = TestEnv::with_config(&gateway_config(&mock, "[serve.keys.team]\napi_key = \"sk-of-the-team\"\n"));
    let mut gateway = GatewayProcess::start(&env);
    for _ in 0..3 {
        let reply = gateway.ask(Some("sk-of-the-team"), "chat");
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("x-mmchat-model: fast"), "{reply}");
    }
    assert!(gateway.ask(None, "chat").starts_with("HTTP/1.1 401"));
    let get =
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-of-the-team\r\nconnection: close\r\n\r\n";
    let metrics = gateway.send_and_read(get);
    let metric = |start: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let logged: Vec<Value> = (0..3)
        .map(|_| gateway.wait_for_line(|line| line["path"] == "/v1/chat/completions" && line["status"] == 200))
        .collect();
    gateway.signal("-TERM");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    let stats = |by: &str, name: &str| {
        let rows = env.run(&["stats", "--by", by, "--format", "json"]).expect_exit(0).json();
        let rows = rows.as_array().expect("JSON array").clone();
        rows.into_iter().find(|row| row[by] == name).unwrap_or_else(|| panic!("no {name} by {by}"))
    };
    let (route, key, model) = (stats("route", "chat"), stats("key", "team"), stats("model", "fast"));
    let tokens: f64 = logged.iter().filter_map(|line| line["output"].as_f64()).sum();
    let cost: f64 = logged.iter().filter_map(|line| line["cost"].as_f64()).sum();
    assert!(tokens > 0.0 && cost > 0.0, "{logged:?}");
    for row in [&route, &key] {
        assert_eq!((row["calls"].as_f64(), row["output_tokens"].as_f64()), (Some(3.0), Some(tokens)), "{row}");
        assert!((row["cost"]["USD"].as_f64().expect("cost") - cost).abs() < 1e-9, "{row}");
    }
    assert_eq!(metric("mmchat_requests_total{name=\"chat\",key=\"team\",class=\"ok\"}"), 3.0);
    assert_eq!(
        metric("mmchat_attempts_total{endpoint=\"m\",model=\"fast\""),
        model["calls"].as_f64().expect("number of calls")
    );
    assert_eq!(metric("mmchat_tokens_total{endpoint=\"m\",model=\"fast\",direction=\"output\"}"), tokens);
    assert!((metric("mmchat_cost_total") - cost).abs() < 1e-9);
    let attempts: usize = logged.iter().filter_map(|line| Some(line["attempts"].as_array()?.len())).sum();
    assert_eq!(metric("mmchat_attempts_total"), attempts as f64);
}

#[test]
fn valid_config_is_reloaded_and_an_invalid_one_is_ignored() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let env = gateway_env(&mock);
    let mut gateway = GatewayProcess::start(&env);
    env.write_config(&gateway_config(&mock, "[routes.new]\nmodels = [\"fast\"]\n"));
    gateway.wait_for_event("reloaded");
    assert!(gateway.ask(None, "new").starts_with("HTTP/1.1 200"));
    env.write_config(&gateway_config(&mock, "[routes.worse]\nmodels = [\"fsat\"]\n"));
    let error = gateway.wait_for_event("reload-refused")["message"].as_str().expect("message text").to_owned();
    assert!(error.contains("config.toml:15:") && error.contains("fsat"), "{error}");
    assert!(gateway.ask(None, "new").starts_with("HTTP/1.1 200"));
    fs::remove_file(env.path("config.toml")).expect("existing file");
    gateway.wait_for_event("reload-refused");
    env.write_config(&gateway_config(&mock, ""));
    gateway.wait_for_event("reloaded");
    gateway.signal("-HUP");
    gateway.wait_for_event("reloaded");
    assert!(gateway.ask(None, "new").starts_with("HTTP/1.1 404"));
    assert!(gateway.get("/metrics").contains("mmchat_reloads_total{result=\"ok\"} 3"));
}

#[test]
fn half_written_config_is_not_used() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let limited = |models: &str| {
        gateway_config(&mock, &format!("[serve.keys.team]\napi_key = \"sk-of-the-team\"\nmetrics = true\n{models}"))
    };
    let env = TestEnv::with_config(&limited("models = [\"chat\"]\n"));
    let mut gateway = GatewayProcess::start(&env);
    // Without its last line, the file is valid, and the client may use every model.
    env.write_config(&limited(""));
    env.write_config(&limited("models = [\"gone\"]\n"));
    gateway.wait_for_event("reloaded");
    assert!(gateway.ask(Some("sk-of-the-team"), "chat").starts_with("HTTP/1.1 403"));
    assert!(gateway.ask(Some("sk-of-the-team"), "fast").starts_with("HTTP/1.1 403"));
    let head =
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-of-the-team\r\nconnection: close\r\n\r\n";
    let metrics = gateway.send_and_read(head);
    assert!(metrics.contains("mmchat_reloads_total{result=\"ok\"} 1"), "only the last file was used: {metrics}");
}

#[test]
fn deleted_config_keeps_the_client_keys() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let env = TestEnv::new();
    let folder = env.path("xdg/mmchat");
    fs::create_dir_all(&folder).expect("writable directory");
    let path = folder.join("config.toml");
    fs::write(&path, gateway_config(&mock, "[serve.keys.team]\napi_key = \"sk-of-the-team\"\n"))
        .expect("writable file");
    let mut command = env.command();
    command.env("XDG_CONFIG_HOME", env.path("xdg"));
    let mut gateway = GatewayProcess::spawn(command);
    fs::remove_file(&path).expect("existing file");
    assert!(
        gateway.wait_for_event("reload-refused")["message"]
            .as_str()
            .expect("message text")
            .contains("no longer exists")
    );
    assert!(gateway.ask(None, "fast").starts_with("HTTP/1.1 401"));
}

#[test]
fn sigterm_waits_for_requests_in_flight() {
    let (open, gate) = channel();
    let response = answer("all of it");
    let split = response.len() - 20;
    let steps = vec![
        ServerStep::Bytes(response.as_bytes()[..split].to_vec()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(response.as_bytes()[split..].to_vec()),
    ];
    let upstream = ScriptedServer::start(vec![steps]);
    let env = TestEnv::with_server(&upstream, "");
    let mut gateway = GatewayProcess::start(&env);
    let mut socket = TcpStream::connect(gateway.address()).expect("listening server");
    socket.write_all(stream_request("m/x").as_bytes()).expect("open connection");
    let mut start = [0; 15];
    socket.read_exact(&mut start).expect("start of the response");
    gateway.signal("-TERM");
    gateway.wait_for_event("stopping");
    open.send(()).expect("server waits at the gate");
    let mut rest = String::new();
    socket.read_to_string(&mut rest).expect("UTF-8 response");
    assert!(rest.contains("all of it") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    assert!(TcpStream::connect(gateway.address()).is_err());
}

#[test]
fn incomplete_stream_is_aborted_after_its_error_event() {
    let partial = format!("{STREAM}{}", content_event("half"));
    let upstream = ScriptedServer::with_replies(&[&partial, &answer("whole")]);
    let gateway = GatewayProcess::start(&TestEnv::with_server(&upstream, ""));
    let reply = gateway.send_and_read(&stream_request("m/x"));
    assert!(reply.contains("half") && reply.contains("\"code\":\"incomplete\""), "{reply}");
    assert!(!reply.ends_with("0\r\n\r\n") && !reply.contains("[DONE]"), "{reply}");
    let reply = gateway.send_and_read(&stream_request("m/x"));
    assert!(reply.contains("whole") && reply.ends_with("0\r\n\r\n"), "{reply}");
}

#[test]
fn second_signal_aborts_requests_in_flight() {
    let upstream = ScriptedServer::start(vec![vec![ServerStep::HoldOpen]]);
    let env = TestEnv::with_server(&upstream, "");
    let mut gateway = GatewayProcess::start(&env);
    let mut socket = TcpStream::connect(gateway.address()).expect("listening server");
    socket.write_all(chat_request(None, "m/x").as_bytes()).expect("open connection");
    while upstream.requests().is_empty() {
        thread::yield_now();
    }
    gateway.signal("-INT");
    gateway.wait_for_event("stopping");
    gateway.signal("-INT");
    assert_eq!(gateway.wait_for_exit(), Some(0));
    drop(socket);
}

#[test]
fn invalid_settings_are_rejected_at_startup() {
    let mock = MockProcess::start(&[]);
    let env = gateway_env(&mock);
    let taken = TcpListener::bind("127.0.0.1:0").expect("free port");
    let address = taken.local_addr().expect("bound address").to_string();
    env.run(&["serve", "--listen", &address]).expect_exit(1).expect_stderr(&[&address, "in use"]);
    env.run(&["serve", "--listen", "0.0.0.0:0"]).expect_exit(3).expect_stderr(&["other machines", "serve.keys"]);
    env.run(&["serve", "--listen", "nonsense"]).expect_exit(1).expect_stderr(&["nonsense"]);
    env.run(&["serve", "--check", "--listen", "127.0.0.1:0"])
        .expect_exit(0)
        .expect_stderr(&["ok:", "2 models, 1 route"]);
    env.write_config(&gateway_config(&mock, "[serve.keys.x]\napi_key = { env = \"NOT_SET\" }\n"));
    env.run(&["serve", "--check", "--listen", "127.0.0.1:0"])
        .expect_exit(3)
        .expect_stderr(&["serve.keys.x", "NOT_SET"]);
    env.write_config(&gateway_config(&mock, "[serve]\nlisten = \"here\"\ncert = \"x.pem\"\n[serve.keys.\"a b\"]\napi_key = \"sk-very-secret\"\nmodels = [\"fsat\"]\n"));
    let result = env.run(&["serve", "--check"]).expect_exit(3).expect_stderr(&[
        "not an address",
        "set together",
        "cannot contain ' '",
        "fsat",
    ]);
    assert!(!result.stderr.contains("very-secret"), "{}", result.stderr);
}

#[test]
fn malformed_requests_do_not_affect_other_clients() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let env = TestEnv::with_config(&gateway_config(&mock, "[serve]\nmax_body_mb = 1\n"));
    let gateway = GatewayProcess::start(&env);
    let post = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n";
    let status = |reply: String| reply.lines().next().unwrap_or_default().to_owned();
    for (bytes, want) in [
        (format!("{post}{}\r\n", "x-a: b\r\n".repeat(200)), "431"),
        (format!("{post}x-a: {}\r\n\r\n", "b".repeat(1 << 20)), "431"),
        (format!("{post}content-length: 99999999999\r\n\r\n{{"), "413"),
        (format!("{post}content-length: nonsense\r\n\r\n{{"), "400"),
        (format!("{post}content-length: 100\r\n\r\n{{\"model\""), ""),
        (format!("{post}transfer-encoding: chunked\r\n\r\n100000000\r\n{}", " ".repeat(2 << 20)), "413"),
        ("\u{16}\u{3}\u{1} this is no HTTP\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_owned(), "403"),
        ("GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), "403"),
    ] {
        let status_line = status(gateway.send(bytes.as_bytes(), want.is_empty()));
        // After an incomplete body there may be no response, but never a 200.
        assert!(
            status_line.contains(want) && (!want.is_empty() || !status_line.contains("200")),
            "{want} and not {status_line:?} for {bytes:.80}"
        );
        assert!(gateway.ask(None, "fast").starts_with("HTTP/1.1 200"));
    }
    // An incomplete body is counted, whether or not a response was received.
    assert!(gateway.get("/metrics").contains("class=\"incomplete_body\""));
    // Idle connections do not keep other clients out.
    let idle: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(gateway.address()).ok()).collect();
    assert_eq!(idle.len(), 200);
    assert!(gateway.ask(None, "fast").starts_with("HTTP/1.1 200"));
}

#[test]
fn https_is_served_with_the_configured_certificate() {
    let mock = MockProcess::start(&["--tokens", "5"]);
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
    let (cert, key) = (fixture("localhost.pem"), fixture("localhost.key.pem"));
    let tls = format!("[serve]\ncert = '{}'\nkey = '{}'\n", cert.display(), key.display());
    let gateway = GatewayProcess::start(&TestEnv::with_config(&gateway_config(&mock, &tls)));
    let base_url = gateway.process.url.replace("127.0.0.1", "localhost");
    let client =
        TestEnv::with_config(&format!("[endpoints.g]\nbase_url = \"{base_url}\"\nca_file = '{}'\n", cert.display()));
    let result: CommandResult = client.run(&["ask", "-m", "g/chat", "hi"]).expect_exit(0);
    assert!(result.stdout.contains("scripted"), "{}", result.stdout);
    // A client without TLS gets no response and does not affect other clients.
    assert!(!gateway.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", true).contains("200"));
    client.run(&["ask", "-m", "g/chat", "hi"]).expect_exit(0);
}
