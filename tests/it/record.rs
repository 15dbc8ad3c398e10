//! State that persists across commands: the record, health and keys; and the commands that read it.

use std::{fs, path::PathBuf};

use crate::common::{CommandResult, MockProcess, STREAM, ScriptedServer, TestEnv, answer, http_response};
use mmchat::internals::store::record::Database;

/// An environment whose route `chat` tries a closed port first, then the mock.
fn record_env(mock: &MockProcess, more: &str) -> TestEnv {
    TestEnv::with_config(&format!(
        "default = \"chat\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n[endpoints.m]\nbase_url = \"{}\"\n\
         [models.primary]\nendpoint = \"dead\"\nmodel = \"x\"\n\
         [models.backup]\nendpoint = \"m\"\nmodel = \"instant\"\nprice = {{ input = 1, output = 2 }}\n\
         [routes.chat]\nmodels = [\"primary\", \"backup\"]\n{more}",
        mock.url
    ))
}

fn state_path(env: &TestEnv, name: &str) -> PathBuf {
    env.path(".local/state/mmchat").join(name)
}

fn instant_mock() -> MockProcess {
    MockProcess::start(&["--ttft", "0s", "--tps", "0", "--tokens", "9"])
}

/// The number of recorded calls.
fn recorded_calls(env: &TestEnv) -> u64 {
    let rows = env.run(&["stats", "--by", "route", "--format", "json"]).expect_exit(0).json();
    rows.as_array().expect("JSON array").iter().filter_map(|row| row["calls"].as_u64()).sum()
}

#[test]
fn health_persists_across_processes_until_reset() {
    let mock = instant_mock();
    let env = record_env(&mock, "");
    env.run(&["ask", "hello"]).expect_exit(0).expect_stderr(&["primary: connect", "trying backup"]);
    let second = env.run(&["ask", "hello"]).expect_exit(0);
    assert_eq!(second.stderr, "", "skipping an unavailable candidate must print nothing");
    env.run(&["ask", "-v", "hello"]).expect_exit(0).expect_stderr(&["primary: unavailable for", "connect:"]);
    let status = env.run(&["status", "--format", "json"]).expect_exit(0).json();
    let dead = status
        .as_array()
        .expect("JSON array")
        .iter()
        .find(|entry| entry["name"] == "dead")
        .expect("health of the endpoint");
    assert_eq!((dead["state"].as_str(), dead["last_error"]["class"].as_str()), (Some("open"), Some("connect")));
    let explained = env.run(&["route", "explain", "chat", "--format", "json"]).expect_exit(0).json();
    let order: Vec<_> = explained["candidates"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|candidate| candidate["model"].as_str().expect("model name"))
        .collect();
    assert_eq!(order, ["backup", "primary"]);
    env.run(&["reset", "primary"]).expect_exit(0).expect_stderr(&["health entr"]);
    env.run(&["ask", "hello"]).expect_exit(0).expect_stderr(&["trying backup"]);
    env.run(&["reset", "primray"]).expect_exit(2).expect_stderr(&["did you mean \"primary\""]);
    env.run(&["ask", "-m", "m/server", "hello"]).expect_exit(5);
    assert!(env.run(&["status"]).expect_exit(0).stdout.contains("m/server"));
    env.run(&["reset", "m/server"]).expect_exit(0).expect_stderr(&["health entr"]);
    assert_eq!(env.run(&["status"]).expect_exit(0).stdout.matches("m/server").count(), 0);
    env.run(&["reset", "m/never-asked"]).expect_exit(0).expect_stderr(&["nothing to reset"]);
    env.run(&["reset", "--all"]).expect_exit(0);
    assert_eq!(env.run(&["status"]).expect_exit(0).stdout.matches("open").count(), 0);
}

