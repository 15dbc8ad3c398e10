//! Votes, diffs and reports of `compare`.

use crate::common::{CommandResult, ScriptedServer, TestEnv, answer, http_response};

fn run_compare(answers: &[&str], more: &[&str]) -> CommandResult {
    let replies: Vec<String> = answers.iter().map(|text| answer(text)).collect();
    let replies: Vec<&str> = replies.iter().map(String::as_str).collect();
    let server = ScriptedServer::with_replies(&replies);
    let env = TestEnv::with_server(&server, "");
    let samples = answers.len().to_string();
    // One call at a time, so that each call gets its answer from the list.
    let arguments = ["compare", "-m", "m/x", "-n", &samples, "--max-concurrency", "1", "hi"];
    env.run(&[&arguments[..], more].concat())
}

#[test]
fn vote_without_a_majority_exits_9() {
    let result = run_compare(&["It is 42.", "42", "41"], &["--vote", "--view", "quiet"]).expect_exit(0);
    assert!(
        result.stdout.ends_with(
            "\nvote: 42  (2 of 3)\nvotes  answer  models\n    2  42      m/x#1, m/x#2\n    1  41      m/x#3\n"
        )
    );
    run_compare(&["yes", "no"], &["--vote=choice"]).expect_exit(9);
    let json = run_compare(&["{\"n\": 1}", "{\"n\": 1.0}"], &["--vote", "--field", "n", "--format", "json"])
        .expect_exit(0)
        .json();
    assert_eq!((&json["vote"]["majority"], json["answers"].as_array().map(Vec::len)), (&"1".into(), Some(2)));
    TestEnv::new().run(&["compare", "-m", "x", "--field", "a", "hi"]).expect_exit(2).expect_stderr(&["--vote"]);
}

#[test]
fn piped_diff_has_no_escape_sequences() {
    let result = run_compare(&["The sky is blue.", "The sea is blue.", "the sky is blue"], &["--diff"]).expect_exit(0);
    assert!(result.stdout.contains("\nidentical: 1 = 3\n#  similarity"), "{}", result.stdout);
    assert!(
        result.stdout.ends_with("\n--- 1 m/x#1\n+++ 2 m/x#2\nThe [-sky-]{+sea+} is blue.\n")
            && !result.stdout.contains('\u{1b}')
    );
    let result = run_compare(&["a b", "a c", "a d"], &["--diff", "3", "1", "--format", "jsonl"]).expect_exit(0);
    let last: serde_json::Value =
        serde_json::from_str(result.stdout.lines().last().expect("at least one line")).expect("valid JSON");
    assert_eq!(
        (&last["event"], &last["from"], &last["changes"][1]["removed"]),
        (&"words".into(), &2.into(), &"d".into())
    );
    let server = ScriptedServer::with_replies(&[]);
    let env = TestEnv::with_server(&server, "");
    env.run(&["compare", "-m", "m/x,m/y", "--diff=1,9", "hi"])
        .expect_exit(2)
        .expect_stderr(&["no answer \"9\"", "2 m/y"]);
    env.run(&["compare", "-m", "m/x", "--vote=odd", "hi"])
        .expect_exit(2)
        .expect_stderr(&["unknown kind of vote \"odd\""]);
}

#[test]
fn report_is_written_when_a_call_fails() {
    let refusal =
        http_response("400 Bad Request", "content-type: application/json\r\n", "{\"error\":{\"message\":\"no such\"}}");
    let server = ScriptedServer::with_replies(&[&answer("**fine** <script>x</script>"), &refusal]);
    let env = TestEnv::with_server(&server, "");
    let path = env.path("report.html");
    let path_text = path.display().to_string();
    env.run(&["compare", "-m", "m/x,m/y", "--max-concurrency", "1", "--out", &path_text, "hi"])
        .expect_exit(7)
        .expect_stderr(&["report: "]);
    let page = std::fs::read_to_string(&path).expect("written file");
    assert!(
        page.contains("<strong>fine</strong>") && page.contains("no such") && !page.contains("<script>x"),
        "{page}"
    );
}

#[test]
fn unwritable_report_is_rejected_before_any_request() {
    let server = ScriptedServer::with_replies(&[]);
    let env = TestEnv::with_server(&server, "");
    let folder = env.folder.path().display().to_string();
    env.run(&["compare", "-m", "m/x", "--out", &format!("{folder}/no/such/r.html"), "hi"])
        .expect_exit(1)
        .expect_stderr(&["no/such/r.html"]);
    env.run(&["compare", "-m", "m/x", "--out", &folder, "hi"]).expect_exit(2).expect_stderr(&["extension"]);
    env.run(&["compare", "-m", "m/x", "--out", "r.pdf", "hi"])
        .expect_exit(2)
        .expect_stderr(&[".html, .md, .json, .csv"]);
    assert_eq!(server.requests().len(), 0);
}
