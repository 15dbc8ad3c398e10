//! `ask` through the binary: requests, output and exit codes.

use std::{io::Read, process::Stdio, sync::mpsc};

use crate::common::{
    CommandResult, NO_RETRIES, STOP, STREAM, ScriptedServer, ServerStep, TestEnv, answer, content_event, http_response,
};

fn ask(server: &ScriptedServer, arguments: &[&str]) -> CommandResult {
    let mut all = vec!["ask", "-m", "m/x"];
    all.extend_from_slice(arguments);
    TestEnv::with_server(server, "").run(&all)
}

#[test]
fn piped_stdout_is_the_exact_content() {
    let server = ScriptedServer::with_replies(&[&answer("a \u{1b}[31m* 你好\n\n  b")]);
    let result = ask(&server, &["hi"]).expect_exit(0);
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("a \u{1b}[31m* 你好\n\n  b", ""));
    let request = server.requests().remove(0);
    assert!(request.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", request.head);
    assert_eq!(request.json()["model"], "x");
    assert_eq!(request.json()["messages"][0]["content"], "hi");
}

#[test]
fn flags_set_request_fields() {
    let server = ScriptedServer::with_replies(&[&answer("ok")]);
    let env = TestEnv::with_server(&server, "");
    std::fs::write(env.path("f.txt"), "in the file").expect("writable file");
    let file = env.path("f.txt").display().to_string();
    let arguments = ["ask", "-m", "m/x", "-s", "be brief", "--temperature", "0.5", "--max-tokens", "7"];
    let more = ["-o", "top_k=3", "-o", "mode=fast", "-f", &file, "what", "is", "this"];
    env.run_with_input(&[&arguments[..], &more[..]].concat(), b"piped\n").expect_exit(0);
    let body = server.requests().remove(0).json();
    assert_eq!(body["messages"][0], serde_json::json!({"role": "system", "content": "be brief"}));
    let prompt = body["messages"][1]["content"].as_str().expect("string");
    assert!(prompt.starts_with("what is this\n\n<file name=") && prompt.ends_with("</file>\n\npiped"), "{prompt}");
    assert_eq!((&body["temperature"], &body["max_tokens"]), (&0.5.into(), &7.into()));
    assert_eq!((&body["top_k"], &body["mode"]), (&3.into(), &"fast".into()));
}

#[test]
fn failover_prints_one_line_on_stderr() {
    let closed_port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("free port").local_addr().expect("bound address");
    let rate = http_response("429 Too Many Requests", "retry-after: 30\r\n", "{\"error\":{\"message\":\"slow down\"}}");
    let page = http_response("200 OK", "content-type: text/html\r\n", "<html><title>Login</title></html>");
    let error_first = format!("{STREAM}data: {{\"error\":{{\"message\":\"upstream died\",\"code\":504}}}}\n\n");
    for (first_reply, class) in [(rate, "rate"), (page, "invalid-response"), (error_first, "gateway-timeout")] {
        let server = ScriptedServer::with_replies(&[&first_reply, &answer("second")]);
        let env = TestEnv::with_server(&server, "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\n");
        let result = env.run(&["ask", "-m", "chat", "hi"]).expect_exit(0).expect_stderr(&[class, "m/a", "trying m/b"]);
        assert_eq!((result.stdout.as_str(), result.stderr.lines().count()), ("second", 1), "{result:?}");
    }
    let server = ScriptedServer::with_replies(&[&answer("second")]);
    let more = format!(
        "[endpoints.down]\nbase_url = \"http://{closed_port}/v1\"\n[routes.chat]\nmodels = [\"down/a\", \"m/b\"]\n"
    );
    let env = TestEnv::with_server(&server, &more);
    let result = env.run(&["ask", "-m", "chat", "--format", "json", "hi"]).expect_exit(0);
    let classes: Vec<_> =
        result.json()["attempts"].as_array().expect("JSON array").iter().map(|a| a["class"].clone()).collect();
    assert_eq!(classes, ["connect", "connect", "ok"]);
    assert_eq!(result.stderr.lines().count(), 1, "{result:?}");
}