#[test]
fn stats_count_requests_by_model_and_route() {
    let mock = instant_mock();
    let env = record_env(&mock, "");
    env.run(&["ask", "hello"]).expect_exit(0);
    env.run(&["ask", "-m", "m/server", "hello"]).expect_exit(5);
    env.run(&["compare", "-m", "backup,m/rate", "hello"]).expect_exit(7);
    let rows = env.run(&["stats", "--format", "json"]).expect_exit(0).json();
    let row = |name: &str| {
        rows.as_array().expect("JSON array").iter().find(|row| row["model"] == name).expect("row of the model").clone()
    };
    assert_eq!((row("backup")["calls"].as_u64(), row("backup")["success_rate"].as_f64()), (Some(2), Some(1.0)));
    assert_eq!(row("primary")["failures"]["connect"], 2);
    assert_eq!(
        (row("m/server")["failures"]["server"].as_u64(), row("m/rate")["failures"]["rate"].as_u64()),
        (Some(3), Some(2))
    );
    assert!(
        row("backup")["ttft_ms"]["p50"].as_f64().is_some_and(|ms| ms > 0.0)
            && row("backup")["cost"]["USD"].as_f64() > Some(0.0)
    );
    let csv = env.run(&["stats", "backup", "--format", "csv", "--since", "1d"]).expect_exit(0).stdout;
    assert!(csv.lines().count() == 2 && csv.contains("backup,m,2,0,"), "{csv}");
    env.run(&["stats", "--since", "soon"]).expect_exit(2).expect_stderr(&["24h"]);
    env.run(&["stats", "bakcup"]).expect_exit(2).expect_stderr(&["did you mean \"backup\""]);
    env.run(&["stats", "m/never-asked"]).expect_exit(0).expect_stderr(&["no matching records"]);
    let table = env.run(&["stats"]).expect_exit(0);
    assert!(
        table.stdout.contains("TTFT p50") && table.stdout.contains("connect 2") && !table.stdout.contains('\u{1b}')
    );
}

