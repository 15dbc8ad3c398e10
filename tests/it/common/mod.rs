//! Fixtures: a temporary environment that runs the binary, mock servers, and a server that sends scripted bytes.

#![allow(dead_code, reason = "some items are used on Unix only")]
#![allow(missing_docs, reason = "tests")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use mmchat::internals::config::vendors;
use parking_lot::Mutex;

#[cfg(unix)]
pub(crate) mod screen;

/// Config: a failed request is not repeated, which would wait.
pub(crate) const NO_RETRIES: &str = "[retry]\nretries = 0\nfurther_attempts = 0\n";

/// Config entries for these models, each with its own endpoint and server.
pub(crate) fn models_config(models: &[(&str, &ScriptedServer)]) -> String {
    let entry = |(name, server): &(&str, &ScriptedServer)| {
        format!(
            "[endpoints.{name}e]\nbase_url = \"{}\"\n[models.{name}]\nendpoint = \"{name}e\"\nmodel = \"m\"\n",
            server.url()
        )
    };
    models.iter().map(entry).collect()
}

/// A temporary home directory in which the binary runs.
pub(crate) struct TestEnv {
    pub(crate) folder: tempfile::TempDir,
    config: PathBuf,
    /// Environment variables set in addition to those of [`TestEnv::command`].
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl TestEnv {
    /// Creates an environment without a config file.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        let config = folder.path().join("config.toml");
        Self { folder, config, variables: Vec::new() }
    }

    /// Creates an environment with this config.
    pub(crate) fn with_config(text: &str) -> Self {
        let env = Self::new();
        env.write_config(text);
        env
    }

    /// Creates a config with one endpoint `m` at `server`, followed by `more`.
    pub(crate) fn with_server(server: &ScriptedServer, more: &str) -> Self {
        Self::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\n{more}", server.url()))
    }

    /// Creates a config with these models, each with its own endpoint and server.
    pub(crate) fn with_models(models: &[(&str, &ScriptedServer)]) -> Self {
        Self::with_config(&models_config(models))
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(&self.config, text).expect("writable config");
        set_mode(&self.config, 0o600);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with a cleared environment and empty standard input.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmchat"));
        command.env_clear().env("HOME", self.folder.path()).env("COLUMNS", "80").stdin(Stdio::null());
        // `PATH` is needed by key commands, the others by any process on Windows.
        for name in ["PATH", "SystemRoot", "TEMP", "USERPROFILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // Local servers at their default ports must not be detected: nothing listens on port 1.
        for vendor in vendors::all().iter().filter(|vendor| vendor.base_url.starts_with("http://127.0.0.1")) {
            command.env(&vendor.base_url_env[0], "http://127.0.0.1:1/v1");
        }
        command.env("XDG_CONFIG_DIRS", self.folder.path().join("no-system-config"));
        command.envs(self.variables.iter().copied());
        if self.config.exists() {
            command.env("MMCHAT_CONFIG", &self.config);
        } else {
            command.env("XDG_CONFIG_HOME", self.folder.path().join("none"));
        }
        command
    }

    /// Every file below the home directory with its contents.
    pub(crate) fn read_all_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &std::path::Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(folder).expect("readable directory") {
                let path = entry.expect("readable entry").path();
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => walk(&path, out),
                    _ => out.extend(fs::read(&path).ok().map(|bytes| (path, bytes))),
                }
            }
        }
        let mut out = Vec::new();
        walk(self.folder.path(), &mut out);
        out
    }

    /// Runs the binary.
    pub(crate) fn run(&self, arguments: &[&str]) -> CommandResult {
        CommandResult::from_output(self.command().args(arguments).output().expect("binary starts"))
    }

    /// Runs the binary with `input` on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> CommandResult {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A binary that stops reading closes the pipe. The result shows what it did, so the write error is ignored.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("child has been started");
        writer.join().expect("writer thread finishes");
        CommandResult::from_output(output)
    }
}

/// A server process that prints its URL on standard output. It is killed when dropped.
pub(crate) struct ServerProcess {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl ServerProcess {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("program starts");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("URL line");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `mmchat mock` process. It is killed when dropped.
pub(crate) struct MockProcess {
    pub(crate) url: String,
    _process: ServerProcess,
}

impl MockProcess {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let process = ServerProcess::start(TestEnv::new().command().arg("mock").args(arguments).stderr(Stdio::null()));
        Self { url: process.url.clone(), _process: process }
    }
}

/// Output and exit code of a run of the binary.
#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl CommandResult {
    pub(crate) fn from_output(output: Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
            code: output.status.code(),
        }
    }

    /// Checks the exit code; a mismatch shows the whole result.
    #[track_caller]
    pub(crate) fn expect_exit(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Checks that stderr contains each of these texts.
    #[track_caller]
    pub(crate) fn expect_stderr(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "stderr does not contain {text:?}: {self:#?}");
        }
        self
    }

    /// Standard output parsed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

#[cfg(unix)]
pub(crate) fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_: &std::path::Path, _: u32) {}

