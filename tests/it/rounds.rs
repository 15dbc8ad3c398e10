//! Recorded comparisons: continuing, picking an answer and retrying.

use std::{process::Stdio, sync::mpsc};

use crate::common::{CommandResult, ScriptedServer, ServerStep, TestEnv, answer, http_response, models_config};
use serde_json::Value;

/// An environment with the models `a` and `b`, each with its own server.
fn two_model_env(a: &ScriptedServer, b: &ScriptedServer) -> TestEnv {
    TestEnv::with_models(&[("a", a), ("b", b)])
}

/// The message texts of the last request to `server`.
fn last_messages(server: &ScriptedServer) -> Vec<String> {
    let sent: Value = server.requests().last().expect("at least one request").json();
    let messages = sent["messages"].as_array().expect("JSON array").iter();
    messages.map(|message| message["content"].as_str().expect("string").to_owned()).collect()
}

fn bad_request() -> String {
    http_response(
        "400 Bad Request",
        "content-type: application/json\r\n",
        "{\"error\":{\"message\":\"no such thing\"}}",
    )
}

#[test]
fn context_is_separate_per_model_or_shared_from_the_pick() {
    let a = ScriptedServer::with_replies(&[&answer("a1"), &answer("a2"), &answer("a3"), &answer("a4")]);
    let b = ScriptedServer::with_replies(&[&answer("b1"), &answer("b2"), &answer("b3")]);
    let env = two_model_env(&a, &b);
    env.run(&["compare", "-m", "a,b", "-s", "Brief.", "one"]).expect_exit(0);
    env.run(&["compare", "--continue", "two"]).expect_exit(0);
    assert_eq!(
        (last_messages(&a), last_messages(&b)),
        (strings(&["Brief.", "one", "a1", "two"]), strings(&["Brief.", "one", "b1", "two"]))
    );
    env.run(&["compare", "--continue", "--context", "shared", "x"])
        .expect_exit(2)
        .expect_stderr(&["no answer of conversation 1"]);
    env.run(&["ask", "--continue", "x"]).expect_exit(2).expect_stderr(&["2 parallel answers", "mmchat pick 1@1"]);
    env.run(&["pick", "@2"]).expect_exit(0).expect_stderr(&["picked 1@2 (b)"]);
    env.run(&["compare", "--continue", "--context", "shared", "three"]).expect_exit(0);
    let want = strings(&["Brief.", "one", "b1", "two", "b2", "three"]);
    assert_eq!((last_messages(&a), last_messages(&b)), (want.clone(), want));
    // `ask --continue` with one answer starts a new conversation.
    env.run(&["pick", "1.1@1"]).expect_exit(0).expect_stderr(&["picked 1.1@1 (a)"]);
    env.run(&["ask", "--continue", "1@1", "four"]).expect_exit(0);
    assert_eq!(last_messages(&a), strings(&["Brief.", "one", "b1", "two", "b2", "three", "a3", "four"]));
    for (turn, text) in [("1@1", "a3"), ("1.1@2", "b1"), ("1.2@1", "a2"), ("2@4", "a4"), ("@1", "b1")] {
        let shown = env.run(&["history", "show", turn]).expect_exit(0).stdout;
        assert_eq!(shown, format!("{text}\n"), "{turn}");
    }
    env.run(&["history", "show", "1.9@1"]).expect_exit(2).expect_stderr(&["no round 9"]);
    let page = env.run(&["history", "show", "1"]).expect_exit(0).stdout;
    assert!(page.contains("## 1.2@2: b (picked)\n\nb2") && page.matches("> two").count() == 1, "{page}");
}

#[test]
fn context_flag_overrides_the_config() {
    let a = ScriptedServer::with_replies(&[&answer("a1"), &answer("a2"), &answer("a3")]);
    let b = ScriptedServer::with_replies(&[&answer("b1"), &answer("b2"), &answer("b3")]);
    let models = models_config(&[("a", &a), ("b", &b)]);
    let env = TestEnv::with_config(&format!("context = \"shared\"\n{models}"));
    env.run(&["compare", "-m", "a,b", "one"]).expect_exit(0);
    env.run(&["compare", "--continue", "x"])
        .expect_exit(2)
        .expect_stderr(&["no answer of conversation 1", "--context separate"]);
    env.run(&["pick", "@2"]).expect_exit(0);
    env.run(&["compare", "--continue", "two"]).expect_exit(0);
    assert_eq!(
        (last_messages(&a), last_messages(&b)),
        (strings(&["one", "b1", "two"]), strings(&["one", "b1", "two"]))
    );
    env.run(&["compare", "--continue", "--context", "separate", "three"]).expect_exit(0);
    assert_eq!((&last_messages(&a)[3], &last_messages(&b)[3]), (&"a2".to_owned(), &"b2".to_owned()));
    env.run(&["compare", "--continue", "--context", "both", "x"]).expect_exit(2).expect_stderr(&["separate, shared"]);
    env.write_config(&format!("context = \"both\"\n{models}"));
    env.run(&["compare", "--continue", "x"])
        .expect_exit(3)
        .expect_stderr(&["invalid context \"both\"", "separate, shared"]);
}