#[test]
fn call_is_recorded_when_stdout_closes() {
    let mock = MockProcess::start(&["--ttft", "0s", "--tps", "200", "--tokens", "2000"]);
    let env = TestEnv::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\n", mock.url));
    let mut command = env.command();
    command.args(["ask", "-m", "m/fast", "hello"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("program starts");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut child.stdout.take().expect("piped"), &mut first).expect("first byte");
    assert!(child.wait().expect("child has been started").success());
    let rows = env.run(&["stats", "--format", "json"]).expect_exit(0).json();
    assert_eq!((rows[0]["calls"].as_u64(), rows[0]["failed"].as_u64()), (Some(1), Some(0)));
    assert!(rows[0]["output_tokens"].as_u64() > Some(0));
}

#[test]
fn sixteen_concurrent_first_runs_are_all_recorded() {
    let mock = instant_mock();
    let env = record_env(&mock, "");
    let children: Vec<_> = (0..16)
        .map(|_| {
            let mut command = env.command();
            command
                .args(["ask", "-m", "backup", "hello"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().expect("program starts")
        })
        .collect();
    for child in children {
        let result =
            CommandResult::from_output(child.wait_with_output().expect("child has been started")).expect_exit(0);
        assert!(result.stdout.contains("scripted mock") && result.stderr.is_empty(), "{result:#?}");
    }
    assert_eq!(
        env.run(&["history", "-n", "99", "--format", "json"]).expect_exit(0).json().as_array().map(Vec::len),
        Some(16)
    );
}

#[test]
fn killed_processes_lose_no_acknowledged_record() {
    let mock = instant_mock();
    let env = record_env(&mock, "");
    let mut acknowledged = 0;
    for round in 0..5 {
        let mut children: Vec<_> = (0..40)
            .map(|number| {
                let mut command = env.command();
                command.args(["ask", "-m", "backup", "hello"]).stdout(std::process::Stdio::null());
                (number, command.spawn().expect("program starts"))
            })
            .collect();
        // Some are killed before they start, some while they run, and some not at all.
        for (number, child) in &mut children {
            if (*number + round) % 3 == 0 {
                child.kill().expect("own child");
            }
        }
        for (_, mut child) in children {
            acknowledged += usize::from(child.wait().expect("child has been started").success());
        }
    }
    let database = Database::open(&state_path(&env, "record.db")).expect("valid database");
    assert!(database.check_integrity().expect("readable database"), "the database is corrupt");
    let stored = database.conversations(9999).expect("readable record").len();
    assert!(acknowledged >= 100 && stored >= acknowledged, "{stored} of {acknowledged} are stored");
}

#[test]
fn unusable_record_database_is_only_a_warning() {
    let mock = instant_mock();
    let expect_answer_with_warning = |env: &TestEnv, words: &[&str]| {
        let result = env.run(&["ask", "-m", "backup", "hello"]).expect_exit(0).expect_stderr(words);
        assert!(result.stdout.contains("scripted mock"), "{result:#?}");
    };
    let env_with_database = |text: &[u8]| {
        let env = record_env(&mock, "");
        fs::create_dir_all(state_path(&env, "")).expect("writable directory");
        fs::write(state_path(&env, "record.db"), text).expect("writable file");
        env
    };
    let corrupt = env_with_database(&b"not a database at all, but longer than its head would be ".repeat(99));
    expect_answer_with_warning(&corrupt, &["warning: record database", "record.db", "move it away"]);
    corrupt.run(&["stats"]).expect_exit(1).expect_stderr(&["move it away"]);
    let newer = env_with_database(b"");
    newer.run(&["ask", "-m", "backup", "hello"]).expect_exit(0);
    Database::open(&state_path(&newer, "record.db"))
        .expect("valid database")
        .set_version_for_tests(99)
        .expect("writable database");
    expect_answer_with_warning(&newer, &["newer mmchat"]);
    let blocked = record_env(&mock, "");
    fs::create_dir_all(blocked.path(".local")).expect("writable directory");
    fs::write(blocked.path(".local/state"), "in the way").expect("writable file");
    expect_answer_with_warning(&blocked, &["warning: cannot open record database"]);
    let invalid = record_env(&mock, "");
    fs::create_dir_all(state_path(&invalid, "")).expect("writable directory");
    fs::write(state_path(&invalid, "health.json"), "{\"entries\": [").expect("writable file");
    invalid.run(&["ask", "hello"]).expect_exit(0).expect_stderr(&["replaced the health file", "health.json"]);
    invalid.run(&["ask", "hello"]).expect_exit(0);
}

#[test]
fn history_can_be_shown_searched_continued_and_deleted() {
    let server = ScriptedServer::with_replies(&[
        &answer("Six times seven is 42."),
        &answer("Because of arithmetic."),
        &answer("Of course \u{1b}]0;evil\u{7}it is."),
    ]);
    let env = TestEnv::with_server(&server, "[models.other]\nendpoint = \"m\"\nmodel = \"y\"\n");
    env.run(&["ask", "-m", "m/x", "-s", "Be brief.", "What is 6 times 7?"]).expect_exit(0);
    env.run(&["ask", "--continue", "And why?"]).expect_exit(0);
    let sent = server.requests()[1].json();
    let texts: Vec<_> = sent["messages"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|message| message["content"].as_str().expect("string"))
        .collect();
    assert_eq!(texts, ["Be brief.", "What is 6 times 7?", "Six times seven is 42.", "And why?"]);
    assert_eq!(sent["model"], "x");
    env.run(&["again", "-m", "other", "1@1"]).expect_exit(0);
    let again = server.requests()[2].json();
    assert_eq!((again["model"].as_str(), again["messages"].as_array().map(Vec::len)), (Some("y"), Some(2)));
    assert_eq!(env.run(&["history", "show", "1@2"]).expect_exit(0).stdout, "Because of arithmetic.\n");
    let page = env.run(&["history", "show", "1"]).expect_exit(0).stdout;
    assert!(page.contains("> What is 6 times 7?") && page.contains("## 1@2: m/x"), "{page}");
    assert_eq!(env.run(&["history", "search", "arithmetic", "--format", "json"]).expect_exit(0).json()[0]["id"], 1);
    assert_eq!(
        env.run(&["history", "export", "--format", "json"]).expect_exit(0).json().as_array().map(Vec::len),
        Some(3)
    );
    assert!(!env.run(&["history"]).expect_exit(0).stdout.contains('\u{1b}'));
    env.run(&["history", "show", "9"]).expect_exit(2).expect_stderr(&["no conversation 9"]);
    env.run(&["ask", "--continue", "9", "x"]).expect_exit(2).expect_stderr(&["no conversation 9"]);
    env.run(&["history", "delete", "1"]).expect_exit(0);
    env.run(&["history", "delete", "--all"]).expect_exit(2).expect_stderr(&["--yes"]);
    env.run(&["history", "delete", "--all", "--yes"]).expect_exit(0).expect_stderr(&["1 answer"]);
    assert_eq!(env.run(&["history"]).expect_exit(0).stdout, "");
}

#[test]
fn incomplete_attempts_count_in_every_reported_cost() {
    let mock = instant_mock();
    let env = record_env(
        &mock,
        "[models.breaks]\nendpoint = \"m\"\nmodel = \"cut\"\nprice = { input = 1000, output = 2000 }\n\
         [routes.again]\nmodels = [\"breaks\", \"backup\"]\non_incomplete = \"restart\"\n",
    );
    let result = env.run(&["ask", "-m", "again", "--format", "json", "--stats", "hello"]).expect_exit(0);
    let cost = result.json()["cost"].as_f64().expect("cost");
    let (models, routes) =
        (env.run(&["stats", "--format", "json"]).json(), env.run(&["stats", "again", "--format", "json"]).json());
    let sum = |rows: &serde_json::Value, of: &dyn Fn(&serde_json::Value) -> f64| -> f64 {
        rows.as_array().expect("JSON array").iter().map(of).sum()
    };
    let usd = |row: &serde_json::Value| row["cost"]["USD"].as_f64().unwrap_or_default();
    let output = |row: &serde_json::Value| row["output_tokens"].as_f64().unwrap_or_default();
    assert!(cost > 0.001, "the incomplete attempt must be expensive: {cost}");
    assert!((sum(&models, &usd) - cost).abs() < 1e-9 && (sum(&routes, &usd) - cost).abs() < 1e-9, "{models} {routes}");
    assert!((sum(&models, &output) - sum(&routes, &output)).abs() < 1e-9, "{models} {routes}");
    assert!(result.stderr.contains(&format!("${cost:.6}")), "{result:#?}");
    // A candidate that breaks off after text, one that breaks off during reasoning, and the latter alone.
    let reasoning = "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hmm, let me think about it\"}}]}";
    let text = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half an answer\"}}]}";
    let [reasoning, text] = [reasoning, text].map(|data| format!("{STREAM}data: {data}\n\n"));
    let server = ScriptedServer::with_replies(&[&text, &reasoning, &reasoning]);
    let other = TestEnv::with_config(&format!(
        "[endpoints.s]\nbase_url = \"{}\"\n[models.one]\nendpoint = \"s\"\nmodel = \"x\"\nprice = {{ input = 1, output = 1000 }}\n\
         [models.two]\nendpoint = \"s\"\nmodel = \"y\"\nprice = {{ input = 1, output = 1000 }}\n\
         [routes.r]\nmodels = [\"one\", \"two\"]\non_incomplete = \"restart\"\n",
        server.url()
    ));
    let reported =
        [&["ask", "-m", "r", "--format", "json", "hello"], &["ask", "-m", "two", "--format", "json", "hello"]]
            .map(|arguments| other.run(arguments).expect_exit(8).json()["cost"].as_f64().expect("cost"));
    let recorded = sum(&other.run(&["stats", "--format", "json"]).json(), &usd);
    assert!((reported[0] + reported[1] - recorded).abs() < 1e-9 && reported[1] > 0.0, "{reported:?} {recorded}");
    let compared = env.run(&["compare", "-m", "again,backup", "--format", "json", "hello"]).expect_exit(0).json();
    assert!((compared[0]["cost"].as_f64().expect("cost") - cost).abs() < 1e-9, "{compared}");
}

#[test]
fn no_log_and_history_false_store_no_content() {
    let error_with_prompt = http_response(
        "500 Oops",
        "content-type: application/json\r\n",
        "{\"error\":{\"message\":\"no: a-secret-question\"}}",
    );
    let (succeeded, failed) = (answer("a-secret-answer"), error_with_prompt.as_str());
    let server =
        ScriptedServer::with_replies(&[&succeeded, &succeeded, failed, failed, failed, failed, failed, failed]);
    let env = TestEnv::with_server(&server, "");
    env.run(&["ask", "--no-log", "-m", "m/x", "a-secret-question"]).expect_exit(0);
    let text = fs::read_to_string(env.path("config.toml")).expect("readable file");
    env.write_config(&format!("history = false\n{text}"));
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).expect_exit(0);
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).expect_exit(5).expect_stderr(&["a-secret-question"]);
    let assert_no_content = |when: &str| {
        for (path, bytes) in env.read_all_files() {
            assert!(!String::from_utf8_lossy(&bytes).contains("a-secret"), "{when}: {}", path.display());
        }
    };
    assert_no_content("after recording");
    assert_eq!(env.run(&["stats", "--format", "json"]).expect_exit(0).json()[0]["calls"], 5);
    env.write_config(&text);
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).expect_exit(5);
    assert!(env.run(&["status"]).expect_exit(0).stdout.contains("a-secret-question"));
    env.run(&["history", "delete", "--all", "--yes"]).expect_exit(0);
    assert!(env.run(&["status"]).expect_exit(0).stdout.contains("server 500"));
    assert_no_content("after deleting");
    env.run(&["ask", "--continue", "more"]).expect_exit(2).expect_stderr(&["no conversation"]);
}

