//! Recorded comparisons: continuing, picking an answer and retrying.

use std::{process::Stdio, sync::mpsc};

use crate::common::{Home, Ran, Server, Step, answer, models_of, reply};
use serde_json::Value;

/// An environment with the models `a` and `b`, each with its own server.
fn home(a: &Server, b: &Server) -> Home {
    Home::with_models(&[("a", a), ("b", b)])
}

/// The message texts of the last request to `server`.
fn said(server: &Server) -> Vec<String> {
    let sent: Value = server.requests().last().expect("at least one request").json();
    let messages = sent["messages"].as_array().expect("JSON array").iter();
    messages.map(|message| message["content"].as_str().expect("string").to_owned()).collect()
}

fn failure() -> String {
    reply("400 Bad Request", "content-type: application/json\r\n", "{\"error\":{\"message\":\"no such thing\"}}")
}

#[test]
fn context_is_separate_per_model_or_shared_from_the_pick() {
    let a = Server::replying(&[&answer("a1"), &answer("a2"), &answer("a3"), &answer("a4")]);
    let b = Server::replying(&[&answer("b1"), &answer("b2"), &answer("b3")]);
    let env = home(&a, &b);
    env.run(&["compare", "-m", "a,b", "-s", "Brief.", "one"]).exits(0);
    env.run(&["compare", "--continue", "two"]).exits(0);
    assert_eq!((said(&a), said(&b)), (list(&["Brief.", "one", "a1", "two"]), list(&["Brief.", "one", "b1", "two"])));
    env.run(&["compare", "--continue", "--context", "shared", "x"]).exits(2).says(&["no answer of conversation 1"]);
    env.run(&["ask", "--continue", "x"]).exits(2).says(&["2 answers side by side", "mmchat pick 1@1"]);
    env.run(&["pick", "@2"]).exits(0).says(&["picked 1@2 (b)"]);
    env.run(&["compare", "--continue", "--context", "shared", "three"]).exits(0);
    let want = list(&["Brief.", "one", "b1", "two", "b2", "three"]);
    assert_eq!((said(&a), said(&b)), (want.clone(), want));
    // `ask --continue` with one answer starts a new conversation.
    env.run(&["pick", "1.1@1"]).exits(0).says(&["picked 1.1@1 (a)"]);
    env.run(&["ask", "--continue", "1@1", "four"]).exits(0);
    assert_eq!(said(&a), list(&["Brief.", "one", "b1", "two", "b2", "three", "a3", "four"]));
    for (turn, text) in [("1@1", "a3"), ("1.1@2", "b1"), ("1.2@1", "a2"), ("2@4", "a4"), ("@1", "b1")] {
        let shown = env.run(&["history", "show", turn]).exits(0).out;
        assert_eq!(shown, format!("{text}\n"), "{turn}");
    }
    env.run(&["history", "show", "1.9@1"]).exits(2).says(&["no round 9"]);
    let page = env.run(&["history", "show", "1"]).exits(0).out;
    assert!(page.contains("## 1.2@2: b (picked)\n\nb2") && page.matches("> two").count() == 1, "{page}");
}

#[test]
fn context_flag_overrides_the_config() {
    let a = Server::replying(&[&answer("a1"), &answer("a2"), &answer("a3")]);
    let b = Server::replying(&[&answer("b1"), &answer("b2"), &answer("b3")]);
    let models = models_of(&[("a", &a), ("b", &b)]);
    let env = Home::with_config(&format!("context = \"shared\"\n{models}"));
    env.run(&["compare", "-m", "a,b", "one"]).exits(0);
    env.run(&["compare", "--continue", "x"]).exits(2).says(&["no answer of conversation 1", "--context separate"]);
    env.run(&["pick", "@2"]).exits(0);
    env.run(&["compare", "--continue", "two"]).exits(0);
    assert_eq!((said(&a), said(&b)), (list(&["one", "b1", "two"]), list(&["one", "b1", "two"])));
    env.run(&["compare", "--continue", "--context", "separate", "three"]).exits(0);
    assert_eq!((&said(&a)[3], &said(&b)[3]), (&"a2".to_owned(), &"b2".to_owned()));
    env.run(&["compare", "--continue", "--context", "both", "x"]).exits(2).says(&["separate, shared"]);
    env.write_config(&format!("context = \"both\"\n{models}"));
    env.run(&["compare", "--continue", "x"]).exits(3).says(&["invalid context \"both\"", "separate, shared"]);
}

