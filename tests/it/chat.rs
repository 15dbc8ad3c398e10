//! `chat` through the binary: with piped input and on a terminal.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::common::{CommandResult, ScriptedServer, TestEnv, answer, http_response};
use serde_json::Value;

fn chat_env(server: &ScriptedServer) -> TestEnv {
    let entry = |name: &str| format!("[models.{name}]\nendpoint = \"m\"\nmodel = \"{name}\"\n");
    TestEnv::with_server(server, &format!("{}{}", entry("a"), entry("b")))
}

/// Runs `command` with these lines as piped standard input.
fn run_with_lines(mut command: Command, lines: &str) -> CommandResult {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("program starts");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("open input");
    CommandResult::from_output(child.wait_with_output().expect("child has been started"))
}

fn chat(env: &TestEnv, arguments: &[&str], lines: &str) -> CommandResult {
    let mut command = env.command();
    command.arg("chat").args(arguments);
    run_with_lines(command, lines)
}

/// The message texts of each request.
fn sent_messages(server: &ScriptedServer) -> Vec<Vec<String>> {
    let message_texts = |body: Value| {
        let messages = body["messages"].as_array().expect("JSON array").clone();
        messages.iter().map(|message| message["content"].as_str().expect("string").to_owned()).collect()
    };
    server.requests().iter().map(|request| message_texts(request.json())).collect()
}

#[test]
fn each_piped_line_is_a_prompt() {
    let server = ScriptedServer::with_replies(&[&answer("1"), &answer("2\n"), &answer("3")]);
    let env = chat_env(&server);
    let result = chat(&env, &["-m", "a", "-s", "Brief.", "zero"], "one\n\n/nope\ntwo").expect_exit(0);
    assert_eq!(result.stdout, "1\n2\n3\n");
    result.expect_stderr(&["unknown command \"/nope\""]);
    let last = ["Brief.", "zero", "1", "one", "2\n", "two"];
    assert_eq!(sent_messages(&server)[2], last);
    // `chat` and `ask` can both continue the conversation.
    let second_server = ScriptedServer::with_replies(&[&answer("4"), &answer("5")]);
    env.write_config(&format!(
        "[endpoints.m]\nbase_url = \"{}\"\n[models.a]\nendpoint = \"m\"\nmodel = \"a\"\n",
        second_server.url()
    ));
    chat(&env, &["--continue"], "three\n").expect_exit(0);
    env.run(&["ask", "--continue", "four"]).expect_exit(0);
    assert_eq!(sent_messages(&second_server)[1], [&last[..5], &["two", "3", "three", "4", "four"]].concat());
    assert_eq!(env.run(&["history", "show", "1@5"]).expect_exit(0).stdout, "5\n");
}

#[test]
fn failed_turn_is_reported_and_left_out_of_the_history() {
    let refusal =
        http_response("400 Bad Request", "content-type: application/json\r\n", "{\"error\":{\"message\":\"too odd\"}}");
    let server = ScriptedServer::with_replies(&[&refusal, &answer("fine")]);
    let env = chat_env(&server);
    let result = chat(&env, &["-m", "a"], "one\ntwo\n").expect_exit(7).expect_stderr(&["too odd"]);
    assert_eq!(result.stdout, "fine\n");
    assert_eq!(sent_messages(&server)[1], ["two"], "a failed prompt must not be sent again");
    chat(&env, &["-m", "a,none"], "one\n").expect_exit(2).expect_stderr(&["unknown model \"none\""]);
    chat(&env, &["-m", "a", "--output", "x"], "").expect_exit(2).expect_stderr(&["/save"]);
    chat(&env, &["-m", "a"], "").expect_exit(0);
}

#[test]
fn picked_answer_of_two_models_continues_the_conversation() {
    let server = ScriptedServer::with_replies(&[&answer("x"), &answer("x"), &answer("y"), &answer("y")]);
    let env = chat_env(&server);
    let path = env.path("talk.json").display().to_string();
    let result = chat(&env, &["-m", "a,b"], &format!("one\n/pick 2\ntwo\n/save {path}\n")).expect_exit(0);
    assert!(result.stdout.starts_with("--- 1 a  ok\nx\n\n--- 2 b  ok\nx\n"), "{}", result.stdout);
    assert_eq!(sent_messages(&server)[3], ["one", "x", "two"]);
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("saved file")).expect("valid JSON");
    assert_eq!(
        saved["conversations"][0]["turns"][0],
        serde_json::json!({"question": "one", "answer": "x", "model": "b"})
    );
}

