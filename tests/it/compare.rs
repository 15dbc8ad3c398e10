//! `compare` through the binary: order of the answers, failures, and output on pipes and terminals.

use std::sync::mpsc;

use crate::common::{STOP, STREAM, ScriptedServer, ServerStep, TestEnv, answer, content_event, http_response};

const UNAUTHORIZED: &str = "{\"error\":{\"message\":\"Incorrect API key provided.\",\"code\":\"invalid_api_key\"}}";

/// An environment whose endpoints `a`, `b`, … are these servers, with a model `a1`, `b1`, … on each.
fn compare_env(servers: &[&ScriptedServer], more: &str) -> TestEnv {
    let entry = |(name, server): (&&str, &&ScriptedServer)| {
        let url = server.url();
        format!(
            "[endpoints.{name}]\nbase_url = \"{url}\"\n\
             [models.{name}1]\nendpoint = \"{name}\"\nmodel = \"m\"\ntags = [\"{name}\", \"any\"]\n"
        )
    };
    let config: Vec<String> = ["a", "b", "c", "d"].iter().zip(servers).map(entry).collect();
    let config = config.concat();
    TestEnv::with_config(&format!("{config}{more}"))
}

fn unauthorized() -> String {
    http_response("401 Unauthorized", "content-type: application/json\r\n", UNAUTHORIZED)
}