#[test]
fn failure_of_all_candidates_lists_each_error() {
    let server = ScriptedServer::with_replies(&[
        &http_response("403 Forbidden", "", "{\"error\":{\"message\":\"wrong key\"}}"),
        &http_response("404 Not Found", "", "<html><title>nothing here</title></html>"),
    ]);
    let env = TestEnv::with_server(&server, "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\n");
    env.run(&["ask", "-m", "chat", "hi"]).expect_exit(5).expect_stderr(&[
        "m/a",
        "wrong key",
        "m/b",
        "nothing here",
        "base_url",
    ]);
}

#[test]
fn auth_exits_4_timeout_exits_6_incomplete_exits_8() {
    let server =
        ScriptedServer::with_replies(&[&http_response("401 Unauthorized", "", "{\"error\":{\"message\":\"no\"}}")]);
    ask(&server, &["hi"]).expect_exit(4).expect_stderr(&["auth 401"]);
    let server = ScriptedServer::start(vec![vec![ServerStep::HoldOpen]]);
    ask(&server, &["--timeout", "200ms", "hi"]).expect_exit(6).expect_stderr(&["no answer within"]);
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{}", content_event("half"))]);
    let result = ask(&server, &["hi"]).expect_exit(8).expect_stderr(&["incomplete"]);
    assert_eq!(result.stdout, "half");
}

#[test]
fn json_format_has_all_fields() {
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";
    let finish = STOP.replace("data: [DONE]\n\n", "");
    let stream = format!("{STREAM}{}{finish}{usage}", content_event("hi\u{7}"));
    let stream = stream.replace("content-type", "x-request-id: req-1\r\ncontent-type");
    let server = ScriptedServer::with_replies(&[&stream]);
    let more = "[models.x]\nendpoint = \"m\"\nmodel = \"up\"\nprice = { input = 1.0, output = 2.0 }\n";
    let result = TestEnv::with_server(&server, more).run(&["ask", "-m", "x", "--format", "json", "hi"]).expect_exit(0);
    let json = result.json();
    assert_eq!((&json["model"], &json["endpoint"], &json["upstream_model"]), (&"x".into(), &"m".into(), &"up".into()));
    assert_eq!((&json["content"], &json["finish_reason"]), (&"hi\u{7}".into(), &"stop".into()));
    assert_eq!(
        json["usage"],
        serde_json::json!({"input": 3, "output": 5, "cached": null, "reasoning": null, "estimated": false})
    );
    assert_eq!(
        (&json["truncated"], &json["error"], &json["cost"]),
        (&false.into(), &serde_json::Value::Null, &0.000_013.into())
    );
    assert_eq!(json["attempts"][0]["request_id"], "req-1");
    assert!(json["timing"]["ttft_ms"].is_u64() && json["timing"]["total_ms"].is_u64());
    assert!(!result.stdout.contains('\u{7}'), "control bytes must be escaped");
}

#[test]
fn json_of_an_incomplete_answer_has_the_partial_content() {
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{}", content_event("half"))]);
    let json = ask(&server, &["--format", "json", "hi"]).expect_exit(8).json();
    assert_eq!((&json["content"], &json["truncated"]), (&"half".into(), &true.into()));
    assert_eq!((&json["error"]["class"], &json["usage"]["estimated"]), (&"incomplete".into(), &true.into()));
}

#[test]
fn jsonl_has_one_event_per_line_and_markdown_has_a_heading() {
    let server = ScriptedServer::with_replies(&[&answer("text"), &answer("text")]);
    let env = TestEnv::with_server(&server, "");
    let result = env.run(&["ask", "-m", "m/x", "--format", "jsonl", "hi"]).expect_exit(0);
    let lines: Vec<serde_json::Value> =
        result.stdout.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().expect("event name")).collect();
    assert_eq!(events, ["started", "delta", "delta", "ttft", "finished"]);
    assert_eq!((&lines[1]["content"], &lines[4]["content"]), (&"text".into(), &"text".into()));
    let result = env.run(&["ask", "-m", "m/x", "--format", "markdown", "hi"]).expect_exit(0);
    assert_eq!(result.stdout, "# m/x\n\ntext\n");
}