#[test]
fn spend_limit_rejects_before_any_request() {
    let mock = instant_mock();
    let limited = record_env(&mock, "[spend]\nday = 0.00001\n");
    limited.run(&["ask", "-m", "backup", "hello"]).expect_exit(0);
    limited.run(&["ask", "-m", "backup", "hello"]).expect_exit(9).expect_stderr(&[
        "spend limit per day reached",
        "0.00001 USD",
        "[spend]",
    ]);
    // The same price applies to another name of the model. A model without a price is not limited.
    limited.run(&["ask", "-m", "m/instant", "hello"]).expect_exit(9);
    limited.run(&["ask", "-m", "m/instant+tokens=3", "hello"]).expect_exit(0);
    assert_eq!(recorded_calls(&limited), 0, "the route must get no request");
    let free = record_env(&mock, "");
    free.run(&["ask", "-m", "backup", "--max-cost", "0.0000001", "hello"])
        .expect_exit(9)
        .expect_stderr(&["at least", "--max-cost"]);
    let short = free.run(&["ask", "-m", "backup", "--max-cost", "0.00001", "--format", "json", "hello"]).expect_exit(0);
    assert_eq!(short.json()["usage"]["output"], 4, "{short:#?}");
    free.run(&["compare", "-m", "backup,m/instant+tokens=3", "--max-cost", "1", "hello"])
        .expect_exit(0)
        .expect_stderr(&["does not cover m/instant+tokens=3"]);
    free.run(&["ask", "--max-cost", "much", "hello"]).expect_exit(2);
}

