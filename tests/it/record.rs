//! State that persists across commands: the record, health and keys; and the commands that read it.

use std::{fs, path::PathBuf};

use crate::common::{Home, Mock, Ran, STREAM, Server, answer, reply};
use mmchat::store::record::Database;

/// An environment whose route `chat` tries a closed port first, then the mock.
fn home(mock: &Mock, more: &str) -> Home {
    Home::with_config(&format!(
        "default = \"chat\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n[endpoints.m]\nbase_url = \"{}\"\n\
         [models.primary]\nendpoint = \"dead\"\nmodel = \"x\"\n\
         [models.backup]\nendpoint = \"m\"\nmodel = \"instant\"\nprice = {{ input = 1, output = 2 }}\n\
         [routes.chat]\nmodels = [\"primary\", \"backup\"]\n{more}",
        mock.url
    ))
}

fn state(env: &Home, name: &str) -> PathBuf {
    env.path(".local/state/mmchat").join(name)
}

fn instant() -> Mock {
    Mock::start(&["--ttft", "0s", "--tps", "0", "--tokens", "9"])
}

/// The number of recorded calls.
fn calls(env: &Home) -> u64 {
    let rows = env.run(&["stats", "--by", "route", "--format", "json"]).exits(0).json();
    rows.as_array().expect("JSON array").iter().filter_map(|row| row["calls"].as_u64()).sum()
}

#[test]
fn health_persists_across_processes_until_reset() {
    let mock = instant();
    let env = home(&mock, "");
    env.run(&["ask", "hello"]).exits(0).says(&["primary: connect", "trying backup"]);
    let second = env.run(&["ask", "hello"]).exits(0);
    assert_eq!(second.err, "", "skipping an unavailable candidate must print nothing");
    env.run(&["ask", "-v", "hello"]).exits(0).says(&["primary: unavailable for", "connect:"]);
    let status = env.run(&["status", "--format", "json"]).exits(0).json();
    let dead = status
        .as_array()
        .expect("JSON array")
        .iter()
        .find(|entry| entry["name"] == "dead")
        .expect("health of the endpoint");
    assert_eq!((dead["state"].as_str(), dead["last_error"]["class"].as_str()), (Some("open"), Some("connect")));
    let explained = env.run(&["route", "explain", "chat", "--format", "json"]).exits(0).json();
    let order: Vec<_> = explained["candidates"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|candidate| candidate["model"].as_str().expect("model name"))
        .collect();
    assert_eq!(order, ["backup", "primary"]);
    env.run(&["reset", "primary"]).exits(0).says(&["health record(s)"]);
    env.run(&["ask", "hello"]).exits(0).says(&["trying backup"]);
    env.run(&["reset", "primray"]).exits(2).says(&["did you mean \"primary\""]);
    env.run(&["ask", "-m", "m/server", "hello"]).exits(5);
    assert!(env.run(&["status"]).exits(0).out.contains("m/server"));
    env.run(&["reset", "m/server"]).exits(0).says(&["health record(s)"]);
    assert_eq!(env.run(&["status"]).exits(0).out.matches("m/server").count(), 0);
    env.run(&["reset", "m/never-asked"]).exits(0).says(&["nothing to reset"]);
    env.run(&["reset", "--all"]).exits(0);
    assert_eq!(env.run(&["status"]).exits(0).out.matches("open").count(), 0);
}

#[test]
fn stats_count_requests_by_model_and_route() {
    let mock = instant();
    let env = home(&mock, "");
    env.run(&["ask", "hello"]).exits(0);
    env.run(&["ask", "-m", "m/server", "hello"]).exits(5);
    env.run(&["compare", "-m", "backup,m/rate", "hello"]).exits(7);
    let rows = env.run(&["stats", "--format", "json"]).exits(0).json();
    let row = |name: &str| {
        rows.as_array().expect("JSON array").iter().find(|row| row["model"] == name).expect("row of the model").clone()
    };
    assert_eq!((row("backup")["calls"].as_u64(), row("backup")["success_rate"].as_f64()), (Some(2), Some(1.0)));
    assert_eq!(row("primary")["failures"]["connect"], 2);
    assert_eq!(
        (row("m/server")["failures"]["server"].as_u64(), row("m/rate")["failures"]["rate"].as_u64()),
        (Some(2), Some(2))
    );
    assert!(
        row("backup")["ttft_ms"]["p50"].as_f64().is_some_and(|ms| ms > 0.0)
            && row("backup")["cost"]["USD"].as_f64() > Some(0.0)
    );
    let csv = env.run(&["stats", "backup", "--format", "csv", "--since", "1d"]).exits(0).out;
    assert!(csv.lines().count() == 2 && csv.contains("backup,m,2,0,"), "{csv}");
    env.run(&["stats", "--since", "soon"]).exits(2).says(&["24h"]);
    env.run(&["stats", "bakcup"]).exits(2).says(&["did you mean \"backup\""]);
    env.run(&["stats", "m/never-asked"]).exits(0).says(&["no matching records"]);
    let table = env.run(&["stats"]).exits(0);
    assert!(table.out.contains("TTFT p50") && table.out.contains("connect 2") && !table.out.contains('\u{1b}'));
}

