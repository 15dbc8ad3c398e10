//! `chat`: a conversation through the binary: from a pipe, and on a terminal.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::common::{Home, Ran, Server, answer, reply};
use serde_json::Value;

fn home(server: &Server) -> Home {
    let entry = |name: &str| format!("[models.{name}]\nendpoint = \"m\"\nmodel = \"{name}\"\n");
    Home::with_server(server, &format!("{}{}", entry("a"), entry("b")))
}

/// Runs `command`, to which these lines are typed without a terminal.
fn typed(mut command: Command, lines: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    Ran::of(child.wait_with_output().expect("ends"))
}

fn chat(home: &Home, arguments: &[&str], lines: &str) -> Ran {
    let mut command = home.command();
    command.arg("chat").args(arguments);
    typed(command, lines)
}

/// What each request said.
fn said(server: &Server) -> Vec<Vec<String>> {
    let of = |sent: Value| {
        let messages = sent["messages"].as_array().expect("some").clone();
        messages.iter().map(|message| message["content"].as_str().expect("text").to_owned()).collect()
    };
    server.requests().iter().map(|request| of(request.json())).collect()
}

#[test]
fn each_line_of_a_pipe_is_a_question() {
    let server = Server::replying(&[&answer("1"), &answer("2\n"), &answer("3")]);
    let home = home(&server);
    let ran = chat(&home, &["-m", "a", "-s", "Brief.", "zero"], "one\n\n/nope\ntwo").exits(0);
    assert_eq!(ran.out, "1\n2\n3\n");
    ran.says(&["no command /nope"]);
    let last = ["Brief.", "zero", "1", "one", "2\n", "two"];
    assert_eq!(said(&server)[2], last);
    // It can be gone on with, by this command and by others.
    let more = Server::replying(&[&answer("4"), &answer("5")]);
    home.write_config(&format!(
        "[endpoints.m]\nbase_url = \"{}\"\n[models.a]\nendpoint = \"m\"\nmodel = \"a\"\n",
        more.url()
    ));
    chat(&home, &["--continue"], "three\n").exits(0);
    home.run(&["ask", "--continue", "four"]).exits(0);
    assert_eq!(said(&more)[1], [&last[..5], &["two", "3", "three", "4", "four"]].concat());
    assert_eq!(home.run(&["history", "show", "1@5"]).exits(0).out, "5\n");
}

#[test]
fn a_failure_is_told_and_the_conversation_goes_on() {
    let refusal =
        reply("400 Bad Request", "content-type: application/json\r\n", "{\"error\":{\"message\":\"too odd\"}}");
    let server = Server::replying(&[&refusal, &answer("fine")]);
    let home = home(&server);
    let ran = chat(&home, &["-m", "a"], "one\ntwo\n").exits(7).says(&["too odd"]);
    assert_eq!(ran.out, "fine\n");
    assert_eq!(said(&server)[1], ["two"], "what was not answered is not said again");
    chat(&home, &["-m", "a,none"], "one\n").exits(2).says(&["unknown model \"none\""]);
    chat(&home, &["-m", "a", "--output", "x"], "").exits(2).says(&["/save"]);
    chat(&home, &["-m", "a"], "").exits(0);
}

#[test]
fn two_models_are_asked_at_once_and_one_is_picked() {
    let server = Server::replying(&[&answer("x"), &answer("x"), &answer("y"), &answer("y")]);
    let home = home(&server);
    let path = home.path("talk.json").display().to_string();
    let ran = chat(&home, &["-m", "a,b"], &format!("one\n/pick 2\ntwo\n/save {path}\n")).exits(0);
    assert!(ran.out.starts_with("--- 1 a  ok\nx\n\n--- 2 b  ok\nx\n"), "{}", ran.out);
    assert_eq!(said(&server)[3], ["one", "x", "two"]);
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("saved")).expect("JSON");
    assert_eq!(
        saved["conversations"][0]["turns"][0],
        serde_json::json!({"question": "one", "answer": "x", "model": "b"})
    );
}