#[test]
fn piped_answers_are_complete_and_in_model_order() {
    let (open, gate) = mpsc::channel();
    let slow = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{}", content_event("slow ")).into_bytes()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(format!("{}{STOP}", content_event("but first")).into_bytes()),
    ]]);
    let fast = ScriptedServer::with_replies(&[&answer("fast \u{1b}[31m and \u{1b}]0;x\u{7}借用")]);
    let env = compare_env(&[&slow, &fast], "");
    let mut command = env.command();
    command.args(["compare", "-m", "a1,b1", "hi"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().expect("program starts");
    // The second request is sent before the first one finishes.
    while fast.requests().is_empty() {
        std::thread::yield_now();
    }
    open.send(()).expect("server waits at the gate");
    let result = crate::common::CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(0);
    assert_eq!(result.stdout, "--- 1 a1  ok\nslow but first\n\n--- 2 b1  ok\nfast  and 借用\n");
    assert!(result.stderr.contains("#  model  state") && !result.stderr.contains('\u{1b}'), "{result:#?}");
}

#[test]
fn failed_and_incomplete_calls_do_not_affect_others() {
    let complete = ScriptedServer::with_replies(&[&answer("good")]);
    let refused = ScriptedServer::with_replies(&[&unauthorized()]);
    let incomplete = ScriptedServer::with_replies(&[&format!("{STREAM}{}", content_event("half"))]);
    let env = compare_env(&[&complete, &refused, &incomplete], "");
    let result =
        env.run(&["compare", "--all", "hi"]).expect_exit(7).expect_stderr(&["auth 401", "is incomplete", "ERR auth"]);
    assert_eq!(result.stdout, "--- 1 a1  ok\ngood\n\n--- 2 b1  ERR auth\n\n--- 3 c1  incomplete\nhalf\n");
}

#[test]
fn common_failure_sets_the_exit_code() {
    let (one, two) =
        (ScriptedServer::with_replies(&[&unauthorized()]), ScriptedServer::with_replies(&[&unauthorized()]));
    compare_env(&[&one, &two], "").run(&["compare", "--all", "hi"]).expect_exit(4);
    let (one, two) = (
        ScriptedServer::with_replies(&[&unauthorized()]),
        ScriptedServer::with_replies(&[&http_response("400 Bad", "", "{}")]),
    );
    compare_env(&[&one, &two], "").run(&["compare", "--all", "hi"]).expect_exit(5);
}

#[test]
fn incomplete_answer_of_a_route_restarts_without_partial_output() {
    let incomplete = ScriptedServer::with_replies(&[&format!("{STREAM}{}", content_event("half"))]);
    let complete = ScriptedServer::with_replies(&[&answer("whole")]);
    let env = compare_env(&[&incomplete, &complete], "[routes.r]\nmodels = [\"a1\", \"b1\"]\n");
    let result =
        env.run(&["compare", "-m", "r", "hi"]).expect_exit(0).expect_stderr(&["r: a1: incomplete", "trying b1"]);
    assert_eq!(result.stdout, "--- 1 r  ok\nwhole\n");
}

#[test]
fn json_jsonl_and_markdown_contain_all_answers() {
    let servers =
        || (ScriptedServer::with_replies(&[&answer("one")]), ScriptedServer::with_replies(&[&unauthorized()]));
    let (one, two) = servers();
    let json =
        compare_env(&[&one, &two], "").run(&["compare", "--all", "--format", "json", "hi"]).expect_exit(7).json();
    assert_eq!((&json[0]["model"], &json[0]["content"]), (&"a1".into(), &"one".into()));
    assert_eq!((&json[1]["model"], &json[1]["error"]["class"]), (&"b1".into(), &"auth".into()));
    let (one, two) = servers();
    let result = compare_env(&[&one, &two], "").run(&["compare", "--all", "--format", "jsonl", "hi"]).expect_exit(7);
    let lines: Vec<serde_json::Value> =
        result.stdout.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect();
    assert_eq!(lines[0]["calls"], serde_json::json!(["a1", "b1"]));
    assert_eq!(lines.iter().filter(|line| line["event"] == "finished").count(), 2);
    let (one, two) = servers();
    let result = compare_env(&[&one, &two], "").run(&["compare", "--all", "--format", "markdown", "hi"]).expect_exit(7);
    assert_eq!(result.stdout, "# a1\n\none\n\n# b1\n");
}

#[test]
fn selection_is_validated_before_stdin_is_read() {
    let unused = ScriptedServer::with_replies(&[]);
    let env = compare_env(&[&unused], "[sets]\npanel = [\"a1\"]\nt = [\"a1\"]\n");
    for (arguments, words) in [
        (&["-m", "a1,panell"][..], "did you mean \"panel\"?"),
        (&["--set", "u"], "panel, t"),
        (&["--tag", "x"], "a, any"),
        (&[], "choose one with --set: panel, t"),
        (&["--all", "--view", "stak"], "did you mean \"stack\"?"),
        (&["--all", "--view", "live"], "requires an interactive terminal"),
        (&["--all", "--max-concurrency", "0"], "max-concurrency"),
    ] {
        // `-` with `--stdin-timeout 0` waits for standard input without a timeout: validation must come first.
        let arguments = [&["compare", "--stdin-timeout", "0"][..], arguments, &["-"]].concat();
        let result = env.run(&arguments).expect_exit(2).expect_stderr(&[words]);
        assert_eq!(result.stdout, "");
    }
    let dangling = TestEnv::with_config("[endpoints.a]\nbase_url = \"http://h/v1\"\n[sets]\ns = [\"gone\"]\n");
    dangling.run(&["compare", "hi"]).expect_exit(3).expect_stderr(&["unknown model \"gone\"", "set \"s\""]);
    TestEnv::new().run(&["compare", "hi"]).expect_exit(4).expect_stderr(&["no API key in the environment"]);
}

#[test]
fn duplicate_model_gets_one_call() {
    let server = ScriptedServer::with_replies(&[&answer("once")]);
    let result = compare_env(&[&server], "")
        .run(&["compare", "-m", "a1", "-m", "a1", "hi"])
        .expect_exit(0)
        .expect_stderr(&["used once"]);
    assert_eq!(result.stdout, "--- 1 a1  ok\nonce\n");
}

#[test]
fn max_concurrency_limits_concurrent_calls() {
    let (open, gate) = mpsc::channel();
    let first =
        ScriptedServer::start(vec![vec![ServerStep::Gate(gate), ServerStep::Bytes(answer("first").into_bytes())]]);
    let second = ScriptedServer::with_replies(&[&answer("second")]);
    let env = compare_env(&[&first, &second], "");
    let mut command = env.command();
    command.args(["compare", "--all", "--max-concurrency", "1", "--view", "tagged", "hi"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("program starts");
    while first.requests().is_empty() {
        std::thread::yield_now();
    }
    assert!(second.requests().is_empty());
    open.send(()).expect("server waits at the gate");
    let result = crate::common::CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(0);
    assert_eq!(result.stdout, "a1| first\nb1| second\n");
}

#[test]
fn closed_stdout_exits_0_without_an_error() {
    let server = ScriptedServer::start(vec![vec![
        ServerStep::Bytes(format!("{STREAM}{}", content_event("line\n")).into_bytes()),
        ServerStep::Repeat(content_event("more\n").into_bytes()),
    ]]);
    let env = compare_env(&[&server], "");
    let mut command = env.command();
    command.args(["compare", "--all", "--view", "tagged", "hi"]).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("program starts");
    let mut line = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut reader, &mut line).expect("readable line");
    drop(reader);
    let result = crate::common::CommandResult::from_output(child.wait_with_output().expect("child has been started"))
        .expect_exit(0);
    assert_eq!((line.as_str(), result.stderr.as_str()), ("a1| line\n", ""));
}

#[test]
fn output_file_has_the_answers_without_the_table() {
    let server = ScriptedServer::with_replies(&[&answer("text")]);
    let env = compare_env(&[&server], "");
    let path = env.path("answers.txt");
    let result = env.run(&["compare", "--all", "--output", path.to_str().expect("UTF-8 path"), "hi"]).expect_exit(0);
    assert_eq!(
        (result.stdout.as_str(), std::fs::read_to_string(path).expect("written file").as_str()),
        ("", "--- 1 a1  ok\ntext\n")
    );
    let unused = ScriptedServer::with_replies(&[]);
    let failed =
        compare_env(&[&unused], "").run(&["compare", "--all", "--output", "/no/such/folder/x", "hi"]).expect_exit(1);
    assert!(failed.stderr.contains("/no/such/folder"), "{failed:?}");
}

#[test]
fn columns_view_works_on_a_pipe() {
    let (one, two) =
        (ScriptedServer::with_replies(&[&answer("left")]), ScriptedServer::with_replies(&[&answer("借用")]));
    let result = compare_env(&[&one, &two], "").run(&["compare", "--all", "--view", "columns", "hi"]).expect_exit(0);
    let rows: Vec<&str> = result.stdout.lines().collect();
    assert_eq!(rows[0], format!(" {:37} | 2 b1  ok", "1 a1  ok"));
    assert_eq!(rows[2], format!(" {:37} | 借用", "left"));
}

#[cfg(unix)]
mod on_a_terminal {

    use rustix::{
        process::{Pid, Signal, kill_process},
        termios::{LocalModes, tcgetattr},
    };

    use super::*;
    use crate::common::screen::TerminalProcess;

    /// The text of a terminal of this size after `bytes`, including the scrollback.
    fn rendered_text(output: &str, columns: u16, rows: u16) -> String {
        let cells = |count| std::num::NonZero::new(count).expect("nonzero size");
        let mut terminal = vt100::Parser::new(cells(rows), cells(columns), 1000);
        terminal.process(output.replace('\n', "\r\n").as_bytes());
        let mut text = String::new();
        terminal.screen_mut().set_scrollback(1000);
        let scrollback_rows = terminal.screen().scrollback();
        for offset in (1..=scrollback_rows).rev() {
            terminal.screen_mut().set_scrollback(offset);
            text += terminal.screen().rows(0, columns).next().expect("row").trim_end();
            text.push('\n');
        }
        terminal.screen_mut().set_scrollback(0);
        text + &terminal.screen().contents()
    }

    fn run_on_terminal(env: &TestEnv, arguments: &[&str], size: (u16, u16)) -> (String, i32) {
        let mut command = env.command();
        command.env_remove("COLUMNS").args(arguments);
        TerminalProcess::spawn(command, false, size).wait_for_exit()
    }

    #[test]
    fn final_columns_stay_and_the_live_region_is_erased() {
        let (one, two) = (
            ScriptedServer::with_replies(&[&answer("# Left\n\nwords")]),
            ScriptedServer::with_replies(&[&answer("借用检查器。")]),
        );
        let (output, code) = run_on_terminal(&compare_env(&[&one, &two], ""), &["compare", "--all", "hi"], (80, 24));
        assert_eq!(code, 0);
        let text = rendered_text(&output, 80, 24);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], format!(" {:37} | 2 b1  ok", "1 a1  ok"), "{text}");
        assert_eq!(rows[2], format!(" {:37} | 借用检查器。", "Left"), "{text}");
        assert!(rows[6].starts_with("#  model  state") && !text.contains("running"), "{text}");
        for query in ["\u{1b}[6n", "\u{1b}[c", "\u{1b}[5n", "\u{1b}[18t", "\u{1b}]10;?", "\u{1b}]11;?"] {
            assert!(!output.contains(query), "terminal query {query:?}");
        }
    }

    #[test]
    fn running_rows_are_shown_before_the_first_token() {
        let (open, gate) = mpsc::channel();
        let slow =
            ScriptedServer::start(vec![vec![ServerStep::Gate(gate), ServerStep::Bytes(answer("late").into_bytes())]]);
        let fast = ScriptedServer::with_replies(&[&answer("early")]);
        let env = compare_env(&[&slow, &fast], "");
        let mut command = env.command();
        command.env_remove("COLUMNS").args(["compare", "--all", "hi"]);
        let mut screen = TerminalProcess::spawn(command, false, (80, 24));
        screen.wait_for("2/2 running");
        screen.wait_for("1/2 running");
        let text = rendered_text(&screen.output.replace("\r\n", "\n"), 80, 24);
        assert!(text.contains(" 1 a1  ..") && text.contains(" 2 b1  ok"), "{text}");
        // Repeated resizing must not damage the final view.
        for width in [20, 60, 33, 80, 41, 80] {
            screen.resize(width, 10);
        }
        screen.resize(80, 24);
        open.send(()).expect("server waits at the gate");
        let (output, code) = screen.wait_for_exit();
        assert_eq!(code, 0);
        assert!(rendered_text(&output, 80, 24).contains("late"), "{output:?}");
    }

    /// A run on a terminal with keyboard input, after one answer is complete and while the other one waits for its
    /// gate.
    fn start_half_finished() -> (TestEnv, TerminalProcess, mpsc::Sender<()>, [ScriptedServer; 2]) {
        let (open, gate) = mpsc::channel();
        let slow =
            ScriptedServer::start(vec![vec![ServerStep::Gate(gate), ServerStep::Bytes(answer("late").into_bytes())]]);
        let fast = ScriptedServer::with_replies(&[&answer("early")]);
        let env = compare_env(&[&slow, &fast], "");
        let mut command = env.command();
        command.env_remove("COLUMNS").current_dir(env.folder.path()).args(["compare", "--all", "hi"]);
        let mut screen = TerminalProcess::spawn(command, true, (80, 24));
        screen.wait_for("1/2 running");
        screen.wait_for_no_echo();
        (env, screen, open, [slow, fast])
    }

    #[test]
    fn sigquit_restores_the_terminal() {
        let (_env, mut screen, _open, _servers) = start_half_finished();
        kill_process(Pid::from_child(&screen.child), Signal::QUIT).expect("running process");
        while screen.read() {}
        assert_eq!(screen.child.wait().expect("child has been started").code(), Some(128 + Signal::QUIT.as_raw()));
        assert!(tcgetattr(&screen.terminal).expect("open terminal").local_modes.contains(LocalModes::ECHO));
        let text = rendered_text(&screen.output.replace("\r\n", "\n"), 80, 24);
        assert_eq!(text.trim(), "", "the live region must be erased");
    }

    #[test]
    fn sigterm_ends_the_process_while_terminal_output_is_stopped() {
        let (_env, mut screen, _open, _servers) = start_half_finished();
        screen.stop_output();
        kill_process(Pid::from_child(&screen.child), Signal::TERM).expect("running process");
        assert_eq!(screen.child.wait().expect("child has been started").code(), Some(130));
    }

    /// On other systems the child holds the controlling side open itself.
    #[cfg(target_os = "linux")]
    #[test]
    fn closed_terminal_exits_130_and_the_answer_is_recorded() {
        let (env, screen, open, _servers) = start_half_finished();
        let TerminalProcess { mut child, terminal, .. } = screen;
        drop(terminal);
        open.send(()).expect("server waits at the gate");
        assert_eq!(child.wait().expect("child has been started").code(), Some(130));
        assert_eq!(env.run(&["history", "show", "@1"]).expect_exit(0).stdout, "late\n", "the answer must be recorded");
    }

    #[test]
    fn plain_mode_has_no_escape_sequences() {
        for (flags, environment) in
            [(&["--plain"][..], &[][..]), (&[], &[("MMCHAT_PLAIN", "1")]), (&[], &[("TERM", "dumb")])]
        {
            let (one, two) =
                (ScriptedServer::with_replies(&[&answer("**one**")]), ScriptedServer::with_replies(&[&unauthorized()]));
            let env = compare_env(&[&one, &two], "");
            let mut command = env.command();
            command.args(["compare", "--all", "hi"]).args(flags);
            let mut screen = TerminalProcess::with_env(command, environment);
            while screen.read() {}
            assert!(!screen.output.contains('\u{1b}') && screen.output.contains("**one**"), "{:?}", screen.output);
        }
    }

    #[test]
    fn no_color_disables_styles_but_not_live_rows() {
        let server = ScriptedServer::with_replies(&[&answer("text")]);
        let env = compare_env(&[&server], "");
        let mut command = env.command();
        command.args(["compare", "--all", "hi"]);
        let (output, _) = TerminalProcess::with_env(command, &[("NO_COLOR", "1")]).wait_for_exit();
        let styles = output
            .split('\u{1b}')
            .skip(1)
            .filter(|part| part[..=part.find(char::is_alphabetic).unwrap_or(0)].ends_with('m'));
        assert_eq!(styles.count(), 0, "{output:?}");
        assert!(output.contains("1/1 running"), "{output:?}");
    }

    #[test]
    fn narrow_and_wide_terminals_show_all_text() {
        for size in [(20, 5), (400, 50)] {
            let text = "words and 借用检查器在编译期运行。 ".repeat(5);
            let (one, two) =
                (ScriptedServer::with_replies(&[&answer(&text)]), ScriptedServer::with_replies(&[&unauthorized()]));
            let (output, code) = run_on_terminal(&compare_env(&[&one, &two], ""), &["compare", "--all", "hi"], size);
            assert_eq!(code, 7);
            let letters = |text: &str| text.split(|c: char| c.is_whitespace() || "|-".contains(c)).collect::<String>();
            let shown = letters(&rendered_text(&output, size.0, size.1));
            assert!(shown.contains("Incorrect") && shown.contains("b1"), "{shown}");
            assert!(size.0 > 20 || shown.contains(&letters(&text)), "{shown}");
        }
    }

    #[test]
    fn long_line_with_escape_sequences_is_sanitized() {
        let long = format!("{}\u{1b}[2J\u{1b}]52;c;aGk=\u{7}end", "x".repeat(1_000_000));
        let (one, two) =
            (ScriptedServer::with_replies(&[&answer(&long)]), ScriptedServer::with_replies(&[&answer("short")]));
        let (output, code) = run_on_terminal(&compare_env(&[&one, &two], ""), &["compare", "--all", "hi"], (80, 24));
        assert_eq!(code, 0);
        assert!(output.matches('x').count() >= 1_000_000 && !output.contains("[2J") && !output.contains("]52"));
    }
}
