//! Third-party clients of `mmchat serve`: each script in `tests/interop_clients` runs checks with a client and prints a
//! line for each.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    common::{MockProcess, ServerProcess, TestEnv},
    interop::servers::{InteropServer, aimock, install_dir, litellm, llama, python},
};

/// Starts the gateway.
fn start_gateway(env: &TestEnv) -> ServerProcess {
    let log = std::fs::File::create(env.path("serve.log")).expect("writable log file");
    ServerProcess::start(env.command().arg("serve").stderr(log))
}

/// The gateway's config. Models: `mock` and `embed` are aimock, `badkey` is aimock with an invalid key, `tiny` and
/// `count` are llama.cpp, `gateway` is LiteLLM. The route `route` tries a closed port, then `tiny`.
fn gateway_config(
    aimock: &InteropServer,
    hello: &InteropServer,
    count: &InteropServer,
    litellm: Option<&InteropServer>,
) -> String {
    let endpoint =
        |name: &str, key: &str, url: &str| format!("[endpoints.{name}]\nbase_url = \"{url}\"\napi_key = \"{key}\"\n");
    let model = |name: &str, endpoint: &str, id: &str| {
        format!("[models.{name}]\nendpoint = \"{endpoint}\"\nmodel = \"{id}\"\n")
    };
    let proxy =
        litellm.map(|litellm| endpoint("litellm", "sk-good", &litellm.url) + &model("gateway", "litellm", "up-openai"));
    [
        endpoint("aimock", "sk-good", &aimock.url),
        endpoint("refused", "sk-wrong-key", &aimock.url),
        endpoint("hello", "sk-good", &hello.url),
        endpoint("count", "sk-good", &count.url),
        endpoint("dead", "sk-good", "http://127.0.0.1:1/v1"),
        model("mock", "aimock", "gpt-4o"),
        model("embed", "aimock", "text-embedding-3-small"),
        model("badkey", "refused", "gpt-4o"),
        model("tiny", "hello", "hello"),
        model("count", "count", "count"),
        model("gone", "dead", "x"),
        proxy.unwrap_or_default(),
        "[routes.route]\nmodels = [\"gone\", \"tiny\"]\n".into(),
        "[serve]\nlisten = \"127.0.0.1:0\"\n[serve.keys.clients]\napi_key = \"sk-of-the-clients\"\n".into(),
    ]
    .concat()
}

pub(super) fn scripts_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop_clients")
}

/// Copies a script to where Node finds the packages: it searches in the directories above the script.
pub(super) fn copy_node_script(name: &str) -> PathBuf {
    let script = install_dir().join(name);
    std::fs::copy(scripts_dir().join(name), &script).expect("writable copy");
    script
}

/// Runs a client's checks and prints their table.
#[expect(clippy::print_stdout, reason = "the table is the result of the test")]
pub(super) fn run_checks(mut command: Command, env: &TestEnv) {
    command.env("HOME", env.folder.path()).env("OPENAI_LOG", "").env_remove("OPENAI_API_KEY");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let result = command.output().expect("program starts");
    let (out, err) = (String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    println!("{out}");
    assert!(result.status.success(), "{out}\n{err}");
    assert!(out.contains("| ok |"), "no check ran: {out}\n{err}");
}

#[test]
#[ignore = "needs the servers and clients of scripts/interop"]
fn openai_sdks_work() {
    let env = TestEnv::new();
    let mock = aimock();
    let hello = llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]);
    let count = llama(&env, "count.gguf", &["--count", "1500", "--ctx", "4096"]);
    env.write_config(&gateway_config(&mock, &hello, &count, None));
    let serving = start_gateway(&env);
    let mut sdk = python();
    sdk.arg(scripts_dir().join("openai_sdk.py")).arg(&serving.url);
    run_checks(sdk, &env);
    let mut node = Command::new("node");
    node.arg(copy_node_script("openai_sdk.mjs")).arg(&serving.url);
    run_checks(node, &env);
}

#[test]
#[ignore = "needs the servers and clients of scripts/interop"]
fn outage_is_visible_in_metrics_but_not_to_the_client() {
    let second = MockProcess::start(&["--tokens", "20", "--tps", "400", "--ttft", "5ms"]);
    let port = TcpListener::bind("127.0.0.1:0").expect("free port").local_addr().expect("bound address").port();
    let model = |name: &str, url: &str| {
        format!(
            "[endpoints.{name}]\nbase_url = \"{url}\"\n[models.{name}]\nendpoint = \"{name}\"\nmodel = \"fast\"\n\
             price = {{ input = 1.0, output = 2.0 }}\n"
        )
    };
    let env = TestEnv::with_config(
        &[
            model("first", &format!("http://127.0.0.1:{port}/v1")),
            model("second", &second.url),
            "[routes.chat]\nmodels = [\"first\", \"second\"]\n".into(),
            "[serve]\nlisten = \"127.0.0.1:0\"\n[serve.keys.clients]\napi_key = \"sk-of-the-clients\"\n".into(),
        ]
        .concat(),
    );
    let serving = start_gateway(&env);
    let mut command = python();
    command.arg(scripts_dir().join("outage.py")).args([&serving.url, env!("CARGO_BIN_EXE_mmchat"), &port.to_string()]);
    command.arg(env.path("serve.log")).env("MMCHAT_CONFIG", env.path("config.toml"));
    for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    run_checks(command, &env);
}

#[test]
#[ignore = "needs the servers and clients of scripts/interop"]
fn langchain_chatchat_works() {
    let env = TestEnv::new();
    let (mock, hello) = (aimock(), llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]));
    env.write_config(&gateway_config(&mock, &hello, &hello, None));
    let serving = start_gateway(&env);
    let mut command = Command::new(install_dir().join("chatchat/bin/python"));
    command.arg(scripts_dir().join("calls_of_chatchat.py")).arg(&serving.url);
    run_checks(command, &env);
}

#[test]
#[ignore = "needs the servers and clients of scripts/interop"]
fn command_line_tools_work() {
    let env = TestEnv::new();
    let (mock, hello) = (aimock(), llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]));
    let litellm = litellm(&env, &mock);
    env.write_config(&gateway_config(&mock, &hello, &hello, Some(&litellm)));
    let serving = start_gateway(&env);
    let mut command = python();
    command.arg(scripts_dir().join("tools.py")).arg(&serving.url).arg(install_dir());
    run_checks(command, &env);
}