#[test]
fn first_chunk_is_printed_while_the_stream_is_open() {
    let (open, gate) = mpsc::channel();
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{}", content_event("first")).into_bytes()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(format!("{}{STOP}", content_event(" second")).into_bytes()),
    ]]);
    let env = TestEnv::with_server(&server, "");
    let mut child =
        env.command().args(["ask", "-m", "m/x", "hi"]).stdout(Stdio::piped()).spawn().expect("program starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut first = [0; 5];
    stdout.read_exact(&mut first).expect("first chunk while the server waits");
    assert_eq!(&first, b"first");
    open.send(()).expect("server waits at the gate");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("rest of the output");
    assert_eq!((rest.as_str(), child.wait().expect("child has been started").code()), (" second", Some(0)));
}

#[test]
fn closed_stdout_exits_0_without_an_error() {
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(STREAM.as_bytes().to_vec()),
        ServerStep::Repeat(content_event(&"x".repeat(1000)).into_bytes()),
    ]]);
    let env = TestEnv::with_server(&server, "");
    let mut command = env.command();
    let mut child = command
        .args(["ask", "-m", "m/x", "hi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("program starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 100]).expect("start of the output");
    drop(stdout);
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started")).expect_exit(0);
    assert_eq!(result.stderr, "");
}

#[test]
fn reasoning_goes_to_stderr() {
    let reasoning = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm \\u001b]0;x\\u0007so\"}}]}\n\n";
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{reasoning}{}{STOP}", content_event("42"))]);
    let result = ask(&server, &["hi"]).expect_exit(0);
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("42", "hm so\n\n"));
}

#[test]
fn unusual_ends_of_an_answer_are_warned_about() {
    let end = |reason: &str| STOP.replace("\"stop\"", &format!("\"{reason}\""));
    let tool = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"get_weather\"}}]}}]}\n\n";
    let reasoning = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n";
    for (body, words) in [
        (format!("{}{}", content_event("x"), end("length")), "token limit"),
        (format!("{reasoning}{}", end("length")), "used up by reasoning"),
        (format!("{}{}", content_event("x"), end("content_filter")), "content filter"),
        (end("content_filter"), "withheld"),
        (format!("{tool}{}", end("tool_calls")), "get_weather"),
        (format!("{}{}", content_event("x"), end("because")), "because"),
        (end("stop"), "empty"),
        (format!("{reasoning}{}", end("stop")), "only reasoning"),
        (format!("data: null\n\n{}{}", content_event("x"), end("length")), "token limit"),
        (
            format!(
                "{}{}",
                content_event("x").replace("\"index\":0", "\"index\":1"),
                content_event("y") + &end("stop")
            ),
            "several choices",
        ),
        // Both warnings are printed.
        (
            format!(
                "{}{}",
                content_event("x").replace("\"index\":0", "\"index\":1"),
                content_event("y") + &end("length")
            ),
            "several choices; only the first is shown\nwarning: the answer stopped at the token limit",
        ),
        (format!("{}data: [DONE]\n\n", content_event("x")), "no finish reason"),
    ] {
        let server = ScriptedServer::with_replies(&[&format!("{STREAM}{body}")]);
        ask(&server, &["hi"]).expect_exit(0).expect_stderr(&["warning", words]);
    }
}

