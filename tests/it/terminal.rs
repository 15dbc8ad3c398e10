//! `ask` on a terminal: what is shown, and when.

use std::sync::mpsc;

use crate::common::{
    STOP, STREAM, ScriptedServer, ServerStep, TestEnv, answer, content_event, screen::TerminalProcess,
};
use unicode_width::UnicodeWidthStr;

/// Removes styles from `text`. Panics on any other escape sequence, because an answer may contain styles only.
fn strip_styles(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().expect("split yields a part").to_owned();
    parts.fold(first, |mut out, part| {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).expect("complete sequence");
        assert!(part.starts_with('[') && &part[end..=end] == "m", "not a style: {part:?} in {text:?}");
        out.push_str(&part[end + 1..]);
        out
    })
}

#[test]
fn markdown_is_rendered_with_styles_only() {
    let source = "# Title\n\nSome **bold** words and `code`, long enough to be wrapped at the edge of eighty cells, whole.\n\n- one\n- 借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用，所以程序不会在运行时崩溃。\n";
    let chunks: Vec<String> = source.split_inclusive(' ').map(content_event).collect();
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{}{STOP}", chunks.concat())]);
    let env = TestEnv::with_server(&server, "");
    let (output, code) = TerminalProcess::start(&env, &["ask", "-m", "m/x", "hi"], &[]).wait_for_exit();
    let text = strip_styles(&output);
    assert_eq!(code, 0);
    assert!(
        text.starts_with("Title\n\nSome bold words and code, long") && output.contains("\u{1b}[1mbold"),
        "{output:?}"
    );
    assert!(text.contains("• one\n• 借用"), "{text}");
    assert!(text.lines().all(|line| line.width() < 80), "{text}");
}

#[test]
fn first_token_is_shown_while_the_stream_is_open() {
    let (open, gate) = mpsc::channel();
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{}", content_event("Hel")).into_bytes()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(format!("{}{STOP}", content_event("lo")).into_bytes()),
    ]]);
    let env = TestEnv::with_server(&server, "");
    let mut screen = TerminalProcess::start(&env, &["ask", "-m", "m/x", "hi"], &[]);
    screen.wait_for("Hel");
    open.send(()).expect("server waits at the gate");
    assert_eq!(screen.wait_for_exit(), ("Hello\n".to_owned(), 0));
}

#[test]
fn output_without_color_has_no_escape_bytes() {
    let hostile = answer("a **b** \u{1b}]0;title\u{7}\u{1b}[2Jc");
    for (arguments, environment) in [(&["--plain"][..], &[][..]), (&[], &[("NO_COLOR", "1")]), (&["--raw"], &[])] {
        let server = ScriptedServer::with_replies(&[&hostile]);
        let env = TestEnv::with_server(&server, "");
        let arguments = [&["ask", "-m", "m/x", "hi"], arguments].concat();
        assert_eq!(
            TerminalProcess::start(&env, &arguments, environment).wait_for_exit(),
            ("a **b** c\n".to_owned(), 0)
        );
    }
}

#[test]
fn incomplete_answer_restarts_on_the_next_candidate() {
    let server = ScriptedServer::with_replies(&[
        &format!("{STREAM}{}", content_event("half an ans")),
        &answer("the whole answer"),
    ]);
    let env = TestEnv::with_server(&server, "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\n");
    let (output, code) = TerminalProcess::start(&env, &["ask", "-m", "chat", "hi"], &[]).wait_for_exit();
    let lines: Vec<String> = strip_styles(&output).lines().map(str::to_owned).collect();
    assert_eq!(code, 0);
    assert_eq!((lines[0].as_str(), lines.last().map(String::as_str)), ("half an ans", Some("the whole answer")));
    assert!(lines[1].starts_with("m/a: incomplete: ") && lines[1].ends_with("restarting on m/b"), "{lines:?}");
}

#[test]
fn reasoning_between_text_has_separate_rows() {
    let reasoning = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n";
    let server = ScriptedServer::with_replies(&[&format!(
        "{STREAM}{}{reasoning}{}{STOP}",
        content_event("The answer "),
        content_event("is 42.")
    )]);
    let env = TestEnv::with_server(&server, "");
    let (output, _) = TerminalProcess::start(&env, &["ask", "-m", "m/x", "hi"], &[]).wait_for_exit();
    let text = strip_styles(&output);
    let rows: Vec<&str> = text.lines().map(str::trim).filter(|row| !row.is_empty()).collect();
    assert_eq!(rows, ["The answer", "hm", "is 42."], "{output:?}");
}

#[test]
fn messages_have_separate_rows() {
    let reasoning = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"thinking\"}}]}\n\n";
    let stop = STOP.replace("\"stop\"", "\"length\"");
    let server = ScriptedServer::with_replies(&[&format!("{STREAM}{reasoning}{}{stop}", content_event("text"))]);
    let env = TestEnv::with_server(&server, "");
    let (output, _) = TerminalProcess::start(&env, &["ask", "-m", "m/x", "--stats", "hi"], &[]).wait_for_exit();
    let lines: Vec<String> = strip_styles(&output).lines().map(str::to_owned).collect();
    assert_eq!(&lines[..3], ["thinking", "", "text"]);
    assert!(lines[3].starts_with("warning:") && lines[4].starts_with("m/x  ttft"), "{lines:?}");
}