#[test]
fn call_is_recorded_when_stdout_closes() {
    let mock = Mock::start(&["--ttft", "0s", "--tps", "200", "--tokens", "2000"]);
    let env = Home::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\n", mock.url));
    let mut command = env.command();
    command.args(["ask", "-m", "m/fast", "hello"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("program starts");
    let mut first = [0; 1];
    std::io::Read::read_exact(&mut child.stdout.take().expect("piped"), &mut first).expect("first byte");
    assert!(child.wait().expect("child has been started").success());
    let rows = env.run(&["stats", "--format", "json"]).exits(0).json();
    assert_eq!((rows[0]["calls"].as_u64(), rows[0]["failed"].as_u64()), (Some(1), Some(0)));
    assert!(rows[0]["output_tokens"].as_u64() > Some(0));
}

#[test]
fn sixteen_concurrent_first_runs_are_all_recorded() {
    let mock = instant();
    let env = home(&mock, "");
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
        let result = Ran::of(child.wait_with_output().expect("child has been started")).exits(0);
        assert!(result.out.contains("scripted mock") && result.err.is_empty(), "{result:#?}");
    }
    assert_eq!(
        env.run(&["history", "-n", "99", "--format", "json"]).exits(0).json().as_array().map(Vec::len),
        Some(16)
    );
}

#[test]
fn killed_processes_lose_no_acknowledged_record() {
    let mock = instant();
    let env = home(&mock, "");
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
    let database = Database::open(&state(&env, "record.db")).expect("valid database");
    assert!(database.check_integrity().expect("readable database"), "the database is corrupt");
    let stored = database.conversations(9999).expect("readable record").len();
    assert!(acknowledged >= 100 && stored >= acknowledged, "{stored} of {acknowledged} are stored");
}

#[test]
fn unusable_record_database_is_only_a_warning() {
    let mock = instant();
    let answers_with = |env: &Home, words: &[&str]| {
        let result = env.run(&["ask", "-m", "backup", "hello"]).exits(0).says(words);
        assert!(result.out.contains("scripted mock"), "{result:#?}");
    };
    let database = |text: &[u8]| {
        let env = home(&mock, "");
        fs::create_dir_all(state(&env, "")).expect("writable directory");
        fs::write(state(&env, "record.db"), text).expect("writable file");
        env
    };
    let broken = database(&b"not a database at all, but longer than its head would be ".repeat(99));
    answers_with(&broken, &["warning: record database", "record.db", "move it away"]);
    broken.run(&["stats"]).exits(1).says(&["move it away"]);
    let newer = database(b"");
    newer.run(&["ask", "-m", "backup", "hello"]).exits(0);
    Database::open(&state(&newer, "record.db"))
        .expect("valid database")
        .set_version_for_tests(99)
        .expect("writable database");
    answers_with(&newer, &["newer mmchat"]);
    let file = home(&mock, "");
    fs::create_dir_all(file.path(".local")).expect("writable directory");
    fs::write(file.path(".local/state"), "in the way").expect("writable file");
    answers_with(&file, &["warning: cannot open record database"]);
    let invalid = home(&mock, "");
    fs::create_dir_all(state(&invalid, "")).expect("writable directory");
    fs::write(state(&invalid, "health.json"), "{\"places\": [").expect("writable file");
    invalid.run(&["ask", "hello"]).exits(0).says(&["reset invalid health file", "health.json"]);
    invalid.run(&["ask", "hello"]).exits(0);
}

#[test]
fn history_can_be_shown_searched_continued_and_deleted() {
    let server = Server::replying(&[
        &answer("Six times seven is 42."),
        &answer("Because of arithmetic."),
        &answer("Of course \u{1b}]0;evil\u{7}it is."),
    ]);
    let env = Home::with_server(&server, "[models.other]\nendpoint = \"m\"\nmodel = \"y\"\n");
    env.run(&["ask", "-m", "m/x", "-s", "Be brief.", "What is 6 times 7?"]).exits(0);
    env.run(&["ask", "--continue", "And why?"]).exits(0);
    let sent = server.requests()[1].json();
    let texts: Vec<_> = sent["messages"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|message| message["content"].as_str().expect("string"))
        .collect();
    assert_eq!(texts, ["Be brief.", "What is 6 times 7?", "Six times seven is 42.", "And why?"]);
    assert_eq!(sent["model"], "x");
    env.run(&["again", "-m", "other", "1@1"]).exits(0);
    let again = server.requests()[2].json();
    assert_eq!((again["model"].as_str(), again["messages"].as_array().map(Vec::len)), (Some("y"), Some(2)));
    assert_eq!(env.run(&["history", "show", "1@2"]).exits(0).out, "Because of arithmetic.\n");
    let page = env.run(&["history", "show", "1"]).exits(0).out;
    assert!(page.contains("> What is 6 times 7?") && page.contains("## 1@2: m/x"), "{page}");
    assert_eq!(env.run(&["history", "search", "arithmetic", "--format", "json"]).exits(0).json()[0]["id"], 1);
    assert_eq!(env.run(&["history", "export", "--format", "json"]).exits(0).json().as_array().map(Vec::len), Some(3));
    assert!(!env.run(&["history"]).exits(0).out.contains('\u{1b}'));
    env.run(&["history", "show", "9"]).exits(2).says(&["no conversation 9"]);
    env.run(&["ask", "--continue", "9", "x"]).exits(2).says(&["no conversation 9"]);
    env.run(&["history", "delete", "1"]).exits(0);
    env.run(&["history", "delete", "--all"]).exits(2).says(&["--yes"]);
    env.run(&["history", "delete", "--all", "--yes"]).exits(0).says(&["1 answer"]);
    assert_eq!(env.run(&["history"]).exits(0).out, "");
}

#[test]
fn incomplete_attempts_count_in_every_reported_cost() {
    let mock = instant();
    let env = home(
        &mock,
        "[models.breaks]\nendpoint = \"m\"\nmodel = \"cut\"\nprice = { input = 1000, output = 2000 }\n\
         [routes.again]\nmodels = [\"breaks\", \"backup\"]\non_cut = \"restart\"\n",
    );
    let result = env.run(&["ask", "-m", "again", "--format", "json", "--stats", "hello"]).exits(0);
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
    assert!(result.err.contains(&format!("${cost:.6}")), "{result:#?}");
    // A candidate that breaks off after text, one that breaks off during reasoning, and the latter alone.
    let reasoning = "{\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hmm, let me think about it\"}}]}";
    let text = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"half an answer\"}}]}";
    let [reasoning, text] = [reasoning, text].map(|data| format!("{STREAM}data: {data}\n\n"));
    let server = Server::replying(&[&text, &reasoning, &reasoning]);
    let other = Home::with_config(&format!(
        "[endpoints.s]\nbase_url = \"{}\"\n[models.one]\nendpoint = \"s\"\nmodel = \"x\"\nprice = {{ input = 1, output = 1000 }}\n\
         [models.two]\nendpoint = \"s\"\nmodel = \"y\"\nprice = {{ input = 1, output = 1000 }}\n\
         [routes.r]\nmodels = [\"one\", \"two\"]\non_cut = \"restart\"\n",
        server.url()
    ));
    let reported =
        [&["ask", "-m", "r", "--format", "json", "hello"], &["ask", "-m", "two", "--format", "json", "hello"]]
            .map(|arguments| other.run(arguments).exits(8).json()["cost"].as_f64().expect("cost"));
    let recorded = sum(&other.run(&["stats", "--format", "json"]).json(), &usd);
    assert!((reported[0] + reported[1] - recorded).abs() < 1e-9 && reported[1] > 0.0, "{reported:?} {recorded}");
    let compared = env.run(&["compare", "-m", "again,backup", "--format", "json", "hello"]).exits(0).json();
    assert!((compared[0]["cost"].as_f64().expect("cost") - cost).abs() < 1e-9, "{compared}");
}

#[test]
fn no_log_and_history_false_store_no_content() {
    let quoting =
        reply("500 Oops", "content-type: application/json\r\n", "{\"error\":{\"message\":\"no: a-secret-question\"}}");
    let (succeeded, failed) = (answer("a-secret-answer"), quoting.as_str());
    let server = Server::replying(&[&succeeded, &succeeded, failed, failed, failed, failed]);
    let env = Home::with_server(&server, "");
    env.run(&["ask", "--no-log", "-m", "m/x", "a-secret-question"]).exits(0);
    let text = fs::read_to_string(env.path("config.toml")).expect("readable file");
    env.write_config(&format!("history = false\n{text}"));
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).exits(0);
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).exits(5).says(&["a-secret-question"]);
    let assert_no_content = |when: &str| {
        for (path, bytes) in env.files() {
            assert!(!String::from_utf8_lossy(&bytes).contains("a-secret"), "{when}: {}", path.display());
        }
    };
    assert_no_content("after recording");
    assert_eq!(env.run(&["stats", "--format", "json"]).exits(0).json()[0]["calls"], 4);
    env.write_config(&text);
    env.run(&["ask", "-m", "m/x", "a-secret-question"]).exits(5);
    assert!(env.run(&["status"]).exits(0).out.contains("a-secret-question"));
    env.run(&["history", "delete", "--all", "--yes"]).exits(0);
    assert!(env.run(&["status"]).exits(0).out.contains("server 500"));
    assert_no_content("after deleting");
    env.run(&["ask", "--continue", "more"]).exits(2).says(&["no conversation"]);
}