#[test]
fn incomplete_answer_is_kept_when_no_other_candidate_answers() {
    let partial = format!("{STREAM}{}", content_event("half"));
    let models = "[models.a]\nendpoint = \"m\"\nmodel = \"a\"\n[models.b]\nendpoint = \"m\"\nmodel = \"b\"\n";
    for on_incomplete in ["restart", "buffer"] {
        let unauthorized = http_response("401 Unauthorized", "", "{\"error\":{\"message\":\"wrong key\"}}");
        let server = ScriptedServer::with_replies(&[&partial, &unauthorized, &partial, &unauthorized]);
        let route = format!("{models}[routes.chat]\nmodels = [\"a\", \"b\"]\non_incomplete = \"{on_incomplete}\"\n");
        let env = TestEnv::with_server(&server, &route);
        let result = env.run(&["ask", "-m", "chat", "hi"]).expect_exit(8);
        assert_eq!(result.stdout.trim_end(), "half", "{on_incomplete}");
        let result = result.expect_stderr(&[
            "the answer of a is incomplete: the answer ended without an end signal",
            "b (",
            "auth 401: wrong key",
        ]);
        assert!(on_incomplete == "buffer" || result.stderr.contains("; restarting on b"), "{result:?}");
        // Without the health state of the first run, in which the failures made both models unavailable for some seconds.
        let env = TestEnv::with_server(&server, &route);
        let json = env.run(&["ask", "-m", "chat", "--format", "json", "hi"]).expect_exit(8).json();
        assert_eq!((&json["content"], &json["upstream_model"]), (&"half".into(), &"a".into()), "{on_incomplete}");
        assert_eq!((&json["error"]["class"], &json["attempts"][1]["class"]), (&"incomplete".into(), &"auth".into()));
    }
}

#[test]
fn tool_calls_are_separated_by_id_and_limited() {
    let call = |fields: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{{fields}\"function\":{{\"name\":\"t\",\"arguments\":\"{{}}\"}}}}]}}}}]}}\n\n"
        )
    };
    let end = STOP.replace("\"stop\"", "\"tool_calls\"");
    let ids = |json: &serde_json::Value| {
        let calls = json["tool_calls"].as_array().expect("JSON array");
        calls.iter().map(|call| format!("{}{}", call["id"], call["arguments"])).collect::<Vec<_>>()
    };
    for index in ["\"index\":0,", "", "\"index\":-1,"] {
        let two = call(&format!("{index}\"id\":\"a\",")) + &call(&format!("{index}\"id\":\"b\","));
        let server = ScriptedServer::with_replies(&[&format!("{STREAM}{two}{end}")]);
        let json = ask(&server, &["--format", "json", "hi"]).expect_exit(0).json();
        assert_eq!(ids(&json), ["\"a\"\"{}\"", "\"b\"\"{}\""], "{index}");
    }
    let calls: String = (0..2000).map(|index| call(&format!("\"index\":{index},"))).collect();
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{calls}{end}")]);
    let result = ask(&server, &["--format", "json", "hi"]).expect_exit(8).expect_stderr(&["too many tool calls"]);
    assert_eq!((ids(&result.json()).len(), &result.json()["error"]["class"]), (1024, &"invalid-chunk".into()));
}

#[test]
fn concatenated_json_objects_are_all_decoded() {
    let (a, b) = (content_event("A"), content_event("B"));
    for (body, text) in [
        (format!("{}{b}{STOP}", a.trim_end()), "AB"),
        (
            format!(
                "{}data: [DONE]\n\n",
                content_event("A").trim_end().replace("}]}", ",\"finish_reason\":\"stop\"}]}")
            ),
            "A",
        ),
    ] {
        let server = ScriptedServer::with_replies(&[&format!("{STREAM}{body}")]);
        let result = ask(&server, &["hi"]).expect_exit(0);
        assert_eq!((result.stdout.as_str(), result.stderr.as_str()), (text, ""), "{body}");
    }
    // A large event of concatenated objects.
    let large_event = format!("data: {}\n\n{}{STOP}", "{}".repeat(1 << 20), content_event("A"));
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{large_event}")]);
    assert_eq!(ask(&server, &["hi"]).expect_exit(0).stdout, "A");
    // A damaged object between two is an error.
    let damaged = format!("{}data: {{\"choices\n\n{STOP}", a.trim_end());
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{damaged}")]);
    assert_eq!(ask(&server, &["hi"]).expect_exit(8).stdout, "A");
}