/// Puts a secret into every supported source and runs the commands that could print or store it.
#[test]
fn secrets_are_neither_shown_nor_copied() {
    let secrets = [
        "sk-literal-4711",
        "header-4712",
        "sk-env-4713",
        "sk-file-4714",
        "password-4715",
        "query%2F4716",
        "sk-imported-4717",
    ];
    // Servers that repeat the secrets they get, in an error message and a request id.
    let echo_server = |secrets: &[&str]| {
        let body = format!("{{\"error\":{{\"message\":\"refused: {}\"}}}}", secrets.join(" "));
        let headers = format!("content-type: application/json\r\nx-request-id: {}\r\n", secrets[0]);
        ScriptedServer::with_replies(&[http_response("401 Unauthorized", &headers, &body).as_str(); 99])
    };
    let servers = [echo_server(&secrets[..2]), echo_server(&secrets[2..3]), echo_server(&secrets[3..6])];
    let mut env = TestEnv::with_config(&format!(
        "default = \"chat\"\n[endpoints.literal]\nbase_url = \"{}\"\napi_key = \"sk-literal-4711\"\n\
         headers = {{ \"X-Team\" = \"header-4712\" }}\n\
         [endpoints.variable]\nbase_url = \"{}\"\napi_key = {{ env = \"MY_KEY\" }}\n\
         [endpoints.file]\nbase_url = \"{}?key=query%2F4716\"\n\
         [models.a]\nendpoint = \"literal\"\nmodel = \"x\"\n[models.b]\nendpoint = \"variable\"\nmodel = \"x\"\n\
         [models.c]\nendpoint = \"file\"\nmodel = \"x\"\n[routes.chat]\nmodels = [\"a\", \"b\", \"c\"]\n",
        servers[0].url(),
        servers[1].url(),
        servers[2].url().replace("http://", "http://user:password-4715@"),
    ));
    env.variables.push(("MY_KEY", "sk-env-4713"));
    let mut outputs = Vec::new();
    let mut run = |arguments: &[&str], input: &str| {
        let result = env.run_with_input(arguments, input.as_bytes());
        outputs.push(format!("{arguments:?}: {result:#?}"));
    };
    run(&["key", "set", "file"], "sk-file-4714\n");
    std::fs::write(env.path("other.env"), "DEEPSEEK_API_KEY=sk-imported-4717\n").expect("writable file");
    run(&["config", "import", env.path("other.env").to_str().expect("UTF-8 path")], "");
    for arguments in [
        &["ask", "hi"][..],
        &["ask", "-v", "hi"],
        &["ask", "--format", "json", "hi"],
        &["ask", "--format", "jsonl", "hi"],
        &["ask", "--dry-run", "hi"],
        &["compare", "--all", "hi"],
        &["ping"],
        &["ping", "--deep", "--format", "json"],
        &["doctor"],
        &["models", "available", "literal"],
        &["models", "sync", "literal"],
        &["key", "list"],
        &["config", "show"],
        &["config", "check"],
        &["status"],
        &["status", "--format", "json"],
        &["route", "explain", "chat"],
        &["stats"],
        &["history", "export"],
        &["again", "-v"],
    ] {
        run(arguments, "");
        // Close the breakers, so that the next command sends requests again.
        run(&["reset", "--all"], "");
    }
    servers.iter().for_each(ScriptedServer::discard_remaining);
    for secret in secrets {
        let leak = outputs.iter().find(|result| result.contains(secret));
        assert_eq!(leak, None, "{secret} is shown");
    }
    let allowed = ["config.toml", "config.toml.bak", "keys", "other.env"].map(|name| env.path(name));
    for (path, bytes) in env.read_all_files() {
        let text = String::from_utf8_lossy(&bytes);
        if !allowed.iter().any(|allowed| path.starts_with(allowed)) {
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{}", path.display());
        }
    }
}

