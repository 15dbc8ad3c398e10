//! Control characters in names, answers, errors, files and arguments: none reaches a terminal, a log or an export, and a
//! pipe gets answers unchanged.

use std::fs;

use crate::common::{ScriptedServer, TestEnv, answer, http_response, screen::TerminalProcess};

/// Sets the title, writes to the clipboard, hides and reorders text, in 7-bit and 8-bit sequences.
const HOSTILE: &str = "h\u{1b}]0;title\u{7}\u{9d}52;c;aGk=\u{9c}\u{1b}[8m\u{9b}2J\u{8}\u{85}\u{202e}i\u{2066}\u{e0061}";

fn toml_text(text: &str) -> String {
    // Strings of JSON are strings of TOML.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn hostile_env(server: &ScriptedServer) -> TestEnv {
    let text = toml_text(HOSTILE);
    TestEnv::with_config(&format!(
        "default = \"named\"\n[endpoints.e]\nbase_url = \"{}\"\n[models.named]\nendpoint = \"e\"\nmodel = {text}\n\
         tags = [\"t\"]\n[presets.p]\nsystem = {text}\nprompt = \"{{{{ input }}}}\"\n",
        server.url()
    ))
}

/// The characters of `text` that must not be shown, besides the sequences that mmchat itself uses.
fn forbidden(text: &str) -> String {
    let mut rest = text.to_owned();
    for own in ["\u{1b}[?2026h", "\u{1b}[?2026l", "\u{1b}[?25l", "\u{1b}[?25h", "\u{1b}[?2004l"] {
        rest = rest.replace(own, "");
    }
    // Colors, and movements of the cursor.
    while let Some(at) = rest.find("\u{1b}[") {
        let end = rest[at + 2..].find(|c: char| !c.is_ascii_digit() && c != ';').map_or(at, |length| at + 2 + length);
        if !rest[end..].starts_with(['m', 'A', 'B', 'C', 'G', 'J', 'K']) || &rest[at..=end] == "\u{1b}[8m" {
            break;
        }
        rest.replace_range(at..=end, "");
    }
    let is_forbidden = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
    };
    rest.chars().filter(|c| is_forbidden(*c)).collect()
}

/// Runs the command on a terminal, and checks what it shows.
fn run_on_terminal(env: &TestEnv, arguments: &[&str]) {
    let (text, _) = TerminalProcess::start(env, arguments, &[]).wait_for_exit();
    assert_eq!(forbidden(&text), "", "{arguments:?}: {text:?}");
    assert!(!text.is_empty(), "{arguments:?}");
}

fn error_reply() -> String {
    let error = serde_json::json!({"error": {"message": HOSTILE, "code": HOSTILE, "param": HOSTILE}});
    http_response("400 Bad Request", "content-type: application/json\r\n", &error.to_string())
}

#[test]
fn terminal_shows_no_control_characters() {
    let list = serde_json::json!({"data": [{"id": HOSTILE}, {"id": "other"}]}).to_string();
    let list = http_response("200 OK", "content-type: application/json\r\n", &list);
    let reply = answer(HOSTILE);
    let thoughts = serde_json::json!({"choices": [{"index": 0, "delta": {"reasoning_content": HOSTILE}}]});
    let thoughts = reply.replacen("data: ", &format!("data: {thoughts}\n\ndata: "), 1);
    let replies = [list.clone(), list, thoughts, reply.clone(), error_reply(), reply.clone(), reply];
    let server = ScriptedServer::with_replies(&replies.each_ref().map(String::as_str));
    let env = hostile_env(&server);
    fs::write(env.path("file\u{9b}2J"), "text").expect("writable file");
    for arguments in [
        &["models", "available", "e"][..],
        &["models", "sync", "e", "--dry-run"],
        &["ask", "-v", "--stats", "hi"],
        &["ask", "-v", "-p", "p", "hi"],
        &["ask", "-v", "hi"],
        &["compare", "-m", "named,e/x", HOSTILE.trim_end()],
        &["models"],
        &["config", "show"],
        &["config", "show", "--origin"],
        &["presets", "list"],
        &["presets", "show", "p"],
        &["status"],
        &["route", "explain", "named"],
        &["stats"],
        &["stats", "--format", "csv"],
        &["stats", "--format", "json"],
        &["history"],
        &["history", "show", "@1"],
        &["history", "export"],
        &["history", "export", "--format", "json"],
        &["ask", "--dry-run", "-p", "p", "hi"],
        &["ask", "-m", HOSTILE, "hi"],
        &["ask", "-f", HOSTILE, "hi"],
        &["ask", "-p", HOSTILE, "hi"],
        &["ask", "--format", HOSTILE],
        &["--config", HOSTILE, "models"],
        &[HOSTILE],
    ] {
        run_on_terminal(&env, arguments);
    }
    server.discard_remaining();
}

#[test]
fn pipe_gets_the_answer_unchanged() {
    let server = ScriptedServer::with_replies(&[&answer(HOSTILE), &answer(HOSTILE)]);
    let env = hostile_env(&server);
    let result = env.run(&["ask", "--no-log", "hi"]).expect_exit(0);
    assert_eq!(result.stdout.trim_end_matches('\n'), HOSTILE);
    let result = env.run(&["ask", "--no-log", "--format", "json", "hi"]).expect_exit(0);
    assert_eq!(result.json()["content"], HOSTILE);
    assert_eq!(forbidden(&result.stdout), "");
}

#[test]
fn exports_have_no_control_characters() {
    let server = ScriptedServer::with_replies(&[answer(HOSTILE).as_str(); 5]);
    let env = hostile_env(&server);
    let report = env.path("report.csv");
    let report_path = report.to_str().expect("UTF-8 path");
    env.run(&["compare", "-m", "named,e/x", "--out", report_path, HOSTILE]).expect_exit(0);
    let text = fs::read_to_string(report).expect("a report");
    assert!(text.contains("U+202E") && forbidden(&text).is_empty(), "{text:?}");
    for extension in ["html", "md", "json"] {
        let report = env.path(&format!("report.{extension}"));
        env.run(&["compare", "-m", "named", "--out", report.to_str().expect("UTF-8 path"), HOSTILE]).expect_exit(0);
        let text = fs::read_to_string(report).expect("a report");
        assert_eq!(forbidden(&text), "", "{extension}: {text:?}");
    }
    let server_files = [
        ("md", &["history", "export", "--output"][..]),
        ("json", &["history", "export", "--format", "json", "--output"]),
    ];
    for (extension, arguments) in server_files {
        let path = env.path(&format!("export.{extension}"));
        env.run(&[arguments, &[path.to_str().expect("UTF-8 path")]].concat()).expect_exit(0);
        let text = fs::read_to_string(path).expect("an export");
        assert_eq!(forbidden(&text), "", "{text:?}");
        assert!(text.contains("U+202E") || text.contains("\\u202e"), "{text}");
    }
    let stats = env.run(&["stats", "--format", "csv"]).expect_exit(0).stdout;
    assert_eq!(forbidden(&stats), "", "{stats:?}");
}