#[test]
fn sse_comment_split_across_chunks_is_not_an_invalid_response() {
    let (open, gate) = mpsc::channel();
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{}: pi", content_event("text")).into_bytes()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(b"ng\n\n".to_vec()),
    ]]);
    let env = TestEnv::with_server(&server, "");
    let mut command = env.command();
    let mut child = command
        .args(["ask", "-m", "m/x", "hi"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("program starts");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 4]).expect("start of the output");
    open.send(()).expect("server waits at the gate");
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(8)
        .expect_stderr(&["without an end signal"]);
    assert!(!result.stderr.contains("invalid-response"), "{result:?}");
}

#[cfg(unix)]
#[test]
fn failure_exit_code_is_kept_when_stdout_is_closed() {
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{}", content_event("half"))]);
    let env = TestEnv::with_server(&server, "");
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let mut command = env.command();
    command.args(["ask", "-m", "m/x", "--format", "json", "hi"]).stdout(writer);
    assert_eq!(command.status().expect("program starts").code(), Some(8));
}

#[test]
fn output_file_is_private_and_write_errors_are_reported() {
    let server = ScriptedServer::with_replies(&[&answer("text"), &answer("text")]);
    let env = TestEnv::with_server(&server, "");
    let path = env.path("answer.md").display().to_string();
    let result = env.run(&["ask", "-m", "m/x", "--output", &path, "hi"]).expect_exit(0);
    assert_eq!((result.stdout.as_str(), std::fs::read_to_string(&path).expect("readable file").as_str()), ("", "text"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).expect("existing file").permissions().mode() & 0o777, 0o600);
    }
    if std::path::Path::new("/dev/full").exists() {
        env.run(&["ask", "-m", "m/x", "--output", "/dev/full", "hi"])
            .expect_exit(1)
            .expect_stderr(&["/dev/full", "no space"]);
    } else {
        env.run(&["ask", "-m", "m/x", "hi"]).expect_exit(0);
    }
    let down = ScriptedServer::with_replies(&[&http_response("401 Unauthorized", "", "{}")]);
    let result = TestEnv::with_server(&down, "").run(&["ask", "-m", "m/x", "--output", &path, "hi"]).expect_exit(4);
    assert_eq!(
        std::fs::read_to_string(&path).expect("readable file"),
        "text",
        "a failure must not change the file: {result:?}"
    );
    env.run(&["ask", "-m", "m/x", "--output", "/no/such/folder/x", "hi"])
        .expect_exit(1)
        .expect_stderr(&["/no/such/folder/x"]);
}

#[test]
fn dry_run_prints_a_curl_command_without_secrets() {
    let config = "[endpoints.m]\nbase_url = \"http://user:hunter22@h.invalid/v1\"\napi_key = \"sk-literal-secret\"\n\
        headers = { X-Team = { env = \"TEAM_TOKEN\" } }\n[endpoints.n]\nbase_url = \"http://h.invalid/v1\"\napi_key = { env = \"N_KEY\" }\n";
    let env = TestEnv::with_config(config);
    let result = env.run(&["ask", "--dry-run", "-m", "m/x", "it's"]).expect_exit(0);
    assert!(
        result.stdout.starts_with("curl ")
            && result.stdout.contains("Bearer $API_KEY")
            && result.stdout.contains("$TEAM_TOKEN"),
        "{}",
        result.stdout
    );
    assert!(result.stdout.contains(r"it'\''s") && !format!("{result:?}").contains("literal-secret"), "{result:?}");
    assert!(!format!("{result:?}").contains("hunter22"), "{result:?}");
    let path = env.path("request.sh").display().to_string();
    let to_file = env.run(&["ask", "--dry-run", "-m", "m/x", "--output", &path, "it's"]).expect_exit(0);
    assert_eq!((to_file.stdout.as_str(), std::fs::read_to_string(&path).expect("readable file")), ("", result.stdout));
    let to_stdout = env.run(&["ask", "--dry-run", "-m", "m/x", "--output", "-", "it's"]).expect_exit(0);
    assert_eq!(to_stdout.stdout, std::fs::read_to_string(&path).expect("readable file"));
    TestEnv::new().run(&["ask", "--dry-run", "hi"]).expect_exit(4).expect_stderr(&["no API key in the environment"]);
    let result = env.run(&["ask", "--dry-run", "-m", "n/x", "hi"]).expect_exit(0);
    assert!(result.stdout.contains("Bearer $N_KEY"), "{}", result.stdout);
}