#[test]
fn key_files_are_stored_beside_the_config_and_never_shown() {
    let refused = http_response(
        "401 Unauthorized",
        "content-type: application/json\r\n",
        "{\"error\":{\"message\":\"bad key\"}}",
    );
    let server = ScriptedServer::with_replies(&[&refused, &answer("Hello"), &answer("Hello")]);
    let env = TestEnv::with_server(&server, "");
    env.run_with_input(&["key", "set", "m"], b"sk-first-secret\n")
        .expect_exit(0)
        .expect_stderr(&["endpoint \"m\" now uses it"]);
    env.run_with_input(&["key", "set", "second", "--endpoint", "m", "--add"], b"sk-second-secret")
        .expect_exit(0)
        .expect_stderr(&["in addition to"]);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(config.contains("{ file = \"keys/m\" }, { file = \"keys/second\" }"), "{config}");
    env.run_with_input(&["key", "set", "m", "--add"], b"sk-third-secret")
        .expect_exit(0)
        .expect_stderr(&["stored key \"m-2\""]);
    assert!(
        fs::read_to_string(env.path("keys/m")).expect("readable file").contains("first"),
        "no key file may be overwritten"
    );
    env.run(&["key", "remove", "m-2", "--everywhere"]).expect_exit(0);
    let result = env.run(&["ask", "-m", "m/x", "--format", "json", "hello"]).expect_exit(0);
    let mut keys: Vec<_> = result.json()["attempts"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|attempt| attempt["key"].as_u64())
        .collect();
    // This server closes its connections. A request on a closed one is sent again with the same key.
    keys.dedup();
    assert!(keys == [Some(0), Some(1)] || keys == [Some(1), Some(0)], "{keys:?}");
    env.run(&["ask", "-m", "m/x", "hello"]).expect_exit(0);
    assert_eq!(
        server.requests()[2].head.lines().find(|line| line.starts_with("authorization")),
        server.requests()[1].head.lines().find(|line| line.starts_with("authorization"))
    );
    let listed = env.run(&["key", "list"]).expect_exit(0);
    assert!(listed.stdout.contains("keys/m") && listed.stdout.contains("ok"), "{listed:#?}");
    env.run(&["key", "remove", "m"]).expect_exit(2).expect_stderr(&["used by endpoint \"m\"", "--everywhere"]);
    env.run(&["key", "remove", "m", "--everywhere"]).expect_exit(0);
    env.run(&["config", "check"]).expect_exit(0);
    env.run_with_input(&["key", "set", "m"], b"two\nlines").expect_exit(2).expect_stderr(&["more than one line"]);
    env.run_with_input(&["key", "set", "../m"], b"sk-x").expect_exit(2);
    for (path, bytes) in env.read_all_files() {
        let text = String::from_utf8_lossy(&bytes);
        let contains_key = text.contains("first-secret") || text.contains("second-secret");
        assert!(!contains_key || path.components().any(|part| part.as_os_str() == "keys"), "{}", path.display());
    }
    for result in [result, listed] {
        assert!(!format!("{result:?}").contains("-secret"), "{result:#?}");
    }
}

