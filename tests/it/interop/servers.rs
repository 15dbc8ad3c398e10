//! Starts the third-party servers that `scripts/interop` has installed.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::common::TestEnv;

/// The directory into which `scripts/interop` installs the servers.
pub(crate) fn install_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("MMCHAT_INTEROP").expect("run scripts/interop"))
}

pub(crate) fn scripts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop_servers")
}

/// A server process. It is killed when dropped.
pub(crate) struct InteropServer {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Drop for InteropServer {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server and waits for a line with `marker`, which contains its URL unless `url` is given.
pub(crate) fn start(mut command: Command, marker: &'static str, url: Option<String>) -> InteropServer {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("program starts");
    let (sender, lines) = mpsc::channel();
    let streams: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
    for stream in streams {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                // The receiver is gone after the marker. The pipe is still read, so that the server never blocks.
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let mut running = InteropServer { child, url: String::new() };
    let mut output = Vec::new();
    loop {
        let line = lines.recv_timeout(Duration::from_secs(180)).unwrap_or_else(|_| panic!("not ready: {output:#?}"));
        if line.contains(marker) {
            let address = line.split_once("http://").map(|(_, address)| format!("http://{}/v1", address.trim()));
            running.url = url.or(address).expect("URL in the marker line");
            return running;
        }
        output.push(line);
    }
}

pub(crate) fn python() -> Command {
    Command::new(install_dir().join("venv/bin/python"))
}

/// llama.cpp's server with a tiny model that always gives the same answer.
pub(crate) fn llama(env: &TestEnv, name: &str, model: &[&str]) -> InteropServer {
    let file = env.path(name);
    let made = python()
        .arg(scripts_dir().join("tinygguf.py"))
        .arg("--out")
        .arg(&file)
        .args(model)
        .output()
        .expect("program starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut command = python();
    command.arg(scripts_dir().join("xl_serve.py")).arg(&file).args(["0", "sk-good"]);
    start(command, "listening http://", None)
}

pub(crate) fn aimock() -> InteropServer {
    let mut command = Command::new("node");
    command.arg(install_dir().join("node_modules/@copilotkit/aimock/dist/cli.js"));
    command.args(["-p", "0", "-f"]).arg(scripts_dir().join("aimock.fixtures.json")).arg("--strict");
    command.env("AIMOCK_API_KEYS", "sk-good");
    start(command, "listening on ", None)
}

/// LiteLLM's proxy, with `upstream` behind some of its models.
pub(crate) fn litellm(env: &TestEnv, upstream: &InteropServer) -> InteropServer {
    let config = fs::read_to_string(scripts_dir().join("litellm.config.yaml")).expect("readable config");
    let address = upstream.url.trim_end_matches("/v1");
    let path = env.path("litellm.yaml");
    fs::write(&path, config.replace("http://127.0.0.1:4010", address)).expect("writable config");
    let port = TcpListener::bind("127.0.0.1:0").expect("free port").local_addr().expect("bound address").port();
    let mut command = Command::new(install_dir().join("venv/bin/litellm"));
    command.arg("--config").arg(&path).args([
        "--host",
        "127.0.0.1",
        "--telemetry",
        "False",
        "--port",
        &port.to_string(),
    ]);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_TELEMETRY", "False");
    start(command, "Uvicorn running on", Some(format!("http://127.0.0.1:{port}/v1")))
}