#[test]
fn stats_is_one_line_that_marks_estimates() {
    let server = ScriptedServer::with_replies(&[&answer("some text of a few words")]);
    let result = ask(&server, &["--stats", "hi"]).expect_exit(0).expect_stderr(&["m/x", "ttft", "estimated"]);
    assert_eq!(result.stderr.lines().count(), 1);
}

#[test]
fn unknown_names_and_invalid_arguments_exit_2() {
    let env = TestEnv::with_config(
        "[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"m\"\n[sets]\nall = [\"fast\"]\n",
    );
    env.run(&["ask", "-m", "fats", "hi"]).expect_exit(2).expect_stderr(&["fats", "did you mean \"fast\""]);
    env.run(&["ask", "-m", "all", "hi"]).expect_exit(2).expect_stderr(&["is a set", "mmchat compare --set all"]);
    env.run(&["ask", "-m", "opnai/x", "hi"]).expect_exit(2).expect_stderr(&["did you mean \"openai\""]);
    env.run(&["ask", "--fromat", "json", "hi"]).expect_exit(2).expect_stderr(&["--format"]);
    env.run(&["ask", "--format", "jsn", "hi"]).expect_exit(2).expect_stderr(&["did you mean \"json\""]);
    env.run(&["ask", "-m", "fast"]).expect_exit(2).expect_stderr(&["the prompt is empty"]);
    env.run(&["ask", "-m", "fast", "-o", "x", "hi"]).expect_exit(2).expect_stderr(&["key=value"]);
    env.run(&["ask", "--timeout", "soon", "hi"]).expect_exit(2).expect_stderr(&["soon", "500ms"]);
}

#[test]
fn unavailable_keys_exit_4() {
    let env = TestEnv::new();
    let config = |key: &str| format!("[endpoints.m]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = {key}\n");
    env.write_config(&config("{ env = \"NOT_SET_KEY\" }"));
    env.run(&["ask", "-m", "m/x", "hi"])
        .expect_exit(4)
        .expect_stderr(&["NOT_SET_KEY is not set", "export NOT_SET_KEY"]);
    if cfg!(unix) {
        std::fs::write(env.path("key"), "sk-file-secret").expect("writable file");
        crate::common::set_mode(&env.path("key"), 0o644);
        env.write_config(&config("{ file = \"key\" }"));
        let result = env.run(&["ask", "-m", "m/x", "hi"]).expect_exit(4).expect_stderr(&["other users", "chmod 600"]);
        assert!(!format!("{result:?}").contains("file-secret"));
        env.write_config(&config("{ command = [\"sh\", \"-c\", \"echo no entry >&2; exit 1\"] }"));
        env.run(&["ask", "-m", "m/x", "hi"]).expect_exit(4).expect_stderr(&["key command \"sh\"", "no entry"]);
    }
}

#[cfg(unix)]
#[test]
fn literal_key_in_a_readable_config_is_warned_about() {
    let server = ScriptedServer::with_replies(&[&answer("ok")]);
    let env = TestEnv::with_server(&server, "api_key = \"sk-literal-secret\"\n");
    crate::common::set_mode(&env.path("config.toml"), 0o644);
    let result = env.run(&["ask", "-m", "m/x", "hi"]).expect_exit(0).expect_stderr(&["warning", "chmod 600"]);
    assert!(!result.stderr.contains("literal-secret"));
    assert!(server.requests()[0].head.contains("Bearer sk-literal-secret"));
}