#[test]
fn conversation_deleted_during_a_run_stays_deleted() {
    let (open, gate) = mpsc::channel();
    let a = ScriptedServer::with_replies(&[&answer("a1")]);
    let b = ScriptedServer::start(vec![vec![ServerStep::Gate(gate), ServerStep::Bytes(answer("b1").into_bytes())]]);
    let env = two_model_env(&a, &b);
    let mut command = env.command();
    command.args(["compare", "-m", "a,b", "a secret"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("program starts");
    while env.run(&["history", "show", "1@1"]).code != Some(0) {
        std::thread::yield_now();
    }
    env.run(&["history", "delete", "1"]).expect_exit(0);
    open.send(()).expect("server waits at the gate");
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started")).expect_exit(0);
    assert!(result.stdout.contains("b1"), "the answer must still be printed: {}", result.stdout);
    result.expect_stderr(&["was not stored: its conversation was deleted"]);
    assert!(!env.run(&["history"]).expect_exit(0).stdout.contains("secret"));
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn retry_replaces_the_failed_answer() {
    let a = ScriptedServer::with_replies(&[&answer("a1"), &answer("a1 again"), &bad_request()]);
    let b = ScriptedServer::with_replies(&[&bad_request(), &answer("b1")]);
    let env = two_model_env(&a, &b);
    env.run(&["compare", "-m", "a,b", "one"]).expect_exit(7);
    env.run(&["pick", "@2"]).expect_exit(2).expect_stderr(&["1@2 has no text", "mmchat retry 1@2"]);
    env.run(&["pick", "@3"]).expect_exit(2).expect_stderr(&["no answer 3"]);
    env.run(&["pick"]).expect_exit(2).expect_stderr(&["1@1, 1@2"]);
    assert_eq!(env.run(&["retry"]).expect_exit(0).stdout, "b1");
    assert_eq!(last_messages(&b), strings(&["one"]));
    env.run(&["retry"]).expect_exit(2).expect_stderr(&["nothing failed"]);
    assert_eq!(env.run(&["retry", "@1"]).expect_exit(0).stdout, "a1 again");
    env.run(&["retry", "1@1"]).expect_exit(5);
    assert_eq!(
        env.run(&["history", "show", "@1"]).expect_exit(0).stdout,
        "a1 again\n",
        "a failed retry must keep the complete answer"
    );
    assert_eq!(env.run(&["history", "show", "@2"]).expect_exit(0).stdout, "b1\n");
    assert_eq!(
        env.run(&["history", "export", "--format", "json"]).expect_exit(0).json().as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn retried_call_keeps_its_number() {
    // One server per model: concurrent calls would reach a shared server in any order.
    let a = ScriptedServer::with_replies(&[&answer("a1")]);
    let b = ScriptedServer::with_replies(&[&bad_request(), &answer("b1")]);
    let c = ScriptedServer::with_replies(&[&bad_request(), &answer("c1")]);
    let env = TestEnv::with_models(&[("a", &a), ("b", &b), ("c", &c)]);
    env.run(&["compare", "-m", "a,b,c", "one"]).expect_exit(7);
    env.run(&["retry"]).expect_exit(0);
    for (turn, text) in [("@1", "a1\n"), ("@2", "b1\n"), ("@3", "c1\n")] {
        assert_eq!(env.run(&["history", "show", turn]).expect_exit(0).stdout, text);
    }
}

#[test]
fn retry_runs_all_failed_calls() {
    let (a, b) = (
        ScriptedServer::with_replies(&[&bad_request(), &answer("a1")]),
        ScriptedServer::with_replies(&[&bad_request(), &answer("b1")]),
    );
    let env = two_model_env(&a, &b);
    env.run(&["compare", "-m", "a,b", "one"]).expect_exit(5);
    assert_eq!(env.run(&["retry"]).expect_exit(0).stdout, "--- 1 a  ok\na1\n\n--- 2 b  ok\nb1\n");
    assert_eq!(env.run(&["history", "show", "1@2"]).expect_exit(0).stdout, "b1\n");
}

#[test]
fn model_without_an_answer_starts_without_history() {
    let a = ScriptedServer::with_replies(&[&answer("a1"), &answer("a2"), &answer("a3")]);
    let b = ScriptedServer::with_replies(&[&answer("b2"), &answer("b3")]);
    let env = two_model_env(&a, &b);
    env.run(&["ask", "-m", "a", "one"]).expect_exit(0);
    env.run(&["compare", "-m", "b,a", "--continue", "two"]).expect_exit(0);
    assert_eq!(
        (last_messages(&a), last_messages(&b)),
        (strings(&["one", "a1", "two"]), strings(&["one", "a1", "two"])),
        "all models must see the single answer"
    );
    let result = env.run(&["compare", "-m", "a,b", "--continue=1.1", "--context", "separate", "three"]).expect_exit(0);
    result.expect_stderr(&["\"b\" has no answer in conversation 1"]);
    assert_eq!((last_messages(&a), last_messages(&b)), (strings(&["one", "a1", "three"]), strings(&["three"])));
    env.run(&["compare", "-m", "a", "--context", "shared", "x"]).expect_exit(2).expect_stderr(&["add --continue"]);
}

#[test]
fn each_sample_is_a_separate_call() {
    let a = ScriptedServer::with_replies(&[&answer("s"), &answer("s"), &answer("s"), &answer("s")]);
    let b = ScriptedServer::with_replies(&[]);
    let env = two_model_env(&a, &b);
    let result = env.run(&["compare", "-m", "a", "-n", "2", "one"]).expect_exit(0);
    assert_eq!(result.stdout, "--- 1 a#1  ok\ns\n\n--- 2 a#2  ok\ns\n");
    env.run(&["compare", "--continue", "two"]).expect_exit(0).expect_stderr(&["a#2"]);
    assert_eq!(last_messages(&a), strings(&["one", "s", "two"]));
    env.run(&["compare", "-m", "a", "-n", "0", "one"]).expect_exit(2).expect_stderr(&["from 1 to 100"]);
}