#[test]
fn a_conversation_is_saved_where_it_is_wanted() {
    let server = Server::replying(&[&answer("the answer")]);
    let home = home(&server);
    let path = home.path("talk.md").display().to_string();
    chat(&home, &["-m", "a"], &format!("/save {path}\none\n/save {path}\n/save {path}/x.md\n")).exits(0).says(&[
        "the conversation is empty",
        "saved to",
        "cannot write",
    ]);
    assert_eq!(std::fs::read_to_string(&path).expect("saved"), "# a\n\n> one\n\nthe answer\n\n");
    // No shell looks at it.
    #[cfg(unix)]
    {
        let server = Server::replying(&[&answer("x")]);
        chat(&Home::with_server(&server, ""), &["-m", "m/x"], "one\n/save ~/nowhere/at/home.md\n")
            .exits(0)
            .says(&["saved to /"]);
    }
}

#[test]
fn a_question_from_a_pipe_does_not_go_without_its_file() {
    let server = Server::replying(&[]);
    let ran = chat(&home(&server), &["-m", "a"], "/file no-such-file\nwhat is in it?\n").exits(2);
    ran.says(&["no-such-file: ", "check the path"]);
}

#[test]
fn what_is_no_text_is_told() {
    let server = Server::replying(&[&answer("1")]);
    let home = home(&server);
    let mut command = home.command();
    command.args(["chat", "-m", "a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(b"caf\xe9\n").expect("it reads");
    Ran::of(child.wait_with_output().expect("ends")).exits(0).says(&["is not valid UTF-8"]);
    assert_eq!(said(&server)[0], ["caf\u{fffd}"]);
}

#[test]
fn nothing_is_kept_where_nobody_wants_it() {
    let server = Server::replying(&[&answer("1"), &answer("2")]);
    let home = home(&server);
    chat(&home, &["-m", "a", "--no-log"], "one\ntwo\n").exits(0);
    assert_eq!(said(&server)[1], ["one", "1", "two"]);
    home.run(&["history", "show"]).exits(2);
}

#[cfg(unix)]
mod on_a_terminal {
    use std::{num::NonZero, sync::mpsc};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::common::{STOP, STREAM, Step, event, screen::Screen};

    /// A terminal that answers where its cursor is, as they do.
    fn answering(screen: &mut Screen, until: &str) {
        while !screen.seen.contains(until) {
            assert!(screen.read(), "ended without {until:?}: {:?}", screen.seen);
            if screen.seen.contains("\u{1b}[6n") {
                screen.seen = screen.seen.replace("\u{1b}[6n", "");
                screen.type_keys("\u{1b}[1;1R");
            }
        }
        let end = screen.seen.find(until).expect("it was waited for") + until.len();
        screen.seen.drain(..end);
    }

    fn start(home: &Home, arguments: &[&str]) -> Screen {
        let mut command = home.command();
        command.env_remove("COLUMNS").env("NO_COLOR", "1").arg("chat").args(arguments);
        Screen::of(command, true, (100, 30))
    }

    #[test]
    fn ctrl_c_stops_the_answer_keeps_what_came_and_then_leaves() {
        let (_shut, gate) = mpsc::channel::<()>();
        let half = vec![
            Step::Bytes(format!("{STREAM}{}", event("half an answer ")).into_bytes()),
            Step::Gate(gate),
            Step::Bytes(STOP.as_bytes().to_vec()),
        ];
        let server = Server::start(vec![half, vec![Step::Bytes(answer("the second one").into_bytes())]]);
        let home = home(&server);
        let mut screen = start(&home, &["-m", "a"]);
        answering(&mut screen, "a> ");
        screen.type_keys("one\r");
        answering(&mut screen, "half an answer");
        kill_process(Pid::from_child(&screen.child), Signal::INT).expect("it is there");
        answering(&mut screen, "[interrupted]");
        answering(&mut screen, "a> ");
        screen.type_keys("two\r");
        answering(&mut screen, "the second one");
        assert_eq!(said(&server)[1], ["one", "half an answer ", "two"]);
        answering(&mut screen, "a> ");
        screen.type_keys("\u{3}");
        answering(&mut screen, "once more");
        answering(&mut screen, "a> ");
        screen.type_keys("\u{3}");
        answering(&mut screen, "chat --continue");
        assert_eq!(screen.end().1, 130);
    }

    const TO_READ: &str = "# 第一\n\n借用检查器在编译期运行，并且**拒绝**悬垂引用。\n\n1. one owner\n2. many readers\n";

    /// Three rounds with two models, the second stopped in the middle; left, and gone on with.
    fn three_rounds(size: (u16, u16)) -> String {
        let half = |text: &str| {
            let (open, gate) = mpsc::channel::<()>();
            let begun = Step::Bytes(format!("{STREAM}{}", event(text)).into_bytes());
            (vec![begun, Step::Gate(gate), Step::Bytes(STOP.as_bytes().to_vec())], open)
        };
        let whole = |text: &str| vec![Step::Bytes(answer(text).into_bytes())];
        let ((half_a, _a), (half_b, _b)) = (half("half of one "), half("half of two "));
        let a = Server::start(vec![whole(TO_READ), half_a, whole("third"), whole("fourth")]);
        let b = Server::start(vec![whole("short"), half_b, whole("the third"), whole("the fourth")]);
        let home = Home::with_models(&[("a", &a), ("b", &b)]);
        let mut talk = Talk::start(&home, &["-m", "a,b"], size);
        for line in ["one", "two", "three"] {
            talk.says(line);
            if line == "two" {
                talk.until(|text| text.contains("half of one") && text.contains("half of two"));
                kill_process(Pid::from_child(&talk.screen.child), Signal::INT).expect("it is there");
            }
            talk.round_is_over();
        }
        talk.says("/pick 2");
        talk.says("/quit");
        let left = talk.end();
        let mut talk = Talk::start(&home, &["--continue"], size);
        talk.says("four");
        talk.round_is_over();
        talk.says("/quit");
        let resumed = talk.end();
        for (server, own) in [(&a, "half of one "), (&b, "half of two ")] {
            let said = said(server);
            assert_eq!(said[2][3..], [own, "three"], "what came is kept");
            let seen = ["one", "short", "two", "half of two ", "three", "the third", "four"];
            assert_eq!(said[3], seen, "the picked one is what all go on with");
        }
        assert_eq!(home.run(&["history", "show", "1.2@1"]).exits(0).says(&["incomplete"]).out, "half of one \n");
        format!("$ mmchat chat -m a,b\n{left}\n$ mmchat chat --continue\n{resumed}")
    }

    #[test]
    fn two_models_are_talked_with_stopped_left_and_gone_on_with() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
        for size in [(80, 24), (120, 40), (200, 50)] {
            let shown = three_rounds(size);
            let path = folder.join(format!("chat-{}x{}.txt", size.0, size.1));
            if std::env::var_os("MMCHAT_BLESS").is_some() {
                std::fs::write(&path, &shown).expect("writable");
            }
            let known = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(known == shown, "{} is now:\n{shown}", path.display());
        }
    }

    /// A terminal that is one: it knows where its cursor is, and says so when it is asked.
    struct Talk {
        screen: Screen,
        terminal: vt100::Parser,
        /// How often something was asked.
        rounds: usize,
    }

    impl Talk {
        fn start(home: &Home, arguments: &[&str], size: (u16, u16)) -> Self {
            let mut command = home.command();
            command.env_remove("COLUMNS").env("NO_COLOR", "1").arg("chat").args(arguments);
            let cells = |count| NonZero::new(count).expect("some");
            let terminal = vt100::Parser::new(cells(size.1), cells(size.0), 1000);
            Self { screen: Screen::of(command, true, size), terminal, rounds: 0 }
        }

        /// Takes what comes next; `false`: nothing does any more.
        fn read(&mut self) -> bool {
            const WHERE: &str = "\u{1b}[6n";
            let more = self.screen.read();
            while let Some(at) = self.screen.seen.find(WHERE) {
                let before: String = self.screen.seen.drain(..at + WHERE.len()).collect();
                self.terminal.process(before.as_bytes());
                let (row, column) = self.terminal.screen().cursor_position();
                self.screen.type_keys(&format!("\u{1b}[{};{}R", row + 1, column + 1));
            }
            // The question may have come in part.
            let held = (1..WHERE.len()).rev().find(|&part| self.screen.seen.ends_with(&WHERE[..part])).unwrap_or(0);
            let shown: String = self.screen.seen.drain(..self.screen.seen.len() - held).collect();
            self.terminal.process(shown.as_bytes());
            more
        }

        fn until(&mut self, is_there: impl Fn(&str) -> bool) {
            while !is_there(&self.shown()) {
                assert!(self.read(), "ended: {}", self.shown());
            }
        }

        /// It is asked what to say, and says this.
        fn says(&mut self, line: &str) {
            let asks = |text: &str| text.trim_end().lines().last().is_some_and(|last| last.trim_end() == "a, b>");
            self.until(asks);
            self.rounds += usize::from(!line.starts_with('/'));
            self.screen.type_keys(&format!("{line}\r"));
            let said = format!("a, b> {line}");
            self.until(|text| text.contains(&said));
        }

        /// The table of the round that was asked for last is there: what asks may have come with it at once.
        fn round_is_over(&mut self) {
            let rounds = self.rounds;
            self.until(|text| text.matches("#  model  state").count() == rounds);
        }

        /// All that stands in the scrollback and on the screen.
        fn shown(&mut self) -> String {
            let screen = self.terminal.screen_mut();
            let width = screen.size().1.get();
            screen.set_scrollback(usize::MAX);
            let above = screen.scrollback();
            let mut rows: Vec<String> = Vec::new();
            for offset in (1..=above).rev() {
                screen.set_scrollback(offset);
                rows.extend(screen.rows(0, width).next());
            }
            screen.set_scrollback(0);
            rows.extend(screen.rows(0, width));
            let text = rows.iter().fold(String::new(), |text, row| text + row.trim_end() + "\n");
            text.trim_end().to_owned() + "\n"
        }

        /// What is left of it, without its times.
        fn end(mut self) -> String {
            while self.read() {}
            assert_eq!(self.screen.child.wait().expect("ends").code(), Some(0));
            timeless(&self.shown())
        }
    }

    /// The rows of tables with a `.` for each time and what is computed from it.
    fn timeless(text: &str) -> String {
        let mut in_table = false;
        let line = |line: &str| {
            let head = line.starts_with("#  model");
            in_table = head || in_table && line.starts_with(|c: char| c.is_ascii_digit());
            if !in_table {
                return line.to_owned() + "\n";
            }
            let mut cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
            for timed in [3, 4, 6] {
                if !head {
                    cells[timed] = ".";
                }
            }
            cells.join("  ") + "\n"
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn the_polite_request_to_end_is_no_ctrl_c() {
        let (_shut, gate) = mpsc::channel::<()>();
        let half = Step::Bytes(format!("{STREAM}{}", event("half an answer ")).into_bytes());
        let server = Server::start(vec![vec![half, Step::Gate(gate)]]);
        let home = home(&server);
        let mut screen = start(&home, &["-m", "a"]);
        answering(&mut screen, "a> ");
        screen.type_keys("one\r");
        answering(&mut screen, "half an answer");
        kill_process(Pid::from_child(&screen.child), Signal::TERM).expect("it is there");
        assert_eq!(screen.end().1, 130);
        assert_eq!(home.run(&["history", "show", "@1"]).exits(0).out, "half an answer \n");
    }

    #[test]
    fn a_process_that_ends_while_it_waits_leaves_the_terminal_as_it_was() {
        let home = home(&Server::replying(&[]));
        let mut talk = Talk::start(&home, &["-m", "a,b"], (80, 24));
        talk.until(|text| text.contains("a, b>"));
        kill_process(Pid::from_child(&talk.screen.child), Signal::TERM).expect("it is there");
        while talk.read() {}
        assert_eq!(talk.screen.child.wait().expect("ends").code(), Some(130));
        assert!(!talk.terminal.screen().bracketed_paste(), "what is pasted is marked for nobody");
        assert_eq!(talk.terminal.screen().cursor_position().1, 0, "the shell begins on a line of its own");
    }

    #[test]
    fn nothing_is_drawn_where_nothing_can_move() {
        let server = Server::replying(&[&answer("the answer")]);
        let home = home(&server);
        let mut command = home.command();
        command.env("TERM", "dumb").args(["chat", "-m", "a"]);
        let mut screen = Screen::of(command, true, (80, 24));
        screen.wait_for("a> ");
        screen.type_keys("one\n/quit\n");
        let (seen, code) = screen.end();
        assert_eq!(code, 0);
        assert!(seen.contains("the answer") && !seen.contains('\u{1b}'), "{seen:?}");
    }

    #[test]
    fn a_pipes_conversation_ends_with_ctrl_c() {
        let (_shut, gate) = mpsc::channel::<()>();
        let half = Step::Bytes(format!("{STREAM}{}", event("half an answer ")).into_bytes());
        let server = Server::start(vec![vec![half, Step::Gate(gate)]]);
        let home = home(&server);
        let mut command = home.command();
        command.args(["chat", "-m", "a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("runs");
        child.stdin.take().expect("a pipe").write_all(b"one\ntwo\nthree\n").expect("it reads");
        let mut first = [0; 4];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("an answer");
        kill_process(Pid::from_child(&child), Signal::INT).expect("it is there");
        assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(130));
        assert_eq!(server.requests().len(), 1);
    }

    #[test]
    fn a_terminal_that_answers_nothing_can_be_talked_on() {
        let server = Server::replying(&[&answer("the answer")]);
        let home = home(&server);
        let mut screen = start(&home, &["-m", "a"]);
        screen.pass("does not report its cursor position");
        screen.pass("a> ");
        screen.type_keys("one\n");
        screen.pass("the answer");
        screen.pass("a> ");
        screen.type_keys("/quit\n");
        screen.pass("chat --continue");
        assert_eq!(screen.end().1, 0);
    }
}

/// A server that takes one connection, and answers all that is asked on it.
#[test]
fn the_connection_is_kept_from_turn_to_turn() {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("one");
        drop(listener);
        let mut input = BufReader::new(socket.try_clone().expect("the same"));
        for turn in ["1", "2", "3"] {
            let mut length = 0;
            loop {
                let mut line = String::new();
                input.read_line(&mut line).expect("a request");
                if let Some(count) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = count.trim().parse().expect("a number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            input.read_exact(&mut vec![0; length]).expect("a body");
            let body = format!("{}{}", crate::common::event(turn), crate::common::STOP);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
            write!(&socket, "{head}content-length: {}\r\n\r\n{body}", body.len()).expect("it reads");
        }
    });
    let config = format!("[endpoints.m]\nbase_url = \"http://{address}/v1\"\n");
    let ran = chat(&Home::with_config(&config), &["-m", "m/x"], "one\ntwo\nthree\n").exits(0);
    assert_eq!(ran.out, "1\n2\n3\n");
    server.join().expect("all of it was asked for");
}
