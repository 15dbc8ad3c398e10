//! Keyboard input of `compare` while answers are streamed.

use std::sync::mpsc;

use crate::common::{
    STOP, STREAM, ScriptedServer, ServerStep, TestEnv, answer, content_event, screen::TerminalProcess,
};
use rustix::termios::{LocalModes, tcgetattr};

/// A server whose first answer pauses after `text` until the gate opens; `later` are its next answers.
fn gated_server(text: &str, later: &[&str]) -> (ScriptedServer, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let first = vec![
        ServerStep::Bytes(format!("{STREAM}{}", content_event(text)).into_bytes()),
        ServerStep::Gate(gate),
        ServerStep::Bytes(STOP.as_bytes().to_vec()),
    ];
    let later = later.iter().map(|text| vec![ServerStep::Bytes(answer(text).into_bytes())]);
    (ScriptedServer::start([first].into_iter().chain(later).collect()), open)
}

fn compare_env(a: &ScriptedServer, b: &ScriptedServer) -> TestEnv {
    TestEnv::with_models(&[("a", a), ("b", b)])
}

fn start(env: &TestEnv) -> TerminalProcess {
    let mut command = env.command();
    command.env_remove("COLUMNS").args(["compare", "-m", "a,b", "hi"]);
    let screen = TerminalProcess::spawn(command, true, (100, 30));
    screen.wait_for_no_echo();
    screen
}

fn is_terminal_restored(screen: &TerminalProcess) -> bool {
    let modes = tcgetattr(&screen.terminal).expect("open terminal").local_modes;
    modes.contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
}

#[test]
fn one_call_is_canceled_and_the_other_continues() {
    let ((a, _gate), (b, open)) = (gated_server("half of a ", &[]), gated_server("all of b ", &[]));
    let env = compare_env(&a, &b);
    let mut screen = start(&env);
    screen.consume_until("half of a");
    screen.consume_until("all of b");
    screen.type_keys("1x");
    screen.consume_until("stopped");
    screen.consume_until("1/2 running");
    open.send(()).expect("server waits at the gate");
    screen.consume_until("conversation 1");
    assert!(is_terminal_restored(&screen));
    let (_, code) = screen.wait_for_exit();
    assert_eq!(code, 7);
    assert_eq!(
        env.run(&["history", "show", "@1"]).expect_exit(0).expect_stderr(&["is incomplete (stopped)"]).stdout,
        "half of a \n"
    );
    assert_eq!(env.run(&["history", "show", "@2"]).expect_exit(0).stdout, "all of b \n");
}

#[test]
fn call_is_retried_and_picked() {
    let ((a, _gate), (b, open)) = (gated_server("first try ", &["second try"]), gated_server("all of b ", &[]));
    let env = compare_env(&a, &b);
    let mut screen = start(&env);
    screen.consume_until("first try");
    screen.consume_until("all of b");
    screen.type_keys("1r");
    screen.consume_until("second try");
    screen.type_keys("p");
    screen.consume_until("1* a");
    open.send(()).expect("server waits at the gate");
    let (output, code) = screen.wait_for_exit();
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("picked 1@1 (a)") && !output.contains("first try"), "{output}");
    assert_eq!(env.run(&["history", "show", "@1"]).expect_exit(0).stdout, "second try\n");
    assert_eq!(a.requests().len(), 2);
    assert_eq!(env.run(&["history", "show", "last"]).expect_exit(0).stdout.matches("(picked)").count(), 1);
}

#[test]
fn held_view_stays_open_after_all_calls_finish() {
    let ((a, open_a), (b, open_b)) = (gated_server("all of a ", &[]), gated_server("all of b ", &["b again"]));
    let env = compare_env(&a, &b);
    let mut screen = start(&env);
    screen.consume_until("all of b");
    screen.type_keys("2z");
    screen.consume_until("un[z]oom");
    screen.type_keys(" ");
    screen.consume_until("resume (held)");
    open_a.send(()).expect("server waits at the gate");
    open_b.send(()).expect("server waits at the gate");
    screen.consume_until("0/2 running");
    // All calls have finished, and one can still be retried.
    screen.type_keys("zr ");
    let (output, code) = screen.wait_for_exit();
    assert_eq!(code, 0);
    assert!(output.contains("b again"), "{output}");
    assert_eq!(b.requests().len(), 2);
}

#[test]
fn quitting_shows_partial_answers_and_restores_the_terminal() {
    use rustix::process::{Pid, Signal, kill_process};
    for signal in [None, Some(Signal::INT), Some(Signal::TERM), Some(Signal::HUP)] {
        let ((a, _gate_a), (b, _gate_b)) = (gated_server("half of a ", &[]), gated_server("half of b ", &[]));
        let env = compare_env(&a, &b);
        let mut screen = start(&env);
        screen.consume_until("half of b");
        match signal {
            None => screen.type_keys("q"),
            Some(signal) => kill_process(Pid::from_child(&screen.child), signal).expect("running process"),
        }
        screen.consume_until("conversation 1");
        assert!(is_terminal_restored(&screen));
        let (_, code) = screen.wait_for_exit();
        assert_eq!(code, 130);
        assert_eq!(env.run(&["history", "show", "@2"]).expect_exit(0).stdout, "half of b \n");
    }
}

/// The terminal window is closed: the text that arrived has been paid for, so it is recorded.
#[test]
fn closed_terminal_keeps_the_partial_answers() {
    let ((a, _gate_a), (b, _gate_b)) = (gated_server("half of a ", &[]), gated_server("half of b ", &[]));
    let env = compare_env(&a, &b);
    let mut screen = start(&env);
    screen.wait_for("half of a");
    screen.wait_for("half of b");
    let TerminalProcess { mut child, terminal, .. } = screen;
    drop(terminal);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("running process");
    assert_eq!(child.wait().expect("child has been started").code(), Some(130));
    for (turn, text) in [("@1", "half of a \n"), ("@2", "half of b \n")] {
        assert_eq!(env.run(&["history", "show", turn]).expect_exit(0).stdout, text);
    }
}