#[test]
fn imported_configs_of_other_tools_work() {
    let mock = MockProcess::start(&["--ttft", "0s", "--tps", "0", "--model", "gpt-4o=tokens=3"]);
    let litellm = format!(
        "model_list:\n  - model_name: smart\n    litellm_params: {{model: openai/gpt-4o, api_base: \"{0}\", api_key: sk-litellm-secret}}\n  - model_name: smart\n    litellm_params: {{model: openai/fast, api_base: \"{0}\"}}\n",
        mock.url
    );
    let env = TestEnv::new();
    fs::write(env.path("litellm.yaml"), litellm).expect("writable file");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/import/model_settings.yaml");
    let chatchat = fs::read_to_string(fixture).expect("readable file").replace("http://127.0.0.1:3000/v1", &mock.url);
    fs::write(env.path("model_settings.yaml"), chatchat.replace("chatglm_pro", "instant")).expect("writable file");
    env.write_config("# mine\n");
    let path = |name: &str| env.path(name).display().to_string();
    let dry_run = env
        .run(&["config", "import", &path("litellm.yaml"), "--dry-run"])
        .expect_exit(0)
        .expect_stderr(&["would add", "nothing was written"]);
    assert!(!format!("{dry_run:?}").contains("litellm-secret") && !env.path("keys").exists());
    let result = env
        .run(&["config", "import", &path("litellm.yaml")])
        .expect_exit(0)
        .expect_stderr(&["added route \"smart\"", "1 key file"]);
    assert!(!format!("{result:?}").contains("litellm-secret"));
    env.run(&["config", "import", &path("model_settings.yaml")])
        .expect_exit(0)
        .expect_stderr(&["skipped", "mmchat models sync xinference"]);
    env.run(&["config", "check"]).expect_exit(0);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(config.starts_with("# mine\n") && !config.contains("litellm-secret"), "{config}");
    env.run(&["ask", "-m", "smart", "hello"]).expect_exit(0);
    env.run(&["ask", "-m", "instant", "hello"]).expect_exit(0);
    env.run(&["config", "import", &path("litellm.yaml")])
        .expect_exit(0)
        .expect_stderr(&["already exists", "0 endpoints, 0 models"]);
    fs::write(env.path("other.txt"), "just some words\n").expect("writable file");
    env.run(&["config", "import", &path("other.txt")]).expect_exit(2).expect_stderr(&["has no known format"]);
    env.run(&["config", "import", &path("other.txt"), "--from", "litelm"])
        .expect_exit(2)
        .expect_stderr(&["did you mean \"litellm\""]);
    env.run(&["config", "import", &path("nowhere.yaml")]).expect_exit(2).expect_stderr(&["nowhere.yaml"]);
    assert_eq!(fs::read_to_string(env.path("config.toml")).expect("readable file"), config);
}

