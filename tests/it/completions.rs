//! Shell completion: the candidates that the binary prints, and completion in interactive shells.
//!
//! The tests of zsh and fish are ignored by default, because these shells may be missing; `scripts/interop` runs them.

use std::{fs, path::Path, process::Command};

use crate::common::{CommandResult, ScriptedServer, TestEnv, http_response, screen::TerminalProcess};

const CONFIG: &str = "[endpoints.e]\nbase_url = \"http://127.0.0.1:1/v1\"\n[models.zebra-model]\nendpoint = \"e\"\nmodel = \"1\"\n\
    [models.\"通义\"]\nendpoint = \"e\"\nmodel = \"2\"\n[routes.quick-route]\nmodels = [\"zebra-model\"]\n[sets]\nyonder-set = [\"zebra-model\"]\n\
    [presets.xylo]\nprompt = \"x\"\n";

fn completion_env() -> TestEnv {
    TestEnv::with_config(CONFIG)
}

/// The candidates for the last of these words.
fn candidates(env: &TestEnv, words: &[&str]) -> Vec<String> {
    let mut command = env.command();
    command.env("COMPLETE", "fish").args(["--", "mmchat"]).args(words);
    let result = CommandResult::from_output(command.output().expect("program starts")).expect_exit(0);
    result.stdout.lines().map(|line| line.split('\t').next().expect("candidate name").to_owned()).collect()
}

#[test]
fn candidates_match_the_flag() {
    let env = completion_env();
    assert_eq!(candidates(&env, &["ask", "-m", "z"]), ["zebra-model"]);
    assert_eq!(candidates(&env, &["ask", "-m", "通"]), ["通义"]);
    assert_eq!(candidates(&env, &["ask", "-m", "q"]), ["quick-route"]);
    assert!(candidates(&env, &["ask", "-m", "y"]).is_empty(), "a set is not a single model");
    assert_eq!(candidates(&env, &["compare", "-m", "quick-route,y"]), ["quick-route,yonder-set"]);
    assert_eq!(candidates(&env, &["compare", "--set", ""]), ["yonder-set"]);
    assert_eq!(candidates(&env, &["ask", "-p", ""]), ["xylo"]);
    assert_eq!(candidates(&env, &["models", "available", ""])[0], "e");
    assert_eq!(candidates(&env, &["endpoint", "add", "deeps"]), ["deepseek"]);
    assert_eq!(candidates(&env, &["ask", "--format", "js"]), ["json", "jsonl"]);
    assert!(candidates(&env, &["comp"]).contains(&"compare".to_owned()));
}

#[test]
fn config_flag_is_honored_and_keys_complete_without_a_config() {
    let env = completion_env();
    let other = env.path("other.toml");
    fs::write(&other, "[models.otter]\n").expect("writable file");
    assert_eq!(candidates(&env, &["--config", other.to_str().expect("UTF-8 path"), "ask", "-m", "o"]), ["otter"]);
    let env_without_config = TestEnv::new();
    let mut command = env_without_config.command();
    command.env("COMPLETE", "fish").env("DEEPSEEK_API_KEY", "sk-1").args(["--", "mmchat", "ask", "-m", "deeps"]);
    let result = CommandResult::from_output(command.output().expect("program starts")).expect_exit(0);
    assert!(result.stdout.contains("deepseek/deepseek-flash"), "{result:?}");
}

#[test]
fn invalid_config_completes_nothing() {
    let env = TestEnv::with_config("[broken");
    assert!(candidates(&env, &["ask", "-m", "z"]).is_empty());
}

/// Starts an interactive shell in the home directory with the binary in its `PATH`.
fn start_shell(env: &TestEnv, program: &str, arguments: &[&str]) -> TerminalProcess {
    let binary = Path::new(env!("CARGO_BIN_EXE_mmchat")).parent().expect("parent directory").display();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", env.path("")).env("MMCHAT_CONFIG", env.path("config.toml"));
    command.env("PATH", format!("{binary}:{}", std::env::var("PATH").expect("PATH is set")));
    command.current_dir(env.path(""));
    TerminalProcess::spawn(command, true, (200, 24))
}

fn completion_script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name).display().to_string()
}