#[test]
fn spend_limit_rejects_before_any_request() {
    let mock = instant();
    let limited = home(&mock, "[spend]\nday = 0.00001\n");
    limited.run(&["ask", "-m", "backup", "hello"]).exits(0);
    limited.run(&["ask", "-m", "backup", "hello"]).exits(9).says(&[
        "spend limit per day reached",
        "0.00001 USD",
        "[spend]",
    ]);
    // The same price applies to another name of the model. A model without a price is not limited.
    limited.run(&["ask", "-m", "m/instant", "hello"]).exits(9);
    limited.run(&["ask", "-m", "m/instant+tokens=3", "hello"]).exits(0);
    assert_eq!(calls(&limited), 0, "the route must get no request");
    let free = home(&mock, "");
    free.run(&["ask", "-m", "backup", "--max-cost", "0.0000001", "hello"]).exits(9).says(&["at least", "--max-cost"]);
    let short = free.run(&["ask", "-m", "backup", "--max-cost", "0.00001", "--format", "json", "hello"]).exits(0);
    assert_eq!(short.json()["usage"]["output"], 4, "{short:#?}");
    free.run(&["compare", "-m", "backup,m/instant+tokens=3", "--max-cost", "1", "hello"])
        .exits(0)
        .says(&["does not cover m/instant+tokens=3"]);
    free.run(&["ask", "--max-cost", "much", "hello"]).exits(2);
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
    let echoing = |secrets: &[&str]| {
        let body = format!("{{\"error\":{{\"message\":\"refused: {}\"}}}}", secrets.join(" "));
        let headers = format!("content-type: application/json\r\nx-request-id: {}\r\n", secrets[0]);
        Server::replying(&[reply("401 Unauthorized", &headers, &body).as_str(); 99])
    };
    let servers = [echoing(&secrets[..2]), echoing(&secrets[2..3]), echoing(&secrets[3..6])];
    let mut env = Home::with_config(&format!(
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
    servers.iter().for_each(Server::enough);
    for secret in secrets {
        let shown = outputs.iter().find(|result| result.contains(secret));
        assert_eq!(shown, None, "{secret} is shown");
    }
    let allowed = ["config.toml", "config.toml.bak", "keys", "other.env"].map(|name| env.path(name));
    for (path, bytes) in env.files() {
        let text = String::from_utf8_lossy(&bytes);
        if !allowed.iter().any(|allowed| path.starts_with(allowed)) {
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{}", path.display());
        }
    }
}

#[test]
fn key_files_are_stored_beside_the_config_and_never_shown() {
    let refused =
        reply("401 Unauthorized", "content-type: application/json\r\n", "{\"error\":{\"message\":\"bad key\"}}");
    let server = Server::replying(&[&refused, &answer("Hello"), &answer("Hello")]);
    let env = Home::with_server(&server, "");
    env.run_with_input(&["key", "set", "m"], b"sk-first-secret\n").exits(0).says(&["endpoint m now uses it"]);
    env.run_with_input(&["key", "set", "second", "--endpoint", "m", "--add"], b"sk-second-secret")
        .exits(0)
        .says(&["in addition to"]);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(config.contains("{ file = \"keys/m\" }, { file = \"keys/second\" }"), "{config}");
    env.run_with_input(&["key", "set", "m", "--add"], b"sk-third-secret").exits(0).says(&["stored key m-2"]);
    assert!(
        fs::read_to_string(env.path("keys/m")).expect("readable file").contains("first"),
        "no key file may be overwritten"
    );
    env.run(&["key", "remove", "m-2", "--everywhere"]).exits(0);
    let result = env.run(&["ask", "-m", "m/x", "--format", "json", "hello"]).exits(0);
    let mut keys: Vec<_> = result.json()["attempts"]
        .as_array()
        .expect("JSON array")
        .iter()
        .map(|attempt| attempt["key"].as_u64())
        .collect();
    // This server closes its connections. A request on a closed one is sent again with the same key.
    keys.dedup();
    assert!(keys == [Some(0), Some(1)] || keys == [Some(1), Some(0)], "{keys:?}");
    env.run(&["ask", "-m", "m/x", "hello"]).exits(0);
    assert_eq!(
        server.requests()[2].head.lines().find(|line| line.starts_with("authorization")),
        server.requests()[1].head.lines().find(|line| line.starts_with("authorization"))
    );
    let listed = env.run(&["key", "list"]).exits(0);
    assert!(listed.out.contains("keys/m") && listed.out.contains("ok"), "{listed:#?}");
    env.run(&["key", "remove", "m"]).exits(2).says(&["used by m", "--everywhere"]);
    env.run(&["key", "remove", "m", "--everywhere"]).exits(0);
    env.run(&["config", "check"]).exits(0);
    env.run_with_input(&["key", "set", "m"], b"two\nlines").exits(2).says(&["one line"]);
    env.run_with_input(&["key", "set", "../m"], b"sk-x").exits(2);
    for (path, bytes) in env.files() {
        let text = String::from_utf8_lossy(&bytes);
        let holds = text.contains("first-secret") || text.contains("second-secret");
        assert!(!holds || path.components().any(|part| part.as_os_str() == "keys"), "{}", path.display());
    }
    for result in [result, listed] {
        assert!(!format!("{result:?}").contains("-secret"), "{result:#?}");
    }
}

#[test]
fn imported_configs_of_other_tools_work() {
    let mock = Mock::start(&["--ttft", "0s", "--tps", "0", "--model", "gpt-4o=tokens=3"]);
    let litellm = format!(
        "model_list:\n  - model_name: smart\n    litellm_params: {{model: openai/gpt-4o, api_base: \"{0}\", api_key: sk-litellm-secret}}\n  - model_name: smart\n    litellm_params: {{model: openai/fast, api_base: \"{0}\"}}\n",
        mock.url
    );
    let env = Home::new();
    fs::write(env.path("litellm.yaml"), litellm).expect("writable file");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/import/model_settings.yaml");
    let chatchat = fs::read_to_string(fixture).expect("readable file").replace("http://127.0.0.1:3000/v1", &mock.url);
    fs::write(env.path("model_settings.yaml"), chatchat.replace("chatglm_pro", "instant")).expect("writable file");
    env.write_config("# mine\n");
    let path = |name: &str| env.path(name).display().to_string();
    let dry = env
        .run(&["config", "import", &path("litellm.yaml"), "--dry-run"])
        .exits(0)
        .says(&["would add", "nothing was written"]);
    assert!(!format!("{dry:?}").contains("litellm-secret") && !env.path("keys").exists());
    let result =
        env.run(&["config", "import", &path("litellm.yaml")]).exits(0).says(&["added route smart", "1 key file"]);
    assert!(!format!("{result:?}").contains("litellm-secret"));
    env.run(&["config", "import", &path("model_settings.yaml")])
        .exits(0)
        .says(&["skipped", "mmchat models sync xinference"]);
    env.run(&["config", "check"]).exits(0);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(config.starts_with("# mine\n") && !config.contains("litellm-secret"), "{config}");
    env.run(&["ask", "-m", "smart", "hello"]).exits(0);
    env.run(&["ask", "-m", "instant", "hello"]).exits(0);
    env.run(&["config", "import", &path("litellm.yaml")])
        .exits(0)
        .says(&["already exists", "0 endpoint(s), 0 model(s)"]);
    fs::write(env.path("other.txt"), "just some words\n").expect("writable file");
    env.run(&["config", "import", &path("other.txt")]).exits(2).says(&["has no known format"]);
    env.run(&["config", "import", &path("other.txt"), "--from", "litelm"]).exits(2).says(&["did you mean \"litellm\""]);
    env.run(&["config", "import", &path("nowhere.yaml")]).exits(2).says(&["nowhere.yaml"]);
    assert_eq!(fs::read_to_string(env.path("config.toml")).expect("readable file"), config);
}

#[test]
fn models_sync_adds_entries_and_keeps_existing_ones() {
    let mock = Mock::start(&[]);
    let env = Home::with_config(&format!(
        "[endpoints.m]\nbase_url = \"{}\"\n[models.quick] # mine\nendpoint = \"m\"\nmodel = \"fast\"\n[models.gone]\nendpoint = \"m\"\nmodel = \"no-more\"\n",
        mock.url
    ));
    env.run(&["models", "sync", "m", "--filter", "strong", "--dry-run"])
        .exits(0)
        .says(&["would add strong", "gone is no longer listed"]);
    env.run(&["models", "sync", "m", "--prefix", "mock-"]).exits(0).says(&["added mock-strong"]);
    let config = fs::read_to_string(env.path("config.toml")).expect("readable file");
    assert!(
        config.contains("[models.quick] # mine")
            && config.contains("[models.mock-strong]")
            && !config.contains("mock-fast")
    );
    env.run(&["models", "sync", "m"]).exits(0).says(&["0 new"]);
    env.run(&["models", "sync", "n"]).exits(2);
}

#[test]
fn doctor_reports_a_fix_for_each_failure() {
    let mock = Mock::start(&["--key", "sk-right-key", "--ttft", "0s", "--tps", "0"]);
    let root = mock.url.trim_end_matches("/v1").to_owned();
    let env = Home::with_config(&format!(
        "[endpoints.good]\nbase_url = \"{root}/v1\"\napi_key = \"sk-right-key\"\n[endpoints.path]\nbase_url = \"{root}/wrong\"\napi_key = \"sk-right-key\"\n\
         [endpoints.key]\nbase_url = \"{root}/v1\"\napi_key = \"sk-wrong-key\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [models.m]\nendpoint = \"good\"\nmodel = \"instant\"\n",
    ));
    let result = env.run(&["doctor", "good"]).exits(0).says(&["nothing to change"]);
    for what in ["reachable", "base_url", "key", "model", "answer", "streaming", "usage", "finish", "clock"] {
        assert!(result.out.lines().any(|line| line.contains(what) && line.contains(" ok ")), "{what}: {result:#?}");
    }
    env.run(&["doctor", "path"]).exits(5).says(&[&format!("base_url = \"{root}/v1\"")]);
    env.run(&["doctor", "key"]).exits(4).says(&["mmchat key set key"]);
    for order in ["\"sk-right-key\", \"sk-wrong-key\"", "\"sk-wrong-key\", \"sk-right-key\""] {
        let several =
            Home::with_config(&format!("[endpoints.several]\nbase_url = \"{root}/v1\"\napi_keys = [{order}]\n"));
        let wrong = if order.starts_with("\"sk-wrong") { "key 1" } else { "key 2" };
        let diagnosed = several.run(&["doctor", "several", "--no-ask"]).exits(4);
        assert!(diagnosed.out.contains(&format!("{wrong} of 2: auth 401")), "{diagnosed:#?}");
        assert!(several.run(&["ping"]).exits(4).out.contains(&format!("{wrong}: auth 401")));
    }
    env.run(&["doctor", "dead"]).exits(5).says(&["check that it is running"]);
    let all = env.run(&["doctor", "--no-ask", "--format", "json"]).exits(7);
    for key in ["sk-right-key", "sk-wrong-key"] {
        assert!(!all.out.contains(key) && !all.err.contains(key), "{all:#?}");
    }
}