#[test]
fn models_sync_adds_entries_and_keeps_existing_ones() {
    let mock = MockProcess::start(&[]);
    let env = TestEnv::with_config(&format!(
        "[endpoints.m]\nbase_url = \"{}\"\n[models.quick] # mine\nendpoint = \"m\"\nmodel = \"fast\"\n[models.gone]\nendpoint = \"m\"\nmodel = \"no-more\"\n",
        mock.url
    ));
    env.run(&["models", "sync", "m", "--filter", "strong", "--dry-run"])
        .expect_exit(0)
        .expect_stderr(&["would add \"strong\"", "model \"gone\" is no longer listed"]);
    env.run(&["models", "sync", "m", "--prefix", "mock-"]).expect_exit(0).expect_stderr(&["added \"mock-strong\""]);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(
        config.contains("[models.quick] # mine")
            && config.contains("[models.mock-strong]")
            && !config.contains("mock-fast")
    );
    env.run(&["models", "sync", "m"]).expect_exit(0).expect_stderr(&["0 new"]);
    env.run(&["models", "sync", "n"]).expect_exit(2);
}

#[test]
fn doctor_reports_a_fix_for_each_failure() {
    let mock = MockProcess::start(&["--key", "sk-right-key", "--ttft", "0s", "--tps", "0"]);
    let root = mock.url.trim_end_matches("/v1").to_owned();
    let env = TestEnv::with_config(&format!(
        "[endpoints.good]\nbase_url = \"{root}/v1\"\napi_key = \"sk-right-key\"\n[endpoints.path]\nbase_url = \"{root}/wrong\"\napi_key = \"sk-right-key\"\n\
         [endpoints.key]\nbase_url = \"{root}/v1\"\napi_key = \"sk-wrong-key\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [models.m]\nendpoint = \"good\"\nmodel = \"instant\"\n",
    ));
    let result = env.run(&["doctor", "good"]).expect_exit(0).expect_stderr(&["nothing to change"]);
    for what in ["reachable", "base_url", "key", "model", "answer", "streaming", "usage", "finish", "clock"] {
        assert!(result.stdout.lines().any(|line| line.contains(what) && line.contains(" ok ")), "{what}: {result:#?}");
    }
    env.run(&["doctor", "path"]).expect_exit(5).expect_stderr(&[&format!("base_url = \"{root}/v1\"")]);
    env.run(&["doctor", "key"]).expect_exit(4).expect_stderr(&["mmchat key set key"]);
    for order in ["\"sk-right-key\", \"sk-wrong-key\"", "\"sk-wrong-key\", \"sk-right-key\""] {
        let several =
            TestEnv::with_config(&format!("[endpoints.several]\nbase_url = \"{root}/v1\"\napi_keys = [{order}]\n"));
        let wrong = if order.starts_with("\"sk-wrong") { "key 1" } else { "key 2" };
        let diagnosed = several.run(&["doctor", "several", "--no-ask"]).expect_exit(4);
        assert!(diagnosed.stdout.contains(&format!("{wrong} of 2: auth 401")), "{diagnosed:#?}");
        assert!(several.run(&["ping"]).expect_exit(4).stdout.contains(&format!("{wrong}: auth 401")));
    }
    env.run(&["doctor", "dead"]).expect_exit(5).expect_stderr(&["check that it is running"]);
    let all = env.run(&["doctor", "--no-ask", "--format", "json"]).expect_exit(7);
    for key in ["sk-right-key", "sk-wrong-key"] {
        assert!(!all.stdout.contains(key) && !all.stderr.contains(key), "{all:#?}");
    }
}
