//! Ctrl-C during `ask`: the partial answer is kept, usage and attempts are reported, and the exit code is 130.

use std::{
    io::Read,
    process::{Child, Stdio},
    thread,
};

use crate::common::{CommandResult, STREAM, ScriptedServer, ServerStep, TestEnv, content_event, http_response};
use serde_json::Value;

fn start_stream(text: &str) -> ServerStep {
    ServerStep::Bytes(format!("{STREAM}{}", content_event(text)).into_bytes())
}

fn spawn_ask(env: &TestEnv, arguments: &[&str]) -> Child {
    let mut command = env.command();
    command.arg("ask").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("program starts")
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill starts").success());
}

/// Reads until `text` has arrived; returns everything read.
fn read_until(from: &mut impl Read, text: &str) -> Vec<u8> {
    let mut output = Vec::new();
    while !output.windows(text.len()).any(|window| window == text.as_bytes()) {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap_or_else(|_| panic!("no {text} in {}", String::from_utf8_lossy(&output)));
        output.extend(byte);
    }
    output
}

/// Interrupts a run when `text` is on stdout; returns its result.
fn interrupt_after(text: &str, env: &TestEnv, arguments: &[&str]) -> CommandResult {
    let mut child = spawn_ask(env, arguments);
    let mut stdout = child.stdout.take().expect("piped");
    let mut output = read_until(&mut stdout, text);
    interrupt(&child);
    let reader = thread::spawn(move || {
        stdout.read_to_end(&mut output).expect("rest of the output");
        output
    });
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(130)
        .expect_stderr(&["[interrupted]"]);
    let out = reader.join().expect("reader thread finishes");
    CommandResult { stdout: String::from_utf8(out).expect("UTF-8 output"), ..result }
}

fn last_json_line(result: &CommandResult) -> Value {
    serde_json::from_str(result.stdout.lines().last().expect("last line")).expect("valid JSON")
}

#[test]
fn partial_answer_stays_on_stdout() {
    let server = ScriptedServer::start(vec![vec![start_stream("half"), ServerStep::HoldOpen]]);
    let result = interrupt_after("half", &TestEnv::with_server(&server, ""), &["-m", "m/x", "--stats", "hi"]);
    assert_eq!(result.stdout, "half");
    assert!(result.stderr.contains("m/x  ") && result.stderr.contains("estimated"), "{result:?}");
}

#[test]
fn json_has_every_attempt_and_the_timing() {
    let server = ScriptedServer::start(vec![
        vec![ServerStep::Bytes(
            http_response("503 Busy", "retry-after: 9\r\n", "{\"error\":{\"message\":\"busy\"}}").into_bytes(),
        )],
        vec![start_stream("half"), ServerStep::HoldOpen],
    ]);
    let models = "[models.a]\nendpoint = \"m\"\nmodel = \"a\"\n[models.b]\nendpoint = \"m\"\nmodel = \"b\"\n";
    let env = TestEnv::with_server(&server, &format!("{models}[routes.chat]\nmodels = [\"a\", \"b\"]\n"));
    let object =
        last_json_line(&interrupt_after("\"event\":\"ttft\"", &env, &["-m", "chat", "--format", "jsonl", "hi"]));
    assert_eq!((&object["content"], &object["truncated"]), (&"half".into(), &true.into()));
    assert_eq!((&object["endpoint"], &object["upstream_model"]), (&"m".into(), &"b".into()));
    let attempts = object["attempts"].as_array().expect("JSON array");
    let classes: Vec<_> = attempts.iter().map(|attempt| (&attempt["model"], &attempt["class"])).collect();
    assert_eq!(classes, [(&"a".into(), &"overloaded".into()), (&"b".into(), &"local-limit".into())]);
    assert!(object["timing"]["ttft_ms"].is_u64(), "{object}");
    assert_eq!(object["error"]["message"], "interrupted");
}

#[test]
fn buffered_partial_answer_is_printed() {
    let server = ScriptedServer::start(vec![vec![start_stream("half"), ServerStep::HoldOpen]]);
    let env = TestEnv::with_server(&server, "");
    let result = interrupt_after("\"event\":\"ttft\"", &env, &["-m", "m/x", "--buffer", "--format", "jsonl", "hi"]);
    assert_eq!(last_json_line(&result)["content"], "half", "{result:?}");
    assert!(result.stdout.contains("\"event\":\"delta\""), "{result:?}");
}

#[test]
fn blocked_stdout_does_not_prevent_the_exit() {
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(STREAM.as_bytes().to_vec()),
        ServerStep::Repeat(content_event(&"x".repeat(1000)).into_bytes()),
    ]]);
    let env = TestEnv::with_server(&server, "");
    let mut child = spawn_ask(&env, &["-m", "m/x", "hi"]);
    let mut stdout = child.stdout.take().expect("piped");
    read_until(&mut stdout, "xxx");
    interrupt(&child);
    assert_eq!(child.wait().expect("child has been started").code(), Some(130));
    drop(stdout);
}

#[test]
fn interrupt_while_waiting_for_stdin_exits_130() {
    let env = TestEnv::with_config("[endpoints.m]\nbase_url = \"http://127.0.0.1:9/v1\"\n");
    let mut command = env.command();
    command.args(["ask", "-m", "m/x"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("program starts");
    read_until(child.stderr.as_mut().expect("piped"), "waiting for standard input");
    interrupt(&child);
    let _stdin = child.stdin.take();
    assert_eq!(child.wait().expect("child has been started").code(), Some(130));
}

#[test]
fn interrupt_with_a_closed_stdout_exits_130() {
    let reasoning = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hmm\"}}]}\n\n";
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{reasoning}").into_bytes()),
        ServerStep::HoldOpen,
    ]]);
    let env = TestEnv::with_server(&server, "");
    let (reader, writer) = std::io::pipe().expect("pipe");
    let mut command = env.command();
    command.args(["ask", "-m", "m/x", "--format", "json", "hi"]).stdout(writer).stderr(Stdio::piped());
    drop(reader);
    let mut child = command.spawn().expect("program starts");
    read_until(child.stderr.as_mut().expect("piped"), "hmm");
    interrupt(&child);
    assert_eq!(child.wait().expect("child has been started").code(), Some(130));
}