#[test]
fn key_that_is_sent_unencrypted_to_a_public_host_is_warned_about_once_a_day() {
    // The proxy refuses the connection, so that nothing is sent anywhere.
    let endpoint = "base_url = \"http://api.example.com/v1\"\nproxy = \"http://127.0.0.1:1\"\n";
    let env = TestEnv::with_config(&format!("[endpoints.open]\n{endpoint}api_key = {{ env = \"OPEN_KEY\" }}\n"));
    let ask = || {
        let mut command = env.command();
        command.args(["ask", "-m", "open/m", "hi"]).env("OPEN_KEY", "sk-secret-key");
        String::from_utf8(command.output().expect("the command runs").stderr).expect("valid UTF-8")
    };
    let warning = "endpoint \"open\": its key is sent to api.example.com unencrypted";
    let first = ask();
    assert!(first.contains(warning) && !first.contains("sk-secret"), "{first}");
    assert!(!ask().contains(warning));
}

#[test]
fn api_key_in_the_environment_needs_no_config() {
    let server = ScriptedServer::with_replies(&[&answer("ok")]);
    let env = TestEnv::new();
    let output = env
        .command()
        .env("DEEPSEEK_API_KEY", "sk-env-secret")
        .env("DEEPSEEK_BASE_URL", server.url())
        .args(["ask", "hi"])
        .output()
        .expect("program starts");
    let result = CommandResult::from_output(output)
        .expect_exit(0)
        .expect_stderr(&["using deepseek/deepseek-flash (DEEPSEEK_API_KEY)"]);
    assert_eq!(result.stdout, "ok");
    assert_eq!(server.requests()[0].json()["model"], "deepseek-flash");
}

#[test]
fn missing_key_error_names_the_variables_to_set() {
    let env = TestEnv::new();
    // A local Ollama must not be detected: nothing listens on this port.
    let run = |arguments: &[&str]| {
        let mut command = env.command();
        command.env("OLLAMA_BASE_URL", "http://127.0.0.1:9/v1").args(arguments);
        CommandResult::from_output(command.output().expect("program starts"))
    };
    run(&["ask", "hi"]).expect_exit(4).expect_stderr(&["no API key in the environment", "OPENAI_API_KEY"]);
    run(&["ask", "-m", "moonshot/x", "hi"]).expect_exit(2).expect_stderr(&["set MOONSHOT_API_KEY"]);
}

