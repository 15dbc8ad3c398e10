//! Interoperability with third-party servers and clients. These tests are ignored; `scripts/interop` installs the
//! software and runs them.

mod chaos;
mod clients;
mod servers;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::common::{CommandResult, TestEnv};
use servers::{InteropServer, aimock, litellm, llama, scripts_dir};

const HELLO: &str = "Hello there, wörld! 你好 👋";

/// Writes a config with an endpoint for each server, with the valid key, and an endpoint `bad-NAME` with an invalid
/// key.
fn configure(env: &TestEnv, servers: &[(&str, &InteropServer)], more: &str) {
    let endpoint = |name: &str, key: &str, server: &InteropServer| {
        format!("[endpoints.{name}]\nbase_url = \"{}\"\napi_key = \"{key}\"\n", server.url)
    };
    let both = servers.iter().flat_map(|(name, server)| {
        [endpoint(name, "sk-good", server), endpoint(&format!("bad-{name}"), "sk-wrong-key", server)]
    });
    let config: String = both.collect();
    env.write_config(&(config + more));
}

fn ask_json(env: &TestEnv, model: &str, more: &[&str], prompt: &str) -> CommandResult {
    let mut arguments = vec!["ask", "--format", "json", "-m", model];
    arguments.extend_from_slice(more);
    arguments.push(prompt);
    env.run(&arguments)
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn llama_cpp() {
    let env = TestEnv::new();
    let hello = llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]);
    let think = ["--say", "<think> six times seven </think> The answer is 42", "--think-template"];
    let think = llama(&env, "think.gguf", &think);
    let count = llama(&env, "count.gguf", &["--count", "600", "--ctx", "2048"]);
    configure(&env, &[("hello", &hello), ("think", &think), ("count", &count)], "");

    for more in [&[][..], &["--no-stream"]] {
        let answer = ask_json(&env, "hello/tiny", more, "hi").expect_exit(0).json();
        assert_eq!(answer["content"], "Hello from a tiny llama . wörld 👋", "{answer}");
        assert_eq!((&answer["finish_reason"], &answer["usage"]["estimated"]), (&"stop".into(), &false.into()));
        assert!(answer["usage"]["output"].as_u64() > Some(10), "{answer}");
        let reasoned = ask_json(&env, "think/tiny", more, "hi").expect_exit(0).json();
        assert_eq!(reasoned["reasoning"].as_str().map(str::trim), Some("six times seven"), "{reasoned}");
        assert_eq!(reasoned["content"].as_str().map(str::trim), Some("The answer is 42"), "{reasoned}");
    }
    ask_json(&env, "bad-hello/tiny", &[], "hi").expect_exit(4).expect_stderr(&["auth 401", "Invalid API Key"]);
    // In single-model mode the server accepts any name and reports the one that it served.
    assert!(ask_json(&env, "hello/no-such", &[], "hi").expect_exit(0).json()["served_model"].is_string());
    let long = env.run_with_input(&["ask", "-m", "hello/tiny"], "word ".repeat(9000).as_bytes()).expect_exit(5);
    long.expect_stderr(&["context 400", "exceeds the available context"]);
    let short = ask_json(&env, "count/tiny", &["--max-tokens", "5"], "hi")
        .expect_exit(0)
        .expect_stderr(&["token limit"])
        .json();
    assert_eq!((&short["finish_reason"], &short["truncated"]), (&"length".into(), &true.into()));
    let counted = env.run(&["ask", "-m", "count/tiny", "hi"]).expect_exit(0);
    let numbers: Vec<String> = (1..=600).map(|n: u32| n.to_string()).collect();
    assert_eq!(counted.stdout.split_whitespace().collect::<Vec<_>>(), numbers);
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn aimock_errors_have_the_expected_classes() {
    let env = TestEnv::new();
    let server = aimock();
    configure(&env, &[("aimock", &server)], "[routes.chat]\nmodels = [\"bad-aimock/gpt-4o\", \"aimock/gpt-4o\"]\n");
    let ask = |prompt: &str, more: &[&str]| ask_json(&env, "aimock/gpt-4o", more, prompt);

    for more in [&[][..], &["--no-stream"]] {
        let answer = ask("hello", more).expect_exit(0).json();
        assert_eq!((&answer["content"], &answer["finish_reason"]), (&HELLO.into(), &"stop".into()));
        assert_eq!((&answer["usage"]["input"], &answer["usage"]["output"]), (&11.into(), &7.into()));
        let reasoned = ask_json(&env, "aimock/deepseek-reasoner", more, "think").expect_exit(0).json();
        assert_eq!(
            (&reasoned["reasoning"], &reasoned["content"]),
            (&"Six times seven.".into(), &"The answer is 42.".into())
        );
        ask("toolong", more).expect_exit(0).expect_stderr(&["token limit"]);
        ask("weather", more).expect_exit(0).expect_stderr(&["get_weather"]);
    }
    ask("boom", &[]).expect_exit(5).expect_stderr(&["server 500", "The server had an error"]);
    ask("ctx", &[]).expect_exit(5).expect_stderr(&["context 400", "maximum context length"]);
    let incomplete = ask("cutoff", &[]).expect_exit(8).expect_stderr(&["incomplete"]).json();
    assert!(incomplete["content"].as_str().is_some_and(|text| text.starts_with("this ")), "{incomplete}");
    // 429 with Retry-After: 2, then an answer: the request waits that long, and up to a fifth more, because there is no
    // other candidate.
    let retried = ask("ratelimit", &[]).expect_exit(0).expect_stderr(&["retrying in 2."]).json();
    assert_eq!(retried["content"], "ok after retry");
    assert_eq!(retried["attempts"][0]["class"], "rate");
    ask_json(&env, "bad-aimock/gpt-4o", &[], "hello").expect_exit(4).expect_stderr(&["auth 401"]);
    // The rejected key is unavailable until it is reset: the route skips its candidate.
    let skipped = ask_json(&env, "chat", &[], "hello").expect_exit(0).json();
    assert_eq!(skipped["attempts"].as_array().map(Vec::len), Some(1), "{skipped}");
    env.run(&["reset", "chat"]).expect_exit(0);
    let second =
        ask_json(&env, "chat", &[], "hello").expect_exit(0).expect_stderr(&["auth", "trying aimock/gpt-4o"]).json();
    assert_eq!(second["content"], HELLO);
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn litellm_in_front_of_aimock() {
    let env = TestEnv::new();
    let upstream = aimock();
    let server = litellm(&env, &upstream);
    let routes = "[routes.chat]\nmodels = [\"litellm/mock-429\", \"litellm/mock-500\", \"aimock/gpt-4o\"]\n";
    configure(&env, &[("litellm", &server), ("aimock", &upstream)], routes);
    let ask = |model: &str, more: &[&str], prompt: &str| ask_json(&env, &format!("litellm/{model}"), more, prompt);

    for more in [&[][..], &["--no-stream"]] {
        assert_eq!(ask("mock-ok", more, "hello").expect_exit(0).json()["content"], HELLO);
        // LiteLLM translates these to and from four wire formats.
        for model in ["up-openai", "up-deepseek", "up-claude", "up-gemini"] {
            let answer = ask(model, more, "hello").expect_exit(0).json();
            assert_eq!((&answer["content"], &answer["finish_reason"]), (&HELLO.into(), &"stop".into()), "{model}");
            assert_eq!(answer["usage"]["input"], 11, "{model}: {answer}");
        }
    }
    let reasoned = ask("mock-think", &[], "hello").expect_exit(0).json();
    assert_eq!((&reasoned["content"], &reasoned["reasoning"]), (&"42".into(), &"six times seven".into()));
    assert_eq!(ask("mock-fallback", &[], "hello").expect_exit(0).json()["content"], HELLO);
    assert_eq!(ask("mock-delay", &[], "hello").expect_exit(0).json()["content"], "late");
    ask("mock-429", &[], "hello").expect_exit(5).expect_stderr(&["rate 429", "mock rate limit"]);
    ask("mock-500", &[], "hello").expect_exit(5).expect_stderr(&["server 500"]);
    ask("mock-ctx", &[], "hello").expect_exit(5).expect_stderr(&["context 400"]);
    ask("mock-timeout", &[], "hello").expect_exit(5).expect_stderr(&["gateway-timeout 408"]);
    ask("dead-upstream", &[], "hello").expect_exit(5).expect_stderr(&["server 500", "Connection error"]);
    ask("up-badkey", &[], "hello").expect_exit(4).expect_stderr(&["auth 401"]);
    ask("up-openai", &[], "cutoff").expect_exit(8);
    ask("no-such", &[], "hello").expect_exit(5).expect_stderr(&["model 400", "Invalid model name"]);
    let wrong = ask_json(&env, "bad-litellm/mock-ok", &[], "hello");
    wrong.expect_stderr(&["No connected db", "LiteLLM without a database returns this error for an invalid key"]);
    ask("rpm1", &[], "hello").expect_exit(0);
    // LiteLLM asks for a minute, for which there is no time.
    ask("rpm1", &["--timeout", "20s"], "hello").expect_exit(5).expect_stderr(&["rate 429"]);
    // Reset the health recorded above, so that the route tries all its candidates.
    env.run(&["reset", "chat"]).expect_exit(0);
    let third = ask_json(&env, "chat", &[], "hello").expect_exit(0).json();
    let classes: Vec<_> =
        third["attempts"].as_array().expect("JSON array").iter().map(|a| a["class"].clone()).collect();
    assert_eq!((&third["content"], classes), (&HELLO.into(), vec!["rate".into(), "server".into(), "ok".into()]));
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn compare_and_ping_work_across_all_servers() {
    let env = TestEnv::new();
    let hello = llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]);
    let mut endless = llama(&env, "loop.gguf", &["--say", "never ending story", "--loop"]);
    let upstream = aimock();
    let gateway = litellm(&env, &upstream);
    let models = "[models]\nllama = { endpoint = \"llama\", model = \"tiny\" }\nmock = { endpoint = \"aimock\", model = \"gpt-4o\" }\n\
        gateway = { endpoint = \"litellm\", model = \"mock-ok\" }\nunheard = { endpoint = \"litellm\", model = \"no-such\" }\n";
    let servers = [("llama", &hello), ("aimock", &upstream), ("litellm", &gateway), ("endless", &endless)];
    configure(&env, &servers, models);

    let three = env.run(&["compare", "-m", "llama,mock,gateway", "hello"]).expect_exit(0);
    let want = format!(
        "--- 1 llama  ok\nHello from a tiny llama . wörld 👋\n\n--- 2 mock  ok\n{HELLO}\n\n--- 3 gateway  ok\n{HELLO}\n"
    );
    assert_eq!(three.stdout, want);
    let all = env.run(&["compare", "--all", "--format", "json", "hello"]).expect_exit(7).json();
    let states: Vec<_> =
        all.as_array().expect("JSON array").iter().map(|call| call["error"]["class"].clone()).collect();
    assert_eq!(states, [serde_json::Value::Null, serde_json::Value::Null, serde_json::Value::Null, "model".into()]);

    let pinged = env.run(&["ping", "llama", "mock", "unheard", "bad-llama"]).expect_exit(7);
    let row = |name: &str| pinged.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("llama ").contains("ok") && row("bad-llama ").contains("ERR auth"), "{pinged:?}");
    assert!(row("unheard ").contains("NO"), "{pinged:?}");
    assert!(env.run(&["models", "available", "litellm"]).expect_exit(0).stdout.contains("mock-ok"));

    // One server is killed during its answer: its call is incomplete, the other one is complete.
    let mut command = env.command();
    command.args(["compare", "-m", "endless/tiny,mock", "--format", "jsonl", "hello"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("program starts");
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        let line: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        if line["call"] == 0 && line["content"].is_string() && line["event"] == "delta" {
            let _ = endless.child.kill();
        }
        lines.push(line);
    }
    assert_eq!(child.wait().expect("child has been started").code(), Some(7));
    let end = |call: usize| {
        lines.iter().find(|line| line["event"] == "finished" && line["call"] == call).expect("finished event")
    };
    assert_eq!((&end(0)["error"]["class"], &end(1)["content"]), (&"incomplete".into(), &HELLO.into()));
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn init_flags_create_a_working_config() {
    let env = TestEnv::new();
    let hello = llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]);
    let upstream = aimock();
    let run = |arguments: &[&str]| {
        let mut command = env.command();
        command.env("MMCHAT_CONFIG", env.path("first.toml")).env("GOOD_KEY", "sk-good").args(arguments);
        CommandResult::from_output(command.output().expect("program starts"))
    };
    let (llama, mock) = (format!("llama={}", hello.url), format!("aimock={}", upstream.url));
    run(&[
        "init",
        "--yes",
        "--no-discover",
        "--endpoint",
        &llama,
        "--endpoint",
        &mock,
        "--key-env",
        "llama=GOOD_KEY",
        "--key-env",
        "aimock=GOOD_KEY",
        "--fast",
        "llama/tiny",
        "--strong",
        "aimock/gpt-4o",
        "--no-try",
    ])
    .expect_exit(0)
    .expect_stderr(&["wrote"]);
    assert_eq!(run(&["ask", "hello"]).expect_exit(0).stdout.trim(), "Hello from a tiny llama . wörld 👋");
    let both = run(&["compare", "hello"]).expect_exit(0);
    assert!(both.stdout.contains("tiny llama") && both.stdout.contains(HELLO), "{both:?}");
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn doctor_recognizes_each_server() {
    let env = TestEnv::new();
    let llama = llama(&env, "hello.gguf", &["--say", "Hello from a tiny llama . wörld 👋"]);
    let upstream = aimock();
    let proxy = litellm(&env, &upstream);
    let models = "[models.local]\nendpoint = \"llama\"\nmodel = \"tiny\"\n[models.gateway]\nendpoint = \"proxy\"\nmodel = \"up-openai\"\n";
    configure(&env, &[("llama", &llama), ("proxy", &proxy)], models);
    let detail = |name: &str, what: &str| {
        let found = env.run(&["doctor", name, "--format", "json"]).json();
        let findings = found[0]["findings"].as_array().expect("JSON array").clone();
        let finding = findings.iter().find(|finding| finding["what"] == what);
        finding.map_or_else(
            || panic!("{what}: {found}"),
            |finding| finding["seen"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert!(detail("proxy", "kind").contains("LiteLLM"), "{}", detail("proxy", "kind"));
    assert!(detail("llama", "kind").contains("llama.cpp"), "{}", detail("llama", "kind"));
    assert!(detail("llama", "streaming").contains("chunks"), "{}", detail("llama", "streaming"));
    assert!(detail("llama", "usage").contains("reported"));
    env.run(&["doctor", "bad-llama/tiny"]).expect_stderr(&["bad-llama"]);
}

#[test]
#[ignore = "needs the servers of scripts/interop"]
fn imported_litellm_config_works_without_litellm() {
    let env = TestEnv::new();
    let upstream = aimock();
    let config = fs::read_to_string(scripts_dir().join("litellm.config.yaml")).expect("readable config");
    let config = config.replace("http://127.0.0.1:4010", upstream.url.trim_end_matches("/v1"));
    fs::write(env.path("litellm.yaml"), config).expect("writable file");
    env.write_config("");
    let path = env.path("litellm.yaml").display().to_string();
    let result = env
        .run(&["config", "import", &path])
        .expect_exit(0)
        .expect_stderr(&["added model \"up-openai\"", "mock_response"]);
    assert!(!format!("{result:?}").contains("sk-good"), "{result:#?}");
    env.run(&["config", "check"]).expect_exit(0);
    let answer = ask_json(&env, "up-openai", &[], "hello").expect_exit(0).json();
    assert_eq!((&answer["content"], &answer["finish_reason"]), (&HELLO.into(), &"stop".into()));
}