/// Types the start of several names, each followed by Tab, waits for the full names, and ends the shell.
fn assert_completes(mut screen: TerminalProcess) {
    for (typed, name) in [
        ("mmchat ask -m zeb", "zebra-model"),
        ("mmchat compare --set yon", "yonder-set"),
        ("mmchat ask -m qui", "quick-route"),
    ] {
        screen.type_keys(typed);
        screen.consume_until(typed);
        screen.type_keys("\t");
        // The shell may move the cursor before the rest of the name, so only the rest is expected.
        screen.consume_until(&name[3..]);
        screen.type_keys("\u{15}");
    }
    screen.child.kill().expect("own child");
    screen.child.wait().expect("child has been started");
}

fn start_bash(env: &TestEnv) -> TerminalProcess {
    let rc = format!("PS1='ready> '\nsource {}\n", completion_script("mmchat.bash"));
    fs::write(env.path("rc"), rc).expect("writable file");
    let mut screen =
        start_shell(env, "bash", &["--noprofile", "--rcfile", env.path("rc").to_str().expect("UTF-8 path"), "-i"]);
    screen.consume_until("ready> ");
    screen
}

fn start_zsh(env: &TestEnv) -> TerminalProcess {
    let rc = format!("PS1='ready> '\nautoload -Uz compinit\ncompinit -D -u\nsource {}\n", completion_script("_mmchat"));
    fs::write(env.path(".zshrc"), rc).expect("writable file");
    let mut screen = start_shell(env, "zsh", &["-i"]);
    screen.consume_until("ready> ");
    screen
}

#[test]
fn bash_completes_names() {
    let env = completion_env();
    let screen = start_bash(&env);
    assert_completes(screen);
}

/// An environment with the model list of a service whose ids are commands, or cannot be seen.
fn env_with_hostile_ids() -> TestEnv {
    let list = r#"{"data":[{"id":"x$(touch run)y"},{"id":"safe\u009b2J"},{"id":"safe\u202e"}]}"#;
    let server = ScriptedServer::with_replies(&[&http_response("200 OK", "content-type: application/json\r\n", list)]);
    let env = TestEnv::with_server(&server, "");
    env.run(&["models", "available", "m"]).expect_exit(0);
    env
}

#[test]
fn ids_that_cannot_be_seen_are_not_offered() {
    let env = env_with_hostile_ids();
    assert_eq!(candidates(&env, &["ask", "-m", "m/"]), ["m/x$(touch run)y"]);
}

/// Completes the id in `shell`, runs the command, and checks that no part of the id ran.
fn assert_id_does_not_run(env: &TestEnv, mut screen: TerminalProcess) {
    screen.type_keys("mmchat ask --dry-run hi -m m/x\t");
    screen.consume_until("\\)y");
    screen.type_keys("\r");
    screen.consume_until("ready> ");
    assert!(!env.path("run").exists(), "the id ran as a command");
    screen.child.kill().expect("own child");
    screen.child.wait().expect("child has been started");
}

#[test]
fn bash_quotes_ids() {
    let env = env_with_hostile_ids();
    let screen = start_bash(&env);
    assert_id_does_not_run(&env, screen);
}

#[test]
#[ignore = "needs zsh; scripts/interop runs it"]
fn zsh_quotes_ids() {
    let env = env_with_hostile_ids();
    let screen = start_zsh(&env);
    assert_id_does_not_run(&env, screen);
}

#[test]
#[ignore = "needs zsh; scripts/interop runs it"]
fn zsh_completes_names() {
    let env = completion_env();
    let screen = start_zsh(&env);
    assert_completes(screen);
}

#[test]
#[ignore = "needs fish; scripts/interop runs it"]
fn fish_completes_names() {
    // Interactive fish waits for replies to terminal queries, which this terminal does not answer: use `complete -C`.
    let env = completion_env();
    let run = |line: &str| {
        let mut command = Command::new("fish");
        let binary = Path::new(env!("CARGO_BIN_EXE_mmchat")).parent().expect("parent directory").display();
        command.env_clear().env("HOME", env.path("")).env("MMCHAT_CONFIG", env.path("config.toml"));
        command.env("PATH", format!("{binary}:{}", std::env::var("PATH").expect("PATH is set")));
        command.args([
            "--private",
            "-c",
            &format!("source {}; complete -C '{line}'", completion_script("mmchat.fish")),
        ]);
        CommandResult::from_output(command.output().expect("program starts")).expect_exit(0).stdout
    };
    assert_eq!(run("mmchat ask -m zeb"), "zebra-model\n");
    assert_eq!(run("mmchat compare --set yon"), "yonder-set\n");
    assert_eq!(run("mmchat ask -m qui"), "quick-route\n");
}