#[test]
fn stdin_is_sent_and_an_open_pipe_times_out() {
    let server = ScriptedServer::with_replies(&[&answer("ok"), &answer("ok")]);
    let env = TestEnv::with_server(&server, "");
    env.run_with_input(&["ask", "-m", "m/x"], b"only \xff piped").expect_exit(0).expect_stderr(&["not valid UTF-8"]);
    env.run_with_input(&["ask", "-m", "m/x", "--no-stdin", "words"], b"not read").expect_exit(0);
    let prompts: Vec<_> =
        server.requests().iter().map(|request| request.json()["messages"][0]["content"].clone()).collect();
    assert_eq!(prompts, ["only \u{fffd} piped", "words"]);
    let mut command = env.command();
    command.args(["ask", "-m", "m/x", "--stdin-timeout", "100ms", "hi"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("program starts");
    let held_open = child.stdin.take();
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started"));
    drop(held_open);
    result.expect_exit(2).expect_stderr(&["open pipe", "--no-stdin"]);
}

#[test]
fn prompt_over_32_mib_is_rejected() {
    let env = TestEnv::with_config("[endpoints.m]\nbase_url = \"http://127.0.0.1:9/v1\"\n");
    env.run_with_input(&["ask", "-m", "m/x"], &vec![b'x'; 50 << 20]).expect_exit(2).expect_stderr(&["32 MiB"]);
}

#[test]
fn endless_and_oversized_responses_are_rejected() {
    let endless_line =
        vec![ServerStep::Bytes(format!("{STREAM}data: ").into_bytes()), ServerStep::Repeat(vec![b'x'; 65536])];
    let endless_json =
        vec![ServerStep::Bytes(b"HTTP/1.1 200 OK\r\n\r\n{\"a\":\"".to_vec()), ServerStep::Repeat(vec![b'x'; 65536])];
    let huge_header =
        vec![ServerStep::Bytes(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes())];
    let comments = vec![ServerStep::Bytes(STREAM.as_bytes().to_vec()), ServerStep::Repeat(b": ping\n\n".to_vec())];
    for (steps, code, words) in [
        (endless_line, 5, "16 MiB"),
        (endless_json, 5, "max_answer_mb"),
        (huge_header, 5, "invalid HTTP response"),
        (comments, 6, "no answer within"),
    ] {
        let server = ScriptedServer::start(vec![steps]);
        let env = TestEnv::with_server(&server, &format!("timeouts = {{ first_token = \"5s\" }}\n{NO_RETRIES}"));
        if code == 6 {
            env.write_config(&format!(
                "[endpoints.m]\nbase_url = \"{}\"\ntimeouts = {{ first_token = \"300ms\" }}\n",
                server.url()
            ));
        }
        env.run(&["ask", "-m", "m/x", "hi"]).expect_exit(code).expect_stderr(&[words]);
    }
}

#[test]
fn gzip_bomb_is_rejected() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(STREAM.as_bytes()).expect("writing to memory");
    let chunk = content_event(&"0".repeat(1 << 20));
    for _ in 0..100 {
        encoder.write_all(chunk.as_bytes()).expect("writing to memory");
    }
    let bomb = encoder.finish().expect("writing to memory");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len());
    let server = ScriptedServer::start(vec![vec![ServerStep::Bytes(head.into_bytes()), ServerStep::Bytes(bomb)]]);
    let env = TestEnv::with_server(&server, "");
    env.write_config(&format!("max_answer_mb = 200\n[endpoints.m]\nbase_url = \"{}\"\n", server.url()));
    let mut command = env.command();
    let output = command.args(["ask", "-m", "m/x", "hi"]).output().expect("program starts");
    CommandResult { stdout: String::new(), ..CommandResult::from_output(output) }
        .expect_exit(8)
        .expect_stderr(&["expands more than 100 times"]);
}

#[test]
fn proxy_and_dns_failures_are_connect_errors() {
    let closed_port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("free port").local_addr().expect("bound address");
    let config = format!("[endpoints.m]\nbase_url = \"https://h.invalid/v1\"\nproxy = \"http://{closed_port}\"\n");
    TestEnv::with_config(&config).run(&["ask", "-m", "m/x", "hi"]).expect_exit(5).expect_stderr(&["connect", "proxy"]);
    let config = "[endpoints.m]\nbase_url = \"http://mmchat-no-such-host.invalid/v1\"\n";
    TestEnv::with_config(config)
        .run(&["ask", "-m", "m/x", "hi"])
        .expect_exit(5)
        .expect_stderr(&["connect", "cannot resolve host name"]);
}

#[test]
fn loopback_bypasses_the_environment_proxy() {
    let server = ScriptedServer::with_replies(&[&answer("ok")]);
    let env = TestEnv::with_server(&server, "");
    let output = env.command().env("http_proxy", "http://127.0.0.1:9").args(["ask", "-m", "m/x", "hi"]).output();
    CommandResult::from_output(output.expect("program starts")).expect_exit(0);
}

#[test]
fn config_errors_exit_3_with_line_and_column() {
    let env = TestEnv::with_config("[endpoints.m]\nbase_ulr = \"http://h/v1\"\n");
    for command in [&["ask", "-m", "m/x", "hi"][..], &["config", "check"], &["config", "show"]] {
        env.run(command).expect_exit(3).expect_stderr(&["base_ulr", "config.toml:2:1", "did you mean \"base_url\""]);
    }
    env.run(&["config", "path"]).expect_exit(0);
    env.run(&["completions", "bash"]).expect_exit(0);
    env.run(&["--config", "/no/such.toml", "ask", "hi"]).expect_exit(3).expect_stderr(&["/no/such.toml"]);
}