#[test]
fn save_writes_the_conversation_to_the_given_path() {
    let server = ScriptedServer::with_replies(&[&answer("the answer")]);
    let env = chat_env(&server);
    let path = env.path("talk.md").display().to_string();
    chat(&env, &["-m", "a"], &format!("/save {path}\none\n/save {path}\n/save {path}/x.md\n"))
        .expect_exit(0)
        .expect_stderr(&["the conversation is empty", "saved to", "cannot write"]);
    assert_eq!(std::fs::read_to_string(&path).expect("saved file"), "# a\n\n> one\n\nthe answer\n\n");
    // `~` is expanded without a shell.
    #[cfg(unix)]
    {
        let server = ScriptedServer::with_replies(&[&answer("x")]);
        chat(&TestEnv::with_server(&server, ""), &["-m", "m/x"], "one\n/save ~/nowhere/at/home.md\n")
            .expect_exit(0)
            .expect_stderr(&["saved to /"]);
    }
}

#[test]
fn missing_file_stops_piped_input_with_exit_2() {
    let server = ScriptedServer::with_replies(&[]);
    let result = chat(&chat_env(&server), &["-m", "a"], "/file no-such-file\nwhat is in it?\n").expect_exit(2);
    result.expect_stderr(&["no-such-file: ", "check the path"]);
}

