//! What the tests of the binary share: a home of its own in a cleared environment, and a server of raw bytes.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, reason = "tests")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use mmchat::config::vendors;

#[cfg(unix)]
pub(crate) mod screen;

/// What a config says of these models, each at a server of its own.
pub(crate) fn models_of(models: &[(&str, &Server)]) -> String {
    let entry = |(name, server): &(&str, &Server)| {
        format!(
            "[endpoints.{name}e]\nbase_url = \"{}\"\n[models.{name}]\nendpoint = \"{name}e\"\nmodel = \"m\"\n",
            server.url()
        )
    };
    models.iter().map(entry).collect()
}

/// A home folder, and the binary run in it.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    config: PathBuf,
    /// What is set beside a home and a path.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl Home {
    /// A home without a config.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config.toml");
        Self { folder, config, variables: Vec::new() }
    }

    /// A home with this config.
    pub(crate) fn with_config(text: &str) -> Self {
        let home = Self::new();
        home.write_config(text);
        home
    }

    /// A config of one endpoint `m` at `server`, and more text below it.
    pub(crate) fn with_server(server: &Server, more: &str) -> Self {
        Self::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\n{more}", server.url()))
    }

    /// A config of these models, each at a server of its own.
    pub(crate) fn with_models(models: &[(&str, &Server)]) -> Self {
        Self::with_config(&models_of(models))
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(&self.config, text).expect("a config");
        set_mode(&self.config, 0o600);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with nothing of this process's environment; standard input is empty.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmchat"));
        command.env_clear().env("HOME", self.folder.path()).env("COLUMNS", "80").stdin(Stdio::null());
        // What a child needs to start at all: programs for key commands, and Windows' own.
        for name in ["PATH", "SystemRoot", "TEMP", "USERPROFILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // What runs on this machine at the ports servers use by habit is none of a test's business: nobody is at port 1.
        for vendor in vendors::all().iter().filter(|vendor| vendor.base_url.starts_with("http://127.0.0.1")) {
            command.env(&vendor.base_url_env[0], "http://127.0.0.1:1/v1");
        }
        command.envs(self.variables.iter().copied());
        if self.config.exists() {
            command.env("MMCHAT_CONFIG", &self.config);
        } else {
            command.env("XDG_CONFIG_HOME", self.folder.path().join("none"));
        }
        command
    }

    /// Every file below the home with what is in it.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &std::path::Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
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
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command().args(arguments).output().expect("the binary runs"))
    }

    /// Runs the binary with this on standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A binary that reads no more closes its end: what it makes of that is for the test to see.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("the binary ends");
        writer.join().expect("the writer ends");
        Ran::of(output)
    }
}

/// A server that says its address on standard output, and ends with its test.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Serving {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
        let mut url = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut url).expect("its address");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mock server that ends with its test.
pub(crate) struct Mock {
    pub(crate) url: String,
    _serving: Serving,
}

impl Mock {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let serving = Serving::start(Home::new().command().arg("mock").args(arguments).stderr(Stdio::null()));
        Self { url: serving.url.clone(), _serving: serving }
    }
}

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
            code: output.status.code(),
        }
    }

    /// Checks the exit code; shows everything when it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Checks that stderr says each of these.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "stderr does not say {word:?}: {self:#?}");
        }
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

#[cfg(unix)]
pub(crate) fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
}

#[cfg(not(unix))]
pub(crate) fn set_mode(_: &std::path::Path, _: u32) {}

/// One step of a scripted reply.
pub(crate) enum Step {
    /// Send these bytes.
    Bytes(Vec<u8>),
    /// Send these bytes over and over until the client goes.
    Endless(Vec<u8>),
    /// Wait until the test says so.
    Gate(mpsc::Receiver<()>),
    /// Keep the connection open until the client goes.
    Hold,
}