#[test]
fn conversation_deleted_during_a_run_stays_deleted() {
    let (open, gate) = mpsc::channel();
    let a = Server::replying(&[&answer("a1")]);
    let b = Server::start(vec![vec![Step::Gate(gate), Step::Bytes(answer("b1").into_bytes())]]);
    let env = home(&a, &b);
    let mut command = env.command();
    command.args(["compare", "-m", "a,b", "a secret"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("program starts");
    while env.run(&["history", "show", "1@1"]).code != Some(0) {
        std::thread::yield_now();
    }
    env.run(&["history", "delete", "1"]).exits(0);
    open.send(()).expect("server waits at the gate");
    let result = Ran::of(child.wait_with_output().expect("child has been started")).exits(0);
    assert!(result.out.contains("b1"), "the answer must still be printed: {}", result.out);
    result.says(&["was not stored: its conversation was deleted"]);
    assert!(!env.run(&["history"]).exits(0).out.contains("secret"));
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn retry_replaces_the_failed_answer() {
    let a = Server::replying(&[&answer("a1"), &answer("a1 again"), &failure()]);
    let b = Server::replying(&[&failure(), &answer("b1")]);
    let env = home(&a, &b);
    env.run(&["compare", "-m", "a,b", "one"]).exits(7);
    env.run(&["pick", "@2"]).exits(2).says(&["1@2 has no answer to continue with", "mmchat retry 1@2"]);
    env.run(&["pick", "@3"]).exits(2).says(&["no answer 3"]);
    env.run(&["pick"]).exits(2).says(&["1@1, 1@2"]);
    assert_eq!(env.run(&["retry"]).exits(0).out, "b1");
    assert_eq!(said(&b), list(&["one"]));
    env.run(&["retry"]).exits(2).says(&["nothing failed"]);
    assert_eq!(env.run(&["retry", "@1"]).exits(0).out, "a1 again");
    env.run(&["retry", "1@1"]).exits(5);
    assert_eq!(
        env.run(&["history", "show", "@1"]).exits(0).out,
        "a1 again\n",
        "a failed retry must keep the complete answer"
    );
    assert_eq!(env.run(&["history", "show", "@2"]).exits(0).out, "b1\n");
    assert_eq!(env.run(&["history", "export", "--format", "json"]).exits(0).json().as_array().map(Vec::len), Some(2));
}

#[test]
fn retried_call_keeps_its_number() {
    // One server per model: concurrent calls would reach a shared server in any order.
    let a = Server::replying(&[&answer("a1")]);
    let b = Server::replying(&[&failure(), &answer("b1")]);
    let c = Server::replying(&[&failure(), &answer("c1")]);
    let env = Home::with_models(&[("a", &a), ("b", &b), ("c", &c)]);
    env.run(&["compare", "-m", "a,b,c", "one"]).exits(7);
    env.run(&["retry"]).exits(0);
    for (turn, text) in [("@1", "a1\n"), ("@2", "b1\n"), ("@3", "c1\n")] {
        assert_eq!(env.run(&["history", "show", turn]).exits(0).out, text);
    }
}

#[test]
fn retry_runs_all_failed_calls() {
    let (a, b) = (Server::replying(&[&failure(), &answer("a1")]), Server::replying(&[&failure(), &answer("b1")]));
    let env = home(&a, &b);
    env.run(&["compare", "-m", "a,b", "one"]).exits(5);
    assert_eq!(env.run(&["retry"]).exits(0).out, "--- 1 a  ok\na1\n\n--- 2 b  ok\nb1\n");
    assert_eq!(env.run(&["history", "show", "1@2"]).exits(0).out, "b1\n");
}

#[test]
fn model_without_an_answer_starts_without_history() {
    let a = Server::replying(&[&answer("a1"), &answer("a2"), &answer("a3")]);
    let b = Server::replying(&[&answer("b2"), &answer("b3")]);
    let env = home(&a, &b);
    env.run(&["ask", "-m", "a", "one"]).exits(0);
    env.run(&["compare", "-m", "b,a", "--continue", "two"]).exits(0);
    assert_eq!(
        (said(&a), said(&b)),
        (list(&["one", "a1", "two"]), list(&["one", "a1", "two"])),
        "all models must see the single answer"
    );
    let result = env.run(&["compare", "-m", "a,b", "--continue=1.1", "--context", "separate", "three"]).exits(0);
    result.says(&["\"b\" has no answer in conversation 1"]);
    assert_eq!((said(&a), said(&b)), (list(&["one", "a1", "three"]), list(&["three"])));
    env.run(&["compare", "-m", "a", "--context", "shared", "x"]).exits(2).says(&["add --continue"]);
}

#[test]
fn each_sample_is_a_separate_call() {
    let a = Server::replying(&[&answer("s"), &answer("s"), &answer("s"), &answer("s")]);
    let b = Server::replying(&[]);
    let env = home(&a, &b);
    let result = env.run(&["compare", "-m", "a", "-n", "2", "one"]).exits(0);
    assert_eq!(result.out, "--- 1 a#1  ok\ns\n\n--- 2 a#2  ok\ns\n");
    env.run(&["compare", "--continue", "two"]).exits(0).says(&["a#2"]);
    assert_eq!(said(&a), list(&["one", "s", "two"]));
    env.run(&["compare", "-m", "a", "-n", "0", "one"]).exits(2).says(&["from 1 to 100"]);
}