#[test]
fn invalid_utf8_input_is_warned_about() {
    let server = ScriptedServer::with_replies(&[&answer("1")]);
    let env = chat_env(&server);
    let mut command = env.command();
    command.args(["chat", "-m", "a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("program starts");
    child.stdin.take().expect("piped").write_all(b"caf\xe9\n").expect("open input");
    CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(0)
        .expect_stderr(&["is not valid UTF-8"]);
    assert_eq!(sent_messages(&server)[0], ["caf\u{fffd}"]);
}

#[test]
fn no_log_records_nothing() {
    let server = ScriptedServer::with_replies(&[&answer("1"), &answer("2")]);
    let env = chat_env(&server);
    chat(&env, &["-m", "a", "--no-log"], "one\ntwo\n").expect_exit(0);
    assert_eq!(sent_messages(&server)[1], ["one", "1", "two"]);
    env.run(&["history", "show"]).expect_exit(2);
}

#[cfg(unix)]
mod on_a_terminal {
    use std::{num::NonZero, sync::mpsc};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::common::{STOP, STREAM, ServerStep, content_event, screen::TerminalProcess};

    /// Waits for `until` and answers cursor position queries, as a terminal does.
    fn answer_queries_until(screen: &mut TerminalProcess, text: &str) {
        while !screen.output.contains(text) {
            assert!(screen.read(), "ended without {text:?}: {:?}", screen.output);
            if screen.output.contains("\u{1b}[6n") {
                screen.output = screen.output.replace("\u{1b}[6n", "");
                screen.type_keys("\u{1b}[1;1R");
            }
        }
        let end = screen.output.find(text).expect("waited for above") + text.len();
        screen.output.drain(..end);
    }

    fn start(env: &TestEnv, arguments: &[&str]) -> TerminalProcess {
        let mut command = env.command();
        command.env_remove("COLUMNS").env("NO_COLOR", "1").arg("chat").args(arguments);
        TerminalProcess::spawn(command, true, (100, 30))
    }

    #[test]
    fn ctrl_c_stops_the_answer_and_twice_at_the_prompt_exits() {
        let (_sender, gate) = mpsc::channel::<()>();
        let partial = vec![
            ServerStep::Bytes(format!("{STREAM}{}", content_event("half an answer ")).into_bytes()),
            ServerStep::Gate(gate),
            ServerStep::Bytes(STOP.as_bytes().to_vec()),
        ];
        let server =
            ScriptedServer::start(vec![partial, vec![ServerStep::Bytes(answer("the second one").into_bytes())]]);
        let env = chat_env(&server);
        let mut screen = start(&env, &["-m", "a"]);
        answer_queries_until(&mut screen, "a> ");
        screen.type_keys("one\r");
        answer_queries_until(&mut screen, "half an answer");
        kill_process(Pid::from_child(&screen.child), Signal::INT).expect("running process");
        answer_queries_until(&mut screen, "[interrupted]");
        answer_queries_until(&mut screen, "a> ");
        screen.type_keys("two\r");
        answer_queries_until(&mut screen, "the second one");
        assert_eq!(sent_messages(&server)[1], ["one", "half an answer ", "two"]);
        answer_queries_until(&mut screen, "a> ");
        screen.type_keys("\u{3}");
        answer_queries_until(&mut screen, "Ctrl-C again");
        answer_queries_until(&mut screen, "a> ");
        screen.type_keys("\u{3}");
        answer_queries_until(&mut screen, "chat --continue");
        assert_eq!(screen.wait_for_exit().1, 130);
    }

    const MARKDOWN_ANSWER: &str =
        "# 第一\n\n借用检查器在编译期运行，并且**拒绝**悬垂引用。\n\n1. one owner\n2. many readers\n";

    /// Three rounds with two models, the second one interrupted, then a fourth round after quitting and resuming.
    fn three_rounds(size: (u16, u16)) -> String {
        let partial = |text: &str| {
            let (open, gate) = mpsc::channel::<()>();
            let first = ServerStep::Bytes(format!("{STREAM}{}", content_event(text)).into_bytes());
            (vec![first, ServerStep::Gate(gate), ServerStep::Bytes(STOP.as_bytes().to_vec())], open)
        };
        let complete = |text: &str| vec![ServerStep::Bytes(answer(text).into_bytes())];
        let ((partial_a, _gate_a), (partial_b, _gate_b)) = (partial("half of one "), partial("half of two "));
        let a =
            ScriptedServer::start(vec![complete(MARKDOWN_ANSWER), partial_a, complete("third"), complete("fourth")]);
        let b =
            ScriptedServer::start(vec![complete("short"), partial_b, complete("the third"), complete("the fourth")]);
        let env = TestEnv::with_models(&[("a", &a), ("b", &b)]);
        let mut chat = EmulatedChat::start(&env, &["-m", "a,b"], size);
        for line in ["one", "two", "three"] {
            chat.send_line(line);
            if line == "two" {
                chat.wait_until(|text| text.contains("half of one") && text.contains("half of two"));
                kill_process(Pid::from_child(&chat.screen.child), Signal::INT).expect("running process");
            }
            chat.wait_for_round();
        }
        chat.send_line("/pick 2");
        chat.send_line("/quit");
        let first_run = chat.finish();
        let mut chat = EmulatedChat::start(&env, &["--continue"], size);
        chat.send_line("four");
        chat.wait_for_round();
        chat.send_line("/quit");
        let resumed = chat.finish();
        for (server, partial_text) in [(&a, "half of one "), (&b, "half of two ")] {
            let sent = sent_messages(server);
            assert_eq!(sent[2][3..], [partial_text, "three"], "the partial answer must be kept");
            let want = ["one", "short", "two", "half of two ", "three", "the third", "four"];
            assert_eq!(sent[3], want, "all models must continue from the picked answer");
        }
        assert_eq!(
            env.run(&["history", "show", "1.2@1"]).expect_exit(0).expect_stderr(&["incomplete"]).stdout,
            "half of one \n"
        );
        format!("$ mmchat chat -m a,b\n{first_run}\n$ mmchat chat --continue\n{resumed}")
    }

    #[test]
    fn two_model_chat_matches_the_recorded_screens() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
        for size in [(80, 24), (120, 40), (200, 50)] {
            let shown = three_rounds(size);
            let path = folder.join(format!("chat-{}x{}.txt", size.0, size.1));
            if std::env::var_os("MMCHAT_BLESS").is_some() {
                std::fs::write(&path, &shown).expect("writable file");
            }
            let recorded = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(recorded == shown, "{} differs from:\n{shown}", path.display());
        }
    }

    /// A `chat` process on an emulated terminal that answers cursor position queries.
    struct EmulatedChat {
        screen: TerminalProcess,
        emulator: vt100::Parser,
        /// How many prompts were sent.
        rounds: usize,
    }

    impl EmulatedChat {
        fn start(env: &TestEnv, arguments: &[&str], size: (u16, u16)) -> Self {
            let mut command = env.command();
            command.env_remove("COLUMNS").env("NO_COLOR", "1").arg("chat").args(arguments);
            let cells = |count| NonZero::new(count).expect("nonzero size");
            let emulator = vt100::Parser::new(cells(size.1), cells(size.0), 1000);
            Self { screen: TerminalProcess::spawn(command, true, size), emulator, rounds: 0 }
        }

        /// Processes the next output; `false` at the end of the output.
        fn read(&mut self) -> bool {
            const CURSOR_QUERY: &str = "\u{1b}[6n";
            let more = self.screen.read();
            while let Some(at) = self.screen.output.find(CURSOR_QUERY) {
                let before: String = self.screen.output.drain(..at + CURSOR_QUERY.len()).collect();
                self.emulator.process(before.as_bytes());
                let (row, column) = self.emulator.screen().cursor_position();
                self.screen.type_keys(&format!("\u{1b}[{};{}R", row + 1, column + 1));
            }
            // The output may end in the middle of a query.
            let partial = (1..CURSOR_QUERY.len())
                .rev()
                .find(|&len| self.screen.output.ends_with(&CURSOR_QUERY[..len]))
                .unwrap_or(0);
            let shown: String = self.screen.output.drain(..self.screen.output.len() - partial).collect();
            self.emulator.process(shown.as_bytes());
            more
        }

        fn wait_until(&mut self, condition: impl Fn(&str) -> bool) {
            while !condition(&self.contents()) {
                assert!(self.read(), "ended: {}", self.contents());
            }
        }

        /// Waits for the prompt, types `line` and waits until it is shown.
        fn send_line(&mut self, line: &str) {
            let at_prompt = |text: &str| text.trim_end().lines().last().is_some_and(|last| last.trim_end() == "a, b>");
            self.wait_until(at_prompt);
            self.rounds += usize::from(!line.starts_with('/'));
            self.screen.type_keys(&format!("{line}\r"));
            let typed = format!("a, b> {line}");
            self.wait_until(|text| text.contains(&typed));
        }

        /// Waits for the table of the last round. The next prompt may be shown already.
        fn wait_for_round(&mut self) {
            let rounds = self.rounds;
            self.wait_until(|text| text.matches("#  model  state").count() == rounds);
        }

        /// The text of the scrollback and the screen.
        fn contents(&mut self) -> String {
            let screen = self.emulator.screen_mut();
            let width = screen.size().1.get();
            screen.set_scrollback(usize::MAX);
            let scrollback_rows = screen.scrollback();
            let mut rows: Vec<String> = Vec::new();
            for offset in (1..=scrollback_rows).rev() {
                screen.set_scrollback(offset);
                rows.extend(screen.rows(0, width).next());
            }
            screen.set_scrollback(0);
            rows.extend(screen.rows(0, width));
            let text = rows.iter().fold(String::new(), |text, row| text + row.trim_end() + "\n");
            text.trim_end().to_owned() + "\n"
        }

        /// Waits for the process to exit and returns the text with its times masked.
        fn finish(mut self) -> String {
            while self.read() {}
            assert_eq!(self.screen.child.wait().expect("child has been started").code(), Some(0));
            mask_times(&self.contents())
        }
    }

    /// Replaces the times in table rows, and the values computed from them, with `.`.
    fn mask_times(text: &str) -> String {
        let mut in_table = false;
        let line = |line: &str| {
            let is_header = line.starts_with("#  model");
            in_table = is_header || in_table && line.starts_with(|c: char| c.is_ascii_digit());
            if !in_table {
                return line.to_owned() + "\n";
            }
            let mut cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            for column in [3, 4, 6] {
                if !is_header {
                    cells[column] = ".";
                }
            }
            cells.join("  ") + "\n"
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn sigterm_ends_the_process_and_keeps_the_partial_answer() {
        let (_sender, gate) = mpsc::channel::<()>();
        let partial = ServerStep::Bytes(format!("{STREAM}{}", content_event("half an answer ")).into_bytes());
        let server = ScriptedServer::start(vec![vec![partial, ServerStep::Gate(gate)]]);
        let env = chat_env(&server);
        let mut screen = start(&env, &["-m", "a"]);
        answer_queries_until(&mut screen, "a> ");
        screen.type_keys("one\r");
        answer_queries_until(&mut screen, "half an answer");
        kill_process(Pid::from_child(&screen.child), Signal::TERM).expect("running process");
        assert_eq!(screen.wait_for_exit().1, 130);
        assert_eq!(env.run(&["history", "show", "@1"]).expect_exit(0).stdout, "half an answer \n");
    }

    #[test]
    fn sigterm_at_the_prompt_restores_the_terminal() {
        let env = chat_env(&ScriptedServer::with_replies(&[]));
        let mut chat = EmulatedChat::start(&env, &["-m", "a,b"], (80, 24));
        chat.wait_until(|text| text.contains("a, b>"));
        kill_process(Pid::from_child(&chat.screen.child), Signal::TERM).expect("running process");
        while chat.read() {}
        assert_eq!(chat.screen.child.wait().expect("child has been started").code(), Some(130));
        assert!(!chat.emulator.screen().bracketed_paste(), "bracketed paste must be off");
        assert_eq!(chat.emulator.screen().cursor_position().1, 0, "the cursor must be at the start of a line");
    }

    #[test]
    fn dumb_terminal_gets_no_escape_sequences() {
        let server = ScriptedServer::with_replies(&[&answer("the answer")]);
        let env = chat_env(&server);
        let mut command = env.command();
        command.env("TERM", "dumb").args(["chat", "-m", "a"]);
        let mut screen = TerminalProcess::spawn(command, true, (80, 24));
        screen.wait_for("a> ");
        screen.type_keys("one\n/quit\n");
        let (output, code) = screen.wait_for_exit();
        assert_eq!(code, 0);
        assert!(output.contains("the answer") && !output.contains('\u{1b}'), "{output:?}");
    }

    #[test]
    fn ctrl_c_ends_piped_chat_with_exit_130() {
        let (_sender, gate) = mpsc::channel::<()>();
        let partial = ServerStep::Bytes(format!("{STREAM}{}", content_event("half an answer ")).into_bytes());
        let server = ScriptedServer::start(vec![vec![partial, ServerStep::Gate(gate)]]);
        let env = chat_env(&server);
        let mut command = env.command();
        command.args(["chat", "-m", "a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("program starts");
        child.stdin.take().expect("piped").write_all(b"one\ntwo\nthree\n").expect("open input");
        let mut first = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut first).expect("start of the answer");
        kill_process(Pid::from_child(&child), Signal::INT).expect("running process");
        assert_eq!(child.wait_with_output().expect("child has been started").status.code(), Some(130));
        assert_eq!(server.requests().len(), 1);
    }

    #[test]
    fn chat_works_on_a_terminal_without_cursor_reports() {
        let server = ScriptedServer::with_replies(&[&answer("the answer")]);
        let env = chat_env(&server);
        let mut screen = start(&env, &["-m", "a"]);
        screen.consume_until("does not report its cursor position");
        screen.consume_until("a> ");
        screen.type_keys("one\n");
        screen.consume_until("the answer");
        screen.consume_until("a> ");
        screen.type_keys("/quit\n");
        screen.consume_until("chat --continue");
        assert_eq!(screen.wait_for_exit().1, 0);
    }
}

/// The server accepts one connection and answers three requests on it.
#[test]
fn connection_is_reused_between_turns() {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("free port");
    let address = listener.local_addr().expect("bound address");
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("incoming connection");
        drop(listener);
        let mut input = BufReader::new(socket.try_clone().expect("clonable socket"));
        for turn in ["1", "2", "3"] {
            let mut length = 0;
            loop {
                let mut line = String::new();
                input.read_line(&mut line).expect("request line");
                if let Some(count) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = count.trim().parse().expect("number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            input.read_exact(&mut vec![0; length]).expect("request body");
            let body = format!("{}{}", crate::common::content_event(turn), crate::common::STOP);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
            write!(&socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("open connection");
        }
    });
    let config = format!("[endpoints.m]\nbase_url = \"http://{address}/v1\"\n");
    let result = chat(&TestEnv::with_config(&config), &["-m", "m/x"], "one\ntwo\nthree\n").expect_exit(0);
    assert_eq!(result.stdout, "1\n2\n3\n");
    server.join().expect("three requests on one connection");
}