/// A server that answers each request with the next scripted reply, whatever was asked. It ends with the test, and
/// fails it when a reply was never asked for.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    left: Arc<Mutex<std::collections::VecDeque<Vec<Step>>>>,
    stop: Arc<Mutex<bool>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl Server {
    pub(crate) fn start(replies: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let stop: Arc<Mutex<bool>> = Arc::default();
        let left = Arc::new(Mutex::new(replies.into_iter().collect()));
        let shared = (Arc::clone(&requests), Arc::clone(&left), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (requests, left, stop) = shared;
            let mut connections = Vec::new();
            for socket in listener.incoming() {
                if *stop.lock().expect("no poison") {
                    return;
                }
                let socket = socket.expect("a connection");
                let (requests, left) = (Arc::clone(&requests), Arc::clone(&left));
                connections.push(thread::spawn(move || serve(&socket, &requests, &left)));
            }
        });
        Self { address, requests, left, stop, thread: Some(thread) }
    }

    /// A server of whole replies.
    pub(crate) fn replying(replies: &[&str]) -> Self {
        Self::start(replies.iter().map(|reply| vec![Step::Bytes(reply.as_bytes().to_vec())]).collect())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// There were more replies than anybody counted on.
    pub(crate) fn enough(&self) {
        self.left.lock().expect("no poison").clear();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no poison").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.stop.lock().expect("no poison") = true;
        drop(TcpStream::connect(self.address));
        self.thread.take().expect("joined once").join().expect("the server ends");
        if !thread::panicking() {
            let left = self.left.lock().expect("no poison").len();
            assert_eq!(left, 0, "{left} scripted replies were never asked for");
        }
    }
}

fn serve(mut socket: &TcpStream, requests: &Mutex<Vec<Request>>, left: &Mutex<std::collections::VecDeque<Vec<Step>>>) {
    if let Some(request) = read_request(&mut socket) {
        let lists = request.head.starts_with("GET");
        requests.lock().expect("no poison").push(request);
        let mut left = left.lock().expect("no poison");
        // A list and an answer may be asked for at once: each gets the next reply of its kind, where there is one.
        let unfit = if lists { &b"event-stream"[..] } else { b"\"data\":[" };
        let next = left.iter().position(|reply| !begins_with(reply, unfit)).unwrap_or(0);
        let reply = left.remove(next).unwrap_or_default();
        drop(left);
        for step in reply {
            let sent = match step {
                Step::Bytes(bytes) => socket.write_all(&bytes),
                Step::Endless(bytes) => loop {
                    if let Err(error) = socket.write_all(&bytes) {
                        break Err(error);
                    }
                },
                Step::Gate(gate) => {
                    // The test is over when its sender is gone.
                    let _ = gate.recv();
                    Ok(())
                }
                Step::Hold => socket.read(&mut [0; 1]).map(drop),
            };
            if sent.is_err() {
                return;
            }
        }
    }
    // Every reply ends its connection, so that its end is seen whatever its headers say.
    let _ = socket.shutdown(Shutdown::Write);
    // The client closes when it has read everything.
    let _ = socket.read(&mut [0; 1]);
}

/// Whether the first bytes of a reply have this in them.
fn begins_with(reply: &[Step], wanted: &[u8]) -> bool {
    matches!(reply.first(), Some(Step::Bytes(bytes)) if bytes.windows(wanted.len()).any(|piece| piece == wanted))
}

fn read_request(socket: &mut &TcpStream) -> Option<Request> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 65536]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()))
                .map_or(0, |n| n.parse().expect("a length"));
            while bytes.len() < end + 4 + length {
                let count = socket.read(&mut piece).ok().filter(|&count| count > 0)?;
                bytes.extend_from_slice(&piece[..count]);
            }
            return Some(Request { head, body: bytes[end + 4..].to_vec() });
        }
        let count = socket.read(&mut piece).ok().filter(|&count| count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// The head of an event stream that ends with its connection.
pub(crate) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// One event with this text.
pub(crate) fn event(text: &str) -> String {
    let text = serde_json::Value::from(text);
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n")
}

/// The end of a good stream.
pub(crate) const STOP: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// A good stream of one text.
pub(crate) fn answer(text: &str) -> String {
    format!("{STREAM}{}{STOP}", event(text))
}

/// A reply with a status and a body.
pub(crate) fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}