/// One step of a scripted reply.
pub(crate) enum ServerStep {
    /// Send these bytes.
    Bytes(Vec<u8>),
    /// Send these bytes repeatedly until the client disconnects.
    Repeat(Vec<u8>),
    /// Wait until the test sends a message or drops the sender.
    Gate(mpsc::Receiver<()>),
    /// Keep the connection open until the client disconnects.
    HoldOpen,
}

/// A server that answers each request with the next scripted reply. It stops when dropped, and fails the test if a
/// reply is left over.
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    remaining: Arc<Mutex<std::collections::VecDeque<Vec<ServerStep>>>>,
    stop: Arc<Mutex<bool>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON body")
    }
}

impl ScriptedServer {
    pub(crate) fn start(replies: Vec<Vec<ServerStep>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = listener.local_addr().expect("bound address");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop: Arc<Mutex<bool>> = Arc::default();
        let remaining = Arc::new(Mutex::new(replies.into_iter().collect()));
        let shared = (Arc::clone(&requests), Arc::clone(&remaining), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (requests, remaining, stop) = shared;
            let mut connections = Vec::new();
            for socket in listener.incoming() {
                if *stop.lock() {
                    return;
                }
                let socket = socket.expect("incoming connection");
                let (requests, remaining) = (Arc::clone(&requests), Arc::clone(&remaining));
                connections.push(thread::spawn(move || handle_connection(&socket, &requests, &remaining)));
            }
        });
        Self { address, requests, remaining, stop, thread: Some(thread) }
    }

    /// Starts a server that sends each reply at once.
    pub(crate) fn with_replies(replies: &[&str]) -> Self {
        Self::start(replies.iter().map(|reply| vec![ServerStep::Bytes(reply.as_bytes().to_vec())]).collect())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Discards the remaining replies, for tests that script more than they need.
    pub(crate) fn discard_remaining(&self) {
        self.remaining.lock().clear();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        *self.stop.lock() = true;
        drop(TcpStream::connect(self.address));
        self.thread.take().expect("joined only here").join().expect("server thread finishes");
        if !thread::panicking() {
            let count = self.remaining.lock().len();
            assert_eq!(count, 0, "{count} scripted replies were never requested");
        }
    }
}

fn handle_connection(
    mut socket: &TcpStream,
    requests: &Mutex<Vec<Request>>,
    remaining: &Mutex<std::collections::VecDeque<Vec<ServerStep>>>,
) {
    if let Some(request) = read_request(&mut socket) {
        let is_list = request.head.starts_with("GET");
        requests.lock().push(request);
        let mut remaining = remaining.lock();
        // A model list and an answer may be requested concurrently: each gets the next reply of its kind if there is
        // one.
        let other_kind = if is_list { &b"event-stream"[..] } else { b"\"data\":[" };
        let next = remaining.iter().position(|reply| !first_bytes_contain(reply, other_kind)).unwrap_or(0);
        let reply = remaining.remove(next).unwrap_or_default();
        drop(remaining);
        for step in reply {
            let sent = match step {
                ServerStep::Bytes(bytes) => socket.write_all(&bytes),
                ServerStep::Repeat(bytes) => loop {
                    if let Err(error) = socket.write_all(&bytes) {
                        break Err(error);
                    }
                },
                ServerStep::Gate(gate) => {
                    // An error means that the test has dropped the sender.
                    let _ = gate.recv();
                    Ok(())
                }
                ServerStep::HoldOpen => socket.read(&mut [0; 1]).map(drop),
            };
            if sent.is_err() {
                return;
            }
        }
    }
    // Closing the connection ends the reply, whatever its headers say.
    let _ = socket.shutdown(Shutdown::Write);
    // The client closes the connection after reading everything.
    let _ = socket.read(&mut [0; 1]);
}

/// Whether the first bytes of a reply contain `wanted`.
fn first_bytes_contain(reply: &[ServerStep], wanted: &[u8]) -> bool {
    matches!(reply.first(), Some(ServerStep::Bytes(bytes)) if bytes.windows(wanted.len()).any(|window| window == wanted))
}

fn read_request(socket: &mut &TcpStream) -> Option<Request> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()))
                .map_or(0, |n| n.parse().expect("content length"));
            while bytes.len() < end + 4 + length {
                let count = socket.read(&mut buffer).ok().filter(|&count| count > 0)?;
                bytes.extend_from_slice(&buffer[..count]);
            }
            return Some(Request { head, body: bytes[end + 4..].to_vec() });
        }
        let count = socket.read(&mut buffer).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
}

/// The response head of an event stream that ends when the connection closes.
pub(crate) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// An event with this text as content.
pub(crate) fn content_event(text: &str) -> String {
    let text = serde_json::Value::from(text);
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n")
}

/// The end of a complete stream.
pub(crate) const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A complete stream with this text in one event.
pub(crate) fn answer(text: &str) -> String {
    format!("{STREAM}{}{STOP}", content_event(text))
}

/// A response with a status, headers and a body.
pub(crate) fn http_response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}
